import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_backbone, create_model
from opsin.core.backbones.focalnet import (
    ARCHS,
    Arch,
    Block,
    ContextConv,
    FocalModulation,
    FocalNet,
    FocalNetClassifier,
    PatchEmbed,
)
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published, place

SMALL = {"depths": (1, 1, 2, 1), "embed_dim": 8, "mlp_ratio": 2.0}
HUGE = {
    **SMALL,
    "use_conv_embed": True,
    "use_postln": True,
    "use_layerscale": True,
    "use_postln_in_modulation": True,
    "normalize_modulator": True,
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(module: nn.Module) -> nn.Module:
    """The module in evaluation, every parameter moved a little from where it begins."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return module.eval()


# Other runs of the authors' code


def run_other(source, model, outputs, shape=(1, 3, 50, 70), **built_with):
    """What the adapter gives for a case of `source` with the tensors of `model`, without numbers."""
    meta = {
        "system": "focalnet",
        "case": "other",
        "source": f"microsoft/FocalNet@e8514bd {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
        "inputs": {"x": {"seed": 1, "shape": list(shape)}},
        "outputs": dict.fromkeys(outputs),
    }
    case = Case(meta, {})
    got = find_adapter(case)(case)
    return [tuple(got[name].shape) for name in outputs]


@pytest.mark.parametrize(
    "changes", [SMALL, HUGE, {**HUGE, "focal_levels": [1, 2, 3, 4], "patch_norm": False}]
)
@pytest.mark.parametrize("num_classes", [0, 5])
def test_other_classifier_cases_run(changes, num_classes):
    model = FocalNetClassifier(changes, num_classes=num_classes)
    source = "classification/focalnet.py FocalNet"
    got = run_other(source, model, ["features", "logits"], num_classes=num_classes, **changes)
    assert got == [(1, 64), (1, num_classes or 64)]


@pytest.mark.parametrize("name", ["tiny_lrf", "tiny_iso", "base_iso"])
def test_factories_of_the_authors_build_two_levels_unless_told(name):
    # base_iso alone fixes levels and switches; the others need the recipe's
    bare = ARCHS[name] if name == "base_iso" else Arch((1,), 8, ARCHS[name].patch_size)
    changes = {"depths": [1], "embed_dim": 8}
    model = FocalNetClassifier({**vars(bare), **changes}, num_classes=3)
    source = f"classification/focalnet.py focalnet_{name}"
    assert run_other(source, model, ["logits"], num_classes=3, **changes) == [(1, 3)]


@pytest.mark.parametrize("package", ["detection/mmdet", "segmentation/mmseg"])
@pytest.mark.parametrize("names", [["stage2", "stage4"], ["first", "second"]])
def test_other_dense_cases_run(package, names):
    changes = {**SMALL, "use_conv_embed": True, "use_layerscale": True, "out_indices": (1, 3)}
    model = FocalNet(
        focal_windows=9, arch=SMALL, use_conv_embed=True, use_layerscale=True, out_indices=(1, 3)
    )
    source = f"{package}/models/backbones/focalnet.py FocalNet"
    assert run_other(source, model, names, **changes) == [(1, 16, 7, 9), (1, 64, 2, 3)]


def test_other_conversions_from_classifier_to_dense_run():
    source = (
        "classification/focalnet.py FocalNet -> detection/mmcv_custom/checkpoint.py load_checkpoint -> "
        "detection/mmdet/models/backbones/focalnet.py FocalNet"
    )
    dense = {**SMALL, "focal_levels": [3, 3, 3, 3], "focal_windows": [1, 3, 5, 7]}
    got = run_other(source, FocalNetClassifier(SMALL), ["stage1", "stage4"], classifier=SMALL, dense=dense)
    assert got == [(1, 8, 13, 18), (1, 64, 2, 3)]


@pytest.mark.parametrize(
    ("source", "switch", "names"),
    [
        ("classification/focalnet.py", "use_postln_in_modulation", ["out", "modulator"]),
        ("detection/mmdet/models/backbones/focalnet.py", "use_postln", ["y"]),
    ],
)
def test_other_modulation_cases_run(source, switch, names):
    model = FocalModulation(8, 5, 1, use_postln_in_modulation=True)
    arguments = {"dim": 8, "focal_window": 5, "focal_level": 1, switch: True}
    got = run_other(f"{source} FocalModulation", model, names, (2, 6, 5, 8), **arguments)
    assert got == [(2, 6, 5, 8), (2, 8, 6, 5)][: len(names)]


@pytest.mark.parametrize(
    ("source", "arguments", "shape"),
    [
        ("classification/focalnet.py FocalNetBlock", {"input_resolution": [6, 5]}, (2, 30, 8)),
        ("classification/focalnet.py FocalNetBlock", {"use_postln": True, "focal_window": 3}, (2, 36, 8)),
        (
            "segmentation/mmseg/models/backbones/focalnet.py FocalModulationBlock",
            {"H": 5, "W": 6},
            (2, 30, 8),
        ),
    ],
)
def test_other_block_cases_run(source, arguments, shape):
    arguments = {"dim": 8, "focal_level": 2, "use_layerscale": True, "focal_window": 5, **arguments}
    model = Block(8, 2, arguments["focal_window"], Arch((1,), 8, use_layerscale=True))
    assert run_other(source, model, ["out"], shape, **arguments) == [shape]


@pytest.mark.parametrize(
    ("source", "stem", "shape"),
    [
        ("classification", True, (1, 169, 8)),
        ("detection", True, (1, 8, 13, 14)),
        ("detection", False, (1, 8, 26, 27)),
    ],
)
def test_other_patch_embedding_cases_run(source, stem, shape):
    stride = {"kernel_size": 7, "stride": 4} if stem else {"kernel_size": 3, "stride": 2}
    model = PatchEmbed(3, 8, 4 if stem else 2, **stride)
    path = "classification" if source == "classification" else "detection/mmdet/models/backbones"
    arguments = {"embed_dim": 8, "patch_size": 4 if stem else 2, "use_conv_embed": True, "is_stem": stem}
    assert run_other(f"{path}/focalnet.py PatchEmbed", model, ["out"], (1, 3, 51, 53), **arguments) == [shape]


# Sizes


@pytest.mark.parametrize(
    ("arch", "classes", "parameters"),
    [
        ("tiny_srf", 1000, 28_427_116),
        ("tiny_lrf", 1000, 28_647_928),
        ("small_srf", 1000, 49_891_216),
        ("small_lrf", 1000, 50_342_440),
        ("base_srf", 1000, 88_148_144),
        ("base_lrf", 1000, 88_749_768),
        ("tiny_iso", 1000, 5_880_280),
        ("small_iso", 1000, 22_376_344),
        ("base_iso", 1000, 87_237_400),
        ("large_fl3", 1000, 207_100_744),
        ("large_fl4", 1000, 207_281_248),
        ("large_fl4", 21842, 239_315_402),
        ("xlarge_fl3", 1000, 366_082_120),
        ("xlarge_fl4", 1000, 366_322_784),
        ("huge_fl3", 1000, 686_564_424),
        ("huge_fl4", 1000, 689_277_664),
        ("huge_fl3", 21842, 745_276_338),
    ],
)
def test_bare_names_give_the_published_number_of_parameters(arch, classes, parameters):
    with torch.device("meta"):
        assert count(create_model(f"focalnet_{arch}", num_classes=classes)) == parameters


@pytest.mark.parametrize(("arch", "parameters"), [("tiny_srf", 28_401_348), ("tiny_lrf", 29_152_080)])
def test_backbones_have_the_published_number_of_parameters(arch, parameters):
    with torch.device("meta"):
        assert count(create_backbone(f"focalnet_{arch}", focal_windows=9)) == parameters


def test_bare_names_give_the_levels_windows_and_switches_of_the_table():
    with torch.device("meta"):
        large, huge, iso = (create_backbone(f"focalnet_{n}") for n in ("large_fl3", "huge_fl4", "base_iso"))
    modulation = large.layers[3].blocks[1].modulation
    assert [layer[0].kernel_size[0] for layer in modulation.focal_layers] == [5, 7, 9]
    assert large.layers[0].blocks[0].use_postln and large.layers[0].blocks[0].gamma_1 is not None
    modulation = huge.layers[0].blocks[0].modulation
    assert [layer[0].kernel_size[0] for layer in modulation.focal_layers] == [3, 5, 7, 9]
    assert modulation.ln is not None and modulation.divisor == 1
    assert large.patch_embed.proj.padding == (3, 3) and large.patch_embed.proj.kernel_size == (7, 7)
    assert ARCHS["large_fl4"].normalize_modulator and not ARCHS["xlarge_fl4"].normalize_modulator
    assert [(info.channels, info.stride) for info in iso.feature_info] == [(768, 16)]


@pytest.mark.parametrize("use_conv_embed", [False, True])
def test_dense_maps_round_up_at_every_step(use_conv_embed):
    backbone = FocalNet(SMALL, use_conv_embed=use_conv_embed).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 166, 230))
    assert [tuple(m.shape[2:]) for m in maps] == [(42, 58), (21, 29), (11, 15), (6, 8)]


@torch.no_grad()
def test_classifier_drops_what_fills_no_patch_and_the_dense_form_pads_it():
    image = torch.randn(1, 3, 35, 38)
    classifier = shaken(FocalNetClassifier(SMALL, num_classes=3))
    assert torch.equal(classifier(image), classifier(image[..., :32, :36]))
    backbone = shaken(FocalNet(SMALL))
    padded = backbone(F.pad(image, (0, 2, 0, 1)))
    assert all(torch.equal(a, b) for a, b in zip(backbone(image), padded, strict=True))
    assert not torch.equal(backbone(image)[0], backbone(F.pad(image, (0, 2, 0, 1), value=1.0))[0])


@torch.no_grad()
def test_stem_of_the_classifier_is_padded_by_two_and_of_the_dense_form_by_three():
    image = torch.randn(1, 3, 50, 70)
    assert FocalNetClassifier(HUGE).patch_embed(image.permute(0, 2, 3, 1)).shape[1:3] == (12, 17)
    two, three = FocalNet(HUGE, stem_padding=2), FocalNet(HUGE)
    two.load_state_dict(three.state_dict())
    assert two(image)[0].shape == three(image)[0].shape
    assert not torch.allclose(two(image)[0], three(image)[0], atol=1e-3)


# The modulation


@torch.no_grad()
def test_modulation_moves_with_its_input_unless_the_global_gate_is_open():
    torch.manual_seed(0)
    modulation, x = FocalModulation(8, 3, 3), torch.randn(1, 28, 28, 8)
    moved = x.roll((2, 1), (1, 2))
    reach = slice(8, -8)  # kernels 3, 5, 7 reach 6 pixels
    far = x.clone()
    far[:, :4, :4] = 3.0

    def changes_beyond_reach() -> bool:
        return not torch.allclose(modulation(x)[:, 14:, 14:], modulation(far)[:, 14:, 14:], atol=1e-6)

    assert changes_beyond_reach()
    modulation.f.weight[-1], modulation.f.bias[-1] = 0, 0
    assert not changes_beyond_reach()
    want = modulation(x).roll((2, 1), (1, 2))[:, reach, reach]
    assert torch.allclose(modulation(moved)[:, reach, reach], want, atol=1e-6)


def test_modulation_costs_the_same_for_every_token():
    modulation = FocalModulation(8, 3, 3)
    costs = []
    for side in (8, 16, 32):
        with FlopCounterMode(display=False) as counter:
            modulation(torch.randn(1, side, side, 8))
        costs.append(counter.get_total_flops())
    assert costs[1] == 4 * costs[0] and costs[2] == 16 * costs[0]


@torch.no_grad()
def test_without_gates_the_modulator_is_the_bias_of_h():
    modulation, x = FocalModulation(8, 3, 2), torch.randn(2, 6, 7, 8)
    modulation.f.weight[16:], modulation.f.bias[16:] = 0, 0
    query = F.linear(x, modulation.f.weight[:8], modulation.f.bias[:8])
    assert torch.allclose(modulation(x), modulation.proj(query * modulation.h.bias), atol=1e-6)


@torch.no_grad()
def test_post_norm_comes_before_layer_scale_and_inside_the_branch():
    arch = Arch((1,), 8, use_postln=True, use_layerscale=True)
    block, x = shaken(Block(8, 2, 3, arch)), torch.randn(2, 6, 7, 8)
    y = x + block.gamma_1 * block.norm1(block.modulation(x))
    assert torch.allclose(block(x), y + block.gamma_2 * block.norm2(block.mlp(y)), atol=1e-6)
    block.use_postln = False
    y = x + block.gamma_1 * block.modulation(block.norm1(x))
    assert torch.allclose(block(x), y + block.gamma_2 * block.mlp(block.norm2(y)), atol=1e-6)


@pytest.mark.parametrize(("dim", "side"), [(4, 3), (4, 11), (512, 9)])
@pytest.mark.parametrize("training", [False, True])
def test_context_convolution_computes_the_same_in_either_layout(dim, side, training):
    conv = ContextConv(dim, side)
    x = torch.randn(2, dim, 9, 7).contiguous(memory_format=torch.channels_last).requires_grad_(training)
    y = conv(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(y, F.conv2d(x, conv.weight, padding=side // 2, groups=dim), atol=1e-5)


# Published files


@torch.no_grad()
def test_larger_windows_change_no_feature_of_a_loaded_classifier(tmp_path):
    classifier = shaken(FocalNetClassifier(SMALL, num_classes=3))
    torch.save({"model": classifier.state_dict()}, tmp_path / "srf.pth")
    narrow = load_published(FocalNet(SMALL), tmp_path / "srf.pth").eval()
    wide = load_published(FocalNet(SMALL, focal_windows=(11, 9, 9, 7)), tmp_path / "srf.pth").eval()
    image = torch.randn(2, 3, 66, 94)
    for a, b in zip(narrow(image), wide(image), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert wide.layers[0].blocks[0].modulation.focal_layers[1][0].kernel_size == (13, 13)


@torch.no_grad()
def test_smaller_windows_keep_the_middle_of_the_kernels():
    wide, narrow = shaken(FocalNet(SMALL, focal_windows=7)), FocalNet(SMALL)
    place(narrow, wide.state_dict())
    kernels = [m.layers[0].blocks[0].modulation.focal_layers[0][0].weight for m in (wide, narrow)]
    assert torch.equal(kernels[0][..., 2:-2, 2:-2], kernels[1])


@torch.no_grad()
def test_added_levels_get_closed_gates_and_their_own_kernels():
    classifier = shaken(FocalNetClassifier(SMALL, num_classes=3))
    backbone = FocalNet(SMALL, focal_levels=4)
    own = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    place(backbone, classifier.state_dict())
    given, got = (model.layers[2].blocks[1].modulation for model in (classifier, backbone))
    for a, b in ((given.f.weight, got.f.weight), (given.f.bias, got.f.bias)):
        assert torch.equal(b[:66], a[:66]) and b[66:68].abs().max() == 0 and torch.equal(b[68], a[66])
    for level in (2, 3):
        name = f"layers.2.blocks.1.modulation.focal_layers.{level}.0.weight"
        assert torch.equal(backbone.state_dict()[name], own[name])
    image, fewer = torch.randn(1, 3, 64, 64), FocalNet(SMALL)
    place(fewer, classifier.state_dict())
    # the global level pools the last one, which is new
    assert not torch.allclose(backbone.eval()(image)[3], fewer.eval()(image)[3], atol=1e-4)


def test_levels_are_not_dropped():
    with pytest.raises(UserError, match=r"3 focal levels at layers\.0\.blocks\.0, the model 2"):
        place(FocalNet(SMALL), FocalNetClassifier(SMALL, focal_levels=3).state_dict())


@torch.no_grad()
def test_a_large_classifier_and_its_backbone_are_one_function():
    classifier = shaken(FocalNetClassifier(HUGE, num_classes=0))
    backbone = FocalNet(HUGE, stem_padding=2)
    place(backbone, classifier.state_dict())
    backbone.norm3 = classifier.norm
    image = torch.randn(1, 3, 64, 96)
    assert torch.allclose(backbone.eval()(image)[3].mean((2, 3)), classifier(image), atol=1e-5)


def to_timm(name: str) -> str:
    name = re.sub(r"^layers\.(\d)\.down", lambda found: f"layers.{int(found[1]) + 1}.down", name)
    name = re.sub(r"\.gamma_(\d)$", r".ls\1.gamma", name.replace("patch_embed.", "stem."))
    name = re.sub(r"(blocks\.\d+\.norm[12])\.", r"\1_post.", name)
    return name.replace(".ln.", ".norm.").replace("head.", "head.fc.")


def as_timm(tensors):
    linear = re.compile(r"\.(f|modulation\.proj|fc[12])\.weight$")
    return {to_timm(n): t[:, :, None, None] if linear.search(n) else t for n, t in tensors.items()}


def as_visual(tensors):
    return {**{f"visual.{name}": tensor for name, tensor in tensors.items()}, "logit_scale": torch.zeros(1)}


def as_detector(tensors):
    kept = {f"backbone.{name}": tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    return {**kept, "neck.convs.0.weight": torch.zeros(1)}


@pytest.mark.parametrize("layout", [dict, as_timm, as_visual, as_detector])
@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_published_layouts_load(tmp_path, layout, wrapper):
    source = shaken(FocalNetClassifier(HUGE, num_classes=4))
    torch.save({wrapper: layout(source.state_dict())}, tmp_path / "published.pth")
    backbone = load_published(FocalNet(HUGE), tmp_path / "published.pth").eval()
    place(wanted := FocalNet(HUGE), source.state_dict())
    image = torch.randn(1, 3, 40, 52)
    assert all(torch.equal(a, b) for a, b in zip(backbone(image), wanted.eval()(image), strict=True))
    if layout is not as_detector:
        target = load_published(FocalNetClassifier(HUGE, num_classes=4), tmp_path / "published.pth")
        assert torch.equal(target.eval()(image), source(image))


def test_backbone_with_fewer_outputs_takes_a_whole_dense_model():
    source, target = shaken(FocalNet(SMALL)), FocalNet(SMALL, out_indices=(0, 2))
    place(target, source.state_dict())
    assert target.state_dict().keys() < source.state_dict().keys()
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_isotropic_file_with_a_norm_in_the_modulation_needs_its_switch():
    # the authors' base_iso file holds modulation.ln, which their constructor leaves out
    iso = {"depths": (2,), "embed_dim": 8, "patch_size": 16, "use_layerscale": True, "use_postln": True}
    file = FocalNetClassifier(iso, num_classes=3, use_postln_in_modulation=True).state_dict()
    with pytest.raises(UserError, match=r"modulation\.ln\.weight \[8\] is left over"):
        place(FocalNetClassifier(iso, num_classes=3), file)
    place(FocalNetClassifier(iso, num_classes=3, use_postln_in_modulation=True), file)


def test_another_models_file_is_refused():
    wider = FocalNetClassifier({**SMALL, "embed_dim": 12}).state_dict()
    with pytest.raises(UserError, match=r"patch_embed\.proj\.weight is \[12, 3, 4, 4\] and should be \[8,"):
        place(FocalNet(SMALL), wider)
    with pytest.raises(UserError, match=r"layers\.2\.blocks\.1\.\w+.* is left over"):
        place(FocalNet({**SMALL, "depths": (1, 1, 1, 1)}), FocalNetClassifier(SMALL).state_dict())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FocalNet("tiny_slf"), "tiny_slf.*tiny_srf"),
        (lambda: FocalNetClassifier({"depths": (1, 1)}), "lacks embed_dim"),
        (lambda: FocalNet(SMALL, focal_window=9), "focal_window'.*focal_windows"),
        (lambda: FocalNet(SMALL, focal_windows=4), "focal_windows 4 must be odd"),
        (lambda: FocalNet(SMALL, focal_windows=(9, 9)), "for each of 4 stages"),
        (lambda: FocalNet(SMALL, focal_levels=0), "focal_levels 0 must be 1 or more"),
        (lambda: FocalNet(SMALL, out_indices=(0, 4)), "out_indices"),
        (lambda: FocalNet("tiny_iso", out_indices=(0, 1)), "out_indices"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
