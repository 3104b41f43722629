"""What one asks a promptable model: points, boxes, earlier masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

PADDING, NEGATIVE, POSITIVE = -1, 0, 1  # labels of points


@dataclass(frozen=True)
class Prompts:
    """What is asked of one image: N prompts, each of which gives one mask.

    Args:
        points: (N, P, 2) as (x, y), in pixels.
        labels: (N, P): 1 inside the mask, 0 outside, -1 no point at all.
        boxes: (N, 4), x1 y1 x2 y2 in pixels.
        masks: (N, 1, 4h, 4w), logits of an earlier answer, h and w of the image embedding.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.points is None) != (self.labels is None):
            raise ValueError("points and labels belong together")
        given = [x for x in (self.points, self.boxes, self.masks) if x is not None]
        if not given or len({len(x) for x in given}) > 1:
            raise ValueError("prompts need points, boxes or masks, as many of each as are given")

    def __len__(self) -> int:
        return len(next(x for x in (self.points, self.boxes, self.masks) if x is not None))

    def to(self, *place: Any, **how: Any) -> Prompts:
        """The prompts on another device; arguments are those of `Tensor.to`."""
        return replace(self, **{name: x.to(*place, **how) for name, x in vars(self).items() if x is not None})

    def scaled(self, x: float, y: float) -> Prompts:
        """The prompts of the image resized by the factors `x` and `y`; masks stay."""
        place = next(given for given in (self.points, self.boxes, self.masks) if given is not None).device
        factors = torch.tensor([x, y], device=place)
        points = None if self.points is None else self.points * factors
        boxes = None if self.boxes is None else self.boxes * factors.repeat(2)
        return replace(self, points=points, boxes=boxes)

    def __getitem__(self, rows: slice) -> Prompts:
        """Some of the prompts."""
        return Prompts(**{name: None if x is None else x[rows] for name, x in vars(self).items()})
