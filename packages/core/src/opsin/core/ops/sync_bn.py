"""The pieces of synchronised batch normalisation between which mmcv's layer talks to the other processes.

Inputs are (B, C, length); statistics (C,) in float. The layer averages mean and variance over the processes
itself; these functions only reduce and normalise one process's share. For a layer of one's own use PyTorch's
`torch.nn.SyncBatchNorm`.
"""

from __future__ import annotations

from torch import Tensor


def mean(x: Tensor) -> Tensor:
    """Mean of each channel of `x` (B, C, length), (C,)."""
    return x.float().mean((0, 2))


def variance(x: Tensor, centre: Tensor) -> Tensor:
    """Mean squared distance of each channel of `x` (B, C, length) from `centre` (C,), (C,)."""
    return (x.float() - centre[:, None]).square().mean((0, 2))


def normalise(x: Tensor, centre: Tensor, spread: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x` (B, C, length) with mean 0 and variance 1, given both (C,); and the standard deviation, (C,)."""
    deviation = (spread + eps).sqrt()
    return (x.float() - centre[:, None]) / deviation[:, None], deviation


def parameter_gradients(grad: Tensor, normalised: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias (C,), from that of the output (B, C, length) and the normalised input."""
    return (grad.float() * normalised).sum((0, 2)), grad.float().sum((0, 2))


def input_gradient(
    grad: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    normalised: Tensor,
    deviation: Tensor,
) -> Tensor:
    """Gradient of the input (B, C, length); the parameters' gradients are averages over all processes."""
    share = (grad_weight[:, None] * normalised + grad_bias[:, None]) / (grad.shape[0] * grad.shape[2])
    return (weight / deviation)[:, None] * (grad.float() - share)


def update_running(running: Tensor, new: Tensor, momentum: float | Tensor) -> None:
    """Moves the running statistic (C,) towards `new`, in place."""
    running.copy_(momentum * new + (1 - momentum) * running)


def unbiased(spread: Tensor, count: int) -> Tensor:
    """The variance `spread` of `count` numbers, unbiased."""
    return spread * count / (count - 1) if count > 1 else spread
