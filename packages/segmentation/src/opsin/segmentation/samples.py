"""A small segmentation data set made from real pictures: textures and photographs as stuff, digits as things.

The same scenes come in both formats that the task reads:

    images/{train,val}/0000.jpg                 the picture, 128x128
    masks/{train,val}/0000.png                  index mask: a pixel is its class, counted from 0 in
    classes.txt classes.txt classes.txt                                 class names, things first, one a line
    annotations/panoptic_{train,val}.json       COCO panoptic: segments_info of every picture …
    annotations/panoptic_{train,val}/0000.png   … and its segment ids as colours (id = R + 256 G + 65536 B)
    annotations/instances_{train,val}.json      COCO instances of the things (boxes, run-length masks)

Pixels on the soft edge of a digit belong to nothing: 255 in the index mask, 0 in the panoptic picture.
The two splits share no digit and no part of a texture or photograph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from opsin.core.data.pictures import digits, photographs, textures

SIZE = 128
VOID = 255
THINGS = {"zero": 0, "one": 1, "four": 4}  # the digit that each class shows
TEXTURES = ("brick", "grass", "gravel")
CLASSES = (*THINGS, *TEXTURES, "photograph")
TINTS = {"brick": (1.2, 0.85, 0.75), "grass": (0.8, 1.1, 0.65)}  # the textures are grey
DIGITS_FOR_TRAINING = 0.7  # share of the 1797 digits; the rest is for validation


@dataclass
class Scene:
    """One picture with its annotation.

    Args:
        image: (SIZE, SIZE, 3) RGB uint8.
        labels: (SIZE, SIZE) uint8, index into CLASSES; VOID where the pixel belongs to nothing.
        segments: (SIZE, SIZE) int, which segment a pixel belongs to, from 1; 0 for none.
        classes: class of segment 1, 2, …; a stuff class has at most one segment, a thing has one each.
    """

    image: NDArray[Any]
    labels: NDArray[Any]
    segments: NDArray[Any]
    classes: list[int] = field(default_factory=list)


@dataclass
class Pictures:
    """What the scenes of one split are cut from: pictures by stuff class, digits (N, 10, 10) by thing."""

    stuff: dict[str, list[NDArray[Any]]]
    things: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, split: str) -> Pictures:
        """The left part of every picture and the first digits for `train`, the rest for `val`."""
        stuff = {name: [_part(picture, split)] for name, picture in textures().items() if name in TEXTURES}
        stuff["photograph"] = [_part(picture, split) for _, picture in sorted(photographs().items())]
        images, numbers = digits()
        first = int(len(images) * DIGITS_FOR_TRAINING)
        chosen = slice(None, first) if split == "train" else slice(first, None)
        things = {name: _glyphs(images[chosen][numbers[chosen] == digit]) for name, digit in THINGS.items()}
        return cls(stuff, things)


def write(directory: Path, seed: int = 0, *, train: int = 240, val: int = 60) -> None:
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
        scenes = (make_scene(pictures, np.random.default_rng([seed, number, i])) for i in range(count))
        _write_split(directory, split, scenes, np.random.default_rng([seed, number]))


def make_scene(pictures: Pictures, rng: Generator) -> Scene:
    """Two or three stuff regions with irregular borders, and up to five digits on them."""
    names = rng.choice([*TEXTURES, "photograph"], size=rng.integers(2, 4), replace=False)
    heights = np.stack([_smooth_noise(rng) for _ in names])
    region = heights.argmax(0)
    scene = Scene(
        image=np.zeros((SIZE, SIZE, 3), np.uint8),
        labels=np.full((SIZE, SIZE), VOID, np.uint8),
        segments=np.zeros((SIZE, SIZE), int),
    )
    for index, name in enumerate(names):
        inside = region == index
        if inside.any():
            tint = TINTS.get(str(name), (1, 1, 1))
            scene.image[inside] = _patch(pictures.stuff[str(name)], tint, rng)[inside]
            _add(scene, CLASSES.index(str(name)), inside)
    for _ in range(rng.integers(2, 6)):
        _place_digit(scene, pictures, rng)
    scene.image = cv2.GaussianBlur(scene.image, (3, 3), 0.5)
    return scene


def _add(scene: Scene, label: int, inside: NDArray[Any]) -> None:
    scene.classes.append(label)
    scene.labels[inside] = label
    scene.segments[inside] = len(scene.classes)


def _place_digit(scene: Scene, pictures: Pictures, rng: Generator) -> None:
    """Puts one digit where it hides no other thing by more than a third; gives up after ten places."""
    name = str(rng.choice(list(THINGS)))
    glyph = pictures.things[name][rng.integers(len(pictures.things[name]))]
    side = int(rng.integers(40, 81))
    alpha = np.clip(cv2.resize(glyph, (side, side), interpolation=cv2.INTER_CUBIC) * 1.6 - 0.3, 0, 1)
    for _ in range(10):
        top, left = rng.integers(0, SIZE - side + 1, 2)
        cover = np.zeros((SIZE, SIZE), np.float32)
        cover[top : top + side, left : left + side] = alpha
        if not _hides_a_thing(scene, cover > 0.2):
            break
    else:
        return
    dark = scene.image[cover > 0.2].mean() < 128
    colour = rng.uniform(150, 255, 3) if dark else rng.uniform(0, 90, 3)
    shaded = scene.image * (1 - cover[..., None]) + colour * cover[..., None]
    scene.image = shaded.round().astype(np.uint8)
    edge = (cover > 0.2) & (cover < 0.5)
    _add(scene, CLASSES.index(name), cover >= 0.5)
    scene.labels[edge] = VOID
    scene.segments[edge] = 0


def _hides_a_thing(scene: Scene, inside: NDArray[Any]) -> bool:
    for number, label in enumerate(scene.classes, start=1):
        segment = scene.segments == number
        if label < len(THINGS) and (segment & inside).sum() > segment.sum() / 3:
            return True
    return False


def _smooth_noise(rng: Generator) -> NDArray[Any]:
    coarse = rng.normal(size=(4, 4)).astype(np.float32)
    fine = rng.normal(size=(12, 12)).astype(np.float32)
    low, high = (cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for grid in (coarse, fine))
    noise: NDArray[Any] = low + 0.25 * high
    return noise


def _patch(pictures: list[NDArray[Any]], tint: Sequence[float], rng: Generator) -> NDArray[Any]:
    """(SIZE, SIZE, 3): a random part of one of `pictures`, scaled, mirrored, tinted, and lit differently."""
    picture = pictures[rng.integers(len(pictures))]
    side = int(min(rng.integers(SIZE * 3 // 4, SIZE * 3 // 2), *picture.shape[:2]))
    top = rng.integers(0, picture.shape[0] - side + 1)
    left = rng.integers(0, picture.shape[1] - side + 1)
    patch = picture[top : top + side, left : left + side]
    patch = cv2.resize(patch, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    light = rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3) * tint
    lit: NDArray[Any] = np.clip(patch * light + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    return lit


def _part(picture: NDArray[Any], split: str) -> NDArray[Any]:
    border = int(picture.shape[1] * 0.6)
    return picture[:, :border] if split == "train" else picture[:, border:]


def _glyphs(images: NDArray[Any]) -> NDArray[Any]:
    """(N, 8, 8) uint8 to (N, 10, 10) from 0 to 1, with a margin so that enlarged strokes end softly."""
    return np.pad(images / np.float32(255), ((0, 0), (1, 1), (1, 1)))


def _write_split(directory: Path, split: str, scenes: Iterator[Scene], rng: Generator) -> None:
    records: list[dict[str, Any]] = []
    panoptics: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        name = f"{number:04d}"
        ids = rng.choice(2**24 - 1, size=len(scene.classes), replace=False) + 1
        _save(scene.image, directory / "images" / split / f"{name}.jpg")
        _save(scene.labels, directory / "masks" / split / f"{name}.png")
        _save(_colours(scene.segments, ids), directory / "annotations" / f"panoptic_{split}" / f"{name}.png")
        records.append({"id": number, "file_name": f"{name}.jpg", "height": SIZE, "width": SIZE})
        segments = list(_segments(scene, ids))
        panoptics.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
        instances += _instances(scene, ids, segments, number)
    categories = _categories()
    _dump(directory, f"panoptic_{split}", records, categories, panoptics)
    _dump(directory, f"instances_{split}", records, categories[: len(THINGS)], _numbered(instances))


def _save(pixels: NDArray[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def _segments(scene: Scene, ids: NDArray[Any]) -> Iterator[dict[str, Any]]:
    """The segments of which something is left to see, as COCO's segments_info has them."""
    for index, label in enumerate(scene.classes):
        rows, columns = np.nonzero(scene.segments == index + 1)
        if len(rows) == 0:  # digits may hide a small patch of ground
            continue
        left, top = int(columns.min()), int(rows.min())
        box = [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
        yield {"id": int(ids[index]), "category_id": label + 1, "area": len(rows), "bbox": box, "iscrowd": 0}


def _instances(
    scene: Scene, ids: NDArray[Any], segments: list[dict[str, Any]], image_id: int
) -> Iterator[dict[str, Any]]:
    """The things among the segments, with their masks, as COCO's instance files have them."""
    id_map = np.concatenate([[0], ids])[scene.segments]
    for segment in segments:
        if segment["category_id"] <= len(THINGS):
            rle = {"size": [SIZE, SIZE], "counts": _run_lengths(id_map == segment["id"])}
            yield segment | {"image_id": image_id, "segmentation": rle}


def _numbered(instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [instance | {"id": number} for number, instance in enumerate(instances, start=1)]


def _dump(directory: Path, name: str, images: Any, categories: Any, annotations: Any) -> None:
    content = {"images": images, "annotations": annotations, "categories": categories}
    (directory / "annotations" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def _categories() -> list[dict[str, Any]]:
    return [
        {
            "id": i + 1,
            "name": name,
            "isthing": int(name in THINGS),
            "supercategory": "digit" if name in THINGS else "ground",
        }
        for i, name in enumerate(CLASSES)
    ]


def _colours(segments: NDArray[Any], ids: NDArray[Any]) -> NDArray[Any]:
    """(H, W) segment numbers to (H, W, 3) colours of their ids."""
    id_map = np.concatenate([[0], ids])[segments]
    return np.stack([id_map % 256, id_map // 256 % 256, id_map // 65536], axis=-1).astype(np.uint8)


def _run_lengths(mask: NDArray[Any]) -> list[int]:
    """COCO's uncompressed run-length code: lengths of runs down the columns, beginning with background."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(np.int8)))
    return [int(n) for n in np.diff(np.concatenate([[0], edges, [flat.size]]))]
