"""What makes a Vim: its sizes and switches, the same for the classifier and the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from opsin.core.backbones.vim.mixer import Direction
from opsin.core.errors import UserError, unknown

ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "depth": 24},
    "small": {"embed_dim": 384, "depth": 24},
    "base": {"embed_dim": 768, "depth": 24},
}


@dataclass(frozen=True)
class VimSettings:
    """Sizes and switches of a Vim; names are the authors' where they have one.

    Args:
        embed_dim: width d of the tokens.
        depth: number of blocks.
        d_state: states a channel.
        img_size: side, or (height, width), in pixels, of the images that the position table is made for;
            other sizes are taken by resizing it.
        patch_size: side of a patch in pixels.
        stride: pixels between patches; None is `patch_size`, less makes patches overlap.
        in_channels: channels of the image.
        drop_rate: dropout after the position table.
        drop_path_rate: of the last add; the first add has 0, and so has the second.
        rms_norm: RMSNorm, else LayerNorm, in the blocks and at the end.
        norm_eps: its epsilon.
        abs_pos_embed: whether there is a position table.
        rope: whether tokens are rotated (2D) before every block.
        rope_residual: whether the residual is rotated too.
        rope_side: grid side to which positions are stretched.
        paired_layers: blocks 2i and 2i + 1 see the sequence and its reverse, and their results are summed.
        flip_ratio: chance of reversing the whole sequence, drawn at every forward, in evaluation too; where
            the class token is read does not follow, so keep it in the middle.
        bimamba_type: directions of the mixer, see `BiMamba`.
        if_divide_out: see `BiMamba`.
        init_layer_scale: see `BiMamba`.
        mixer: further arguments of `BiMamba` (d_conv, expand, dt_rank, conv_bias, bias).
    """

    embed_dim: int
    depth: int
    d_state: int = 16
    img_size: int | tuple[int, int] = 224
    patch_size: int = 16
    stride: int | None = None
    in_channels: int = 3
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    rms_norm: bool = True
    norm_eps: float = 1e-5
    abs_pos_embed: bool = True
    rope: bool = False
    rope_residual: bool = False
    rope_side: int = 14
    paired_layers: bool = False
    flip_ratio: float = 0.0
    bimamba_type: Direction = "v2"
    if_divide_out: bool = True
    init_layer_scale: float | None = None
    mixer: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, arch: str | Mapping[str, Any], changes: Mapping[str, Any]) -> VimSettings:
        """The settings of a named arch, or of a mapping of settings, with `changes`.

        Raises:
            UserError: for an unknown arch or setting, or an odd depth of paired layers.
        """
        if isinstance(arch, str):
            if arch not in ARCHS:
                raise unknown("Vim arch", arch, ARCHS)
            arch = ARCHS[arch]
        given = {"embed_dim": 192, "depth": 24, **arch, **changes}
        names = [f.name for f in fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("argument of Vim", name, names)
        settings = cls(**given)
        if settings.paired_layers and settings.depth % 2:
            raise UserError(f"paired_layers need an even depth, not {settings.depth}")
        return settings

    @property
    def step(self) -> int:
        """Pixels between patches."""
        return self.stride or self.patch_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of an image of `img_size`."""
        size = self.img_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.grid_of(height, width)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image of that many pixels.

        Raises:
            UserError: if the image is smaller than a patch.
        """
        if min(height, width) < self.patch_size:
            raise UserError(
                f"an image of {height} x {width} pixels is smaller than a patch of {self.patch_size}",
                "resize or pad it",
            )
        return (height - self.patch_size) // self.step + 1, (width - self.patch_size) // self.step + 1
