"""The names of tensors in the authors' files, and what they are called here.

Their hosts come from three code bases. Swin and T2T have names of their own, which stay; ViT, CaiT and PiT
wrap every part in `fn`, which is replaced by the usual names of a transformer block.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from opsin.core.published import Tensors

Renames = tuple[tuple[str, str], ...]

# the frozen table of the Gaussian of width 1, of the whole network and once more in every layer
BASE = re.compile(r"^mask\w*$|\.mask$")
PATCHES = "patch_embed.proj.weight"
AROUND: Renames = (
    (r"^to_patch_embedding\.\d+\.", "patch_embed.proj."),
    (r"^pos_embedding$", "pos_embed"),
    (r"^mlp_head\.0\.", "norm."),
    (r"^mlp_head\.1\.", "head."),
)
INSIDE: Renames = (
    (r"\.to_(q|kv|qkv)\.", r".\1."),
    (r"\.to_out\.0\.", ".proj."),
    (r"\.net\.0\.", ".fc1."),
    (r"\.net\.3\.", ".fc2."),
)


def rename(name: str, renames: Renames) -> str:
    """The name after all of the replacements, in order."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def own_names(tensors: Tensors, blocks: Renames, kernel: Sequence[int]) -> Tensors:
    """Tensors of the authors' ViT, CaiT or PiT under own names; others keep theirs.

    Args:
        tensors: published tensors.
        blocks: how the host's blocks are called.
        kernel: shape (channels, p, p) of the convolution that stands for a linear layer of patches.
    """
    renamed = {
        rename(n, (*AROUND, *blocks, *INSIDE) if is_published(n) else ()): t for n, t in tensors.items()
    }
    weight = renamed.get(PATCHES)
    if weight is not None and weight.ndim == 2 and weight.shape[1] == math.prod(kernel):
        renamed[PATCHES] = weight.unflatten(1, (*kernel[1:], kernel[0])).permute(0, 3, 1, 2)
    return renamed


def is_published(name: str) -> bool:
    """Whether a name of ViT, CaiT or PiT is the authors' and not our own."""
    return re.match(r"(to_patch|pos_embedding|mlp_head|(\w+_)?transformer\.)", name) is not None


def without_base(tensors: Tensors, *, learned: bool) -> Tensors:
    """Tensors without the frozen tables; with learned masks only the network's own is one of these."""
    kept = {n: t for n, t in tensors.items() if not BASE.search(n) or (learned and n.endswith(".mask.mask"))}
    return {n: t.reshape(t.shape[-2:]) if n.endswith(".mask.mask") else t for n, t in kept.items()}
