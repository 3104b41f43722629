"""HAT whole: the super-resolution network, the feature extractor, and the published variants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, FeatureInfo, Trunk
from opsin.core.models import register_models
from opsin.registry import MODELS
from opsin.restoration.models.hat.blocks import (
    RHAG,
    PatchEmbed,
    residual_convolution,
    to_channels_first,
    to_channels_last,
)

RGB_MEAN = (0.4488, 0.4371, 0.4040)
NUM_FEAT = 64  # channels of the reconstruction layers


class HATTrunk(Trunk):
    """The layers up to the last norm, shared by the network `HAT` and the feature extractor `HATBackbone`.

    Args:
        img_size: side (or sides) of the training patch; decides only whether windows shift (see `HAB`).
        patch_size: divides `img_size` for that decision; patches themselves are single pixels, as published.
        in_chans: channels of the image.
        embed_dim: channels of the maps.
        depths: HABs of each group.
        num_heads: heads of each group.
        window_size: side of a window.
        compress_ratio: of the convolution branch.
        squeeze_factor: of its channel attention.
        conv_scale: weight of the convolution branch.
        overlap_ratio: of the OCABs.
        mlp_ratio: hidden channels of the MLPs over `embed_dim`.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor of the scores; head_dim ** -0.5 if not given.
        drop_rate: dropout of projections.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last HAB; it grows linearly from 0.
        ape: learned absolute position embedding; the image must then have `img_size`.
        patch_norm: whether a norm follows the flattening.
        img_range: value of white inside the network.
        resi_connection: '1conv' or 'identity', of every long residual connection.
        trunk: arguments of `Trunk` (or of `Backbone`).
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 64,
        patch_size: int = 1,
        in_chans: int = 3,
        embed_dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window_size: int = 16,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        conv_scale: float = 0.01,
        overlap_ratio: float = 0.5,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        ape: bool = False,
        patch_norm: bool = True,
        img_range: float = 1.0,
        resi_connection: str = "1conv",
        **trunk: Any,
    ) -> None:
        super().__init__(**trunk)
        sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        resolution = (sides[0] // patch_size, sides[1] // patch_size)
        if min(resolution) < window_size:
            raise ValueError(f"img_size {img_size} is smaller than a window of {window_size}")
        self.window_size = window_size
        self.embed_dim = embed_dim
        self.img_range = img_range
        mean = torch.tensor(RGB_MEAN if in_chans == 3 else (0.0,) * in_chans)
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = PatchEmbed(embed_dim, patch_norm)
        self.absolute_pos_embed = (
            nn.Parameter(torch.zeros(1, resolution[0] * resolution[1], embed_dim)) if ape else None
        )
        self.resolution = resolution
        self.pos_drop = nn.Dropout(drop_rate)
        rates = iter([drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths))])
        self.layers = nn.ModuleList(
            RHAG(
                embed_dim,
                resolution,
                depth,
                heads,
                window_size,
                overlap_ratio,
                mlp_ratio,
                qkv_bias,
                qk_scale,
                list(islice(rates, depth)),
                resi_connection,
                compress_ratio=compress_ratio,
                squeeze_factor=squeeze_factor,
                conv_scale=conv_scale,
                drop=drop_rate,
                attn_drop=attn_drop_rate,
            )
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm: nn.Module = nn.LayerNorm(embed_dim)
        self.apply(_initialise)
        if self.absolute_pos_embed is not None:
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)

    def shallow(self, x: Tensor) -> Tensor:
        """Image (N, in_chans, H, W) to the first convolution's map (N, C, H, W)."""
        return self.conv_first((x - self.mean) * self.img_range)

    def embed(self, shallow: Tensor) -> Tensor:
        """The first convolution's map (N, C, H, W) to the groups' input (N, H, W, C)."""
        x = self.patch_embed(to_channels_last(shallow))
        if self.absolute_pos_embed is not None:
            if tuple(x.shape[1:3]) != self.resolution:
                raise ValueError(
                    f"absolute positions are learned for {self.resolution[0]}x{self.resolution[1]} images, "
                    f"got {x.shape[1]}x{x.shape[2]}"
                )
            x = x + self.absolute_pos_embed.view(1, *self.resolution, -1)
        return self.pos_drop(x)

    @staticmethod
    def from_published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The published tensors without the index tables, which follow from the window size."""
        return {name: tensor for name, tensor in tensors.items() if "relative_position_index" not in name}


def _initialise(module: nn.Module) -> None:
    """The published initialisation of linear layers; norms and convolutions keep PyTorch's."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Upsample(nn.Sequential):
    """Convolutions and pixel shuffles that enlarge (N, 64, H, W) by `scale`: 2 a step, or 3 at once."""

    def __init__(self, scale: int, channels: int) -> None:
        steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        if scale < 2 or (scale != 3 and 2 ** len(steps) != scale):
            raise ValueError(f"upscale must be 1, 3 or a power of 2, got {scale}")
        layers: list[nn.Module] = []
        for step in steps:
            layers += [nn.Conv2d(channels, step**2 * channels, 3, padding=1), nn.PixelShuffle(step)]
        super().__init__(*layers)


def reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extends (N, C, H, W) to multiples of `multiple` on the right and below, by reflection.

    The border pixel itself is not repeated.

    Images smaller than what is added are reflected back and forth; a single row or column is repeated.
    """
    for dim in (2, 3):
        size = x.shape[dim]
        if extra := -size % multiple:
            places = torch.arange(size + extra, device=x.device) % max(2 * size - 2, 1)
            x = x.index_select(dim, torch.where(places < size, places, 2 * size - 2 - places))
    return x


@MODELS.register_module()
class HAT(HATTrunk):
    """The super-resolution network: image (N, in_chans, H, W) in [0, 1] to (N, in_chans, scale·H, scale·W).

    Images of any size: they are extended to multiples of the window by reflection, and the result is cropped.
    The result is not clamped.

    Args:
        upscale: 1, 2, 3, 4 or a larger power of 2. At 1 (denoising and the like) the published class gives
            its input back; chosen here: one convolution from the features to the image, added to the input.
        upsampler: 'pixelshuffle', the only one published for scales above 1.
        trunk: arguments of `HATTrunk`.
    """

    def __init__(self, *, upscale: int = 2, upsampler: str = "pixelshuffle", **trunk: Any) -> None:
        super().__init__(**trunk)
        if upscale > 1 and upsampler != "pixelshuffle":
            raise ValueError(f"upsampler must be 'pixelshuffle', got {upsampler!r}")
        self.upscale = upscale
        dim, in_chans = self.embed_dim, self.conv_first.in_channels
        self.conv_after_body = residual_convolution(dim, trunk.get("resi_connection", "1conv"))
        if upscale == 1:
            self.conv_last = nn.Conv2d(dim, in_chans, 3, padding=1)
        else:
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, NUM_FEAT, 3, padding=1), nn.LeakyReLU())
            self.upsample = Upsample(upscale, NUM_FEAT)
            self.conv_last = nn.Conv2d(NUM_FEAT, in_chans, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Image (N, in_chans, H, W) to (N, in_chans, scale·H, scale·W)."""
        height, width = x.shape[2:]
        image = reflect_to_multiple(x, self.window_size)
        shallow = self.shallow(image)
        deep = self.conv_after_body(to_channels_first(self.forward_features(self.embed(shallow))))
        restored = self.reconstruct(deep + shallow)
        if self.upscale == 1:
            restored = restored + image
        return restored[..., : height * self.upscale, : width * self.upscale]

    def forward_features(self, x: Tensor) -> Tensor:
        """The embedded map (N, H, W, C) through all groups and the last norm."""
        for group in self.layers:
            x = self.run(group, x)
        return self.norm(x)

    def reconstruct(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) to (N, in_chans, scale·H, scale·W); at scale 1 what is added to the image."""
        if self.upscale == 1:
            return self.conv_last(features) / self.img_range
        image = self.conv_last(self.upsample(self.conv_before_upsample(features)))
        return image / self.img_range + self.mean


@MODELS.register_module()
class HATBackbone(HATTrunk, Backbone):
    """HAT's features for dense tasks: image (N, in_chans, H, W) to maps (N, C, H, W) after chosen groups.

    Args:
        out_indices: the groups whose maps are given; the last group's has passed the last norm.
        upscale: of the variant that the backbone is built from; it has no effect here.
        trunk: arguments of `HATTrunk` and of `Backbone`.
    """

    def __init__(self, *, out_indices: Sequence[int] | None = None, upscale: int = 1, **trunk: Any) -> None:
        del upscale
        depths = trunk.get("depths", (6,) * 6)
        super().__init__(out_indices=(len(depths) - 1,) if out_indices is None else out_indices, **trunk)
        self.feature_info = tuple(FeatureInfo(self.embed_dim, 1) for _ in self.out_indices)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The first convolution and norm (0), or group `stage` (from 1)."""
        return (self.conv_first, self.patch_embed) if stage == 0 else (self.layers[stage - 1],)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (N, in_chans, H, W) to the maps of `out_indices`, each (N, C, H, W)."""
        height, width = x.shape[2:]
        x = self.embed(self.shallow(reflect_to_multiple(x, self.window_size)))
        maps = []
        for i, group in enumerate(self.layers):
            x = self.run(group, x)
            if i in self.out_indices:
                given = self.norm(x) if i == len(self.layers) - 1 else x
                maps.append(to_channels_first(given)[..., :height, :width])
        return tuple(maps)


_SIZES: dict[str, dict[str, Any]] = {
    "hat_s": dict(embed_dim=144, depths=(6,) * 6, num_heads=(6,) * 6, compress_ratio=24, squeeze_factor=24),
    "hat": dict(embed_dim=180, depths=(6,) * 6, num_heads=(6,) * 6),
    "hat_l": dict(embed_dim=180, depths=(6,) * 12, num_heads=(6,) * 12),
}
VARIANTS = {
    f"{name}_x{scale}": dict(size, upscale=scale) for name, size in _SIZES.items() for scale in (2, 3, 4)
}

register_models("hat", HAT, VARIANTS, backbone=HATBackbone)
