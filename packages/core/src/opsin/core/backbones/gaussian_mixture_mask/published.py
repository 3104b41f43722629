"""How parity cases of the authors' sources are run: the mask alone, and five classifiers.

What a tensor's shape tells (widths, depths, kernels, heads where there is a mixture) is read from the shapes,
the rest from what the published class was built with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from opsin.core.backbones.cases import run_classifier
from opsin.core.backbones.gaussian_mixture_mask import cait, pit, swin, t2t, vit
from opsin.core.backbones.gaussian_mixture_mask.mask import GaussianMixtureMask, Grid, LearnedMask
from opsin.core.layers.position_table import square_grid
from opsin.core.parity import Case, adapter
from opsin.core.published import place

SYSTEM = "gaussian-mixture-mask"


def _find(case: Case, pattern: str) -> tuple[int, ...] | None:
    """Shape of the first tensor whose name matches."""
    return next((shape for name, shape in case.shapes.items() if re.search(pattern, name)), None)


def _shape(case: Case, pattern: str) -> tuple[int, ...]:
    """The same of a tensor that must be there."""
    shape = _find(case, pattern)
    assert shape is not None, f"no tensor {pattern}"
    return shape


def _count(case: Case, pattern: str) -> int:
    """How many different numbers the group in `pattern` catches."""
    return len({found[1] for name in case.shapes if (found := re.search(pattern, name))})


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, Sequence) else value)


def _one_a_stage(value: Any, stages: int) -> list[int]:
    return [int(v) for v in value] if isinstance(value, Sequence) else [int(value)] * stages


def _mask(case: Case) -> dict[str, Any]:
    """The mask's arguments: which tensors there are tells its kind."""
    sigma = _find(case, r"sigma$")
    learned = _find(case, r"\.mask\.mask$") is not None and not case.built_with.get("is_GMM", False)
    kind = "gmm" if sigma else "elm" if learned else "none"
    return {"mask": kind, "num_kernels": sigma[0] if sigma else 1, "published_underflow": True}


def _heads(case: Case, block: str) -> int:
    """Heads of the attention whose tensors' names begin with `block`, from its mixture or the arguments."""
    sigma = _find(case, rf"{block}.*sigma$")
    return sigma[1] if sigma else int(case.built_with["heads" if "heads" in case.built_with else "num_heads"])


def _image(case: Case) -> dict[str, Any]:
    """Size and channels of the image, and classes."""
    (x,) = case.inputs().values()
    head = _find(case, r"^(head|mlp_head\.1)\.weight$")
    return {
        "img_size": _side(case.built_with.get("img_size", x.shape[-1])),
        "in_channels": x.shape[1],
        "num_classes": head[0] if head else 0,
    }


def _patch_size(case: Case, channels: int) -> int:
    """Side of a patch: of the kernel, or of what a linear layer takes."""
    shape = _shape(case, r"^(to_patch_embedding\.\d+|patch_embed\.proj)\.weight$")
    return shape[-1] if len(shape) == 4 else math.isqrt(shape[1] // channels)


@adapter(SYSTEM, r"(?i)gmm\.py ")
@torch.no_grad()
def _run_mask(case: Case) -> dict[str, Tensor]:
    scores = next(iter(case.inputs().values()))
    size = square_grid(scores.shape[-1])
    tensors = {name.rsplit(".", 1)[-1]: tensor for name, tensor in case.state_dict().items()}
    mask: GaussianMixtureMask | LearnedMask = LearnedMask(size)
    if "sigma" in tensors:
        kernels, heads = tensors["sigma"].shape[:2]
        mask = GaussianMixtureMask(heads, kernels, published_underflow=True)
    place(mask, tensors)
    weights = mask(size)
    return {"base": _base(size), "weights": weights, "masked_scores": weights * scores}


def _base(size: Grid) -> Tensor:
    """The Gaussian of width 1 over all pairs, (N, N)."""
    mask = GaussianMixtureMask(1, 1)
    torch.nn.init.ones_(mask.sigma)
    torch.nn.init.ones_(mask.alpha)
    return mask(size)[0]


@adapter(SYSTEM, r"(?i)swin\w*\.py ")
@torch.no_grad()
def _run_swin(case: Case) -> dict[str, Tensor]:
    stages = _count(case, r"^layers\.(\d+)\.")
    dims = [_shape(case, rf"^layers\.{stage}\.blocks\.0\.norm1\.weight")[0] for stage in range(stages)]
    tables = [
        _shape(case, rf"^layers\.{stage}\.blocks\.0\.attn\.{swin.BIAS_TABLE}$") for stage in range(stages)
    ]
    arch = {
        "embed_dim": dims[0],
        "depths": [_count(case, rf"^layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)],
        "num_heads": [table[1] for table in tables],
        "window_size": (square_grid(tables[0][0])[0] + 1) // 2,
        "mlp_ratio": _shape(case, r"^layers\.0\.blocks\.0\.mlp\.fc1\.weight")[0] / dims[0],
    }
    image = _image(case)
    model = swin.MaskedSwinClassifier(
        arch, patch_size=_patch_size(case, image["in_channels"]), **image, **_mask(case)
    )
    return run_classifier(model, case)


@adapter(SYSTEM, r"(?i)cait\w*\.py ")
@torch.no_grad()
def _run_cait(case: Case) -> dict[str, Tensor]:
    num_heads = _shape(case, r"mix_heads_pre_attn$")[0]
    arch = {
        "embed_dim": _shape(case, r"^cls_token$")[2],
        "depth": _count(case, r"^patch_transformer\.layers\.(\d+)\."),
        "cls_depth": _count(case, r"^cls_transformer\.layers\.(\d+)\."),
        "num_heads": num_heads,
        "head_dim": _shape(case, r"\.to_q\.weight$")[0] // num_heads,
        "hidden_dim": _shape(case, r"\.net\.0\.weight$")[0],
    }
    image = _image(case)
    model = cait.MaskedCaiTClassifier(
        arch, patch_size=_patch_size(case, image["in_channels"]), **image, **_mask(case)
    )
    return run_classifier(model, case)


@adapter(SYSTEM, r"(?i)\bpit\w*\.py ")
@torch.no_grad()
def _run_pit(case: Case) -> dict[str, Tensor]:
    dim = _shape(case, r"^cls_token$")[2]
    stages = _count(case, r"^layers\.(\d+)\.layers\.")
    given = _one_a_stage(case.built_with.get("heads", 0), stages)
    sigmas = [_find(case, rf"^layers\.{2 * stage}\.layers\..*sigma$") for stage in range(stages)]
    num_heads = [sigma[1] if sigma else heads for sigma, heads in zip(sigmas, given, strict=True)]
    arch = {
        "embed_dim": dim,
        "depths": [_count(case, rf"^layers\.{2 * stage}\.layers\.(\d+)\.") for stage in range(stages)],
        "num_heads": num_heads,
        "head_dim": _shape(case, r"\.to_qkv\.weight$")[0] // (3 * num_heads[0]),
        "mlp_ratio": _shape(case, r"\.net\.0\.weight$")[0] / dim,
    }
    image = _image(case)
    model = pit.MaskedPiTClassifier(
        arch, patch_size=_patch_size(case, image["in_channels"]), **image, **_mask(case)
    )
    return run_classifier(model, case)


@adapter(SYSTEM, r"(?i)\bt2t\w*\.py ")
@torch.no_grad()
def _run_t2t(case: Case) -> dict[str, Tensor]:
    dim, width = _shape(case, r"tokens_to_token\.project\.weight$")
    arch = {
        "embed_dim": dim,
        "depth": _count(case, r"^blocks\.(\d+)\."),
        "num_heads": _heads(case, r"^blocks\."),
        "mlp_ratio": _shape(case, r"^blocks\.0\.mlp\.fc1\.weight$")[0] / dim,
        "token_dim": width // t2t.PIXELS,
    }
    splits = 1 + _count(case, r"^tokens_to_token\.attention(\d+)\.")
    return run_classifier(t2t.MaskedT2TClassifier(arch, splits=splits, **_image(case), **_mask(case)), case)


@adapter(SYSTEM, r"(?i)\bvit\w*\.py ")
@torch.no_grad()
def _run_vit(case: Case) -> dict[str, Tensor]:
    inner, dim = _shape(case, r"\.to_qkv\.weight$")
    num_heads = _heads(case, r"^transformer\.")
    arch = {
        "embed_dim": dim,
        "depth": _count(case, r"^transformer\.layers\.(\d+)\."),
        "num_heads": num_heads,
        "head_dim": inner // (3 * num_heads),
        "mlp_ratio": _shape(case, r"\.net\.0\.weight$")[0] / dim,
    }
    image = _image(case)
    model = vit.MaskedViTClassifier(
        arch, patch_size=_patch_size(case, image["in_channels"]), **image, **_mask(case)
    )
    return run_classifier(model, case)
