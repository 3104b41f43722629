"""Focal losses on a GPU: one pass over the logits each way, rounded once at the end.

With z the logit's sign turned so that the target wants it low, the sigmoid form is factor * p(z)^gamma *
softplus(z), for positives and negatives alike. Powers are exponentials of logarithms that the softplus knows
exactly. The softmax form's backward pass sums each row's exponentials again instead of keeping them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from opsin.core.ops import kernels
from opsin.core.ops.triton_kernels import launch
from opsin.core.ops.triton_kernels.softplus import fold

BLOCK = 1024  # logits that a program holds


@triton.jit
def _row_weight(weight, target, classes, inside, WEIGHTED: tl.constexpr):
    """The weight of each target's class; 1 where it is no class or there are no weights."""
    if WEIGHTED:
        return tl.load(weight + target, mask=inside & (target >= 0) & (target < classes), other=1.0)
    else:  # not redundant: Triton checks what follows a return
        return 1.0


@triton.jit
def _folded(logits, target, at, rows, classes, KIND: tl.constexpr):
    """Row and target of each logit, whether it exists, softplus of z and of -z, and whether z = -x."""
    row, inside = at // classes, at < rows * classes
    wanted = tl.load(target + row, mask=inside, other=0)
    x = tl.load(logits + at, mask=inside, other=0.0).to(KIND)
    positive = wanted == at % classes
    z, more = tl.where(positive, -x, x), fold(x)
    return row, wanted, inside, tl.maximum(z, 0.0) + more, tl.maximum(-z, 0.0) + more, positive


@triton.jit
def _power(log_p, GAMMA: tl.constexpr):
    """P^gamma, 1 for gamma 0 whatever p."""
    if GAMMA == 0.0:
        return 1.0
    else:  # not redundant: Triton checks what follows a return
        return tl.exp(GAMMA * log_p)


@triton.jit
def _sigmoid_kernel(
    logits, target, weight, loss, rows, classes,
    GAMMA: tl.constexpr, ALPHA: tl.constexpr, WEIGHTED: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    _, wanted, inside, cost, ease, positive = _folded(logits, target, at, rows, classes, KIND)
    out = _power(-ease, GAMMA) * cost * _row_weight(weight, wanted, classes, inside, WEIGHTED)
    tl.store(loss + at, tl.where(positive, ALPHA * out, (1 - ALPHA) * out), mask=inside)


@triton.jit
def _sigmoid_slope_kernel(
    logits, target, weight, grad, slope, rows, classes, grad_row, grad_column,
    GAMMA: tl.constexpr, ALPHA: tl.constexpr, WEIGHTED: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, wanted, inside, cost, ease, positive = _folded(logits, target, at, rows, classes, KIND)
    out = _power(-ease, GAMMA) * (tl.exp(-ease) + GAMMA * tl.exp(-cost) * cost)
    given = tl.load(grad + row * grad_row + at % classes * grad_column, mask=inside, other=0.0).to(KIND)
    out = out * given * _row_weight(weight, wanted, classes, inside, WEIGHTED)
    tl.store(slope + at, tl.where(positive, -ALPHA * out, (1 - ALPHA) * out), mask=inside)


@triton.jit
def _tile(logits, row, first, rows, classes, LANES: tl.constexpr, KIND: tl.constexpr):
    """Logits (rows, LANES) from class `first` on, -inf where there is none; their places; which there are."""
    c = first + tl.arange(0, LANES)
    mask, at = (row < rows)[:, None] & (c < classes)[None, :], (row * classes)[:, None] + c[None, :]
    return tl.load(logits + at, mask=mask, other=-float("inf")).to(KIND), at, mask


@triton.jit
def _log_p(
    logits, target, row, rows, classes, ROWS: tl.constexpr, LANES: tl.constexpr, KIND: tl.constexpr
):  # fmt: skip
    """Of each row log(sum(exp)), the target, whether it is a class, and its log-probability (0 if not)."""
    top, total = tl.full((ROWS,), -float("inf"), KIND), tl.zeros((ROWS,), KIND)
    for first in range(0, classes, LANES):
        x, _, _ = _tile(logits, row, first, rows, classes, LANES, KIND)
        higher = tl.maximum(top, tl.max(x, axis=1))
        safe = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp(top - safe) + tl.sum(tl.exp(x - safe[:, None]), axis=1)
        top = higher
    log_sum = tl.where(row < rows, top + tl.log(total), 0.0)
    wanted = tl.load(target + row, mask=row < rows, other=-1)
    known = (wanted >= 0) & (wanted < classes)
    log_p = tl.load(logits + row * classes + wanted, mask=known, other=0.0).to(KIND) - log_sum
    return log_sum, wanted, known, tl.where(known & ~(log_p > 0), log_p, 0.0)  # rounding may lift it above 0


@triton.jit
def _softmax_kernel(
    logits, target, weight, loss, rows, classes,
    GAMMA: tl.constexpr, ALPHA: tl.constexpr, WEIGHTED: tl.constexpr, KIND: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    _, wanted, known, log_p = _log_p(logits, target, row, rows, classes, ROWS, LANES, KIND)
    out = -ALPHA * _power(tl.log(1.0 - tl.exp(log_p)), GAMMA) * log_p
    out = out * _row_weight(weight, wanted, classes, known, WEIGHTED)
    tl.store(loss + row, tl.where(known, out, 0.0), mask=row < rows)


@triton.jit
def _softmax_slope_kernel(
    logits, target, weight, grad, slope, rows, classes, grad_row,
    GAMMA: tl.constexpr, ALPHA: tl.constexpr, WEIGHTED: tl.constexpr, KIND: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    log_sum, wanted, known, log_p = _log_p(logits, target, row, rows, classes, ROWS, LANES, KIND)
    miss = 1.0 - tl.exp(log_p)
    ratio = tl.where(miss > 0, log_p / miss, -1.0)  # its limit as p goes to 1
    by_log = ALPHA * _power(tl.log(miss), GAMMA) * (GAMMA * tl.exp(log_p) * ratio - 1.0)
    by_log = by_log * tl.load(grad + row * grad_row, mask=row < rows, other=0.0).to(KIND)
    by_log = tl.where(known, by_log * _row_weight(weight, wanted, classes, known, WEIGHTED), 0.0)
    for first in range(0, classes, LANES):
        x, at, mask = _tile(logits, row, first, rows, classes, LANES, KIND)
        own = (wanted[:, None] == first + tl.arange(0, LANES)[None, :]).to(KIND)
        tl.store(slope + at, by_log[:, None] * (own - tl.exp(x - log_sum[:, None])), mask=mask)


def _constants(logits: Tensor, weight: Tensor | None, gamma: float, alpha: float) -> dict[str, object]:
    kind = tl.float64 if kernels.working_dtype(logits.dtype) == torch.float64 else tl.float32
    return {"GAMMA": gamma, "ALPHA": alpha, "WEIGHTED": weight is not None, "KIND": kind}


def _softmax_tile(rows: int, classes: int) -> tuple[tuple[int], dict[str, int]]:
    """The grid, and how many rows and classes a program holds at a time."""
    lanes = min(BLOCK, triton.next_power_of_2(classes))
    return (triton.cdiv(rows, BLOCK // lanes),), {"ROWS": BLOCK // lanes, "LANES": lanes}


def sigmoid_forward(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    """The loss of each logit, like `logits`."""
    logits, loss = logits.contiguous(), torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    tensors = logits, target.contiguous(), _or_any(weight, logits), loss
    grid, constants = (triton.cdiv(logits.numel(), BLOCK),), _constants(logits, weight, gamma, alpha)
    launch(_sigmoid_kernel, grid, *tensors, *logits.shape, BLOCK=BLOCK, **constants)
    return loss


def sigmoid_backward(
    grad: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    """The gradient of the logits; `grad` broadcasts to them."""
    logits, slope = logits.contiguous(), torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    grad = grad.expand(logits.shape)
    tensors = logits, target.contiguous(), _or_any(weight, logits), grad, slope
    grid, constants = (triton.cdiv(logits.numel(), BLOCK),), _constants(logits, weight, gamma, alpha)
    launch(_sigmoid_slope_kernel, grid, *tensors, *logits.shape, *grad.stride(), BLOCK=BLOCK, **constants)
    return slope


def softmax_forward(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    """The loss of each row."""
    logits, loss = logits.contiguous(), torch.empty(len(logits), dtype=logits.dtype, device=logits.device)
    tensors = logits, target.contiguous(), _or_any(weight, logits), loss
    (grid, tile), constants = _softmax_tile(*logits.shape), _constants(logits, weight, gamma, alpha)
    launch(_softmax_kernel, grid, *tensors, *logits.shape, **tile, **constants)
    return loss


def softmax_backward(
    grad: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    """The gradient of the logits; `grad` is the rows'."""
    logits, slope = logits.contiguous(), torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    tensors = logits, target.contiguous(), _or_any(weight, logits), grad, slope
    (grid, tile), constants = _softmax_tile(*logits.shape), _constants(logits, weight, gamma, alpha)
    launch(_softmax_slope_kernel, grid, *tensors, *logits.shape, *grad.stride(), **tile, **constants)
    return slope


def _or_any(weight: Tensor | None, logits: Tensor) -> Tensor:
    """The weights, or some tensor that the kernels won't read."""
    return logits if weight is None else weight.contiguous()
