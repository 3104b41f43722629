"""Photographs with words set into them: paragraphs, headlines, badges, bottle labels and flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from opsin.core.data.pictures import photographs
from opsin.ocr.text_detection.baselines import Arc, Baseline, Flat, Wave, outline
from opsin.ocr.text_detection.lettering import FONTS, Paint, Strip, bend, paint_over, set_line
from opsin.ocr.text_detection.words import NUMBERS, WORDS

SIZES = ((288, 384), (320, 320), (256, 384), (352, 288))
"""Height and width; a picture takes one of them at random."""

UNEVEN = 45.0
"""Standard deviation of the light (0 … 255) from which no single colour is read well: a sign is put up."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Line:
    """A line of text along a curve; `legible` is false for don't-care ones, too small or blurred to read."""

    strip: Strip
    baseline: Baseline
    legible: bool = True

    def polygon(self, points: int) -> NDArray[np.float32]:
        """Around the whole line: (2 * points, 2) pixels, clockwise from its top left corner."""
        return self._around((self.strip.spans[0][0], self.strip.spans[-1][1]), points)

    def word_polygons(self, points: int) -> list[NDArray[np.float32]]:
        """One around each word."""
        return [self._around(span, points) for span in self.strip.spans]

    def _around(self, span: tuple[float, float], points: int) -> NDArray[np.float32]:
        return outline(self.baseline, span, self.strip.edges, points)

    @property
    def curved(self) -> bool:
        """Whether it needs more than four corners."""
        return not isinstance(self.baseline, Flat)


@dataclass(frozen=True)
class Style:
    """What a data set's pictures are like.

    Args:
        groups: kinds of text, names of `GROUPS`, and how often each comes.
        tries: groups that are tried a picture; those that find no place are left out.
        perspective: share of straight text that is seen at an angle.
        tilt: standard deviation of its turn, degrees.
    """

    groups: dict[str, float]
    tries: int
    perspective: float = 0.5
    tilt: float = 10.0


def scene(style: Style, rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[Line]]:
    """A picture (H, W, 3) and its lines of text."""
    picture = _photograph(rng)
    taken = np.zeros(picture.shape[:2], np.uint8)
    placed: list[Line] = []
    names, weights = list(style.groups), np.array(list(style.groups.values()))
    for _ in range(style.tries):
        name = names[rng.choice(len(names), p=weights / weights.sum())]
        group = GROUPS[name](picture.shape[:2], style, rng)
        lines = [line for line in group if _takes_place(line, taken)]
        if lines:
            _paint_group(picture, lines, taken, rng)
            placed += lines
    grain = rng.standard_normal((*taken.shape, 1), np.float32)
    picture += grain * np.float32(rng.uniform(1, 4))
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8), placed


def _photograph(rng: np.random.Generator) -> NDArray[np.float32]:
    """A part of a photograph, float32 (H, W, 3)."""
    photos = list(photographs().values())
    photo = photos[rng.integers(len(photos))]
    height, width = SIZES[rng.integers(len(SIZES))]
    zoom = min(photo.shape[0] / height, photo.shape[1] / width) * rng.uniform(0.6, 1.0)
    rows, columns = int(height * zoom), int(width * zoom)
    y = int(rng.integers(photo.shape[0] - rows + 1))
    x = int(rng.integers(photo.shape[1] - columns + 1))
    part = cv2.resize(photo[y : y + rows, x : x + columns], (width, height), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        part = part[:, ::-1]
    return (part * rng.uniform(0.7, 1.1) + rng.uniform(0, 25)).astype(np.float32)


def _takes_place(line: Line, taken: NDArray[np.uint8]) -> bool:
    """Whether a line lies inside the picture on free ground, which it then takes."""
    polygon = line.polygon(24)
    height, width = taken.shape
    if (polygon < 3).any() or (polygon > (width - 3, height - 3)).any():
        return False
    covered = np.zeros_like(taken)
    cv2.fillPoly(covered, [np.rint(polygon).astype(np.int32)], 1)
    if (covered & taken).any():
        return False
    taken |= covered
    return True


def _paint_group(
    picture: NDArray[np.float32], lines: list[Line], taken: NDArray[np.uint8], rng: np.random.Generator
) -> None:
    """Paints lines that belong together in one manner, perhaps on a sign."""
    own = np.zeros_like(taken)
    for line in lines:
        cv2.fillPoly(own, [np.rint(line.polygon(24)).astype(np.int32)], 1)
    uneven = picture[own > 0].mean(axis=1).std() > UNEVEN
    if rng.random() < 0.35 or uneven:
        _put_up_sign(picture, own, taken, rng)
    ground = picture[own > 0].mean(axis=0)
    colour = _contrasting(ground, rng)
    legible = lines[0].legible
    paint = Paint(
        colour=colour,
        opacity=rng.uniform(0.85, 1.0),
        blur=rng.uniform(0.2, 0.6) if legible else rng.uniform(1.2, 1.8),
        edge=_contrasting(colour, rng) if legible and rng.random() < 0.2 else None,
        shadow=int(rng.integers(1, 3)) if legible and rng.random() < 0.3 else 0,
    )
    for line in lines:
        ink, corner = bend(line.strip, line.baseline, taken.shape)
        paint_over(picture, ink, corner, paint)


def _put_up_sign(
    picture: NDArray[np.float32], own: NDArray[np.uint8], taken: NDArray[np.uint8], rng: np.random.Generator
) -> None:
    """A plain ground under a group, unless other text is there."""
    corners = cv2.convexHull(cv2.findNonZero(own))
    sign = np.zeros_like(own)
    cv2.fillConvexPoly(sign, corners, 1)
    reach = int(rng.integers(3, 8))
    sign = cv2.dilate(sign, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    if (sign & taken & ~own).any():
        return
    share = cv2.GaussianBlur(sign.astype(np.float32), (0, 0), 0.7)[..., None] * rng.uniform(0.75, 1.0)
    above, below = rng.uniform(0.8, 1.1, 2)
    shading = np.linspace(above, below, picture.shape[0])[:, None, None]
    picture += (share * (_colour(rng, rng.uniform(20, 245)) * shading - picture)).astype(np.float32)


def _colour(rng: np.random.Generator, light: float) -> Array:
    """A colour of random hue whose mean is about `light`."""
    hue = rng.uniform(-1, 1, 3) * rng.uniform(0, 90)
    return np.clip(light + hue - hue.mean(), 0, 255)


def _contrasting(ground: Array, rng: np.random.Generator) -> Array:
    """A colour that is read well on `ground`."""
    bright = float(ground.mean())
    dark = bright > 150 or (bright > 100 and rng.random() < 0.5)
    return _colour(rng, rng.uniform(0, bright - 85) if dark else rng.uniform(min(bright + 85, 250), 255))


def _words(rng: np.random.Generator, most: int) -> tuple[str, ...]:
    """One to `most` words in one manner of capitals."""
    manner = [str.upper, str.capitalize, str.lower][rng.choice(3, p=(0.45, 0.35, 0.2))]
    pools = (NUMBERS, *[WORDS] * 6)
    return tuple(manner(str(rng.choice(pools[rng.integers(7)]))) for _ in range(rng.integers(1, most + 1)))


def _strips(rng: np.random.Generator, lines: int, words: int, low: int, high: int) -> list[Strip]:
    """Lines in one font and size, which is from `low` to `high` pixels."""
    font, size = FONTS[rng.integers(len(FONTS))], int(rng.integers(low, high + 1))
    return [set_line(_words(rng, words), font, size) for _ in range(lines)]


def _centre(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[float, float]:
    return rng.uniform(0.1, 0.9) * shape[1], rng.uniform(0.1, 0.9) * shape[0]


def _paragraph(shape: tuple[int, ...], style: Style, rng: np.random.Generator) -> Iterator[Line]:
    """Lines close below each other, as on packages and notices."""
    yield from _block(_strips(rng, int(rng.integers(2, 6)), 3, 10, 20), shape, style, rng)


def _headline(shape: tuple[int, ...], style: Style, rng: np.random.Generator) -> Iterator[Line]:
    """One line of large letters."""
    yield from _block(_strips(rng, 1, 2, 22, 44), shape, style, rng)


def _block(
    strips: list[Strip], shape: tuple[int, ...], style: Style, rng: np.random.Generator
) -> Iterator[Line]:
    """Straight lines below each other, centred or on one edge."""
    angle = np.radians(rng.normal(0, style.tilt))
    leading = max(strip.height for strip in strips) * rng.uniform(1.02, 1.3)
    x, y = _centre(shape, rng)
    edge = rng.choice([0.0, 0.5])  # how far lines are moved so that their begins are below each other
    widest = max(strip.length for strip in strips)
    frame = np.array([[0, 0], [shape[1], 0], [shape[1], shape[0]], [0, shape[0]]], np.float32)
    moved = frame + rng.uniform(-0.12, 0.12, (4, 2)) * (shape[1], shape[0])
    seen_askew = rng.random() < style.perspective
    for number, strip in enumerate(strips):
        down = (number - (len(strips) - 1) / 2) * leading
        aside = edge * (strip.length - widest)
        centre = (
            x + aside * np.cos(angle) - down * np.sin(angle),
            y + aside * np.sin(angle) + down * np.cos(angle),
        )
        baseline = Flat.tilted(centre, strip.length, angle)
        yield Line(strip, baseline.in_perspective(frame, moved) if seen_askew else baseline)


def _label(shape: tuple[int, ...], style: Style, rng: np.random.Generator) -> Iterator[Line]:
    """Lines on circles with one centre, as on bottles and round boxes."""
    strips = _strips(rng, int(rng.integers(1, 4)), 3, 12, 26)
    radius, smile = rng.uniform(60, 150), bool(rng.random() < 0.3)
    tilt = np.radians(rng.normal(0, 2 * style.tilt))
    side = 1 if smile else -1
    x, y = _centre(shape, rng)
    centre = (x - np.sin(tilt) * radius, y - side * np.cos(tilt) * radius)
    leading = max(strip.height for strip in strips) * rng.uniform(1.05, 1.25)
    for number, strip in enumerate(strips):
        yield from _on_circle(strip, centre, radius + side * number * leading, tilt, smile=smile)


def _badge(shape: tuple[int, ...], style: Style, rng: np.random.Generator) -> Iterator[Line]:
    """A round logo: a line along the top, one along the bottom, one across."""
    above, below = _strips(rng, 2, 2, 12, 20)
    radius = rng.uniform(40, 75)
    centre = _centre(shape, rng)
    tilt = np.radians(rng.normal(0, style.tilt))
    yield from _on_circle(above, centre, radius, tilt, smile=False)
    yield from _on_circle(below, centre, radius, -tilt, smile=True)
    (across,) = _strips(rng, 1, 1, 12, 22)
    if across.length < 2 * radius - above.height:
        yield Line(across, Flat.tilted(centre, across.length, tilt))


def _on_circle(
    strip: Strip, centre: tuple[float, float], radius: float, tilt: float, *, smile: bool
) -> Iterator[Line]:
    """The line with its middle at the angle `tilt`, if it fits on two fifths of the circle."""
    if radius > 1.5 * strip.height and strip.length < 0.8 * np.pi * radius:
        yield Line(strip, Arc(centre, radius, tilt - strip.length / radius / 2, smile))


def _flag(shape: tuple[int, ...], style: Style, rng: np.random.Generator) -> Iterator[Line]:
    """Lines that wave in parallel."""
    strips = _strips(rng, int(rng.integers(1, 4)), 3, 14, 28)
    angle = np.radians(rng.normal(0, style.tilt))
    wavelength, phase = rng.uniform(110, 240), rng.uniform(0, 2 * np.pi)
    amplitude = rng.uniform(0.04, 0.09) * wavelength
    leading = max(strip.height for strip in strips) * rng.uniform(1.1, 1.3)
    x, y = _centre(shape, rng)
    longest = max(strip.length for strip in strips)
    for number, strip in enumerate(strips):
        centre = (x - number * leading * np.sin(angle), y + number * leading * np.cos(angle))
        begin = phase - np.pi * (strip.length - longest) / wavelength  # the same swing in all lines
        yield Line(strip, Wave(Flat.tilted(centre, strip.length, angle), amplitude, wavelength, begin))


def _illegible(shape: tuple[int, ...], style: Style, rng: np.random.Generator) -> Iterator[Line]:
    """Small and blurred lines."""
    for line in _block(_strips(rng, int(rng.integers(1, 4)), 3, 6, 8), shape, style, rng):
        yield Line(line.strip, line.baseline, legible=False)


GROUPS: dict[str, Callable[[tuple[int, ...], Style, np.random.Generator], Iterator[Line]]] = {
    "paragraph": _paragraph,
    "headline": _headline,
    "label": _label,
    "badge": _badge,
    "flag": _flag,
    "illegible": _illegible,
}
"""Kinds of text by name."""
