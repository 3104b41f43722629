"""Objects as tokens: training sequences with noise objects, and boxes and masks out of what was written.

An object is four coordinates x1, y1, x2, y2, a class and, in instance segmentation, the codes of its mask
inside its box. Objects stand in random order and are followed by noise objects, whose class is `noise` and
whose coordinates and masks are not learned (as in Pix2Seq, arXiv 2109.10852). What the decoder is fed as
class is a random one or noise, so that it must look at the picture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.segmentation.dense_prediction.models.ait.vocabulary import Vocabulary

IGNORE = -100
JITTER = 0.1  # of a box's sides


class Sequence(NamedTuple):
    """Words that are fed and words that are wanted, (N * words of an object,) each; IGNORE is not wanted."""

    fed: Tensor
    wanted: Tensor


def box_words(boxes: Tensor, extent: float, bins: int) -> Tensor:
    """Boxes (N, 4) in pixels to coordinates' words (N, 4).

    Args:
        boxes: x1, y1, x2, y2.
        extent: pixels from the first word to the last.
        bins: the last word.
    """
    return (boxes / extent * bins).round().long().clamp(0, bins)


def boxes_of(words: Tensor, extent: float, bins: int) -> Tensor:
    """The way back from `box_words`, within extent / bins / 2 pixels."""
    return words.float() * (extent / bins)


def noise_boxes(boxes: Tensor, count: int, width: float, height: float) -> Tensor:
    """(count, 4) boxes that are no objects: random ones, and about half the time moved copies of `boxes`."""
    limits = boxes.new_tensor([width, height, width, height])
    corners = torch.rand(count, 2, 2, device=boxes.device).sort(1).values.flatten(1) * limits
    if not len(boxes):
        return corners
    copied = boxes[torch.randint(len(boxes), (count,), device=boxes.device)]
    sides = (copied[:, 2:] - copied[:, :2]).repeat(1, 2)
    moved = copied + JITTER * (2 * torch.rand_like(copied) - 1) * sides
    moved = moved.clamp(min=0).minimum(limits)
    return torch.where(torch.rand(count, 1, device=boxes.device) < 0.5, corners, moved)


def object_sequence(
    words: Vocabulary,
    boxes: Tensor,
    labels: Tensor,
    masks: Tensor,
    *,
    count: int,
    extent: float,
    size: tuple[float, float],
) -> Sequence:
    """One picture's training sequence.

    Args:
        words: the vocabulary.
        boxes: (N, 4) pixels, in the order in which they shall stand; those beyond `count` are left out.
        labels: (N,) class numbers.
        masks: (N, M) mask codes; M is 0 in detection.
        count: objects of the sequence, noise included.
        extent: see `box_words`.
        size: height and width of the picture, within which random boxes lie.
    """
    boxes, labels, masks = boxes[:count], labels[:count], masks[:count]
    real, noise = len(boxes), count - len(boxes)
    drawn = noise_boxes(boxes, noise, size[1], size[0])
    coordinates = box_words(torch.cat([boxes, drawn]), extent, words.num_bins)
    classes = torch.cat([labels + words.classes.start, labels.new_full((noise,), words.noise)])
    blank = masks.new_zeros(noise, masks.shape[1])
    codes = torch.cat([masks, blank]) + words.masks.start
    random = torch.randint(words.num_classes, (count,), device=boxes.device) + words.classes.start
    fed_classes = torch.where(torch.rand(count, device=boxes.device) < 0.5, random, words.noise)
    fed = torch.cat([coordinates, fed_classes[:, None], codes], 1)
    wanted = torch.cat([coordinates, classes[:, None], codes], 1)
    wanted[real:, :4] = IGNORE
    wanted[real:, 5:] = IGNORE
    return Sequence(fed.flatten(), wanted.flatten())


def word_loss(logits: Tensor, wanted: Tensor, words: Vocabulary, mask_weight: float) -> Tensor:
    """Cross-entropy over the whole vocabulary, summed and divided by the number of wanted words.

    Args:
        logits: (B, L, V).
        wanted: (B, L); IGNORE is not wanted.
        words: the vocabulary.
        mask_weight: of mask codes.
    """
    weight = logits.new_ones(logits.shape[-1])
    weight[words.masks.start : words.masks.stop] = mask_weight
    total = F.cross_entropy(
        logits.flatten(0, 1).float(), wanted.flatten(), weight.float(), ignore_index=IGNORE, reduction="sum"
    )
    return total / (wanted != IGNORE).sum().clamp(min=1)


def mask_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Dice loss plus mean squared error of masks (N, S, S), means over the masks; Dice is smoothed by 1."""
    inside = predicted.clamp(0, 1).flatten(1)
    true = target.flatten(1)
    dice = 1 - (2 * (inside * true).sum(1) + 1) / (inside.sum(1) + true.sum(1) + 1)
    return dice.mean() + F.mse_loss(predicted, target)


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, S, S) inside their boxes to masks (N, H, W) bool of the picture.

    Args:
        masks: in 0..1; 0.5 and more is inside.
        boxes: (N, 4) pixels.
        size: H, W.
    """
    height, width = size
    y = torch.arange(height, device=masks.device) + 0.5
    x = torch.arange(width, device=masks.device) + 0.5
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    across = (x - boxes[:, :1]) / sides[:, :1] * 2 - 1
    down = (y - boxes[:, 1:2]) / sides[:, 1:] * 2 - 1
    grid = torch.stack(
        [
            across[:, None].expand(-1, height, -1),
            down[:, :, None].expand(-1, -1, width),
        ],
        -1,
    )
    pasted = F.grid_sample(masks[:, None].float(), grid, align_corners=False)[:, 0]
    return pasted >= 0.5
