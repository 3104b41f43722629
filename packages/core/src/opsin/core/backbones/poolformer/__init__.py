"""PoolFormer: MetaFormer Is Actually What You Need for Vision (arXiv 2111.11418, CVPR 2022).

Code of the authors: sail-sg/poolformer (Apache-2.0). A MetaFormer block is norm, token mixer, residual, norm,
perceptron, residual. PoolFormer's mixer is a 3x3 mean minus its input; any other can be put into each stage.
Image (N, 3, H, W) to maps of strides 4, 8, 16, 32.

What a naive reading gets wrong: the norm is GroupNorm with one group, over channels and pixels together, so a
feature depends on the whole picture; the classifier norms the map before it is averaged; means at the border
divide by the pixels that there are; the stem pads by 2; a block without mixing (`identity`) still adds its
scaled norm. In the published names `network` counts stages, downsampling layers and position tables together,
and the output norms are numbered as their stages there: norm0, norm2, norm4, norm6.

timm's models of the same names norm the averaged vector instead (LayerNorm), so they are other functions with
the same weights: their logits differ by 15 %.

Maps travel in the channels-last memory format, where the mean is ten times as fast on a CPU.
"""

from opsin.core.backbones.poolformer import parity
from opsin.core.backbones.poolformer.arch import ARCHS, Arch
from opsin.core.backbones.poolformer.mixers import MIXERS, AttentionMixer, Pooling, PositionTable, SpatialFc
from opsin.core.backbones.poolformer.network import MetaFormer, MetaFormerBlock, MetaFormerClassifier

__all__ = [
    "ARCHS",
    "MIXERS",
    "Arch",
    "AttentionMixer",
    "MetaFormer",
    "MetaFormerBlock",
    "MetaFormerClassifier",
    "Pooling",
    "PositionTable",
    "SpatialFc",
    "parity",
]
