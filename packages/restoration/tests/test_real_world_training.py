import copy
import json
import multiprocessing
import shutil

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper

from opsin.core.engine.config import build_model, load_config
from opsin.core.engine.predictor import Predictor
from opsin.core.engine.runner import Runner, train
from opsin.core.engine.runner import test as evaluate
from opsin.core.errors import UserError
from opsin.restoration.adversarial import OptimizerPerModule, SelfTrainingDataParallel
from opsin.restoration.datasets import SuperResolutionSample
from opsin.restoration.degradation import bicubic
from opsin.restoration.metrics import luma, psnr
from opsin.restoration.models import HAT, RealWorldSuperResolver

# Noise alone, which a network learns to take away within seconds.
NOISY = dict(
    first=dict(resize_probs=(0, 0, 1), sigma=(0.2, 0.6)),
    second=dict(resize_probs=(0, 0, 1), blur_prob=0.0, gaussian_sigma=(20, 30), poisson_scale=(2, 3)),
)
HERE = [f"{loader}_dataloader.num_workers=0" for loader in ("train", "val", "test")]
FEW = [f"{loader}_dataloader.dataset.indices=6" for loader in ("val", "test")]


def bicubic_psnr(loader):
    """Mean PSNR-Y of bicubic enlargement of what a loader gives."""
    values = []
    for item in loader:
        lr, hr = (t.permute(1, 2, 0).numpy() for t in (item["inputs"][0], item["data_samples"][0].gt_img))
        values.append(psnr(luma(bicubic(lr, 2))[2:-2, 2:-2], luma(hr)[2:-2, 2:-2]))
    return float(np.mean(values))


@pytest.fixture(scope="module")
def first_phase(samples, tmp_path_factory):
    """20 iterations of the sample config on noisy pictures: its config and last checkpoint."""
    short = [
        "train_cfg.max_iters=20",
        "param_scheduler.1.end=20",
        "train_dataloader.dataset.pipeline.3.size=12",
    ]
    cfg = load_config("hat_real_tiny_x2_samples", data=samples, overrides=[*HERE, *FEW, *short])
    cfg.train_dataloader.dataset.pipeline[2].update(NOISY)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline[1].update(NOISY)
    work_dir = tmp_path_factory.mktemp("l1")
    train(cfg, work_dir)
    return cfg, work_dir / "iter_20.pth"


def test_the_first_phase_removes_noise_that_bicubic_keeps(first_phase, tmp_path):
    cfg, checkpoint = first_phase
    reached = evaluate(cfg, checkpoint, work_dir=tmp_path)["sr/psnr_y"]
    untrained = build_model(cfg)
    untrained.init_weights()
    torch.save({"state_dict": untrained.state_dict()}, tmp_path / "untrained.pth")
    start = evaluate(cfg, tmp_path / "untrained.pth", work_dir=tmp_path)["sr/psnr_y"]
    baseline = bicubic_psnr(Runner.build_dataloader(cfg.test_dataloader, seed=0))
    assert reached > max(baseline, start) + 0.8


@pytest.fixture(scope="module")
def second_phase(samples, first_phase, tmp_path_factory):
    """Five iterations against a discriminator, two for each update; checkpoints after 3 and 5."""
    folder = tmp_path_factory.mktemp("gan")
    torch.manual_seed(0)
    vgg = {"features.0.weight": torch.randn(64, 3, 3, 3) / 5, "features.0.bias": torch.zeros(64)}
    torch.save(vgg, folder / "vgg19.pth")
    cfg = load_config(
        "hat_real_tiny_x2_gan_samples",
        data=samples,
        overrides=[*HERE, *FEW, "train_cfg.max_iters=5", "default_hooks.checkpoint.interval=3"],
    )
    cfg.train_dataloader.update(batch_size=2)
    cfg.train_dataloader.dataset.pipeline[2].sharpen = True
    cfg.train_dataloader.dataset.pipeline[3].size = 8
    cfg.default_hooks.logger.interval = 1
    cfg.model.perceptual_loss = dict(
        type="opsin.PerceptualLoss", checkpoint=str(folder / "vgg19.pth"), layer_weights=dict(conv1_1=1.0)
    )
    for part in ("network", "discriminator"):
        cfg.optim_wrapper[part].accumulative_counts = 2
    cfg.load_from = str(first_phase[1])
    train(cfg, folder / "whole")
    return cfg, folder


def test_the_second_phase_starts_from_the_first_and_moves_both_networks(first_phase, second_phase):
    content = torch.load(second_phase[1] / "whole" / "iter_5.pth", weights_only=True)
    averaged, raw = content["state_dict"], content["ema_state_dict"]
    before = torch.load(first_phase[1], weights_only=True)["state_dict"]
    assert {f"module.{name.removeprefix('network.')}" for name in before} == set(raw) - {"steps"}
    for name, tensor in before.items():
        moved = (raw[f"module.{name.removeprefix('network.')}"] - tensor).abs().max()
        assert (averaged[name] - tensor).abs().max() <= moved < 0.01
    assert not torch.equal(averaged["network.conv_last.weight"], raw["module.conv_last.weight"])
    assert len(content["optimizer"]["discriminator"]["state"]) == 12
    assert not any("perceptual" in name for name in averaged)


def test_every_loss_is_logged(second_phase):
    (file,) = (second_phase[1] / "whole").glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    losses = {"loss_pixel", "loss_perceptual", "loss_gan", "loss_real", "loss_fake"}
    logits = {"logit_real", "logit_fake"}
    steps = [row for row in rows if "loss_gan" in row]
    assert len(steps) == 5
    assert all(np.isfinite(row[name]) for row in steps for name in losses | logits)
    for row in steps:
        parts = row["loss_pixel"] + row["loss_perceptual"] + row["loss_gan"]
        assert row["loss"] == pytest.approx(parts, rel=1e-4)


def test_a_resumed_second_phase_ends_where_the_whole_one_does(second_phase):
    cfg, folder = second_phase
    (folder / "resumed").mkdir()
    shutil.copy(folder / "whole" / "iter_3.pth", folder / "resumed")
    (folder / "resumed" / "last_checkpoint").write_text(str(folder / "resumed" / "iter_3.pth"))
    train(cfg, folder / "resumed", resume=True)
    whole, resumed = (
        torch.load(folder / run / "iter_5.pth", weights_only=True) for run in ("whole", "resumed")
    )
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(tensor, resumed[part][name]) for name, tensor in whole[part].items())
    for network in ("network", "discriminator"):
        states = whole["optimizer"][network]["state"], resumed["optimizer"][network]["state"]
        for number, state in states[0].items():
            assert all(torch.equal(value, states[1][number][name]) for name, value in state.items())


@pytest.mark.parametrize("phase", ["", "gan_"])
def test_authors_files_predict_and_are_measured(samples, tmp_path, phase):
    cfg = load_config(f"hat_real_tiny_x2_{phase}samples", data=samples, overrides=[*HERE, *FEW])
    network = HAT(**{k: v for k, v in cfg.model.network.items() if k not in ("type", "init_cfg")}).eval()
    window = {"layers.0.residual_group.relative_position_index_SA": torch.zeros(64, 64)}
    other = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    file = tmp_path / "Real_HAT_GAN_SRx2.pth"
    torch.save({"params": other, "params_ema": network.state_dict() | window}, file)
    picture = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    result = Predictor(cfg, file).infer(picture, tmp_path / "a.png").pred_img
    with torch.no_grad():
        expected = network(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)[0]
    assert torch.equal(result, (expected.clamp(0, 1) * 255).round().byte())
    mine = Predictor(cfg, file).model
    torch.save({"state_dict": mine.state_dict()}, tmp_path / "mine.pth")
    cfg.test_dataloader.dataset.indices = 1
    measured = [evaluate(cfg, path, work_dir=tmp_path) for path in (file, tmp_path / "mine.pth")]
    assert measured[0] == measured[1]


def small_model():
    torch.manual_seed(0)
    width = dict(embed_dim=12, depths=(2,), num_heads=(2,), squeeze_factor=3)
    network = dict(type="opsin.HAT", img_size=16, window_size=8, upscale=2, drop_path_rate=0.0, **width)
    critic = dict(type="opsin.UNetDiscriminatorSN", num_in_ch=3, num_feat=8)
    return RealWorldSuperResolver(discriminator=critic, network=network).train()


def small_batch(count=4):
    """Noise and its enlarged mean: what is real is rough, and what the network makes is smooth."""
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(count, 3, 16, 16, generator=generator)
    lr = torch.nn.functional.avg_pool2d(hr, 2)
    return dict(inputs=list(lr), data_samples=[SuperResolutionSample(gt_img=image) for image in hr])


def optimizers(model, network=0.0, discriminator=0.0, kind="SGD"):
    parts = dict(network=network, discriminator=discriminator)
    constructor = OptimizerPerModule({n: dict(optimizer=dict(type=kind, lr=lr)) for n, lr in parts.items()})
    return constructor(model)


def test_each_loss_reaches_its_own_network():
    model, data = small_model(), small_batch()
    restored = model(data["inputs"])
    sum(model.generator_losses(restored, data["data_samples"]).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.network.conv_last.parameters())
    assert all(p.grad is None and p.requires_grad for p in model.discriminator.parameters())
    model.network.zero_grad()
    losses = model.discriminator_losses(restored.detach(), data["data_samples"])
    (losses["loss_real"] + losses["loss_fake"]).backward()
    assert all(p.grad is not None for p in model.discriminator.parameters())
    assert all(p.grad is None for p in model.network.parameters())


def test_sharpened_pictures_are_targets_and_the_others_are_the_real_ones():
    model, data = small_model(), small_batch()
    samples = copy.deepcopy(data["data_samples"])
    restored = model(data["inputs"]).detach()
    for sample, image in zip(samples, restored, strict=True):
        sample.sharp_img = image.clone()
    assert model.generator_losses(restored, samples)["loss_pixel"] == 0
    assert model(data["inputs"], samples, mode="loss")["loss_pixel"] < 1e-6
    model.discriminator.eval()  # spectral norm then stays as it is
    logits = [model.discriminator_losses(restored, given) for given in (samples, data["data_samples"])]
    assert logits[0]["logit_real"] == logits[1]["logit_real"] != logits[0]["logit_fake"]


def test_the_discriminator_learns_to_tell_real_from_restored():
    model, data = small_model(), small_batch(4)
    wrapper = optimizers(model, discriminator=3e-3, kind="Adam")
    network = copy.deepcopy(model.network.state_dict())
    for _ in range(30):
        log = model.train_step(data, wrapper)
    assert all(torch.equal(tensor, network[name]) for name, tensor in model.network.state_dict().items())
    held_out = small_batch(12)
    model.eval()
    with torch.no_grad():
        fake = model.discriminator(model(held_out["inputs"][4:]))
        real = model.discriminator(torch.stack([s.gt_img for s in held_out["data_samples"][4:]]))
    assert (real > 0).float().mean() > 0.9 and (fake < 0).float().mean() > 0.9
    assert log["loss_real"] + log["loss_fake"] < 0.6 < 2 * np.log(2)


def test_the_network_follows_the_discriminator():
    model, data = small_model(), small_batch()
    model.pixel_loss.loss_weight = 0.0
    wrapper = optimizers(model, network=1e-3, kind="Adam")
    losses = [model.train_step(data, wrapper)["loss_gan"].item() for _ in range(10)]
    assert losses[-1] < losses[0]


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path):
    model, data = small_model(), small_batch(4)
    for _ in range(2):
        model.train_step(data, optimizers(model, 0.1, 0.1))
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=train_a_half, args=(rank, tmp_path)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    halves = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1)]
    start = small_model().state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(halves[0][name], halves[1][name])
        torch.testing.assert_close(halves[0][name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    assert not torch.allclose(start["discriminator.conv0.weight"], tensor_of(model, "discriminator.conv0"))
    assert not torch.allclose(start["network.conv_last.weight"], tensor_of(model, "network.conv_last"))


def tensor_of(model, layer):
    return model.get_submodule(layer).weight


def train_a_half(rank, folder):
    """Two steps on two of four pictures, in process `rank` of two."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    model = SelfTrainingDataParallel(module=small_model())
    data = {name: values[2 * rank : 2 * rank + 2] for name, values in small_batch(4).items()}
    for _ in range(2):
        model.train_step(data, optimizers(model, 0.1, 0.1))
    torch.save(model.module.state_dict(), folder / f"{rank}.pth")
    torch.distributed.destroy_process_group()


def test_mistakes_are_named():
    model, data = small_model(), small_batch()
    with pytest.raises(UserError, match="needs an optimizer for network and one for discriminator"):
        model.train_step(data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    with pytest.raises(UserError, match="unknown part of RealWorldSuperResolver in optim_wrapper 'networks'"):
        OptimizerPerModule(dict(networks=dict(optimizer=dict(type="SGD", lr=0.1))))(model)
    with pytest.raises(UserError, match="multiples of 8, and got 20x16"):
        model.discriminator(torch.zeros(1, 3, 16, 20))


def test_published_settings():
    first, second = load_config("hat_real_x4_l1"), load_config("hat_real_x4_gan")
    assert first.train_cfg.max_iters == 1_000_000 and second.train_cfg.max_iters == 400_000
    rates = [first.optim_wrapper, second.optim_wrapper.network, second.optim_wrapper.discriminator]
    assert all(w.optimizer.lr == 1e-4 and tuple(w.optimizer.betas) == (0.9, 0.99) for w in rates)
    assert second.custom_hooks[0].momentum == first.custom_hooks[0].momentum == 0.001
    for phase in ("l1", "gan"):
        plain, sharper = load_config(f"hat_real_x4_{phase}"), load_config(f"hat_real_x4_{phase}_sharper")
        assert "sharpen" not in plain.train_dataloader.dataset.pipeline[2]
        assert sharper.train_dataloader.dataset.pipeline[2].sharpen
        assert sharper.model == plain.model
