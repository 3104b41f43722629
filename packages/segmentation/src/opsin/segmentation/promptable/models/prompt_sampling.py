"""Prompts made from masks: what a model is trained and measured with."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from opsin.core.errors import unknown
from opsin.segmentation.panoptic.datasets.coco_panoptic import boxes_around
from opsin.segmentation.promptable.prompts import POSITIVE, Prompts

Mode = Literal["boxes", "points", "mixed", "more_boxes", "per_instance"]
# the chance of boxes: of a whole batch, or in mode `per_instance` of each mask
BOX_CHANCE: dict[str, float] = {
    "boxes": 1.0,
    "points": 0.0,
    "mixed": 1 / 3,
    "more_boxes": 2 / 3,
    "per_instance": 2 / 3,
}
MOST_POINTS = 5

Asked = list[tuple[Prompts, Tensor]]  # prompts, and the rows (N,) of the masks that they are for


def box_prompts(masks: Tensor) -> Prompts:
    """The boxes around masks (N, H, W), none empty."""
    return Prompts(boxes=torch.from_numpy(boxes_around(masks.cpu().numpy())).to(masks.device))


def random_point_prompts(masks: Tensor, count: int) -> Prompts:
    """`count` places inside each mask (N, H, W), none empty, drawn evenly; all labels are positive."""
    inside = masks.flatten(1).float()
    places = torch.multinomial(inside, count, replacement=True)
    return _points(places, masks.shape[2])


def central_point_prompts(masks: Tensor) -> Prompts:
    """The place of each mask (N, H, W) farthest from its border, which the picture's edge is part of."""
    places = []
    for mask in masks.cpu().numpy().astype(np.uint8):
        depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        places.append([int(depth.argmax())])
    return _points(torch.tensor(places, device=masks.device).reshape(-1, 1), masks.shape[2])


def _points(places: Tensor, width: int) -> Prompts:
    """Flat indices (N, P) into masks of `width` as positive points."""
    points = torch.stack((places % width, places // width), -1).float()
    return Prompts(points=points, labels=torch.full_like(places, POSITIVE))


class PromptSampler:
    """Draws the prompts of a training batch.

    Args:
        mode: `boxes`, `points`, `mixed` (the whole batch by boxes with a chance of 1/3), `more_boxes` (2/3),
            or `per_instance` (each mask by its box with a chance of 2/3).
        most_masks: of a picture; others are left out at random.

    Raises:
        UserError: for another mode.
    """

    def __init__(self, mode: Mode = "mixed", most_masks: int = 60) -> None:
        if mode not in get_args(Mode):
            raise unknown("prompt mode", mode, get_args(Mode))
        self.mode, self.most_masks = mode, most_masks

    def draw(self, masks: list[Tensor], things: list[Tensor]) -> list[Asked]:
        """Prompts for the masks (N, H, W) of every picture; boxes are for things (N,) alone.

        In a batch of boxes, other masks are left out; asked for one by one, they get points.
        """
        by_box = bool(torch.rand(()) < BOX_CHANCE[self.mode])
        points = int(torch.randint(1, MOST_POINTS + 1, ()))
        return [self._draw(m, t, by_box, points) for m, t in zip(masks, things, strict=True)]

    def _draw(self, masks: Tensor, things: Tensor, by_box: bool, points: int) -> Asked:
        rows = masks.flatten(1).any(1).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows))[: self.most_masks]]
        boxed = things[rows]
        if self.mode == "per_instance":
            boxed = boxed & (torch.rand(len(rows)) < BOX_CHANCE[self.mode]).to(boxed.device)
        elif by_box:
            rows, boxed = rows[boxed], boxed[boxed]
        else:
            boxed = torch.zeros_like(boxed)
        asked = []
        if boxed.any():
            asked.append((box_prompts(masks[rows[boxed]]), rows[boxed]))
        if not boxed.all():
            asked.append((random_point_prompts(masks[rows[~boxed]], points), rows[~boxed]))
        return asked
