from __future__ import annotations

import numpy as np

from opsin.segmentation.visualization import borders, class_areas, distinct_colours, draw_semantic, overlay

CLASSES = ("sky", "road")
PALETTE = [(200, 0, 0), (0, 0, 200)]


def test_colours_of_many_classes_differ() -> None:
    colours = distinct_colours(150).astype(int)
    distances = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(150, dtype=int)
    assert distances.min() > 0
    assert distances[np.arange(149), np.arange(1, 150)].min() > 100


def test_overlay_tints_classes_and_leaves_void_alone() -> None:
    image = np.full((6, 6, 3), 100, np.uint8)
    labels = np.repeat(np.array([0, 1, 255], np.uint8), 2)[:, None].repeat(6, axis=1)
    drawn = overlay(image, labels, PALETTE, opacity=0.5)
    assert drawn[0, 0].tolist() == [150, 50, 50]
    assert drawn[2, 0].tolist() == [50, 50, 150]
    assert drawn[5, 0].tolist() == [100, 100, 100]
    assert (drawn[1] == 255).all() and (drawn[3] == 255).all()


def test_borders_lie_between_labels_only() -> None:
    labels = np.zeros((4, 4), np.uint8)
    assert not borders(labels).any()
    labels[2:, 2:] = 1
    assert borders(labels).sum() == 4


def test_areas_are_sorted_and_leave_absent_classes_out() -> None:
    labels = np.array([[1, 1, 1, 0, 255]], np.uint8)
    assert list(class_areas(labels, (*CLASSES, "car")).items()) == [("road", 3), ("sky", 1)]


def test_picture_has_a_legend_even_beside_a_tiny_image() -> None:
    image, labels = np.zeros((3, 5, 3), np.uint8), np.array([[0, 1, 1, 1, 1]] * 3, np.uint8)
    drawn = draw_semantic(image, labels, CLASSES, PALETTE)
    assert drawn.dtype == np.uint8 and drawn.shape[0] >= 40 and drawn.shape[1] > 60
    column = drawn[:, 5:]
    for colour in PALETTE:
        assert (column == colour).all(-1).sum() > 50
