from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from opsin.core.data import read_image
from opsin.segmentation.panoptic.datasets import read_ids
from opsin.segmentation.samples import CLASSES, SIZE, THINGS, VOID, Pictures, write


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in files}


def load(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "annotations" / name).read_text())
    return content


def test_same_seed_gives_same_bytes_and_another_seed_other_pictures(samples: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", train=12, val=4)
    write(tmp_path / "other", seed=1, train=12, val=4)
    first, again, other = digest(samples), digest(tmp_path / "again"), digest(tmp_path / "other")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.startswith("images"))


def test_fewer_pictures_are_the_first_of_more(samples: Path, tmp_path: Path) -> None:
    write(tmp_path, train=3, val=2)
    few, many = digest(tmp_path), digest(samples)
    assert all(many[name] == few[name] for name in few if name.endswith((".png", ".jpg")))


def test_every_class_occurs(samples: Path) -> None:
    labels = {
        int(v) for p in (samples / "masks/train").iterdir() for v in np.unique(np.asarray(Image.open(p)))
    }
    assert labels == {*range(len(CLASSES)), VOID}
    assert (samples / "classes.txt").read_text().split() == list(CLASSES)


@pytest.mark.parametrize("split", ["train", "val"])
def test_panoptic_annotation_agrees_with_the_index_masks(samples: Path, split: str) -> None:
    panoptic = load(samples, f"panoptic_{split}.json")
    assert [c["name"] for c in panoptic["categories"]] == list(CLASSES)
    assert len(panoptic["annotations"]) == len(panoptic["images"]) > 0
    for record, entry in zip(panoptic["images"], panoptic["annotations"], strict=True):
        mask = np.asarray(Image.open(samples / "masks" / split / entry["file_name"]))
        ids = read_ids(samples / f"annotations/panoptic_{split}" / entry["file_name"])
        assert read_image(samples / "images" / split / record["file_name"]).shape == (SIZE, SIZE, 3)
        assert mask.shape == ids.shape == (record["height"], record["width"])
        assert set(np.unique(ids)) - {0} == {s["id"] for s in entry["segments_info"]}
        rebuilt = np.full_like(mask, VOID)
        for segment in entry["segments_info"]:
            inside = ids == segment["id"]
            assert inside.sum() == segment["area"]
            left, top, width, height = segment["bbox"]
            assert inside[top : top + height, left : left + width].sum() == segment["area"]
            rebuilt[inside] = segment["category_id"] - 1
        np.testing.assert_array_equal(rebuilt, mask)


def test_instance_masks_are_the_things_of_the_panoptic_annotation(samples: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    coco = pycocotools.COCO(str(samples / "annotations/instances_train.json"))
    panoptic = load(samples, "panoptic_train.json")
    names = {entry["image_id"]: entry["file_name"] for entry in panoptic["annotations"]}
    things = [
        s for e in panoptic["annotations"] for s in e["segments_info"] if s["category_id"] <= len(THINGS)
    ]
    assert len(coco.anns) == len(things) > 0
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        labels = np.asarray(Image.open(samples / "masks/train" / names[annotation["image_id"]]))
        assert mask.sum() == annotation["area"]
        assert (labels[mask == 1] == annotation["category_id"] - 1).all()


def test_splits_share_no_digit() -> None:
    train, val = Pictures.of("train"), Pictures.of("val")
    for name in THINGS:
        shown = {glyph.tobytes() for glyph in train.things[name]}
        assert len(train.things[name]) > 100
        assert sum(glyph.tobytes() in shown for glyph in val.things[name]) == 0
