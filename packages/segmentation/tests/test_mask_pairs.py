from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.segmentation.datasets import MaskPairs

PIPELINE = [{"type": "opsin.LoadImage"}, {"type": "opsin.LoadMask"}]
PREFIX = {"img_path": "images", "seg_map_path": "masks"}


def save(path: Path, pixels: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    image.save(path)
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two pictures of 6x4 pixels with classes a, b and c."""
    for name in ("first", "second"):
        save(tmp_path / "images" / f"{name}.png", np.full((4, 6, 3), 90, np.uint8))
        save(tmp_path / "masks" / f"{name}.png", np.tile(np.array([0, 1, 2, 255, 0, 1], np.uint8), (4, 1)))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    return tmp_path


def read(root: Path, **changes: Any) -> MaskPairs:
    settings = {"data_root": str(root), "data_prefix": PREFIX, "pipeline": PIPELINE} | changes
    dataset: MaskPairs = DATASETS.build({"type": "opsin.MaskPairs", **settings})
    return dataset


def test_plain_layout_gives_class_indices_and_names(pairs: Path) -> None:
    dataset = read(pairs)
    assert dataset.metainfo["classes"] == ("a", "b", "c")
    assert len(dataset) == 2 and len(dataset.metainfo["palette"]) == 3
    seg_map = dataset[0]["gt_seg_map"]
    assert seg_map.dtype == np.uint8
    assert seg_map[0].tolist() == [0, 1, 2, 255, 0, 1]


def test_ade20k_layout_ignores_zero_and_shifts_the_classes(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        save(tmp_path / f"images/{split}/x.jpg", np.zeros((2, 4, 3), np.uint8))
        save(tmp_path / f"annotations/{split}/x.png", np.array([[0, 1, 2, 150]] * 2, np.uint8))
    prefix = {"img_path": "images/validation", "seg_map_path": "annotations/validation"}
    dataset = DATASETS.build(
        {"type": "opsin.ADE20K", "data_root": str(tmp_path), "data_prefix": prefix, "pipeline": PIPELINE}
    )
    assert dataset.metainfo["classes"][:2] == ("wall", "building") and len(dataset.metainfo["classes"]) == 150
    assert dataset[0]["gt_seg_map"][0].tolist() == [255, 0, 1, 149]


def test_further_void_labels_are_ignored(pairs: Path) -> None:
    dataset = read(pairs, classes=["a", "b"], void=(2, 255))
    assert dataset[0]["gt_seg_map"][0].tolist() == [0, 1, 255, 255, 0, 1]


def test_label_values_read_black_and_white_masks(pairs: Path) -> None:
    for name in ("first", "second"):
        save(pairs / f"masks/{name}.png", np.tile(np.array([0, 255], np.uint8), (4, 3)))
    dataset = read(pairs, classes=["back", "front"], label_values=(0, 255), void=())
    assert dataset[0]["gt_seg_map"][0].tolist() == [0, 1, 0, 1, 0, 1]


def test_palette_and_sixteen_bit_masks_are_index_masks(pairs: Path) -> None:
    labels = np.tile(np.array([0, 1, 2, 2, 1, 0], np.uint8), (4, 1))
    coloured = Image.fromarray(labels)
    coloured.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    assert coloured.mode == "P"
    save(pairs / "masks/first.png", coloured)
    save(pairs / "masks/second.png", labels.astype(np.uint16))
    dataset = read(pairs)
    for sample in dataset:
        np.testing.assert_array_equal(sample["gt_seg_map"], labels)


def test_augmentation_moves_the_mask_with_the_picture(samples: Path) -> None:
    flip = {"type": "opsin.Albumentations", "transforms": [{"type": "HorizontalFlip", "p": 1.0}]}
    prefix = {"img_path": "images/train", "seg_map_path": "masks/train"}
    plain = read(samples, data_prefix=prefix)[0]
    flipped = read(samples, data_prefix=prefix, pipeline=[*PIPELINE, flip])[0]
    np.testing.assert_array_equal(flipped["img"], plain["img"][:, ::-1])
    np.testing.assert_array_equal(flipped["gt_seg_map"], plain["gt_seg_map"][:, ::-1])


def test_packed_sample_is_what_mmseg_models_take(pairs: Path) -> None:
    dataset = read(pairs, pipeline=[*PIPELINE, {"type": "mmseg.PackSegInputs"}])
    sample = dataset[0]
    assert sample["inputs"].shape == (3, 4, 6)
    assert sample["data_samples"].gt_sem_seg.data.shape == (1, 4, 6)
    assert sample["data_samples"].ori_shape == (4, 6)


def test_missing_mask_is_named(pairs: Path) -> None:
    (pairs / "masks/second.png").unlink()
    with pytest.raises(UserError, match=r"images/second.png has no mask .*masks/second.png"):
        read(pairs)


def test_missing_mask_is_skipped_on_request(pairs: Path) -> None:
    (pairs / "masks/second.png").unlink()
    assert {sample["img_path"][-9:] for sample in read(pairs, on_error="skip")} == {"first.png"}
    assert len(read(pairs, on_error="skip", test_mode=True)) == 1


def test_size_mismatch_is_named_with_both_sizes(pairs: Path) -> None:
    save(pairs / "masks/first.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(UserError, match=r"masks/first.png and image .*first.png differ in size: 5x4 and 6x4"):
        read(pairs)[0]


def test_label_outside_the_classes_is_named(pairs: Path) -> None:
    with pytest.raises(UserError, match=r"masks/first.png holds label 2, outside the 2 classes"):
        read(pairs, classes=["a", "b"])[0]


def test_label_beyond_eight_bits_is_named(pairs: Path) -> None:
    save(pairs / "masks/first.png", np.full((4, 6), 1000, np.uint16))
    with pytest.raises(UserError, match=r"first.png holds label 1000"):
        read(pairs)[0]


def test_an_index_beyond_the_masks_own_palette_is_judged_by_the_classes(pairs: Path) -> None:
    labels = np.tile(np.array([0, 1, 2, 2, 1, 7], np.uint8), (4, 1))
    coloured = Image.fromarray(labels)
    coloured.putpalette(range(15))  # of 5 colours
    save(pairs / "masks/first.png", coloured)
    with pytest.raises(UserError, match=r"masks/first.png holds label 7, outside the 3 classes"):
        read(pairs)[0]
    assert read(pairs, classes=list("abcdefgh"))[0]["gt_seg_map"].max() == 7


def test_negative_label_is_named(pairs: Path) -> None:
    Image.fromarray(np.full((4, 6), -1, np.int32)).save(pairs / "masks/first.tif")
    (pairs / "masks/second.png").rename(pairs / "masks/second.tif")
    with pytest.raises(UserError, match=r"first.tif holds label -1, outside the 3 classes"):
        read(pairs, mask_suffix=".tif")[0]


def test_palette_of_another_length_than_the_classes_is_refused(pairs: Path) -> None:
    with pytest.raises(UserError, match="2 colours for 3 classes"):
        read(pairs, palette=[(200, 0, 0), (0, 200, 0)])


def test_colour_picture_is_no_index_mask(pairs: Path) -> None:
    save(pairs / "masks/first.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(UserError, match=r"masks/first.png holds colours \(RGB\), not class indices"):
        read(pairs)[0]


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "header"]
)
def test_damaged_mask_is_named(pairs: Path, content: bytes) -> None:
    (pairs / "masks/first.png").write_bytes(content)
    with pytest.raises(UserError, match=r"masks/first.png"):
        read(pairs)[0]


def test_truncated_mask_is_named(samples: Path, pairs: Path) -> None:
    content = (samples / "masks/train/0000.png").read_bytes()
    (pairs / "masks/first.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"masks/first.png is truncated or damaged"):
        read(pairs)[0]


def test_missing_folder_is_named(pairs: Path) -> None:
    with pytest.raises(UserError, match=r"lacks labels"):
        read(pairs, data_prefix={"img_path": "images", "seg_map_path": "labels"})


def test_missing_class_names_are_asked_for(pairs: Path) -> None:
    (pairs / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"lacks classes.txt; write one class name a line"):
        read(pairs)


def test_class_named_twice_is_refused(pairs: Path) -> None:
    (pairs / "classes.txt").write_text("a\nb\na\n")
    with pytest.raises(UserError, match=r"names a twice"):
        read(pairs)


def test_void_wherever_all_pixels_are_still_loads(pairs: Path) -> None:
    save(pairs / "masks/first.png", np.full((4, 6), 255, np.uint8))
    assert (read(pairs)[0]["gt_seg_map"] == 255).all()


def test_mmseg_transforms_work_between_ours(samples: Path) -> None:
    crop = {"type": "mmseg.RandomCrop", "crop_size": (32, 48), "cat_max_ratio": 0.75}
    prefix = {"img_path": "images/train", "seg_map_path": "masks/train"}
    sample = read(samples, data_prefix=prefix, pipeline=[*PIPELINE, crop])[0]
    assert sample["img"].shape == (32, 48, 3) and sample["gt_seg_map"].shape == (32, 48)
