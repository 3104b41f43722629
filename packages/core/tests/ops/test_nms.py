import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from opsin.core.ops.nms import (
    METHODS,
    batched_nms,
    filtered_nms,
    nms,
    nms_match,
    nms_match_reference,
    nms_reference,
    soft_nms,
    soft_nms_reference,
)


def random_boxes(count: int, seed: int, size: float = 40.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 100 - 20
    boxes = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * size], 1)
    return boxes, torch.rand(count, generator=generator)


@given(
    count=st.integers(0, 60), seed=st.integers(0, 999), threshold=st.floats(0, 1), offset=st.integers(0, 1)
)
def test_nms_keeps_the_boxes_of_the_definition(count: int, seed: int, threshold: float, offset: int) -> None:
    boxes, scores = random_boxes(count, seed)
    kept = nms(boxes, scores, threshold, offset)
    assert kept.tolist() == nms_reference(boxes, scores, threshold, offset).tolist()


def test_nms_threshold_is_strict() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]])  # IoU exactly 0.5
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.49).tolist() == [0]


def test_matching_and_decay_include_the_threshold() -> None:
    boxes, scores = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]]), torch.tensor([0.9, 0.8])
    assert nms_match(torch.cat([boxes, scores[:, None]], 1), 0.5) == [[0, 1]]
    assert soft_nms(boxes, scores, 0.5)[0][:, 4].tolist() == pytest.approx([0.9, 0.4])


def test_equal_scores_keep_their_order(backend: str) -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 6, 6]])
    assert nms(boxes, torch.ones(3), 0.5).tolist() == [0, 2]


def test_boxes_of_no_area_and_nan_boxes_stay(backend: str) -> None:
    boxes = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [float("nan")] * 4, [0, 0, 4, 4], [0, 0, 4, 4]])
    assert sorted(nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), 0.5).tolist()) == [0, 1, 2, 3]


def test_infinite_edges_suppress_as_in_the_definition() -> None:
    boxes = torch.tensor([[-torch.inf, 0, 5, 5], [0, 0, 5, 5], [0, 0, 5, 4.9]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert nms(boxes, scores, 0.5).tolist() == nms_reference(boxes, scores, 0.5).tolist() == [0, 1]


def test_many_boxes_agree_with_the_definition() -> None:
    boxes, scores = random_boxes(700, 1)
    assert nms(boxes, scores, 0.4).tolist() == nms_reference(boxes, scores, 0.4).tolist()


@given(count=st.integers(0, 40), seed=st.integers(0, 999), threshold=st.floats(0.05, 1))
def test_nms_match_groups_as_the_definition(count: int, seed: int, threshold: float) -> None:
    boxes, scores = random_boxes(count, seed)
    dets = torch.cat([boxes, scores[:, None]], 1)
    assert nms_match(dets, threshold) == nms_match_reference(dets, threshold)


@given(
    count=st.integers(0, 40),
    seed=st.integers(0, 999),
    method=st.sampled_from(METHODS),
    offset=st.integers(0, 1),
)
def test_soft_nms_decays_as_the_definition(count: int, seed: int, method: str, offset: int) -> None:
    boxes, scores = random_boxes(count, seed)
    dets, keep = soft_nms(boxes, scores, 0.3, 0.5, 1e-2, method, offset)
    want, kept = soft_nms_reference(boxes.double(), scores.double(), 0.3, 0.5, 1e-2, method, offset)
    assert keep.tolist() == kept.tolist()
    torch.testing.assert_close(dets, want.float(), rtol=1e-5, atol=1e-6)


def test_soft_nms_leaves_its_inputs_alone() -> None:
    boxes, scores = random_boxes(20, 0)
    before = boxes.clone(), scores.clone()
    soft_nms(boxes, scores)
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


def test_soft_nms_names_a_wrong_method() -> None:
    with pytest.raises(ValueError, match="'cubic' is none of naive, linear, gaussian"):
        soft_nms(*random_boxes(3, 0), method="cubic")


def test_results_do_not_depend_on_strides_or_half_precision() -> None:
    boxes, scores = random_boxes(50, 3)
    boxes, scores = boxes.bfloat16(), scores.bfloat16()
    strided = boxes.T.contiguous().T
    assert nms(strided, scores, 0.5).tolist() == nms(boxes.float(), scores.float(), 0.5).tolist()


def test_score_threshold_and_maximum_count() -> None:
    boxes, scores = random_boxes(50, 4)
    dets, keep = filtered_nms(boxes, scores, 0.5, score_threshold=0.6, max_num=5)
    assert len(keep) == 5 and bool((dets[:, 4] > 0.6).all())
    assert torch.equal(dets[:, :4], boxes[keep])
    assert torch.equal(keep, nms(boxes, scores, 0.5)[:5])


@pytest.mark.parametrize("kind", ["nms", "soft_nms"])
def test_label_by_label_equals_shifting_the_labels_apart(kind: str) -> None:
    boxes, scores = random_boxes(80, 5)
    labels = torch.arange(80) % 3
    cfg = {"type": kind, "iou_threshold": 0.4, "max_num": 20}
    together = batched_nms(boxes, scores, labels, cfg)
    apart = batched_nms(boxes, scores, labels, {**cfg, "split_thr": 10})
    assert together[1].tolist() == apart[1].tolist()
    torch.testing.assert_close(together[0], apart[0])


def test_batched_nms_of_nothing_and_without_settings() -> None:
    empty = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)
    dets, keep = batched_nms(*empty, {"type": "nms", "iou_threshold": 0.5})
    assert dets.shape == (0, 5) and keep.shape == (0,)
    boxes, scores = random_boxes(9, 6)
    dets, keep = batched_nms(boxes, scores, torch.zeros(9, dtype=torch.long), None)
    assert torch.equal(keep, scores.argsort(descending=True)) and torch.equal(dets[:, 4], scores[keep])
