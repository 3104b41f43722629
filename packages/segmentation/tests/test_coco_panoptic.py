from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stock_runs import check, run, small_config

from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.segmentation.panoptic.datasets import CocoPanoptic
from opsin.segmentation.samples import CLASSES, THINGS

PIPELINE = [{"type": "opsin.LoadImage"}, {"type": "opsin.LoadPanoptic"}]
MASK2FORMER = "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic"
FEW_LAYERS = {
    "model.panoptic_head.pixel_decoder.encoder.num_layers": 1,
    "model.panoptic_head.transformer_decoder.num_layers": 1,
    "model.panoptic_head.num_queries": 10,
    "model.train_cfg.num_points": 256,
}


def read(root: Path, split: str = "train", **changes: Any) -> CocoPanoptic:
    settings = {
        "data_root": str(root),
        "ann_file": f"annotations/panoptic_{split}.json",
        "data_prefix": {"img": f"images/{split}", "seg": f"annotations/panoptic_{split}"},
        "pipeline": PIPELINE,
    }
    dataset: CocoPanoptic = DATASETS.build({"type": "opsin.CocoPanoptic", **settings, **changes})
    return dataset


@pytest.fixture
def broken(samples: Path, tmp_path: Path) -> Path:
    """A copy of the samples to damage."""
    root = tmp_path / "data"
    shutil.copytree(samples, root)
    return root


def change_json(root: Path, change: Any) -> None:
    path = root / "annotations/panoptic_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_semantic_map_is_the_index_mask(samples: Path) -> None:
    dataset = read(samples)
    assert dataset.metainfo["classes"] == CLASSES
    assert dataset.metainfo["thing_classes"] == tuple(THINGS)
    for sample in dataset:
        mask = Image.open(samples / "masks/train" / Path(sample["seg_map_path"]).name)
        np.testing.assert_array_equal(sample["gt_seg_map"], np.asarray(mask))


def test_instances_are_the_things(samples: Path) -> None:
    total = 0
    for sample in read(samples):
        masks, labels = sample["gt_masks"], sample["gt_bboxes_labels"]
        assert len(masks) == len(labels) == len(sample["gt_bboxes"]) == len(sample["gt_ignore_flags"])
        total += len(masks)
        assert ((masks.sum(0) == 1) == (sample["gt_seg_map"] < len(THINGS))).all()
        for mask, label, box in zip(masks, labels, sample["gt_bboxes"].astype(int), strict=True):
            assert (sample["gt_seg_map"][mask == 1] == label).all()
            left, top, right, bottom = box
            assert mask[top:bottom, left:right].sum() == mask.sum() > 0
            assert (
                mask[top].any()
                and mask[:, left].any()
                and mask[bottom - 1].any()
                and mask[:, right - 1].any()
            )
    assert total > 10


def test_things_come_first_whatever_the_order_of_the_categories(broken: Path) -> None:
    change_json(broken, lambda content: content["categories"].reverse())
    dataset = read(broken)
    assert dataset.metainfo["classes"] == (*reversed(list(THINGS)), *reversed(CLASSES[len(THINGS) :]))
    before = read(broken, split="val").metainfo["classes"]
    assert set(before) == set(dataset.metainfo["classes"])


def test_crowds_are_in_the_map_but_no_instances(broken: Path) -> None:
    def mark(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            for segment in entry["segments_info"]:
                segment["iscrowd"] = 1

    plain = read(broken)[0]
    change_json(broken, mark)
    crowded = read(broken)[0]
    assert len(plain["gt_masks"]) > 0
    assert crowded["gt_masks"].shape == (0, *plain["gt_seg_map"].shape)
    assert crowded["gt_bboxes"].shape == (0, 4)
    np.testing.assert_array_equal(crowded["gt_seg_map"], plain["gt_seg_map"])


def test_segment_painted_but_not_listed_is_named(broken: Path) -> None:
    change_json(broken, lambda content: content["annotations"][0]["segments_info"].pop())
    with pytest.raises(UserError, match=r"panoptic_train/0000.png .* is painted but not listed"):
        read(broken)[0]


def test_segment_listed_but_not_painted_is_named(broken: Path) -> None:
    extra = {"id": 7, "category_id": 1, "area": 3, "bbox": [0, 0, 1, 3], "iscrowd": 0}
    change_json(broken, lambda content: content["annotations"][0]["segments_info"].append(extra))
    with pytest.raises(UserError, match=r"0000.png .*segment 7 is listed but not painted"):
        read(broken)[0]


def test_unknown_category_is_named(broken: Path) -> None:
    change_json(broken, lambda content: content["categories"].pop(0))
    with pytest.raises(UserError, match=r"category 1, which is none of the 6 categories"):
        read(broken)


def test_index_beyond_the_palette_of_an_id_png_is_named(broken: Path) -> None:
    """Decoders show such pixels black, which would be no segment."""
    path = broken / "annotations/panoptic_train/0000.png"
    plain = read(broken)[0]
    with Image.open(path) as colours:
        indexed = colours.quantize(dither=Image.Dither.NONE)
    indexed.save(path)
    np.testing.assert_array_equal(read(broken)[0]["gt_seg_map"], plain["gt_seg_map"])
    count = len(indexed.getpalette()) // 3
    indexed.putpixel((0, 0), count + 3)
    indexed.save(path)
    words = rf"0000.png holds index {count + 3}, beyond its palette of {count} colours"
    with pytest.raises(UserError, match=words):
        read(broken)[0]


def test_more_categories_than_a_map_can_hold_are_refused(broken: Path) -> None:
    def add(content: dict[str, Any]) -> None:
        content["categories"] += [{"id": 100 + n, "name": f"c{n}", "isthing": 0} for n in range(250)]

    change_json(broken, add)
    with pytest.raises(UserError, match=r"panoptic_train.json has 257 categories; a map holds at most 255"):
        read(broken)


def test_size_mismatch_is_named(broken: Path) -> None:
    Image.new("RGB", (5, 4)).save(broken / "annotations/panoptic_train/0000.png")
    with pytest.raises(UserError, match=r"0000.png and image .*0000.jpg differ in size: 5x4 and 128x128"):
        read(broken)[0]


def test_instances_file_is_not_taken_for_a_panoptic_one(samples: Path) -> None:
    with pytest.raises(UserError, match=r"is it an instances file"):
        read(samples, ann_file="annotations/instances_train.json")


def test_missing_png_is_skipped_on_request(broken: Path) -> None:
    (broken / "annotations/panoptic_train/0003.png").unlink()
    with pytest.raises(UserError, match=r"0003.png does not exist"):
        read(broken)[3]
    assert len(read(broken, on_error="skip", test_mode=True)) == 11


def test_packed_sample_is_what_mmdets_panoptic_models_take(samples: Path) -> None:
    pytest.importorskip("mmdet")
    flip = {"type": "opsin.Albumentations", "transforms": [{"type": "HorizontalFlip", "p": 1.0}]}
    dataset = read(samples, pipeline=[*PIPELINE, flip, {"type": "opsin.PackPanoptic"}])
    plain = read(samples)[0]
    sample = dataset[0]
    packed = sample["data_samples"]
    assert sample["inputs"].shape == (3, 128, 128)
    assert len(packed.gt_instances) == len(plain["gt_masks"])
    masks = packed.gt_instances.masks.to_tensor(torch.uint8, "cpu").numpy()
    np.testing.assert_array_equal(masks, plain["gt_masks"][..., ::-1])
    np.testing.assert_array_equal(packed.gt_sem_seg.sem_seg[0].numpy(), plain["gt_seg_map"][:, ::-1])


def test_stock_mask2former_trains_on_the_sample(samples: Path, tmp_path: Path) -> None:
    pytest.importorskip("mmdet")
    stuff = CLASSES[len(THINGS) :]
    changes: dict[str, Any] = {
        "model.panoptic_head.num_things_classes": len(THINGS),
        "model.panoptic_head.num_stuff_classes": len(stuff),
        "model.panoptic_head.loss_cls.class_weight": [1.0] * len(CLASSES) + [0.1],
        "model.panoptic_fusion_head.num_things_classes": len(THINGS),
        "model.panoptic_fusion_head.num_stuff_classes": len(stuff),
        **FEW_LAYERS,
    }
    meta = {"classes": CLASSES, "thing_classes": tuple(THINGS), "stuff_classes": stuff}
    for loader, split in (("train", "train"), ("val", "val"), ("test", "val")):
        dataset = f"{loader}_dataloader.dataset"
        changes[f"{dataset}.metainfo"] = meta
        changes[f"{dataset}.ann_file"] = f"annotations/panoptic_{split}.json"
        changes[f"{dataset}.data_prefix"] = {"img": f"images/{split}", "seg": f"annotations/panoptic_{split}"}
    cfg = small_config(MASK2FORMER, samples, tmp_path / "work", changes)
    panoptic = {**cfg.val_evaluator[0], "ann_file": str(samples / "annotations/panoptic_val.json")}
    panoptic["seg_prefix"] = str(samples / "annotations/panoptic_val")
    cfg.val_evaluator = cfg.test_evaluator = panoptic
    outcome = run(cfg)
    check(outcome)
    assert 0 <= outcome.metrics["coco_panoptic/PQ"] <= 100
