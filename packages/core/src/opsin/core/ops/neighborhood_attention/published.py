"""How the parity cases of neighborhood attention are run, for the systems that are built on it."""

from __future__ import annotations

from torch import Tensor

from opsin.core.ops.neighborhood_attention import neighborhood_attention
from opsin.core.parity import Case, adapter


@adapter("medvitv2", r"NATTEN")
def run(case: Case) -> dict[str, Tensor]:
    """The attention, and its gradients of sum(out * dout)."""
    given = case.inputs()
    dout = given.pop("dout", None)
    tensors = {name: tensor.requires_grad_() for name, tensor in given.items()}
    out = neighborhood_attention(
        tensors["q"],
        tensors["k"],
        tensors["v"],
        kernel_size=case.built_with["kernel_size"],
        dilation=case.built_with.get("dilation") or 1,  # None means 1 to NATTEN
        rpb=tensors.get("rpb"),
    )
    if dout is not None:
        (out * dout).sum().backward()
    gradients = {f"d{name}": tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
    return {"out": out, **gradients}
