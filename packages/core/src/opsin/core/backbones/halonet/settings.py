"""HaloNet's variants as data: the networks of the paper's table and timm's hybrids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from opsin.core.backbones.backbone import resolve_arch
from opsin.core.errors import UserError, unknown

STRIDES = (4, 8, 16, 32)
WIDTHS = (64, 128, 256, 512)
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}
# (kernel, widths, stride of the last convolution, whether max pooling follows); the first stride is 2
STEMS: dict[str, tuple[int, tuple[int, ...], int, bool]] = {
    "7x7": (7, (64,), 2, True),
    "tiered": (3, (24, 32, 64), 1, True),
    "tiered_strided": (3, (24, 32, 64), 2, False),
}
# A is a block with attention, B one with a 3x3 convolution.
DEFAULTS: dict[str, Any] = {
    "stem": "7x7",
    "blocks": ("AAA", "AAA", "A" * 10, "AAA"),
    "widths": WIDTHS,
    "out_widths": WIDTHS,
    "block_size": 8,
    "halo_size": 3,
    "num_heads": (8, 8, 8, 8),
    "dim_head": None,
    "value_ratio": 1.0,
    "group_width": 0,
    "channel_attention": None,
    "act": "relu",
    "final_width": None,
}


def _pure(
    block_size: int, halo_size: int, value_ratio: float, out_ratio: float, l3: int, final: int | None = None
) -> dict[str, Any]:
    """A network of the paper's table: its b, h, r_v, r_b, l3 and d_f."""
    return {
        "blocks": ("AAA", "AAA", "A" * l3, "AAA"),
        "out_widths": tuple(int(width * out_ratio) for width in WIDTHS),
        "block_size": block_size,
        "halo_size": halo_size,
        "value_ratio": value_ratio,
        "final_width": final,
    }


def _hybrid(stem: str, blocks: str, **changes: Any) -> dict[str, Any]:
    out_widths = (256, 512, 1024, 2048)
    return {"stem": stem, "blocks": tuple(blocks.split()), "out_widths": out_widths, **changes}


# Each says what differs from DEFAULTS.
ARCHS: dict[str, dict[str, Any]] = {
    "h0": _pure(8, 3, 1.0, 0.5, 7),
    "h1": _pure(8, 3, 1.0, 1.0, 10),
    "h2": _pure(8, 3, 1.0, 1.25, 11),
    "h3": _pure(10, 3, 1.0, 1.5, 12, 1024),
    "h4": _pure(12, 2, 1.0, 3.0, 12, 1280),
    "h5": _pure(14, 2, 2.5, 2.0, 23, 1536),
    "h6": _pure(8, 4, 3.0, 2.75, 24, 1536),
    "h7": _pure(10, 3, 4.0, 3.5, 26, 2048),
    "halonet26t": _hybrid("tiered", "BB BB BA AA", halo_size=2),
    "eca_halonext26ts": _hybrid(
        "tiered", "BB BB BA AA", halo_size=2, act="silu", dim_head=16, group_width=16, channel_attention="eca"
    ),
    "halonet50ts": _hybrid("tiered", "BBB BBBA BABABA BAB", act="silu", num_heads=(8, 4, 8, 8)),
    "sehalonet33ts": {
        **_hybrid("tiered_strided", "BB BBA BBA AA", act="silu", channel_attention="se", final_width=1280),
        "out_widths": (256, 512, 1024, 1536),
    },
}


def settings_of(arch: str | Mapping[str, Any], num_heads: int | Sequence[int] | None) -> dict[str, Any]:
    """Every setting of a network.

    Raises:
        UserError: for an unknown name, key or value.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise unknown("HaloNet arch", arch, ARCHS)
        arch = ARCHS[arch]
    settings = resolve_arch("HaloNet", {"h1": DEFAULTS}, {**DEFAULTS, **arch})
    if num_heads is not None:
        settings["num_heads"] = (num_heads,) * 4 if isinstance(num_heads, int) else tuple(num_heads)
    for key, known in (("stem", STEMS), ("act", ACTIVATIONS), ("channel_attention", (None, "se", "eca"))):
        if settings[key] not in known:
            raise unknown(f"HaloNet {key}", str(settings[key]), [str(name) for name in known])
    if any(len(settings[key]) != 4 for key in ("blocks", "widths", "out_widths", "num_heads")):
        raise UserError("HaloNet's blocks, widths, out_widths and num_heads have four entries each")
    if any(not blocks or set(blocks) - {"A", "B"} for blocks in settings["blocks"]):
        raise UserError(f"HaloNet blocks {settings['blocks']} are not words of A (attention) and B (3x3)")
    return settings
