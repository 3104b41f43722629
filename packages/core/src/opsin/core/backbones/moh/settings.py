"""What makes a MoH-ViT: its sizes and switches, the same for the classifier and the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsin.core.backbones.numbered_stages import STRIDES
from opsin.core.backbones.settings import one_a_stage, resolve_settings
from opsin.core.errors import UserError


@dataclass(frozen=True)
class MoHViTSettings:
    """Sizes and switches of a MoH-ViT; sequences have one entry for each of the four stages.

    Args:
        embed_dims: widths.
        depths: blocks.
        num_heads: heads of every attention.
        shared_heads: how many of them, the first, are always on.
        routed_heads: how many of the others each token uses; 0 where all are shared.
        mlp_ratios: hidden width of the perceptrons over the stage's width, before the gate takes a third.
        sr_ratios: by how much the map is pooled on a side for far keys; 1 for attention to all pixels.
        pretrain_size: side in pixels of the images that the weights were trained on, at least 64; position
            biases are scaled by it, whatever size comes in.
        window_size: side of the window around each pixel, odd: one, or one a stage.
        fixed_pool_size: rows and columns that far keys are pooled to, in place of `sr_ratios` above 1.
        qkv_bias: whether queries, keys and values have a bias.
        norm_eps: epsilon of the norms of blocks and stages.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        load_balance_weight: factor on the load-balance loss in `auxiliary_losses`.
    """

    embed_dims: Sequence[int]
    depths: Sequence[int]
    num_heads: Sequence[int]
    shared_heads: Sequence[int]
    routed_heads: Sequence[int]
    mlp_ratios: Sequence[float] = (8, 8, 4, 4)
    sr_ratios: Sequence[int] = (8, 4, 2, 1)
    pretrain_size: int = 224
    window_size: int | Sequence[int | None] = 3
    fixed_pool_size: int | None = None
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    in_channels: int = 3
    drop_path_rate: float = 0.0
    load_balance_weight: float = 0.01

    @classmethod
    def of(cls, arch: str | Mapping[str, Any], changes: Mapping[str, Any]) -> MoHViTSettings:
        """The settings of a named arch, or of a mapping of settings, with `changes`.

        Raises:
            UserError: for an unknown arch or setting, a missing one, or values that do not go together.
        """
        settings = resolve_settings("MoHViT", ARCHS, arch, changes)
        for name in PER_STAGE:
            one_a_stage(f"{name} of MoHViT", getattr(settings, name), len(STRIDES))
        if settings.pretrain_size < 2 * STRIDES[-1]:
            raise UserError(
                f"pretrain_size {settings.pretrain_size} of MoHViT must be at least {2 * STRIDES[-1]}",
                "position biases are scaled by the last map's side minus 1",
            )
        return settings

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of the window of every stage; 0 where there is none."""
        sides = one_a_stage("window_size of MoHViT", self.window_size, len(STRIDES))
        return tuple(
            0 if ratio == 1 else side or 3 for side, ratio in zip(sides, self.sr_ratios, strict=True)
        )

    def pool(self, stage: int, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the keys of a stage (from 0) whose map has `size` rows and columns."""
        ratio, fixed = self.sr_ratios[stage], self.fixed_pool_size
        if ratio == 1:
            return size
        if fixed is not None:
            return min(fixed, size[0]), min(fixed, size[1])
        return max(1, size[0] // ratio), max(1, size[1] // ratio)


PER_STAGE = (
    "embed_dims",
    "depths",
    "num_heads",
    "shared_heads",
    "routed_heads",
    "mlp_ratios",
    "sr_ratios",
    "window_size",
)
_SMALL: dict[str, Any] = {
    "embed_dims": (72, 144, 288, 576),
    "depths": (5, 5, 22, 5),
    "num_heads": (3, 6, 12, 24),
}
_BASE: dict[str, Any] = {
    "embed_dims": (96, 192, 384, 768),
    "depths": (5, 5, 23, 5),
    "num_heads": (4, 8, 16, 32),
}
# the number is the share of heads in use, in percent
ARCHS: dict[str, MoHViTSettings] = {
    "small_80": MoHViTSettings(**_SMALL, shared_heads=(3, 6, 3, 8), routed_heads=(0, 0, 6, 12)),
    "small_75": MoHViTSettings(**_SMALL, shared_heads=(3, 6, 3, 4), routed_heads=(0, 0, 6, 12)),
    "base_75": MoHViTSettings(**_BASE, shared_heads=(4, 8, 4, 5), routed_heads=(0, 0, 8, 16)),
    "base_50": MoHViTSettings(**_BASE, shared_heads=(2, 2, 2, 4), routed_heads=(2, 4, 6, 8)),
}
