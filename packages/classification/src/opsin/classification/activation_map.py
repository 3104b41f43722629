"""Where a network looked: Grad-CAM (arXiv 1610.02391) on the last map it computes.

The map is found by watching the forward pass, so any network of opsin will do: the last module whose output
is a map (N, C, h, w), a channels-last map (N, h, w, C) or tokens (N, h * w + class tokens, C) of the
picture's aspect, larger than one cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASS_TOKENS = 2  # the most that a sequence has beside its patches


@torch.enable_grad()
def activation_map(network: nn.Module, image: Tensor, label: int) -> Tensor | None:
    """How much each place of an image speaks for a class.

    Args:
        network: in evaluation mode; maps images to logits.
        image: a normalised image (1, 3, H, W).
        label: the class.

    Returns:
        (H, W) in [0, 1], the strongest place 1; None if the network computes no map or nothing in it speaks
        for the class.
    """
    with _watched(network) as outputs:
        score = network(image.clone().requires_grad_())[0, label]
    for output in reversed(outputs):
        found = _grid(output, image.shape[-2:])
        if found is None:
            continue
        (gradient,) = torch.autograd.grad(score, output, retain_graph=True, allow_unused=True)
        if gradient is None:
            continue
        values, slopes = _as_maps(output, found), _as_maps(gradient, found)
        seen = (values * slopes.mean((1, 2), keepdim=True)).sum(0).relu().detach()
        if float(seen.max()) > 0:
            seen = F.interpolate(seen[None, None], size=image.shape[-2:], mode="bilinear")[0, 0]
            return seen / seen.max()
    return None


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the outputs of all modules that are tensors with a gradient, in the order they are done."""
    outputs: list[Tensor] = []

    def note(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.append(output)

    handles = [module.register_forward_hook(note) for module in network.modules() if module is not network]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


Layout = tuple[str, tuple[int, int], int]  # kind, rows and columns, tokens before the patches


def _grid(output: Tensor, size: torch.Size) -> Layout | None:
    """How the places of an output lie, if it is a map of an image of that size."""
    if output.shape[0] != 1:  # windows
        return None
    if output.ndim == 4:
        for kind, grid in (("channels first", output.shape[2:]), ("channels last", output.shape[1:3])):
            if min(grid) > 1 and _same_aspect(tuple(grid), size):
                return kind, (grid[0], grid[1]), 0
    if output.ndim == 3:
        for extra in range(CLASS_TOKENS + 1):
            patches = output.shape[1] - extra
            rows = round(math.sqrt(max(patches, 0) * size[0] / size[1]))
            if rows > 1 and patches % rows == 0 and _same_aspect((rows, patches // rows), size):
                return "tokens", (rows, patches // rows), extra
    return None


def _same_aspect(grid: tuple[int, ...], size: torch.Size) -> bool:
    """Whether rows and columns are those of one stride, up to rounding."""
    strides = size[0] / grid[0], size[1] / grid[1]
    return min(strides) >= 1 and max(strides) / min(strides) < 1 + 1 / min(grid)


def _as_maps(x: Tensor, layout: Layout) -> Tensor:
    """(C, h, w) of an output; class tokens, wherever they stand, are taken for the first."""
    kind, grid, extra = layout
    if kind == "channels first":
        return x[0]
    if kind == "channels last":
        return x[0].permute(2, 0, 1)
    return x[0, extra:].t().unflatten(1, grid)
