"""Faults of annotated boxes: clipped or dropped and reported, or an error that names the place."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmengine.logging import print_log

from opsin.core.errors import UserError

Box = tuple[float, float, float, float]


@dataclass
class BoxCheck:
    """Checks the boxes of one annotation source, and reports once what it changed.

    A box that is not four finite numbers is an error; so is one without area inside its image, unless
    such boxes are to be dropped. A box that reaches out of the image is clipped. What is clipped or dropped
    is counted, and `report` logs the counts with the first place of each.

    Args:
        source: what people call the annotations: a file or folder.
        drop: whether boxes without area in the image are dropped.
    """

    source: str
    drop: bool = False
    clipped: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __call__(self, box: Sequence[float], size: tuple[int, int], where: str) -> Box | None:
        """The box inside the image, or None when it has no area there.

        Args:
            box: x1, y1, x2, y2 in pixels.
            size: width and height of the image.
            where: the annotation, as an error names it.

        Raises:
            UserError: when the box is not four finite numbers, or has no area and is not to be dropped.
        """
        if len(box) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
            raise UserError(f"{where}: box {list(box)} is not four finite numbers")
        x1, y1, x2, y2 = map(float, box)
        width, height = size
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height))
        if inside[2] - inside[0] <= 0 or inside[3] - inside[1] <= 0:
            if not self.drop:
                raise UserError(
                    f"{where}: box {[x1, y1, x2, y2]} (x1, y1, x2, y2) has no area inside the image of "
                    f"{width} x {height} pixels",
                    "mend it, or set drop_bad_boxes=True in the dataset",
                )
            self.dropped.append(where)
            return None
        if inside != (x1, y1, x2, y2):
            self.clipped.append(where)
        return inside

    def report(self) -> None:
        """Logs a warning for each kind of change."""
        for what, places in (
            ("reach out of their image and were clipped", self.clipped),
            ("have no area inside their image and were dropped", self.dropped),
        ):
            if places:
                count = f"{len(places)} box(es) of {self.source} {what}, the first at {places[0]}"
                print_log(count, logger="current", level=logging.WARNING)
