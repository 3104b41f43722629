import numpy as np
import pytest
import torch

from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.registry import MODELS
from opsin.restoration.datasets import PairedImageDataset, SuperResolutionSample
from opsin.restoration.degradation import bicubic
from opsin.restoration.metrics import luma, psnr
from opsin.restoration.models import HAT, InterpolationInit, SuperResolver
from opsin.restoration.models.interpolation_init import subpixel_filters

pytestmark = pytest.mark.xdist_group("hat_training")  # the training that they share is done once

TINY = dict(
    type="opsin.HAT",
    img_size=16,
    window_size=8,
    embed_dim=12,
    depths=(2,),
    num_heads=(2,),
    squeeze_factor=3,
    upscale=2,
)
PIPELINE = [dict(type="opsin.LoadPair"), dict(type="opsin.PackPair")]


def bicubic_psnr(root, scale):
    """Mean PSNR-Y of bicubic enlargement over the pairs of `root`."""
    values = []
    for item in PairedImageDataset(scale=scale, data_root=str(root), pipeline=PIPELINE):
        lr, hr = (t.permute(1, 2, 0).numpy() for t in (item["inputs"], item["data_samples"].gt_img))
        inner = (slice(scale, -scale),) * 2
        values.append(psnr(luma(bicubic(lr, scale))[inner], luma(hr)[inner]))
    return float(np.mean(values))


@pytest.fixture(scope="module")
def trained(samples, tmp_path_factory):
    """A third of the sample config's training: its last checkpoint and the config."""
    work_dir = tmp_path_factory.mktemp("work")
    no_workers = [
        f"{loader}_dataloader.{setting}"
        for loader in ("train", "val", "test")
        for setting in ("num_workers=0", "persistent_workers=False")
    ]
    shorter = ["train_cfg.max_iters=90", "param_scheduler.1.end=90", "val_dataloader.dataset.indices=4"]
    overrides = [*shorter, *no_workers]
    cfg = load_config("hat_tiny_x2_samples", data=samples, overrides=overrides)
    train(cfg, work_dir)
    return cfg, work_dir / "iter_90.pth"


def test_a_short_training_beats_bicubic_with_averaged_weights(trained, samples, tmp_path):
    cfg, checkpoint = trained
    content = torch.load(checkpoint, weights_only=True)
    averaged, raw = content["state_dict"], content["ema_state_dict"]
    assert any(not torch.equal(averaged[name], raw[f"module.{name}"]) for name in averaged)
    metrics = evaluate(cfg, checkpoint, work_dir=tmp_path)
    assert metrics["sr/psnr_y"] > bicubic_psnr(samples / "val", 2)
    model = MODELS.build(cfg.model)
    model.load_state_dict(averaged)
    item = PairedImageDataset(scale=2, data_root=str(samples / "val"), pipeline=PIPELINE)[0]
    batch = {key: [value] for key, value in item.items()}
    predicted = model.eval().test_step(batch)[0].pred_img
    assert predicted.shape == item["data_samples"].gt_img.shape and predicted.dtype == torch.uint8


def test_a_checkpoint_of_another_scale_is_refused(trained, samples, tmp_path):
    cfg = load_config("hat_tiny_x2_samples", data=samples, overrides=["model.network.upscale=4"])
    with pytest.raises(UserError, match="upsample"):
        evaluate(cfg, trained[1], work_dir=tmp_path)


def test_a_few_patches_are_learned():
    model = SuperResolver(TINY).train()
    lr = torch.rand(4, 3, 8, 8)
    hr = torch.nn.functional.interpolate(lr, scale_factor=2, mode="bilinear")
    samples = [SuperResolutionSample(gt_img=image) for image in hr]
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        loss = model(list(lr), samples, mode="loss")["loss_pixel"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_modes_agree_and_keep_the_type_of_the_picture():
    model = SuperResolver(TINY).eval()
    picture = torch.randint(0, 256, (3, 10, 9), dtype=torch.uint8)
    with torch.no_grad():
        raw = model([picture])[0]
    sample = model([picture], mode="predict")[0]
    assert torch.equal(sample.pred_img, (raw.clamp(0, 1) * 255).round().byte())
    deep = torch.from_numpy(picture.numpy().astype(np.uint16) * 257)
    assert model([deep], mode="predict")[0].pred_img.dtype == torch.uint16
    with pytest.raises(UserError, match="a loss needs HR pictures"):
        model([picture], mode="loss")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_interpolation_init_enlarges_before_training(samples, scale):
    network = HAT(
        img_size=16, window_size=8, embed_dim=24, depths=(1,), num_heads=(2,), squeeze_factor=6, upscale=scale
    )
    InterpolationInit()(network)
    assert torch.allclose(subpixel_filters(scale).sum((1, 2)), torch.ones(scale**2))
    item = PairedImageDataset(scale=scale, data_root=str(samples / "val"), pipeline=PIPELINE)[3]
    lr = item["inputs"].permute(1, 2, 0).numpy()
    with torch.inference_mode():
        out = network(item["inputs"][None] / 255)[0].clamp(0, 1).mul(255).permute(1, 2, 0).numpy()
    assert psnr(out[8:-8, 8:-8], bicubic(lr, scale)[8:-8, 8:-8]) > 32
    network(torch.rand(1, 3, 8, 8)).square().sum().backward()
    assert all(
        p.grad.abs().sum() > 0
        for name, p in network.named_parameters()
        if name.startswith(("upsample", "conv_"))
    )


def test_interpolation_init_is_for_enlarging_networks():
    with pytest.raises(TypeError, match="InterpolationInit is for HAT"):
        InterpolationInit()(torch.nn.Conv2d(3, 3, 3))


@pytest.mark.parametrize("name", get_system("hat").configs)
def test_every_config_builds(name):
    cfg = load_config(name)
    assert cfg.task == "super_resolution"
    assert cfg.val_evaluator.crop_border == cfg.model.network.upscale == cfg.val_dataloader.dataset.scale
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert model.network.upscale == cfg.train_dataloader.dataset.scale


def test_listed_configs_are_those_on_disk():
    assert sorted(get_task("super_resolution").configs()) == sorted(get_system("hat").configs)
