import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapely.affinity import rotate, translate
from shapely.geometry import Point, Polygon, box
from torch import Tensor

from opsin.core.ops.bbox_overlaps import bbox_overlaps
from opsin.core.ops.box_iou_rotated import box_iou_rotated, nms_rotated
from opsin.core.ops.points_in_polygons import points_in_polygons


def random_boxes(count: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=g) * 10
    return torch.cat([corner, corner + torch.rand(count, 2, generator=g) * 8 + 0.1], 1)


def random_rotated(count: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    centre, size = torch.rand(count, 2, generator=g) * 6, torch.rand(count, 2, generator=g) * 5 + 0.2
    return torch.cat([centre, size, torch.rand(count, 1, generator=g) * 7 - 3.5], 1).double()


def shape_of(rotated: Tensor) -> Polygon:
    x, y, width, height, angle = rotated.tolist()
    return translate(
        rotate(box(-width / 2, -height / 2, width / 2, height / 2), angle, (0, 0), use_radians=True), x, y
    )


@given(
    rows=st.integers(0, 5),
    columns=st.integers(0, 5),
    mode=st.sampled_from(["iou", "iof"]),
    seed=st.integers(0, 99),
)
def test_overlaps_are_areas_of_polygons(rows: int, columns: int, mode: str, seed: int) -> None:
    first, second = random_boxes(rows, seed), random_boxes(columns, seed + 1)
    overlaps = bbox_overlaps(first, second, mode)
    assert overlaps.shape == (rows, columns)
    for i in range(rows):
        for j in range(columns):
            a, b = box(*first[i].tolist()), box(*second[j].tolist())
            base = a.area if mode == "iof" else a.union(b).area
            assert overlaps[i, j].item() == pytest.approx(a.intersection(b).area / base, abs=1e-5)
    if rows == columns:
        torch.testing.assert_close(bbox_overlaps(first, second, mode, aligned=True), overlaps.diag())


def test_pixel_boxes_own_their_last_edge_and_gradients_flow() -> None:
    pixel = torch.tensor([[0.0, 0, 0, 0]], requires_grad=True)
    assert bbox_overlaps(pixel, torch.tensor([[0.0, 0, 1, 0]]), offset=1).item() == 0.5
    boxes = random_boxes(3, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda b: bbox_overlaps(b, random_boxes(2, 2).double()), boxes)


def test_unknown_modes_are_named() -> None:
    for overlaps in (bbox_overlaps, box_iou_rotated):
        with pytest.raises(ValueError, match="'giou'"):
            overlaps(torch.zeros(1, 5), torch.zeros(1, 5), "giou")


@given(count=st.integers(0, 6), mode=st.sampled_from(["iou", "iof"]), seed=st.integers(0, 999))
def test_rotated_overlaps_are_areas_of_polygons(count: int, mode: str, seed: int) -> None:
    first, second = random_rotated(count, seed), random_rotated(4, seed + 1)
    overlaps = box_iou_rotated(first, second, mode)
    for i in range(count):
        for j in range(4):
            a, b = shape_of(first[i]), shape_of(second[j])
            base = a.area if mode == "iof" else a.union(b).area
            assert overlaps[i, j].item() == pytest.approx(a.intersection(b).area / base, abs=1e-9)


def test_rotated_boxes_that_touch_coincide_or_vanish() -> None:
    square = torch.tensor([[0.0, 0, 2, 2, 0]])
    others = torch.tensor(
        [
            [0.0, 0, 2, 2, 0],
            [0, 0, 2, 2, math.pi / 2],
            [2, 0, 2, 2, 0],
            [0, 0, 1, 1, 0.3],
            [0, 0, 2, 0, 0],
            [9, 9, 1, 1, 0],
        ]
    )
    torch.testing.assert_close(box_iou_rotated(square, others)[0], torch.tensor([1, 1, 0, 0.25, 0, 0]))
    assert torch.equal(box_iou_rotated(others, others, aligned=True), torch.tensor([1.0, 1, 1, 1, 0, 1]))


def test_rotated_nms_keeps_other_labels() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 2, 0.1], [0, 0, 4, 2, 0.15], [9, 9, 1, 1, 0]])
    scores = torch.tensor([0.5, 0.9, 0.1])
    assert nms_rotated(boxes, scores, 0.5).tolist() == [1, 2]
    assert nms_rotated(boxes, scores, 0.5, torch.tensor([0, 1, 0])).tolist() == [1, 0, 2]
    assert nms_rotated(boxes[:0], scores[:0], 0.5).shape == (0,)


@given(seed=st.integers(0, 999))
def test_points_in_quadrilaterals(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    angles = (torch.rand(3, 4, generator=g).sort(1).values * 6.28)[..., None]
    polygons = torch.cat([angles.cos() * 5 + 3, angles.sin() * 4 + 2], -1).flatten(1)
    points = torch.rand(20, 2, generator=g) * 10 - 2
    inside = points_in_polygons(points, polygons)
    assert inside.shape == (20, 3)
    for j in range(3):
        shape = Polygon(polygons[j].view(4, 2).tolist())
        for i in range(20):
            assert bool(inside[i, j]) == shape.contains(Point(points[i].tolist()))
    assert points_in_polygons(points[:0], polygons).shape == (0, 3)
