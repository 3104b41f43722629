import re

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.convnext import Block, ConvNeXt, ConvNeXtClassifier, ConvNeXtIsotropic
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {"depths": (1, 1, 4, 1), "dims": (8, 16, 24, 32)}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def case_of(source: str, model: nn.Module, outputs: list[str], **built_with) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "convnext",
        "case": "other",
        "source": f"facebookresearch/ConvNeXt@048efce {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
        "inputs": {"image": {"seed": 1, "shape": [1, 3, 48, 70]}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


@pytest.mark.parametrize("layer_scale", [0.0, 1e-6])
def test_other_isotropic_cases_run(layer_scale):
    arch = {"depth": 2, "dim": 16, "layer_scale_init_value": layer_scale}
    source = "models/convnext_isotropic.py ConvNeXtIsotropic"
    case = case_of(source, ConvNeXtIsotropic(arch, num_classes=5), ["logits"], num_classes=5, **arch)
    got = find_adapter(case)(case)
    assert (got["features"].shape, got["logits"].shape) == ((1, 16), (1, 5))


def test_other_classifier_cases_run_by_the_name_of_their_factory():
    model = ConvNeXtClassifier({**SMALL, "depths": (1, 0, 2, 1)}, num_classes=5, layer_scale_init_value=0)
    source = "models/convnext.py convnext_small"
    changes = {"num_classes": 5, "depths": [1, 0, 2, 1], "dims": SMALL["dims"], "layer_scale_init_value": 0}
    case = case_of(source, model, ["logits"], **changes)
    assert find_adapter(case)(case)["logits"].shape == (1, 5)


@pytest.mark.parametrize("names", [["stage2", "stage4"], ["first", "second"]])
def test_other_dense_cases_run_though_the_authors_build_every_norm(names):
    source = "semantic_segmentation/backbone/convnext.py ConvNeXt"
    case = case_of(source, ConvNeXt(SMALL), names, out_indices=[1, 3], layer_scale_init_value=1.0, **SMALL)
    got = find_adapter(case)(case)
    assert [tuple(got[name].shape) for name in names] == [(1, 16, 6, 8), (1, 32, 1, 2)]


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("convnext_tiny", 1000, 28_589_128),
        ("convnext_small", 1000, 50_223_688),
        ("convnext_base", 1000, 88_591_464),
        ("convnext_large", 1000, 197_767_336),
        ("convnext_xlarge", 1000, 350_196_968),
        ("convnext_tiny", 21841, 44_615_857),
        ("convnext_xlarge", 21841, 392_900_177),
        ("convnext_iso_small", 1000, 22_308_712),
        ("convnext_iso_base", 1000, 87_083_752),
        ("convnext_iso_large", 1000, 305_942_504),
    ],
)
def test_classifiers_have_the_published_number_of_parameters(name, classes, parameters):
    with torch.device("meta"):
        assert count(create_model(name, num_classes=classes)) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("convnext_tiny", 27_821_472),
        ("convnext_small", 49_456_032),
        ("convnext_base", 87_568_256),
        ("convnext_large", 196_233_024),
    ],
)
def test_backbones_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_backbone(name)) == parameters


@pytest.mark.parametrize(
    ("height", "width", "sizes"),
    [
        (150, 203, [(37, 50), (18, 25), (9, 12), (4, 6)]),
        (33, 33, [(8, 8), (4, 4), (2, 2), (1, 1)]),
        (64, 96, [(16, 24), (8, 12), (4, 6), (2, 3)]),
    ],
)
def test_maps_floor_at_every_step(height, width, sizes):
    backbone = ConvNeXt(SMALL)
    maps = backbone(torch.randn(1, 3, height, width))
    assert [tuple(m.shape[2:]) for m in maps] == sizes
    assert [m.shape[1] for m in maps] == [info.channels for info in backbone.feature_info]
    assert [info.stride for info in backbone.feature_info] == [4, 8, 16, 32]


@torch.no_grad()
def test_norms_of_outputs_do_not_change_later_stages():
    backbone, image = ConvNeXt(SMALL).eval(), torch.randn(2, 3, 64, 64)
    before = backbone(image)
    backbone.norm1.weight.add_(1.0)
    after = backbone(image)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True, True]


def test_stages_after_the_last_output_are_not_built_and_the_others_agree():
    torch.manual_seed(0)
    whole = ConvNeXt(SMALL, drop_path_rate=0.5)
    part = ConvNeXt(SMALL, drop_path_rate=0.5, out_indices=(0, 2))
    part.load_state_dict(part.from_published(whole.state_dict()))
    image = torch.randn(1, 3, 64, 64)
    whole_maps, part_maps = whole.eval()(image), part.eval()(image)
    assert len(part.stages) == 3
    assert torch.equal(part_maps[0], whole_maps[0]) and torch.equal(part_maps[1], whole_maps[2])
    rates = [[block.drop_path.rate for stage in model.stages for block in stage] for model in (whole, part)]
    assert rates[1] == rates[0][:-1] and rates[0][-1] == 0.5


@torch.no_grad()
def test_published_initial_layer_scale_makes_a_block_nearly_the_identity():
    torch.manual_seed(0)
    x = torch.randn(1, 24, 14, 14)
    assert (Block(24, layer_scale_init_value=1e-6)(x) - x).abs().max() < 1e-4
    assert (Block(24, layer_scale_init_value=1.0)(x) - x).abs().max() > 1e-4
    assert Block(24, layer_scale_init_value=0).gamma is None


def scales_and_decays(model: nn.Module, decay: float) -> dict[str, tuple[float, float]]:
    wrapper = build_optim_wrapper(
        model,
        {
            "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.05},
            "constructor": "opsin.LayerDecayConstructor",
            "paramwise_cfg": {"decay": decay, "module": ""},
        },
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }


def test_layer_decay_of_the_base_classifier():
    with torch.device("meta"):
        model = create_model("convnext_base")
    found = scales_and_decays(model, 0.8)
    for name, exponent in {
        "downsample_layers.0.0.weight": 13,
        "stages.0.2.pwconv1.weight": 12,
        "downsample_layers.1.1.weight": 11,
        "downsample_layers.2.1.weight": 10,
        "stages.2.0.dwconv.weight": 10,
        "stages.2.26.gamma": 2,
        "downsample_layers.3.0.weight": 1,
        "stages.3.0.gamma": 1,
        "norm.weight": 0,
        "head.weight": 0,
    }.items():
        assert found[name][0] == pytest.approx(0.8**exponent), name
    undecayed = {name for name, (_, weight_decay) in found.items() if weight_decay == 0}
    assert undecayed == {name for name, parameter in model.named_parameters() if parameter.ndim == 1}


@pytest.mark.parametrize(("arch", "last"), [("tiny", 6), ("small", 12)])
def test_layer_groups_of_dense_recipes(arch, last):
    with torch.device("meta"):
        by_block, by_stage = ConvNeXt(arch), ConvNeXt(arch, layer_groups="stage")
    final_block = f"stages.2.{len(by_block.stages[2]) - 1}.gamma"
    groups = {
        "downsample_layers.0.0.weight": (0, 0),
        "downsample_layers.2.1.weight": (3, 0),
        "stages.1.0.gamma": (2, 2),
        final_block: (last - 1 if arch == "tiny" else 11, 3),
        "downsample_layers.3.1.weight": (last, 0),
        "stages.3.2.gamma": (last, 4),
        "norm3.weight": (last + 1, last + 1),
    }
    for name, (block_group, stage_group) in groups.items():
        assert by_block.get_layer_depth(f"backbone.{name}", "backbone.") == (block_group, last + 2), name
        assert by_stage.get_layer_depth(name) == (stage_group, last + 2), name


def test_loss_falls_and_gradients_reach_every_parameter():
    torch.manual_seed(0)
    model = ConvNeXtClassifier(SMALL, num_classes=2, layer_scale_init_value=1.0)
    images = torch.randn(8, 3, 33, 47)
    images[4:] += torch.linspace(-1, 1, 47)
    labels = torch.tensor([0] * 4 + [1] * 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("build", [ConvNeXt, ConvNeXtClassifier])
def test_checkpointing_changes_no_gradient(build):
    torch.manual_seed(0)
    plain = build(SMALL)
    thrifty = build(SMALL, with_cp=True)
    thrifty.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 40, 40)
    for model in (plain, thrifty):
        out = model.train()(image)
        (out[-1] if isinstance(out, tuple) else out).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-6), name


def test_frozen_stages_keep_their_weights():
    backbone = ConvNeXt(SMALL, frozen_stages=2).train()
    frozen = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert {re.sub(r"^(\w+(\.\d)?).*", r"\1", name) for name in frozen} == {
        "downsample_layers.0",
        "downsample_layers.1",
        "stages.0",
        "stages.1",
        "norm0",
        "norm1",
    }
    assert backbone.stages[3].training and not backbone.stages[1].training


def test_one_image_gives_what_it_gives_in_a_batch():
    model = ConvNeXtClassifier(SMALL, num_classes=3, layer_scale_init_value=1.0).eval()
    images = torch.randn(3, 3, 33, 65)
    with torch.no_grad():
        assert torch.allclose(model(images)[1:2], model(images[1:2]), atol=1e-5)


def test_bfloat16_autocast_stays_near_float32():
    torch.manual_seed(0)
    model = ConvNeXtClassifier(SMALL, num_classes=5, layer_scale_init_value=1.0)
    image = torch.randn(2, 3, 64, 48)
    exact = model(image)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(image)
    rough.sum().backward()
    assert torch.allclose(rough.float(), exact, atol=0.05 * exact.abs().max().item())
    assert model.stages[0][0].gamma.grad.isfinite().all()


@pytest.mark.parametrize("build", [ConvNeXt, ConvNeXtClassifier])
def test_exports_with_the_same_result(build):
    model, image = build(SMALL).eval(), torch.randn(1, 3, 64, 64)
    exported = torch.export.export(model, (image,)).module()
    for got, want in zip(exported(image), model(image), strict=True):
        assert torch.allclose(got, want, atol=1e-6)


def test_reset_classifier_and_head_scale():
    model = ConvNeXtIsotropic({"depth": 2, "dim": 16}, num_classes=7, head_init_scale=0.0)
    assert model(torch.randn(1, 3, 33, 50)).abs().max() == 0
    model.reset_classifier(3)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    model.reset_classifier(0)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, model.num_features)
    assert [model.get_layer_depth(name)[0] for name in ("stem.bias", "blocks.1.norm.bias", "norm.bias")] == [
        0,
        2,
        3,
    ]


# Checkpoints in the layouts that people have


def to_timm(name: str) -> str:
    name = re.sub(r"^downsample_layers\.0\.", "stem.", name)
    name = re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", name)
    name = re.sub(r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2.", name)
    name = name.replace(".dwconv.", ".conv_dw.").replace(".pwconv", ".mlp.fc")
    return re.sub(r"^norm\.", "head.norm.", re.sub(r"^head\.", "head.fc.", name))


def to_mmpretrain(name: str) -> str:
    if name.startswith("head."):
        return name.replace("head.", "head.fc.")
    name = name.replace(".dwconv.", ".depthwise_conv.").replace(".pwconv", ".pointwise_conv")
    return "backbone." + re.sub(r"^norm\.", "norm3.", name)


def with_1x1_convolutions(tensors):
    return {
        n: t[:, :, None, None] if re.search(r"(pwconv|fc)\d\.weight", n) else t for n, t in tensors.items()
    }


@pytest.mark.parametrize("rename", [str, to_timm, to_mmpretrain], ids=["authors", "timm", "mmpretrain"])
def test_classifier_files_load_into_classifier_and_backbone(tmp_path, rename):
    torch.manual_seed(0)
    source = ConvNeXtClassifier(SMALL, num_classes=4, layer_scale_init_value=1.0)
    tensors = {rename(name): tensor for name, tensor in with_1x1_convolutions(source.state_dict()).items()}
    torch.save({"model": tensors}, tmp_path / "published.pth")
    image = torch.randn(1, 3, 40, 52)

    target = load_published(ConvNeXtClassifier(SMALL, num_classes=4), tmp_path / "published.pth")
    assert torch.allclose(target.eval()(image), source.eval()(image), atol=1e-6)
    backbone = load_published(ConvNeXt(SMALL), tmp_path / "published.pth")
    assert torch.equal(backbone.stages[3][0].gamma, source.stages[3][0].gamma)


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source = ConvNeXt(SMALL)
    nn.init.normal_(source.norm2.weight)
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.convs.0.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    target = load_published(ConvNeXt(SMALL), tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_another_models_file_is_refused_with_the_first_difference(tmp_path):
    torch.save({"model": ConvNeXtClassifier(SMALL, num_classes=4).state_dict()}, tmp_path / "small.pth")
    wider = ConvNeXtClassifier({**SMALL, "dims": (8, 16, 24, 40)}, num_classes=4)
    with pytest.raises(UserError, match=r"small\.pth.*downsample_layers\.3\.1\.weight is \[32, 24, 2, 2\]"):
        load_published(wider, tmp_path / "small.pth")
    with pytest.raises(UserError, match=r"stages\.2\.4\.\w+.* is missing"):
        load_published(ConvNeXt({**SMALL, "depths": (1, 1, 5, 1)}), tmp_path / "small.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvNeXt("tinny"), "tinny.*tiny"),
        (lambda: ConvNeXtIsotropic("larg"), "larg.*large"),
        (lambda: ConvNeXt({"depths": (1, 1), "dims": (8, 16)}), "four numbers"),
        (lambda: ConvNeXt(SMALL, out_indices=(0, 4)), "out_indices"),
        (lambda: ConvNeXt(SMALL, layer_groups="blocks"), "blocks.*block"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
