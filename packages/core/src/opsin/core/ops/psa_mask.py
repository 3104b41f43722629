"""PSA mask: a predicted window around each cell, laid out over the whole map.

PSANet (ECCV 2018, Zhao et al.). The input (B, h·w, H, W) holds for each cell a window of h x w weights
centred on it; the output (B, H·W, H, W) has a channel for every cell of the map. `collect`: channel q at
place p is what p's window says about q. `distribute`: channel p at place q is that same number, so the two
are transposes. Cells that no window reaches are 0. A gather, differentiable, so it is its own reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

TYPES = ("collect", "distribute")


def psa_mask(x: Tensor, psa_type: str, mask_size: tuple[int, int]) -> Tensor:
    """Lays each cell's window out over the map.

    Args:
        x: (B, mask_h * mask_w, H, W).
        psa_type: `collect` or `distribute`.
        mask_size: height and width of the windows; their centre is (size - 1) // 2.

    Returns:
        (B, H * W, H, W).

    Raises:
        ValueError: if `psa_type` is unknown or the channels are not mask_h * mask_w.
    """
    batch, channels, height, width = x.shape
    if psa_type not in TYPES or channels != mask_size[0] * mask_size[1]:
        raise ValueError(
            f"psa_mask: type {psa_type!r} of {TYPES}, {channels} channels for windows of {mask_size}"
        )
    rows = _window(height, mask_size[0], x.device)
    columns = _window(width, mask_size[1], x.device)
    entry = rows[:, None, :, None] * mask_size[1] + columns[None, :, None, :]  # (H, W) seen from (H, W)
    inside = ((rows >= 0) & (rows < mask_size[0]))[:, None, :, None]
    inside = inside & ((columns >= 0) & (columns < mask_size[1]))[None, :, None, :]
    index = torch.where(inside, entry, 0).view(height * width, height * width)
    laid = x.flatten(2).gather(1, index.expand(batch, -1, -1))
    laid = torch.where(inside.view_as(index), laid, 0)
    laid = laid if psa_type == "collect" else laid.transpose(1, 2)
    return laid.reshape(batch, height * width, height, width)


def _window(length: int, size: int, device: torch.device) -> Tensor:
    """Along one axis, where cell q (first) lies in the window centred on cell p (second)."""
    cell = torch.arange(length, device=device)
    return cell[:, None] - cell + (size - 1) // 2
