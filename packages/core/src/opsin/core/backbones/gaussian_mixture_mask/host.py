"""What every host is built with, besides its variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from opsin.core.backbones.gaussian_mixture_mask.mask import Grid, MaskKind, MaskSettings
from opsin.core.errors import unknown


@dataclass(frozen=True)
class HostSettings:
    """Keyword arguments of every host, backbone and classifier alike.

    Attributes:
        img_size: side of the images that positions and learned masks are for; positions are resized for
            others.
        in_channels: channels of the image.
        mask: 'gmm', 'elm' (images of `img_size` only), or 'none'.
        num_kernels: Gaussians of each head.
        published_underflow: see `GaussianMixtureMask`.
        drop_path_rate: rate of every block (ViT, CaiT, PiT) or of the last, to which it grows linearly from 0
            at the first (Swin, T2T).
    """

    img_size: int = 32
    in_channels: int = 3
    mask: MaskKind = "gmm"
    num_kernels: int = 5
    published_underflow: bool = False
    drop_path_rate: float = 0.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The settings from a host's keyword arguments.

        Raises:
            UserError: for an unknown one.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise unknown("argument of a masked host", name, known)
        return cls(**given)

    def mask_settings(self) -> MaskSettings:
        """Which mask every layer has.

        Raises:
            UserError: for an unknown one.
        """
        return MaskSettings(self.mask, self.num_kernels, self.published_underflow)


@dataclass(frozen=True)
class PatchSettings(HostSettings):
    """Those of a host that cuts patches.

    Attributes:
        patch_size: side of a patch; None is an eighth of `img_size` (ViT, CaiT) or a sixteenth (PiT, Swin).
    """

    patch_size: int | None = None

    def patches(self, a_side: int) -> tuple[int, Grid]:
        """Side of a patch, of which an image of `img_size` has `a_side` a side by default, and the grid."""
        patch_size = max(1, self.img_size // a_side) if self.patch_size is None else self.patch_size
        side = self.img_size // patch_size
        return patch_size, (side, side)
