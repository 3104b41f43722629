import numpy as np
import pytest

from opsin.core.data.image import write_image
from opsin.core.data.transforms import Albumentations, LoadImage
from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS


def sample():
    """A 20x40 picture with two rectangles; everything drawn on it says where they are."""
    boxes = np.array([[2, 3, 10, 9], [30, 5, 38, 15]], np.float32)
    image = np.zeros((20, 40, 3), np.uint8)
    masks = np.zeros((2, 20, 40), np.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        masks[i, y1:y2, x1:x2] = 1
        image[y1:y2, x1:x2] = 100 + i
    return {
        "img": image,
        "ori_shape": (20, 40),
        "gt_bboxes": boxes,
        "gt_bboxes_labels": np.array([5, 6]),
        "gt_ignore_flags": np.array([False, True]),
        "gt_masks": masks,
        "gt_seg_map": masks[0] + 2 * masks[1],
        "gt_keypoints": np.array([[[2, 3, 2]], [[30, 5, 2]]], np.float32),
    }


def boxes_of(masks):
    found = []
    for mask in masks:
        y, x = np.nonzero(mask)
        found.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    return np.array(found, np.float32)


def run(*transforms, results=None, **options):
    return Albumentations(list(transforms), **options)(results or sample())


def test_boxes_masks_and_maps_turn_with_the_picture():
    out = run({"type": "HorizontalFlip", "p": 1})
    assert out["gt_bboxes"] == pytest.approx(np.array([[30, 3, 38, 9], [2, 5, 10, 15]]), abs=1e-5)
    assert boxes_of(out["gt_masks"]) == pytest.approx(out["gt_bboxes"], abs=1e-5)
    assert (out["gt_seg_map"] == out["gt_masks"][0] + 2 * out["gt_masks"][1]).all()
    assert ((out["img"][..., 0] > 0) == (out["gt_seg_map"] > 0)).all()
    assert out["gt_keypoints"][0, 0].tolist() == [37, 3, 2]


def test_boxes_outside_a_crop_go_with_all_their_rows():
    crop = {"type": "Crop", "x_min": 20, "y_min": 0, "x_max": 40, "y_max": 12, "p": 1}
    out = run(crop)
    assert out["gt_bboxes"].tolist() == [[10, 5, 18, 12]]
    assert out["gt_bboxes_labels"].tolist() == [6]
    assert out["gt_ignore_flags"].tolist() == [True]
    assert out["gt_masks"].shape == (1, 12, 20)
    assert (boxes_of(out["gt_masks"]) == out["gt_bboxes"]).all()
    assert out["gt_keypoints"].tolist() == [[[10, 5, 2]]]
    assert out["img_shape"] == (12, 20)


def test_keypoint_outside_the_picture_becomes_invisible():
    results = {
        "img": np.zeros((20, 40, 3), np.uint8),
        "gt_keypoints": np.array([[[2, 3, 2], [30, 5, 2]]], float),
    }
    out = run({"type": "Crop", "x_min": 20, "y_min": 0, "x_max": 40, "y_max": 20, "p": 1}, results=results)
    assert out["gt_keypoints"][0, :, 2].tolist() == [0, 2]


def test_mostly_hidden_boxes_go_when_asked():
    crop = {"type": "Crop", "x_min": 8, "y_min": 0, "x_max": 40, "y_max": 20, "p": 1}
    assert len(run(crop)["gt_bboxes"]) == 2
    assert run(crop, min_visibility=0.3)["gt_bboxes_labels"].tolist() == [6]


def test_all_boxes_gone_leaves_empty_arrays():
    out = run({"type": "Crop", "x_min": 12, "y_min": 0, "x_max": 28, "y_max": 20, "p": 1})
    assert out["gt_bboxes"].shape == (0, 4)
    assert out["gt_bboxes"].dtype == np.float32
    assert out["gt_masks"].shape == (0, 20, 16)
    assert out["gt_bboxes_labels"].shape == (0,)
    assert out["gt_keypoints"].shape == (0, 1, 3)


def test_picture_without_objects_passes():
    results = sample()
    for key in ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags", "gt_masks", "gt_keypoints"):
        results[key] = results[key][:0]
    out = run({"type": "Resize", "height": 10, "width": 10}, results=results)
    assert out["gt_bboxes"].shape == (0, 4)
    assert out["gt_masks"].shape == (0, 10, 10)


def test_scale_factor_follows_a_resize():
    out = run({"type": "LongestMaxSize", "max_size": 80})
    assert out["img"].shape == (40, 80, 3)
    assert out["scale_factor"] == (2, 2)
    assert out["gt_bboxes"][0].tolist() == [4, 6, 20, 18]


def test_same_numpy_state_gives_the_same_augmentation():
    transform = Albumentations(
        [{"type": "RandomCrop", "height": 8, "width": 8}, {"type": "GaussNoise", "p": 1}]
    )
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)

    def draw(seed):
        np.random.seed(seed)
        return transform({"img": picture.copy()})["img"]

    assert (draw(3) == draw(3)).all()
    assert (draw(3) != draw(4)).any()


def test_transforms_of_one_pipeline_are_drawn_independently():
    flips = Albumentations([{"type": "HorizontalFlip", "p": 0.5}, {"type": "VerticalFlip", "p": 0.5}])
    corner = np.zeros((2, 2, 3), np.uint8)
    corner[0, 0] = 255
    np.random.seed(0)
    seen = {tuple(np.argwhere(flips({"img": corner.copy()})["img"][..., 0])[0]) for _ in range(60)}
    assert len(seen) == 4


def test_shortest_edge_is_bounded_by_the_longest():
    edge = {"type": "ShortestEdge", "short": [60], "longest": 100}
    assert run(edge)["img_shape"] == (50, 100)
    assert run({**edge, "longest": 200})["img_shape"] == (60, 120)
    assert run({**edge, "longest": 200})["gt_bboxes"][0] == pytest.approx([6, 9, 30, 27], abs=1e-4)


def test_crop_between_stays_within_its_bounds():
    crop = Albumentations([{"type": "CropBetween", "low": 8, "high": 16}])
    shapes = set()
    for seed in range(20):
        np.random.seed(seed)
        shapes.add(crop({"img": np.zeros((12, 40, 3), np.uint8)})["img"].shape[:2])
    assert {height for height, _ in shapes} <= set(range(8, 13))
    assert {width for _, width in shapes} <= set(range(8, 17))
    assert len(shapes) > 5


def test_nested_transforms_are_built():
    out = run({"type": "OneOf", "p": 1, "transforms": [{"type": "HorizontalFlip", "p": 1}]})
    assert out["gt_bboxes"][0].tolist() == [30, 3, 38, 9]


def test_unknown_transform_names_the_nearest():
    with pytest.raises(UserError, match=r"HorizontalFlop.*HorizontalFlip"):
        Albumentations([{"type": "HorizontalFlop"}])
    with pytest.raises(UserError, match="BboxParams"):
        Albumentations([{"type": "BboxParams"}])


def test_unknown_argument_is_an_error():
    with pytest.raises(UserError, match=r"HorizontalFlip.*probability"):
        Albumentations([{"type": "HorizontalFlip", "probability": 1}])


def test_load_image_reads_once_and_takes_a_given_picture(tmp_path):
    write_image(tmp_path / "a.png", np.full((4, 6, 3), 7, np.uint8))
    load = TRANSFORMS.build({"type": "opsin.LoadImage"})
    assert isinstance(load, LoadImage)
    out = load({"img_path": tmp_path / "a.png"})
    assert (out["img"] == 7).all()
    assert out["img_shape"] == out["ori_shape"] == (4, 6)
    given = load({"img_path": "nowhere.png", "img": np.zeros((2, 3, 3), np.uint8)})
    assert given["ori_shape"] == (2, 3)


def test_solarize_add_brightens_the_dark_half_alone():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    transform = Albumentations([{"type": "SolarizeAdd", "addition": (60, 60), "p": 1.0}])
    got = transform({"img": image})["img"]
    want = np.where(image < 128, image.astype(int) + 60, image)
    assert (got == want).all()


def test_what_an_operation_uncovers_is_marked_in_the_map_and_belongs_to_no_object():
    shrink = Albumentations([dict(type="Affine", scale=(0.5, 0.5), fill_mask=255, p=1.0)])
    mask = np.zeros((1, 32, 32), np.uint8)
    mask[0, 10:20, 10:20] = 1
    results = shrink(
        {
            "img": np.zeros((32, 32, 3), np.uint8),
            "gt_masks": mask,
            "gt_bboxes": np.array([[10, 10, 20, 20]], np.float32),
            "gt_seg_map": np.zeros((32, 32), np.uint8),
        }
    )
    assert 10 < results["gt_masks"].sum() < 50 and results["gt_masks"].max() == 1
    assert results["gt_seg_map"][0, 0] == 255
