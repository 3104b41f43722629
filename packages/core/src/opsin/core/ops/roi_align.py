"""RoIAlign: bilinear samples inside the bins of each region, averaged (or their maximum).

Mask R-CNN, arXiv:1703.06870. Maps are (B, C, H, W), regions (N, 5) as image index, x1, y1, x2, y2 in pixels
of the picture, results (N, C, bins_y, bins_x).

What a naive reading misses: with `aligned` the corners are shifted by half a cell after scaling, without it
regions are at least one cell wide and high; a sample outside [-1, H] x [-1, W] counts as 0 in the average,
one between -1 and 0 or beyond the last cell takes the border's value; `sampling_ratio` 0 means ceil(region /
bins) samples along each axis of each bin, which differs from region to region.

The average is separable: a bin is `Wy @ map @ Wx'` with `Wy`, `Wx` the summed weights of its samples along
each axis. The CPU kernel and the PyTorch path both use that; the GPU kernel and the reference take each
sample for itself.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from opsin.core.ops import kernels, triton_kernels
from opsin.core.ops.bilinear import axis_corners, bilinear_sample

Pair = int | tuple[int, int] | list[int]
MIN_BLOCK, MAX_BLOCK = 8, 64  # channels that a kernel works on at once
CHUNK_NUMBERS = 1 << 24  # numbers that the PyTorch paths hold at once (64 MiB of floats)


def roi_align(
    x: Tensor,
    rois: Tensor,
    output_size: Pair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    pool_mode: str = "avg",
    aligned: bool = True,
) -> Tensor:
    """Pools each region of `x` into a grid of bins.

    Args:
        x: (B, C, H, W); differentiable.
        rois: (N, 5) image index, x1, y1, x2, y2.
        output_size: bins along y and x.
        spatial_scale: cells per pixel, 1 / stride.
        sampling_ratio: samples of a bin along each axis; 0: as many as it takes to have one a cell.
        pool_mode: `avg` or `max`.
        aligned: shift by half a cell, so that sample (i, j) of a region at full scale is cell (i, j).

    Returns:
        (N, C, bins_y, bins_x).

    Raises:
        ValueError: if `pool_mode` is unknown; on the CPU also if an aligned region has a negative extent, or
            its image index is none (0 is what Triton pools then). A region with a corner that is NaN pools 0.
    """
    return roi_align_with_argmax(x, rois, output_size, spatial_scale, sampling_ratio, pool_mode, aligned)[0]


def roi_align_with_argmax(
    x: Tensor,
    rois: Tensor,
    output_size: Pair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    pool_mode: str = "avg",
    aligned: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """`roi_align`, and for `max` the row and column of the sample behind each maximum (-2: there is none)."""
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    settings = (bins_y, bins_x, float(spatial_scale), int(sampling_ratio), bool(aligned))
    if pool_mode == "avg":
        return _average(x, rois, *settings), None, None
    if pool_mode == "max":
        values, best_y, best_x = _maximum(x, rois, *settings)
        return values, best_y, best_x
    raise ValueError(f"roi_align: pool_mode {pool_mode!r} is neither 'avg' nor 'max'")


def roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    shape: list[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    best: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The gradient of the map.

    Args:
        grad: (N, C, bins_y, bins_x) of the output.
        rois: as in `roi_align`, and so are spatial_scale, sampling_ratio and aligned.
        shape: of the map, (B, C, H, W).
        spatial_scale: see rois.
        sampling_ratio: see rois.
        aligned: see rois.
        best: rows and columns of the maxima, where the forward was a maximum.
    """
    if best is not None:
        return _maximum_backward(grad, rois, *best, shape)
    settings = (grad.shape[2], grad.shape[3], float(spatial_scale), int(sampling_ratio), bool(aligned))
    return _average_backward(grad, rois, shape, *settings)


def roi_align_reference(
    x: Tensor,
    rois: Tensor,
    output_size: Pair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    pool_mode: str = "avg",
    aligned: bool = True,
) -> Tensor:
    """The definition of `roi_align`, region by region and sample by sample."""
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    pooled = [x.new_zeros(0, x.shape[1], bins_y, bins_x)]
    grid = _grid(rois, bins_y, bins_x, spatial_scale, sampling_ratio, aligned)
    for image, start, bin_size, samples in zip(*grid, strict=True):
        count_y, count_x = samples.clamp(min=0).tolist()
        if count_y * count_x == 0:
            pooled.append(x.new_zeros(1, x.shape[1], bins_y, bins_x))
            continue
        y = _places(start[0], bin_size[0], bins_y, count_y)[:, None, :, None]
        x_ = _places(start[1], bin_size[1], bins_x, count_x)[None, :, None, :]
        values = bilinear_sample(x[image], y, x_, border=True)
        pooled.append((values.mean((-2, -1)) if pool_mode == "avg" else values.amax((-2, -1)))[None])
    return torch.cat(pooled)


def _grid(
    rois: Tensor, bins_y: int, bins_x: int, scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image index (N,), and along (y, x): start (N, 2) and bin size (N, 2) in cells, samples a bin (N, 2)."""
    offset = 0.5 if aligned else 0.0
    start = rois[:, [2, 1]] * scale - offset
    size = rois[:, [4, 3]] * scale - offset - start
    if not aligned:
        size = size.clamp(min=1.0)
    elif size.device.type == "cpu" and bool((size < 0).any()):
        bad = int((size < 0).any(1).nonzero()[0, 0])
        raise ValueError(f"roi_align: region {bad} {rois[bad].tolist()} has a negative width or height")
    bin_size = size / torch.tensor([bins_y, bins_x], dtype=size.dtype, device=size.device)
    samples = torch.full_like(size, sampling_ratio) if sampling_ratio > 0 else bin_size.ceil()
    return rois[:, 0].long(), start, bin_size, samples.long()


def _places(start: Tensor, bin_size: Tensor, bins: int, samples: int) -> Tensor:
    """Where the samples of each bin lie along one axis, (bins, samples)."""
    within = (torch.arange(samples, device=start.device, dtype=start.dtype) + 0.5) / samples
    return start + bin_size * (torch.arange(bins, device=start.device, dtype=start.dtype)[:, None] + within)


def _axis_weights(start: Tensor, bin_size: Tensor, samples: Tensor, bins: int, length: int) -> Tensor:
    """Weight of each cell of one axis in each bin's mean, (N, bins, length)."""
    most = int(samples.max()) if len(samples) else 0
    index = torch.arange(most, device=start.device)
    within = (index + 0.5) / samples[:, None].clamp(min=1)
    steps = torch.arange(bins, device=start.device, dtype=start.dtype)[:, None] + within[:, None, :].to(
        start.dtype
    )
    places = start[:, None, None] + bin_size[:, None, None] * steps
    low, high, rest, inside = axis_corners(places, length, border=True)
    inside = inside & (index < samples[:, None, None])
    share = inside.to(start.dtype) / samples[:, None, None].clamp(min=1)
    weights = start.new_zeros(*places.shape[:2], length)
    return weights.scatter_add_(2, low, (1 - rest) * share).scatter_add_(2, high, rest * share)


def _separable(
    rois: Tensor, shape: torch.Size, settings: tuple[int, int, float, int, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Image index (N,), `Wy` (N, bins_y, H) and `Wx` (N, bins_x, W) of the PyTorch path."""
    image, start, bin_size, samples = _grid(rois, *settings)
    weights_y = _axis_weights(start[:, 0], bin_size[:, 0], samples[:, 0], settings[0], shape[2])
    return image, weights_y, _axis_weights(start[:, 1], bin_size[:, 1], samples[:, 1], settings[1], shape[3])


def _blocked(x: Tensor) -> Tensor:
    """Channels cut into blocks, (B, blocks, C / blocks, ...); all in one where no size divides them."""
    sizes = [size for size in range(MIN_BLOCK, MAX_BLOCK + 1) if x.shape[1] % size == 0]
    return x.unflatten(1, (-1, max(sizes, default=max(1, x.shape[1]))))


def _contiguous_grid(
    rois: Tensor, settings: tuple[int, int, float, int, bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    image, start, bin_size, samples = _grid(rois, *settings)
    return image.contiguous(), start.contiguous(), bin_size.contiguous(), samples.contiguous()


def _average_on_gpu(x: Tensor, rois: Tensor, settings: tuple[int, int, float, int, bool]) -> Tensor:
    from opsin.core.ops.triton_kernels.roi_align import forward

    pooled = x.new_zeros(len(rois), *settings[:2], x.shape[1])
    if x.numel():
        forward(x.permute(0, 2, 3, 1).contiguous(), *_contiguous_grid(rois, settings), pooled)
    return pooled.permute(0, 3, 1, 2).contiguous()


def _average_backward_on_gpu(
    grad: Tensor, rois: Tensor, shape: list[int], settings: tuple[int, int, float, int, bool]
) -> Tensor:
    from opsin.core.ops.triton_kernels.roi_align import backward

    batch, channels, height, width = shape
    grad_maps = grad.new_zeros(batch, height, width, channels)
    if grad_maps.numel():
        backward(grad.permute(0, 2, 3, 1).contiguous(), *_contiguous_grid(rois, settings), grad_maps)
    return grad_maps.permute(0, 3, 1, 2).contiguous()


def _check_images(rois: Tensor, images: int) -> None:
    """Kernels do not check their indices, so the image of each region is checked here (on the CPU)."""
    if rois.device.type == "cpu" and bool(((rois[:, 0] < 0) | (rois[:, 0] >= images)).any()):
        raise ValueError(f"roi_align: image indices {rois[:, 0].unique().tolist()} of a batch of {images}")


@torch.library.custom_op("opsin::roi_align", mutates_args=())
def _average(
    x: Tensor,
    rois: Tensor,
    bins_y: int,
    bins_x: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    _check_images(rois, len(x))
    settings = (bins_y, bins_x, spatial_scale, sampling_ratio, aligned)
    dtype = kernels.working_dtype(x.dtype)
    out = torch.zeros(len(rois), x.shape[1], bins_y, bins_x, dtype=dtype, device=x.device)
    x_, rois_ = x.detach().to(dtype), rois.detach().to(dtype)
    if triton_kernels.enabled(x, rois):
        return _average_on_gpu(x_, rois_, settings).to(x.dtype)
    if kernels.enabled(x, rois):
        from opsin.core.ops.kernels.roi_align import forward

        maps = kernels.array(_blocked(x_).permute(0, 1, 3, 4, 2))
        pooled = out.view(len(rois), maps.shape[1], maps.shape[4], bins_y, bins_x)
        grid = map(kernels.array, _contiguous_grid(rois_, settings))
        kernels.run(forward, maps.shape[1], maps, *grid, pooled.numpy())
        return out.to(x.dtype)
    image, weights_y, weights_x = _separable(rois_, x.shape, settings)
    for b, part in _chunks(image, x.shape):
        rows = torch.einsum("niy,cyx->ncix", weights_y[part], x_[b])
        out[part] = torch.einsum("ncix,njx->ncij", rows, weights_x[part])
    return out.to(x.dtype)


def _chunks(image: Tensor, shape: torch.Size) -> list[tuple[int, Tensor]]:
    """Regions of one image, few enough to keep the PyTorch path's memory bounded: (image, indices) pairs."""
    step = max(1, CHUNK_NUMBERS // max(1, math.prod(shape[1:]) // 8))
    chunks = []
    for b in image.unique().tolist():
        chunks += [(b, part) for part in torch.nonzero(image == b).squeeze(1).split(step)]
    return chunks


@torch.library.custom_op("opsin::roi_align_backward", mutates_args=())
def _average_backward(
    grad: Tensor,
    rois: Tensor,
    shape: list[int],
    bins_y: int,
    bins_x: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    _check_images(rois, shape[0])
    settings = (bins_y, bins_x, spatial_scale, sampling_ratio, aligned)
    dtype = kernels.working_dtype(grad.dtype)
    grad_, rois_ = grad.detach().to(dtype), rois.detach().to(dtype)
    batch, _, height, width = shape
    if triton_kernels.may_scatter(grad, rois):
        return _average_backward_on_gpu(grad_, rois_, shape, settings).to(grad.dtype)
    if kernels.enabled(grad, rois):
        from opsin.core.ops.kernels.roi_align import backward

        out = kernels.array(_blocked(grad_))
        _, blocks, width_c, *_ = out.shape
        grad_maps = torch.zeros(batch, blocks, height, width, width_c, dtype=dtype)
        grid = map(kernels.array, _contiguous_grid(rois_, settings))
        kernels.run(backward, blocks, out, *grid, grad_maps.numpy())
        return grad_maps.permute(0, 1, 4, 2, 3).reshape(shape).to(grad.dtype).contiguous()
    grad_x = torch.zeros(shape, dtype=dtype, device=grad.device)
    image, weights_y, weights_x = _separable(rois_, grad_x.shape, settings)
    for b, part in _chunks(image, grad_x.shape):
        rows = torch.einsum("ncij,njx->ncix", grad_[part], weights_x[part])
        grad_x[b] += torch.einsum("niy,ncix->cyx", weights_y[part], rows)
    return grad_x.to(grad.dtype)


def _fill_maximum(
    x: Tensor,
    rois: Tensor,
    settings: tuple[int, int, float, int, bool],
    values: Tensor,
    best_y: Tensor,
    best_x: Tensor,
) -> None:
    """The PyTorch path of `_maximum`: region by region, every sample of all channels at once."""
    bins_y, bins_x = settings[:2]
    grid = _grid(rois, *settings)
    for n, (image, start, bin_size, samples) in enumerate(zip(*grid, strict=True)):
        count_y, count_x = samples.clamp(min=0).tolist()
        if count_y * count_x == 0:
            continue
        y, places_x = (
            _places(start[0], bin_size[0], bins_y, count_y),
            _places(start[1], bin_size[1], bins_x, count_x),
        )
        sampled = bilinear_sample(x[image], y[:, None, :, None], places_x[None, :, None, :], border=True)
        values[n], at = sampled.flatten(-2).max(-1)
        rows = torch.arange(bins_y, device=x.device)[:, None]
        best_y[n], best_x[n] = (
            y[rows, at // count_x],
            places_x[torch.arange(bins_x, device=x.device), at % count_x],
        )


@torch.library.custom_op("opsin::roi_align_max", mutates_args=())
def _maximum(
    x: Tensor,
    rois: Tensor,
    bins_y: int,
    bins_x: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest sample of each bin and where it lies: values, y and x in cells (-2: no sample at all)."""
    _check_images(rois, len(x))
    dtype = kernels.working_dtype(x.dtype)
    x_, rois_ = x.detach().to(dtype), rois.detach().to(dtype)
    values = torch.zeros(len(rois), x.shape[1], bins_y, bins_x, dtype=dtype, device=x.device)
    best_y, best_x = torch.full_like(values, -2.0), torch.full_like(values, -2.0)
    settings = (bins_y, bins_x, spatial_scale, sampling_ratio, aligned)
    if kernels.enabled(x, rois):
        from opsin.core.ops.kernels.roi_align_max import forward

        written = (values.numpy(), best_y.numpy(), best_x.numpy())
        grid = map(kernels.array, _contiguous_grid(rois_, settings))
        kernels.run(forward, len(rois), kernels.array(x_.permute(0, 2, 3, 1)), *grid, *written)
    else:
        _fill_maximum(x_, rois_, settings, values, best_y, best_x)
    return values.to(x.dtype), best_y, best_x


@torch.library.custom_op("opsin::roi_align_max_backward", mutates_args=())
def _maximum_backward(grad: Tensor, rois: Tensor, best_y: Tensor, best_x: Tensor, shape: list[int]) -> Tensor:
    batch, channels, height, width = shape
    if kernels.enabled(grad, rois):
        from opsin.core.ops.kernels.roi_align_max import backward

        grad_maps = torch.zeros(shape, dtype=best_y.dtype)
        read = map(kernels.array, (grad.to(best_y.dtype), rois[:, 0].long(), best_y, best_x))
        kernels.run(backward, channels, *read, grad_maps.numpy())
        return grad_maps.to(grad.dtype)
    low_y, high_y, rest_y, inside_y = axis_corners(best_y, height, border=True)
    low_x, high_x, rest_x, inside_x = axis_corners(best_x, width, border=True)
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=grad.device)
    grad_x = best_y.new_zeros(batch * channels * height * width)
    weighted = grad * (inside_y & inside_x)
    for y, weight_y in ((low_y, 1 - rest_y), (high_y, rest_y)):
        for x, weight_x in ((low_x, 1 - rest_x), (high_x, rest_x)):
            at = (plane[:, :, None, None] * height + y) * width + x
            grad_x.index_add_(0, at.flatten(), (weighted * weight_y * weight_x).flatten())
    return grad_x.view(shape).to(grad.dtype)


@_average.register_fake
def _average_fake(x: Tensor, rois: Tensor, bins_y: int, bins_x: int, *_: object) -> Tensor:
    return x.new_empty(rois.shape[0], x.shape[1], bins_y, bins_x)


@_maximum.register_fake
def _maximum_fake(
    x: Tensor, rois: Tensor, bins_y: int, bins_x: int, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    values = x.new_empty(rois.shape[0], x.shape[1], bins_y, bins_x)
    place = torch.empty_like(values, dtype=kernels.working_dtype(x.dtype))
    return values, place, torch.empty_like(place)


@_average_backward.register_fake
def _average_backward_fake(grad: Tensor, rois: Tensor, shape: list[int], *_: object) -> Tensor:
    return grad.new_empty(shape)


@_maximum_backward.register_fake
def _maximum_backward_fake(
    grad: Tensor, rois: Tensor, best_y: Tensor, best_x: Tensor, shape: list[int]
) -> Tensor:
    return grad.new_empty(shape)


def _average_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, rois, *ctx.settings = inputs
    ctx.shape = x.shape
    ctx.save_for_backward(rois)


def _average_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (rois,) = ctx.saved_tensors
    return _average_backward(grad, rois, ctx.shape, *ctx.settings), *(None,) * 6


def _maximum_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, rois, *_ = inputs
    ctx.shape = x.shape
    ctx.save_for_backward(rois, output[1], output[2])


def _maximum_vjp(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return _maximum_backward(grad, *ctx.saved_tensors, ctx.shape), *(None,) * 6


_average.register_autograd(_average_vjp, setup_context=_average_context)
_maximum.register_autograd(_maximum_vjp, setup_context=_maximum_context)
