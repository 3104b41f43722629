"""HaloNet: Scaling Local Self-Attention for Parameter Efficient Visual Backbones (arXiv 2103.12731, 2021).

The authors published no code. What the paper leaves open follows timm 1.0.31 (Apache-2.0), whose trained
hybrids, halonet26t and its relatives, load here.

A network in the shape of a ResNet. Image (N, 3, H, W) to maps of strides 4, 8, 16, 32. A map is cut into
blocks of b x b queries; all queries of a block look at the same keys, those of the block and of a halo of h
pixels around it, w x w with w = b + 2h. A strided layer takes every second query.

What a naive reading gets wrong: keys beyond the map are zeros that take part in the softmax; the relative
term multiplies the unscaled query; the key projection holds, head by head, keys and then values; a strided
layer counts positions among the queries that are left, not in pixels; a batch norm with an activation
follows attention, which has no output projection.

A map whose sides are no multiple of b is padded with zeros below and on the right, and what attention gives
for them is cut off; this is ours, and changes nothing where sides fit.
"""

import re

from opsin.core.backbones.halonet import parity
from opsin.core.backbones.halonet.attention import HaloAttention
from opsin.core.backbones.halonet.blocks import ConvBlock, HaloBlock
from opsin.core.backbones.halonet.network import HaloNet, HaloNetClassifier
from opsin.core.backbones.halonet.settings import ARCHS
from opsin.core.models import register_models

__all__ = ["ARCHS", "ConvBlock", "HaloAttention", "HaloBlock", "HaloNet", "HaloNetClassifier", "parity"]

_NAMES = {arch: f"halonet_{arch}" if re.fullmatch(r"h\d", arch) else arch for arch in ARCHS}

register_models(
    "halonet", HaloNetClassifier, {name: {"arch": arch} for arch, name in _NAMES.items()}, backbone=HaloNet
)
