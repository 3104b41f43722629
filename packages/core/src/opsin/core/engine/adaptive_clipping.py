"""Adaptive gradient clipping (High-Performance Large-Scale Image Recognition Without Normalization).

arXiv 2102.06171. A gradient is clipped against the norm of its own weights, unit by unit, instead of against
a number for the whole network.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor

from opsin.registry import OPTIM_WRAPPERS


def unitwise_norm(x: Tensor) -> Tensor:
    """The norm of each unit (first axis), broadcastable; of a vector's or a scalar's whole."""
    if x.ndim <= 1:
        return x.norm()
    return x.norm(dim=tuple(range(1, x.ndim)), keepdim=True)


@torch.no_grad()
def clip_adaptively(parameters: list[Tensor], clip_factor: float, eps: float = 1e-3) -> Tensor:
    """Scales gradients down, unit by unit, to at most `clip_factor` times the norm of the unit's weights.

    Args:
        parameters: with gradients; those without are passed over.
        clip_factor: largest ratio of the two norms.
        eps: the least that a unit's weights count for.

    Returns:
        The largest ratio there was before clipping.
    """
    largest = torch.zeros(())
    for parameter in parameters:
        if parameter.grad is None:
            continue
        allowed = unitwise_norm(parameter).clamp(min=eps) * clip_factor
        norm = unitwise_norm(parameter.grad)
        largest = torch.maximum(largest, (norm / allowed).max().cpu() * clip_factor)
        parameter.grad.mul_((allowed / norm.clamp(min=1e-6)).clamp(max=1.0))
    return largest


class _AdaptiveClipping:
    """Puts adaptive clipping in the place of an optimizer wrapper's own."""

    def __init__(self, *args: Any, clip_grad: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clip_grad_kwargs = {"clip_factor": 0.02, **(clip_grad or {})}
        self.clip_func, self.grad_name = clip_adaptively, "grad_ratio"


@OPTIM_WRAPPERS.register_module()
class AdaptiveClipOptimWrapper(_AdaptiveClipping, OptimWrapper):
    """mmengine's `OptimWrapper` with adaptive clipping: `clip_grad=dict(clip_factor=0.02, eps=1e-3)`.

    The log's grad_ratio is the largest ratio of a unit's gradient to its weights before clipping.
    """


@OPTIM_WRAPPERS.register_module()
class AdaptiveClipAmpOptimWrapper(_AdaptiveClipping, AmpOptimWrapper):
    """`AdaptiveClipOptimWrapper` under autocast."""
