import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.moh import (
    MoHAttention,
    MoHDiT,
    MoHLlamaAttention,
    MoHViT,
    MoHViTClassifier,
    auxiliary_losses,
    dit,
    head_usage,
    llama,
    place_multi_head,
)
from opsin.core.backbones.moh.positions import Positions
from opsin.core.backbones.moh.routing import load_balance_loss
from opsin.core.backbones.moh.transnext import AggregatedAttention, CosineAttention
from opsin.core.backbones.moh.vit import ConvolutionalGLU
from opsin.core.errors import UserError
from opsin.core.layers.attention import Attention
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.registry import MODELS

SMALL = {
    "embed_dims": (8, 16, 16, 24),
    "depths": (1, 1, 2, 1),
    "num_heads": (2, 4, 4, 6),
    "shared_heads": (2, 1, 0, 2),
    "routed_heads": (0, 2, 2, 2),
    "mlp_ratios": (2, 2, 2, 2),
}
SMALL_DIT = {
    "dim": 16,
    "depth": 3,
    "num_heads": (2, 3, 4),
    "shared_heads": (2, 1, 2),
    "routed_heads": (0, 1, 1),
    "head_dim": 8,
    "input_size": 8,
    "num_classes": 5,
}
CPU = torch.device("cpu")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randomly_routed(module: nn.Module, std: float = 0.5) -> nn.Module:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".wg" in f".{name}":
                parameter.normal_(std=std)
    return module


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("moh_vit_small_75", 49_910_548),
        ("moh_vit_small_80", 49_910_548),
        ("moh_vit_base_75", 90_020_632),
        ("moh_vit_base_50", 90_023_512),
    ],
)
def test_models_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters
        head = 1000 * create_model(name).num_features + 1000
        assert count(create_backbone(name)) == parameters - head


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [
        ("s_2_90", 32_997_152),
        ("s_2_75", 32_998_688),
        ("b_2_90", 130_638_368),
        ("b_2_75", 130_638_368),
        ("l_2_90", 458_512_416),
        ("l_2_75", 458_528_800),
        ("xl_2_90", 675_666_464),
        ("xl_2_75", 675_689_504),
    ],
)
def test_diffusion_networks_have_the_published_number_of_parameters(arch, parameters):
    with torch.device("meta"):
        assert count(MODELS.build({"type": "opsin.MoHDiT", "arch": arch})) == parameters


# Other cases of the authors' classes


def case_of(source: str, module: nn.Module, inputs: dict, outputs: tuple = ("y",), **meta) -> Case:
    tensors = [[name, list(tensor.shape)] for name, tensor in module.state_dict().items()]
    shaped = {name: {"seed": 1, "shape": shape} for name, shape in inputs.items()}
    given = {
        "system": "moh",
        "case": "other",
        "source": f"SkyworkAI/MoH@2cefd57 {source}",
        "tensors": tensors,
        "inputs": shaped,
        "outputs": dict.fromkeys(outputs),
    }
    return Case({**given, **meta}, {})


def run(case: Case):
    return find_adapter(case)(case)


DIT_CLASSES = {"t": {"kind": "literal", "value": [1, 2, 1, 2], "dtype": "int64"}}
DIT_CLASSES["y"] = {"kind": "literal", "value": [0, 1, 5, 5], "dtype": "int64"}


def test_attention_without_shared_heads_and_with_norms_runs():
    module = MoHAttention(12, 4, 0, 2, qk_norm=True)
    built_with = {"dim": 12, "num_heads": 4, "routed_head": 2, "qkv_bias": True, "qk_norm": True}
    source = "MoH-DiT/models.py MoHAttention"
    case = case_of(source, module, {"x": [2, 7, 12]}, ("out", "aux2"), built_with=built_with)
    outputs = run(case)
    assert outputs["out"].shape == (2, 7, 12) and outputs["aux2"] > 0


@pytest.mark.parametrize(
    "words",
    [
        {"what": "Guided (forward_with_cfg) with cfg_scale 4.0 on two latents."},
        {"call": {"cfg_scale": 4.0}, "what": ""},
    ],
)
def test_guided_network_with_heads_that_differ_from_block_to_block_runs(words):
    built_with = {
        "input_size": 8,
        "hidden_size": 16,
        "depth": 3,
        "num_heads": [2, 3, 4],
        "head_dim": [8, 8, 8],
        "num_classes": 5,
        "moh": True,
        "shared_head": [2, 1, 2],
        "routed_head": [0, 1, 1],
    }
    case = case_of(
        "MoH-DiT/models.py DiT", MoHDiT(SMALL_DIT), {"x": [4, 4, 8, 8]}, built_with=built_with, **words
    )
    case.meta["inputs"].update(DIT_CLASSES)
    guided = run(case)["y"]
    case.meta.update(call={}, what="")
    plain = run(case)["y"]
    assert guided.shape == (4, 8, 8, 8)
    assert torch.equal(guided[:2, 3:], plain[:2, 3:]) and torch.equal(guided[:2, :3], guided[2:, :3])
    case.meta["inputs"]["x"]["shape"] = [2, 4, 8, 8]  # the guided call takes the latents twice itself
    case.meta.update(call={"cfg_scale": 4.0})
    assert run(case)["y"].shape == (4, 8, 8, 8)


def test_plain_diffusion_network_runs():
    changes = {"num_heads": 2, "shared_heads": None, "routed_heads": None, "class_dropout_rate": 0.0}
    model = MoHDiT({**SMALL_DIT, **changes, "learn_variance": False})
    built_with = {"hidden_size": 16, "depth": 3, "num_heads": 2, "input_size": 8, "num_classes": 5}
    built_with |= {"class_dropout_prob": 0.0, "learn_sigma": False}
    case = case_of("MoH-DiT/models.py DiT", model, {"x": [4, 4, 8, 8]}, built_with=built_with)
    case.meta["inputs"].update(DIT_CLASSES)
    case.meta["inputs"]["y"] = {**DIT_CLASSES["y"], "value": [0, 1, 2, 3]}
    assert run(case)["y"].shape == (4, 4, 8, 8)


@pytest.mark.parametrize("moh", [True, False])
def test_diffusion_block_runs(moh):
    block = dit.DiTBlock(16, dit.make_attention(16, 4, 2 if moh else None, 1, None))
    built_with = {"hidden_size": 16, "num_heads": 4, "moh": moh, "shared_head": 2, "routed_head": 1}
    inputs = {"x": [2, 9, 16], "c": [2, 16]}
    case = case_of("MoH-DiT/models.py DiTBlock", block, inputs, built_with=built_with)
    assert run(case)["y"].shape == (2, 9, 16)


@pytest.mark.parametrize("sr_ratio", [1, 2])
def test_blocks_and_attentions_of_the_vision_network_run_on_maps_that_are_not_square(sr_ratio):
    built_with = {"dim": 16, "num_heads": 4, "shared_head": 1, "routed_head": 2, "qkv_bias": True}
    built_with |= {"input_resolution": [4, 6], "sr_ratio": sr_ratio, "mlp_ratio": 2.0}
    model = MoHViT({**SMALL, "sr_ratios": (1, sr_ratio, 1, 1)})
    block, inputs = model.block2[0], {"x": [1, 24, 16]}
    attention_class = "attention.py Attention" if sr_ratio == 1 else "attention_native.py AggregatedAttention"
    for source, module in [
        ("transnext.py Block", block),
        (attention_class, block.attn),
        ("transnext.py ConvolutionalGLU", ConvolutionalGLU(16, 32)),
    ]:
        given = {**built_with, "hidden_features": 32}
        assert run(case_of(f"MoH-ViT/{source}", module, inputs, built_with=given))["y"].shape == (1, 24, 16)


def test_bare_vision_network_with_routing_in_every_stage_runs():
    changes = {"shared_heads": (1, 2, 0, 2), "routed_heads": (1, 1, 2, 3), "window_size": (5, 3, 3, None)}
    arch = {**SMALL, **changes, "sr_ratios": (4, 2, 2, 1)}
    model = MoHViTClassifier(arch, num_classes=3, qkv_bias=False, fixed_pool_size=3)
    built_with = {key.replace("_heads", "_head"): list(value) for key, value in arch.items()}
    built_with["num_heads"] = built_with.pop("num_head")
    built_with |= {"img_size": 64, "num_classes": 3, "fixed_pool_size": 3}
    names = ("logits", "features", "stage2", "aux2")
    case = case_of(
        "MoH-ViT/transnext.py TransNeXt", model, {"x": [1, 3, 64, 64]}, names, built_with=built_with
    )
    outputs = run(case)
    assert outputs["logits"].shape == (1, 3) and outputs["features"].shape == (1, 24)
    assert outputs["stage2"].shape == (1, 16, 8, 8) and outputs["aux2"] > 0
    case.meta["built_with"] = {**built_with, "pretrain_size": 224}
    assert not torch.allclose(run(case)["logits"], outputs["logits"])


def test_language_attention_of_another_shape_runs():
    module = MoHLlamaAttention(48, 12, 12, bias=True)
    built_with = {"hidden_size": 48, "num_attention_heads": 12, "attention_bias": True}
    case = case_of(
        "MoH-LLaMA3/Inference_code/modeling_llama.py LlamaAttention",
        module,
        {"x": [1, 9, 48]},
        built_with=built_with,
    )
    assert run(case)["y"].shape == (1, 9, 48)


# Gates


def test_every_token_uses_its_heads_and_gates_sum_to_what_they_should():
    attention = randomly_routed(MoHAttention(32, 8, 3, 2))
    x = torch.randn(2, 50, 32)
    gates = attention.gates(x)
    first, second = (2 * attention.wg_0(x).softmax(-1)).unbind(-1)
    assert torch.allclose(first + second, torch.full((2, 50), 2.0))
    assert ((gates[..., 3:] > 0).sum(-1) == 2).all() and (gates[..., :3] > 0).all()
    assert torch.allclose(gates[..., :3].sum(-1), 3 * first, atol=1e-5)
    assert torch.allclose(gates[..., 3:].sum(-1), 2 * second, atol=1e-5)
    probabilities = attention.wg(x).softmax(-1)
    used = probabilities.topk(2).indices.sort(-1).values
    assert torch.equal((gates[..., 3:] > 0).nonzero()[:, -1].view(2, 50, 2), used)


def test_average_gate_of_used_heads_is_one_when_all_is_balanced():
    attention = MoHAttention(8, 8, 3, 2)
    for router in (attention.wg, attention.wg_0, attention.wg_1):
        nn.init.zeros_(router.weight)
    gates = attention.gates(torch.randn(1, 5, 8))
    assert torch.allclose(gates[gates > 0], torch.tensor(1.0))


@pytest.mark.parametrize(
    ("shared", "routed", "routers"),
    [(4, 0, {"wg_1"}), (1, 2, {"wg", "wg_0"}), (0, 2, {"wg"}), (2, 1, {"wg", "wg_0", "wg_1"})],
)
def test_routers_exist_only_where_there_is_something_to_choose(shared, routed, routers):
    attention = MoHAttention(8, 4, shared, routed)
    assert {name for name, _ in attention.named_children() if name.startswith("wg")} == routers
    assert attention(torch.randn(1, 3, 8)).shape == (1, 3, 8)


def test_a_single_shared_head_has_a_constant_gate():
    assert torch.equal(MoHAttention(8, 1, 1, 0).gates(torch.randn(2, 3, 8)), torch.ones(2, 3, 1))


def test_uniform_gates_over_shared_heads_are_plain_attention():
    plain = Attention(24, 4)
    mixed = MoHAttention(24, 4, 1, 2)
    with pytest.raises(UserError, match=r"wg\.weight|left over|missing"):
        place_multi_head(mixed, {"qkv.weight": plain.qkv.weight})
    settings = {"dim": 24, "num_heads": 4, "shared_heads": 4, "routed_heads": 0}
    mixed = MODELS.build({"type": "opsin.MoHAttention", **settings})
    place_multi_head(mixed, plain.state_dict())
    x, bias = torch.randn(2, 9, 24), torch.randn(4, 9, 9)
    assert torch.allclose(mixed(x), plain(x), atol=1e-6)
    assert torch.allclose(mixed(x, bias), plain(x, bias), atol=1e-6)


# Load balance


def test_load_balance_is_the_number_of_chosen_heads_when_uniform_and_more_when_one_dominates():
    probabilities = torch.full((6, 4), 0.25)
    chosen = torch.tensor(
        [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]]
    )
    assert load_balance_loss(probabilities, chosen.float()) == pytest.approx(2.0)
    one = torch.tensor([0.7, 0.2, 0.05, 0.05]).expand(6, 4)
    used = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(6, 4)
    assert load_balance_loss(one, used) > 3


def test_load_balance_reaches_the_router_and_pushes_towards_balance():
    torch.manual_seed(0)
    attention = randomly_routed(MoHAttention(18, 6, 2, 2), std=2.0).train()
    x = torch.randn(4, 30, 18) + 1
    optimizer = torch.optim.SGD(attention.parameters(), lr=1.0)
    losses = []
    for _ in range(30):
        attention(x)
        (loss,) = auxiliary_losses(attention, 1.0).values()
        optimizer.zero_grad()
        loss.backward()
        assert attention.wg.weight.grad.abs().sum() > 0 and attention.qkv.weight.grad is None
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2


def test_load_balance_is_the_weighted_mean_over_the_last_training_forward_alone():
    model, image = MoHViT(SMALL, load_balance_weight=0.5).train(), torch.randn(1, 3, 64, 64)
    model(image)
    each = [m.load_balance for m in model.modules() if getattr(m, "load_balance", None) is not None]
    assert len(each) == 4  # of five blocks, those of the first stage share all their heads
    losses = model.auxiliary_losses()
    assert list(losses) == ["loss_balance"]
    assert torch.isclose(losses["loss_balance"], 0.5 * torch.stack(each).mean())
    assert model.auxiliary_losses() == {}
    model(image)
    model.eval()(image)
    assert model.auxiliary_losses() == {}
    all_shared = MoHViT({**SMALL, "shared_heads": (2, 4, 4, 6), "routed_heads": (0, 0, 0, 0)}).train()
    all_shared(image)
    assert all_shared.auxiliary_losses() == {}


def test_load_balance_survives_checkpointing_and_copies_leave_it_behind():
    torch.manual_seed(0)
    plain = randomly_routed(MoHViT(SMALL)).train()
    thrifty = MoHViT(SMALL, with_cp=True).train()
    thrifty.load_state_dict(plain.state_dict())
    image, gradients = torch.randn(1, 3, 64, 64), []
    for model in (plain, thrifty):
        maps = model(image)
        copy.deepcopy(model)  # as averaging hooks do
        (loss,) = model.auxiliary_losses().values()
        (sum(m.mean() for m in maps) + 100 * loss).backward()
        gradients.append(model.block4[0].attn.wg.weight.grad)
    assert gradients[0].abs().sum() > 0 and torch.allclose(*gradients, atol=1e-6)


# What heads see


def shaken_by(attention: MoHAttention, x: Tensor, part: int, head: int, token: slice | int) -> Tensor:
    """The output when queries (part 0), keys (1) or values (2) of a head are changed at a token."""

    def shake(module: nn.Module, inputs: tuple, qkv: Tensor) -> Tensor:
        changed = qkv.clone().unflatten(2, (3, attention.num_heads, -1))
        changed[:, token, part, head] += 3.0
        return changed.flatten(2)

    hook = attention.qkv.register_forward_hook(shake)
    out = attention(x)
    hook.remove()
    return out


@torch.no_grad()
def test_heads_that_a_token_does_not_use_do_not_matter_to_it():
    torch.manual_seed(0)
    attention, x = randomly_routed(MoHAttention(18, 6, 2, 1)).eval(), torch.randn(1, 12, 18)
    before, used = attention(x), attention.gates(x)[0] > 0
    for token in range(12):
        for head in range(6):
            apart = (shaken_by(attention, x, 0, head, token) - before)[0].abs().amax(1)
            assert (apart > 0).nonzero().flatten().tolist() == ([token] if used[token, head] else [])
    head = int(used[:, 2:].sum(0).argmax()) + 2
    assert 0 < used[:, head].sum() < 12
    apart = (shaken_by(attention, x, 2, head, 3) - before)[0].abs().amax(1)
    assert torch.equal(apart > 0, used[:, head])


def test_use_of_heads_is_reported_for_every_image_and_class():
    torch.manual_seed(0)
    model = randomly_routed(MoHViT(SMALL)).eval()
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 1, 0])
    usage = head_usage(model, images)
    assert list(usage) == ["block2.0.attn", "block3.0.attn", "block3.1.attn", "block4.0.attn"]
    last = usage["block4.0.attn"]
    assert last.shape == (4, 6) and (last[:, :2] == 1).all()
    assert torch.allclose(last[:, 2:].sum(1), torch.full((4,), 2.0))
    per_class = {c: last[labels == c].mean(0) for c in (0, 1)}
    assert not torch.equal(per_class[0], per_class[1])
    model(images)
    assert not any(module._forward_pre_hooks for module in model.modules())


# The vision network


@pytest.mark.parametrize(
    ("size", "pool"), [((6, 8), (3, 2)), ((7, 10), (3, 4)), ((4, 4), (4, 4)), ((5, 3), (1, 1))]
)
def test_offsets_are_those_of_pixels_to_the_means_of_their_bins(size, pool):
    positions = Positions.of(size, pool, 14, window=3, device=CPU)
    axes = [torch.arange(n, dtype=torch.float32) for n in size]
    keys = [F.adaptive_avg_pool1d(a[None], n)[0] for a, n in zip(axes, pool, strict=True)]
    queries = torch.cartesian_prod(*axes)
    apart = (queries[None] - torch.cartesian_prod(*keys)[:, None]) / 13 * 8
    expected = apart.sign() * torch.log2(apart.abs() + 1) / math.log2(8)
    assert torch.allclose(positions.offsets[positions.index], expected, atol=1e-6)
    assert len(positions.offsets) == len(positions.offsets.unique(dim=0))
    counts = positions.near.sum(0).view(size)
    assert counts[0, 0] == 4 and counts[1:-1, 1:-1].eq(9).all() and counts[0, 1] == (6 if size[1] > 2 else 4)
    assert torch.allclose(positions.log_keys, torch.log(counts.flatten() + math.prod(pool)))


def test_far_pixels_are_seen_only_through_the_pooled_map():
    torch.manual_seed(0)
    attention = AggregatedAttention(8, 2, 2, 0).eval()
    positions = Positions.of((8, 8), (2, 2), 8, window=3, device=CPU)
    x = torch.randn(1, 8, 8, 8)
    y = x.clone()
    y[0, 7, 7] += 1.0
    before, after = attention(x, positions), attention(y, positions)
    assert not torch.allclose(before[0, 0, 0], after[0, 0, 0])
    with torch.no_grad():
        attention.sr.weight.zero_()  # the pooled map tells nothing
    before, after = attention(x, positions), attention(y, positions)
    assert torch.equal(before[0, :6, :6], after[0, :6, :6])
    assert not torch.allclose(before[0, 6, 6], after[0, 6, 6])


def test_a_longer_query_changes_nothing():
    attention = CosineAttention(8, 2, 2, 0)
    positions = Positions.of((3, 4), (3, 4), 7, device=CPU)
    x = torch.randn(1, 3, 4, 8)
    before = attention(x, positions)
    with torch.no_grad():
        attention.qkv.weight[:8] *= 5
        attention.qkv.bias[:8] *= 5
    assert torch.allclose(attention(x, positions), before, atol=1e-5)


@torch.no_grad()
def test_small_network_runs_at_224_and_elsewhere_with_tables_of_that_size():
    model = MoHViTClassifier(SMALL, num_classes=3).eval()
    for size in ((224, 224), (64, 96), (33, 120)):
        assert model(torch.randn(1, 3, *size)).isfinite().all()
    other = MoHViTClassifier(SMALL, num_classes=3, pretrain_size=64).eval()
    other.load_state_dict(model.state_dict())
    image = torch.randn(1, 3, 64, 64)
    for module in (model, other):
        for name, parameter in module.named_parameters():
            if "cpb" in name:
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    assert not torch.allclose(model(image), other(image))


def test_parameters_begin_as_published():
    model = MoHViT(SMALL)
    attention = model.block2[0].attn
    assert torch.allclose(F.softplus(attention.temperature), torch.tensor(1 / 0.24))
    assert attention.relative_pos_bias_local.abs().max() < 0.01
    assert not attention.learnable_bias.any() and attention.learnable_tokens.std() < 0.04
    undecayed = {name.rpartition("attn.")[2] for name in model.no_weight_decay() if name.startswith("block1")}
    cpb = {f"cpb_fc{layer}.{leaf}" for layer in (1, 2) for leaf in ("weight", "bias")}
    assert undecayed == {"temperature", "query_embedding", "relative_pos_bias_local"} | cpb


# Conversion


def test_a_plain_network_becomes_a_mixed_one_and_goes_on_learning():
    torch.manual_seed(0)
    plain = MoHViTClassifier(
        {**SMALL, "shared_heads": SMALL["num_heads"], "routed_heads": (0,) * 4}, num_classes=2
    )
    tensors = {name: tensor for name, tensor in plain.state_dict().items() if ".wg" not in name}
    mixed = MoHViTClassifier(SMALL, num_classes=2).train()
    place_multi_head(mixed, tensors)
    assert torch.equal(mixed.block3[0].attn.q.weight, plain.block3[0].attn.q.weight)
    assert not mixed.block3[0].attn.wg.weight.any()
    images, labels = torch.randn(8, 3, 64, 64), torch.tensor([0] * 4 + [1] * 4)
    images[4:] += torch.linspace(-2, 2, 64)
    optimizer = torch.optim.AdamW(mixed.parameters(), lr=2e-3)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(mixed(images), labels) + sum(mixed.auxiliary_losses().values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert mixed.block3[0].attn.wg.weight.any()


# The diffusion network


def moved(model: MoHDiT) -> MoHDiT:
    """The network with weights where training begins with zeros."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "adaLN" in name or "final_layer" in name:
                parameter.normal_(std=0.1, generator=generator)
    return model.eval()


def test_diffusion_network_begins_with_nothing_to_say():
    model = MoHDiT(SMALL_DIT).eval()
    assert not model(torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.tensor([0, 4])).any()
    out = moved(model)(torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.tensor([0, 5]))
    assert out.shape == (2, 8, 8, 8) and out.abs().min() > 0


def test_position_table_tells_the_column_first():
    table = dit.sine_cosine_table(8, (2, 3)).view(2, 3, 8)
    assert torch.equal(table[0, :, :4], table[1, :, :4]) and torch.equal(table[:, 0, 4:], table[:, 2, 4:])
    column, rate = 2.0, 10000 ** (-1 / 2)
    expected = [math.sin(column), math.sin(column * rate), math.cos(column), math.cos(column * rate)]
    assert torch.allclose(table[0, 2, :4], torch.tensor(expected))


def test_steps_are_told_by_cosines_then_sines():
    table = dit.step_table(torch.tensor([0, 7]))
    assert torch.equal(table[0], torch.cat((torch.ones(128), torch.zeros(128))))
    assert table[1, 0] == pytest.approx(math.cos(7)) and table[1, 128] == pytest.approx(math.sin(7))


def test_patches_go_back_to_where_they_came_from():
    model = MoHDiT(SMALL_DIT)
    latents = torch.randn(2, 8, 8, 8)
    patches = latents.view(2, 8, 4, 2, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(2, 16, 32)
    assert torch.equal(model._unpatchify(patches), latents)


@torch.no_grad()
def test_guidance_doubles_the_batch_and_leaves_all_but_three_channels():
    model, x = moved(MoHDiT(SMALL_DIT)), torch.randn(2, 4, 8, 8)
    t, y = torch.tensor([5, 9, 5, 9]), torch.tensor([1, 2, 5, 5])
    plain = model(torch.cat((x, x)), t, y)
    guided = model.forward_guided(torch.cat((x, torch.zeros_like(x))), t, y, 3.0)
    told, free = plain[:2, :3], plain[2:, :3]
    assert torch.allclose(guided[:2, :3], free + 3 * (told - free), atol=1e-6)
    assert torch.equal(guided[:2, :3], guided[2:, :3]) and torch.equal(guided[:, 3:], plain[:, 3:])


def test_classes_are_dropped_in_training_alone():
    embedder = dit.LabelEmbedder(5, 4, 0.5)
    y = torch.zeros(200, dtype=torch.long)
    none = (embedder.train()(y) == embedder.embedding_table.weight[5]).all(1)
    assert 60 < none.sum() < 140
    assert torch.equal(embedder.eval()(y), embedder.embedding_table.weight[:1].expand(200, 4))


def test_diffusion_network_learns_a_picture_and_reports_its_balance():
    torch.manual_seed(0)
    model = MoHDiT(SMALL_DIT).train()
    x, t, y = torch.randn(4, 4, 8, 8), torch.tensor([1, 2, 3, 4]), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    losses = []
    for _ in range(25):
        task = F.mse_loss(model(x, t, y)[:, :4], x)
        losses.append(task.item())
        optimizer.zero_grad()
        (task + model.auxiliary_losses()["loss_balance"]).backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    assert torch.equal(model.pos_embed, dit.sine_cosine_table(16, (4, 4)))


# The language attention


def test_half_of_the_routed_heads_are_used_by_the_length_of_their_queries():
    attention, x = MoHLlamaAttention(64, 8, 2).eval(), torch.randn(2, 9, 64)
    gates = attention.gates(x)
    assert (gates[..., :4] == 1).all() and set(gates.unique().tolist()) == {0.0, 1.0}
    lengths = attention.q_proj(x).unflatten(2, (8, 8)).norm(dim=3)[..., 4:]
    assert torch.equal(gates[..., 4:].bool(), lengths >= lengths.topk(2).values[..., -1:])


def test_tokens_do_not_see_later_ones_and_positions_are_relative():
    attention, x = MoHLlamaAttention(32, 4, 2).eval(), torch.randn(1, 10, 32)
    changed = x.clone()
    changed[:, 6:] += 1
    assert torch.allclose(attention(x)[:, :6], attention(changed)[:, :6], atol=1e-6)
    later = attention(x, torch.arange(100, 110))
    assert torch.allclose(attention(x), later, atol=1e-4)
    turned = llama.rotate(x[:, None], llama.rotary_table(torch.arange(10), 32, 500000.0))
    assert torch.allclose(turned.norm(dim=3), x[:, None].norm(dim=3), atol=1e-5)


def test_gradients_pass_the_hard_gates_in_training():
    torch.manual_seed(0)
    attention, x = MoHLlamaAttention(32, 4, 2), torch.randn(1, 6, 32)
    assert torch.allclose(attention.train()(x), attention.eval()(x), atol=1e-6)
    assert attention.gates(x).requires_grad is False
    gates = attention.train().gates(x)
    assert set(gates.unique().tolist()) == {0.0, 1.0}
    gates[..., -1].sum().backward()
    assert attention.q_proj.weight.grad[-8:].abs().sum() > 0
    assert auxiliary_losses(attention)["loss_balance"] > 0


# Checkpoints


def test_classifier_files_load_into_classifier_and_backbone(tmp_path):
    torch.manual_seed(0)
    source = MoHViTClassifier(SMALL, num_classes=4).eval()
    torch.save({"model": source.state_dict()}, tmp_path / "vit.pth")
    image = torch.randn(1, 3, 64, 64)
    target = load_published(MoHViTClassifier(SMALL, num_classes=4), tmp_path / "vit.pth").eval()
    assert torch.equal(target(image), source(image))
    backbone = load_published(MoHViT(SMALL), tmp_path / "vit.pth").eval()
    assert torch.allclose(backbone(image)[3].mean((2, 3)), source.forward_features(image), atol=1e-6)
    short = load_published(MoHViT(SMALL, out_indices=(1,)), tmp_path / "vit.pth")
    assert torch.equal(short.norm2.weight, source.norm2.weight) and not hasattr(short, "norm3")
    tensors = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    torch.save({"state_dict": {**tensors, "decode_head.bias": torch.zeros(1)}}, tmp_path / "whole.pth")
    assert torch.equal(load_published(MoHViT(SMALL), tmp_path / "whole.pth").norm4.bias, backbone.norm4.bias)


def test_averaged_weights_of_a_diffusion_network_load(tmp_path):
    source = moved(MoHDiT(SMALL_DIT))
    torch.save({"ema": source.state_dict(), "model": {}}, tmp_path / "dit.pt")
    target = load_published(MoHDiT(SMALL_DIT), tmp_path / "dit.pt").eval()
    arguments = torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.tensor([0])
    assert torch.equal(target(*arguments), source(*arguments))


def test_another_models_file_is_refused(tmp_path):
    torch.save({"model": MoHViTClassifier(SMALL, num_classes=4).state_dict()}, tmp_path / "vit.pth")
    with pytest.raises(UserError, match=r"wg\.weight"):
        load_published(MoHViT({**SMALL, "shared_heads": (2, 2, 0, 2)}), tmp_path / "vit.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MoHViT("small_90"), "small_90.*small_80"),
        (lambda: MoHViT({**SMALL, "depths": (1, 1)}), r"depths of MoHViT \(1, 1\)"),
        (lambda: MoHViT({"depths": (1, 1, 1, 1)}), "lacks embed_dims"),
        (lambda: MoHViT(SMALL, widths=(1,)), "widths"),
        (lambda: MoHViT(SMALL, out_indices=(0, 4)), "out_indices"),
        (lambda: MoHViT(SMALL, pretrain_size=32), "pretrain_size 32"),
        (lambda: MoHViT(SMALL, window_size=4), "window_size 4"),
        (lambda: MoHViT({**SMALL, "num_heads": (3, 4, 4, 6)}), "3 heads do not divide a width of 8"),
        (lambda: MoHAttention(8, 4, 2, 0), "2 shared and 0 routed heads of 4"),
        (lambda: MoHAttention(8, 4, 2, 3), "2 shared and 3 routed heads of 4"),
        (lambda: MoHAttention(8, 3, 2, 1), "3 heads .* head_dim"),
        (lambda: MoHDiT("m_2_75"), "m_2_75"),
        (lambda: MoHDiT({**SMALL_DIT, "num_heads": (2, 2)}), "num_heads of MoHDiT"),
        (lambda: MoHDiT(SMALL_DIT, input_size=9), "patches of 2"),
        (lambda: MoHDiT(SMALL_DIT, dim=18), "width of 4n"),
        (lambda: MoHLlamaAttention(64, 8, 3), "8 heads, 3 of them"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
