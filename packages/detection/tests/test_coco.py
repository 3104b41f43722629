import logging
import math

import numpy as np
import pytest
from mmengine.logging import MMLogger

from opsin.core.data.image import write_image
from opsin.core.errors import UserError
from opsin.registry import DATASETS

BOX = {"id": 5, "image_id": 1, "category_id": 7, "bbox": [2, 3, 10, 20], "iscrowd": 0}
PIPELINE = [
    {"type": "opsin.LoadImage"},
    {"type": "opsin.LoadObjects", "with_masks": True},
    {"type": "opsin.PackDetection"},
]


def dataset(folder, **options):
    cfg = {
        "type": "opsin.CocoDetection",
        "data_root": str(folder),
        "ann_file": "instances.json",
        "data_prefix": {"img": "images"},
        "pipeline": PIPELINE,
    }
    return DATASETS.build({**cfg, **options})


@pytest.fixture
def warnings():
    """The warnings that mmengine's logger gets during a test."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_classes_come_from_the_file_in_the_order_of_their_ids(coco_folder):
    data = dataset(coco_folder([BOX]))
    assert data.metainfo["classes"] == ("cat", "dog")
    assert data.metainfo["category_ids"] == (3, 7)
    assert data[0]["data_samples"].gt_instances.labels.tolist() == [1]
    assert data[0]["data_samples"].gt_instances.bboxes.tensor.tolist() == [[2, 3, 12, 23]]


def test_chosen_classes_leave_out_the_others(coco_folder):
    data = dataset(coco_folder([BOX, {**BOX, "id": 6, "category_id": 3}]), metainfo={"classes": ("dog",)})
    assert data[0]["data_samples"].gt_instances.labels.tolist() == [0]


def test_chosen_class_that_the_file_lacks_is_an_error(coco_folder):
    with pytest.raises(UserError, match=r"'dig'.*did you mean dog"):
        dataset(coco_folder([BOX]), metainfo={"classes": ("dig",)})


def test_image_without_annotations_stays(coco_folder):
    sample = dataset(coco_folder([BOX]))[1]["data_samples"]
    assert sample.gt_instances.bboxes.shape == (0, 4)
    assert sample.gt_instances.masks.masks.shape == (0, 30, 40)


def test_crowds_are_to_be_ignored(coco_folder):
    sample = dataset(coco_folder([{**BOX, "iscrowd": 1}]))[0]["data_samples"]
    assert len(sample.gt_instances) == 0
    assert len(sample.ignored_instances) == 1


def test_polygons_and_both_kinds_of_run_lengths_give_the_same_mask(coco_folder):
    from pycocotools import mask as coco_mask

    square = np.zeros((30, 40), np.uint8, order="F")
    square[5:15, 10:20] = 1
    compressed = coco_mask.encode(square)
    forms = (
        [[10, 5, 20, 5, 20, 15, 10, 15]],
        {"size": [30, 40], "counts": compressed["counts"].decode()},
        {"size": [30, 40], "counts": [305, *([10, 20] * 9), 10, 1200 - 305 - 10 * 10 - 9 * 20]},
    )
    folder = coco_folder(
        [{**BOX, "id": i, "bbox": [10, 5, 10, 10], "segmentation": form} for i, form in enumerate(forms)]
    )
    masks = dataset(folder)[0]["data_samples"].gt_instances.masks.masks
    assert all((mask == square).all() for mask in masks)


def test_object_without_mask_gets_its_box(coco_folder):
    masks = dataset(coco_folder([BOX]))[0]["data_samples"].gt_instances.masks.masks
    assert masks.sum() == 10 * 20


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"category_id": 4}, "annotation 5 has category_id 4"),
        ({"category_id": None}, "annotation 5 has category_id None"),
        ({"image_id": 9}, "annotation 5 has image_id 9"),
        ({"bbox": [1, 2, math.nan, 4]}, "annotation 5: box .*nan.* is not four finite numbers"),
        ({"bbox": [1, 2, math.inf, 4]}, "annotation 5: box .*inf.* is not four finite numbers"),
        ({"bbox": [1, 2, "3", 4]}, "annotation 5: box .* is not four finite numbers"),
        ({"bbox": [1, 2, 3]}, r"annotation 5: bbox \[1, 2, 3\] is not"),
    ],
)
def test_wrong_annotation_is_named(coco_folder, change, says):
    with pytest.raises(UserError, match=rf"instances\.json, {says}"):
        dataset(coco_folder([{**BOX, **change}]))


CATS = {"id": 3, "name": "cat"}


@pytest.mark.parametrize(
    ("annotations", "categories", "says"),
    [
        ([BOX, BOX], (CATS,), "annotation id 5 twice"),
        ([BOX], (CATS, {"id": 3, "name": "dog"}), "category id 3 twice"),
        ([BOX], (CATS, {"id": 7, "name": "cat"}), "category name cat twice"),
    ],
)
def test_what_is_given_twice_is_named(coco_folder, annotations, categories, says):
    with pytest.raises(UserError, match=rf"instances\.json gives {says}"):
        dataset(coco_folder(annotations, categories))


def test_box_that_reaches_out_is_clipped_with_a_warning(coco_folder, warnings):
    data = dataset(coco_folder([{**BOX, "bbox": [-5, 20, 20, 90]}]))
    assert data[0]["data_samples"].gt_instances.bboxes.tensor.tolist() == [[0, 20, 15, 30]]
    assert sum("1 box(es)" in w and "clipped" in w and "annotation 5" in w for w in warnings) == 1


@pytest.mark.parametrize("box", [[50, 3, 10, 20], [2, 3, 0, 20], [2, 3, 10, -4], [2, -40, 10, 20]])
def test_box_without_area_in_the_image_is_an_error_or_dropped_by_choice(coco_folder, warnings, box):
    folder = coco_folder([{**BOX, "bbox": box}])
    with pytest.raises(UserError, match=r"annotation 5: box .* has no area inside the image of 40 x 30"):
        dataset(folder)
    data = dataset(folder, drop_bad_boxes=True)
    assert len(data[0]["data_samples"].gt_instances) == 0
    assert sum("1 box(es)" in w and "dropped" in w and "annotation 5" in w for w in warnings) == 1


def test_mask_of_another_size_is_an_error(coco_folder):
    folder = coco_folder([{**BOX, "segmentation": {"size": [10, 10], "counts": [100]}}])
    with pytest.raises(UserError, match=r"a\.png is for an image of size \[10, 10\]"):
        dataset(folder)[0]


def test_mask_that_is_no_mask_is_an_error(coco_folder):
    with pytest.raises(UserError, match=r"mask of .*a\.png is neither polygons nor run lengths"):
        dataset(coco_folder([{**BOX, "segmentation": "all of it"}]))[0]


def test_image_of_another_size_than_annotated_is_an_error(coco_folder):
    folder = coco_folder([BOX])
    write_image(folder / "images" / "a.png", np.zeros((40, 30, 3), np.uint8))
    with pytest.raises(UserError, match=r"a\.png is 30x40, annotated as 40x30"):
        dataset(folder)[0]


def test_file_that_is_no_coco_json_is_named(coco_folder):
    folder = coco_folder([BOX])
    (folder / "instances.json").write_text('{"images": []}')
    with pytest.raises(UserError, match=r"instances\.json is not COCO json.*annotations, categories"):
        dataset(folder)
    (folder / "instances.json").write_text('{"images": [')
    with pytest.raises(UserError, match=r"instances\.json cannot be read as json"):
        dataset(folder)


def test_image_entry_without_size_is_named(coco_folder):
    with pytest.raises(UserError, match=r"images\[0\] lacks width, height"):
        dataset(coco_folder([], images=[{"id": 1, "file_name": "a.png"}]))


def test_file_without_images_is_named(coco_folder):
    with pytest.raises(UserError, match=r"instances\.json names no picture"):
        dataset(coco_folder([], images=[]))


def test_missing_files_are_named(coco_folder, tmp_path):
    folder = coco_folder([BOX])
    with pytest.raises(UserError, match=r"lacks other\.json"):
        dataset(folder, ann_file="other.json")
    (folder / "images" / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png does not exist"):
        dataset(folder)[0]
