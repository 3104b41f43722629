import numpy as np

from opsin.detection.palette import palette
from opsin.detection.visualization import draw


def objects():
    boxes = np.array([[4, 4, 20, 20], [30, 10, 50, 36]], np.float32)
    masks = np.zeros((2, 48, 64), bool)
    masks[0, 6:18, 6:18] = True
    return boxes, [0, 1], masks


def test_colours_differ_and_do_not_depend_on_the_count():
    assert len(set(palette(80))) == 80
    assert palette(80)[:3] == palette(3)


def test_small_image_is_enlarged_and_tinted_in_the_class_colour():
    boxes, labels, masks = objects()
    image = np.full((48, 64, 3), 128, np.uint8)
    drawn = draw(image, boxes, labels, classes=("a", "b"), colours=[(255, 0, 0), (0, 0, 255)], masks=masks)
    assert drawn.shape == (480, 640, 3)
    inside = drawn[120, 120].astype(int)
    assert inside[0] > inside[2] + 50
    assert (image == 128).all()
    edge = drawn[300:320, 295:306].astype(int)
    assert (edge[..., 2] - edge[..., 0]).max() > 200


def test_large_image_keeps_its_size_and_nothing_to_draw_changes_nothing():
    image = np.random.default_rng(0).integers(0, 255, (500, 700, 3), np.uint8)
    drawn = draw(image, np.zeros((0, 4), np.float32), [], classes=(), colours=[], scores=[])
    assert (drawn == image).all()


def test_label_of_a_box_at_the_border_stays_inside():
    image = np.zeros((480, 480, 3), np.uint8)
    box = np.array([[470, 0, 480, 480]], np.float32)
    drawn = draw(image, box, [0], classes=("a long name",), colours=[(0, 255, 0)], scores=[0.5])
    assert (drawn[3:8, 380:460] == (0, 255, 0)).all(axis=2).any()
