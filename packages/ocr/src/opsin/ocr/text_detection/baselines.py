"""Curves along which text is set, each with the map from a flat strip of text to the picture and back.

A strip is `height` pixels high; a place in it is how far along it is and how far down from its middle line,
in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating[Any]]


class Baseline(Protocol):
    """A curve; both maps take and give arrays of the shape of their first argument."""

    def place(self, along: Points, down: Points) -> tuple[Points, Points]:
        """X and y in the picture of places in the strip."""

    def locate(self, x: Points, y: Points) -> tuple[Points, Points]:
        """Places in the strip of points of the picture."""


@dataclass(frozen=True)
class Flat:
    """A plane seen at an angle; `matrix` (3, 3) is the homography from the strip to the picture."""

    matrix: Points

    @classmethod
    def tilted(cls, centre: tuple[float, float], length: float, angle: float) -> Flat:
        """A straight line of `length` pixels around `centre`, turned by `angle` radians, clockwise."""
        cosine, sine = np.cos(angle), np.sin(angle)
        x, y = centre
        return cls(
            np.array(
                [
                    [cosine, -sine, x - cosine * length / 2],
                    [sine, cosine, y - sine * length / 2],
                    [0, 0, 1],
                ]
            )
        )

    def in_perspective(self, frame: Points, moved: Points) -> Flat:
        """The plane as it looks when the four corners `frame` (4, 2) of the picture move to `moved`."""
        view = cv2.getPerspectiveTransform(frame.astype(np.float32), moved.astype(np.float32))
        return Flat(view @ self.matrix)

    def place(self, along: Points, down: Points) -> tuple[Points, Points]:
        """X and y in the picture."""
        return _project(self.matrix, along, down)

    def locate(self, x: Points, y: Points) -> tuple[Points, Points]:
        """Places in the strip."""
        return _project(np.linalg.inv(self.matrix), x, y)


@dataclass(frozen=True)
class Arc:
    """Part of a circle around `centre`; letters stand on its outside, or at its bottom on the inside.

    Args:
        centre: x and y.
        radius: of the strip's middle line.
        start: angle from the vertical where the strip begins, radians.
        smile: whether it runs along the bottom of the circle.
    """

    centre: tuple[float, float]
    radius: float
    start: float
    smile: bool = False

    def place(self, along: Points, down: Points) -> tuple[Points, Points]:
        """X and y in the picture."""
        side = 1 if self.smile else -1
        angle, radius = self.start + along / self.radius, self.radius + side * down
        return self.centre[0] + radius * np.sin(angle), self.centre[1] + side * radius * np.cos(angle)

    def locate(self, x: Points, y: Points) -> tuple[Points, Points]:
        """Places in the strip."""
        side = 1 if self.smile else -1
        east, north = x - self.centre[0], side * (y - self.centre[1])
        angle = np.arctan2(east, north) - self.start
        turn = (angle + np.pi / 2) % (2 * np.pi) - np.pi / 2
        return turn * self.radius, side * (np.hypot(east, north) - self.radius)


@dataclass(frozen=True)
class Wave:
    """A sine curve, as on a flag: letters move up and down and stay upright.

    Args:
        line: the straight line that it swings around.
        amplitude: in pixels.
        wavelength: in pixels.
        phase: at the strip's begin, radians.
    """

    line: Flat
    amplitude: float
    wavelength: float
    phase: float

    def place(self, along: Points, down: Points) -> tuple[Points, Points]:
        """X and y in the picture."""
        return self.line.place(along, down + self._swing(along))

    def locate(self, x: Points, y: Points) -> tuple[Points, Points]:
        """Places in the strip."""
        along, down = self.line.locate(x, y)
        return along, down - self._swing(along)

    def _swing(self, along: Points) -> Points:
        return self.amplitude * np.sin(2 * np.pi * along / self.wavelength + self.phase)


def outline(
    baseline: Baseline, along: tuple[float, float], down: tuple[float, float], points: int
) -> NDArray[np.float32]:
    """The polygon (2 * points, 2) around a stretch of a strip: its top edge, then its bottom edge back.

    Args:
        baseline: the curve.
        along: where the stretch begins and ends.
        down: its upper and its lower edge.
        points: corners on either edge.
    """
    there = np.linspace(*along, points)
    edges = np.concatenate([there, there[::-1]]), np.repeat(down, points)
    return np.stack(baseline.place(*edges), axis=1).astype(np.float32)


def _project(matrix: Points, x: Points, y: Points) -> tuple[Points, Points]:
    a, b, c = (row[0] * x + row[1] * y + row[2] for row in matrix)
    return a / c, b / c
