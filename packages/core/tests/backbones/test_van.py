import re

import pytest
import torch
from torch import nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.van import VAN, Attention, Block, LargeKernelAttention, Mlp, VANClassifier
from opsin.core.errors import UserError
from opsin.core.layers.dilated_depthwise import DilatedDepthwiseConv2d
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.registry import MODELS

SMALL = {"embed_dims": (8, 12, 16, 20), "depths": (1, 1, 2, 1), "mlp_ratios": (2, 2, 2, 2)}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters", "without_head"),
    [
        ("van_b0", 4_105_800, 3_848_800),
        ("van_b1", 13_861_800, 13_348_800),
        ("van_b2", 26_578_472, 26_065_472),
        ("van_b3", 44_765_608, 44_252_608),
        ("van_b4", 60_283_176, 59_770_176),
        ("van_b5", 89_967_688, 89_198_688),
        ("van_b6", 199_829_416, 199_060_416),
    ],
)
def test_models_have_the_published_number_of_parameters(name, parameters, without_head):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters
        assert count(create_backbone(name)) == without_head


# Other cases of the authors' classes


def case_of(source: str, model: nn.Module, outputs: list[str], shape=(1, 3, 48, 70), **built_with) -> Case:
    meta = {
        "system": "van",
        "case": "other",
        "source": f"Visual-Attention-Network/{source}",
        "built_with": built_with,
        "tensors": [
            [name, list(tensor.shape)]
            for name, tensor in model.state_dict().items()
            if not name.endswith("num_batches_tracked")
        ],
        "inputs": {"x": {"seed": 1, "shape": list(shape)}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


CLASSIFICATION = "VAN-Classification@e19779b models/van.py"
SEGMENTATION = "VAN-Segmentation@8285fc7 van.py"


@pytest.mark.parametrize(
    ("source", "module", "built_with"),
    [
        (f"{CLASSIFICATION} Block", Block(6, 2.0), {"dim": 6, "mlp_ratio": 2.0}),
        (f"{SEGMENTATION} Block", Block(6, 2.0), {"dim": 6, "mlp_ratio": 2.0, "linear": True}),
        (f"{SEGMENTATION} SpatialAttention", Attention(6), {"d_model": 6}),
        (f"{SEGMENTATION} AttentionModule", LargeKernelAttention(6), {"dim": 6}),
        (f"{CLASSIFICATION} LKA", LargeKernelAttention(6), {"dim": 6}),
        (f"{CLASSIFICATION} Mlp", Mlp(6, 9), {"in_features": 6, "hidden_features": 9}),
    ],
)
def test_cases_of_single_modules_run(source, module, built_with):
    case = case_of(source, module, ["y"], shape=(2, 6, 9, 11), **built_with)
    assert find_adapter(case)(case)["y"].shape == (2, 6, 9, 11)


def test_the_linear_switch_changes_the_numbers():
    module, built_with = Block(6, 2.0), {"dim": 6, "mlp_ratio": 2.0}
    plain, switched = (
        case_of(f"{SEGMENTATION} Block", module, ["y"], shape=(1, 6, 9, 11), linear=linear, **built_with)
        for linear in (False, True)
    )
    run = find_adapter(plain)
    assert not torch.allclose(run(plain)["y"], run(switched)["y"])


def test_bare_classes_have_defaults_that_are_no_variant():
    defaults = {"embed_dims": (64, 128, 256, 512), "depths": (3, 4, 6, 3)}
    with torch.device("meta"):
        model = VANClassifier({**defaults, "mlp_ratios": (4, 4, 4, 4)}, num_classes=0)
        dense = VAN({**defaults, "mlp_ratios": (8, 8, 4, 4)}, out_indices=(0, 1))
    case = case_of(f"{CLASSIFICATION} VAN", model, ["logits"], shape=(1, 3, 32, 32), num_classes=0)
    assert find_adapter(case)(case)["logits"].shape == (1, 512)
    case = case_of(f"{SEGMENTATION} VAN", dense, ["stage2"], shape=(1, 3, 32, 32), num_stages=2)
    assert find_adapter(case)(case)["stage2"].shape == (1, 128, 4, 4)


def test_epsilon_of_the_stage_norms_follows_the_case():
    model = VANClassifier(SMALL, num_classes=0)
    outputs = []
    for eps in ("1e-6", "1e-1"):
        built_with = {**SMALL, "num_classes": 0, "norm_layer": f"LayerNorm eps {eps}"}
        case = case_of(f"{CLASSIFICATION} VAN", model, ["features"], **built_with)
        outputs.append(find_adapter(case)(case)["features"])
    assert not torch.allclose(*outputs)


# Large kernel attention


def test_one_pixel_is_seen_in_a_square_of_23():
    module = LargeKernelAttention(2)
    x = torch.zeros(1, 2, 41, 41)
    without = module.attention(x)
    x[0, 0, 20, 20] = 1.0
    rows, columns = (module.attention(x) - without)[0].abs().amax(0).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 31, 9, 31)


def test_attention_of_nothing_is_nothing_and_has_no_bound():
    module, x = LargeKernelAttention(4), torch.randn(1, 4, 9, 9)
    assert not module(torch.zeros(1, 4, 9, 9)).any()
    with torch.no_grad():
        small, large = module.attention(x), module.attention(1000 * x)
    assert large.abs().max() > 100 * small.abs().max()


def test_cost_grows_linearly_with_pixels():
    from torch.utils.flop_counter import FlopCounterMode

    def flops(side: int) -> int:
        with FlopCounterMode(display=False) as counter:
            LargeKernelAttention(4)(torch.randn(1, 4, side, side))
        return counter.get_total_flops()

    assert flops(48) == 4 * flops(24)


@pytest.mark.parametrize(
    ("kernel_size", "dilation", "sides"), [(21, 3, (5, 7)), (35, 5, (9, 7)), (7, 1, (1, 7))]
)
def test_kernels_are_taken_apart_by_the_papers_rule(kernel_size, dilation, sides):
    config = {"type": "opsin.LargeKernelAttention", "dim": 4}
    module = MODELS.build({**config, "kernel_size": kernel_size, "dilation": dilation})
    assert (module.conv0.kernel_size[0], module.conv_spatial.kernel_size[0]) == sides
    assert count(module) == 4 * (sides[0] ** 2 + 1) + 4 * (sides[1] ** 2 + 1) + 4 * 4 + 4
    assert module(torch.randn(1, 4, 10, 13)).shape == (1, 4, 10, 13)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (9, 12), (14, 8)])
@pytest.mark.parametrize("dilation", [2, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_phases_of_a_dilated_convolution_give_the_same_sums(size, dilation, memory_format):
    convolution = DilatedDepthwiseConv2d(3, 7, dilation)
    x = torch.randn(2, 3, *size).contiguous(memory_format=memory_format)
    with torch.no_grad():
        assert torch.allclose(convolution(x), nn.Conv2d.forward(convolution, x), atol=1e-6)


@torch.no_grad()
def test_a_block_has_a_shortcut_inside_its_shortcut():
    block, x = Block(4).eval(), torch.randn(1, 4, 6, 6)
    for convolution in (block.attn.proj_2, block.mlp.fc2):
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    block.norm1.bias.fill_(3.0)
    block.layer_scale_1.fill_(0.5)
    assert torch.allclose(block(x), x + 0.5 * block.norm1(x))


# The network


@torch.no_grad()
def test_maps_round_up_at_every_stride_and_are_normed():
    backbone = VAN(SMALL).eval()
    maps = backbone(torch.randn(1, 3, 150, 203))
    assert [tuple(m.shape[2:]) for m in maps] == [(38, 51), (19, 26), (10, 13), (5, 7)]
    assert all(m.mean(1).abs().max() < 1e-5 for m in maps)  # the norms' biases are still zero
    backbone.norm2.bias.fill_(0.7)
    assert torch.allclose(backbone(torch.randn(1, 3, 64, 64))[1].mean(1), torch.tensor(0.7), atol=1e-5)


@torch.no_grad()
def test_the_next_stage_reads_the_normed_map():
    backbone, image = VAN(SMALL).eval(), torch.randn(1, 3, 64, 64)
    before = backbone(image)
    backbone.norm2.weight.mul_(2.0)
    after = backbone(image)
    assert [torch.equal(a, b) for a, b in zip(after, before, strict=True)] == [True, False, False, False]


@torch.no_grad()
def test_statistics_move_in_training_and_stay_in_evaluation():
    model, images = VANClassifier(SMALL, num_classes=2), torch.randn(4, 3, 32, 48)
    norm = model.block2[0].norm1
    start = norm.running_mean.clone()
    model.eval()(images)
    assert torch.equal(norm.running_mean, start)
    model.train()(images)
    assert not torch.equal(norm.running_mean, start)


def test_layers_for_learning_rate_decay_follow_the_depth():
    model = VANClassifier(SMALL)
    layers = {
        "patch_embed1.proj.weight": 0,
        "block1.0.layer_scale_1": 1,
        "norm1.bias": 1,
        "patch_embed2.norm.weight": 2,
        "block3.1.mlp.fc1.weight": 4,
        "norm4.weight": 5,
        "head.weight": 6,
    }
    assert {name: model.get_layer_depth(f"backbone.{name}", "backbone.")[0] for name in layers} == layers
    assert model.get_layer_depth("head.bias") == (6, 7)


# Checkpoints in the layouts that people have


def to_mmpretrain(name: str) -> str:
    if name.startswith("head."):
        return name.replace("head.", "head.fc.")
    name = re.sub(r"^block(\d)", r"blocks\1", name)
    name = re.sub(r"(patch_embed\d)\.proj", r"\1.projection", name)
    name = name.replace(".conv0.", ".DW_conv.").replace(".conv_spatial.", ".DW_D_conv.")
    return "backbone." + name.replace("dwconv.dwconv", "dwconv")


@pytest.mark.parametrize("rename", [str, to_mmpretrain], ids=["authors", "mmpretrain"])
def test_classifier_files_load_into_classifier_and_backbone(tmp_path, rename):
    source = VANClassifier(SMALL, num_classes=4)
    source.train()(torch.randn(4, 3, 64, 64))
    tensors = {rename(name): tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "van.pth.tar")
    image = torch.randn(1, 3, 40, 52)
    target = load_published(VANClassifier(SMALL, num_classes=4), tmp_path / "van.pth.tar")
    assert torch.equal(target.eval()(image), source.eval()(image))
    backbone = load_published(VAN(SMALL, norm_eps=1e-6), tmp_path / "van.pth.tar").eval()
    assert torch.allclose(backbone(image)[3].mean((2, 3)), source.forward_features(image), atol=1e-6)
    short = load_published(VAN(SMALL, out_indices=(1,)), tmp_path / "van.pth.tar")
    assert torch.equal(short.norm2.weight, source.norm2.weight) and not hasattr(short, "norm3")


def test_a_whole_segmentor_loads_into_the_backbone(tmp_path):
    source = VAN(SMALL)
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "decode_head.conv_seg.bias": torch.zeros(1)}}, tmp_path / "s.pth")
    target = load_published(VAN(SMALL), tmp_path / "s.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_another_models_file_is_refused(tmp_path):
    torch.save({"state_dict": VANClassifier(SMALL, num_classes=4).state_dict()}, tmp_path / "small.pth")
    with pytest.raises(UserError, match=r"block4\.1\.\S+ .*missing"):
        load_published(VAN({**SMALL, "depths": (1, 1, 2, 2)}), tmp_path / "small.pth")
    with pytest.raises(UserError, match=r"block4\.0\.\S+ .*left over"):
        load_published(VAN({**SMALL, "depths": (1, 1, 2, 0)}), tmp_path / "small.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VAN("b7"), "b7.*b6"),
        (lambda: VAN({**SMALL, "depths": (1, 1)}), r"depths \(1, 1\) .* 4 entries"),
        (lambda: VAN({"depths": (1, 1, 1, 1)}), "lacks embed_dims"),
        (lambda: VANClassifier({**SMALL, "widths": (1,)}), "widths"),
        (lambda: VAN(SMALL, out_indices=(0, 4)), "out_indices"),
        (lambda: LargeKernelAttention(4, kernel_size=24), "8x8"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
