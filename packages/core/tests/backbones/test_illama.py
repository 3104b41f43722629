from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import Tensor, nn

from opsin.core import create_model
from opsin.core.backbones.illama import (
    ILLaMA,
    ILLaMAClassifier,
    SoftMaskHook,
    load_llama2,
    soft_mask_schedule,
)
from opsin.core.backbones.illama.model import Block, MaskedAttention, SwiGLU, rotate, rotation, soft_mask
from opsin.core.backbones.illama.settings import ILLaMASettings
from opsin.core.engine.runner import Runner
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 1, "img_size": 32, "patch_size": 8}
CPU = torch.device("cpu")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def case_of(
    source: str, model: nn.Module | None, inputs: dict, outputs: dict[str, list[int]], built_with: dict
) -> dict[str, Tensor]:
    """What the adapter makes of a case as another run of the authors' code would give it."""
    tensors = model.state_dict() if model is not None else {}
    meta = {
        "system": "illama",
        "case": "other",
        "source": f"techmonsterwang/iLLaMA@dfc93b9 {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "inputs": inputs,
        "outputs": dict.fromkeys(outputs),
    }
    case = Case(meta, {})
    got = find_adapter(case)(case)
    assert {name: list(got[name].shape) for name in outputs} == outputs
    return dict(got)


@pytest.mark.parametrize(("classes", "bias", "rate"), [(0, True, 0.0), (5, False, 1.0), (5, True, None)])
def test_other_classifier_cases_run(classes, bias, rate):
    model = ILLaMAClassifier(SMALL, num_classes=classes, qkv_bias=bias, in_channels=1)
    case_of(
        "models/illama.py VisionTransformer",
        model,
        {"image": {"seed": 1, "shape": [2, 1, 32, 32]}},
        {"features": [2, 16]} | ({"logits": [2, 5]} if classes else {}),
        {**SMALL, "in_chans": 1, "num_classes": classes, "qkv_bias": bias, "soft_mask_rate": rate},
    )


def test_classifier_cases_run_by_the_name_of_their_factory():
    model = create_model("illama_tiny", num_classes=3, img_size=384)
    image = {"x": {"seed": 1, "shape": [1, 3, 384, 384]}}
    case_of("models/illama.py illama_tiny", model, image, {"logits": [1, 3]}, {"img_size": 384})


def test_cases_of_parts_run():
    settings = ILLaMASettings.of(SMALL, {})
    tokens = {"x": {"seed": 1, "shape": [2, 7, 16]}}
    mask = {"mask": {"kind": "uniform", "seed": 2, "shape": [7, 7]}}
    given = {"dim": 16, "num_heads": 2, "mlp_ratio": 1}
    outputs = {"out": [2, 7, 16]}
    soft = case_of(
        "models/illama.py Block", Block(settings), tokens, outputs, {**given, "soft_mask_rate": 0.5}
    )
    causal = case_of("models/illama.py Block", Block(settings), tokens, outputs, given)
    assert not torch.allclose(soft["out"], causal["out"])
    attention = MaskedAttention(16, 2, qkv_bias=False)
    case_of("models/illama.py Attention", attention, mask | tokens, outputs, given)
    case_of("models/illama.py SwiGLU", SwiGLU(16, 32), tokens, outputs, {})
    case_of("models/illama.py RMSNorm", nn.RMSNorm(16), tokens, outputs, {})


def test_other_schedule_cases_run():
    calls = {
        "always": 'mask_scheduler(0.5, 3, 2, 1, "standard", "linear")',
        "keywords": 'mask_scheduler(1.0, 3, 2, cutoff_epoch=2, mode="soft", schedule="constant")',
    }
    unused = {"unused": {"kind": "literal", "value": [0.0]}}
    got = case_of(
        "mask_scheduler.py mask_scheduler", None, unused, {name: [6] for name in calls}, {"calls": calls}
    )
    assert got["always"].tolist() == [0.5] * 6
    assert got["keywords"].tolist() == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("illama_tiny", 5_701_096),
        ("illama_small", 22_018_024),
        ("illama_base", 86_502_376),
        ("illama_base_384", 86_794_216),
        ("illama_large", 310_445_032),
        ("illama_large_384", 310_834_152),
    ],
)
def test_classifiers_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters


@pytest.mark.parametrize(
    ("dim", "ratio", "hidden"), [(192, 4, 512), (1024, 4, 2816), (48, 4, 256), (8, 1, 256)]
)
def test_hidden_width_is_rounded_up_to_256(dim, ratio, hidden):
    assert ILLaMASettings(dim, 1, 1, mlp_ratio=ratio).hidden_dim == hidden


# The mask


def reading_attention(values: str) -> MaskedAttention:
    """An attention whose output is what its heads read: of the tokens' own values, or of ones."""
    torch.manual_seed(0)
    layer = MaskedAttention(16, 2).eval()
    nn.init.eye_(layer.proj.weight)
    nn.init.zeros_(layer.proj.bias)
    nn.init.normal_(layer.qkv.weight, std=0.25)
    if values == "ones":
        nn.init.zeros_(layer.qkv.weight[32:])
        nn.init.ones_(layer.qkv.bias[32:])
    return layer


@torch.no_grad()
def test_rows_of_the_causal_attention_sum_to_less_than_one_but_for_the_class_token():
    layer = reading_attention("ones")
    x, turns = torch.randn(2, 9, 16), rotation(9, 8, CPU)
    sums = layer(x, turns, soft_mask(9, 0.0, CPU))
    assert sums[:, :-1].max() < 1 and sums[:, :-1].min() > 0
    assert torch.allclose(sums[:, -1], torch.ones(2, 16))
    assert torch.allclose(layer(x, turns, soft_mask(9, 1.0, CPU)), torch.ones(2, 9, 16))
    half = layer(x, turns, soft_mask(9, 0.5, CPU))
    assert torch.allclose(half, (sums + 1) / 2)


@torch.no_grad()
def test_under_the_causal_mask_later_tokens_only_scale_what_an_earlier_one_reads():
    layer, turns, mask = reading_attention("own"), rotation(9, 8, CPU), soft_mask(9, 0.0, CPU)
    x = torch.randn(1, 9, 16)
    changed = torch.cat((x[:, :4], torch.randn(1, 5, 16)), 1)
    before, after = (layer(tokens, turns, mask)[:, :4].unflatten(2, (2, 8)) for tokens in (x, changed))
    # the softmax is over all tokens and is not normalised again: that is the common factor of a head
    assert not torch.allclose(before, after)
    assert torch.allclose(
        nn.functional.cosine_similarity(before, after, dim=-1), torch.ones(1, 4, 2), atol=1e-5
    )
    bidirectional = [layer(tokens, turns, None)[:, :4].unflatten(2, (2, 8)) for tokens in (x, changed)]
    assert nn.functional.cosine_similarity(*bidirectional, dim=-1).min() < 0.99


@torch.no_grad()
def test_a_rate_of_one_is_a_bidirectional_block():
    torch.manual_seed(0)
    block, x = Block(ILLaMASettings.of(SMALL, {})).eval(), torch.randn(2, 9, 16)
    turns = rotation(9, 8, CPU)
    assert torch.allclose(block(x, turns, soft_mask(9, 1.0, CPU)), block(x, turns, None), atol=1e-5)


@torch.no_grad()
def test_the_rate_holds_in_evaluation_until_it_is_set_again():
    torch.manual_seed(0)
    model, image = ILLaMAClassifier(SMALL, soft_mask_rate=0.5).eval(), torch.randn(1, 3, 32, 32)
    nn.init.normal_(model.pos_embed)
    nn.init.normal_(model.blocks[0].attn.qkv.weight)
    soft = model(image)
    model.soft_mask_rate = 0.0
    causal = model(image)
    model.soft_mask_rate = 0.5
    assert torch.equal(model(image), soft) and not torch.allclose(soft, causal, atol=1e-5)


def test_rotation_turns_neighbouring_channels_and_keeps_distances():
    x = torch.randn(3, 1, 8, dtype=torch.float64).float()
    turned = rotate(x.expand(3, 5, 8), rotation(5, 8, CPU))
    assert torch.equal(turned[:, 0], x[:, 0])
    angle = torch.tensor(3.0)
    first = torch.stack((x[:, 0, 0] * angle.cos() - x[:, 0, 1] * angle.sin(),
                         x[:, 0, 0] * angle.sin() + x[:, 0, 1] * angle.cos()), 1)  # fmt: skip
    assert torch.allclose(turned[:, 3, :2], first, atol=1e-6)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1).expand(3, 5), atol=1e-5)
    # products of two turned vectors depend on the distance of their positions alone
    y = rotate(torch.randn(3, 1, 8).expand(3, 5, 8), rotation(5, 8, CPU))
    assert torch.allclose((turned[:, 1] * y[:, 3]).sum(-1), (turned[:, 2] * y[:, 4]).sum(-1), atol=1e-5)


# The place of the class token


class ClassTokenFirst(ILLaMAClassifier):
    """The arrangement that the paper argues against."""

    def embed(self, x):
        tokens, grid = super().embed(x)
        return tokens.roll(1, 1), grid

    def forward_features(self, x):
        *_, last = self.walk(self.embed(x)[0])
        return self.norm(last[:, 0])


def stripes(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy pictures with upright or lying stripes."""
    labels = torch.arange(32) % 2
    wave = torch.sign(torch.sin(torch.arange(32) / 4 * torch.pi + 0.1)).expand(32, 3, 32, 32)
    images = torch.where(labels.view(-1, 1, 1, 1) == 1, wave.transpose(2, 3), wave)
    return images + 0.5 * torch.randn(images.shape, generator=generator), labels


def loss_after(model: nn.Module, steps: int) -> float:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        images, labels = stripes(generator)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses[-3:]))


def test_under_the_causal_mask_a_class_token_in_front_stays_at_chance_while_one_at_the_end_learns():
    losses = {}
    for build, rate in ((ClassTokenFirst, 0.0), (ILLaMAClassifier, 0.0), (ClassTokenFirst, 1.0)):
        torch.manual_seed(0)
        losses[build.__name__, rate] = loss_after(build(SMALL, num_classes=2, soft_mask_rate=rate), steps=12)
    assert losses["ClassTokenFirst", 0.0] > 0.65  # chance is 0.693
    assert losses["ILLaMAClassifier", 0.0] < 0.4
    assert losses["ClassTokenFirst", 1.0] < 0.4  # so it is the mask


# The schedule


def test_schedules_end_at_their_cutoff():
    linear = soft_mask_schedule("linear", 4, 5, 2)
    assert linear[0] == 1 and linear[9] == 0 and (np.diff(linear[:10]) < 0).all() and not linear[10:].any()
    constant = soft_mask_schedule("constant", 4, 5, 2, start=0.7)
    assert (constant[:10] == 0.7).all() and not constant[10:].any()
    assert (soft_mask_schedule("standard", 4, 5, 2) == 1).all()
    assert not soft_mask_schedule("linear", 4, 5, 0).any()


class Trained(BaseModel):
    """An iLLaMA as mmengine trains it, which notes the rate of every forward."""

    def __init__(self):
        super().__init__()
        self.network = ILLaMAClassifier(SMALL, num_classes=2)
        self.rates = {"loss": [], "predict": []}

    def forward(self, inputs, labels=None, mode="tensor"):
        self.rates[mode].append(self.network.soft_mask_rate)
        logits = self.network(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels)} if mode == "loss" else list(logits)


class NoMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return {"samples": sum(results)}


def runner_of(model: BaseModel, hooks: list[Hook], work_dir: Path, **train_cfg) -> Runner:
    data = [{"inputs": torch.randn(3, 32, 32), "labels": torch.tensor(i % 2)} for i in range(6)]
    loader = {
        "dataset": data,
        "batch_size": 2,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "collate_fn": {"type": "default_collate"},
    }
    evaluation = {
        f"{split}_{part}": value
        for split in ("val", "test")
        for part, value in (("dataloader", loader), ("cfg", {}), ("evaluator", Evaluator(NoMetric())))
    }
    return Runner(
        model,
        str(work_dir),
        train_dataloader=loader,
        train_cfg=train_cfg,
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        custom_hooks=hooks,
        default_scope="opsin",
        experiment_name=work_dir.name,
        **evaluation,
    )


def test_training_sets_the_rate_of_every_iteration_and_evaluates_causally(tmp_path):
    model = Trained()
    runner = runner_of(
        model, [SoftMaskHook("linear", cutoff_epoch=2)], tmp_path, by_epoch=True, max_epochs=3, val_interval=1
    )
    runner.train()
    assert model.rates["loss"] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0])
    assert model.rates["predict"] == [0] * 9
    assert model.network.soft_mask_rate == 0


def test_epochs_of_the_schedule_are_counted_in_training_by_iterations_too(tmp_path):
    model = Trained()
    hook = SoftMaskHook("constant", cutoff_epoch=1, start=0.5)
    runner_of(model, [hook], tmp_path, type="IterBasedTrainLoop", max_iters=5, val_interval=2).train()
    assert model.rates["loss"] == [0.5, 0.5, 0.5, 0, 0]


def test_tests_of_a_model_in_training_are_causal(tmp_path):
    model = Trained()
    model.network.soft_mask_rate = 0.6
    runner = runner_of(model, [SoftMaskHook("linear", 1)], tmp_path, by_epoch=True, max_epochs=1)
    runner.test()
    assert model.rates["predict"] == [0] * 3


def test_the_hook_wants_an_illama(tmp_path):
    class Other(Trained):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))

    runner = runner_of(Other(), [SoftMaskHook("linear", 1)], tmp_path, by_epoch=True, max_epochs=1)
    with pytest.raises(UserError, match="found no iLLaMA"):
        runner.train()


# Other sizes, dense maps, checkpoints


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_file_loads_into_a_larger_classifier_with_resized_positions(tmp_path, wrapped):
    torch.manual_seed(0)
    source = ILLaMAClassifier(SMALL, num_classes=4)
    torch.save({"model": source.state_dict()} if wrapped else source.state_dict(), tmp_path / "224.pth")
    same = load_published(ILLaMAClassifier(SMALL, num_classes=4), tmp_path / "224.pth")
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(same.eval()(image), source.eval()(image))

    larger = load_published(ILLaMAClassifier({**SMALL, "img_size": 56}, num_classes=4), tmp_path / "224.pth")
    square = source.pos_embed[:, :-1].transpose(1, 2).unflatten(2, (4, 4))
    resized = nn.functional.interpolate(square, size=(7, 7), mode="bicubic").flatten(2).transpose(1, 2)
    assert torch.equal(larger.pos_embed[:, :-1], resized)
    assert torch.equal(larger.pos_embed[:, -1], source.pos_embed[:, -1])
    image = torch.randn(1, 3, 56, 56)
    # the network resizes its positions itself, if it is not built for the size
    assert torch.allclose(larger.eval()(image), source(image), atol=1e-5)


@torch.no_grad()
def test_a_classifier_file_loads_into_a_backbone_of_its_first_blocks(tmp_path):
    torch.manual_seed(0)
    source = ILLaMAClassifier({**SMALL, "depth": 3}, num_classes=4).eval()
    torch.save({"model": source.state_dict()}, tmp_path / "illama.pth")
    backbone = ILLaMA({**SMALL, "depth": 3}, out_indices=(0, 1), fpn=False).eval()
    load_published(backbone, tmp_path / "illama.pth")
    assert len(backbone.blocks) == 2
    image = torch.randn(1, 3, 32, 48)
    tokens = list(source.walk(source.embed(image)[0]))
    for m, after in zip(backbone(image), tokens[:2], strict=True):
        assert m.shape == (1, 16, 4, 6)
        assert torch.equal(m.flatten(2).transpose(1, 2), after[:, :-1])


def test_the_four_levels_come_from_the_quarters_of_the_depth():
    with torch.device("meta"):
        backbone = ILLaMA("large")
    assert backbone.out_indices == (5, 11, 17, 23)
    assert [info.stride for info in backbone.feature_info] == [4, 8, 16, 32]
    single = ILLaMA({**SMALL, "patch_size": 16}, out_indices=(1,)).eval()
    assert [m.shape[2:] for m in single(torch.randn(1, 3, 64, 96))] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_class_token_and_positions_do_not_decay():
    for model in (ILLaMAClassifier(SMALL), ILLaMA(SMALL)):
        assert model.no_weight_decay() == {"cls_token", "pos_embed"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ILLaMA("tinny"), "tinny.*tiny"),
        (lambda: ILLaMA(SMALL, patchsize=8), "patchsize.*patch_size"),
        (lambda: ILLaMA({"embed_dim": 16}), "lacks depth, num_heads"),
        (lambda: ILLaMA({**SMALL, "num_heads": 16}), "16 heads do not divide a width of 16 into even"),
        (lambda: ILLaMA(SMALL, out_indices=(0, 2)), r"0\.\.1"),
        (lambda: ILLaMA({**SMALL, "depth": 6}, out_indices=(0, 1, 2, 3, 4)), "more than four.*fpn=False"),
        (lambda: ILLaMA(SMALL)(torch.randn(1, 3, 32, 7)), "32 x 7 pixels is smaller than a patch of 8"),
        (lambda: SoftMaskHook("linaer"), "linaer.*linear"),
        (lambda: soft_mask_schedule("linaer", 3, 2, 1), "linaer.*linear"),
        (lambda: soft_mask_schedule("linear", 3, 2, 4), r"cutoff_epoch 4.*0\.\.3"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


# Weight selection


def language_model(layers: int, width: int, hidden: int) -> dict[str, Tensor]:
    """LLaMA2's tensors under transformers' names, smaller."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
        **{f"self_attn.{part}_proj": (width, width) for part in "qkvo"},
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
    }
    return {
        f"model.layers.{layer}.{name}.weight": torch.randn(shape, generator=generator)
        for layer in range(layers)
        for name, shape in shapes.items()
    } | {"model.embed_tokens.weight": torch.zeros(7, width), "lm_head.weight": torch.zeros(7, width)}


def to_meta(name: str) -> str:
    names = {
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        **{f"self_attn.{part}_proj": f"attention.w{part}" for part in "qkvo"},
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
        "model.": "",
    }
    for theirs, metas in names.items():
        name = name.replace(theirs, metas)
    return name


@pytest.mark.parametrize("rename", [str, to_meta], ids=["transformers", "meta"])
def test_blocks_take_evenly_spaced_channels_of_a_language_model(tmp_path, rename):
    teacher = language_model(layers=3, width=48, hidden=640)
    named = {rename(name): tensor for name, tensor in teacher.items()}
    halves = [dict(list(named.items())[:12]), dict(list(named.items())[12:])]  # a layer lies across the files
    files = [tmp_path / f"part{index}.pth" for index in (1, 2)]
    for half, file in zip(halves, files, strict=True):
        torch.save(half, file)
    model = ILLaMAClassifier(SMALL, num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_llama2(model, files)

    every_third = slice(0, 48, 3)  # 48 / 16
    rounded = torch.linspace(0, 639, 256, dtype=torch.float64).round().long()  # 256 does not divide 640
    for index, block in enumerate(model.blocks):
        layer = f"model.layers.{index}"
        assert torch.equal(block.norm1.weight, teacher[f"{layer}.input_layernorm.weight"][every_third])
        up, down = (teacher[f"{layer}.mlp.{part}_proj.weight"] for part in ("up", "down"))
        assert torch.equal(block.mlp.fc3.weight, up[rounded][:, every_third])
        assert torch.equal(block.mlp.fc2.weight, down[every_third][:, rounded])
        for part, rows in zip("qkv", block.attn.qkv.weight.split(16), strict=True):
            weight = teacher[f"{layer}.self_attn.{part}_proj.weight"]
            assert torch.equal(rows, weight[every_third, every_third])
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {n for n in before if n.startswith("blocks.") and n.endswith(".weight")}


def test_a_language_model_that_does_not_serve_is_named(tmp_path):
    torch.save(language_model(layers=1, width=48, hidden=640), tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"short\.pth: layer 1 lacks input_layernorm"):
        load_llama2(ILLaMAClassifier(SMALL), [tmp_path / "short.pth"])
    torch.save(language_model(layers=2, width=8, hidden=640), tmp_path / "narrow.pth")
    with pytest.raises(UserError, match="16 of 8 channels"):
        load_llama2(ILLaMAClassifier(SMALL), [tmp_path / "narrow.pth"])


@torch.no_grad()
def test_drop_path_rates_reach_every_block_even_those_built_with_zero():
    torch.manual_seed(0)
    model = ILLaMAClassifier({**SMALL, "depth": 3}, drop_path_rate=0.2)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.1, 0.2])
    for block in model.blocks:
        block.drop_path.rate = 0.9
    tokens = torch.randn(64, 5, 16)
    unchanged = (model.blocks[0].train()(tokens, rotation(5, 8, CPU), None) == tokens).all(2).all(1)
    assert 0.5 < unchanged.float().mean() < 1
