"""Panoptic quality against numbers worked out by hand, and against panopticapi's way of counting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.core.errors import UserError
from opsin.segmentation.panoptic.metrics import PanopticQuality, PQCounts, SegmentMap, compare, evaluate_files
from opsin.segmentation.panoptic.segments import colours, segments_info, segments_of

CLASSES = ("cat", "dog", "grass", "sky")
THINGS = 2
PALETTE = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]


def segment_map(index: list[list[int]], labels: list[int], crowd: tuple[int, ...] = ()) -> SegmentMap:
    is_crowd = np.isin(np.arange(1, len(labels) + 1), crowd)
    return SegmentMap(np.array(index, np.uint16), np.array(labels), is_crowd)


def test_hand_worked_example() -> None:
    # A cat of 8 pixels, of which 6 are found (one on void, which does not count): IoU 6 / 8.
    # A dog that is missed, a dog that is not there, grass of 6 pixels found as 4 + 2 wrong ones: IoU 4 / 8.
    truth = segment_map(
        [
            [1, 1, 1, 1, 0, 2],
            [1, 1, 1, 1, 0, 2],
            [3, 3, 3, 4, 4, 4],
            [3, 3, 3, 4, 4, 4],
        ],
        [0, 1, 2, 3],
    )
    predicted = segment_map(
        [
            [1, 1, 1, 0, 1, 0],
            [1, 1, 1, 0, 0, 0],
            [2, 2, 0, 2, 3, 3],
            [2, 2, 0, 2, 3, 3],
        ],
        [0, 2, 1],
    )
    counts = compare(predicted, truth, len(CLASSES))
    assert counts.iou.tolist() == [6 / 8, 0, 0, 0]
    assert counts.tp.tolist() == [1, 0, 0, 0]
    assert counts.fp.tolist() == [0, 1, 1, 0]  # grass has IoU 1/2, which is not more than a half
    assert counts.fn.tolist() == [0, 1, 1, 1]
    values = counts.per_class()
    assert values["PQ"].tolist() == [0.75, 0, 0, 0]
    assert values["SQ"].tolist() == [0.75, 0, 0, 0]
    assert values["RQ"].tolist() == [1, 0, 0, 0]
    summary = counts.summary(THINGS)
    assert summary["PQ"] == 75 / 4
    assert summary["PQ_th"] == 75 / 2
    assert summary["PQ_st"] == 0


def test_recognition_counts_half_of_each_error() -> None:
    truth = segment_map([[1, 1, 2, 2, 3, 3]], [0, 0, 0])
    predicted = segment_map([[1, 1, 2, 2, 4, 3]], [0, 0, 0, 0])
    counts = compare(predicted, truth, 1)
    assert counts.per_class()["RQ"][0] == pytest.approx(2 / (2 + 2 / 2 + 1 / 2))


def test_class_that_does_not_occur_is_left_out_of_the_mean() -> None:
    whole = segment_map([[1, 1]], [2])
    assert compare(whole, whole, len(CLASSES)).summary(THINGS)["PQ"] == 100


def test_prediction_on_void_or_on_a_crowd_of_its_class_is_no_false_positive() -> None:
    truth = segment_map([[1, 1, 1, 0, 0, 0]], [0], crowd=(1,))
    assert compare(segment_map([[1, 1, 0, 0, 0, 0]], [0]), truth, 2).fp.tolist() == [0, 0]
    assert compare(segment_map([[0, 0, 0, 1, 1, 0]], [0]), truth, 2).fp.tolist() == [0, 0]
    assert compare(segment_map([[1, 1, 0, 0, 0, 0]], [1]), truth, 2).fp.tolist() == [0, 1]
    nothing = compare(segment_map([[0, 0, 0, 0, 0, 0]], []), truth, 2)
    assert not nothing.occurs.any()  # a crowd is not missed either


def counted_like_panopticapi(predicted: SegmentMap, truth: SegmentMap, classes: int) -> PQCounts:
    """The loops of panopticapi's definition, segment by segment."""
    iou, tp, fp, fn = (np.zeros(classes) for _ in range(4))
    matched_true, matched_predicted = set(), set()
    for t, true_label in enumerate(truth.labels, start=1):
        for p, label in enumerate(predicted.labels, start=1):
            inner = int(((truth.index == t) & (predicted.index == p)).sum())
            void = int(((truth.index == 0) & (predicted.index == p)).sum())
            union = int((truth.index == t).sum() + (predicted.index == p).sum()) - inner - void
            if true_label == label and not truth.crowd[t - 1] and inner / union > 0.5:
                iou[label] += inner / union
                tp[label] += 1
                matched_true.add(t)
                matched_predicted.add(p)
    for t, label in enumerate(truth.labels, start=1):
        fn[label] += t not in matched_true and not truth.crowd[t - 1]
    for p, label in enumerate(predicted.labels, start=1):
        crowds = [t for t, c in enumerate(truth.crowd, start=1) if c and truth.labels[t - 1] == label]
        excused = np.isin(truth.index, [0, *crowds])[predicted.index == p].mean()
        fp[label] += p not in matched_predicted and excused <= 0.5
    return PQCounts(iou, tp, fp, fn)


def test_random_maps_count_as_in_panopticapi() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        grid = rng.integers(0, 7, (5, 5)).repeat(4, 0).repeat(4, 1)
        noisy = np.where(rng.random(grid.shape) < 0.2, rng.integers(0, 7, grid.shape), grid)
        noisy.flat[:6] = grid.flat[:6] = range(1, 7)  # every segment occurs
        labels = rng.integers(0, 3, 6)
        other = np.where(rng.random(6) < 0.8, labels, rng.integers(0, 3, 6))
        truth = SegmentMap(grid.astype(np.uint16), labels, rng.random(6) < 0.2)
        predicted = SegmentMap(noisy.astype(np.uint16), other, np.zeros(6, bool))
        got, wanted = compare(predicted, truth, 3), counted_like_panopticapi(predicted, truth, 3)
        for name in ("iou", "tp", "fp", "fn"):
            np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), err_msg=name)


def panoptic_map() -> NDArray[np.int32]:
    """Two cats, one dog, grass, and a strip of nothing."""
    panoptic = np.full((8, 10), 2, np.int32)
    panoptic[0] = len(CLASSES)
    panoptic[2:5, 1:4] = 1000
    panoptic[2:5, 5:9] = 2000
    panoptic[6:8, 2:4] = 3001
    return panoptic


def test_map_written_in_cocos_format_is_read_back_as_it_was(tmp_path: Path) -> None:
    panoptic = panoptic_map()
    segments = segments_of(panoptic, len(CLASSES), PALETTE)
    write_image(tmp_path / "a.png", colours(panoptic, segments))
    ids = [7, 3, 90, 92]
    entry = {"image_id": 1, "file_name": "a.png", "segments_info": segments_info(segments, ids)}
    categories = [
        {"id": number, "name": name, "isthing": int(i < THINGS)}
        for i, (number, name) in enumerate(zip(ids, CLASSES, strict=True))
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"categories": categories, "annotations": [entry]}))
    assert evaluate_files(path, tmp_path, path, tmp_path) == dict.fromkeys(
        ("PQ", "SQ", "RQ", "PQ_th", "SQ_th", "RQ_th", "PQ_st", "SQ_st", "RQ_st"), 100.0
    )
    assert entry["segments_info"][0]["area"] == int((panoptic == segments[0].value).sum())


def test_things_of_one_class_have_different_shades_and_stuff_its_own_colour() -> None:
    segments = segments_of(panoptic_map(), len(CLASSES), PALETTE)
    by_value = {segment.value: segment for segment in segments}
    assert by_value[2].colour == PALETTE[2]
    assert by_value[1000].colour != by_value[2000].colour
    assert np.abs(np.subtract(by_value[2000].colour, PALETTE[0])).max() <= 32
    assert by_value[1000].bbox == (1, 2, 3, 3)


def sample(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    import torch

    panoptic = panoptic_map()
    segments = segments_of(panoptic, len(CLASSES), PALETTE)
    write_image(tmp_path / "truth.png", colours(panoptic, segments))
    info = [{"id": s.id, "category": s.label} for s in segments]
    return {
        "seg_map_path": str(tmp_path / "truth.png"),
        "segments_info": info,
        "pred_panoptic_seg": {"sem_seg": torch.from_numpy(panoptic)[None]},
        **changes,
    }


def metric(**settings: Any) -> PanopticQuality:
    made = PanopticQuality(**settings)
    made.dataset_meta = {"classes": CLASSES, "thing_classes": CLASSES[:THINGS]}
    return made


def test_metric_gives_every_class_if_asked_to(tmp_path: Path) -> None:
    quality = metric(per_class=True)
    quality.process(None, [sample(tmp_path)])
    values = quality.compute_metrics(quality.results)
    assert values["PQ"] == values["PQ/cat"] == values["PQ/grass"] == 100
    assert values["PQ/sky"] == 0


def test_metric_agrees_with_mmdets_which_runs_panopticapis_evaluation(tmp_path: Path) -> None:
    from mmdet.evaluation import CocoPanopticMetric

    given = sample(tmp_path)
    truth = given["pred_panoptic_seg"]["sem_seg"]
    predicted = truth.clone()
    predicted[0, 2:5, 2:7] = truth[0, 2:5, 1:6]  # the cats move to the right
    predicted[0, 7] = 4003  # a cat in the dog's place
    segments = [{**s, "is_thing": s["category"] < THINGS} for s in given["segments_info"]]
    given |= {"img_id": 0, "img_path": "truth.jpg", "ori_shape": (8, 10), "segments_info": segments}
    ours, theirs = metric(), CocoPanopticMetric(seg_prefix=str(tmp_path))
    theirs.dataset_meta = {**ours.dataset_meta, "stuff_classes": CLASSES[THINGS:]}
    for one in (ours, theirs):
        copy = {"sem_seg": predicted.clone(), "ignore_index": len(CLASSES)}  # mmdet's changes it
        one.process({}, [{**given, "pred_panoptic_seg": copy}])
    found, wanted = (one.compute_metrics(one.results) for one in (ours, theirs))
    assert 0 < wanted["PQ"] < 100
    assert found == pytest.approx({name: wanted[name] for name in found})


def test_metric_names_a_truth_that_disagrees_with_its_list(tmp_path: Path) -> None:
    given = sample(tmp_path)
    given["segments_info"] = given["segments_info"][1:]
    with pytest.raises(UserError, match=r"truth.png does not match its segments_info: segment \d+ is pai"):
        metric().process(None, [given])
    given = sample(tmp_path)
    given["segments_info"] += [{"id": 5, "category": 1}]
    with pytest.raises(UserError, match=r"segment 5 is listed but not painted"):
        metric().process(None, [given])


def test_metric_names_a_prediction_of_another_size(tmp_path: Path) -> None:
    given = sample(tmp_path)
    given["pred_panoptic_seg"]["sem_seg"] = given["pred_panoptic_seg"]["sem_seg"][:, :5]
    with pytest.raises(UserError, match="differ in size: 10x5 and 10x8"):
        metric().process(None, [given])


def test_files_without_a_prediction_or_with_a_strange_category_are_named(tmp_path: Path) -> None:
    panoptic = panoptic_map()
    segments = segments_of(panoptic, len(CLASSES), PALETTE)
    write_image(tmp_path / "a.png", colours(panoptic, segments))
    categories = [{"id": i, "name": name, "isthing": int(i < THINGS)} for i, name in enumerate(CLASSES)]
    entry = {"image_id": 1, "file_name": "a.png", "segments_info": segments_info(segments, range(4))}
    truth, answer = tmp_path / "truth.json", tmp_path / "answer.json"
    truth.write_text(json.dumps({"categories": categories, "annotations": [entry]}))
    answer.write_text(json.dumps({"annotations": []}))
    with pytest.raises(UserError, match="no prediction for image 1"):
        evaluate_files(truth, tmp_path, answer, tmp_path)
    strange = {**entry, "segments_info": segments_info(segments, [9, 1, 2, 3])}
    answer.write_text(json.dumps({"annotations": [strange]}))
    with pytest.raises(UserError, match="category 9, which the truth does not list"):
        evaluate_files(truth, tmp_path, answer, tmp_path)
