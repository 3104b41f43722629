"""Cutting maps into windows: padding, partition and the way back. Maps are channels-last (B, H, W, C)."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, window: tuple[int, int]) -> Tensor:
    """(B, H, W, C) with zero rows below and zero columns on the right until windows (height, width) fit."""
    below, right = -x.shape[1] % window[0], -x.shape[2] % window[1]
    return F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x


def partition(x: Tensor, window: tuple[int, int]) -> Tensor:
    """(B, H, W, C) to (B * windows, height * width, C), windows and their places row by row."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window[0], window[0], width // window[1], window[1], channels)
    return x.transpose(2, 3).reshape(-1, window[0] * window[1], channels)


def reverse(windows: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The way back from `partition`: to (B, H, W, C) of `size` (H, W)."""
    rows, columns = size[0] // window[0], size[1] // window[1]
    x = windows.view(-1, rows, columns, window[0], window[1], windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, size[0], size[1], windows.shape[-1])
