"""Multi-scale deformable attention: each query gathers a few bilinear samples from every level of a pyramid.

Deformable DETR, arXiv:2010.04159. Letters: B images, S = sum of H·W over the L levels, M heads of D channels,
Q queries, P points a level.

What a naive reading misses: places are (x, y) in 0..1 over the whole map including its border, so cell
centres lie at (i + 0.5) / W; cells outside a map are 0; the weights are normalised over levels and points
together, before they come here; values are stored level after level, row by row.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.ops import kernels, triton_kernels

OUTSIDE = 9.0  # stands for a place that is NaN or infinite: outside every map


def ms_deform_attn(value: Tensor, shapes: Tensor, places: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of bilinear samples of `value`.

    Args:
        value: (B, S, M, D); differentiable, as are `places` and `weight`.
        shapes: (L, 2) integers, height and width of each level.
        places: (B, Q, M, L, P, 2) x, y in 0..1 (outside: cells of value 0).
        weight: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D), head after head.

    Raises:
        ValueError: if the levels' sizes do not add up to S (on the CPU; Triton takes the rest for outside).
    """
    return _attend(value, shapes, places, weight)


def ms_deform_attn_reference(value: Tensor, shapes: Tensor, places: Tensor, weight: Tensor) -> Tensor:
    """The definition of `ms_deform_attn` by `grid_sample`."""
    dtype = value.dtype
    value, places, weight = (tensor.to(kernels.working_dtype(dtype)) for tensor in (value, places, weight))
    batch, _, heads, width_d = value.shape
    queries, points = places.shape[1], places.shape[4]
    places = places.nan_to_num(OUTSIDE, OUTSIDE, -OUTSIDE)
    grids = (2 * places - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (L, BM, Q, P, 2)
    out = value.new_zeros(batch * heads, width_d, queries, points)
    for level, (start, height, width) in enumerate(_levels(shapes, value)):
        maps = value[:, start : start + height * width].permute(0, 2, 3, 1)
        maps = maps.reshape(batch * heads, width_d, height, width)
        sampled = F.grid_sample(maps, grids[level], padding_mode="zeros", align_corners=False)
        of_level = weight[:, :, :, level].transpose(1, 2)
        out = out + sampled * of_level.reshape(batch * heads, 1, queries, points)
    return out.sum(-1).view(batch, heads * width_d, queries).transpose(1, 2).contiguous().to(dtype)


def _levels(shapes: Tensor, value: Tensor) -> list[tuple[int, int, int]]:
    """First position, height and width of each level."""
    levels, start = [], 0
    for height, width in shapes.tolist():
        levels.append((start, int(height), int(width)))
        start += int(height) * int(width)
    if start != value.shape[1]:
        raise ValueError(f"ms_deform_attn: levels {shapes.tolist()} do not add up to {value.shape[1]} values")
    return levels


def _contiguous(
    dtype: torch.dtype, value: Tensor, shapes: Tensor, places: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the kernels read: contiguous, shapes int64, the others of `dtype`."""
    value, places, weight = (tensor.detach().to(dtype).contiguous() for tensor in (value, places, weight))
    return value, shapes.long().contiguous(), places, weight


@torch.library.custom_op("opsin::ms_deform_attn", mutates_args=())
def _attend(value: Tensor, shapes: Tensor, places: Tensor, weight: Tensor) -> Tensor:
    batch, _, heads, width_d = value.shape
    if value.device.type == "cpu":
        _levels(shapes, value)  # the kernels do not check their indices
    dtype = kernels.working_dtype(value.dtype)
    given = _contiguous(dtype, value, shapes, places, weight)
    out = torch.zeros(batch, places.shape[1], heads, width_d, dtype=dtype, device=value.device)
    if triton_kernels.enabled(*given):
        from opsin.core.ops.triton_kernels import ms_deform_attn as on_gpu

        on_gpu.forward(*given, out)
    elif kernels.enabled(*given):
        from opsin.core.ops.kernels.ms_deform_attn import forward

        kernels.run(forward, batch * heads, *map(kernels.array, given), out.numpy())
    else:
        return ms_deform_attn_reference(value, shapes, places, weight)
    return out.flatten(2).to(value.dtype)


@torch.library.custom_op("opsin::ms_deform_attn_backward", mutates_args=())
def _attend_backward(
    grad: Tensor, value: Tensor, shapes: Tensor, places: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, places and weight."""
    batch, _, heads, width_d = value.shape
    dtype = kernels.working_dtype(value.dtype)
    zeros = [torch.zeros(t.shape, dtype=dtype, device=t.device) for t in (value, places, weight)]
    grad = grad.to(dtype).reshape(batch, places.shape[1], heads, width_d).contiguous()
    given = (*_contiguous(dtype, value, shapes, places, weight), grad)
    if triton_kernels.may_scatter(*given):
        from opsin.core.ops.triton_kernels import ms_deform_attn as on_gpu

        on_gpu.backward(*given, *zeros)
    elif kernels.enabled(*given):
        from opsin.core.ops.kernels.ms_deform_attn import backward

        kernels.run(backward, batch * heads, *map(kernels.array, (*given, *zeros)))
    else:
        _add_gradients(*given, *zeros)
    return zeros[0].to(value.dtype), zeros[1].to(places.dtype), zeros[2].to(weight.dtype)


def _add_gradients(
    value: Tensor,
    shapes: Tensor,
    places: Tensor,
    weight: Tensor,
    grad: Tensor,
    grad_value: Tensor,
    grad_places: Tensor,
    grad_weight: Tensor,
) -> None:
    """Adds the gradients to the last three, level by level and corner by corner; `grad` is (B, Q, M, D)."""
    batch, positions, heads, width_d = value.shape
    image = torch.arange(batch, device=value.device)[:, None, None, None]
    head = torch.arange(heads, device=value.device)[:, None]
    flat = grad_value.view(-1, width_d)
    for level, (start, height, width) in enumerate(_levels(shapes, value)):
        size = places.new_tensor([width, height])
        cell = places[:, :, :, level].nan_to_num(OUTSIDE, OUTSIDE, -OUTSIDE) * size - 0.5
        low = cell.floor()
        for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):  # x, y
            step = places.new_tensor(corner)
            x, y = (low + step).unbind(-1)
            inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
            share = torch.where(step > 0, cell - low, 1 - (cell - low)) * inside[..., None]
            at = start + (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()
            dot = (value[image, at, head] * grad[..., None, :]).sum(-1)  # (B, Q, M, P)
            of_level = weight[:, :, :, level]
            grad_weight[:, :, :, level] += share.prod(-1) * dot
            grad_places[:, :, :, level] += (
                share.flip(-1) * (2 * step - 1) * size * (of_level * dot)[..., None]
            )
            scaled = (share.prod(-1) * of_level)[..., None] * grad[..., None, :]
            flat.index_add_(0, ((image * positions + at) * heads + head).flatten(), scaled.flatten(0, -2))


@_attend.register_fake
def _attend_fake(value: Tensor, shapes: Tensor, places: Tensor, weight: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], places.shape[1], value.shape[2] * value.shape[3])


@_attend_backward.register_fake
def _attend_backward_fake(
    grad: Tensor, value: Tensor, shapes: Tensor, places: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return value.new_empty(value.shape), places.new_empty(places.shape), weight.new_empty(weight.shape)


def _context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_value, grad_places, grad_weight = _attend_backward(grad, *ctx.saved_tensors)
    return grad_value, None, grad_places, grad_weight


_attend.register_autograd(_vjp, setup_context=_context)


class MultiScaleDeformableAttention(nn.Module):
    """The attention layer around `ms_deform_attn`: projections, places and weights from the query, residual.

    Args:
        embed_dims: channels of queries and values.
        num_heads: heads, which share the channels out equally.
        num_levels: levels of the pyramid.
        num_points: samples of a head in each level.
        dropout: on the projected output, before the residual.
        batch_first: whether queries and values are (B, length, C); else (length, B, C).
        value_proj_ratio: channels of the projected values, in `embed_dims`.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        dropout: float = 0.1,
        batch_first: bool = False,
        value_proj_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f"embed_dims {embed_dims} does not divide into {num_heads} heads")
        self.grid = (num_heads, num_levels, num_points)
        self.batch_first = batch_first
        self.sampling_offsets = nn.Linear(embed_dims, 2 * math.prod(self.grid))
        self.attention_weights = nn.Linear(embed_dims, math.prod(self.grid))
        self.value_proj = nn.Linear(embed_dims, int(embed_dims * value_proj_ratio))
        self.output_proj = nn.Linear(int(embed_dims * value_proj_ratio), embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.init_weights()

    def init_weights(self) -> None:
        """Heads look in directions spread over a circle, point n at distance n, all weighted equally."""
        heads, levels, points = self.grid
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1.0, points + 1)[:, None]
        with torch.no_grad():
            spread = (directions[:, None, None] * steps).expand(heads, levels, points, 2)
            self.sampling_offsets.bias.copy_(spread.flatten())
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        reference_points: Tensor,
        shapes: Tensor,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Attends from each query to the values around its reference.

        Args:
            query: (B, Q, C), or (Q, B, C) unless `batch_first`; so is value.
            value: (B, S, C).
            reference_points: (B, Q, L, 2) x, y in 0..1, or (B, Q, L, 4) boxes as centre and size.
            shapes: (L, 2) integers, height and width of each level.
            query_pos: added to the query where places and weights are predicted.
            key_padding_mask: (B, S), True where a value is padding and counts as 0.

        Returns:
            Like query.
        """
        asked = query if query_pos is None else query + query_pos
        if not self.batch_first:
            asked, value = asked.transpose(0, 1), value.transpose(0, 1)
        batch, queries, _ = asked.shape
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        offsets = self.sampling_offsets(asked).view(batch, queries, *self.grid, 2)
        weight = self.attention_weights(asked).view(batch, queries, self.grid[0], -1).softmax(-1)
        out = ms_deform_attn(
            value.unflatten(-1, (self.grid[0], -1)),
            shapes,
            self._places(offsets, reference_points, shapes),
            weight.view(batch, queries, *self.grid),
        )
        out = self.output_proj(out)
        return self.dropout(out if self.batch_first else out.transpose(0, 1)) + query

    def _places(self, offsets: Tensor, references: Tensor, shapes: Tensor) -> Tensor:
        references = references[:, :, None, :, None]
        if references.shape[-1] == 2:
            return references + offsets / shapes.flip(-1)[None, None, None, :, None].to(offsets)
        return references[..., :2] + offsets / self.grid[2] * references[..., 2:] * 0.5
