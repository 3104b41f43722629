"""What multiplies the logits of attention: a mixture of Gaussians of the tokens' distance, or a free table.

The mixture has weights W[h, i, j] = sum over k of alpha[k, h] * exp(-d2(i, j) / (2 (sigma[k, h]^2 + 1e-5))),
where d2 is the squared distance of tokens i and j on their grid of h rows and w columns, row by row. W
depends on the rows and the columns between two tokens alone, so h * w values a head are computed, once for
each kernel, and spread over the N x N pairs.

What a naive reading gets wrong: W multiplies the logits before the softmax, so a far token keeps the logit 0
and with it a share of the attention; alpha is any number, so W may be negative or above 1; sigma may be
negative; each head of each layer has its own K sigmas and alphas.

As published, exp(-d2 / 2) is rounded to float32 before its power is taken, and is 0 from d2 = 208 on however
wide the Gaussian: that is the switch `published_underflow`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.registry import MODELS

Grid = tuple[int, int]
MaskKind = Literal["gmm", "elm", "none"]
MASKS = ("gmm", "elm", "none")
EPS = 1e-5


def log_base(size: Grid, *, underflow: bool = False, device: torch.device | None = None) -> Tensor:
    """-d2 / 2 for tokens that are so many rows and columns apart, (h, w).

    Args:
        size: rows h and columns w of the grid.
        underflow: whether exp of it is rounded to float32, so that it is -inf where that is 0.
        device: where the table shall be.
    """
    rows, columns = (torch.arange(side, device=device, dtype=torch.float32) for side in size)
    exponent = -(rows[:, None].square() + columns.square()) / 2
    return exponent.double().exp().float().double().log().float() if underflow else exponent


def over_pairs(curves: Tensor, size: Grid) -> Tensor:
    """Values (heads, h, w) for rows and columns apart, to those of all pairs of tokens, (heads, N, N)."""
    height, width = size
    rows, columns = (torch.arange(side, device=curves.device) for side in size)
    rows_apart, columns_apart = ((line[:, None] - line).abs() for line in (rows, columns))
    index = rows_apart[:, None, :, None] * width + columns_apart[:, None, :]  # row, column, row, column
    # gather is two to seven times as fast as indexing by rows and then by columns, forward and backward
    pairs = curves.flatten(1).gather(1, index.flatten().expand(len(curves), -1))
    return pairs.unflatten(1, (height * width, height * width))


@MODELS.register_module()
class GaussianMixtureMask(nn.Module):
    """Weights of all pairs of tokens, a mixture of `num_kernels` Gaussians for each head.

    Args:
        num_heads: heads h.
        num_kernels: Gaussians K of a head.
        published_underflow: whether the weights are 0 from a squared distance of 208 on, as published.

    Raises:
        UserError: if `num_kernels` is below 1.
    """

    def __init__(self, num_heads: int, num_kernels: int = 5, *, published_underflow: bool = False) -> None:
        super().__init__()
        if num_kernels < 1:
            raise UserError(f"num_kernels={num_kernels} of GaussianMixtureMask", "give 1 or more")
        self.published_underflow = published_underflow
        self.sigma = nn.Parameter(10 + 10 * torch.randn(num_kernels, num_heads, 1, 1))
        self.alpha = nn.Parameter(2 * torch.randn(num_kernels, num_heads, 1, 1))

    def curves(self, size: Grid) -> Tensor:
        """(heads, h, w) weights of tokens that are so many rows and columns apart on a grid of `size`."""
        exponent = log_base(size, underflow=self.published_underflow, device=self.sigma.device)
        within = exponent.isfinite()
        # float32 whatever the model's type: a sharp Gaussian's exponent would be infinite in half precision
        power = 1 / (self.sigma.float().square() + EPS)
        mixed = (self.alpha.float() * (power * exponent.where(within, 0.0)).exp()).sum(0)
        return mixed.where(within, 0.0)

    def forward(self, size: Grid) -> Tensor:
        """(heads, N, N) float32 weights of all pairs of tokens of a grid of `size` (h, w), N = h * w."""
        return over_pairs(self.curves(size), size)


@MODELS.register_module()
class LearnedMask(nn.Module):
    """A free weight for every pair of tokens of one grid, shared by the heads and 0 at first ("ELM").

    Args:
        size: rows and columns of the grid.
    """

    def __init__(self, size: Grid) -> None:
        super().__init__()
        self.size = (size[0], size[1])
        tokens = size[0] * size[1]
        self.mask = nn.Parameter(torch.zeros(tokens, tokens))

    def forward(self, size: Grid) -> Tensor:
        """(N, N) weights.

        Raises:
            UserError: for another grid than the mask's.
        """
        if tuple(size) != self.size:
            raise UserError(
                f"a learned mask for {self.size[0]} x {self.size[1]} tokens was given {size[0]} x {size[1]}",
                "it has a weight for every pair of them; use mask='gmm', or images of img_size",
            )
        return self.mask


@dataclass(frozen=True)
class MaskSettings:
    """Which mask a host has in every layer.

    Args:
        kind: 'gmm', 'elm' (a `LearnedMask`), or 'none'.
        num_kernels: Gaussians of a head.
        published_underflow: see `GaussianMixtureMask`.

    Raises:
        UserError: for another kind.
    """

    kind: MaskKind = "gmm"
    num_kernels: int = 5
    published_underflow: bool = False

    def __post_init__(self) -> None:
        if self.kind not in MASKS:
            raise unknown("mask", self.kind, MASKS)

    def make(self, num_heads: int, size: Grid) -> nn.Module | None:
        """The mask of a layer whose images of the usual size have a grid of `size`."""
        if self.kind == "gmm":
            return GaussianMixtureMask(
                num_heads, self.num_kernels, published_underflow=self.published_underflow
            )
        return LearnedMask(size) if self.kind == "elm" else None


def pad_weights(weights: Tensor, outside: int) -> Tensor:
    """Weights (…, N, N) with `outside` tokens before the grid's, whose pairs have weight 1."""
    return nn.functional.pad(weights, (outside, 0, outside, 0), value=1.0) if outside else weights
