import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from opsin.classification.metrics import Accuracy


def evaluate(scores: torch.Tensor, labels: torch.Tensor, **settings) -> dict[str, float]:
    metric = Accuracy(**settings)
    samples = [{"pred_scores": s, "gt_label": label} for s, label in zip(scores, labels, strict=True)]
    for start in range(0, len(samples), 7):
        metric.process(None, samples[start : start + 7])
    return metric.evaluate(len(samples))


def test_agrees_with_scikit_learn():
    torch.manual_seed(0)
    scores, labels = torch.randn(200, 9).softmax(1), torch.randint(0, 9, (200,))
    got = evaluate(scores, labels)
    for k in (1, 5):
        assert got[f"accuracy/top{k}"] == pytest.approx(100 * top_k_accuracy_score(labels, scores, k=k))
    balanced = 100 * balanced_accuracy_score(labels, scores.argmax(1))
    assert got["accuracy/class_mean"] == pytest.approx(balanced)


@pytest.mark.parametrize("value", [0.25, float("nan")])
def test_scores_that_say_nothing_are_not_counted_as_right(value):
    assert evaluate(torch.full((8, 4), value), torch.arange(8) % 4, topk=(1, 3)) == {
        "accuracy/top1": 0.0,
        "accuracy/top3": 0.0,
        "accuracy/class_mean": 0.0,
    }


def test_topk_beyond_the_number_of_classes_is_everything():
    assert evaluate(torch.eye(3), torch.tensor([2, 1, 0]), topk=(1, 5))["accuracy/top5"] == 100.0
    assert np.isclose(evaluate(torch.eye(3), torch.tensor([2, 1, 0]))["accuracy/top1"], 100 / 3)
