"""What makes an iLLaMA: its sizes, the same for the classifier and the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from opsin.core.errors import UserError, unknown
from opsin.core.layers.position_table import Grid

ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}


@dataclass(frozen=True)
class ILLaMASettings:
    """Sizes of an iLLaMA.

    Args:
        embed_dim: width D of the tokens.
        depth: number of blocks.
        num_heads: heads of D / num_heads channels, an even number.
        mlp_ratio: of the feed-forward layer, whose hidden width is two thirds of mlp_ratio * D, rounded up to
            a multiple of 256.
        img_size: side in pixels of the square images that the position table is made for; other sizes are
            taken by resizing it.
        patch_size: side of a patch in pixels.
        in_channels: channels of the image.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rate: dropout after the position table.
        drop_path_rate: of the last block; it grows linearly from 0 at the first.
    """

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    img_size: int = 224
    patch_size: int = 16
    in_channels: int = 3
    qkv_bias: bool = True
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    @classmethod
    def of(cls, arch: str | Mapping[str, Any], changes: Mapping[str, Any]) -> ILLaMASettings:
        """The settings of a named arch, or of a mapping of settings, with `changes`.

        Raises:
            UserError: for an unknown arch or setting, a missing one, or heads without an even width.
        """
        if isinstance(arch, str):
            if arch not in ARCHS:
                raise unknown("iLLaMA arch", arch, ARCHS)
            arch = ARCHS[arch]
        given = {**arch, **changes}
        names = [f.name for f in fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("argument of iLLaMA", name, names)
        missing = [name for name in ARCHS["tiny"] if name not in given]
        if missing:
            raise UserError(f"iLLaMA arch {dict(arch)} lacks {', '.join(missing)}")
        settings = cls(**given)
        if settings.embed_dim % (2 * settings.num_heads):
            raise UserError(
                f"{settings.num_heads} heads do not divide a width of {settings.embed_dim} into even widths",
                "rotary embedding turns pairs of channels",
            )
        return settings

    @property
    def hidden_dim(self) -> int:
        """Hidden width of the feed-forward layers."""
        return 256 * -(-int(2 * int(self.mlp_ratio * self.embed_dim) / 3) // 256)

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches of an image of `img_size`."""
        return self.grid_of(self.img_size, self.img_size)

    def grid_of(self, height: int, width: int) -> Grid:
        """Rows and columns of patches of an image of that many pixels.

        Raises:
            UserError: if the image is smaller than a patch.
        """
        if min(height, width) < self.patch_size:
            raise UserError(
                f"an image of {height} x {width} pixels is smaller than a patch of {self.patch_size}",
                "resize or pad it",
            )
        return height // self.patch_size, width // self.patch_size
