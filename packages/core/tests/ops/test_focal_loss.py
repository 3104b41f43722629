import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from opsin.core.ops import focal_loss
from opsin.core.ops.focal_loss import sigmoid_focal_loss, sigmoid_focal_loss_reference, softmax_focal_loss


def make(rows: int, classes: int, seed: int, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets (background included) and class weights."""
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(classes + 1, (rows,), generator=g)
    return torch.randn(rows, classes, generator=g) * scale, target, torch.rand(classes, generator=g)


@given(
    rows=st.integers(0, 40),
    classes=st.integers(1, 9),
    seed=st.integers(0, 999),
    gamma=st.sampled_from([0.0, 1.5, 2.0]),
    weighted=st.booleans(),
    reduction=st.sampled_from(["none", "sum"]),
)
def test_sigmoid_form_is_that_of_the_definition(
    rows: int, classes: int, seed: int, gamma: float, weighted: bool, reduction: str
) -> None:
    logits, target, weight = make(rows, classes, seed)
    chosen = weight if weighted else None
    loss = sigmoid_focal_loss(logits, target, gamma, 0.25, chosen, reduction)
    want = sigmoid_focal_loss_reference(
        logits.double(), target, gamma, 0.25, chosen.double() if chosen is not None else None, reduction
    )
    torch.testing.assert_close(loss, want.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", [2.0, 1.5])
@pytest.mark.parametrize("weighted", [True, False])
def test_sigmoid_form_gradient(gamma: float, weighted: bool) -> None:
    logits, target, weight = make(7, 3, 1)
    chosen = weight.double() if weighted else None
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, target, gamma, 0.3, chosen, "none"), leaf)


def test_softmax_form_and_gradient() -> None:
    logits, target, weight = make(9, 4, 2)
    p = logits.double().softmax(1)
    want = torch.zeros(9, dtype=torch.float64)
    for n, t in enumerate(target.tolist()):
        if t < 4:
            want[n] = -0.25 * (1 - p[n, t]) ** 2 * p[n, t].log() * weight[t]
    loss = softmax_focal_loss(logits, target, 2.0, 0.25, weight, "none")
    torch.testing.assert_close(loss, want.float())
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: softmax_focal_loss(x, target), leaf)


def test_extreme_logits_stay_exact_and_finite() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([1]), reduction="none")
    torch.testing.assert_close(loss, torch.tensor([[150.0, 50.0]]))  # 0.75 * 200 and 0.25 * 200
    loss.sum().backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target, weight = make(50, 4, 3)
    whole = sigmoid_focal_loss(logits, target, weight=weight, reduction="none")
    monkeypatch.setattr(focal_loss, "BLOCK_NUMBERS", 12)
    torch.testing.assert_close(sigmoid_focal_loss(logits, target, weight=weight, reduction="none"), whole)


def test_mean_divides_by_the_rows_and_bf16_is_near() -> None:
    logits, target, _ = make(20, 3, 4)
    total = sigmoid_focal_loss(logits, target, reduction="sum")
    torch.testing.assert_close(sigmoid_focal_loss(logits, target), total / 20)
    torch.testing.assert_close(
        sigmoid_focal_loss(logits.bfloat16(), target, reduction="sum").float(), total, rtol=0.03, atol=0
    )


def test_unknown_reduction_is_named() -> None:
    logits, target, _ = make(2, 3, 5)
    with pytest.raises(ValueError, match="'median'"):
        sigmoid_focal_loss(logits, target, reduction="median")
