"""The gated perceptron GEGLU (GLU Variants Improve Transformer, arXiv 2002.05202).

What a naive reading gets wrong: one linear layer gives the values first, then the gates.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class GEGLU(nn.Module):
    """A linear layer to values and gates (`proj`); values times the gates' GELU."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) to (…, hidden_dim)."""
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to `mult` times the width and a linear layer back; parameters under `net.0` and `net.2`."""

    def __init__(self, dim: int, mult: float = 4) -> None:
        super().__init__()
        hidden_dim = int(mult * dim)
        self.net = nn.Sequential(GEGLU(dim, hidden_dim), nn.Identity(), nn.Linear(hidden_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim) to the same shape."""
        return self.net(x)
