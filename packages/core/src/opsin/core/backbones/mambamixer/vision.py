"""ViM2, the vision backbone of MambaMixer (arXiv 2403.19888).

Image (N, 3, H, W) to four maps at strides 4, 8, 16, 32: a 4x4 stem, stages of blocks, 2x2 merging between
them. A block is a selective token mixer, which scans the map in four orders, and a selective channel mixer;
inside a stage they read weighted averages of all before them. Features travel as (B, H, W, D).

A channel mixer's parameters depend on the number of tokens. So that any image goes through, it reads every
channel pooled to 7x7 places, and its result is brought back to the map's size; `channel_length='full'` is the
literal form for one size of image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.backbones.mambamixer.averaging import MixerStack
from opsin.core.backbones.mambamixer.mixer import CROSS_SCAN, EPS, S6, SelectiveChannelMixer, SelectiveMixer
from opsin.core.errors import UserError, unknown
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.swin_merging import SwinMerging
from opsin.core.layers.weight_init import init_linear
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

ChannelMixer = Literal["selective", "mlp"]
STRIDES = (4, 8, 16, 32)
ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"dim": 64, "depths": (2, 2, 8, 2), "channel_mixer": "selective"},
    "small": {"dim": 96, "depths": (2, 2, 10, 2), "channel_mixer": "selective"},
    "base": {"dim": 128, "depths": (2, 2, 10, 2), "channel_mixer": "selective"},
    "mlp": {"dim": 96, "depths": (2, 2, 10, 2), "channel_mixer": "mlp"},
}


class TokenMixer(nn.Module):
    """Plus a depth-wise 3x3 convolution of it, LayerNorm, selective mixer along four orders.

    Args:
        dim: width D.
        drop_path_rate: chance of dropping a sample's result.
    """

    def __init__(self, dim: int, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.mixer = SelectiveMixer(dim, routes=CROSS_SCAN, expand=2.0)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) to the same shape."""
        x = x + self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.drop_path(self.mixer(self.norm(x)))


class PooledChannelMixer(nn.Module):
    """LayerNorm, selective channel mixer on every channel pooled to a square, bilinear resizing back.

    Args:
        dim: width D.
        side: side of the square that channels are pooled to.
        drop_path_rate: chance of dropping a sample's result.
    """

    def __init__(self, dim: int, side: int = 7, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.side = side
        self.mixer = SelectiveChannelMixer(side**2)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) to the same shape."""
        pooled = F.adaptive_avg_pool2d(self.norm(x).permute(0, 3, 1, 2), self.side)
        mixed = self.mixer(pooled.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, pooled.shape[2:])
        resized = F.interpolate(mixed, size=x.shape[1:3], mode="bilinear")
        return self.drop_path(resized.permute(0, 2, 3, 1))


class FullChannelMixer(nn.Module):
    """LayerNorm, selective channel mixer on all cells of the map.

    Args:
        dim: width D.
        cells: number of cells of the map, which is fixed.
        drop_path_rate: chance of dropping a sample's result.
    """

    def __init__(self, dim: int, cells: int, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.mixer = SelectiveChannelMixer(cells)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) to the same shape."""
        mixed = self.mixer(self.norm(x).flatten(1, 2))
        return self.drop_path(mixed.unflatten(1, x.shape[1:3]))


class MlpChannelMixer(nn.Module):
    """LayerNorm, perceptron of every cell alone (ViM2-MLP).

    Args:
        dim: width D.
        drop_path_rate: chance of dropping a sample's result.
    """

    def __init__(self, dim: int, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) to the same shape."""
        return self.drop_path(self.mlp(self.norm(x)))


def _init_weights(module: nn.Module) -> None:
    init_linear(module)
    if isinstance(module, S6):  # comes after its own linear layers
        module.reset_steps()


class ViM2Trunk(Trunk):
    """Stem and stages; what the backbone and the classifier share."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    patch_embed: nn.Sequential
    stages: nn.ModuleList
    downsamples: nn.ModuleList

    def build(
        self,
        arch: str | Mapping[str, Any],
        in_channels: int,
        drop_path_rate: float,
        channel_length: int | Literal["full"],
        img_size: int | Sequence[int],
        stages: int,
    ) -> None:
        """Makes the stem and the first `stages` stages; drop path rates are those of the whole network.

        Raises:
            UserError: for an unknown arch or channel mixer, other than four depths, a channel length that is
                no square, or an image size that 32 does not divide where it matters.
        """
        chosen = resolve_arch("ViM2", ARCHS, arch)
        self.depths = tuple(chosen["depths"])
        if len(self.depths) != len(STRIDES):
            raise UserError(f"ViM2 has four stages, not depths {self.depths}")
        self.dims = tuple(chosen["dim"] * 2**i for i in range(len(STRIDES)))
        channels_of = _channel_mixers(chosen["channel_mixer"], channel_length, img_size)
        self.patch_embed = nn.Sequential(
            nn.Conv2d(in_channels, self.dims[0], 4, stride=4), LayerNorm2d(self.dims[0], eps=EPS)
        )
        rates = drop_path_rates(drop_path_rate, self.depths)
        self.stages = nn.ModuleList(
            MixerStack(
                [TokenMixer(self.dims[i], rate) for rate in rates[i]],
                [channels_of(i, self.dims[i], rate) for rate in rates[i]],
            )
            for i in range(stages)
        )
        self.downsamples = nn.ModuleList(SwinMerging(self.dims[i]) for i in range(stages - 1))
        self.apply(_init_weights)

    def walk(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to the features (N, H_i, W_i, D_i) of every stage."""
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(self.downsamples[index - 1](x) if index else x, self.run)
            maps.append(x)
        return maps

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: the stem; one for every block, with its scalars and the merging before it; the rest."""
        name, layers = name.removeprefix(prefix), sum(self.depths) + 2
        part = re.match(r"(stages|downsamples)\.(\d+)\.(?:\w+\.(\d+))?", name)
        if part is None:
            return (0 if name.startswith("patch_embed.") else layers - 1), layers
        stage = int(part[2]) + (part[1] == "downsamples")
        # the stage's result has scalars too, one level further
        within = min(int(part[3]), self.depths[stage] - 1) if part[1] == "stages" else 0
        return sum(self.depths[:stage]) + within + 1, layers

    def no_weight_decay(self) -> set[str]:
        """The logarithms of A and the skip weights D of all scans, and the weights of the averages."""
        averages = r"\.(alpha|beta|theta|gamma)\.\d+$"
        return {n for n, _ in self.named_parameters() if re.search(rf"\.(A_log|D)$|{averages}", n)}


def _channel_mixers(kind: str, channel_length: int | Literal["full"], img_size: int | Sequence[int]) -> Any:
    """A function of stage index, width and drop path rate that makes a channel mixer."""
    if kind not in ("selective", "mlp"):
        raise unknown("channel_mixer of ViM2", str(kind), ("selective", "mlp"))
    if kind == "mlp":
        return lambda stage, dim, rate: MlpChannelMixer(dim, rate)
    if channel_length == "full":
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise UserError(f"channel_length='full' needs an img_size that 32 divides, not {img_size}")
        return lambda stage, dim, rate: FullChannelMixer(dim, height * width // STRIDES[stage] ** 2, rate)
    side = math.isqrt(channel_length) if isinstance(channel_length, int) and channel_length > 0 else 0
    if not side or side**2 != channel_length:
        raise UserError(f"channel_length of ViM2 must be a square number or 'full', not {channel_length!r}")
    return lambda stage, dim, rate: PooledChannelMixer(dim, side, rate)


@MODELS.register_module()
class ViM2(ViM2Trunk, Backbone):
    """The feature extractor: maps of four stages, each with a LayerNorm of its own (`norm0` … `norm3`).

    Stages after the last output are not built.

    Args:
        arch: 'tiny', 'small', 'base', 'mlp', or dict(dim=…, depths=four numbers, channel_mixer='selective' or
            'mlp'); the width doubles from stage to stage, a depth counts pairs of mixers.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        channel_length: places that the channel mixers see a channel at, a square number; 'full' for all cells
            of images of `img_size`.
        img_size: side, or (height, width), of the images in pixels; matters for 'full' alone.
        out_indices: stages that give a map.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown arch or channel mixer, an impossible channel length, image size or
            `out_indices`; in `forward`, with 'full', for images of another size.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        channel_length: int | Literal["full"] = 49,
        img_size: int | Sequence[int] = 224,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        self.check_out_indices(len(STRIDES))
        self.build(arch, in_channels, drop_path_rate, channel_length, img_size, self.out_indices[-1] + 1)
        for index in self.out_indices:
            self.add_module(f"norm{index}", nn.LayerNorm(self.dims[index], eps=EPS))
        self.feature_info = tuple(FeatureInfo(self.dims[i], STRIDES[i]) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        maps = self.walk(x)
        return tuple(self.get_submodule(f"norm{i}")(maps[i]).permute(0, 3, 1, 2) for i in self.out_indices)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (from 1) with the merging before it and the norm of its map."""
        if stage == 0:
            return [self.patch_embed]
        index = stage - 1
        if index >= len(self.stages):
            return []
        parts = [self.stages[index]] + ([self.downsamples[index - 1]] if index else [])
        return parts + ([self.get_submodule(f"norm{index}")] if index in self.out_indices else [])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file, or of a whole detector, to those of this backbone.

        The authors published none, so this is for files of `ViM2Classifier` and of trained detectors. Output
        norms that the file lacks stay as they are.
        """
        unused = r"^(norm|head|norm\d+|stages\.\d+|downsamples\.\d+)\."
        return fit(self.state_dict(), backbone_of(tensors), fresh=r"^norm\d+\.", unused=unused)


@MODELS.register_module()
class ViM2Classifier(ViM2Trunk, Classifier):
    """The classifier: four stages, LayerNorm, global mean, linear head.

    Args:
        arch, in_channels, drop_path_rate, channel_length, img_size: as for `ViM2`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: as `ViM2`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        channel_length: int | Literal["full"] = 49,
        img_size: int | Sequence[int] = 224,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.build(arch, in_channels, drop_path_rate, channel_length, img_size, len(STRIDES))
        self.num_features = self.dims[-1]
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean (N, num_features) of the normed last map."""
        return self.norm(self.walk(x)[-1]).mean((1, 2))
