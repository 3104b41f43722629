"""Tiny data sets as the stock configs of mmdet and mmseg read them: COCO, COCO panoptic, Cityscapes, ADE20K.

Random coloured boxes and ellipses on noise; two pictures to train on, two to test on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HEIGHT, WIDTH = 120, 160
SPLIT_SIZE = 2
SEGMENT_KEYS = ("id", "category_id", "bbox", "area", "iscrowd")


def _scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) uint8 and its segments (H, W) uint8: 0 is the ground, 1… are the things on it."""
    image = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    segments = np.zeros((HEIGHT, WIDTH), np.uint8)
    for thing in range(1, 4):
        left, top = 10 + 50 * (thing - 1), int(rng.integers(10, 60))
        colour = tuple(int(c) for c in rng.integers(120, 255, 3))
        for canvas, value in ((image, colour), (segments, thing)):
            if thing % 2:
                cv2.rectangle(canvas, (left, top), (left + 38, top + 44), value, -1)
            else:
                cv2.ellipse(canvas, (left + 19, top + 22), (19, 22), 0, 0, 360, value, -1)
    return image, segments


def _box(mask: np.ndarray) -> list[float]:
    """COCO's [left, top, width, height] of a mask (H, W)."""
    rows, columns = np.nonzero(mask)
    left, top = columns.min(), rows.min()
    return [float(left), float(top), float(columns.max() - left + 1), float(rows.max() - top + 1)]


def _polygon(mask: np.ndarray) -> list[list[float]]:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [outline.flatten().astype(float).tolist() for outline in outlines]


def _thing(identity: int, image: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "bbox": _box(mask),
        "area": float(mask.sum()),
        "iscrowd": 0,
        "segmentation": _polygon(mask),
    }


def write_coco(root: Path, things: Sequence[str], stuff: Sequence[str] = ()) -> Path:
    """Writes `root` as COCO 2017 lies on disk: instances, and panoptic segments when `stuff` is given.

    Args:
        things: names of the countable classes; category id is the position, from 1.
        stuff: names of the other classes, with the ids that follow.
    """
    rng = np.random.default_rng(0)
    categories = [
        {"id": i, "name": n, "isthing": int(i <= len(things))} for i, n in enumerate((*things, *stuff), 1)
    ]
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True)
        (root / "annotations" / f"panoptic_{split}").mkdir(parents=True)
        images, instances, panoptic = [], [], []
        for number in range(1, SPLIT_SIZE + 1):
            image, segments = _scene(rng)
            images.append({"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH})
            cv2.imwrite(str(root / split / f"{number}.jpg"), image)
            masks = {thing: segments == thing for thing in (1, 2, 3)}
            here = [_thing(10 * number + t, number, t, mask) for t, mask in masks.items()]
            instances += here
            if stuff:
                ground = _thing(10 * number, number, len(things) + 1, segments == 0)
                infos = [{key: segment[key] for key in SEGMENT_KEYS} for segment in (ground, *here)]
                panoptic.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
                # A segment's id is stored in the red channel, which is OpenCV's last.
                ids = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
                ids[..., 2] = segments + 10 * number
                cv2.imwrite(str(root / "annotations" / f"panoptic_{split}" / f"{number}.png"), ids)
        for kind, marks in (("instances", instances), ("panoptic", panoptic)):
            text = json.dumps({"images": images, "categories": categories, "annotations": marks})
            (root / "annotations" / f"{kind}_{split}.json").write_text(text)
    return root


def write_cityscapes(root: Path) -> Path:
    """Writes `root` as Cityscapes lies on disk, with train ids 0 (road) to 3."""
    folders = {split: (f"leftImg8bit/{split}/town", f"gtFine/{split}/town") for split in ("train", "val")}
    return _write_pairs(root, folders, ("_leftImg8bit.png", "_gtFine_labelTrainIds.png"), first_class=0)


def write_ade20k(root: Path) -> Path:
    """Writes `root` as ADE20K lies on disk, with classes 1 (wall) to 4; 0 would be no class."""
    folders = {split: (f"images/{split}", f"annotations/{split}") for split in ("training", "validation")}
    return _write_pairs(root, folders, (".jpg", ".png"), first_class=1)


def _write_pairs(
    root: Path, folders: dict[str, tuple[str, str]], suffixes: tuple[str, str], first_class: int
) -> Path:
    rng = np.random.default_rng(0)
    for pair in folders.values():
        image_folder, map_folder = (root / folder for folder in pair)
        image_folder.mkdir(parents=True)
        map_folder.mkdir(parents=True)
        for number in range(SPLIT_SIZE):
            image, segments = _scene(rng)
            cv2.imwrite(str(image_folder / f"{number}{suffixes[0]}"), image)
            cv2.imwrite(str(map_folder / f"{number}{suffixes[1]}"), segments + first_class)
    return root
