import re

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_backbone, create_model
from opsin.core.backbones.mambaout import (
    ARCHS,
    Downsample,
    GatedCNNBlock,
    MambaOut,
    MambaOutClassifier,
    MlpHead,
    Stem,
)
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20)}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters", "stages"),
    [
        ("mambaout_femto", 7_304_536, 5_815_728),
        ("mambaout_kobe", 9_141_208, 7_652_400),
        ("mambaout_tiny", 26_545_096, 22_904_928),
        ("mambaout_small", 48_488_072, 44_847_904),
        ("mambaout_base", 84_813_092, 79_370_044),
    ],
)
def test_models_have_the_published_number_of_parameters(name, parameters, stages):
    with torch.device("meta"):
        model = create_model(name)
        assert count(model) == parameters
        assert count(create_backbone(name, out_norm=False)) == stages
        assert count(create_backbone(name)) == stages + 2 * sum(ARCHS[name.split("_")[1]]["dims"])


@pytest.mark.parametrize(("dim", "hidden"), [(48, 128), (128, 341), (256, 682), (512, 1365)])
def test_hidden_widths_are_cut_to_whole_numbers(dim, hidden):
    with torch.device("meta"):
        block = GatedCNNBlock(dim)
    assert block.parts == (hidden, hidden - dim, dim)


# Other cases of the authors' classes


def case_of(source: str, model: nn.Module, outputs: list[str], shape, **built_with) -> Case:
    meta = {
        "system": "mambaout",
        "case": "other",
        "source": f"yuweihao/MambaOut@9f2f234 models/mambaout.py {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
        "inputs": {"x": {"seed": 1, "shape": list(shape)}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


@pytest.mark.parametrize(
    ("source", "module", "shape", "wanted", "built_with"),
    [
        (
            "GatedCNNBlock",
            GatedCNNBlock(6, expansion_ratio=2.0, kernel_size=3),
            (2, 5, 7, 6),
            (2, 5, 7, 6),
            {"dim": 6, "expansion_ratio": 2.0, "kernel_size": 3},
        ),
        ("StemLayer", Stem(3, 8), (1, 3, 33, 18), (1, 9, 5, 8), {}),
        ("DownsampleLayer", Downsample(6, 8), (1, 5, 8, 6), (1, 3, 4, 8), {}),
        ("MlpHead", MlpHead(6, 3), (2, 6), (2, 3), {"dim": 6, "num_classes": 3}),
    ],
)
def test_cases_of_single_modules_run(source, module, shape, wanted, built_with):
    case = case_of(source, module, ["y"], shape, **built_with)
    assert find_adapter(case)(case)["y"].shape == wanted


def test_other_classifier_and_stage_cases_run():
    model = MambaOutClassifier(SMALL, num_classes=5, conv_ratio=0.5, kernel_size=5)
    built_with = {**SMALL, "num_classes": 5, "conv_ratio": 0.5, "kernel_size": 5}
    case = case_of("MambaOut", model, ["logits"], (1, 3, 48, 70), **built_with)
    assert find_adapter(case)(case)["logits"].shape == (1, 5)
    source = "MambaOut, downsample_layers[i] then stages[i]"
    case = case_of(source, model, ["stage2"], (1, 3, 48, 70), **built_with)
    assert find_adapter(case)(case)["stage2"].shape == (1, 12, 6, 9)


def test_a_factorys_name_says_what_a_case_leaves_out():
    with torch.device("meta"):
        model = create_model("mambaout_femto", num_classes=3)
    case = case_of("mambaout_femto", model, ["logits"], (1, 3, 32, 32), num_classes=3)
    assert find_adapter(case)(case)["logits"].shape == (1, 3)


# The gated block


@torch.no_grad()
def test_without_its_convolution_a_block_mixes_no_positions():
    block, x = GatedCNNBlock(6), torch.randn(1, 11, 11, 6)
    changed = x.clone()
    changed[0, 4, 5, 0] += 1.0
    moved = (block(x) - block(changed)).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero().tolist() == [[row, column] for row in range(1, 8) for column in range(2, 9)]
    block.conv.weight.zero_()
    moved = (block(x) - block(changed)).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero().tolist() == [[4, 5]]


@torch.no_grad()
def test_without_its_projection_a_block_is_the_identity():
    block, x = GatedCNNBlock(6), torch.randn(1, 5, 4, 6)
    block.fc2.weight.zero_()
    block.fc2.bias.zero_()
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("conv_ratio", [0.5, 1.0])
def test_the_untouched_part_of_the_value_hears_nothing_of_the_convolution(conv_ratio):
    block, x = GatedCNNBlock(6, conv_ratio=conv_ratio), torch.randn(1, 5, 4, 6)
    hidden, untouched, convolved = block.parts
    assert convolved == int(6 * conv_ratio)
    gradients = []
    for factor in (1.0, 3.0):
        with torch.no_grad():
            block.conv.weight.mul_(factor)
        rows, columns = torch.autograd.grad(block(x).sum(), (block.fc1.weight, block.fc2.weight))
        gradients.append((rows[hidden : hidden + untouched], columns[:, :untouched], columns[:, untouched:]))
    (rows, columns, mixed), (other_rows, other_columns, other_mixed) = gradients
    assert torch.equal(rows, other_rows) and torch.equal(columns, other_columns)
    assert not torch.allclose(mixed, other_mixed)


@torch.no_grad()
def test_the_activation_is_on_the_gate_alone():
    block, x = GatedCNNBlock(6), torch.randn(1, 3, 3, 6)
    hidden = block.parts[0]
    before = block(x) - x - block.fc2.bias
    block.fc1.weight[hidden:] *= -2.0
    block.fc1.bias[hidden:] *= -2.0
    block.conv.bias.mul_(-2.0)
    assert torch.allclose(block(x) - x - block.fc2.bias, -2.0 * before, atol=1e-5)


def test_cost_grows_linearly_with_pixels():
    backbone = MambaOut(SMALL)

    def flops(side: int) -> int:
        with FlopCounterMode(display=False) as counter:
            backbone(torch.randn(1, 3, side, side))
        return counter.get_total_flops()

    assert flops(128) == 4 * flops(64)


# The network


@torch.no_grad()
def test_maps_round_up_at_every_stride():
    maps = MambaOut(SMALL).eval()(torch.randn(1, 3, 150, 203))
    assert [tuple(m.shape[2:]) for m in maps] == [(38, 51), (19, 26), (10, 13), (5, 7)]
    assert all(m.mean(1).abs().max() < 1e-5 for m in maps)


@torch.no_grad()
def test_norms_of_outputs_do_not_change_later_stages():
    backbone, image = MambaOut(SMALL).eval(), torch.randn(1, 3, 64, 64)
    before = backbone(image)
    backbone.norm1.weight.mul_(2.0)
    after = backbone(image)
    assert [torch.equal(a, b) for a, b in zip(after, before, strict=True)] == [True, False, True, True]


@torch.no_grad()
def test_maps_without_norms_are_those_of_the_classifier():
    model = MambaOutClassifier(SMALL, num_classes=3).eval()
    backbone = MambaOut(SMALL, out_norm=False).eval()
    backbone.load_state_dict(backbone.from_published(model.state_dict()))
    image = torch.randn(2, 3, 48, 64)
    features = model.norm(backbone(image)[3].mean((2, 3)))
    assert torch.allclose(features, model.forward_features(image), atol=1e-6)


def test_a_new_head_has_two_layers_and_a_norm():
    model = MambaOutClassifier(SMALL, num_classes=0)
    assert count(model.head) == 0
    model.reset_classifier(3)
    assert count(model.head) == 20 * 80 + 80 + 2 * 80 + 80 * 3 + 3


def test_layers_for_learning_rate_decay_follow_the_depth():
    model = MambaOutClassifier(SMALL)
    layers = {
        "downsample_layers.0.conv1.weight": 0,
        "stages.0.0.fc1.weight": 1,
        "downsample_layers.1.norm.bias": 2,
        "stages.2.1.conv.weight": 4,
        "stages.3.0.norm.weight": 5,
        "norm.weight": 6,
        "head.fc1.weight": 6,
    }
    assert {name: model.get_layer_depth(f"backbone.{name}", "backbone.")[0] for name in layers} == layers
    assert model.get_layer_depth("head.norm.bias") == (6, 7)


# Checkpoints in the layouts that people have


def to_timm(name: str) -> str:
    name = name.replace("head.norm.", "head.pre_logits.norm.").replace("head.fc1.", "head.pre_logits.fc.")
    name = name.replace("head.fc2.", "head.fc.")
    name = re.sub(r"^norm\.", "head.norm.", re.sub(r"^stages\.(\d)\.", r"stages.\1.blocks.", name))
    name = re.sub(r"^downsample_layers\.0\.", "stem.", name)
    return re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", name)


@pytest.mark.parametrize("rename", [str, to_timm], ids=["authors", "timm"])
def test_classifier_files_load_into_classifier_and_backbone(tmp_path, rename):
    source = MambaOutClassifier(SMALL, num_classes=4).eval()
    path = tmp_path / "mambaout.pth"
    torch.save({rename(name): tensor for name, tensor in source.state_dict().items()}, path)
    target = load_published(MambaOutClassifier(SMALL, num_classes=4), path).eval()
    image = torch.randn(1, 3, 40, 52)
    assert torch.equal(target(image), source(image))
    backbone = load_published(MambaOut(SMALL), path)
    assert torch.equal(backbone.stages[3][0].conv.weight, source.stages[3][0].conv.weight)
    short = load_published(MambaOut(SMALL, out_indices=(0, 2)), path)
    assert torch.equal(short.stages[2][1].conv.weight, source.stages[2][1].conv.weight)
    assert len(short.stages) == 3


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source = MambaOut(SMALL)
    nn.init.normal_(source.norm2.weight)
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.convs.0.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    target = load_published(MambaOut(SMALL), tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())
    load_published(MambaOut(SMALL, out_indices=(0, 1)), tmp_path / "detector.pth")


def test_another_models_file_is_refused(tmp_path):
    torch.save(MambaOutClassifier(SMALL, num_classes=4).state_dict(), tmp_path / "small.pth")
    deeper = {**SMALL, "depths": (1, 1, 3, 1)}
    with pytest.raises(UserError, match=r"stages\.2\.2\.\S+ .*missing"):
        load_published(MambaOut(deeper), tmp_path / "small.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MambaOut("kob"), "kob.*kobe"),
        (lambda: MambaOut({"depths": (1, 1), "dims": (8, 16)}), "4 entries"),
        (lambda: MambaOut({"depths": (1, 1, 1, 1)}), "lacks dims"),
        (lambda: MambaOutClassifier({**SMALL, "width": 8}), "width"),
        (lambda: MambaOut(SMALL, out_indices=(1, 4)), "out_indices"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
