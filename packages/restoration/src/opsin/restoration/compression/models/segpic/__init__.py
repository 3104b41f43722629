"""SegPIC: a learned image codec with a region-adaptive transform and segmentation as a prior.

Paper: "Region-Adaptive Transform with Segmentation Prior for Image Compression" (arXiv 2403.00628, ECCV
2024). Published code: GityuxiLiu/SegPIC-for-Image-Compression.

Pictures (N, 3, H, W) in [0, 1] with sides that are multiples of 64 to reconstructions of the same shape, not
clamped, and likelihoods of all symbols.

What differs from a naive reading:

* region masks serve training only; a coder takes the cells of a 4x4 grid, so no mask is sent;
* the slices that support a prediction are the first five, not the last five;
* GDN divides in the up blocks too; only the nets of region codes have its inverse;
* the scale affine layer stands after the convolution in down blocks and before it in up blocks;
* the latent that is coded is the one before the hyper-analysis' region-adaptive transform;
* the likelihood of y is that of the rounded value, before the residual of rounding is added.

Published names are kept. The published network registers its resampling blocks under two names
(`basic_E.0`, `g_a1.0`); here they have the first alone.
"""

from opsin.restoration.compression.models.segpic import published
from opsin.restoration.compression.models.segpic.entropy import EntropyBottleneck, gaussian_likelihood
from opsin.restoration.compression.models.segpic.network import SegPIC
from opsin.restoration.compression.models.segpic.regions import (
    GridRegions,
    MaskRegions,
    RegionAdaptiveTransform,
)

__all__ = [
    "EntropyBottleneck",
    "GridRegions",
    "MaskRegions",
    "RegionAdaptiveTransform",
    "SegPIC",
    "gaussian_likelihood",
    "published",
]
