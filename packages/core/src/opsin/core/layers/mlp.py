"""The two-layer perceptron of transformer blocks."""

from collections.abc import Callable

from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear, activation, linear over the last dimension; parameters `fc1` and `fc2`.

    Args:
        dim: width C in and out.
        hidden_dim: width between.
        act: makes the activation.
        drop: dropout rate after the activation and after the second layer.
    """

    def __init__(
        self, dim: int, hidden_dim: int, *, act: Callable[[], nn.Module] = nn.GELU, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = act()
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) to the same shape."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
