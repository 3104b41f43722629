"""The transformer block of the DeiT, PVT and Swin hosts, and its form without agents."""

from __future__ import annotations

from torch import Tensor

from opsin.core.layers.token_block import Grid
from opsin.core.layers.token_block import TokenBlock as Block

__all__ = ["Block", "SoftmaxBlock"]


class SoftmaxBlock(Block):
    """The same with an attention over all tokens that has no use for the size of their map."""

    def attend(self, x: Tensor, size: Grid) -> Tensor:
        """The attention of normed tokens (B, N, C)."""
        return self.attn(x)
