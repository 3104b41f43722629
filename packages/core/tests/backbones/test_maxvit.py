import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_backbone, create_model
from opsin.core.backbones.maxvit import MultiAxisAttention
from opsin.core.backbones.maxvit.attention import RelativeAttention, RelativeBias
from opsin.core.backbones.maxvit.mbconv import MbConv, SameConv2d, Shortcut, Stem
from opsin.core.backbones.maxvit.network import Block, MaxViT, MaxViTClassifier
from opsin.core.backbones.maxvit.tanh_gelu import TanhGELU
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {"stem_width": 8, "depths": (1, 2, 1, 1), "embed_dims": (8, 8, 16, 16)}
PORT = "huggingface/pytorch-image-models@1.0.31 timm/models/maxxvit.py"


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def case_of(
    source: str, tensors: dict[str, Tensor], outputs: list[str], shape: list[int], **built_with
) -> Case:
    """A case as another run of timm's port would give it, without numbers."""
    meta = {
        "system": "maxvit",
        "case": "other",
        "source": f"{PORT} {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "inputs": {"x": {"seed": 1, "shape": shape}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


def to_timm(name: str) -> str:
    name = re.sub(r"^head\.", "head.fc.", name)
    return re.sub(r"^norm\.", "head.norm.", name.replace("pre_logits.", "head.pre_logits.fc."))


@pytest.mark.parametrize("source", ["MaxxVit (maxvit_small_tf_384)", "maxvit_tiny_tf_224"])
@pytest.mark.parametrize("classes", [0, 5])
def test_other_network_cases_run(source, classes):
    settings = {"window_size": (3, 4), "grid_size": (2, 1), "head_dim": 4, "expand_ratio": 2}
    model = MaxViTClassifier(SMALL, num_classes=classes, **settings)
    tensors = {to_timm(name): tensor for name, tensor in model.state_dict().items()}
    case = case_of(source, tensors, ["stem", "stage2", "stage4", "logits"], [2, 3, 64, 96])
    got = find_adapter(case)(case)
    assert [tuple(got[name].shape[1:]) for name in ("stem", "stage2", "stage4")] == [
        (8, 32, 48),
        (8, 8, 12),
        (16, 2, 3),
    ]
    assert got["logits"].shape == (2, classes or 16)


@pytest.mark.parametrize(
    ("source", "module", "shape", "out", "built_with"),
    [
        ("MbConvBlock", MbConv(8, 8), [2, 8, 9, 10], (2, 8, 9, 10), {}),
        ("MbConvBlock", MbConv(8, 8, 2, kernel_size=5), [1, 8, 8, 10], (1, 8, 4, 5), {"pool_stride": 2}),
        ("MbConvBlock", MbConv(8, 12, 2, se_ratio=0), [1, 8, 8, 10], (1, 12, 4, 5), {"stride": 2}),
        ("MbConvBlock", MbConv(8, 8, se_ratio=0.5), [1, 8, 8, 10], (1, 8, 8, 10), {"se_ratio": 0.5}),
        ("MaxxVitBlock", Block(8, 16, 2, window=2, grid=3, head_dim=4), [1, 8, 24, 12], (1, 16, 12, 6), {}),
        ("AttentionCl", RelativeAttention(16, 4, (3, 5)), [2, 3, 5, 16], (2, 3, 5, 16), {}),
        (
            "PartitionAttentionCl",
            MultiAxisAttention(16, "grid", (3, 2), head_dim=4),
            [1, 6, 8, 16],
            (1, 6, 8, 16),
            {"partition_type": "grid"},
        ),
        ("Stem", Stem(3, 8), [1, 3, 32, 34], (1, 8, 16, 17), {}),
    ],
)
def test_other_part_cases_run(source, module, shape, out, built_with):
    case = case_of(source, module.state_dict(), ["out"], shape, **built_with)
    assert find_adapter(case)(case)["out"].shape == out


def test_the_partition_of_a_case_is_that_of_its_arguments():
    module = MultiAxisAttention(16, "grid", (3, 2), head_dim=4)
    got = {}
    for axis in ("block", "grid"):
        source = "PartitionAttentionCl"
        case = case_of(source, module.state_dict(), ["out"], [1, 6, 8, 16], partition_type=axis)
        got[axis] = find_adapter(case)(case)["out"]
    assert not torch.allclose(got["block"], got["grid"], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "changes", "parameters"),
    [
        ("maxvit_tiny", {}, 30_916_528),
        ("maxvit_small", {}, 68_927_956),
        ("maxvit_base", {}, 119_467_708),
        ("maxvit_large", {}, 211_785_560),
        ("maxvit_xlarge", {}, 474_951_952),
        ("maxvit_xlarge", {"num_classes": 21843}, 506_987_643),
        ("maxvit_tiny", {"window_size": (6, 8)}, 30_915_856),
    ],
)
def test_variants_have_the_published_number_of_parameters(name, changes, parameters):
    with torch.device("meta"):
        assert count(create_model(name, **changes)) == parameters


def test_models_for_larger_images_have_larger_tables():
    with torch.device("meta"):
        backbones = [create_backbone(f"maxvit_tiny{size}") for size in ("", "_384", "_512")]
    tables = [b.stages[1].blocks[0].attn_grid.attn.rel_pos.relative_position_bias_table for b in backbones]
    assert [tuple(table.shape) for table in tables] == [(4, 13, 13), (4, 23, 23), (4, 31, 31)]


# Attention


def attention(axis: str, window: tuple[int, int], **changes) -> MultiAxisAttention:
    """An attention whose bias tables matter."""
    torch.manual_seed(0)
    module = MultiAxisAttention(8, axis, window, head_dim=4, **changes)
    nn.init.normal_(module.attn.rel_pos.relative_position_bias_table, std=3.0)
    return module


@torch.no_grad()
def test_grid_attention_is_window_attention_of_the_permuted_map():
    block, grid = attention("block", (3, 2)), attention("grid", (3, 2))
    x = torch.randn(2, 12, 6, 8)
    permuted = x.view(2, 3, 4, 2, 3, 8).permute(0, 2, 1, 4, 3, 5).reshape(2, 12, 6, 8)
    windowed = block(permuted).view(2, 4, 3, 3, 2, 8).permute(0, 2, 1, 4, 3, 5).reshape(2, 12, 6, 8)
    assert torch.allclose(grid(x), windowed, atol=1e-5)


@torch.no_grad()
def test_a_pixel_reaches_the_far_side_within_one_block():
    torch.manual_seed(0)
    block, x = Block(8, 8, 1, window=2, grid=2, head_dim=4).eval(), torch.randn(1, 8, 16, 16)
    moved = x.clone()
    moved[0, :, 0, 0] += 5
    # compared with a block that has no grid attention: squeeze-and-excitation alone reaches far too
    block.conv.se = nn.Identity()
    changed = (block(moved) - block(x)).abs().amax(1)[0] > 1e-7
    assert changed[8:, 8:].any()
    block.attn_grid = nn.Identity()
    near = (block(moved) - block(x)).abs().amax(1)[0] > 1e-7
    assert near[:2, :2].all() and not near[4:].any()


@torch.no_grad()
@pytest.mark.parametrize("axis", ["block", "grid"])
def test_with_constant_logits_the_mean_of_a_group_comes_out(axis):
    module = attention(axis, (2, 3))
    nn.init.zeros_(module.attn.rel_pos.relative_position_bias_table)
    module.attn.qkv.weight[:16] = 0
    module.attn.qkv.weight[16:] = torch.eye(8)
    module.attn.proj.weight.copy_(torch.eye(8))
    x = torch.randn(1, 4, 6, 8)
    for linear in (module.attn.qkv, module.attn.proj):
        nn.init.zeros_(linear.bias)
    got = module._attend(x)
    group = x[:, :2, :3] if axis == "block" else x[:, ::2, ::2]
    assert group[0, ..., 0].numel() == 6
    assert torch.allclose(got[0, 0, 0], group.mean((1, 2))[0], atol=1e-6)


def test_bias_is_the_tables_entry_at_key_minus_query():
    bias = RelativeBias(2, (3, 4))
    table, got = bias.relative_position_bias_table, bias()
    for i, j, x, y in [(0, 0, 2, 3), (2, 1, 0, 3), (1, 2, 1, 2)]:
        assert torch.equal(got[:, 4 * i + j, 4 * x + y], table[:, x - i + 2, y - j + 3])


@torch.no_grad()
@pytest.mark.parametrize("axis", ["block", "grid"])
def test_padded_keys_take_no_part(axis):
    padded, whole = attention(axis, (7, 7)), MultiAxisAttention(8, axis, (5, 6), head_dim=4)
    tensors = padded.state_dict()
    name = "attn.rel_pos.relative_position_bias_table"
    tensors[name] = tensors[name][:, 2:11, 1:12]  # the offsets that a 5x6 map has
    whole.load_state_dict(tensors)
    x = torch.randn(2, 5, 6, 8)
    assert torch.allclose(padded(x), whole(x), atol=1e-5)


@torch.no_grad()
def test_a_grid_that_does_not_divide_leaves_the_last_cells_fewer_partners():
    module, x = attention("grid", (2, 1)), torch.randn(1, 9, 2, 8)
    before, moved = module(x), x.clone()
    moved[0, 3] += 1  # rows are 5 apart: 3 attends with 8, and 4 alone
    changed = (module(moved) - before).abs().amax((0, 3)).amax(1) > 0
    assert changed.nonzero().flatten().tolist() == [3, 8]
    moved[0, 3], moved[0, 4] = x[0, 3], x[0, 4] + 1
    changed = (module(moved) - before).abs().amax((0, 3)).amax(1) > 0
    assert changed.nonzero().flatten().tolist() == [4]


@torch.no_grad()
def test_cost_is_linear_in_the_area():
    backbone = MaxViT({**SMALL, "embed_dims": (8, 16, 16, 16)}, window_size=2, head_dim=8).eval()
    flops = []
    for width in (64, 128, 256):
        with FlopCounterMode(display=False) as counter:
            backbone(torch.randn(1, 3, 64, width))
        flops.append(counter.get_total_flops())
    # squeeze-and-excitation costs the same for every size
    assert flops[2] - flops[1] == 2 * (flops[1] - flops[0])
    assert flops[1] == pytest.approx(2 * flops[0], rel=0.01)


def test_bias_tables_get_gradients_and_no_weight_decay():
    model = MaxViTClassifier(SMALL, num_classes=3, window_size=2, head_dim=4)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    tables = {n: p for n, p in model.named_parameters() if n.endswith("relative_position_bias_table")}
    assert len(tables) == 10
    assert all(table.grad.abs().sum() > 0 for table in tables.values())
    assert model.no_weight_decay() == set(tables)


# Convolutions


@pytest.mark.parametrize(("side", "pads"), [(10, (0, 1)), (9, (1, 1))])
def test_strided_convolutions_pad_as_tensorflow_does(side, pads):
    conv, x = SameConv2d(2, 3, 3, stride=2), torch.randn(1, 2, side, 7)
    by_hand = F.conv2d(F.pad(x, (1, 1, *pads)), conv.weight, conv.bias, stride=2)
    assert torch.allclose(conv(x), by_hand, atol=1e-6)
    assert conv(x).shape[2:] == (5, 4)


def test_pooling_on_an_odd_side_is_the_mean_of_the_cells_there_are():
    x = torch.randn(1, 2, 5, 4)
    got = Shortcut(2, 2, 2)(x)
    assert got.shape == (1, 2, 3, 2)
    assert torch.allclose(got[:, :, 2, 0], x[:, :, 4, :2].mean(-1), atol=1e-6)


def test_gelu_without_gradients_is_the_kernel_with_them():
    x = torch.linspace(-12, 12, 2001, requires_grad=True)
    exact = TanhGELU()(x)
    with torch.no_grad():
        fast, infinite = TanhGELU()(x), TanhGELU()(torch.tensor([-1e30, 1e30]))
    assert exact.requires_grad and torch.allclose(fast, exact, atol=1e-6)
    assert infinite.tolist() == pytest.approx([0, 1e30])


def test_squeeze_follows_the_output_width():
    assert MbConv(8, 24, 2).se.fc1.weight.shape == (6, 96, 1, 1)


def test_drop_path_rates_stay_below_that_of_the_network():
    backbone = MaxViT(SMALL, window_size=2, head_dim=4, drop_path_rate=0.5, out_indices=(0, 2))
    rates = [block.conv.drop_path.rate for stage in backbone.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1 * index for index in range(4)])
    block = backbone.stages[2].blocks[0]
    assert block.attn_block.drop_path.rate == block.attn_grid.drop_path.rate == rates[3]


@torch.no_grad()
def test_maps_have_norms_of_their_own_if_asked_for():
    backbone, image = (
        MaxViT(SMALL, window_size=2, head_dim=4, out_norm=True).eval(),
        torch.randn(1, 3, 70, 41),
    )
    maps = backbone(image)
    assert [tuple(m.shape[2:]) for m in maps] == [(18, 11), (9, 6), (5, 3), (3, 2)]
    assert all(m.mean(1).abs().max() < 1e-5 for m in maps)
    backbone.norm1.bias.add_(1.0)
    same = [torch.equal(a, b) for a, b in zip(maps, backbone(image), strict=True)]
    assert same == [True, False, True, True]


@pytest.mark.parametrize(("changes", "momentum"), [({}, 0.01), ({"bn_momentum": 0.1}, 0.1)])
def test_statistics_follow_as_slowly_as_published_or_as_told(changes, momentum):
    model = MaxViTClassifier(SMALL, num_classes=0, head_dim=4, **changes)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(momentum, 1e-3)}


# Checkpoints in the layouts that people have


@pytest.mark.parametrize("rename", [str, to_timm])
def test_classifier_files_load_into_classifier_and_backbone(tmp_path, rename):
    torch.manual_seed(0)
    source = MaxViTClassifier(SMALL, num_classes=4, window_size=2, head_dim=4).eval()
    torch.save(
        {"state_dict": {rename(n): t for n, t in source.state_dict().items()}}, tmp_path / "maxvit.pth"
    )
    image = torch.randn(1, 3, 40, 52)
    target = MaxViTClassifier(SMALL, num_classes=4, window_size=2, head_dim=4)
    load_published(target, tmp_path / "maxvit.pth")
    assert torch.equal(target.eval()(image), source(image))
    backbone = MaxViT(SMALL, window_size=2, head_dim=4, out_indices=(1, 2), out_norm=True)
    load_published(backbone, tmp_path / "maxvit.pth")
    own, given = backbone.state_dict(), source.state_dict()
    assert {name.split(".")[0] for name in own if name not in given} == {"norm1", "norm2"}
    assert all(torch.equal(tensor, given[name]) for name, tensor in own.items() if name in given)


def test_a_model_for_larger_images_keeps_all_but_the_tables(tmp_path):
    torch.manual_seed(0)
    source = MaxViTClassifier(SMALL, num_classes=4, head_dim=4)
    torch.save(source.state_dict(), tmp_path / "maxvit_224.pth")
    target = load_published(
        MaxViTClassifier(SMALL, num_classes=4, window_size=12, head_dim=4), tmp_path / "maxvit_224.pth"
    )
    given = source.state_dict()
    for name, tensor in target.state_dict().items():
        if not name.endswith("relative_position_bias_table"):
            assert torch.equal(tensor, given[name]), name
            continue
        assert tensor.shape == (len(given[name]), 23, 23)
        # the centre is the bias of no offset, and stays
        assert torch.allclose(tensor[:, 11, 11], given[name][:, 6, 6])
        resized = F.interpolate(given[name][None], size=(23, 23), mode="bilinear", align_corners=False)
        assert torch.equal(tensor, resized[0])


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source = MaxViT(SMALL, window_size=2, head_dim=4, out_norm=True)
    nn.init.normal_(source.norm2.weight)
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.convs.0.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    target = MaxViT(SMALL, window_size=2, head_dim=4, out_norm=True)
    load_published(target, tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_another_models_file_is_refused(tmp_path):
    wider = MaxViTClassifier({**SMALL, "embed_dims": (8, 8, 16, 24)}, num_classes=4, head_dim=4)
    torch.save(wider.state_dict(), tmp_path / "wider.pth")
    with pytest.raises(UserError, match=r"wider\.pth.*stages\.3\.blocks\.0\.conv\.conv1_1x1\.weight"):
        load_published(MaxViT(SMALL, head_dim=4), tmp_path / "wider.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MaxViT("tinny"), "tinny.*tiny"),
        (lambda: MaxViT({**SMALL, "depths": (1, 1)}), "number of stages"),
        (lambda: MaxViT(SMALL, head_dim=3), "head_dim 3"),
        (lambda: MaxViT(SMALL, head_dim=4, window_size=0), "window"),
        (lambda: MaxViT(SMALL, head_dim=4, grid_size=(1, 2, 3)), "grid"),
        (lambda: MaxViT(SMALL, head_dim=4, out_indices=(0, 4)), "out_indices"),
        (lambda: MultiAxisAttention(8, "gird", 2, head_dim=4), "gird.*grid"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
