"""Mixture of heads: how much each attention head counts for each token (MoH, arXiv 2410.11842).

The first heads are shared, always on; of the others, the routed ones, a router picks a few for every token.
Gates multiply the outputs of heads: keys and values of a head that a token does not use stay there for other
tokens. What a naive reading gets wrong are the factors, which keep the average gate at 1: routed gates are
normalised within the selection and multiplied by its size, shared ones by their number, and the pair of
weights between the two groups by 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.published import Tensors, place


class RoutedHeads(nn.Module):
    """What attention modules with routed heads share.

    `add_router` brings the parameters `wg`, `wg_0` and `wg_1`, none with a bias: `wg` scores the routed
    heads, `wg_1` weights the shared ones among each other, `wg_0` balances the two groups; each exists only
    where there is something to choose.
    """

    num_heads: int
    shared_heads: int
    routed_heads: int
    load_balance: Tensor | None = None  # of the last training forward, until it is taken

    def set_heads(self, num_heads: int, shared_heads: int, routed_heads: int) -> None:
        """Says how many heads there are.

        Args:
            num_heads: all heads h.
            shared_heads: the first of them, always on; all of them if none is routed.
            routed_heads: of the others, how many each token uses, k; 0 for none.

        Raises:
            UserError: for numbers that do not go together.
        """
        pool = num_heads - shared_heads
        if not 0 <= shared_heads <= num_heads or not 0 <= routed_heads <= pool or (pool and not routed_heads):
            raise UserError(
                f"{shared_heads} shared and {routed_heads} routed heads of {num_heads} do not go together",
                "without routed heads all are shared; else at least one and at most all of the others count",
            )
        self.num_heads, self.shared_heads, self.routed_heads = num_heads, shared_heads, routed_heads

    def add_router(self, dim: int, num_heads: int, shared_heads: int, routed_heads: int) -> None:
        """Adds the linear layers, for tokens of width `dim`; for the others see `set_heads`."""
        self.set_heads(num_heads, shared_heads, routed_heads)
        pool = num_heads - shared_heads
        if pool:
            self.wg = nn.Linear(dim, pool, bias=False)
        if pool and shared_heads:
            self.wg_0 = nn.Linear(dim, 2, bias=False)
        if shared_heads > 1:
            self.wg_1 = nn.Linear(dim, shared_heads, bias=False)

    def gates(self, x: Tensor) -> Tensor:
        """What the heads' outputs are multiplied by: tokens (…, C) to (…, h), shared heads first."""
        if not self.routed_heads:
            return self._shared_gates(x)
        probabilities = self.wg(x).softmax(-1)
        chosen = self.choose(probabilities)
        routed = probabilities * chosen
        total = routed.sum(-1, keepdim=True).clamp(min=torch.finfo(routed.dtype).eps)
        routed = routed * (self.routed_heads / total)
        if not self.shared_heads:
            return routed
        groups = 2 * self.wg_0(x).softmax(-1)
        return torch.cat((groups[..., :1] * self._shared_gates(x), groups[..., 1:] * routed), -1)

    def choose(self, probabilities: Tensor) -> Tensor:
        """1 for the likeliest `routed_heads` of the last dimension, 0 for the others.

        In training mode it leaves the load-balance loss in `load_balance`.
        """
        indices = probabilities.topk(self.routed_heads, dim=-1, sorted=False).indices
        chosen = torch.zeros_like(probabilities).scatter(-1, indices, 1.0)
        if self.training:
            self.load_balance = load_balance_loss(probabilities, chosen)
        return chosen

    def _shared_gates(self, x: Tensor) -> Tensor:
        """Gates (…, shared heads) whose sum is the number of shared heads."""
        if self.shared_heads == 1:
            return torch.ones_like(x[..., :1])
        return self.shared_heads * self.wg_1(x).softmax(-1)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave the graph of the last forward behind."""
        return {**self.__dict__, "load_balance": None}


def load_balance_loss(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """How unevenly heads are used: as much as a token picks if all are used alike, more if some dominate.

    Args:
        probabilities: (…, E) of the routed heads; the loss has gradients towards them.
        chosen: (…, E), 1 where a token uses the head, 0 where not.
    """
    mean, share = (values.flatten(0, -2).mean(0) for values in (probabilities, chosen))
    return len(mean) * (mean * share).sum()


def auxiliary_losses(model: nn.Module, weight: float = 0.01) -> dict[str, Tensor]:
    """Takes the load-balance losses of the last training forward, to be added to a model's own losses.

    A model of mmengine that uses `opsin.MoHAttention` adds it in its `loss`:

        losses.update(auxiliary_losses(self.backbone))

    Args:
        model: a network with `RoutedHeads` anywhere in it.
        weight: factor on the mean over these; the authors' is 0.01.

    Returns:
        `loss_balance`, or nothing if no head was routed in training mode since the last call.
    """
    found = []
    for module in model.modules():
        if isinstance(module, RoutedHeads) and module.load_balance is not None:
            found.append(module.load_balance)
            module.load_balance = None
    return {"loss_balance": weight * torch.stack(found).mean()} if found else {}


@torch.no_grad()
def head_usage(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Which share of every image's tokens uses each head; shared heads are used by all.

    Means over the images of a class show what heads are used for:

        usage = head_usage(model, images)["block4.0.attn"]
        per_class = {c: usage[labels == c].mean(0) for c in labels.unique().tolist()}

    Args:
        model: a network with `RoutedHeads` in it; it is run once.
        images: its input, (N, …).

    Returns:
        Name of every attention with routed heads to shares (N, h) in [0, 1].
    """
    usage: dict[str, Tensor] = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, RoutedHeads) and m.routed_heads}

    def record(name: str, layer: RoutedHeads, tokens: Tensor) -> None:
        usage[name] = (layer.gates(tokens) > 0).float().flatten(1, -2).mean(1)

    hooks = [
        layer.register_forward_pre_hook(lambda layer, args, name=name: record(name, layer, args[0]))
        for name, layer in layers.items()
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return usage


@torch.no_grad()
def place_multi_head(model: nn.Module, tensors: Tensors) -> None:
    """Makes a network with routed heads of a trained one with plain multi-head attention.

    All weights but the routers' are the given ones; the routers begin at zero. Where all heads are shared,
    the network then computes what the plain one does; where heads are routed, it needs further training.

    Args:
        model: the network, changed in place.
        tensors: those of the plain network, under the same names.

    Raises:
        UserError: with the first names or shapes that differ.
    """
    routers = {
        f"{name}.{router}.weight".removeprefix("."): layer.get_parameter(f"{router}.weight")
        for name, layer in model.named_modules()
        if isinstance(layer, RoutedHeads)
        for router in ("wg", "wg_0", "wg_1")
        if hasattr(layer, router)
    }
    place(model, {**tensors, **{name: torch.zeros_like(weight) for name, weight in routers.items()}})
