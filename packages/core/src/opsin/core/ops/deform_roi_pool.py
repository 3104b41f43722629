"""Deformable RoI pooling: RoIAlign's average, each bin moved by its own learned offset.

DCNv1, arXiv:1703.06211. Maps are (B, C, H, W), regions (N, 5) as image index, x1, y1, x2, y2 in pixels,
offsets (N, 2, bins_y, bins_x) as x then y, in units of gamma times the region's width and height.

Corners are shifted by half a cell, as in RoIAlign's aligned form; a negative extent pools nothing. Where a
sample is clamped to the border its offset has no gradient along that axis (mmcv's kernel gives one there all
the same). Region by region, of differentiable calls: it is its own reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opsin.core.ops.bilinear import bilinear_sample

Pair = int | tuple[int, int] | list[int]


def deform_roi_pool(
    x: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: Pair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """Average-pools each region of `x` into moved bins; differentiable in `x` and `offset`.

    Args:
        x: (B, C, H, W).
        rois: (N, 5) image index, x1, y1, x2, y2.
        offset: (N, 2, bins_y, bins_x), x then y; None moves nothing.
        output_size: bins along y and x.
        spatial_scale: cells per pixel, 1 / stride.
        sampling_ratio: samples of a bin along each axis; 0: as many as it takes to have one a cell.
        gamma: offset of 1 in region widths and heights.

    Returns:
        (N, C, bins_y, bins_x).
    """
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    pooled = [x.new_zeros(0, x.shape[1], bins_y, bins_x)]
    corners = rois[:, 1:].to(x.dtype) * spatial_scale - 0.5
    for n, image in enumerate(rois[:, 0].long().tolist()):
        left, top, right, bottom = corners[n]
        bin_h, bin_w = (bottom - top) / bins_y, (right - left) / bins_x
        count_y, count_x = (sampling_ratio or int(extent.ceil()) for extent in (bin_h, bin_w))
        if count_y <= 0 or count_x <= 0:
            pooled.append(x.new_zeros(1, x.shape[1], bins_y, bins_x))
            continue
        y = top + bin_h * _steps(bins_y, count_y, x)[:, None, :, None]
        x_ = left + bin_w * _steps(bins_x, count_x, x)[None, :, None, :]
        if offset is not None:
            x_ = x_ + gamma * (right - left) * offset[n, 0, :, :, None, None]
            y = y + gamma * (bottom - top) * offset[n, 1, :, :, None, None]
        pooled.append(bilinear_sample(x[image], y, x_, border=True).mean((-2, -1))[None])
    return torch.cat(pooled)


def _steps(bins: int, samples: int, like: Tensor) -> Tensor:
    """Where the samples of each bin lie along one axis, in bins: (bins, samples)."""
    within = (torch.arange(samples, device=like.device, dtype=like.dtype) + 0.5) / samples
    return torch.arange(bins, device=like.device, dtype=like.dtype)[:, None] + within
