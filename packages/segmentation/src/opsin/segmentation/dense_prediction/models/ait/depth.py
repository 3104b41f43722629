"""Depth as tokens: one square window to a map, and a wide picture by windows that overlap."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.segmentation.dense_prediction.models.ait.task_solver import TaskSolver
from opsin.segmentation.dense_prediction.models.ait.tokenizer import VQVAE

LEAST = 1e-3  # metres


def predict_depth(
    backbone: nn.Module, solver: TaskSolver, tokenizer: VQVAE, image: Tensor, *, soft: bool = True
) -> Tensor:
    """Metres (B, S, S) of square images (B, 3, S, S), not clipped.

    Args:
        backbone: gives a tuple of maps, the last of which the solver reads.
        solver: writes the tokens.
        tokenizer: of depth.
        image: normalised RGB.
        soft: decodes probabilities of codes, not the codes that were chosen.
    """
    tokens, logits = solver.write_depth(backbone(image)[-1], tokenizer.grid**2)
    if not soft:
        return tokenizer.decode(tokens)
    return tokenizer.decode_soft(logits.transpose(1, 2).unflatten(2, (tokenizer.grid, tokenizer.grid)))


def window_starts(length: int, side: int) -> list[int]:
    """Where windows of `side` begin so that they cover `length`: as few as can be, evenly spread."""
    count = -(-length // side)
    if count == 1:
        return [0]
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def square_windows(image: Tensor, depth_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Depth (B, H, W) of images (B, 3, H, W) in square windows along the longer side.

    Each window is seen with its mirror image. For a picture of 4:3 that is the left and the right square, as
    published. Overlaps are averaged, and at the end nothing is nearer than a millimetre.

    Args:
        image: the images.
        depth_of: depth (B, S, S) of a window (B, 3, S, S), S the shorter side.
    """
    side, along = min(image.shape[-2:]), (-1 if image.shape[-1] >= image.shape[-2] else -2)
    total = torch.zeros_like(image[:, 0])
    count = torch.zeros_like(total)
    for start in window_starts(image.shape[along], side):
        window = image.narrow(along, start, side)
        depth = (depth_of(window) + depth_of(window.flip(-1)).flip(-1)) / 2
        total.narrow(along, start, side).add_(depth)
        count.narrow(along, start, side).add_(1)
    return (total / count).clamp(min=LEAST)


def at_shorter_side(image: Tensor, side: int, depth_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Depth (B, H, W) of images of any size, computed where their shorter side is `side`.

    Args:
        image: (B, 3, H, W).
        side: S.
        depth_of: depth (B, h, w) of images (B, 3, h, w), the shorter of h and w being S.
    """
    height, width = image.shape[-2:]
    factor = side / min(height, width)
    size = (max(side, round(height * factor)), max(side, round(width * factor)))
    if size == (height, width):
        return depth_of(image)
    scaled = F.interpolate(image, size, mode="bilinear", align_corners=False)
    depth = depth_of(scaled)[:, None]
    return F.interpolate(depth, (height, width), mode="bilinear", align_corners=False)[:, 0]


def silog(predicted: Tensor, target: Tensor, *, share: float = 0.5) -> Tensor:
    """Scale-invariant logarithmic error (): sqrt(mean(e²) - share · mean(e)²), e the error of the logarithm.

    Args:
        predicted: metres, clipped below at a millimetre.
        target: metres; pixels at 0 don't count.
        share: of the error common to all pixels that is forgiven.
    """
    valid = target > 0
    if not valid.any():
        return predicted.sum() * 0
    error = predicted[valid].clamp(min=LEAST).log() - target[valid].log()
    return (error.square().mean() - share * error.mean().square()).clamp(min=1e-12).sqrt()
