"""A small promptable data set made from real pictures: digits (things) on textures and photographs.

Three layouts, of scenes of their own:

    coco/images/{train,val}/0000.jpg, coco/annotations/instances_{train,val}.json   every digit by itself
    DIS5K/{DIS-TR,DIS-VD}/{im/0000.jpg, gt/0000.png}                                all digits of a picture
    SA-1B/{train,val}/sa_1.jpg, sa_1.json                                           digits and grounds

The halves share no digit and no part of a texture or photograph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from opsin.segmentation.promptable.datasets.run_lengths import encode
from opsin.segmentation.samples import SIZE, THINGS, Pictures, Scene, make_scene

HALVES = {"train": "DIS-TR", "val": "DIS-VD"}


def write_samples(directory: Path, seed: int = 0, *, train: int = 96, val: int = 24) -> None:
    """Writes the data set into `directory`; the same seed writes the same bytes.

    Args:
        directory: made if it is missing; files of the same names are replaced.
        seed: of the scenes.
        train: training pictures of each layout.
        val: validation pictures of each layout.
    """
    for half, (split, count) in enumerate((("train", train), ("val", val))):
        pictures = Pictures.of(split)
        scenes = [_scenes(pictures, [seed, layout, half], count) for layout in range(3)]
        _write_coco(Path(directory) / "coco", split, scenes[0])
        _write_dis5k(Path(directory) / "DIS5K" / HALVES[split], scenes[1])
        _write_sa1b(Path(directory) / "SA-1B" / split, scenes[2])


def _scenes(pictures: Pictures, seed: list[int], count: int) -> Iterator[Scene]:
    """Scenes with at least one digit that can be seen."""
    found, number = 0, 0
    while found < count:
        scene = make_scene(pictures, np.random.default_rng([*seed, number]))
        number += 1
        if len(list(_masks(scene, things_only=True))):
            found += 1
            yield scene


def _masks(scene: Scene, *, things_only: bool) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Class and mask (H, W) of every segment of which something is left to see."""
    for number, label in enumerate(scene.classes, start=1):
        mask = scene.segments == number
        if mask.any() and (label < len(THINGS) or not things_only):
            yield label, mask


def _annotation(mask: NDArray[np.bool_], number: int) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "id": number,
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "area": int(mask.sum()),
        "segmentation": encode(mask),
    }


def _write_coco(folder: Path, split: str, scenes: Iterator[Scene]) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        name = f"{number:04d}.jpg"
        _save(folder / "images" / split / name, scene.image)
        images.append({"id": number, "file_name": name, "height": SIZE, "width": SIZE})
        for label, mask in _masks(scene, things_only=True):
            annotation = _annotation(mask, len(annotations) + 1)
            annotations.append(annotation | {"image_id": number, "category_id": label + 1, "iscrowd": 0})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(THINGS)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    _dump(folder / "annotations" / f"instances_{split}.json", content)


def _write_dis5k(folder: Path, scenes: Iterator[Scene]) -> None:
    for number, scene in enumerate(scenes):
        _save(folder / "im" / f"{number:04d}.jpg", scene.image)
        mask = np.logical_or.reduce([mask for _, mask in _masks(scene, things_only=True)])
        _save(folder / "gt" / f"{number:04d}.png", mask.astype(np.uint8) * 255)


def _write_sa1b(folder: Path, scenes: Iterator[Scene]) -> None:
    for number, scene in enumerate(scenes, start=1):
        name = f"sa_{number}"
        _save(folder / f"{name}.jpg", scene.image)
        masks = _masks(scene, things_only=False)
        annotations = [_annotation(mask, row) for row, (_, mask) in enumerate(masks, start=1)]
        image = {"image_id": number, "file_name": f"{name}.jpg", "height": SIZE, "width": SIZE}
        _dump(folder / f"{name}.json", {"image": image, "annotations": annotations})


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def _dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
