"""Windows that are shifted between blocks (Swin Transformer, arXiv 2103.14030). Maps are (B, H, W, C).

The map is rolled, so that windows of the last rows and columns hold pixels of opposite borders; a mask keeps
those apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from opsin.core.layers.windows import pad_to_multiple, partition, reverse

Pair = tuple[int, int]
APART = -100.0  # what a logit between pixels of opposite borders gets, as published


def shift_mask(size: Pair, window: Pair, shift: Pair, *, device: torch.device | None = None) -> Tensor:
    """(windows, N, N): 0 where two pixels of a window are neighbours in the map, -100 where not.

    Args:
        size: rows and columns of the map, multiples of the window's.
        window: rows and columns of a window, N pixels.
        shift: by how many rows and columns the map was rolled up and to the left.
        device: where the mask shall be.
    """
    rows, columns = (_regions(*axis, device=device) for axis in zip(size, window, shift, strict=True))
    regions = partition((3 * rows[:, None] + columns)[None, :, :, None], window)  # windows, N, 1
    return torch.where(regions == regions.transpose(1, 2), 0.0, APART)


def _regions(side: int, window: int, shift: int, *, device: torch.device | None) -> Tensor:
    """Along one side: 0 before the last window, 1 in it, 2 where pixels come from the other border."""
    place = torch.arange(side, device=device)
    return (place >= side - window).long() + (place >= side - shift).long()


def attend_in_windows(
    attention: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, window: Pair, shift: Pair = (0, 0)
) -> Tensor:
    """Runs `attention(tokens, mask)` in windows of a map (B, H, W, C); the map is padded with zeros to fit.

    Args:
        attention: takes (B * windows, N, C) and a mask (windows, N, N), or None without a shift.
        x: the map.
        window: rows and columns of a window.
        shift: rows and columns by which windows are shifted down and to the right.
    """
    height, width = x.shape[1:3]
    x = pad_to_multiple(x, window)
    size = (x.shape[1], x.shape[2])
    if not any(shift):
        return reverse(attention(partition(x, window), None), window, size)[:, :height, :width]
    mask = shift_mask(size, window, shift, device=x.device)
    x = x.roll((-shift[0], -shift[1]), (1, 2))
    x = reverse(attention(partition(x, window), mask), window, size)
    return x.roll(shift, (1, 2))[:, :height, :width]
