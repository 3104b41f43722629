"""The depth-wise convolution inside a perceptron, as PVT v2 (arXiv 2106.13797) and its relatives name it."""

from torch import Tensor, nn


class DepthwiseConv(nn.Module):
    """A depth-wise 3x3 convolution, published as a module of its own; parameters `dwconv`.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.dwconv(x)
