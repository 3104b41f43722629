"""Focal loss: cross entropy whose easy examples count less, by sigmoid (a class at a time) or by softmax.

RetinaNet, arXiv:1708.02002. Logits are (N, C), targets (N,) int64 in 0..C, where C (or any value that is no
class) means background: for the sigmoid form a row without a positive class, for the softmax form a row that
costs nothing.

Sigmoid: -alpha (1-p)^gamma log p for the target class, -(1-alpha) p^gamma log(1-p) for every other. Softmax:
-alpha (1-p)^gamma log p of the target class alone. Logarithms are taken from the logits (softplus,
log-softmax), so they stay exact where mmcv's kernels, which clamp p at the smallest float, saturate at 87. A
row whose target is no class has weight 1.

The sigmoid form treats all classes as negative and then mends the one target of each row: no one-hot matrix.
On a GPU both forms are one Triton kernel each way.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.ops import triton_kernels

BLOCK_NUMBERS = 1 << 17  # logits worked on at once on the CPU, so that the passes over them stay in its cache


def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Sigmoid focal loss.

    Args:
        logits: (N, C); differentiable.
        target: (N,) int64, the class of each row, C for background.
        gamma: at least 0.
        alpha: weight of positives; negatives have 1 - alpha.
        weight: (C,) weight of each row by its target class.
        reduction: `none` (N, C), `sum`, or `mean`, which divides the sum by N.

    Raises:
        ValueError: if `reduction` is none of these.
    """
    return _reduced(_sigmoid_loss(logits, target, weight, float(gamma), float(alpha)), len(logits), reduction)


def sigmoid_focal_loss_reference(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The definition of `sigmoid_focal_loss`, with a one-hot matrix."""
    positive = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    p = logits.sigmoid()
    loss = torch.where(
        positive,
        -alpha * (1 - p) ** gamma * F.logsigmoid(logits),
        -(1 - alpha) * p**gamma * F.logsigmoid(-logits),
    )
    if weight is not None:
        loss = loss * _row_weight(weight, target)[:, None]
    return _reduced(loss, len(logits), reduction)


def sigmoid_focal_loss_slope(
    logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25, weight: Tensor | None = None
) -> Tensor:
    """The derivative of each number of `sigmoid_focal_loss(..., reduction="none")` by its logit, (N, C)."""
    return _sigmoid_loss_backward(logits.new_ones(1), logits, target, weight, float(gamma), float(alpha))


def softmax_focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Softmax focal loss.

    Args:
        logits: (N, C); differentiable.
        target: (N,) int64; a row whose target is no class costs 0.
        gamma: at least 0.
        alpha: weight of all rows.
        weight: (C,) weight of each row by its target class.
        reduction: `none` (N,), `sum`, or `mean`, which divides the sum by N.

    Raises:
        ValueError: if `reduction` is none of these.
    """
    return _reduced(_softmax_loss(logits, target, weight, float(gamma), float(alpha)), len(logits), reduction)


def softmax_focal_loss_reference(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The definition of `softmax_focal_loss`."""
    log_p = logits.log_softmax(1).gather(1, _clamped(target, logits.shape[1])[:, None])[:, 0]
    loss = -alpha * (1 - log_p.exp()) ** gamma * log_p
    if weight is not None:
        loss = loss * _row_weight(weight, target)
    return _reduced(torch.where(_is_class(target, logits.shape[1]), loss, 0.0), len(logits), reduction)


def _reduced(loss: Tensor, rows: int, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction not in ("sum", "mean"):
        raise ValueError(f"focal loss: reduction {reduction!r} is none of none, sum, mean")
    return loss.sum() / rows if reduction == "mean" else loss.sum()


def _is_class(target: Tensor, classes: int) -> Tensor:
    return (target >= 0) & (target < classes)


def _clamped(target: Tensor, classes: int) -> Tensor:
    return target.clamp(0, classes - 1)


def _row_weight(weight: Tensor, target: Tensor) -> Tensor:
    return torch.where(_is_class(target, len(weight)), weight[_clamped(target, len(weight))], 1.0)


def _blocks(logits: Tensor) -> range:
    """Row numbers at which blocks begin; one block where there is no cache to stay in."""
    rows = max(1, len(logits))
    step = rows if logits.device.type != "cpu" else max(1, BLOCK_NUMBERS // max(1, logits.shape[1]))
    return range(0, rows, step)


def _powered(base: Tensor, gamma: float) -> Tensor:
    return base * base if gamma == 2.0 else base**gamma


def _targets(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows that have a class, that class, and its logit."""
    rows = torch.nonzero(_is_class(target, logits.shape[1])).squeeze(1)
    return rows, target[rows], logits[rows, target[rows]]


@torch.library.custom_op("opsin::sigmoid_focal_loss", mutates_args=())
def _sigmoid_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    if triton_kernels.enabled(logits, target):
        from opsin.core.ops.triton_kernels.focal_loss import sigmoid_forward

        return sigmoid_forward(logits, target, weight, gamma, alpha)
    loss = torch.empty_like(logits, memory_format=torch.contiguous_format)
    blocks = _blocks(logits)
    for start in blocks:
        x, out = logits[start : start + blocks.step], loss[start : start + blocks.step]
        torch.mul(_powered(x.sigmoid(), gamma).mul_(1 - alpha), F.softplus(x), out=out)
    rows, classes, x = _targets(logits, target)
    loss[rows, classes] = alpha * _powered(torch.sigmoid(-x), gamma) * F.softplus(-x)
    return loss if weight is None else loss.mul_(_row_weight(weight, target)[:, None])


@torch.library.custom_op("opsin::sigmoid_focal_loss_backward", mutates_args=())
def _sigmoid_loss_backward(
    grad: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    if triton_kernels.enabled(grad, logits, target):
        from opsin.core.ops.triton_kernels.focal_loss import sigmoid_backward

        return sigmoid_backward(grad, logits, target, weight, gamma, alpha)
    slope = torch.empty_like(logits, memory_format=torch.contiguous_format)
    blocks = _blocks(logits)
    for start in blocks:
        x, out = logits[start : start + blocks.step], slope[start : start + blocks.step]
        p = x.sigmoid()
        inner = torch.addcmul(p, (1 - p).mul_(gamma), F.softplus(x))
        torch.mul(_powered(p, gamma).mul_(1 - alpha), inner, out=out)
    rows, classes, x = _targets(logits, target)
    q = torch.sigmoid(-x)
    slope[rows, classes] = -alpha * _powered(q, gamma) * (q + gamma * (1 - q) * F.softplus(-x))
    slope.mul_(grad)
    return slope if weight is None else slope.mul_(_row_weight(weight, target)[:, None])


@_sigmoid_loss.register_fake
def _sigmoid_loss_fake(logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


@_sigmoid_loss_backward.register_fake
def _sigmoid_loss_backward_fake(grad: Tensor, logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, target, weight, ctx.gamma, ctx.alpha = inputs
    ctx.with_weight = weight is not None
    ctx.save_for_backward(logits, target, *([weight] if weight is not None else []))


def _vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    logits, target, *weights = ctx.saved_tensors
    weight = weights[0] if ctx.with_weight else None
    return _sigmoid_loss_backward(grad, logits, target, weight, ctx.gamma, ctx.alpha), None, None, None, None


_sigmoid_loss.register_autograd(_vjp, setup_context=_context)


@torch.library.custom_op("opsin::softmax_focal_loss", mutates_args=())
def _softmax_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    if triton_kernels.enabled(logits, target):
        from opsin.core.ops.triton_kernels.focal_loss import softmax_forward

        return softmax_forward(logits, target, weight, gamma, alpha)
    return softmax_focal_loss_reference(logits, target, gamma, alpha, weight, "none")


@torch.library.custom_op("opsin::softmax_focal_loss_backward", mutates_args=())
def _softmax_loss_backward(
    grad: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    if triton_kernels.enabled(grad, logits, target):
        from opsin.core.ops.triton_kernels.focal_loss import softmax_backward

        return softmax_backward(grad, logits, target, weight, gamma, alpha)
    log_p = logits.log_softmax(1)
    wanted = _clamped(target, logits.shape[1])[:, None]
    own = log_p.gather(1, wanted)[:, 0]
    miss = 1 - own.exp()
    ratio = torch.where(miss > 0, own / miss, -1.0)  # its limit as p goes to 1
    by_log = alpha * _powered(miss, gamma) * (gamma * own.exp() * ratio - 1) * grad
    if weight is not None:
        by_log = by_log * _row_weight(weight, target)
    by_log = torch.where(_is_class(target, logits.shape[1]), by_log, 0.0)[:, None].to(logits.dtype)
    return (log_p.exp() * -by_log).scatter_add_(1, wanted, by_log)


@_softmax_loss.register_fake
def _softmax_loss_fake(logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape[0])


@_softmax_loss_backward.register_fake
def _softmax_loss_backward_fake(grad: Tensor, logits: Tensor, *_: object) -> Tensor:
    return logits.new_empty(logits.shape)


def _softmax_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    logits, target, *weights = ctx.saved_tensors
    weight = weights[0] if ctx.with_weight else None
    return _softmax_loss_backward(grad, logits, target, weight, ctx.gamma, ctx.alpha), None, None, None, None


_softmax_loss.register_autograd(_softmax_vjp, setup_context=_context)
