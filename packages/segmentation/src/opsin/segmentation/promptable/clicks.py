"""What a person has clicked on a picture, and what they are shown for it; nothing here knows of a page.

Clicks fall on the picture as it is shown, which is larger than a small picture and smaller than a large one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.segmentation.promptable.models.mask_answers import Size
from opsin.segmentation.promptable.predictor import EncodedImage, FoundMasks
from opsin.segmentation.promptable.prompts import NEGATIVE, POSITIVE, Prompts
from opsin.segmentation.promptable.visualization import draw_masks

Rgb = NDArray[np.uint8]
Pixel = tuple[int, int]  # column, row

LEAST_SHOWN, MOST_SHOWN = 512, 1536  # pixels of the longer side on the page
GREEN, RED, WHITE = (0, 170, 0), (204, 0, 0), (255, 255, 255)
DOT = 5  # pixels, its radius as shown


class Click(StrEnum):
    """What a click says."""

    OBJECT = "the object"
    OTHER = "not the object"
    CORNER = "a corner of its box"


@dataclass(frozen=True)
class Clicks:
    """All that was clicked: points and at most one box ask for one mask.

    Args:
        points: column, row and label.
        corner: the first corner of a box whose second is yet to come.
        box: its opposite corners, as they were clicked; both pixels belong to it.
    """

    points: tuple[tuple[int, int, int], ...] = ()
    corner: Pixel | None = None
    box: tuple[Pixel, Pixel] | None = None

    def after(self, pixel: Pixel, click: Click) -> Clicks:
        """With one more click; a new box replaces the old one."""
        if click is not Click.CORNER:
            label = POSITIVE if click is Click.OBJECT else NEGATIVE
            return replace(self, points=(*self.points, (*pixel, label)))
        if self.corner is None:
            return replace(self, corner=pixel, box=None)
        return replace(self, corner=None, box=(self.corner, pixel))

    @property
    def box_edges(self) -> tuple[int, int, int, int] | None:
        """x1 y1 x2 y2 of the box, the far ends behind its last pixels."""
        if self.box is None:
            return None
        columns, rows = zip(*self.box, strict=True)
        return min(columns), min(rows), max(columns) + 1, max(rows) + 1

    def prompts(self) -> Prompts:
        """What is asked: one mask.

        Raises:
            UserError: when nothing was clicked, or one corner alone.
        """
        if self.corner is not None:
            raise UserError("a box has two corners", "click on the opposite one")
        if not self.points and self.box is None:
            raise UserError("nothing is asked for", "click on the picture")
        places = torch.tensor([self.points], dtype=torch.float32) if self.points else None
        return Prompts(
            points=None if places is None else places[..., :2],
            labels=None if places is None else places[..., 2].long(),
            boxes=None if self.box is None else torch.tensor([self.box_edges], dtype=torch.float32),
        )


@dataclass(frozen=True)
class ClickedPicture:
    """A picture that was encoded once, and what was clicked on it.

    Args:
        pixels: RGB (H, W, 3) uint8.
        encoded: of the same picture.
        clicks: on it.
    """

    pixels: Rgb
    encoded: EncodedImage
    clicks: Clicks = Clicks()

    @property
    def shown_size(self) -> Size:
        """Rows and columns as shown: pixels of a small picture are to be hit, a large one is to be sent."""
        height, width = self.pixels.shape[:2]
        longer = max(height, width)
        factor = max(1, -(-LEAST_SHOWN // longer)) if longer < LEAST_SHOWN else min(1, MOST_SHOWN / longer)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def clicked(self, shown: Pixel, click: Click) -> ClickedPicture:
        """With a click on a pixel of the picture as shown."""
        height, width = self.pixels.shape[:2]
        rows, columns = self.shown_size
        pixel = (int((shown[0] + 0.5) * width / columns), int((shown[1] + 0.5) * height / rows))
        return replace(self, clicks=self.clicks.after(pixel, click))

    def cleared(self) -> ClickedPicture:
        """Without clicks."""
        return replace(self, clicks=Clicks())

    def answer(self) -> FoundMasks:
        """The mask that the clicks ask for.

        Raises:
            UserError: when they ask for none.
        """
        return self.encoded.segment(self.clicks.prompts())

    def drawn(self, found: FoundMasks | None = None) -> Rgb:
        """The picture as shown, with masks, box and points over it."""
        rows, columns = self.shown_size
        smaller = rows < self.pixels.shape[0]
        how = cv2.INTER_AREA if smaller else cv2.INTER_NEAREST
        drawn: Rgb = cv2.resize(self.pixels, (columns, rows), interpolation=how)
        if found is not None:
            masks = [cv2.resize(m.view(np.uint8), (columns, rows), interpolation=0) for m in found.masks]
            drawn = draw_masks(drawn, np.array(masks, bool).reshape(-1, rows, columns))
        return self._with_clicks(drawn)

    def _with_clicks(self, drawn: Rgb) -> Rgb:
        height, width = self.pixels.shape[:2]
        down, across = drawn.shape[0] / height, drawn.shape[1] / width
        if edges := self.clicks.box_edges:
            corners = np.round(np.array(edges) * (across, down, across, down)).astype(int).tolist()
            cv2.rectangle(drawn, corners[:2], (corners[2] - 1, corners[3] - 1), WHITE, 2)
        dots = [(x, y, GREEN if label == POSITIVE else RED) for x, y, label in self.clicks.points]
        if self.clicks.corner is not None:
            dots.append((*self.clicks.corner, WHITE))
        for x, y, colour in dots:
            middle = (int((x + 0.5) * across), int((y + 0.5) * down))
            cv2.circle(drawn, middle, DOT, colour, cv2.FILLED)
            cv2.circle(drawn, middle, DOT, WHITE, 1)
        return drawn


def said(found: FoundMasks) -> str:
    """One line about the answer: area and firmness of a mask, or how many there are."""
    if len(found.masks) != 1:
        return f"{len(found.masks)} masks"
    return f"{found.masks[0].sum()} pixels, stability {found.scores[0]:.4f}"
