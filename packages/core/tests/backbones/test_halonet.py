import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_model
from opsin.core.backbones.halonet import ARCHS, HaloAttention, HaloBlock, HaloNet, HaloNetClassifier
from opsin.core.backbones.halonet.attention import round_to_8
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published, place

FOLDER = Path(__file__).parents[1] / "parity" / "halonet"
STAGES = "halonet-h1-stages"
SMALL = {
    "stem": "tiered_strided",
    "blocks": ("B", "BA", "A", "A"),
    "widths": (8, 8, 16, 16),
    "out_widths": (8, 16, 16, 24),
    "block_size": 4,
    "halo_size": 1,
    "num_heads": (2, 2, 2, 4),
    "channel_attention": "eca",
    "final_width": 32,
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def test_stage_maps_are_met_as_far_as_float32_determines_them():
    """With this case's weights (relative tables of 0.5, unscaled queries) stages 3 and 4 are near chaos.

    timm 1.0.31 itself misses its own numbers of stage 4 by 0.4 % to 1.1 % on another processor or with
    another number of threads: rounding errors of 3e-7 grow twenty thousandfold on the way.
    """
    case = Case.load(FOLDER / f"{STAGES}.json")
    got = find_adapter(case)(case)
    worst = {name: _compare_one(case, name, got[name]) for name in got}
    assert max(worst["stage1"], worst["stage2"]) < 1e-5
    assert worst["stage3"] < case.tolerance
    assert worst["stage4"] < 0.03

    backbone = HaloNet("h1").eval()
    place(backbone, case.state_dict())
    nudged = backbone(case.inputs()["image"] * (1 + 1e-6))
    moved = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(nudged, got.values(), strict=True)]
    assert moved[0] < 1e-5 and moved[3] > case.tolerance


def _compare_one(case: Case, name: str, output: Tensor) -> float:
    meta = {**case.meta, "outputs": {name: case.meta["outputs"][name]}}
    return Case(meta, case.outputs).compare({name: output})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("halonet_h0", 5_500_952),
        ("halonet_h1", 8_100_056),
        ("halonet_h2", 9.41e6),
        ("halonet_h3", 11.84e6),
        ("halonet_h4", 19.10e6),
        ("halonet_h5", 30.72e6),
        ("halonet_h6", 43.46e6),
        ("halonet_h7", 67.43e6),
        ("halonet26t", 12_480_288),
        ("eca_halonext26ts", 10_756_885),
        ("halonet50ts", 22_733_280),
        ("sehalonet33ts", 13_691_712),
    ],
)
def test_models_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        counted = count(create_model(name))
    assert abs(counted - parameters) < 0.01e6 if isinstance(parameters, float) else counted == parameters


def test_the_papers_heads_change_the_tables_only():
    with torch.device("meta"):
        eight, paper = HaloNetClassifier("h1"), HaloNetClassifier("h1", num_heads=(4, 8, 8, 8))
    assert paper.stages[0][0].self_attn.num_heads == 4
    assert count(paper) - count(eight) == 3 * 2 * 27 * 8


# Attention


def by_definition(module: HaloAttention, x: Tensor) -> Tensor:
    """The same, one query and one head at a time."""
    n, d, e = module.num_heads, module.dim_head, module.value_width
    b, h, s = module.block_size, module.halo_size, module.query_stride
    w = b + 2 * h
    height, width = x.shape[2] // s, x.shape[3] // s
    q = module.q(x).view(-1, n, d, height, width)
    kv = F.pad(module.kv(x), [h] * 4).view(-1, n, d + e, x.shape[2] + 2 * h, x.shape[3] + 2 * h)
    out = x.new_empty(x.shape[0], n, e, height, width)
    rows, columns = module.pos_embed.height_rel, module.pos_embed.width_rel
    for i in range(height):
        for j in range(width):
            y, x_in_block = i % (b // s), j % (b // s)
            top, left = i * s // b * b, j * s // b * b
            keys = kv[:, :, :, top : top + w, left : left + w]
            relative = rows[w - 1 - y :][:w, None] + columns[w - 1 - x_in_block :][None, :w]
            query = q[:, :, :, i, j]
            content = torch.einsum("bnd,bnduv->bnuv", query, keys[:, :, :d]) * d**-0.5
            logits = content + torch.einsum("bnd,uvd->bnuv", query, relative)
            weights = logits.flatten(2).softmax(-1).view_as(logits)
            out[..., i, j] = torch.einsum("bnuv,bneuv->bne", weights, keys[:, :, d:])
    return out.flatten(1, 2)


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((8, 12), {"block_size": 4, "halo_size": 1}),
        ((8, 4), {"block_size": 4, "halo_size": 3}),  # the halo reaches beyond the next block
        ((4, 8), {"block_size": 4, "halo_size": 2, "stride": 2, "dim_out": 24, "dim_head": 5}),
        ((6, 4), {"block_size": 2, "halo_size": 0}),
        ((6, 6), {"block_size": 6, "halo_size": 0}),
    ],
    ids=["halo", "wide halo", "strided", "plain blocks", "global"],
)
def test_attention_is_what_its_definition_says(size, settings):
    torch.manual_seed(0)
    module = HaloAttention(16, num_heads=2, **settings).eval()
    x = torch.randn(2, 16, *size)
    assert torch.allclose(module(x), by_definition(module, x), atol=1e-5)


@torch.no_grad()
def test_a_block_sees_itself_and_its_halo_only():
    module = HaloAttention(8, num_heads=2, block_size=4, halo_size=1).eval()
    x = torch.randn(1, 8, 12, 12)
    near, far = x.clone(), x.clone()
    far[..., :3, :] += 1  # all outside rows 3 to 8, which the middle block sees
    near[..., 3, 5] += 1
    block = (..., slice(4, 8), slice(4, 8))
    assert torch.equal(module(far)[block], module(x)[block])
    assert not torch.allclose(module(near)[block], module(x)[block])


@torch.no_grad()
def test_strided_layer_gives_every_second_query_where_positions_are_zero():
    plain = HaloAttention(16, num_heads=2, block_size=4, halo_size=1).eval()
    strided = HaloAttention(16, num_heads=2, block_size=4, halo_size=1, stride=2).eval()
    for table in plain.pos_embed.parameters():
        table.zero_()
    strided.load_state_dict(plain.state_dict())
    x = torch.randn(1, 16, 8, 12)
    assert torch.allclose(strided(x), plain(x)[..., ::2, ::2], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{"block_size": 5}, {"block_size": 4, "avg_down": True}])
def test_stride_by_averaging(settings):
    strided = HaloAttention(16, num_heads=2, halo_size=1, stride=2, **settings).eval()
    plain = HaloAttention(16, num_heads=2, halo_size=1, **settings).eval()
    plain.load_state_dict(strided.state_dict())
    x = torch.randn(1, 16, 20, 20)
    assert torch.allclose(strided(x), F.avg_pool2d(plain(x), 2), atol=1e-6)
    assert strided(x[..., :9, :13]).shape[2:] == (5, 7)


def test_window_costs_its_area_and_only_the_tables_grow_with_it():
    x = torch.randn(1, 16, 24, 24)
    for block, halo in [(4, 0), (4, 1), (8, 3), (12, 2)]:
        window = block + 2 * halo
        module = HaloAttention(16, num_heads=2, block_size=block, halo_size=halo)
        assert count(module) == 16 * 16 + 16 * 32 + 2 * (2 * window - 1) * 8
        with FlopCounterMode(display=False) as counter:
            module(x)
        projections, tables, area = 16 * 16 * 3, 2 * 16 * 2 * window, 2 * 16 * window**2
        assert counter.get_total_flops() == 2 * 24 * 24 * (projections + tables + area)


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(5, 9), (8, 3), (1, 1)])
def test_uneven_maps_are_padded_below_and_on_the_right_and_cut_off_again(stride, size):
    module = HaloAttention(16, num_heads=2, block_size=4, halo_size=1, stride=stride).eval()
    x = torch.randn(1, 16, *size)
    padded = F.pad(x, (0, -size[1] % 4, 0, -size[0] % 4))
    rows, columns = (-(-side // stride) for side in size)
    assert torch.equal(module(x), module(padded)[..., :rows, :columns])


@torch.no_grad()
def test_a_map_that_blocks_divide_is_computed_bit_for_bit_as_without_the_padding_rule():
    module = HaloAttention(16, num_heads=2, block_size=4, halo_size=1).eval()
    x = torch.randn(1, 16, 8, 12)
    without = module._attend(module.q(x).permute(0, 2, 3, 1), module.kv(x).permute(0, 2, 3, 1))
    assert torch.equal(module(x), without.permute(0, 3, 1, 2))


@torch.no_grad()
def test_keys_beyond_the_map_stay_zero_whatever_the_bias():
    module = HaloAttention(8, num_heads=2, block_size=4, halo_size=2, qkv_bias=True).eval()
    nn.init.normal_(module.kv.bias)
    x = torch.randn(1, 8, 8, 8)
    assert torch.allclose(module(x), by_definition(module, x), atol=1e-6)


def test_widths_round_to_eight_but_never_lose_a_tenth():
    assert [round_to_8(width) for width in (3, 24, 60, 36, 20)] == [8, 24, 64, 40, 24]


# Networks


def test_batch_norm_at_the_end_of_a_block_begins_as_nothing():
    model = HaloNetClassifier(SMALL)
    assert all(not block.conv3_1x1.bn.weight.any() for stage in model.stages for block in stage)


def test_hybrids_are_built_as_timm_lists_them():
    with torch.device("meta"):
        kinds = {
            name: " ".join(
                "".join("A" if isinstance(block, HaloBlock) else "B" for block in stage)
                for stage in HaloNet(name).stages
            )
            for name in ("halonet26t", "halonet50ts", "sehalonet33ts")
        }
        heads = HaloNet("halonet50ts").stages[1][3].self_attn.num_heads
    assert kinds["halonet26t"] == "BB BB BA AA"
    assert kinds["halonet50ts"] == "BBB BBBA BABABA BAB"
    assert kinds["sehalonet33ts"] == "BB BBA BBA AA"
    assert heads == 4


def timm_names(model: nn.Module) -> dict[str, Tensor]:
    return {re.sub(r"^head\.", "head.fc.", name): t for name, t in model.state_dict().items()}


@torch.no_grad()
def test_timms_files_load_into_classifier_and_backbone(tmp_path):
    source = HaloNetClassifier(SMALL, num_classes=4).eval()
    for block in (block for stage in source.stages for block in stage):
        nn.init.normal_(block.conv3_1x1.bn.weight)
    torch.save(timm_names(source), tmp_path / "timm.pth")
    image = torch.randn(1, 3, 65, 70)
    target = load_published(HaloNetClassifier(SMALL, num_classes=4), tmp_path / "timm.pth").eval()
    assert torch.equal(target(image), source(image))
    backbone = load_published(HaloNet(SMALL, out_indices=(0, 2)), tmp_path / "timm.pth").eval()
    assert torch.equal(backbone.stages[2][0].self_attn.kv.weight, source.stages[2][0].self_attn.kv.weight)


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source = HaloNet(SMALL)
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.convs.0.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    target = load_published(HaloNet(SMALL), tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_batch_norms_may_keep_their_statistics_while_training():
    backbone = HaloNet(SMALL, norm_eval=True).train()
    before = {name: tensor.clone() for name, tensor in backbone.named_buffers()}
    assert before
    backbone(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.named_buffers())
    assert backbone.stem.conv1.bn.weight.requires_grad


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HaloNet("h8"), "h8.*h7"),
        (lambda: HaloNet({"depth": 3}), "depth"),
        (lambda: HaloNet({**SMALL, "stem": "7"}), "stem"),
        (lambda: HaloNet({**SMALL, "channel_attention": "sea"}), "sea.*se"),
        (lambda: HaloNet({**SMALL, "blocks": ("AC", "A", "A", "A")}), "AC"),
        (lambda: HaloNet({**SMALL, "widths": (8, 8)}), "four"),
        (lambda: HaloNet(SMALL, out_indices=(0, 4)), "out_indices"),
        (lambda: HaloNet(SMALL, num_heads=3), "3 heads"),
        (lambda: HaloAttention(16, stride=3), "stride=3"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


# Cases that others could make


def case_of(
    source: str, tensors: dict[str, Tensor], outputs: list[str], shape: list[int], **built_with
) -> Case:
    """A case as another run of timm's code would give it, without numbers."""
    meta = {
        "system": "halonet",
        "case": "other",
        "source": f"huggingface/pytorch-image-models@1.0.31 timm/{source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "inputs": {"x": {"seed": 1, "shape": shape}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


def test_other_attention_cases_run():
    settings = {
        "stride": 2,
        "num_heads": 2,
        "block_size": 4,
        "halo_size": 1,
        "avg_down": True,
        "qk_ratio": 0.5,
    }
    tensors = HaloAttention(16, **settings).state_dict()
    source = "layers/halo_attn.py HaloAttn"
    case = case_of(source, tensors, ["out"], [1, 16, 8, 8], dim=16, feat_size=None, **settings)
    assert find_adapter(case)(case)["out"].shape == (1, 16, 4, 4)


def test_block_cases_run():
    attention = {"num_heads": 2, "dim_head": 4, "block_size": 4, "halo_size": 1}
    block = HaloBlock(
        12, 8, 20, stride=2, act=nn.SiLU, drop_path_rate=0.0, value_ratio=1.5, attention=attention
    )
    source = "models/byobnet.py SelfAttnBlock"
    built_with = {"stride": 2, "block_size": 4, "halo_size": 1, "act": "silu"}
    case = case_of(source, block.state_dict(), ["out"], [1, 12, 8, 8], **built_with)
    assert find_adapter(case)(case)["out"].shape == (1, 20, 4, 4)


@pytest.mark.parametrize(("arch", "classes"), [("halonet26t", 0), ("sehalonet33ts", 5)])
def test_hybrid_cases_run_by_their_name(arch, classes):
    tensors = timm_names(HaloNetClassifier(arch, num_classes=classes))
    source = f"models/byoanet.py {arch}"
    case = case_of(source, tensors, ["features", "logits"], [1, 3, 32, 64], num_classes=classes)
    got = find_adapter(case)(case)
    width = 1280 if ARCHS[arch].get("final_width") else 2048
    assert got["features"].shape == (1, width)
    assert got["logits"].shape == (1, classes or width)


def test_other_settings_of_a_pure_network_run():
    arch = {
        "blocks": ("A", "A", "AA", "A"),
        "widths": (8, 16, 16, 16),
        "out_widths": (12, 24, 24, 24),
        "block_size": 4,
        "halo_size": 1,
        "value_ratio": 2.0,
        "final_width": 40,
    }
    tensors = timm_names(HaloNetClassifier(arch, num_heads=2, num_classes=3))
    built_with = {
        "block_size": 4, "halo_size": 1, "r_v": 2.0, "r_b": 1.5, "l3": 2, "d_f": 40, "num_heads": 2,
        "depths": [1, 1, 2, 1], "widths": [8, 16, 16, 16], "num_classes": 3,
    }  # fmt: skip
    names = ["stage1", "stage2", "stage3", "stage4"]
    source = "models/byoanet.py halonet_h1, stem then stages[i]"
    case = case_of(source, tensors, names, [1, 3, 64, 64], **built_with)
    got = find_adapter(case)(case)
    assert [tuple(got[name].shape[1:]) for name in names] == [
        (12, 16, 16),
        (24, 8, 8),
        (24, 4, 4),
        (24, 2, 2),
    ]
