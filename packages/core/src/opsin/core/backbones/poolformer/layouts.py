"""Layouts of published files: the authors', timm's and mmpretrain's names of the same tensors."""

from __future__ import annotations

import re

from opsin.core.errors import UserError
from opsin.core.published import Tensors, backbone_of

TIMM_DIFFERS = (
    "this file has timm's names. Its tensors are placed as the authors', and the logits will be those of the "
    "authors' network, not of timm's: timm norms the averaged vector (LayerNorm), the authors the map before "
    "it is averaged (GroupNorm). Weights that were trained by timm need timm's network"
)
_TIMM_NAMES = (
    (r"^stem\.conv\.", "patch_embed.proj."),
    (r"\.layer_scale(\d)\.scale$", r".layer_scale_\1"),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
)


def is_of_timm(tensors: Tensors) -> bool:
    """Whether the file has timm's names."""
    return "stem.conv.weight" in tensors


def authors_names(tensors: Tensors) -> Tensors:
    """Tensors under the authors' names, whichever library's layout they come in.

    Raises:
        UserError: for a file of MetaFormer Baselines.
    """
    if any(re.search(r"\.(res_scale\d|act)\.scale$", name) for name in tensors):
        raise UserError(
            "this file is of MetaFormer Baselines (PoolFormerV2, ConvFormer, CAFormer …)",
            "these are other networks than MetaFormer's",
        )
    if not is_of_timm(tensors):
        return {re.sub(r"^head\.fc\.", "head.", n): t for n, t in backbone_of(tensors, "head.fc.").items()}
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _TIMM_NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[re.sub(r"^stages\.(\d)\.(blocks|downsample\.conv)\.", _in_network, name)] = tensor
    return renamed


def _in_network(found: re.Match[str]) -> str:
    """A stage's downsampling, with which it begins in timm, is an entry before it in `network`."""
    stage = int(found[1])
    return f"network.{2 * stage}." if found[2] == "blocks" else f"network.{2 * stage - 1}.proj."
