"""MaxViT: Multi-Axis Vision Transformer (arXiv 2204.01697, ECCV 2022; google-research/maxvit, Apache-2.0).

Image (N, 3, H, W) to maps of strides 4, 8, 16, 32 and widths `embed_dims`. Every block is an MBConv with
squeeze-and-excitation, then attention inside windows of neighbours, then attention over a dilated grid that
spans the whole map; so every stage mixes near and far at a cost linear in the map's area. The authors' code
is in TensorFlow; names and numbers of tensors are those of its port in timm, into which their files were
converted.

What a naive reading gets wrong: GELU is the tanh form throughout; batch norms have epsilon 1e-3 and the one
that opens an MBConv has no activation; the squeeze width follows from a block's output width, not from the
expanded one; strided convolutions pad as TensorFlow does, on an even side only below and right; relative
offsets are key minus query; block number b of n has the drop path rate r * b / n, which stays below r.

Not published: maps that windows or grid do not divide. Here zeros are added below and right, masked as keys,
and cropped away again, which changes nothing where no zeros are needed.
"""

from opsin.core.backbones.maxvit import published
from opsin.core.backbones.maxvit.attention import MultiAxisAttention
from opsin.core.backbones.maxvit.network import ARCHS, MaxViT, MaxViTClassifier
from opsin.core.models import register_models

__all__ = ["MaxViT", "MaxViTClassifier", "MultiAxisAttention", "published"]

WINDOWS = {"": 7, "_384": 12, "_512": 16}
register_models(
    "maxvit",
    MaxViTClassifier,
    {
        f"maxvit_{arch}{size}": {"arch": arch, "window_size": window}
        for arch in ARCHS
        for size, window in WINDOWS.items()
    },
    backbone=MaxViT,
)
