import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_backbone, create_model
from opsin.core.backbones.agent_attention import (
    AgentAttention,
    AgentCSWin,
    AgentCSWinClassifier,
    AgentDeiT,
    AgentDeiTClassifier,
    AgentPVT,
    AgentPVTClassifier,
    AgentSwin,
    AgentSwinClassifier,
)
from opsin.core.backbones.agent_attention.attention import AgentMixer
from opsin.core.backbones.agent_attention.cswin import AgentStripes, SoftmaxStripes, Stripes
from opsin.core.backbones.agent_attention.plan import agent_blocks
from opsin.core.backbones.agent_attention.pvt import AgentReducedAttention, ReducedAttention
from opsin.core.backbones.agent_attention.swin import ShiftedWindowAttention
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.registry import MODELS

DEIT = {"embed_dim": 16, "num_heads": 2, "agents": (4, 4, 0, 4)}
PVT = {
    "depths": (1, 1, 2, 1),
    "embed_dims": (8, 8, 16, 16),
    "num_heads": (1, 2, 2, 4),
    "mlp_ratios": (2, 2, 2, 2),
    "agent_num": (4, 4, 9, 9),
    "attn_type": "ABAA",
    "sr_ratios": (4, 2, 1, 1),
    "agent_sr_ratios": (2, 1, 1, 1),
}
SWIN = {
    "embed_dim": 8,
    "depths": (1, 2, 2, 2),
    "num_heads": (1, 2, 2, 4),
    "agent_num": (4, 4, 9, 9),
    "attn_type": "AMBB1",
}
CSWIN = {
    "embed_dim": 8,
    "depths": (1, 1, 2, 1),
    "num_heads": (2, 2, 4, 4),
    "agent_num": (4, 4, 9, 9),
    "attn_type": "AABB",
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(module: Any, scale: float = 0.5) -> Any:
    """The module with every table and weight moved, so that biases matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)
    return module.eval()


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Published numbers


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("agent_deit_tiny", 6_015_640),
        ("agent_deit_small", 22_647_112),
        ("agent_deit_base", 87_204_904),
        ("agent_deit_small_448", 23_070_472),
        ("agent_pvt_tiny", 11_570_352),
        ("agent_pvt_small", 20_635_066),
        ("agent_pvt_medium", 35_921_746),
        ("agent_pvt_large", 48_738_180),
        ("agent_pvt_medium_256", 36_083_682),
        ("agent_swin_tiny", 28_902_964),
        ("agent_swin_small", 49_666_684),
        ("agent_swin_base", 88_095_096),
        ("agent_swin_small_288", 49_707_964),
        ("agent_swin_base_384", 88_305_016),
        ("agent_cswin_tiny", 20_458_672),
        ("agent_cswin_small", 32_814_100),
        ("agent_cswin_base", 73_249_696),
        ("agent_cswin_base_384", 73_328_416),
    ],
)
def test_classifiers_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters


def case_of(source: str, model: nn.Module, inputs: dict[str, list[int]], outputs: list[str], **rest) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "agent-attention",
        "case": "other",
        "source": f"LeapLabTHU/Agent-Attention@207ce3e {source}",
        "tensors": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
        "inputs": {name: {"seed": 1, "shape": shape} for name, shape in inputs.items()},
        "outputs": dict.fromkeys(outputs),
        **rest,
    }
    return Case(meta, {})


def run(case: Case) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in find_adapter(case)(case).items()}


@pytest.mark.parametrize(
    ("file", "module", "tokens", "rest"),
    [
        ("swin", AgentAttention(16, 2, 9, (4, 6), qkv_bias=False, kernel_size=5), 24, {}),
        ("deit", AgentAttention(16, 2, 9, (5, 5), class_token=True), 26, {}),
        ("swin", AgentAttention(16, 2, 9, (4, 4)), 30, {"call": {"H": 5, "W": 6}}),
        ("pvt", AgentReducedAttention(16, 2, 9, (8, 8), 2), 64, {}),
        (
            "pvt",
            AgentReducedAttention(16, 2, 9, (8, 8)),
            48,
            {"built_with": {"H": 6, "W": 8, "scale": -0.25}},
        ),
        ("pvt", ReducedAttention(16, 2, 4), 64, {"built_with": {"num_heads": 2}}),
    ],
)
def test_other_module_cases_run(file, module, tokens, rest):
    source = f"agent_transformer/models/agent_{file}.py AgentAttention"
    case = case_of(source, module, {"x": [2, tokens, 16]}, ["out"], **rest)
    assert run(case) == {"out": (2, tokens, 16)}


@pytest.mark.parametrize("agents", [False, True])
@pytest.mark.parametrize(("idx", "direction"), [(-1, "whole"), (0, "columns"), (1, "rows")])
def test_other_stripe_module_cases_run(agents, idx, direction):
    stripes = Stripes(direction, 2)
    module = (
        AgentStripes(8, 2, stripes, agent_num=4, size=(6, 6)) if agents else SoftmaxStripes(8, 2, stripes)
    )
    built_with = {"dim": 8, "resolution": 6, "idx": idx, "split_size": 2, "num_heads": 2}
    source = f"models/agent_cswin.py {'Agent' if agents else 'LePE'}Attention"
    case = case_of(source, module, {"qkv": [3, 1, 36, 8]}, ["out"], built_with=built_with)
    assert run(case) == {"out": (1, 36, 8)}


def published_arguments(arch: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"img_size": 64, "in_chans": 3, "num_classes": 5, **arch, **changes}


def test_other_deit_cases_run():
    model = AgentDeiTClassifier(DEIT, num_classes=5, img_size=64)
    built_with = {"img_size": 64, "embed_dim": 16, "num_heads": 2, "depth": 4, "agent_layer": 2}
    case = case_of(
        "agent_transformer/models/agent_deit.py VisionTransformer",
        model,
        {"x": [1, 3, 64, 64]},
        ["logits"],
        built_with=built_with,
    )
    assert run(case) == {"features": (1, 16), "logits": (1, 5)}


@pytest.mark.parametrize("num_classes", [0, 5])
def test_other_pvt_cases_run_with_their_reductions(num_classes):
    arch = {**PVT, "agent_sr_ratios": "2111"}
    model = AgentPVTClassifier(PVT, num_classes=num_classes, img_size=64)
    case = case_of(
        "agent_transformer/models/agent_pvt.py AgentPVT (agent_pvt_tiny)",
        model,
        {"x": [1, 3, 64, 64]},
        ["logits"],
        built_with=published_arguments(arch, num_classes=num_classes),
    )
    assert run(case) == {"features": (1, 16), "logits": (1, num_classes or 16)}


def test_other_swin_cases_run():
    model = AgentSwinClassifier(SWIN, num_classes=5, img_size=64, window_size=7)
    case = case_of(
        "agent_transformer/models/agent_swin.py AgentSwinTransformer",
        model,
        {"x": [1, 3, 64, 64]},
        ["logits"],
        built_with=published_arguments(SWIN, window_size=16),
    )
    assert run(case) == {"features": (1, 64), "logits": (1, 5)}


def test_other_cswin_cases_run_with_agents_in_stripes():
    arch = {**CSWIN, "attn_type": "ABAB"}
    model = AgentCSWinClassifier(
        arch, num_classes=5, img_size=64, split_size=(1, 2, 3, 2), agent_split_size=(4, 8, 2, 2)
    )
    built_with = published_arguments(
        {key: value for key, value in arch.items() if key != "depths"},
        depth=[1, 1, 2, 1],
        split_size=[1, 2, 3, 2],
        la_split_size="4-8-2-2",
    )
    source = "agent_transformer/models/agent_cswin.py CSWinTransformer"
    case = case_of(source, model, {"x": [1, 3, 64, 64]}, ["logits"], built_with=built_with)
    assert run(case) == {"features": (1, 64), "logits": (1, 5)}


@pytest.mark.parametrize("fork", ["detection/mmdet", "segmentation/mmseg"])
@pytest.mark.parametrize(("file", "build", "arch"), [("pvt", AgentPVT, PVT), ("swin", AgentSwin, SWIN)])
def test_other_dense_cases_run(fork, file, build, arch):
    windows = {"window_size": 7} if file == "swin" else {}
    shapes = ((3, 3), (2, 2), (4, 4), (3, 3))
    model = build(arch, img_size=64, downstream_agent_shapes=shapes, **windows)
    built_with = published_arguments(
        {**arch, "agent_sr_ratios": "2111"}, downstream_agent_shapes=shapes, out_indices=[0, 2]
    )
    source = f"downstream/{fork}/models/backbones/agent_{file}.py Agent"
    case = case_of(source, model, {"x": [1, 3, 64, 96]}, ["stage1", "stage3"], built_with=built_with)
    assert run(case) == {"stage1": (1, 8, 16, 24), "stage3": (1, 16 if file == "pvt" else 32, 4, 6)}


# The module


def published_bias(mixer: AgentMixer, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """B1 and B2 as the paper writes them, with torch's own resizing of the summed tables."""

    def resized(table: Tensor) -> Tensor:
        heads, agents = table.shape[:2]
        table = F.interpolate(table, size=size, mode="bilinear")
        side = math.isqrt(agents)
        table = table.flatten(2).transpose(1, 2).reshape(-1, size[0] * size[1], side, side)
        table = F.interpolate(table, size=mixer.agent_shape, mode="bilinear")
        return table.flatten(2).transpose(1, 2).reshape(heads, -1, size[0] * size[1])

    first = resized(mixer.an_bias) + resized((mixer.ah_bias + mixer.aw_bias)[0])
    lines = (mixer.ha_bias + mixer.wa_bias)[0].permute(0, 3, 1, 2)
    return first[None], (resized(mixer.na_bias) + resized(lines)).transpose(1, 2)[None]


@pytest.mark.parametrize("size", [(12, 10), (7, 7), (5, 19)])
@pytest.mark.parametrize("agent_shape", [None, (5, 4)])
def test_biases_are_the_resized_sums_of_the_tables(size, agent_shape):
    mixer = shaken(AgentMixer(3, 9, (12, 10), agent_shape=agent_shape))
    for got, want in zip(
        (mixer.agent_bias(size), mixer.query_bias(size)), published_bias(mixer, size), strict=True
    ):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_agents_are_the_pooled_queries():
    mixer, q = AgentMixer(2, 9, (8, 11)), normal(2, 88, 6)
    pooled = F.adaptive_avg_pool2d(q.transpose(1, 2).unflatten(2, (8, 11)), 3)
    torch.testing.assert_close(mixer.pool(q, (8, 11)), pooled.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("class_token", [False, True])
def test_rows_of_both_steps_sum_to_one(class_token):
    mixer = shaken(AgentMixer(2, 9, (6, 8), class_token=class_token))
    tokens = 48 + class_token
    values = normal(8).expand(1, tokens, -1)
    mixed = mixer.mix(normal(1, tokens, 8), normal(1, tokens, 8, seed=2), values, (6, 8))
    torch.testing.assert_close(mixed, values)


def test_two_steps_are_linear_attention_with_the_softmaxes_as_feature_maps():
    attention = shaken(AgentAttention(12, 3, 9, (6, 8)))
    x = normal(2, 48, 12)
    q, k, v = (t.unflatten(2, (3, 4)).transpose(1, 2) for t in attention.qkv(x).chunk(3, -1))
    agents = attention.pool(q.transpose(1, 2).flatten(2), (6, 8)).unflatten(2, (3, 4)).transpose(1, 2)
    first, second = published_bias(attention, (6, 8))
    phi_k = (agents @ k.transpose(2, 3) / 2 + first).softmax(-1).transpose(2, 3)
    phi_q = (q @ agents.transpose(2, 3) / 2 + second).softmax(-1)
    mixed = ((phi_q @ phi_k.transpose(2, 3)) @ v).transpose(1, 2).flatten(2)
    local = attention.dwc(v.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, (6, 8)))
    want = attention.proj(mixed + local.flatten(2).transpose(1, 2))
    torch.testing.assert_close(attention(x), want, atol=1e-5, rtol=1e-5)
    with torch.no_grad():  # without gradients another kernel runs
        torch.testing.assert_close(attention(x), want, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pooling_is_the_only_bottleneck():
    mixer = AgentMixer(1, 36, (6, 6))
    for table in mixer.parameters():
        table.zero_()
    q, k, v = normal(3, 1, 36, 8)
    want = (q @ q.transpose(1, 2) / 8**0.5).softmax(-1) @ (q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(mixer.mix(q, k, v, (6, 6)), want)


@torch.no_grad()
def test_cost_grows_linearly_with_the_tokens():
    attention = AgentAttention(48, 3, 49, (16, 16)).eval()
    costs = []
    for side in (32, 64):
        with FlopCounterMode(display=False) as counter:
            attention(normal(1, side * side, 48), (side, side))
        costs.append(counter.get_total_flops())
    assert 3.9 < costs[1] / costs[0] < 4.1


def test_class_token_is_no_source_of_agents_and_has_no_neighbours():
    attention = shaken(AgentAttention(8, 2, 4, (4, 4), class_token=True))
    q = normal(1, 17, 8)
    other = torch.cat((q[:, :1] + 1, q[:, 1:]), 1)
    assert torch.equal(attention.pool(q, (4, 4)), attention.pool(other, (4, 4)))
    mixed = normal(1, 17, 8, seed=3)
    assert torch.equal(attention.add_local(mixed, attention.dwc, q, (4, 4))[:, 0], mixed[:, 0])


def test_module_is_a_token_mixer_that_configs_name():
    attention = MODELS.build(
        {"type": "opsin.AgentAttention", "dim": 16, "num_heads": 2, "agent_num": 9, "size": (6, 6)}
    )
    assert attention(normal(2, 36, 16)).shape == (2, 36, 16)
    assert attention(normal(2, 35, 16), (5, 7)).shape == (2, 35, 16)
    with pytest.raises(UserError, match=r"35 tokens are not a map of 6 x 6.*pass its rows"):
        attention(normal(2, 35, 16))


def test_reduced_keys_have_tables_of_their_own_size():
    attention = shaken(AgentReducedAttention(8, 2, 4, (8, 8), 2))
    assert attention.ah_bias.shape == (1, 2, 4, 4, 1) and attention.ha_bias.shape == (1, 2, 8, 1, 4)
    x = normal(1, 8 * 10, 8)
    reduced = attention.norm(attention.sr(x.transpose(1, 2).unflatten(2, (8, 10))).flatten(2).transpose(1, 2))
    k, v = attention.kv(reduced).chunk(2, -1)
    mixed = attention.mix(attention.q(x), k, v, (8, 10), (4, 5))
    spread = F.interpolate(v.transpose(1, 2).unflatten(2, (4, 5)), size=(8, 10), mode="bilinear")
    want = attention.proj(mixed + attention.dwc(spread).flatten(2).transpose(1, 2))
    torch.testing.assert_close(attention(x, (8, 10)), want, atol=1e-5, rtol=1e-5)


# The hosts


@torch.no_grad()
@pytest.mark.parametrize("size", [(256, 320), (244, 332)])
@pytest.mark.parametrize(("build", "rounds_up"), [(AgentPVT, False), (AgentSwin, True), (AgentCSWin, True)])
def test_dense_backbones_take_any_size(build, rounds_up, size):
    arch = {AgentPVT: PVT, AgentSwin: SWIN, AgentCSWin: CSWIN}[build]
    backbone = build(arch).eval()
    sides = size
    for info, m in zip(backbone.feature_info, backbone(normal(1, 3, *size)), strict=True):
        step = 4 if info.stride == 4 else 2
        sides = tuple(-(-side // step) if rounds_up else side // step for side in sides)
        assert m.shape == (1, info.channels, *sides)
    assert [info.stride for info in backbone.feature_info] == [4, 8, 16, 32]


def test_plans_say_which_blocks_have_agents():
    assert agent_blocks("AAMB2", (1, 2, 3, 1)) == [[True], [True, True], [True, True, False], [False]]
    for plan in ("AAB", "AAMB", "AACB", ""):
        with pytest.raises(UserError, match="is no plan for 4 stages"):
            agent_blocks(plan, (1, 1, 1, 1))


def kinds(model: nn.Module) -> list[str]:
    return [type(block.attn).__name__ for block in model.modules() if hasattr(block, "attn")]


def test_plans_make_hosts_with_their_own_attention():
    with torch.device("meta"):
        assert kinds(AgentPVT({**PVT, "attn_type": "BBBB"})) == ["ReducedAttention"] * 5
        swin = create_backbone("agent_swin_base")
        assert kinds(swin).count("AgentAttention") == 6
        assert kinds(create_model("agent_deit_base")) == ["AgentAttention"] * 4 + ["Attention"] * 8
    shifts = [block.attn.shift[0] for block in swin.layers[2].blocks[2:]]
    assert shifts == [0, 3] * 8


def test_windows_are_clamped_in_the_classifier_only():
    with torch.device("meta"):
        classifier, backbone = (build(SWIN, img_size=96) for build in (AgentSwinClassifier, AgentSwin))
        large = create_model("agent_swin_base_384")
    of_stage = [[stage.blocks[1].attn for stage in model.layers[2:]] for model in (classifier, backbone)]
    assert [[attn.window[0] for attn in stages] for stages in of_stage] == [[6, 3], [7, 7]]
    assert [[attn.shift[0] for attn in stages] for stages in of_stage] == [[0, 0], [3, 3]]
    assert large.layers[3].blocks[0].attn.window == (12, 12)


@torch.no_grad()
def test_shifted_windows_keep_opposite_borders_apart():
    attention = shaken(ShiftedWindowAttention(8, 2, 4, 2))
    x = normal(1, 8 * 10, 8)
    other = x.clone()
    other[0, 0] += 1  # the top-left pixel, which the shift brings into one window with all other corners
    changed = (attention.attend(other, (8, 10)) - attention.attend(x, (8, 10))).abs().amax(2) > 1e-6
    rows, columns = changed.unflatten(1, (8, 10))[0].nonzero().t()
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_stripes_stop_at_borders_and_the_last_one_may_be_narrower():
    branch = shaken(SoftmaxStripes(4, 2, Stripes("columns", 2)))
    qkv = normal(1, 15, 3, 4)
    out = branch(qkv, (3, 5)).unflatten(1, (3, 5))
    parts = qkv.unflatten(1, (3, 5))
    whole = SoftmaxStripes(4, 2, Stripes("whole", 1))
    whole.load_state_dict(branch.state_dict())
    for start, stop in ((0, 2), (2, 4), (4, 5)):
        stripe = parts[:, :, start:stop].flatten(1, 2)
        want = whole(stripe, (3, stop - start)).unflatten(1, (3, stop - start))
        torch.testing.assert_close(out[:, :, start:stop], want)


def test_stages_whose_stripes_are_the_map_have_one_branch():
    with torch.device("meta"):
        model = create_model("agent_cswin_tiny")
    branches = [len(model.get_submodule(f"stage{stage}")[0].attns) for stage in (1, 2, 3, 4)]
    assert branches == [1, 1, 2, 1]
    assert model.stage3[0].attns[0].num_heads == 4 and model.stage4[0].attns[0].num_heads == 16


@torch.no_grad()
def test_plain_backbone_gives_four_strides_and_follows_its_own_settings():
    backbone = shaken(AgentDeiT(DEIT, img_size=64), 0.05)
    assert [info.stride for info in backbone.feature_info] == [4, 8, 16, 32]
    maps = backbone(normal(1, 3, 70, 100))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 24), (16, 8, 12), (16, 4, 6), (16, 2, 3)]
    plain = AgentDeiT(DEIT, img_size=64, fpn=False, out_indices=(1,))
    assert len(plain.blocks) == 2 and plain(normal(1, 3, 32, 48))[0].shape == (1, 16, 2, 3)


def test_frozen_plain_stages_keep_positions():
    frozen = AgentDeiT(DEIT, img_size=64, frozen_stages=1).train()
    names = {name.split(".")[0] for name, p in frozen.named_parameters() if not p.requires_grad}
    assert names == {"patch_embed", "cls_token", "pos_embed", "blocks"}
    assert frozen.blocks[1].training and not frozen.blocks[0].training
    pyramid = AgentPVT(PVT, img_size=64, frozen_stages=2).train()
    positions = {name for name, p in pyramid.named_parameters() if "pos" in name and not p.requires_grad}
    assert positions == {"pos_embed1", "pos_embed2"}


def test_plain_classifier_learns_exports_and_counts_its_layers():
    torch.manual_seed(0)
    model = AgentDeiTClassifier(DEIT, num_classes=2, img_size=64, drop_path_rate=0.1, with_cp=True)
    images, labels = normal(8, 3, 64, 64), torch.tensor([0] * 4 + [1] * 4)
    images[4:] += torch.linspace(-2, 2, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    exported = torch.export.export(model.eval(), (images,)).module()
    torch.testing.assert_close(exported(images), model(images))
    depths = {name: model.get_layer_depth(name) for name, _ in model.named_parameters()}
    assert depths["pos_embed"] == (0, 6) and depths["blocks.3.norm1.weight"] == (4, 6)
    assert depths["head.weight"] == depths["norm.bias"] == (5, 6)
    model.reset_classifier(0)
    assert model(images).shape == (8, model.num_features)


def test_tables_positions_and_class_tokens_are_not_decayed():
    kept = AgentDeiTClassifier(DEIT, img_size=64).no_weight_decay()
    assert {"cls_token", "pos_embed", "blocks.0.attn.an_bias", "blocks.3.attn.ca_bias"} <= kept
    assert "blocks.0.attn.qkv.bias" not in kept
    swin = AgentSwin(SWIN, img_size=64).no_weight_decay()
    assert "layers.3.blocks.0.attn.relative_position_bias_table" in swin


# Checkpoints


HOSTS = [
    (AgentDeiTClassifier, AgentDeiT, DEIT),
    (AgentPVTClassifier, AgentPVT, PVT),
    (AgentSwinClassifier, AgentSwin, SWIN),
    (AgentCSWinClassifier, AgentCSWin, CSWIN),
]


@torch.no_grad()
@pytest.mark.parametrize(("classify", "build", "arch"), HOSTS)
def test_authors_files_load_into_classifiers_and_backbones(tmp_path, classify, build, arch):
    source = shaken(classify(arch, num_classes=5, img_size=64), 0.05)
    tensors = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    if classify is AgentSwinClassifier:  # computed buffers of the authors' code
        tensors["module.layers.1.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
        tensors["module.layers.3.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49).long()
    torch.save({"model": tensors}, tmp_path / "agent_max_acc.pth")
    image = normal(1, 3, 64, 64)
    target = load_published(classify(arch, num_classes=5, img_size=64), tmp_path / "agent_max_acc.pth")
    assert torch.equal(target.eval()(image), source(image))
    backbone = load_published(build(arch, img_size=64, out_indices=(0, 1)), tmp_path / "agent_max_acc.pth")
    own = source.state_dict()
    shared = [
        key for key, tensor in backbone.state_dict().items() if key in own and own[key].shape == tensor.shape
    ]
    assert len(shared) > 10
    assert all(torch.equal(backbone.state_dict()[key], own[key]) for key in shared)


@pytest.mark.parametrize(("classify", "build", "arch"), HOSTS[1:3])
def test_whole_detectors_load_into_backbones(tmp_path, classify, build, arch):
    source = shaken(build(arch, img_size=64))
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    path = tmp_path / "detector.pth"
    torch.save({"state_dict": {**tensors, "neck.fpn_convs.0.conv.weight": torch.zeros(1)}}, path)
    target = load_published(build(arch, img_size=64), path)
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in target.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize(("classify", "build", "arch"), HOSTS)
def test_files_of_another_image_size_are_resized(tmp_path, classify, build, arch):
    source = shaken(classify(arch, num_classes=5, img_size=64), 0.05)
    torch.save({"model": source.state_dict()}, tmp_path / "at_64.pth")
    larger = load_published(classify(arch, num_classes=5, img_size=128), tmp_path / "at_64.pth").eval()
    assert larger(normal(1, 3, 128, 128)).isfinite().all()
    row = next(name for name in source.state_dict() if name.endswith("ah_bias"))
    got, given = larger.state_dict()[row], source.state_dict()[row]
    assert got.shape[3] == 2 * given.shape[3]
    want = F.interpolate(given[0, ..., 0], size=got.shape[3], mode="linear")
    torch.testing.assert_close(got[0, ..., 0], want)


@torch.no_grad()
def test_resizing_tables_on_loading_is_resizing_them_on_the_way(tmp_path):
    arch = {**PVT, "attn_type": "AAAA", "agent_sr_ratios": (1, 1, 1, 1)}
    source = shaken(AgentPVTClassifier(arch, num_classes=5, img_size=64), 0.05)
    torch.save({"model": source.state_dict()}, tmp_path / "at_64.pth")
    larger = AgentPVTClassifier(arch, num_classes=5, img_size=128)
    load_published(larger, tmp_path / "at_64.pth")
    for table in range(1, 5):  # positions are resized by other curves on loading
        name = f"pos_embed{table}"
        side = 64 // 2 // 2**table
        square = source.get_parameter(name).transpose(1, 2).unflatten(2, (side, side))
        resized = F.interpolate(square, size=(2 * side, 2 * side), mode="bilinear")
        larger.get_parameter(name).copy_(resized.flatten(2).transpose(1, 2))
    image = normal(1, 3, 128, 128)
    torch.testing.assert_close(larger.eval()(image), source(image), atol=1e-5, rtol=1e-5)


# Mistakes


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AgentPVT("tinny"), "unknown AgentPVT arch 'tinny'; did you mean tiny"),
        (lambda: AgentSwin(SWIN, out_indices=(3, 1)), r"out_indices \(3, 1\)"),
        (lambda: AgentDeiT(DEIT, out_indices=(4,)), r"out_indices \(4,\)"),
        (lambda: AgentPVT({**PVT, "attn_type": "AAXA"}), "'AAXA' is no plan"),
        (lambda: AgentPVT({"depths": (1, 1, 1, 1)}), "lacks embed_dims"),
        (lambda: AgentAttention(16, 2, 10), "agent_num 10 is not a square number"),
        (lambda: AgentAttention(16, 3, 9), "3 heads do not divide a width of 16"),
        (lambda: AgentCSWin(CSWIN, split_size=(1, 2, 7)), "four stages"),
        (lambda: AgentCSWin({**CSWIN, "num_heads": (1, 1, 1, 1)}), "can't be halved"),
        (
            lambda: AgentDeiTClassifier(DEIT, img_size=64)(torch.zeros(1, 3, 8, 40)),
            "8 x 40 pixels is smaller",
        ),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
