"""ILSVRC and OpenImages30k for localisation from image labels: layouts, mistakes in them, pixel measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from opsin.core.engine.config import build_model, load_config
from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.segmentation.weakly_supervised.metrics import PixelLocalizationMetric


def save(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def annotation(*boxes: str, wnid: str = "n02", size: str = "<width>40</width><height>30</height>") -> str:
    objects = "".join(f"<object><name>{wnid}</name><bndbox>{box}</bndbox></object>" for box in boxes)
    return f"<annotation><size>{size}</size>{objects}</annotation>"


BOX = "<xmin>4</xmin><ymin>3</ymin><xmax>20</xmax><ymax>15</ymax>"
BELOW = "<xmin>8</xmin><ymin>15</ymin><xmax>39</xmax><ymax>29</ymax>"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """ImageNet's folders with two classes, a picture of each to train on and one to measure on."""
    data = tmp_path / "Data/CLS-LOC"
    for path in ("train/n01/n01_1.JPEG", "train/n02/n02_5.JPEG", "val/ILSVRC2012_val_00000001.JPEG"):
        save(data / path, np.zeros((30, 40, 3)))
    write(tmp_path / "Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml", annotation(BOX, BELOW))
    write(tmp_path / "LOC_synset_mapping.txt", "n01 tench, Tinca tinca", "n02 goldfish, Carassius auratus")
    return tmp_path


def ilsvrc(root: Path, split: str = "val") -> Any:
    pipeline = [
        {"type": "opsin.LoadImage"},
        {"type": "opsin.CenterView", "resize": 40, "crop": 20},
        {"type": "opsin.PackWeak"},
    ]
    return DATASETS.build(
        {"type": "opsin.ILSVRCLocalization", "data_root": str(root), "split": split, "pipeline": pipeline}
    )


def test_imagenets_folders_give_classes_names_and_all_boxes(folders: Path) -> None:
    train, val = ilsvrc(folders, "train"), ilsvrc(folders)
    assert train.metainfo["classes"] == val.metainfo["classes"]
    assert val.metainfo["classes"] == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert [int(row["data_samples"].gt_label) for row in train] == [0, 1]
    [row] = val
    assert int(row["data_samples"].gt_label) == 1
    # in a square of 40 rows rise by 4/3, and the view begins at 10
    expected = [[0, 0, 10, 10], [0, 10, 20, 20]]
    torch.testing.assert_close(row["data_samples"].gt_boxes, torch.tensor(expected).float())


def test_classes_come_from_the_folders_or_the_mapping_alone(folders: Path) -> None:
    (folders / "LOC_synset_mapping.txt").rename(folders / "away")
    assert ilsvrc(folders).metainfo["classes"] == ("n01", "n02")
    (folders / "Data/CLS-LOC/train").rename(folders / "train")
    with pytest.raises(UserError, match=r"has no classes; add .*LOC_synset_mapping.txt"):
        ilsvrc(folders)
    (folders / "away").rename(folders / "LOC_synset_mapping.txt")
    assert ilsvrc(folders)[0]["data_samples"].gt_label == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (annotation(), "val_00000001.xml has no object"),
        (annotation(BOX, wnid="n03"), "unknown class in .*'n03'; did you mean n0"),
        (annotation("<xmin>4</xmin>"), r"has box 4,,,, not four numbers"),
        (annotation(BOX.replace("20", "2")), r"has box 4,3,2,15, whose end lies before its beginning"),
        (annotation(BOX, size=""), "does not say its picture's width and height"),
        ("<annotation>", "can't be read as VOC annotations"),
    ],
)
def test_imagenet_annotation_that_can_not_be_understood_is_named(
    folders: Path, content: str, words: str
) -> None:
    write(folders / "Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml", content)
    with pytest.raises(UserError, match=words):
        ilsvrc(folders)


def test_missing_annotation_and_other_picture_size_are_named(folders: Path) -> None:
    save(folders / "Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG", np.zeros((40, 30, 3)))
    with pytest.raises(UserError, match="is 30x40, its box is for 40x30"):
        ilsvrc(folders)[0]
    (folders / "Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml").unlink()
    with pytest.raises(UserError, match=r"val_00000001.JPEG has no annotation"):
        ilsvrc(folders)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """wsolevaluation's lists with boxes, of two pictures."""
    for split in ("train", "test"):
        folder = tmp_path / "metadata" / split
        names = [f"{split}/{name}" for name in ("n01/a.jpg", "n02/b.jpg")]
        for name in names:
            save(tmp_path / name, np.zeros((30, 40, 3)))
        write(folder / "image_ids.txt", *names)
        write(folder / "class_labels.txt", f"{names[1]},1", f"{names[0]},0")
    write(folder / "image_sizes.txt", *(f"{name},40,30" for name in names))
    boxes = [f"{names[0]},4,3,20,15", f"{names[1]},0,0,39,29", f"{names[0]},8,15,39,29"]
    write(folder / "localization.txt", *boxes)
    return tmp_path


def wsol(root: Path, split: str = "test", *steps: Any, **changes: Any) -> Any:
    pipeline = [{"type": "opsin.LoadImage"}, *steps, {"type": "opsin.PackWeak"}]
    settings = {"data_root": str(root), "split": split, "pipeline": pipeline}
    return DATASETS.build({"type": "opsin.WSOLLists", **settings, **changes})


def test_lists_give_labels_and_the_boxes_of_each_picture(lists: Path) -> None:
    train, test = wsol(lists, "train"), wsol(lists)
    assert train.metainfo["classes"] == test.metainfo["classes"] == ("n01", "n02")
    assert [int(row["data_samples"].gt_label) for row in train] == [0, 1]
    boxes = [row["data_samples"].gt_boxes.tolist() for row in test]
    assert boxes == [[[4, 3, 20, 15], [8, 15, 39, 29]], [[0, 0, 39, 29]]]
    assert wsol(lists, classes=("x", "y", "z")).metainfo["classes"] == ("x", "y", "z")
    write(lists / "metadata/train/image_ids.txt", "train/n01/a.jpg")
    write(lists / "metadata/train/class_labels.txt", "train/n01/a.jpg,1")
    assert wsol(lists, "train").metainfo["classes"] == ("class 0", "class 1")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("image_ids.txt", "test/n01/a.jpg,0", "line 1 is .* not `path`"),
        ("image_ids.txt", "test/n01/c.jpg", "class_labels.txt has no line for test/n01/c.jpg"),
        ("class_labels.txt", "test/n01/a.jpg;0", "line 1 is .* not `path,label`"),
        ("class_labels.txt", "test/n01/a.jpg,-1", "line 1 has label '-1', not a number"),
        ("image_sizes.txt", "test/n01/a.jpg,40,x", "line 1 has size 40,x, not two numbers"),
        ("image_sizes.txt", "test/n02/b.jpg,40,30", "image_sizes.txt has no line for test/n01/a.jpg"),
        ("localization.txt", "test/n01/a.jpg,1,2,3", "line 1 is .* not `path,x0,y0,x1,y1`"),
        ("localization.txt", "test/n01/a.jpg,1,2,3,x", "line 1 has box 1,2,3,x, not four numbers"),
        ("localization.txt", "test/n01/a.jpg,5,2,3,4", "line 1 has box 5,2,3,4, whose end lies before"),
        ("localization.txt", "test/n01/a.jpg,1,2,3,4", "localization.txt has no line for test/n02/b.jpg"),
    ],
)
def test_line_of_the_lists_that_can_not_be_understood_is_named(
    lists: Path, file: str, content: str, words: str
) -> None:
    write(lists / "metadata/test" / file, content)
    with pytest.raises(UserError, match=words):
        wsol(lists)


def test_missing_lists_pictures_and_class_names_are_named(lists: Path) -> None:
    with pytest.raises(UserError, match="label 1 of 1 classes"):
        wsol(lists, classes=("x",))
    (lists / "test/n02/b.jpg").unlink()
    with pytest.raises(UserError, match=r"image_ids.txt lists .*b.jpg, which is missing"):
        wsol(lists)
    (lists / "metadata/test/localization.txt").unlink()
    with pytest.raises(UserError, match=r"lacks metadata/test/localization.txt"):
        wsol(lists)


@pytest.fixture
def masks(lists: Path) -> Path:
    """The lists of the test with masks in place of boxes; those of the first picture have another size."""
    parts = np.zeros((2, 60, 80))
    parts[0, :20, :20], parts[1, 40:, 60:] = 255, 255
    save(lists / "masks/a_1.png", parts[0])
    save(lists / "masks/a_2.png", parts[1])
    ignored = np.zeros((60, 80))
    ignored[:20, :40] = 255
    save(lists / "masks/a_ignore.png", ignored)
    save(lists / "masks/b_1.png", np.full((30, 40), 255))
    save(lists / "masks/b_ignore.png", np.zeros((30, 40)))
    write(
        lists / "metadata/test/localization.txt",
        "test/n01/a.jpg,a_1.png,a_ignore.png",
        "test/n02/b.jpg,b_1.png,b_ignore.png",
        "test/n01/a.jpg,a_2.png,",
    )
    return lists


MASK_STEPS = ({"type": "opsin.LoadObjectMask"}, {"type": "opsin.CenterView", "resize": 20, "crop": 20})


def test_masks_join_and_what_else_is_ignored_is_neither_object_nor_background(masks: Path) -> None:
    first, second = wsol(masks, "test", *MASK_STEPS, mask_root="masks")
    seen = first["data_samples"].gt_sem_seg.data[0]
    expected = torch.zeros(20, 20, dtype=torch.int64)
    expected[:6, :10], expected[13:, 15:] = 255, 1
    expected[:6, :5] = 1
    torch.testing.assert_close(seen[:6], expected[:6])
    torch.testing.assert_close(seen[14:], expected[14:])
    assert (second["data_samples"].gt_sem_seg.data == 1).all()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("test/n01/a.jpg,c.png,", r"names mask .*c.png, which is not there"),
        ("test/n01/a.jpg,a_2.png,a_ignore.png", "names a second file of what is ignored in test/n01/a.jpg"),
    ],
)
def test_masks_that_are_missing_or_ignored_twice_are_named(masks: Path, line: str, words: str) -> None:
    listing = masks / "metadata/test/localization.txt"
    listing.write_text(listing.read_text() + line)
    with pytest.raises(UserError, match=words):
        wsol(masks, mask_root="masks")


def pixel_sample(heat: Any, mask: Any) -> dict[str, Any]:
    return {"pred_map": torch.as_tensor(heat), "gt_sem_seg": {"data": torch.as_tensor(mask)[None]}}


def test_pixel_measures_are_those_of_a_hand_worked_example() -> None:
    metric = PixelLocalizationMetric()
    heat = torch.tensor([[0.9, 0.7, 0.5, 0.2, 0.1]])
    mask = torch.tensor([[1, 0, 1, 0, 255]])
    metric.process({}, [pixel_sample(heat, mask)])
    found = metric.compute_metrics(metric.results)
    # recall 1/2 at precision 1, and 1 at 2/3
    assert found["pxap"] == pytest.approx(100 * (0.5 * 1 + 0.5 * 2 / 3))
    assert found["peak_iou"] == pytest.approx(100 * 2 / 3)
    with pytest.raises(UserError, match="no mask shows an object"):
        metric.compute_metrics([0 * metric.results[0]])
    with pytest.raises(UserError, match=r"x.jpg has no mask"):
        metric.process({}, [{"img_path": "x.jpg"}])


def test_area_under_the_curve_is_the_average_precision_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (3, 16, 16))
    heats = np.round(0.6 * rng.random((3, 16, 16)) + 0.4 * masks * rng.random((3, 16, 16)), 3) + 5e-4
    metric = PixelLocalizationMetric()
    metric.process({}, [pixel_sample(heat, mask) for heat, mask in zip(heats, masks, strict=True)])
    expected = average_precision_score(masks.ravel(), heats.ravel())
    assert metric.compute_metrics(metric.results)["pxap"] == pytest.approx(100 * expected)


def test_openimages_recipe_measures_pixels_of_a_network_of_its_classes(masks: Path) -> None:
    cfg = load_config("bas_resnet50_openimages", data=masks)
    dataset = cfg.test_dataloader.dataset
    assert (cfg.test_evaluator.type, dataset.split) == ("opsin.PixelLocalizationMetric", "test")
    dataset.mask_root = "masks"
    cfg.model.network.update(num_classes=2, depth=18, base_channels=8, classifier_width=8)
    model = build_model(cfg).eval()
    rows = [DATASETS.build(dataset)[index] for index in range(2)]
    batch = {key: [row[key] for row in rows] for key in ("inputs", "data_samples")}
    metric = PixelLocalizationMetric()
    with torch.no_grad():
        metric.process(batch, [sample.to_dict() for sample in model.test_step(batch)])
    found = metric.compute_metrics(metric.results)
    assert all(0 < value <= 100 for value in found.values())
