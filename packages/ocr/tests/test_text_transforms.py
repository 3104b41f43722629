"""Polygons, and the transforms that carry them."""

import numpy as np
import pytest

from opsin.ocr.text_detection.datasets import (
    CropText,
    LoadTextAnnotations,
    PackTextInputs,
    PolygonAlbumentations,
)
from opsin.ocr.text_detection.polygons import (
    clip_polygon,
    clockwise,
    mask_to_polygon,
    min_area_rectangle,
    polygon_iou,
    rasterize,
    repair_polygon,
)


def rectangle(x1, y1, x2, y2):
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def bow(radius=100.0, height=40.0, points=40):
    """A half circle of text around (150, 150)."""
    angles = np.linspace(np.pi, 0, points)
    rim = np.stack([np.cos(angles), -np.sin(angles)], axis=1)
    return np.concatenate([150 + rim * (radius + height), 150 + rim[::-1] * radius]).astype(np.float32)


def sample(*polygons, ignore=(), size=(200, 300)):
    """What the loading transforms give of a black picture with white texts; `ignore` are don't-care rows."""
    img = np.zeros((*size, 3), np.uint8)
    for polygon in polygons:
        img[rasterize(polygon, (0, 0, size[1], size[0]), size)] = 255
    instances = [{"polygon": p, "text": f"t{row}", "ignore": row in ignore} for row, p in enumerate(polygons)]
    entry = {"img": img, "ori_shape": size, "img_shape": size, "instances": instances, "img_id": "a"}
    return LoadTextAnnotations().transform(entry)


def test_iou_of_squares_that_share_a_third():
    assert polygon_iou(rectangle(0, 0, 2, 2), rectangle(1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert polygon_iou(rectangle(0, 0, 2, 2), rectangle(2, 0, 3, 2)) == 0


def test_polygons_become_clockwise_and_keep_their_first_corner():
    turned = rectangle(0, 0, 4, 2)[::-1]
    assert clockwise(turned).tolist() == [[0, 2], [0, 0], [4, 0], [4, 2]]
    assert clockwise(rectangle(0, 0, 4, 2)).tolist() == rectangle(0, 0, 4, 2).tolist()


def test_a_loop_in_an_outline_is_cut_off():
    crossing = np.array([[0, 0], [40, 0], [40, 10], [4, 10], [0, 14], [2, 14], [0, 10]], float)
    repaired = repair_polygon(crossing)
    assert polygon_iou(repaired, rectangle(0, 0, 40, 10)) > 0.95
    halves = np.array([[0, 0], [10, 10], [20, 0], [30, 10], [30, 0], [20, 10], [10, 0], [0, 10]])
    with pytest.raises(ValueError, match="crosses itself into several pieces"):
        repair_polygon(halves)


def test_clipping_tells_the_share_that_is_left():
    clipped, share = clip_polygon(rectangle(-10, 0, 30, 10), (0, 0, 100, 100))
    assert share == pytest.approx(0.75)
    assert polygon_iou(clipped, rectangle(0, 0, 30, 10)) == pytest.approx(1)
    assert clip_polygon(rectangle(-10, 0, -1, 10), (0, 0, 100, 100)) == (None, 0.0)


def test_cells_are_inside_by_their_centres():
    grid = rasterize(rectangle(0, 0, 14.6, 28), (0, 0, 28, 28))
    assert grid[:, :15].all() and not grid[:, 15:].any()
    upper = rasterize(rectangle(100, 50, 160, 54), (100, 50, 160, 58))
    assert upper[:14].all() and not upper[14:].any()


def test_an_outline_of_a_mask_runs_around_its_pixels():
    mask = np.zeros((40, 60), bool)
    mask[10:20, 5:45] = True
    mask[30:33, 50:55] = True  # a smaller piece
    assert polygon_iou(mask_to_polygon(mask), rectangle(5, 10, 45, 20)) == pytest.approx(1)


def test_an_outline_of_curved_text_loses_little():
    polygon = bow()
    found = mask_to_polygon(rasterize(polygon, (0, 0, 300, 300), (300, 300)))
    assert len(found) < 40
    assert polygon_iou(found, polygon) > 0.97


def test_a_triangle_becomes_a_rectangle_and_specks_nothing():
    mask = rasterize(np.array([[2.0, 2], [58, 2], [2, 38]]), (0, 0, 60, 40), (40, 60))
    assert len(mask_to_polygon(mask)) == 4
    assert mask_to_polygon(np.eye(3, dtype=bool)) is None
    assert mask_to_polygon(np.zeros((5, 5), bool)) is None
    speck = np.zeros((9, 9), bool)
    speck[2:5, 2:5] = True
    assert mask_to_polygon(speck) is None


def test_the_smallest_rectangle_of_turned_text():
    turned = np.array([[0, 10], [20, 0], [25, 10], [5, 20]], float)
    found = min_area_rectangle(turned)
    assert polygon_iou(found, turned) == pytest.approx(1, abs=1e-5)
    assert np.allclose(clockwise(found), found)


@pytest.mark.parametrize(
    "transforms",
    [
        [{"type": "Affine", "rotate": (10, 10), "p": 1.0}],
        [{"type": "ShortestEdge", "short": [320], "longest": 450}],
        [{"type": "Affine", "rotate": (-10, 10), "p": 1.0}, {"type": "ColorJitter", "p": 1.0}],
    ],
)
def test_polygons_stay_on_their_text(transforms):
    np.random.seed(4)
    polygons = [rectangle(60, 40, 240, 60), bow(30, 20) - np.float32((0, 20))]
    results = PolygonAlbumentations(transforms).transform(sample(*polygons))
    height, width = results["img"].shape[:2]
    bright = results["img"].mean(axis=2) > 127
    drawn = [rasterize(p, (0, 0, width, height), (height, width)) for p in results["gt_polygons"]]
    covered = np.any(drawn, axis=0)
    assert (covered & bright).sum() / (covered | bright).sum() > 0.96
    assert results["gt_polygons"][1].shape == (80, 2)
    low = np.array([p.min(axis=0) for p in results["gt_polygons"]])
    np.testing.assert_allclose(results["gt_bboxes"][:, :2], low)


def test_the_longer_side_limits_resizing():
    resize = PolygonAlbumentations([{"type": "ShortestEdge", "short": [320], "longest": 450}])
    results = resize.transform(sample(rectangle(0, 0, 300, 200)))
    assert results["img"].shape[:2] == (300, 450)
    np.testing.assert_allclose(results["gt_polygons"][0], rectangle(0, 0, 450, 300), atol=1e-3)


def test_text_that_leaves_the_picture_becomes_dont_care_or_goes():
    shift = [{"type": "Affine", "translate_px": {"x": (-100, -100), "y": (0, 0)}, "p": 1.0}]
    texts = (rectangle(10, 10, 60, 20), rectangle(70, 40, 130, 60), rectangle(150, 80, 200, 90))
    results = PolygonAlbumentations(shift).transform(sample(*texts))
    assert results["gt_texts"] == ["t1", "t2"]
    assert results["gt_ignore_flags"].tolist() == [True, False]
    np.testing.assert_allclose(results["gt_bboxes"], [[0, 40, 30, 60], [50, 80, 100, 90]], atol=0.1)
    assert len(results["gt_bboxes_labels"]) == 2


def test_a_picture_without_text_goes_through():
    results = PolygonAlbumentations([{"type": "HorizontalFlip", "p": 1.0}]).transform(sample())
    results = CropText(100).transform(results)
    assert results["img"].shape == (100, 100, 3)
    packed = PackTextInputs().transform(results)["data_samples"]
    assert packed.gt_instances.bboxes.shape == (0, 4)


def test_a_crop_cuts_no_text_where_it_can():
    texts = [rectangle(10, 10, 90, 25), rectangle(200, 150, 280, 165), rectangle(120, 80, 190, 95)]
    for seed in range(20):
        np.random.seed(seed)
        results = CropText(120).transform(sample(*texts))
        assert results["img"].shape == (120, 120, 3)
        assert len(results["gt_polygons"]) >= 1
        assert not results["gt_ignore_flags"].any()
        x1, y1, x2, y2 = results["gt_bboxes"][0].astype(int)
        assert results["img"][y1:y2, x1:x2].min() == 255


def test_a_crop_that_must_cut_marks_what_it_cuts():
    texts = [rectangle(140, 90, 160, 100), rectangle(0, 0, 300, 80), rectangle(0, 105, 300, 200)]
    np.random.seed(0)
    results = CropText(100).transform(sample(*texts))
    assert dict(zip(results["gt_texts"], results["gt_ignore_flags"], strict=True))["t0"] == np.False_
    cut = len(results["gt_texts"]) - 1
    assert results["gt_ignore_flags"][cut]
    assert results["gt_bboxes"][cut, 2] - results["gt_bboxes"][cut, 0] == 100


def test_dont_care_texts_are_packed_apart():
    packed = PackTextInputs().transform(sample(rectangle(0, 0, 9, 9), rectangle(20, 20, 60, 30), ignore=(0,)))
    assert packed["inputs"].shape == (3, 200, 300)
    found = packed["data_samples"]
    assert found.gt_instances.bboxes.tolist() == [[20, 20, 60, 30]]
    assert found.gt_instances.texts == ["t1"]
    assert found.gt_instances.labels.tolist() == [0]
    assert found.ignored_instances.polygons[0].tolist() == rectangle(0, 0, 9, 9).tolist()
    assert len(found.metainfo["instances"]) == 2
