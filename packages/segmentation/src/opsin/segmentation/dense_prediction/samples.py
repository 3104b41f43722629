"""A small data set in NYUv2's layout: rooms of real textures in which real digits stand as flat cards.

    {train,val}/rgb/0000.jpg        the picture, 128x96
    {train,val}/depth/0000.png      16-bit millimetres along the optical axis; 0 at the cards' borders
    {train,val}/normals/0000.png    colours of x right, y up, z towards the camera
    {train,val}/labels/0000.png     0 void, then the lines of classes.txt from 1
    classes.txt

Depth and normals follow from how a scene is put together: each pixel's ray is cut with the planes of the
room and of the cards, and the nearest wins. The two splits share no digit and no part of a texture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.segmentation.dense_prediction.datasets.nyuv2 import MILLIMETRES, encode_normals
from opsin.segmentation.samples import THINGS, Pictures

HEIGHT, WIDTH = 96, 128
FOCAL = 110.0  # pixels
HORIZON = 0.3  # of the height; a lens shifted down shows more of the floor
CLASSES = (*THINGS, "floor", "back wall", "side wall")
TEXTURE_OF = {"floor": "gravel", "back wall": "brick", "side wall": "grass"}
TINT = {"floor": (1.0, 0.95, 0.85), "back wall": (1.2, 0.85, 0.75), "side wall": (0.8, 1.1, 0.65)}
PIXELS_A_METRE = 110.0  # of the textures
LIGHT = np.array([0.3, 0.7, 0.65])
FAR = np.float32(np.inf)

Array = NDArray[Any]


@dataclass(frozen=True)
class Plane:
    """A plane: all points whose product with `normal` is that of `point` with it.

    Args:
        point: (3,) x to the right, y up, z away from the camera, in metres.
        normal: (3,) unit vector.
        right: (3,) unit vector in the plane, the direction of its pictures' columns.
    """

    point: Array
    normal: Array
    right: Array

    def hit(self, rays: Array) -> tuple[Array, Array, Array]:
        """Where rays (H, W, 3) with z = 1 meet it: depth, and the place to the right of and above `point`."""
        slope = rays @ self.normal
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where(np.abs(slope) > 1e-6, (self.point @ self.normal) / slope, FAR)
        depth = np.where(depth > 0, depth, FAR)
        place = rays * np.where(np.isfinite(depth), depth, 0)[..., None] - self.point
        up = np.cross(self.normal, self.right)
        return depth, place @ self.right, place @ up


class Scene:
    """The pixels of one picture, nearest surface first come."""

    def __init__(self) -> None:
        rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
        x, y = (columns + 0.5 - WIDTH / 2) / FOCAL, -(rows + 0.5 - HORIZON * HEIGHT) / FOCAL
        self.rays = np.stack([x, y, np.ones_like(x)], -1)
        self.image = np.zeros((HEIGHT, WIDTH, 3))
        self.depth = np.full((HEIGHT, WIDTH), np.inf)
        self.normals = np.zeros((HEIGHT, WIDTH, 3))
        self.labels = np.zeros((HEIGHT, WIDTH), np.uint8)

    def put(self, plane: Plane, depth: Array, inside: Array, colours: Array, label: int) -> None:
        """Paints a surface where it is nearer than what is there.

        Args:
            plane: of the surface.
            depth: (H, W) metres.
            inside: (H, W) bool, where the surface is.
            colours: (H, W, 3) before lighting.
            label: of its class, from 1.
        """
        seen = inside & (depth < self.depth)
        towards = plane.normal if plane.normal[2] <= 0 else -plane.normal  # to the camera, which is at z = 0
        facing = towards * [1, 1, -1]
        light = 0.55 + 0.45 * max(0.0, float(facing @ LIGHT))
        fog = 1 / (1 + 0.05 * np.where(np.isfinite(depth), depth, 0))
        self.image[seen] = (colours * (light * fog)[..., None])[seen]
        self.depth[seen] = depth[seen]
        self.normals[seen] = facing
        self.labels[seen] = label


def write(directory: Path, seed: int = 0, *, train: int = 160, val: int = 40) -> None:
    """Writes the data set into `directory`; the same seed writes the same bytes.

    Args:
        directory: made if it is missing; files of the same names are replaced.
        seed: of the scenes.
        train: number of training pictures.
        val: number of validation pictures.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        pictures = Pictures.of(split)
        for index in range(count):
            scene = make_scene(pictures, np.random.default_rng([seed, number, index]))
            _save(scene, directory / split, f"{index:04d}")


def make_scene(pictures: Pictures, rng: Generator) -> Scene:
    """A floor, a back wall, one or two side walls, and two to four digits."""
    scene = Scene()
    eye, distance = rng.uniform(0.8, 1.2), rng.uniform(2.5, 5.0)
    for name, plane in _room(eye, distance, rng):
        depth, right, up = plane.hit(scene.rays)
        colours = _texture(pictures.stuff[TEXTURE_OF[name]][0], right, up, rng) * TINT[name]
        scene.put(plane, depth, np.isfinite(depth), colours, CLASSES.index(name) + 1)
    for _ in range(rng.integers(2, 5)):
        _stand_digit(scene, pictures, eye, distance, rng)
    blurred = cv2.GaussianBlur(scene.image, (3, 3), 0.5)
    scene.image = np.clip(blurred + rng.normal(0, 2, blurred.shape), 0, 255)
    return scene


def _room(eye: float, distance: float, rng: Generator) -> Iterator[tuple[str, Plane]]:
    x, y, z = np.eye(3)
    yield "floor", Plane(-eye * y, y, x)
    yield "back wall", Plane(distance * z, -z, x)
    for side in ((-1,), (1,), (-1, 1))[rng.integers(3)]:
        yield "side wall", Plane(side * rng.uniform(1.2, 2.2) * x, -side * x, z)


def _texture(picture: Array, right: Array, up: Array, rng: Generator) -> Array:
    """(H, W, 3): a picture laid out over a plane again and again, mirrored where it repeats."""
    shift = rng.uniform(0, 500, 2)
    columns, rows = (
        _mirrored(place * PIXELS_A_METRE + offset, side - 1)
        for place, offset, side in zip((right, up), shift, picture.shape[1::-1], strict=True)
    )
    laid: Array = cv2.remap(picture, columns, rows, cv2.INTER_LINEAR).astype(np.float64)
    return laid * rng.uniform(1.1, 1.6)


def _mirrored(places: Array, last: int) -> NDArray[np.float32]:
    folded = np.abs((places + last) % (2 * last) - last)
    return np.nan_to_num(folded).astype(np.float32)


def _stand_digit(scene: Scene, pictures: Pictures, eye: float, distance: float, rng: Generator) -> None:
    """Stands one digit on the floor, turned a little to one side."""
    name = str(rng.choice(list(THINGS)))
    glyph = pictures.things[name][rng.integers(len(pictures.things[name]))]
    side, turn = rng.uniform(0.6, 1.0), rng.uniform(-0.8, 0.8)
    z = rng.uniform(1.6, distance - 0.3)
    centre = np.array([rng.uniform(-0.45, 0.45) * z, -eye + side / 2 + rng.uniform(0, 0.3), z])
    normal = np.array([np.sin(turn), 0.0, -np.cos(turn)])
    plane = Plane(centre, normal, np.array([np.cos(turn), 0.0, np.sin(turn)]))
    depth, right, _ = plane.hit(scene.rays)
    above = scene.rays[..., 1] * np.where(np.isfinite(depth), depth, 0) - centre[1]
    grid = (np.stack([right, -above]) / side + 0.5) * (glyph.shape[0] - 1)
    columns, rows = grid.astype(np.float32)
    cover = cv2.remap(glyph, columns, rows, cv2.INTER_CUBIC, borderValue=0.0) * 1.6 - 0.3
    solid = (cover >= 0.3) & np.isfinite(depth)
    colour = rng.uniform(140, 255, 3) if rng.random() < 0.5 else rng.uniform(0, 100, 3)
    scene.put(plane, depth, solid, np.broadcast_to(colour, scene.image.shape), CLASSES.index(name) + 1)


def _save(scene: Scene, folder: Path, name: str) -> None:
    millimetres = (scene.depth * MILLIMETRES).round()
    millimetres[_borders(scene.labels)] = 0  # depth cameras see nothing at the borders of things
    write_image(folder / "rgb" / f"{name}.jpg", scene.image.astype(np.uint8))
    write_image(folder / "depth" / f"{name}.png", millimetres.astype(np.uint16))
    write_image(folder / "normals" / f"{name}.png", encode_normals(scene.normals))
    write_image(folder / "labels" / f"{name}.png", scene.labels)


def _borders(labels: Array) -> NDArray[np.bool_]:
    """Where a digit's pixel touches another class."""
    digit = (labels <= len(THINGS)).astype(np.uint8)
    return cv2.morphologyEx(digit, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
