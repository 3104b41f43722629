"""Modulated deformable convolution (DCNv2), and its unmodulated form (DCNv1) where the mask is None.

DCNv1, arXiv:1703.06211; DCNv2, arXiv:1811.11168. Each tap of each output place looks at the map where the tap
would lie plus a learned offset, by bilinear interpolation, and the sample is multiplied by a mask; then
follows an ordinary (grouped) convolution. Maps are (B, C, H, W), offsets (B, 2·G·K, out_h, out_w), masks (B,
G·K, out_h, out_w) with G deformable groups, which cut the input channels into equal runs, and K taps, row by
row.

What a naive reading misses: offsets are (y, x) pairs tap by tap; cells outside the map are 0; a sample at -1
or less, or at H or W and beyond, is 0 and has no gradient, which decides the gradient of a fresh layer whose
offsets are 0 and whose padded taps lie exactly at -1.

Computed as columns (every sample of a block of output places) times the weight: the block bounds the memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from opsin.core.ops import kernels, triton_kernels
from opsin.core.ops.bilinear import bilinear_sample
from opsin.core.ops.full_precision import full_precision
from opsin.core.ops.gradients import gradients

Pair = int | tuple[int, int] | list[int]
BLOCK_NUMBERS = 1 << 21  # numbers of the columns held at once on the CPU (8 MiB of floats)
GPU_BLOCK_NUMBERS = 1 << 25


class _Settings(NamedTuple):
    """Stride, padding and dilation along (y, x), convolution groups and deformable groups."""

    stride_y: int
    stride_x: int
    pad_y: int
    pad_x: int
    dilation_y: int
    dilation_x: int
    groups: int
    deform_groups: int

    def output_size(self, x: Tensor, weight: Tensor) -> tuple[int, int]:
        """Height and width of the output."""
        reach_y, reach_x = self.dilation_y * (weight.shape[2] - 1), self.dilation_x * (weight.shape[3] - 1)
        return (
            (x.shape[2] + 2 * self.pad_y - reach_y - 1) // self.stride_y + 1,
            (x.shape[3] + 2 * self.pad_x - reach_x - 1) // self.stride_x + 1,
        )


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def modulated_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Deformable convolution, differentiable in its five tensors.

    Args:
        x: (B, C, H, W).
        offset: (B, 2 * deform_groups * K, out_h, out_w), in cells.
        mask: (B, deform_groups * K, out_h, out_w), or None for 1 everywhere.
        weight: (out, C / groups, kernel_h, kernel_w).
        bias: (out,).
        stride: along y and x, as are padding and dilation.
        padding: see stride.
        dilation: see stride.
        groups: of the convolution.
        deform_groups: of the offsets and the mask.

    Returns:
        (B, out, out_h, out_w).

    Raises:
        ValueError: if channels are not divisible by a group count, or offset or mask has another shape.
    """
    settings = _Settings(*_pair(stride), *_pair(padding), *_pair(dilation), groups, deform_groups)
    _check(x, offset, mask, weight, settings)
    return _convolve(x, offset, mask, weight, bias, list(settings))


def _check(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, settings: _Settings) -> None:
    groups, deform_groups = settings.groups, settings.deform_groups
    if x.shape[1] % groups or x.shape[1] % deform_groups or weight.shape[0] % groups:
        raise ValueError(
            f"deform_conv: {x.shape[1]} channels do not divide into {groups} and {deform_groups} groups"
        )
    if weight.shape[1] * groups != x.shape[1]:
        raise ValueError(
            f"deform_conv: weight {list(weight.shape)} in {groups} groups does not fit {list(x.shape)}"
        )
    taps, size = weight.shape[2] * weight.shape[3], settings.output_size(x, weight)
    for name, tensor, each in (("offset", offset, 2), ("mask", mask, 1)):
        expected = (x.shape[0], each * deform_groups * taps, *size)
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(f"deform_conv: {name} is {list(tensor.shape)} and should be {list(expected)}")


def modulated_deform_conv2d_reference(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """The definition of `modulated_deform_conv2d`, image by image and all samples at once."""
    settings = _Settings(*_pair(stride), *_pair(padding), *_pair(dilation), groups, deform_groups)
    dtype, working = x.dtype, kernels.working_dtype(x.dtype)
    x, offset, weight = x.to(working), offset.to(working), weight.to(working)
    out_h, out_w = settings.output_size(x, weight)
    y, x_ = _tap_places(x, weight, settings)
    taps = weight.shape[2] * weight.shape[3]
    offset = offset.view(len(x), deform_groups, taps, 2, out_h, out_w)
    images = []
    for b in range(len(x)):
        runs = x[b].chunk(deform_groups)
        sampled = [
            bilinear_sample(run, y + offset[b, g, :, 0], x_ + offset[b, g, :, 1], border=False)
            for g, run in enumerate(runs)
        ]
        columns = torch.stack(sampled)  # (deform_groups, C / deform_groups, taps, out_h, out_w)
        if mask is not None:
            columns = columns * mask.view(len(x), deform_groups, 1, taps, out_h, out_w)[b]
        columns = columns.view(groups, x.shape[1] // groups, -1, out_h * out_w).flatten(1, 2)
        kernel = weight.view(groups, weight.shape[0] // groups, -1)
        images.append((kernel @ columns).view(weight.shape[0], out_h, out_w))
    out = torch.stack(images) if images else x.new_zeros(0, weight.shape[0], out_h, out_w)
    return (out if bias is None else out + bias[:, None, None]).to(dtype)


def _tap_places(x: Tensor, weight: Tensor, settings: _Settings) -> tuple[Tensor, Tensor]:
    """Where the taps lie without offsets: rows (taps, out_h, 1) and columns (taps, 1, out_w)."""
    out_h, out_w = settings.output_size(x, weight)
    kernel_h, kernel_w = weight.shape[2:]
    tap = torch.arange(kernel_h * kernel_w, device=x.device)
    rows = torch.arange(out_h, device=x.device)[:, None] * settings.stride_y - settings.pad_y
    columns = torch.arange(out_w, device=x.device) * settings.stride_x - settings.pad_x
    y = rows + (tap // kernel_w * settings.dilation_y)[:, None, None]
    return y.to(x.dtype), (columns + (tap % kernel_w * settings.dilation_x)[:, None, None]).to(x.dtype)


class _Columns(ABC):
    """The columns of a convolution, block by block; `gather` and `scatter` are the Numba or Triton kernels'.

    What these read is contiguous: maps (B, H, W, C), offset (B, G, K, 2, out_h, out_w), mask (B, G, K, out_h,
    out_w), of no elements where there is none, and the geometry that they name.
    """

    def __init__(
        self, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, settings: _Settings
    ) -> None:
        self.dtype = kernels.working_dtype(x.dtype)
        self.out_h, self.out_w = settings.output_size(x, weight)
        self.taps, self.channels, self.groups = weight.shape[2] * weight.shape[3], x.shape[1], settings.groups
        places = (len(x), settings.deform_groups, self.taps)
        self.maps = x.detach().to(self.dtype).permute(0, 2, 3, 1).contiguous()
        self.offset = self._kept(offset, *places, 2, self.out_h, self.out_w)
        self.mask = self._kept(mask, *places, self.out_h, self.out_w)
        self.geometry = (weight.shape[3], *settings[:6])
        grouped = weight.to(self.dtype).view(
            settings.groups, weight.shape[0] // settings.groups, -1, self.taps
        )
        self.weight = grouped.transpose(2, 3).flatten(2)  # (groups, out / groups, taps * C / groups)
        numbers = BLOCK_NUMBERS if x.device.type == "cpu" else GPU_BLOCK_NUMBERS
        self.rows = max(1, min(numbers // max(1, self.taps * self.channels), self.out_h * self.out_w))
        self.buffer = self.maps.new_empty(self.rows, self.taps, self.channels)

    def _kept(self, tensor: Tensor | None, *shape: int) -> Tensor:
        if tensor is None:
            return self.maps.new_zeros(*shape[:-2], 0, 0)
        return tensor.detach().to(self.dtype).contiguous().view(shape)

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Image and output places of each block; a block never spans two images."""
        size = self.out_h * self.out_w
        for b in range(len(self.maps)):
            for start in range(0, size, self.rows):
                yield b, slice(start, min(start + self.rows, size))

    @abstractmethod
    def gather(self, b: int, places: slice) -> Tensor:
        """The block's columns, (rows, taps, C), in a buffer that the next block overwrites."""

    @abstractmethod
    def scatter(self, b: int, places: slice, grad: Tensor, sums: tuple[Tensor, Tensor, Tensor]) -> None:
        """Takes the gradient of the block's columns, (rows, taps, C), on to that of maps, offset and mask."""

    def of_group(self, columns: Tensor, group: int) -> Tensor:
        """The columns of one convolution group, (rows, taps * C / groups)."""
        width = self.channels // self.groups
        return columns[:, :, group * width : (group + 1) * width].flatten(1)


class _NumbaColumns(_Columns):
    """On the CPU; the kernels number output places over all images."""

    def _first(self, b: int, places: slice) -> int:
        return b * self.out_h * self.out_w + places.start

    def gather(self, b: int, places: slice) -> Tensor:
        from opsin.core.ops.kernels.deform_conv import gather

        columns = self.buffer[: places.stop - places.start]
        read = map(kernels.array, (self.maps, self.offset, self.mask))
        kernels.run(gather, len(columns), self._first(b, places), *read, self.geometry, columns.numpy())
        return columns

    def scatter(self, b: int, places: slice, grad: Tensor, sums: tuple[Tensor, Tensor, Tensor]) -> None:
        from opsin.core.ops.kernels.deform_conv import backward_places, scatter

        first, rows, given = self._first(b, places), len(grad), grad.numpy()
        maps, *shared = map(kernels.array, (self.maps, self.offset, self.mask))
        by_maps, *by_places = (tensor.numpy() for tensor in sums)
        kernels.run(backward_places, rows, first, maps, *shared, self.geometry, given, *by_places)
        kernels.run(scatter, self.channels, first, rows, *shared, self.geometry, given, by_maps)


class _TritonColumns(_Columns):
    """On a GPU; the kernels see one image."""

    def gather(self, b: int, places: slice) -> Tensor:
        from opsin.core.ops.triton_kernels.deform_conv import gather

        columns = self.buffer[: places.stop - places.start]
        gather(places.start, self.maps[b], self.offset[b], self.mask[b], self.geometry, columns)
        return columns

    def scatter(self, b: int, places: slice, grad: Tensor, sums: tuple[Tensor, Tensor, Tensor]) -> None:
        from opsin.core.ops.triton_kernels.deform_conv import scatter

        read = (self.maps[b], self.offset[b], self.mask[b])
        scatter(places.start, *read, self.geometry, grad, *(tensor[b] for tensor in sums))


def _kind_of_columns(*tensors: Tensor, backward: bool) -> type[_Columns] | None:
    """Which kernels may work on `tensors`; None: the PyTorch path has to."""
    if triton_kernels.may_scatter(*tensors) if backward else triton_kernels.enabled(*tensors):
        return _TritonColumns
    return _NumbaColumns if kernels.enabled(*tensors) else None


@torch.library.custom_op("opsin::modulated_deform_conv", mutates_args=())
def _convolve(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, settings: list[int]
) -> Tensor:
    named = _Settings(*settings)
    kind = _kind_of_columns(x, offset, weight, backward=False)
    if kind is None:
        with full_precision(x.device):
            return modulated_deform_conv2d_reference(x, offset, mask, weight, bias, *_as_pairs(named))
    columns = kind(x, offset, mask, weight, named)
    out = columns.maps.new_empty(len(x), weight.shape[0], columns.out_h * columns.out_w)
    grouped = out.unflatten(1, (named.groups, -1))
    for b, places in columns.blocks():
        block = columns.gather(b, places)
        for group in range(named.groups):
            torch.mm(
                columns.weight[group], columns.of_group(block, group).T, out=grouped[b, group, :, places]
            )
    if bias is not None:
        out += bias.to(out.dtype)[:, None]
    return out.view(len(x), weight.shape[0], columns.out_h, columns.out_w).to(x.dtype)


def _as_pairs(settings: _Settings) -> tuple[Any, ...]:
    return settings[0:2], settings[2:4], settings[4:6], settings.groups, settings.deform_groups


@torch.library.custom_op("opsin::modulated_deform_conv_backward", mutates_args=())
def _convolve_backward(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, settings: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, offset, mask (no elements where there is none) and weight, by the kernels."""
    named = _Settings(*settings)
    # A graph that was traced before Numba was turned off comes here all the same.
    kind = _kind_of_columns(grad, x, offset, weight, backward=False) or _NumbaColumns
    columns = kind(x, offset, mask, weight, named)
    sums = (
        torch.zeros_like(columns.maps),
        torch.zeros_like(columns.offset),
        torch.zeros_like(columns.mask),
    )
    grad_weight = torch.zeros_like(columns.weight)
    grad_columns = torch.empty_like(columns.buffer)
    grouped = grad.to(columns.dtype).contiguous().flatten(2).unflatten(1, (named.groups, -1))
    width = columns.channels // named.groups
    for b, places in columns.blocks():
        block, rows = columns.gather(b, places), places.stop - places.start
        for group in range(named.groups):
            grad_out = grouped[b, group, :, places]
            grad_weight[group].addmm_(grad_out, columns.of_group(block, group))
            part = (grad_out.T @ columns.weight[group]).view(rows, columns.taps, width)
            grad_columns[:rows, :, group * width : (group + 1) * width] = part
        columns.scatter(b, places, grad_columns[:rows], sums)
    grad_x, grad_offset, grad_mask = sums
    back = grad_weight.view(weight.shape[0], columns.taps, -1).transpose(1, 2).reshape(weight.shape)
    return (
        grad_x.permute(0, 3, 1, 2).to(x.dtype).contiguous(),
        grad_offset.view(offset.shape).to(offset.dtype),
        grad_mask.flatten().to(x.dtype) if mask is None else grad_mask.view(mask.shape).to(mask.dtype),
        back.to(weight.dtype).contiguous(),
    )


@_convolve.register_fake
def _convolve_fake(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, settings: list[int]
) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], offset.shape[2], offset.shape[3])


@_convolve_backward.register_fake
def _convolve_backward_fake(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, settings: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_mask = x.new_empty(0) if mask is None else mask.new_empty(mask.shape)
    return x.new_empty(x.shape), offset.new_empty(offset.shape), grad_mask, weight.new_empty(weight.shape)


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, offset, mask, weight, bias, settings = inputs
    ctx.settings, ctx.with_mask, ctx.with_bias = settings, mask is not None, bias is not None
    ctx.save_for_backward(x, offset, *([mask] if mask is not None else []), weight)


def _vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, offset, *masks, weight = ctx.saved_tensors
    mask = masks[0] if ctx.with_mask else None
    if (
        _kind_of_columns(grad, x, offset, weight, backward=True) is None
    ):  # autograd does not work inside an op
        results = _reference_gradients(grad, x, offset, mask, weight, _Settings(*ctx.settings))
    else:
        results = _convolve_backward(grad, x, offset, mask, weight, ctx.settings)
    grad_x, grad_offset, grad_mask, grad_weight = results
    grad_bias = grad.sum((0, 2, 3)) if ctx.with_bias else None  # autograd gives it the bias's dtype
    return grad_x, grad_offset, grad_mask if ctx.with_mask else None, grad_weight, grad_bias, None


def _reference_gradients(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, settings: _Settings
) -> tuple[Tensor, ...]:
    """Gradients of x, offset, mask (no elements where there is none) and weight, by autograd."""

    def convolve(x: Tensor, offset: Tensor, weight: Tensor, *masks: Tensor) -> Tensor:
        mask = masks[0] if masks else None
        return modulated_deform_conv2d_reference(x, offset, mask, weight, None, *_as_pairs(settings))

    inputs = (x, offset, weight) if mask is None else (x, offset, weight, mask)
    grad_x, grad_offset, grad_weight, *rest = gradients(convolve, inputs, grad)
    return grad_x, grad_offset, rest[0] if rest else x.new_empty(0), grad_weight


_convolve.register_autograd(_vjp, setup_context=_context)
