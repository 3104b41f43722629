import hashlib
import json

import numpy as np
import pytest

from opsin.detection.datasets import CocoDetection
from opsin.detection.samples import NAMES, write
from opsin.registry import TRANSFORMS


def digest(directory):
    total = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        total.update(str(path.relative_to(directory)).encode() + path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def train(samples):
    pipeline = [
        TRANSFORMS.build({"type": "opsin.LoadImage"}),
        TRANSFORMS.build({"type": "opsin.LoadObjects", "with_masks": True}),
    ]
    return CocoDetection(
        data_root=str(samples),
        ann_file="annotations/instances_train.json",
        data_prefix={"img": "images/train"},
        pipeline=pipeline,
    )


def test_same_seed_writes_the_same_bytes(samples, tmp_path):
    write(tmp_path)
    assert digest(tmp_path) == digest(samples)


def test_sizes_and_classes_vary_and_some_images_are_empty(train):
    entries = [train.get_data_info(i) for i in range(len(train))]
    assert len(entries) == 240
    assert {(e["height"], e["width"]) for e in entries} > {(160, 160), (137, 171)}
    assert any(not e["instances"] for e in entries)
    labels = [o["bbox_label"] for e in entries for o in e["instances"]]
    assert min(np.bincount(labels, minlength=len(NAMES))) > 20


def test_boxes_bound_their_masks(train):
    for index in range(40):
        sample = train[index]
        for box, mask in zip(sample["gt_bboxes"], sample["gt_masks"], strict=True):
            y, x = np.nonzero(mask)
            assert np.abs(box - [x.min(), y.min(), x.max() + 1, y.max() + 1]).max() <= 1


def test_digits_do_not_overlap(train):
    for index in range(40):
        assert train[index]["gt_masks"].sum(axis=0, dtype=int).max(initial=0) <= 1


def test_masks_are_written_as_polygons_and_as_run_lengths(samples):
    content = json.loads((samples / "annotations/instances_val.json").read_text())
    kinds = {type(a["segmentation"]) for a in content["annotations"]}
    assert kinds == {list, dict}
