"""Masks in the layouts that people have, prompts made of them, and how masks are measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.segmentation.promptable.datasets.run_lengths import decode, encode
from opsin.segmentation.promptable.metrics import MaskMetric, boundary, mask_iou
from opsin.segmentation.promptable.models.mask_answers import distinct_masks, grid_points, stability
from opsin.segmentation.promptable.models.mask_loss import SampledMaskLoss, unsure_places, values_at
from opsin.segmentation.promptable.models.prompt_sampling import (
    PromptSampler,
    box_prompts,
    central_point_prompts,
    random_point_prompts,
)
from opsin.segmentation.promptable.prompts import Prompts
from opsin.segmentation.promptable.samples import write_samples

pytest.importorskip("pycocotools")

PIPELINE = [{"type": "opsin.LoadImage"}, {"type": "opsin.LoadMasks"}]
TABLE = {
    "coco": {"type": "opsin.CocoMasks", "ann_file": "annotations/instances_val.json"}
    | {"data_prefix": {"img": "images/val"}},
    "DIS5K": {"type": "opsin.DIS5K", "split": "DIS-VD"},
    "SA-1B": {"type": "opsin.SA1B", "folder": "val"},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few sample pictures of each layout; tests read them only."""
    folder = tmp_path_factory.mktemp("promptable")
    write_samples(folder, train=2, val=3)
    return folder


def read(root: Path, layout: str, **changes: Any) -> Any:
    return DATASETS.build({**TABLE[layout], "data_root": str(root), "pipeline": PIPELINE, **changes})


def box_mask(size: tuple[int, int], left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """One picture of 8x6 pixels and its annotations: a polygon, run lengths plain and packed, a crowd."""
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "x.png")
    mask = box_mask((6, 8), 0, 0, 2, 3)
    rows: list[Any] = [
        [[2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]],
        {"size": [6, 8], "counts": [0, 3, 3, 3, 39]},
        encode(mask),
    ]
    annotations = [{"id": i, "image_id": 7, "segmentation": row, "iscrowd": 0} for i, row in enumerate(rows)]
    annotations.append({"id": 9, "image_id": 7, "segmentation": rows[1], "iscrowd": 1})
    images = [{"id": 7, "file_name": "x.png"}, {"id": 8, "file_name": "unmarked.png"}]
    return tmp_path, {"images": images, "annotations": annotations}


def coco_set(root: Path, content: Any) -> Any:
    (root / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read(root, "coco", ann_file="a.json", data_prefix={"img": ""})


def test_coco_polygons_and_run_lengths_become_masks_and_crowds_go(coco: tuple[Path, dict[str, Any]]) -> None:
    dataset = coco_set(*coco)
    assert len(dataset) == 1  # a picture without a mask teaches nothing
    masks = dataset[0]["gt_masks"]
    assert masks.dtype == np.uint8 and masks.shape == (3, 6, 8)
    np.testing.assert_array_equal(masks[0], box_mask((6, 8), 2, 1, 6, 4))
    np.testing.assert_array_equal(masks[1], box_mask((6, 8), 0, 0, 2, 3))
    np.testing.assert_array_equal(masks[2], masks[1])
    assert dataset[0]["gt_things"].tolist() == [True] * 3


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda c: "no json", r"a.json is not json"),
        (lambda c: [], r"holds a list, not a json object"),
        (lambda c: {"images": []}, r"is not a COCO file: it lacks annotations"),
        (lambda c: {**c, "images": []}, r"annotates image 7, which it does not list"),
        (lambda c: {**c, "images": [], "annotations": []}, r"no sample in"),
        (
            lambda c: {**c, "annotations": [{"id": 3, "image_id": 7, "segmentation": []}]},
            r"annotation 3 has no segmentation",
        ),
    ],
)
def test_damaged_coco_file_is_named(coco: tuple[Path, dict[str, Any]], break_it: Any, words: str) -> None:
    root, content = coco
    with pytest.raises(UserError, match=words):
        coco_set(root, break_it(content))


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        ({"size": [8, 6], "counts": [48]}, r"differ in size: \[8, 6\] and \[6, 8\] \(rows, columns\)"),
        ({"size": [6, 8], "counts": [5, 3]}, r"its runs are 8 pixels long"),
        ([[1.0, 2.0]], r"mask code that can't be read"),
        ({"size": [6, 8]}, r"mask code that can't be read"),
    ],
)
def test_damaged_mask_code_is_named(coco: tuple[Path, dict[str, Any]], segment: Any, words: str) -> None:
    root, content = coco
    content["annotations"] = [{"id": 1, "image_id": 7, "segmentation": segment}]
    with pytest.raises(UserError, match=words):
        coco_set(root, content)[0]


def test_run_lengths_go_there_and_back() -> None:
    masks = np.random.default_rng(0).random((4, 7, 5)) < 0.4
    masks[3] = False
    codes = json.loads(json.dumps([encode(mask) for mask in masks]))
    np.testing.assert_array_equal(decode(codes, (7, 5), source="x"), masks)


def test_dis5k_layout_gives_one_mask_a_picture(written: Path) -> None:
    dataset = read(written / "DIS5K", "DIS5K")
    assert len(dataset) == 3
    sample = dataset[1]
    gt = np.asarray(Image.open(written / "DIS5K/DIS-VD/gt/0001.png"))
    np.testing.assert_array_equal(sample["gt_masks"], (gt > 127)[None])


def test_sa1b_layout_reads_the_json_beside_each_picture(written: Path) -> None:
    dataset = read(written / "SA-1B", "SA-1B")
    assert len(dataset) == 3
    listed = json.loads((written / "SA-1B/val/sa_1.json").read_text())["annotations"]
    masks = dataset[0]["gt_masks"]
    assert [int(mask.sum()) for mask in masks] == [annotation["area"] for annotation in listed]


@pytest.mark.parametrize(
    ("layout", "remove", "words"),
    [
        ("coco", "annotations/instances_val.json", r"lacks annotations/instances_val.json"),
        ("DIS5K", "DIS-VD/gt/0001.png", r"im/0001.jpg has no mask .*gt/0001.png"),
        ("SA-1B", "val/sa_2.json", r"sa_2.jpg has no sa_2.json beside it"),
    ],
)
def test_missing_file_is_named(tmp_path: Path, layout: str, remove: str, words: str) -> None:
    write_samples(tmp_path, train=1, val=2)
    (tmp_path / layout / remove).unlink()
    with pytest.raises(UserError, match=words):
        read(tmp_path / layout, layout)
    with pytest.raises(UserError, match="no data folder"):
        read(tmp_path / "nowhere", layout)


def test_mask_of_another_size_and_masks_of_colours_are_named(tmp_path: Path) -> None:
    write_samples(tmp_path, train=1, val=1)
    mask = tmp_path / "DIS5K/DIS-VD/gt/0000.png"
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(mask)
    with pytest.raises(UserError, match=r"gt/0000.png and image .* differ in size: 20x10 and 128x128"):
        read(tmp_path / "DIS5K", "DIS5K")[0]
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(mask)
    with pytest.raises(UserError, match=r"gt/0000.png holds colours"):
        read(tmp_path / "DIS5K", "DIS5K")[0]
    mask.write_bytes(mask.read_bytes()[:60])
    with pytest.raises(UserError, match=r"gt/0000.png"):
        read(tmp_path / "DIS5K", "DIS5K")[0]


def test_empty_masks_are_left_out(tmp_path: Path) -> None:
    write_samples(tmp_path, train=1, val=1)
    Image.fromarray(np.zeros((128, 128), np.uint8)).save(tmp_path / "DIS5K/DIS-VD/gt/0000.png")
    assert read(tmp_path / "DIS5K", "DIS5K")[0]["gt_masks"].shape == (0, 128, 128)


def test_panoptic_segments_are_masks_that_know_whether_they_are_things(samples: Path) -> None:
    settings = {
        "type": "opsin.CocoPanopticMasks",
        "ann_file": "annotations/panoptic_val.json",
        "data_prefix": {"img": "images/val", "seg": "annotations/panoptic_val"},
        "data_root": str(samples),
        "pipeline": PIPELINE,
    }
    sample = DATASETS.build(settings)[0]
    assert sample["gt_masks"].sum(0).max() == 1
    assert sample["gt_things"].any() and not sample["gt_things"].all()
    assert len(sample["gt_things"]) == len(sample["gt_masks"])


def test_halves_of_the_sample_data_are_reproducible(written: Path, tmp_path: Path) -> None:
    write_samples(tmp_path, train=2, val=3)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert len(files) == 27
    for name in files:
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_boxes_and_points_of_masks_are_theirs() -> None:
    masks = torch.from_numpy(np.stack([box_mask((40, 50), 10, 5, 21, 16), box_mask((40, 50), 0, 0, 3, 40)]))
    assert box_prompts(masks).boxes.tolist() == [[10, 5, 21, 16], [0, 0, 3, 40]]
    central = central_point_prompts(masks)
    assert central.points[0, 0].tolist() == [15, 10] and central.labels.tolist() == [[1], [1]]
    assert central.points[1, 0, 0] == 1
    torch.manual_seed(0)
    drawn = random_point_prompts(masks, 5)
    assert drawn.points.shape == (2, 5, 2)
    for mask, places in zip(masks, drawn.points.long(), strict=True):
        assert mask[places[:, 1], places[:, 0]].all()
    assert len({tuple(place) for place in drawn.points[0].tolist()}) > 1


@pytest.mark.parametrize("mode", ["boxes", "points", "mixed", "more_boxes", "per_instance"])
def test_modes_draw_boxes_as_often_as_published_and_for_things_alone(mode: str) -> None:
    torch.manual_seed(0)
    masks = torch.from_numpy(np.stack([box_mask((9, 9), i, i, i + 3, i + 3) for i in range(4)]))
    things = torch.tensor([True, True, True, False])
    sampler, boxed, counts = PromptSampler(mode), 0, set()
    for _ in range(150):
        first, second = sampler.draw([masks, masks], [things, things])
        for prompts, rows in (*first, *second):
            assert len(prompts) == len(rows)
            if prompts.boxes is not None:
                assert things[rows].all()
                assert torch.equal(prompts.boxes, box_prompts(masks[rows]).boxes)
                boxed += len(rows)
            else:
                counts.add(prompts.points.shape[1])
        if mode != "per_instance":  # one kind, and one number of points, for the whole batch
            assert len(first) == len(second) == 1
            assert (first[0][0].boxes is None) == (second[0][0].boxes is None)
    expected = {"boxes": 1, "points": 0, "mixed": 1 / 3, "more_boxes": 2 / 3, "per_instance": 2 / 3}[mode]
    assert abs(boxed / (150 * 2 * 3) - expected) < 0.1
    assert counts == (set() if mode == "boxes" else {1, 2, 3, 4, 5})


def test_sampler_skips_empty_masks_and_keeps_to_the_limit() -> None:
    masks = torch.zeros(6, 5, 5, dtype=torch.bool)
    masks[:5, 2, 2] = True
    things = torch.ones(6, dtype=torch.bool)
    [asked] = PromptSampler("points", most_masks=3).draw([masks], [things])
    assert len(asked[0][1]) == 3 and 5 not in asked[0][1]
    assert PromptSampler("mixed").draw([masks[5:]], [things[5:]]) == [[]]
    with pytest.raises(UserError, match="did you mean boxes"):
        PromptSampler("boxs")


def test_prompts_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Prompts(points=torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="as many of each"):
        Prompts(boxes=torch.zeros(2, 4), masks=torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="need points, boxes or masks"):
        Prompts()


def test_loss_is_small_for_the_right_answer_and_reads_between_cells() -> None:
    torch.manual_seed(0)
    masks = torch.zeros(2, 32, 32)
    masks[0, 8:24, 4:20] = masks[1, :16] = 1
    loss = SampledMaskLoss(points=256, dice_weight=2.0, mask_weight=3.0)
    right = loss(40 * (masks - 0.5), masks)
    wrong = loss(-40 * (masks - 0.5), masks)
    assert right["loss_dice"] < 0.3 and right["loss_mask"] < 3  # most places lie on the border
    assert wrong["loss_dice"] > 1.9 and wrong["loss_mask"] > 20
    ramp = torch.arange(4.0).expand(1, 4, 4)
    places = torch.tensor([[[0.5, 0.5], [0.125, 0.9]]])
    assert values_at(ramp, places)[0].tolist() == pytest.approx([1.5, 0.0])


def test_places_are_where_the_answer_is_unsure() -> None:
    torch.manual_seed(0)
    logits = torch.linspace(-9, 9, 64).expand(1, 64, 64)  # three quarters of the places: the middle quarter
    near = (unsure_places(logits, 400)[0, :, 0] - 0.5).abs() < 0.14
    assert near.float().mean() > 0.75
    assert unsure_places(logits, 400).shape == (1, 400, 2)


def test_mask_iou_is_what_one_counts_by_hand() -> None:
    first, second = box_mask((10, 10), 0, 0, 4, 4), box_mask((10, 10), 2, 0, 6, 4)
    assert mask_iou(first, second) == pytest.approx(8 / 24)
    assert mask_iou(first, first) == 1 and mask_iou(first, ~first) == 0
    assert mask_iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 1


def test_boundary_is_what_erosion_takes_and_the_edge_of_the_picture_counts() -> None:
    mask = box_mask((30, 40), 10, 5, 20, 15)  # diagonal 50: one erosion
    ring = boundary(mask)
    assert ring.sum() == 100 - 64
    assert boundary(np.ones((30, 40), bool)).sum() == 2 * 40 + 2 * 28
    wide = box_mask((120, 160), 20, 20, 60, 60)  # diagonal 200: four erosions
    assert boundary(wide).sum() == 40 * 40 - 32 * 32
    shifted = box_mask((30, 40), 11, 5, 21, 15)
    # rings of 36 pixels share two rows of 9 pixels
    assert mask_iou(ring, boundary(shifted)) == pytest.approx(18 / (2 * 36 - 18))


def test_metric_is_a_mean_over_masks_not_pictures() -> None:
    metric = MaskMetric()
    right = torch.from_numpy(box_mask((30, 40), 10, 5, 20, 15))[None]
    half = torch.from_numpy(box_mask((30, 40), 10, 5, 15, 15))[None]
    metric.process({}, [{"pred_masks": right, "gt_masks": right}])
    metric.process({}, [{"pred_masks": torch.cat((half, half)), "gt_masks": torch.cat((right, right))}])
    found = metric.compute_metrics(metric.results)
    assert found["mIoU"] == pytest.approx(100 * (1 + 0.5 + 0.5) / 3)
    shared, ring, half_ring = 10 + 2 * 4, 36, 50 - 24
    assert found["bIoU"] == pytest.approx(100 * (1 + 2 * shared / (ring + half_ring - shared)) / 3)
    with pytest.raises(UserError, match="no mask"):
        MaskMetric().compute_metrics([])


def test_stability_is_one_for_firm_borders_and_falls_for_soft_ones() -> None:
    firm = torch.full((1, 8, 8), -9.0)
    firm[:, 2:6, 2:6] = 9.0
    soft = firm.clone()
    soft[:, 2:6, 2:4] = 0.5
    assert stability(torch.cat((firm, soft))).tolist() == [1.0, 0.5]
    assert stability(torch.full((1, 4, 4), -9.0)).tolist() == [0.0]


def test_of_masks_with_like_boxes_the_firmer_one_stays() -> None:
    masks = np.stack(
        [
            box_mask((20, 20), 0, 0, 10, 10),
            box_mask((20, 20), 0, 0, 10, 9),
            box_mask((20, 20), 12, 12, 18, 18),
            box_mask((20, 20), 0, 0, 0, 0),
        ]
    )
    scores = torch.tensor([0.8, 0.9, 0.5, 1.0])
    assert distinct_masks(torch.from_numpy(masks), scores, iou_threshold=0.7).tolist() == [1, 2]


def test_grid_points_are_the_middles_of_equal_fields() -> None:
    points = grid_points(2, (8, 4))
    assert points.shape == (4, 1, 2)
    assert points[:, 0].tolist() == [[0.5, 1.5], [2.5, 1.5], [0.5, 5.5], [2.5, 5.5]]
