import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import build_plugin_layer
from torch import Tensor, nn

from opsin.core import create_model
from opsin.core.backbones.eca_net import (
    BasicBlock,
    Bottleneck,
    ECAMobileNetV2,
    ECAMobileNetV2Classifier,
    ECAResNet,
    ECAResNetClassifier,
    InvertedResidual,
)
from opsin.core.errors import UserError
from opsin.core.layers.efficient_channel_attention import ECA, ECANoSharing, eca_kernel_size
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {"block": "basic", "depths": (1, 1, 1, 1), "widths": (4, 8, 8, 8), "k_sizes": (3, 3, 5, 7)}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters", "of_eca"),
    [
        ("eca_resnet18", 11_689_556, 44),
        ("eca_resnet34", 21_797_744, 72),
        ("eca_resnet50", 25_557_112, 80),
        ("eca_resnet50_k3377", 25_557_116, 84),
        ("eca_resnet101", 44_549_317, 157),
        ("eca_resnet152", 60_193_042, 234),
        ("eca_mobilenetv2", 3_504_903, 31),
    ],
)
def test_models_have_the_published_number_of_parameters(name, parameters, of_eca):
    with torch.device("meta"):
        model = create_model(name)
    assert count(model) == parameters
    assert sum(count(module) for module in model.modules() if isinstance(module, ECA)) == of_eca


# The module


def test_kernel_rule():
    channels = (16, 64, 96, 127, 128, 256, 512, 1024, 2047, 2048)
    assert [eca_kernel_size(c) for c in channels] == [3, 3, 3, 3, 5, 5, 5, 5, 5, 7]
    assert ECA(512).conv.kernel_size == (5,) and ECANoSharing(2048).conv.kernel_size == (7,)


@torch.no_grad()
def test_zero_filter_halves_the_map():
    module = ECA(12, 3)
    nn.init.zeros_(module.conv.weight)
    x = torch.randn(2, 12, 5, 7)
    assert torch.equal(module(x), x * 0.5)


@torch.no_grad()
@pytest.mark.parametrize("kind", [ECA, ECANoSharing])
def test_gate_depends_on_the_nearest_channels_only(kind):
    module, x = kind(16, 5), torch.randn(1, 16, 4, 4)
    moved = x.clone()
    moved[:, 7] += 1
    changed = (module.gates(moved) != module.gates(x))[0].nonzero().flatten().tolist()
    assert changed == [5, 6, 7, 8, 9]


@torch.no_grad()
def test_moving_pixels_moves_the_output_alike():
    module, x = ECA(16), torch.randn(2, 16, 4, 6)
    order = torch.randperm(24)
    moved = x.flatten(2)[:, :, order].view_as(x)
    assert torch.allclose(module(moved).flatten(2), module(x).flatten(2)[:, :, order], atol=1e-6)


@torch.no_grad()
def test_equal_filters_without_sharing_are_the_shared_filter():
    shared, own = ECA(10, 3), ECANoSharing(10, 3)
    own.conv.weight.copy_(shared.conv.weight.expand(10, 1, 3))
    assert count(own) == 30
    x = torch.randn(2, 10, 4, 4)
    assert torch.allclose(own(x), shared(x), atol=1e-6)


@pytest.mark.parametrize(("kind", "name"), [("ECA", "eca"), ("ECANoSharing", "eca_ns")])
def test_mmcv_builds_the_module_as_a_plugin(kind, name):
    got, layer = build_plugin_layer({"type": f"opsin.{kind}"}, in_channels=256, postfix="_a")
    assert got == f"{name}_a"
    assert layer.conv.kernel_size == (5,)


# Blocks and networks


@torch.no_grad()
@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_channels_are_weighed_before_the_shortcut_is_added(kind, stride):
    block = kind(16, 16 // kind.expansion, stride, 3, 0.0).eval()
    x = torch.randn(1, 16, 7, 9)
    branch = block.bn1(block.conv1(x))
    branch = block.bn2(block.conv2(branch.relu()))
    if kind is Bottleneck:
        branch = block.bn3(block.conv3(branch.relu()))
    shortcut = x if stride == 1 else block.downsample(x)
    assert torch.allclose(block(x), (shortcut + block.eca(branch)).relu(), atol=1e-6)
    assert kind is BasicBlock or block.conv2.stride == (stride, stride)


@torch.no_grad()
def test_dropped_branch_leaves_the_shortcut():
    block = BasicBlock(8, 8, 1, 3, 0.999).train()
    x = torch.randn(4, 8, 5, 5)
    torch.manual_seed(0)
    assert torch.allclose(block(x), x.relu())


def test_mobile_filters_are_single_numbers_where_maps_are_narrow():
    with torch.device("meta"):
        model = ECAMobileNetV2Classifier(0.5)
    kernels = [m.conv.kernel_size[0] for m in model.modules() if isinstance(m, ECA)]
    assert kernels == [1] * 10 + [3] * 7
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["features.1.conv.3.conv.weight"] == (1, 1, 1)
    assert shapes["features.17.conv.4.conv.weight"] == (1, 1, 3)
    assert shapes["features.18.0.weight"] == (1280, 160, 1, 1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("build", "channels"),
    [(lambda: ECAResNet(SMALL), (4, 8, 8, 8)), (lambda: ECAMobileNetV2(0.25), (6, 8, 24, 80))],
    ids=["resnet", "mobilenet"],
)
def test_sides_round_up(build, channels):
    backbone = build().eval()
    maps = backbone(torch.randn(1, 3, 150, 203))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, *size) for c, size in zip(channels, [(38, 51), (19, 26), (10, 13), (5, 7)], strict=True)
    ]
    assert tuple(info.channels for info in backbone.feature_info) == channels


@pytest.mark.parametrize("build", [lambda: ECAResNet(SMALL), lambda: ECAMobileNetV2(0.25)])
def test_batch_norms_may_keep_their_statistics_while_training(build):
    backbone = build()
    backbone.norm_eval = True
    before = {name: tensor.clone() for name, tensor in backbone.train().named_buffers()}
    backbone(torch.randn(2, 3, 64, 64))
    assert before and all(torch.equal(tensor, before[name]) for name, tensor in backbone.named_buffers())


# The small variants of test_every_backbone.py are ResNets; these are the same questions to MobileNetV2.


@torch.no_grad()
def test_mobile_classifier_fuses_and_its_file_loads_into_the_backbone(tmp_path):
    torch.manual_seed(0)
    classifier = ECAMobileNetV2Classifier(0.25, num_classes=3)
    image = torch.randn(2, 3, 64, 96)
    classifier.train()(image)
    torch.save({"state_dict": published_mobile_names(classifier)}, tmp_path / "mobile.pth.tar")
    backbone = load_published(ECAMobileNetV2(0.25, out_indices=(1, 2)), tmp_path / "mobile.pth.tar").eval()
    again = load_published(ECAMobileNetV2Classifier(0.25, num_classes=3), tmp_path / "mobile.pth.tar").eval()
    before = classifier.eval()(image)
    assert torch.equal(again(image), before)
    maps = backbone(image)
    assert [info.stride for info in backbone.feature_info] == [8, 16]
    assert len(backbone.features) == 14
    assert torch.allclose(classifier.fuse()(image), before, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in classifier.modules())
    for got, want in zip(backbone.fuse()(image), maps, strict=True):
        assert torch.allclose(got, want, atol=1e-5)


def test_mobile_gradients_reach_every_parameter_and_stages_freeze():
    classifier = ECAMobileNetV2Classifier(0.25, num_classes=3, with_cp=True, drop_path_rate=0.1).train()
    nn.init.normal_(classifier.head.weight)
    F.cross_entropy(classifier(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    assert [n for n, p in classifier.named_parameters() if p.grad is None] == []
    layers = {n: classifier.get_layer_depth(n) for n, _ in classifier.named_parameters()}
    assert {count for _, count in layers.values()} == {19}
    assert {layer for layer, _ in layers.values()} == set(range(19))
    frozen = ECAMobileNetV2(0.25, frozen_stages=1)
    kept = {name.split(".")[1] for name, p in frozen.named_parameters() if not p.requires_grad}
    assert kept == {"0", "1", "2", "3"}


def test_mobile_network_exports_with_the_same_result():
    model, image = ECAMobileNetV2(0.25).eval(), torch.randn(1, 3, 64, 64)
    exported = torch.export.export(model, (image,)).module()
    for got, want in zip(exported(image), model(image), strict=True):
        assert torch.allclose(got, want, atol=1e-5)


# Checkpoints


def published_names(model: nn.Module) -> dict[str, Tensor]:
    return {name.replace("head.", "fc."): tensor for name, tensor in model.state_dict().items()}


def published_mobile_names(model: nn.Module) -> dict[str, Tensor]:
    return {name.replace("head.", "classifier.1."): tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_authors_files_load_into_classifier_and_backbone(tmp_path, prefix):
    source = ECAResNetClassifier(SMALL, num_classes=3)
    tensors = {prefix + name: tensor for name, tensor in published_names(source).items()}
    assert f"{prefix}layer1.0.eca.conv.weight" in tensors
    torch.save({"epoch": 99, "arch": "eca_resnet18", "state_dict": tensors}, tmp_path / "eca.pth.tar")
    image = torch.randn(1, 3, 40, 50)
    target = load_published(ECAResNetClassifier(SMALL, num_classes=3), tmp_path / "eca.pth.tar").eval()
    assert torch.equal(target(image), source.eval()(image))
    backbone = load_published(ECAResNet(SMALL, out_indices=(0, 2)), tmp_path / "eca.pth.tar")
    assert torch.equal(backbone.layer3[0].eca.conv.weight, source.layer3[0].eca.conv.weight)


def test_a_whole_openmmlab_classifier_loads(tmp_path):
    source = ECAResNetClassifier(SMALL, num_classes=3)
    tensors = {
        f"backbone.{name}" if not name.startswith("fc.") else f"head.{name}": tensor
        for name, tensor in published_names(source).items()
    }
    torch.save({"state_dict": tensors}, tmp_path / "mm.pth")
    target = load_published(ECAResNetClassifier(SMALL, num_classes=3), tmp_path / "mm.pth")
    assert torch.equal(target.head.weight, source.head.weight)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: ECAResNetClassifier(SMALL, num_classes=3), published_names),
        (lambda: ECAMobileNetV2Classifier(0.25, num_classes=3), published_mobile_names),
    ],
    ids=["resnet", "mobilenet"],
)
def test_plain_networks_files_load_and_leave_the_filters_as_they_are(tmp_path, build, names):
    source, target = build(), build()
    plain = {name: tensor for name, tensor in names(source).items() if tensor.ndim != 3}
    own = {name: tensor for name, tensor in target.state_dict().items() if tensor.ndim == 3}
    missing, left_over = source.load_state_dict(
        {name: t for name, t in source.state_dict().items() if t.ndim != 3}, strict=False
    )
    assert set(missing) == set(own) and not left_over
    own = {name: tensor.clone() for name, tensor in own.items()}
    torch.save(plain, tmp_path / "plain.pth")
    load_published(target, tmp_path / "plain.pth")
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, own.get(name, source.state_dict()[name])), name


def test_a_file_with_some_filters_missing_is_refused(tmp_path):
    tensors = published_names(ECAResNetClassifier(SMALL, num_classes=3))
    del tensors["layer2.0.eca.conv.weight"]
    torch.save(tensors, tmp_path / "broken.pth")
    with pytest.raises(UserError, match=r"layer2\.0\.eca\.conv\.weight.*is missing"):
        load_published(ECAResNetClassifier(SMALL, num_classes=3), tmp_path / "broken.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ECA(16, 4), "k_size=4.*odd"),
        (lambda: ECAResNet("51"), "51.*50"),
        (lambda: ECAResNet({**SMALL, "block": "basics"}), "basics.*basic"),
        (lambda: ECAResNet({**SMALL, "depths": (1, 1)}), "four"),
        (lambda: ECAResNet("18", k_sizes=(3, 5)), "four"),
        (lambda: ECAResNet(SMALL, out_indices=(0, 4)), "out_indices"),
        (lambda: ECAMobileNetV2(out_indices=()), "out_indices"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


# Cases that others could make


def case_of(
    source: str, tensors: dict[str, Tensor], outputs: list[str], shape: list[int], **built_with
) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "eca-net",
        "case": "other",
        "source": f"BangguWu/ECANet@b332f6b models/{source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "inputs": {"x": {"seed": 1, "shape": shape}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


def test_cases_without_sharing_run():
    tensors = ECANoSharing(8, 3).state_dict()
    case = case_of("eca_ns.py eca_layer", tensors, ["out", "weights"], [2, 8, 5, 6], channel=8, k_size=3)
    got = find_adapter(case)(case)
    assert got["out"].shape == (2, 8, 5, 6) and got["weights"].shape == (2, 8)


@pytest.mark.parametrize(("kind", "name"), [(BasicBlock, "ECABasicBlock"), (Bottleneck, "ECABottleneck")])
def test_block_cases_run(kind, name):
    tensors = kind(16, 8, 2, 5, 0.0).state_dict()
    settings = {"inplanes": 16, "planes": 8, "stride": 2, "k_size": 5}
    case = case_of(f"eca_resnet.py {name}", tensors, ["out"], [1, 16, 7, 8], **settings)
    assert find_adapter(case)(case)["out"].shape == (1, 8 * kind.expansion, 4, 4)


@pytest.mark.parametrize("outputs", [["features", "logits"], ["stage2", "stage4"]])
def test_other_resnet_cases_run(outputs):
    arch = {"block": "bottleneck", "depths": (1, 1, 2, 1), "widths": (64, 128, 256, 512), "k_sizes": (3,) * 4}
    tensors = published_names(ECAResNetClassifier(arch, num_classes=5))
    built_with = {"block": "ECABottleneck", "layers": [1, 1, 2, 1], "num_classes": 5, "k_size": [3, 3, 3, 3]}
    case = case_of("eca_resnet.py eca_resnet101", tensors, outputs, [1, 3, 40, 64], **built_with)
    got = find_adapter(case)(case)
    shapes = {"features": (1, 2048), "logits": (1, 5), "stage2": (1, 512, 5, 8), "stage4": (1, 2048, 2, 2)}
    assert {name: tuple(got[name].shape) for name in outputs} == {name: shapes[name] for name in outputs}


@pytest.mark.parametrize("outputs", [["features", "logits"], ["stage1", "stage4"]])
def test_mobile_cases_run(outputs):
    tensors = published_mobile_names(ECAMobileNetV2Classifier(0.5, num_classes=5))
    source = "eca_mobilenetv2.py eca_mobilenet_v2"
    case = case_of(source, tensors, outputs, [1, 3, 40, 64], width_mult=0.5, num_classes=5)
    got = find_adapter(case)(case)
    shapes = {"features": (1, 1280), "logits": (1, 5), "stage1": (1, 12, 10, 16), "stage4": (1, 160, 2, 2)}
    assert {name: tuple(got[name].shape) for name in outputs} == {name: shapes[name] for name in outputs}


def test_expansion_by_one_has_no_first_convolution():
    narrow = InvertedResidual(8, 8, stride=1, expand_ratio=1, k_size=1)
    wide = InvertedResidual(8, 8, stride=1, expand_ratio=6, k_size=1)
    assert isinstance(narrow.conv[3], ECA) and isinstance(wide.conv[4], ECA)
    assert (narrow.conv[0][0].in_channels, wide.conv[1][0].in_channels) == (8, 48)
