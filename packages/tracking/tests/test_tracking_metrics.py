import zipfile

import numpy as np
import pytest
import torch

from opsin.core.errors import UserError
from opsin.tracking.datasets import TrackingSample, VideoSequence
from opsin.tracking.metrics import OnePassEvaluation, evaluate_sequence, iou, summarise, vot_scores
from opsin.tracking.metrics.expected_overlap import expected_overlaps, failure
from opsin.tracking.metrics.one_pass import summarise_subsets
from opsin.tracking.results import FORMATS, result_format


def video(boxes, visible=None, name="a"):
    boxes = np.array(boxes, np.float64)
    seen = np.isfinite(boxes).all(1) if visible is None else np.array(visible)
    return VideoSequence(name, tuple(f"{i}.jpg" for i in range(len(boxes))), boxes, seen)


TRUTH = [[10, 10, 20, 10]] * 4


def test_overlap_of_hand_worked_boxes():
    boxes = np.array([[0, 0, 4, 4], [2, 0, 4, 4], [0, 0, 2, 2], [9, 9, 1, 1], [0, 0, 0, 0]], float)
    truth = np.array([[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 0, 0]], float)
    np.testing.assert_allclose(iou(boxes, truth), [1, 8 / 24, 4 / 16, 0, 0])
    assert np.isnan(iou(boxes[:1], np.full((1, 4), np.nan)))


def test_a_perfect_result_has_twenty_of_twentyone_and_a_hundred():
    numbers = summarise([evaluate_sequence(np.array(TRUTH), video(TRUTH))])
    assert numbers["success"] == pytest.approx(100 * 20 / 21)  # above 1 is no overlap
    assert numbers["precision"] == numbers["norm_precision"] == 100
    assert numbers["ao"] == numbers["sr50"] == numbers["sr75"] == 100


def test_scores_of_a_hand_worked_result():
    # frame 2: half the width off, IoU 1/3; frame 3: 30 px off, IoU 0; frame 4: right
    boxes = np.array([[0, 0, 1, 1], [20, 10, 20, 10], [40, 10, 20, 10], [10, 10, 20, 10]])
    scores = evaluate_sequence(boxes, video(TRUTH))
    above = (
        20 + 7 + 0 + 20
    )  # thresholds 0, 0.05 … below 1, below 1/3, below 0, below 1; the first row is the truth's
    assert scores.success == pytest.approx(above / (4 * 21))
    assert scores.precision == 3 / 4  # 10 px and 30 px off
    assert scores.normalised_precision == 2 / 4  # 10 / 20 is 0.5
    np.testing.assert_allclose(scores.overlaps, [1 / 3, 0, 1])  # without the first frame
    numbers = summarise([scores])
    assert numbers["ao"] == pytest.approx(100 * 4 / 9) and numbers["sr50"] == pytest.approx(100 / 3)


def test_absent_targets_count_as_misses_and_unannotated_frames_only_for_precision():
    result = np.array(TRUTH)
    absent = evaluate_sequence(result, video(TRUTH, [True, True, False, False]))
    assert absent.success == pytest.approx(0.5 * 20 / 21) and absent.precision == 0.5
    assert len(absent.overlaps) == 1
    unknown = evaluate_sequence(result, video([*TRUTH[:3], [np.nan] * 4]))
    assert unknown.success == pytest.approx(20 / 21) and unknown.precision == 0.75


def test_an_empty_row_repeats_the_row_before():
    result = np.array([TRUTH[0], TRUTH[0], [0, 0, 0, 5], [0, 0, 0, 0]])
    assert evaluate_sequence(result, video(TRUTH)).precision == 1


def test_means_are_over_sequences_and_ao_over_frames():
    good = evaluate_sequence(np.array(TRUTH), video(TRUTH))
    long = [[10, 10, 20, 10]] * 10
    bad = evaluate_sequence(np.array([long[0], *[[900, 900, 5, 5]] * 9]), video(long))
    numbers = summarise_subsets({"good": good, "bad": bad}, {"easy": ["good"], "none": ["missing"]})
    assert numbers["precision"] == pytest.approx(100 * (1 + 0.1) / 2)
    assert numbers["ao"] == pytest.approx(100 * 3 / 12)
    assert numbers["easy/ao"] == 100 and "none/ao" not in numbers


def test_a_result_of_another_length_is_refused():
    with pytest.raises(UserError, match="has 3 rows and the truth 4"):
        evaluate_sequence(np.array(TRUTH[:3]), video(TRUTH))


def test_metric_refuses_sequences_whose_truth_is_on_a_server():
    sequence = VideoSequence("t", ("0.jpg", "1.jpg"), np.array([[1.0, 2, 3, 4]]), np.array([True]))
    sample = TrackingSample(metainfo={"sequence": sequence}).to_dict() | {"pred_boxes": torch.zeros(2, 4)}
    with pytest.raises(UserError, match="track-benchmark"):
        OnePassEvaluation().process(None, [{"sequence": sequence, **sample}])


# VOT.


def test_a_run_has_failed_where_ten_low_overlaps_begin():
    assert failure(np.array([0.9] * 5 + [0.05] * 10 + [0.9])) == 5
    assert failure(np.array([0.9] * 5 + [0.1] * 9 + [0.9])) == 15
    assert failure(np.array([0.9] * 5 + [np.nan] * 20)) == 25


def test_expected_overlap_of_hand_worked_runs():
    long, short = np.full(4, 0.8), np.full(2, 0.4)
    failed = np.array([0.6, 0.6, 0.0, 0.0])
    curve = expected_overlaps([long, short, failed], [4, 2, 2], 5)
    np.testing.assert_allclose(
        curve,
        [
            (0.8 + 0.4 + 0.6) / 3,
            (0.8 + 0.4 + 0.6) / 3,
            (0.8 + 0.4) / 2,  # the short run tells nothing of three frames; the failed one has 1.2 / 3
            (0.8 + 0.3) / 2,
            1.2 / 5,  # of five frames the failed run alone tells
        ],
    )


def test_eao_accuracy_and_robustness():
    runs = [np.full(20, 0.8), np.concatenate((np.full(10, 0.6), np.zeros(10)))]
    scores = vot_scores(runs, (10, 12))
    wanted = np.mean([(0.8 + 6 / n) / 2 for n in (10, 11, 12)])
    assert scores.eao == pytest.approx(wanted)
    assert scores.accuracy == pytest.approx((20 * 0.8 + 10 * 0.6) / 30) and scores.robustness == 30 / 40
    with pytest.raises(UserError, match="30 frames"):
        vot_scores([np.full(20, 0.8)], (30, 40))


# Result files.


@pytest.mark.parametrize("layout", FORMATS)
def test_result_files_round_trip(tmp_path, layout):
    form = result_format(layout)
    boxes = np.array([[1, 2, 30, 40], [3, 4, 31, 41]], float)
    assert form.read(tmp_path, "cat-1") is None
    form.write(tmp_path, "cat-1", boxes, np.array([0.01, 0.02]))
    assert np.array_equal(form.read(tmp_path, "cat-1"), boxes)


def test_saved_boxes_are_truncated_and_tab_separated(tmp_path):
    result_format("lasot").write(tmp_path, "cat-1", np.array([[1.9, -0.5, 30.99, 40.2]]), np.array([0.25]))
    assert (tmp_path / "cat-1.txt").read_text() == "1\t0\t30\t40\n"
    assert (tmp_path / "cat-1_time.txt").read_text() == "0.250000\n"


def test_got10k_zip_has_the_server_s_names(tmp_path):
    form = result_format("got10k")
    form.write(tmp_path / "run", "GOT-10k_Test_000001", np.ones((2, 4)), np.ones(2))
    path = form.pack(tmp_path / "run", ["GOT-10k_Test_000001"])
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            "GOT-10k_Test_000001/GOT-10k_Test_000001_001.txt",
            "GOT-10k_Test_000001/GOT-10k_Test_000001_time.txt",
        ]
        assert archive.read(archive.namelist()[0]) == b"1,1,1,1\n1,1,1,1\n"


def test_training_sets_have_no_result_format():
    with pytest.raises(UserError, match="unknown benchmark 'coco'"):
        result_format("coco")
