"""Attention with a learned bias shared by all batch entries, as windows with relative positions have it.

out = softmax(scale · q kᵀ + bias) v with q (B, heads, N, d), k and v (B, heads, M, d), bias (1, heads, N, M).

`scaled_dot_product_attention` computes this fast, but on a CPU only as long as the bias needs no gradient:
with one it falls back to storing every score several times. Here the forward pass is always the fused kernel,
and the backward pass recomputes the scores in portions, so training stores nothing of size N x M per batch
entry.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SCORES_AT_ONCE = 2**20  # recomputed together in the backward pass: 4 MB, so that they stay in the cache
SMALLEST_EXPONENT = -80.0  # masked pairs would become denormal numbers, on which a CPU is many times slower


def biased_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attention as above; (B, heads, N, d).

    Args:
        q: queries (B, heads, N, d).
        k: keys (B, heads, M, d).
        v: values (B, heads, M, d).
        bias: added to the scores of every batch entry (1, heads, N, M).
        scale: factor of q kᵀ.
        dropout: probability with which an attention weight is dropped.
    """
    bias = bias.to(q.dtype)
    if q.device.type == "cpu" and torch.is_grad_enabled() and bias.requires_grad and not dropout:
        out: Tensor = _BiasedAttention.apply(q, k, v, bias, scale)
        return out
    return F.scaled_dot_product_attention(q, k, v, bias, dropout_p=dropout, scale=scale)


class _BiasedAttention(torch.autograd.Function):
    """The CPU's fused forward pass, and a backward pass that gives the bias its gradient too."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        out, normaliser = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, attn_mask=bias, scale=scale
        )
        ctx.save_for_backward(q, k, v, bias, out, normaliser)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, normaliser = ctx.saved_tensors
        grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
        grad_bias = torch.zeros(bias.shape, dtype=torch.float32)
        portion = max(1, SCORES_AT_ONCE // bias.numel())
        for parts in zip(*(x.split(portion) for x in (q, k, v, out, normaliser, grad, *grads)), strict=True):
            q_, k_, v_, out_, normaliser_, grad_ = (x.float() for x in parts[:6])
            q_ = q_ * ctx.scale
            weights = q_ @ k_.transpose(-2, -1)
            weights.add_(bias).sub_(normaliser_[..., None]).clamp_(min=SMALLEST_EXPONENT).exp_()
            grad_scores = grad_ @ v_.transpose(-2, -1)
            grad_scores.sub_((grad_ * out_).sum(-1, keepdim=True)).mul_(weights)
            parts[6].copy_((grad_scores @ k_).mul_(ctx.scale))
            parts[7].copy_(grad_scores.transpose(-2, -1) @ q_)
            parts[8].copy_(weights.transpose(-2, -1) @ grad_)
            grad_bias += grad_scores.sum(0, keepdim=True)
        return *grads, grad_bias.to(bias.dtype), None
