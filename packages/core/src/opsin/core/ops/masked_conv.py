"""Masked convolution: an ordinary convolution computed only where a mask says so, 0 elsewhere.

Used by guided anchoring (arXiv:1901.03278) at inference. Stride 1, one image: (1, C, H, W) in, (1, O, H', W')
out with H' = H + 2·padding - kernel + 1. Windows of the chosen places are gathered into columns and
multiplied at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = int | tuple[int, int] | list[int]


def masked_conv2d(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, padding: Pair = 0
) -> Tensor:
    """Convolution at the places where `mask` is positive; differentiable in `x`, `weight` and `bias`.

    Args:
        x: (1, C, H, W).
        mask: (1, H', W').
        weight: (O, C, kernel_h, kernel_w).
        bias: (O,).
        padding: along y and x.

    Returns:
        (1, O, H', W'), 0 where the mask is not positive.
    """
    pad = (padding, padding) if isinstance(padding, int) else (padding[0], padding[1])
    rows, columns = torch.nonzero(mask[0] > 0, as_tuple=True)
    kernel = (weight.shape[2], weight.shape[3])
    values = weight.flatten(1) @ masked_im2col(x, rows, columns, kernel, pad)
    if bias is not None:
        values = values + bias[:, None]
    height, width = (x.shape[2 + axis] + 2 * pad[axis] - kernel[axis] + 1 for axis in (0, 1))
    return masked_col2im(values, rows, columns, (height, width))


def masked_conv2d_reference(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, padding: Pair = 0
) -> Tensor:
    """The definition of `masked_conv2d`: the convolution everywhere, then the mask."""
    return F.conv2d(x, weight, bias, padding=padding) * (mask > 0)


def masked_im2col(
    x: Tensor, rows: Tensor, columns: Tensor, kernel: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The windows at (rows, columns), each (P,), of `x` (1, C, H, W): (C * kernel_h * kernel_w, P)."""
    padded = F.pad(x[0], (padding[1], padding[1], padding[0], padding[0]))
    tap_y = torch.arange(kernel[0], device=x.device)[:, None, None]
    tap_x = torch.arange(kernel[1], device=x.device)[:, None]
    return padded[:, rows + tap_y, columns + tap_x].flatten(0, 2)


def masked_col2im(values: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (1, O, *size) that is `values` (O, P) at (rows, columns) and 0 elsewhere."""
    flat = values.new_zeros(len(values), size[0] * size[1])
    return flat.index_copy(1, rows * size[1] + columns, values).view(1, len(values), *size)
