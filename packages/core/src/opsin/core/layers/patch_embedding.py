"""Images or maps cut into patches, each of which becomes a vector."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel (`proj`), then a LayerNorm (`norm`) if asked for.

    Args:
        in_channels: channels in.
        dim: channels out, C.
        patch_size: side of a patch.
        norm: whether a LayerNorm of epsilon 1e-5 follows.
        pad: whether pixels that fill no whole patch are padded with zeros to one; else they are left out.
    """

    def __init__(
        self, in_channels: int, dim: int, patch_size: int, *, norm: bool = True, pad: bool = False
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = patch_size, pad
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, H / patch_size, W / patch_size, C)."""
        if self.pad:
            x = F.pad(x, (0, -x.shape[3] % self.patch_size, 0, -x.shape[2] % self.patch_size))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))
