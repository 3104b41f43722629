"""How the parity cases of system `moh` are run. The published names of tensors are this package's own.

A case may ask for the load-balance loss (an output `aux…`): it is that of a forward in training mode, alone
or with zeros after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.cases import map_size
from opsin.core.backbones.moh import dit, settings, vit
from opsin.core.backbones.moh.attention import MoHAttention
from opsin.core.backbones.moh.llama import MoHLlamaAttention
from opsin.core.backbones.moh.positions import Positions
from opsin.core.backbones.moh.routing import auxiliary_losses
from opsin.core.backbones.moh.settings import MoHViTSettings
from opsin.core.backbones.moh.transnext import AggregatedAttention, CosineAttention
from opsin.core.parity import Case, adapter
from opsin.core.published import place

# Arguments of the authors' classes that have another name here.
_VIT_NAMES = {
    "shared_head": "shared_heads",
    "routed_head": "routed_heads",
    "in_chans": "in_channels",
}
_DIT_NAMES = {
    "hidden_size": "dim",
    "shared_head": "shared_heads",
    "routed_head": "routed_heads",
    "learn_sigma": "learn_variance",
    "class_dropout_prob": "class_dropout_rate",
}
# The defaults of the bare TransNeXt where they differ from those of the named models.
_BARE = {
    "embed_dims": (64, 128, 256, 512),
    "depths": (3, 4, 6, 3),
    "num_heads": (1, 2, 4, 8),
    "shared_heads": (1, 2, 4, 8),
    "routed_heads": (0, 0, 0, 0),
    "mlp_ratios": (4, 4, 4, 4),
    "qkv_bias": False,
}


def _given(case: Case, names: Mapping[str, str], kind: type) -> dict[str, Any]:
    """What the case was built with that is a setting here, under its name here."""
    renamed = {names.get(key, key): value for key, value in case.built_with.items()}
    return {key: value for key, value in renamed.items() if key in kind.__dataclass_fields__}  # type: ignore[attr-defined]  # a dataclass


def _outputs(case: Case, model: nn.Module, run: Callable[[], Tensor]) -> dict[str, Tensor]:
    """What `run` gives under every name that the case has, and the load-balance loss as `aux…`."""
    specs = case.meta["outputs"]
    balance_names = [name for name in specs if name.startswith("aux")]
    outputs = dict.fromkeys((name for name in specs if name not in balance_names), run())
    if balance_names:
        model.train()
        run()
        model.eval()
        (loss,) = auxiliary_losses(model, 1.0).values()
        for name in balance_names:
            shape = (specs[name] or {}).get("shape", ())
            outputs[name] = torch.zeros(shape)
            outputs[name].view(-1)[0] = loss
    return outputs


def _heads(case: Case) -> tuple[int, int, int]:
    """All, shared and routed heads."""
    numbers = case.built_with.get("num_heads", 8), case.built_with.get("shared_head", 0)
    return (*numbers, case.built_with.get("routed_head", 0))


def _positions(case: Case, size: tuple[int, int]) -> Positions:
    """Those of a module alone, whose pretraining had maps of its own size unless the case tells."""
    given = {**case.built_with, **case.meta.get("call", {})}
    ratio, fixed = given.get("sr_ratio", 1), given.get("fixed_pool_size")
    pool = (size[0] // ratio, size[1] // ratio) if fixed is None or ratio == 1 else (fixed, fixed)
    side = given.get("pretrain_size") or size[0]
    window = 0 if ratio == 1 else given.get("window_size", 3)
    side = side[0] if isinstance(side, list | tuple) else side
    return Positions.of(size, pool, side, window=window, device=torch.device("cpu"))


def _on_a_map(case: Case, layer: nn.Module, *, positions: bool = True) -> dict[str, Tensor]:
    """Runs a layer of maps on tokens (N, H * W, C)."""
    place(layer.eval(), case.state_dict())
    x = next(iter(case.inputs().values()))
    size = map_size(case, x.shape[1])
    around = (_positions(case, size),) if positions else ()
    return _outputs(case, layer, lambda: layer(x.unflatten(1, size), *around).flatten(1, 2))


@adapter("moh", r"attention\w*\.py (Aggregated)?Attention")
@torch.no_grad()
def _run_vit_attention(case: Case) -> dict[str, Tensor]:
    dim, qkv_bias = case.shapes["proj.bias"][0], case.built_with.get("qkv_bias", True)
    if "Aggregated" not in case.source:
        return _on_a_map(case, CosineAttention(dim, *_heads(case), qkv_bias=qkv_bias))
    window = case.built_with.get("window_size", 3)
    return _on_a_map(case, AggregatedAttention(dim, *_heads(case), window_size=window, qkv_bias=qkv_bias))


@adapter("moh", r"transnext\.py Block")
@torch.no_grad()
def _run_vit_block(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    num_heads, shared, routed = _heads(case)
    one = MoHViTSettings(
        embed_dims=(case.shapes["norm1.weight"][0],) * 4,
        depths=(1,) * 4,
        num_heads=(num_heads,) * 4,
        shared_heads=(shared,) * 4,
        routed_heads=(routed,) * 4,
        mlp_ratios=(given.get("mlp_ratio", 4.0),) * 4,
        sr_ratios=(given.get("sr_ratio", 1),) * 4,
        window_size=given.get("window_size", 3),
        qkv_bias=given.get("qkv_bias", False),
        norm_eps=_norm_eps(case, 1e-5),
    )
    return _on_a_map(case, vit.make_block(one, 0))


@adapter("moh", r"transnext\.py Conv\w*GLU")
@torch.no_grad()
def _run_glu(case: Case) -> dict[str, Tensor]:
    dim = case.shapes["fc2.bias"][0]
    return _on_a_map(
        case, vit.ConvolutionalGLU(dim, case.built_with.get("hidden_features") or dim), positions=False
    )


def _norm_eps(case: Case, default: float) -> float:
    """Epsilon that the case names, as a number or in words."""
    found = re.search(r"eps\D*([\d.]+e?-?\d*)", str(case.built_with.get("norm_layer", "")))
    return float(found[1]) if found else float(case.built_with.get("norm_eps", default))


@adapter("moh", r"transnext\.py (TransNeXt|moh_)")
@torch.no_grad()
def _run_vit(case: Case) -> dict[str, Tensor]:
    variant = re.search(r"moh_transnext_(\w+)", case.source)
    named: Mapping[str, Any] = asdict(settings.ARCHS[variant[1]]) if variant else _BARE
    given = _given(case, _VIT_NAMES, MoHViTSettings)
    given["norm_eps"] = _norm_eps(case, 1e-6 if variant else 1e-5)
    given["pretrain_size"] = given.get("pretrain_size") or case.built_with.get("img_size", 224)
    model = vit.MoHViTClassifier({**named, **given}, num_classes=case.shapes.get("head.bias", (0,))[0]).eval()
    place(model, case.state_dict())
    image = next(iter(case.inputs().values()))
    *_, last = maps = list(model.normed_maps(image))
    outputs = _outputs(case, model, lambda: model.forward_head(model.forward_features(image)))
    outputs |= {f"stage{number}": m for number, m in enumerate(maps, 1)}
    return outputs | {"features": last.mean((2, 3))}


@adapter("moh", r"models\.py MoHAttention")
@torch.no_grad()
def _run_attention(case: Case) -> dict[str, Tensor]:
    shapes = case.shapes
    out_dim, dim = shapes["qkv.weight"]
    attention = MoHAttention(
        dim,
        *_heads(case),
        qkv_bias="qkv.bias" in shapes,
        qk_norm="q_norm.weight" in shapes,
        head_dim=out_dim // (3 * _heads(case)[0]),
    )
    place(attention.eval(), case.state_dict())
    (x,) = case.inputs().values()
    return _outputs(case, attention, lambda: attention(x))


@adapter("moh", r"models\.py DiTBlock")
@torch.no_grad()
def _run_dit_block(case: Case) -> dict[str, Tensor]:
    given, shapes = case.built_with, case.shapes
    num_heads, shared, routed = _heads(case)
    dim = shapes["mlp.fc2.bias"][0]
    moh = given.get("moh", any(".wg" in name for name in shapes))
    attn = dit.make_attention(
        dim,
        num_heads,
        shared if moh else None,
        routed,
        given.get("head_dim"),
        qk_norm="attn.q_norm.weight" in shapes,
    )
    block = dit.DiTBlock(dim, attn, shapes["mlp.fc1.bias"][0] / dim)
    place(block.eval(), case.state_dict())
    x, c = case.inputs().values()
    return _outputs(case, block, lambda: block(x, c))


@adapter("moh", r"models\.py (MoH_)?DiT")
@torch.no_grad()
def _run_dit(case: Case) -> dict[str, Tensor]:
    variant = re.search(r"MoH_DiT_(\w+?)\b", case.source)
    named = asdict(dit.ARCHS[variant[1].lower()]) if variant else {}
    given = _given(case, _DIT_NAMES, dit.MoHDiTSettings)
    bare = {"dim": 1152, "depth": 28, "num_heads": 16, "shared_heads": None, "routed_heads": None}
    chosen = {**(named or bare), **given}
    if isinstance(chosen["num_heads"], int):
        chosen["head_dim"] = None  # the authors' network divides its width then
    if not case.built_with.get("moh", bool(variant)):
        chosen |= {"shared_heads": None, "routed_heads": None}
    model = dit.MoHDiT(chosen).eval()
    place(model, case.state_dict())
    x, t, y = (case.inputs()[name] for name in ("x", "t", "y"))
    scale = _guidance(case)
    x, t = (torch.cat((part, part)) if len(part) < len(y) else part for part in (x, t))
    outputs = _outputs(case, model, lambda: model(x, t, y))
    if scale is not None:
        told = [name for name in outputs if re.search("cfg|guid", name)]
        outputs |= dict.fromkeys(told or outputs, model.forward_guided(x, t, y, scale))
    return outputs


def _guidance(case: Case) -> float | None:
    """The scale of guidance, as an argument or in words; None for a case without."""
    given = case.inputs() | case.built_with | case.meta.get("call", {})
    for name in ("cfg_scale", "scale"):
        if name in given:
            return float(given[name])
    words = f"{case.source} {case.meta.get('what', '')}"
    if not re.search("cfg|guidance", words):
        return None
    for name in ("scale", "cfg", "guidance"):
        found = re.search(rf"{name}\w*\D{{0,20}}?(\d+(?:\.\d+)?)", words)
        if found:
            return float(found[1])
    return None


@adapter("moh", r"modeling_llama\.py Llama\w*Attention")
@torch.no_grad()
def _run_llama_attention(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    heads = given["num_attention_heads"]
    attention = MoHLlamaAttention(
        given["hidden_size"],
        heads,
        given.get("num_key_value_heads") or heads,
        rope_theta=given.get("rope_theta", 10000.0),
        bias=given.get("attention_bias", False),
    )
    place(attention.eval(), case.state_dict())
    inputs = case.inputs()
    x = next(iter(inputs.values()))
    positions = inputs.get("position_ids")
    positions = positions[0] if positions is not None and positions.ndim == 2 else positions
    return _outputs(case, attention, lambda: attention(x, positions))
