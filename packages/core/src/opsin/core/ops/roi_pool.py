"""RoIPool: the maximum over whole cells of each bin of a region.

Fast R-CNN, arXiv:1504.08083. Maps are (B, C, H, W), regions (N, 5) as image index, x1, y1, x2, y2 in pixels
of the picture, results (N, C, bins_y, bins_x).

Two definitions are in use. `roi_pool` is the paper's and torchvision's: corners are rounded to cells (half
away from zero), both belong to the region, which is at least one cell wide. mmcv's op (`edges="continuous"`)
does not round: the region ends one pixel further, and bins take every cell that they touch. Both cut bins at
the map's border; an empty bin gives 0.

Cells are gathered into a table of (bins, cells per bin), one region at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from opsin.core.ops import kernels

Pair = int | tuple[int, int] | list[int]
EDGES = ("rounded", "continuous")


def roi_pool(
    x: Tensor, rois: Tensor, output_size: Pair, spatial_scale: float = 1.0, edges: str = "rounded"
) -> Tensor:
    """Pools each region of `x` into a grid of bins by maximum.

    Args:
        x: (B, C, H, W); differentiable.
        rois: (N, 5) image index, x1, y1, x2, y2.
        output_size: bins along y and x.
        spatial_scale: cells per pixel, 1 / stride.
        edges: `rounded` (Fast R-CNN, torchvision) or `continuous` (mmcv).

    Returns:
        (N, C, bins_y, bins_x).

    Raises:
        ValueError: if `edges` is unknown.
    """
    return roi_pool_with_argmax(x, rois, output_size, spatial_scale, edges)[0]


def roi_pool_with_argmax(
    x: Tensor, rois: Tensor, output_size: Pair, spatial_scale: float = 1.0, edges: str = "rounded"
) -> tuple[Tensor, Tensor]:
    """`roi_pool`, and the flat cell (y * W + x) behind each maximum, int32, -1 where a bin is empty."""
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    if edges not in EDGES:
        raise ValueError(f"roi_pool: edges {edges!r} is none of {', '.join(EDGES)}")
    pooled, argmax = _pool(
        x, rois.to(kernels.working_dtype(x.dtype)), bins_y, bins_x, float(spatial_scale), edges
    )
    return pooled, argmax


def roi_pool_reference(
    x: Tensor, rois: Tensor, output_size: Pair, spatial_scale: float = 1.0, edges: str = "rounded"
) -> Tensor:
    """The definition of `roi_pool`, bin by bin."""
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    rows = _edges(rois[:, 2], rois[:, 4], bins_y, x.shape[2], spatial_scale, edges)
    columns = _edges(rois[:, 1], rois[:, 3], bins_x, x.shape[3], spatial_scale, edges)
    bins = []
    for n, image in enumerate(rois[:, 0].long().tolist()):
        for i in range(bins_y):
            for j in range(bins_x):
                (top, bottom), (left, right) = rows[n, i].tolist(), columns[n, j].tolist()
                cells = x[image, :, top:bottom, left:right].flatten(1)
                bins.append(cells.amax(1) if cells.numel() else x.new_zeros(x.shape[1]))
    if not bins:
        return x.new_zeros(0, x.shape[1], bins_y, bins_x)
    return torch.stack(bins).view(len(rois), bins_y, bins_x, -1).permute(0, 3, 1, 2)


def _edges(low: Tensor, high: Tensor, bins: int, length: int, scale: float, edges: str) -> Tensor:
    """First cell and the one after the last of each bin along one axis, (N, bins, 2)."""
    index = torch.arange(bins + 1, device=low.device)
    if edges == "rounded":
        start, end = _round_away(low * scale), _round_away(high * scale)
        bin_size = (end - start + 1).clamp(min=1) / bins
        places = bin_size[:, None] * index
        first, last = places[:, :-1].floor() + start[:, None], places[:, 1:].ceil() + start[:, None]
    else:
        start = low * scale
        extent = (high + 1) * scale - start
        places = (extent / bins)[:, None] * index + start[:, None]
        first, last = places[:, :-1].floor(), places[:, 1:].ceil()
        last = torch.where(extent[:, None] > 0, last, first)
    return torch.stack([first, last], -1).clamp(0, length).long()


def _round_away(values: Tensor) -> Tensor:
    return values.sign() * (values.abs() + 0.5).floor()


def _cells(edges: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Cells of each bin along one axis (bins, most), padded with any cell, and which of them are its own."""
    count = edges[..., 1] - edges[..., 0]
    step = torch.arange(max(1, int(count.max()) if count.numel() else 1), device=edges.device)
    return (edges[..., :1] + step).clamp(max=length - 1), step < count[..., None]


@torch.library.custom_op("opsin::roi_pool", mutates_args=())
def _pool(
    x: Tensor, rois: Tensor, bins_y: int, bins_x: int, spatial_scale: float, edges: str
) -> tuple[Tensor, Tensor]:
    _, channels, height, width = x.shape
    pooled = x.new_zeros(len(rois), channels, bins_y, bins_x)
    argmax = x.new_full(pooled.shape, -1, dtype=torch.int32)
    maps = x.detach().flatten(2)
    rows = _edges(rois[:, 2], rois[:, 4], bins_y, height, spatial_scale, edges)
    columns = _edges(rois[:, 1], rois[:, 3], bins_x, width, spatial_scale, edges)
    for n, image in enumerate(rois[:, 0].long().tolist()):
        y, own_y = _cells(rows[n], height)
        x_, own_x = _cells(columns[n], width)
        flat = (y[:, None, :, None] * width + x_[None, :, None, :]).flatten(2)
        own = (own_y[:, None, :, None] & own_x[None, :, None, :]).flatten(2)
        values, at = maps[image][:, flat].masked_fill(~own, -torch.inf).max(-1)
        some = own.any(-1)
        pooled[n] = torch.where(some, values, 0.0)
        cell = flat.expand(channels, -1, -1, -1).gather(-1, at[..., None])[..., 0]
        argmax[n] = torch.where(some, cell, -1).int()
    return pooled, argmax


@torch.library.custom_op("opsin::roi_pool_backward", mutates_args=())
def roi_pool_backward(grad: Tensor, rois: Tensor, argmax: Tensor, shape: list[int]) -> Tensor:
    """Sends each bin's gradient to the cell that gave its maximum.

    Args:
        grad: (N, C, bins_y, bins_x).
        rois: (N, 5); only the image index is used.
        argmax: like grad, from `roi_pool_with_argmax`.
        shape: of the map, (B, C, H, W).
    """
    batch, channels, height, width = shape
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=grad.device)
    at = plane[:, :, None, None] * (height * width) + argmax.clamp(min=0)
    grad_x = grad.new_zeros(batch * channels * height * width)
    return grad_x.index_add_(0, at.flatten(), (grad * (argmax >= 0)).flatten()).view(shape)


@_pool.register_fake
def _pool_fake(x: Tensor, rois: Tensor, bins_y: int, bins_x: int, *_: object) -> tuple[Tensor, Tensor]:
    pooled = x.new_empty(rois.shape[0], x.shape[1], bins_y, bins_x)
    return pooled, torch.empty_like(pooled, dtype=torch.int32)


@roi_pool_backward.register_fake
def _roi_pool_backward_fake(grad: Tensor, rois: Tensor, argmax: Tensor, shape: list[int]) -> Tensor:
    return grad.new_empty(shape)


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, rois, *_ = inputs
    ctx.shape = list(x.shape)
    ctx.save_for_backward(rois, output[1])


def _vjp(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    rois, argmax = ctx.saved_tensors
    return roi_pool_backward(grad, rois, argmax, ctx.shape), *(None,) * 5


_pool.register_autograd(_vjp, setup_context=_context)
