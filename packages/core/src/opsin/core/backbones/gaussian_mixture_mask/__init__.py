"""Gaussian mixture mask: Toward a Deeper Understanding: RetNet Viewed through Convolution (arXiv 2309.05375).

Pattern Recognition 2024; code CatworldLee/Gaussian-Mixture-Mask-Attention, without a licence, so this is
written from a description and from numbers. The logits of attention between tokens of a grid are multiplied
by weights that depend on the tokens' distance alone, a mixture of K Gaussians for each head: locality for
small data sets at 2 K numbers a head.

`mask` has the weights, `attention` the attention that takes them, and each of five hosts a file: `vit`,
`swin`, `cait`, `pit`, `t2t`. One argument of every host, `mask`, is 'gmm', 'elm' (a free table of all pairs)
or 'none'.
"""

from typing import Any

from opsin.core.backbones.gaussian_mixture_mask import published
from opsin.core.backbones.gaussian_mixture_mask.attention import MaskedAttention
from opsin.core.backbones.gaussian_mixture_mask.cait import MaskedCaiT, MaskedCaiTClassifier
from opsin.core.backbones.gaussian_mixture_mask.mask import GaussianMixtureMask, LearnedMask
from opsin.core.backbones.gaussian_mixture_mask.pit import MaskedPiT, MaskedPiTClassifier
from opsin.core.backbones.gaussian_mixture_mask.swin import MaskedSwin, MaskedSwinClassifier
from opsin.core.backbones.gaussian_mixture_mask.t2t import MaskedT2T, MaskedT2TClassifier
from opsin.core.backbones.gaussian_mixture_mask.vit import MaskedViT, MaskedViTClassifier
from opsin.core.models import register_models

__all__ = [
    "GaussianMixtureMask",
    "LearnedMask",
    "MaskedAttention",
    "MaskedCaiT",
    "MaskedCaiTClassifier",
    "MaskedPiT",
    "MaskedPiTClassifier",
    "MaskedSwin",
    "MaskedSwinClassifier",
    "MaskedT2T",
    "MaskedT2TClassifier",
    "MaskedViT",
    "MaskedViTClassifier",
    "published",
]

SYSTEM = "gaussian-mixture-mask"
SIZES = (32, 64)


def _variants(host: str, **arguments: Any) -> dict[str, dict[str, Any]]:
    """`gmm_<host>_32`, `plain_<host>_32` and the same for 64 pixels, as published."""
    masks: dict[str, dict[str, Any]] = {
        "gmm": {"mask": "gmm", "published_underflow": True},
        "plain": {"mask": "none"},
    }
    return {
        f"{name}_{host}_{size}": {"img_size": size, **mask, **arguments}
        for name, mask in masks.items()
        for size in SIZES
    }


register_models(
    SYSTEM,
    MaskedViTClassifier,
    {
        **_variants("vit", arch="tiny"),
        **{f"elm_vit_{size}": {"arch": "tiny", "img_size": size, "mask": "elm"} for size in SIZES},
    },
    backbone=MaskedViT,
)
register_models(SYSTEM, MaskedSwinClassifier, _variants("swin", arch="tiny"), backbone=MaskedSwin)
register_models(
    SYSTEM,
    MaskedCaiTClassifier,
    {**_variants("cait_tiny", arch="tiny"), **_variants("cait_small", arch="small")},
    backbone=MaskedCaiT,
)
register_models(SYSTEM, MaskedPiTClassifier, _variants("pit", arch="tiny"), backbone=MaskedPiT)
register_models(
    SYSTEM, MaskedT2TClassifier, _variants("t2t", arch="tiny", unused_parameters=True), backbone=MaskedT2T
)
