"""How the parity cases of WKV are run, for the systems that are built on it."""

from __future__ import annotations

from torch import Tensor

from opsin.core.ops.wkv import bi_wkv
from opsin.core.parity import Case, adapter


@adapter("rwkv-sam", r"wkv_cuda\.cu")
def run(case: Case) -> dict[str, Tensor]:
    """The bidirectional sums, and their gradients of sum(y * dy)."""
    given = case.inputs()
    dy = given.pop("dy", None)
    tensors = {name: tensor.requires_grad_() for name, tensor in given.items()}
    y = bi_wkv(**tensors)
    if dy is not None:
        (y * dy).sum().backward()
    gradients = {f"d{name}": tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
    return {"y": y, **gradients}
