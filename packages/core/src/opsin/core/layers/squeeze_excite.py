"""Squeeze-and-excitation (arXiv 1709.01507): channels weighted by what the whole map holds."""

from collections.abc import Callable

from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Global mean, 1x1 `fc1`, activation, 1x1 `fc2`, sigmoid; the input is multiplied by it.

    Args:
        channels: channels C.
        reduced_channels: channels between the two convolutions.
        act: makes the activation between them.
    """

    def __init__(
        self, channels: int, reduced_channels: int, *, act: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced_channels, 1)
        self.act = act()
        self.fc2 = nn.Conv2d(reduced_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
