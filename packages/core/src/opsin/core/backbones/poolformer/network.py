"""MetaFormer's block, and the networks: dense form and classifier."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk
from opsin.core.backbones.poolformer.arch import ARCHS, Arch
from opsin.core.backbones.poolformer.layouts import TIMM_DIFFERS, authors_names, is_of_timm
from opsin.core.backbones.poolformer.mixers import Mixer, PositionTable, build_mixer
from opsin.core.backbones.settings import resolve_settings
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.pointwise_conv import PointwiseConv
from opsin.core.layers.weight_init import init_linear
from opsin.core.models import register_models
from opsin.core.published import Tensors, fit
from opsin.registry import MODELS


class Mlp(nn.Module):
    """Two 1x1 convolutions, `fc1` and `fc2`, and the exact GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = PointwiseConv(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = PointwiseConv(hidden_dim, dim)
        for conv in (self.fc1, self.fc2):
            nn.init.trunc_normal_(conv.weight, std=0.02)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.fc2(self.act(self.fc1(x)))


class MetaFormerBlock(nn.Module):
    """Token mixer and perceptron, each a residual branch after a norm.

    Args:
        dim: channels C.
        token_mixer: see `build_mixer`.
        mlp_ratio: hidden over outer width of the perceptron.
        arch: norm and layer scale.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
    """

    def __init__(
        self, dim: int, token_mixer: Mixer, mlp_ratio: float, arch: Arch, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = arch.make_norm(dim)
        self.token_mixer = build_mixer(token_mixer, dim)
        self.norm2 = arch.make_norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)
        self.layer_scale_1 = self.layer_scale_2 = None
        if arch.use_layer_scale:
            self.layer_scale_1, self.layer_scale_2 = (
                nn.Parameter(torch.full((dim,), arch.layer_scale_init_value)) for _ in range(2)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = self._add(x, self.token_mixer(self.norm1(x)), self.layer_scale_1)
        return self._add(x, self.mlp(self.norm2(x)), self.layer_scale_2)

    def _add(self, x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
        branch = self.drop_path(branch)
        return x + branch if scale is None else torch.addcmul(x, branch, scale[:, None, None])


class PatchEmbed(nn.Module):
    """A strided convolution with bias, `proj`, and no norm."""

    def __init__(self, in_channels: int, dim: int, patch_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        return self.proj(x)


def _network(arch: Arch, drop_path_rate: float) -> Iterator[tuple[int | None, nn.Module]]:
    """What the published `network` lists: stages with their number, tables and downsampling with None."""
    mixers, ratios, grids = (arch.of_each_stage(n) for n in ("token_mixers", "mlp_ratios", "pos_grids"))
    for stage, rates in enumerate(drop_path_rates(drop_path_rate, arch.layers)):
        dim = arch.embed_dims[stage]
        if grids[stage] is not None:
            yield None, PositionTable(dim, grids[stage])
        blocks = (MetaFormerBlock(dim, mixers[stage], ratios[stage], arch, rate) for rate in rates)
        yield stage, nn.Sequential(*blocks)
        if arch.has_downsample(stage):
            wider = arch.embed_dims[stage + 1]
            yield None, PatchEmbed(dim, wider, arch.down_patch_size, arch.down_stride, arch.down_pad)


class Network(Trunk):
    """Stem and `network`, which backbone and classifier share; mix it in before either."""

    arch: Arch
    entries: int  # of the whole published `network`
    positions: tuple[int, ...]  # of the stages that are built, among them

    def add_network(self, arch: Arch, in_channels: int, drop_path_rate: float, built: int) -> None:
        """Builds the first `built` stages; drop path rates are those of the whole network."""
        self.arch = arch
        parts = list(_network(arch, drop_path_rate))
        end = [stage for stage, _ in parts].index(built - 1) + 1
        self.entries = len(parts)
        self.positions = tuple(i for i, (stage, _) in enumerate(parts[:end]) if stage is not None)
        self.patch_embed = PatchEmbed(
            in_channels, arch.embed_dims[0], arch.in_patch_size, arch.in_stride, arch.in_pad
        )
        self.network = nn.ModuleList(part for _, part in parts[:end])
        self.apply(init_linear)

    def ends_of_stages(self, x: Tensor) -> Iterator[Tensor]:
        """Image (N, 3, H, W) to the map (N, C_i, H_i, W_i) as each stage leaves it."""
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        for index, part in enumerate(self.network):
            if index not in self.positions:
                x = part(x)
                continue
            for block in part.children():
                x = self.run(block, x)
            yield x

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: stem, every block, then norms and head.

        Downsampling layers and tables learn with the block after them. The authors give no layer-wise decay;
        this is the grouping that vision transformers use.
        """
        last = sum(self.arch.layers) + 1
        part, _, rest = name.removeprefix(prefix).partition(".")
        if part == "patch_embed":
            return 0, last + 1
        if part != "network":
            return last, last + 1
        index, block, *_ = rest.split(".")
        stages_before = sum(position < int(index) for position in self.positions)
        inside = int(block) if int(index) in self.positions else 0
        return 1 + sum(self.arch.layers[:stages_before]) + inside, last + 1


def _strides(arch: Arch) -> list[int]:
    strides = [arch.in_stride]
    for stage in range(len(arch.layers) - 1):
        strides.append(strides[-1] * (arch.down_stride if arch.has_downsample(stage) else 1))
    return strides


@MODELS.register_module()
class MetaFormer(Network, Backbone):
    """PoolFormer's dense form, and that of any MetaFormer: each output has a norm of its own.

    The norm's name is its stage's index in `network`: norm0, norm2, norm4, norm6 where there are no position
    tables. Stages after the last output are not built. For a RetinaNet, whose pyramid begins at stride 8,
    leave out the first map by `out_indices=(1, 2, 3)`.

    Args:
        arch: a name in `ARCHS` ('poolformer_s12', …) or a mapping of the fields of `Arch`, layers and
            embed_dims at least.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        out_indices: stages that give a map; all by default.
        frozen_stages, with_cp, init_cfg: see `Backbone`.
        changes: fields of `Arch` that replace those of `arch` (`token_mixers`, `norm`, …).

    Raises:
        UserError: for an unknown `arch` or setting, or `out_indices` that are no stages.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "poolformer_s12",
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        variant = resolve_settings("MetaFormer", ARCHS, arch, changes)
        stages = range(len(variant.layers))
        super().__init__(
            out_indices=stages if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(len(stages))
        self.add_network(variant, in_channels, drop_path_rate, built=self.out_indices[-1] + 1)
        dims, strides = variant.of_each_stage("embed_dims"), _strides(variant)
        for index in self.out_indices:
            self.add_module(self.norm_name(index), variant.make_norm(dims[index]))
        self.feature_info = tuple(FeatureInfo(dims[index], strides[index]) for index in self.out_indices)

    def norm_name(self, stage: int) -> str:
        """Name of the norm of the map of `stage` (from 0)."""
        return f"norm{self.positions[stage]}"

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`.

        Raises:
            UserError: if a part that is for one size of picture (a position table, a spatial perceptron)
                meets another.
        """
        return tuple(
            self.get_submodule(self.norm_name(stage))(end)
            for stage, end in enumerate(self.ends_of_stages(x))
            if stage in self.out_indices
        )

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (1 to 4) with what comes before it and the norm of its map."""
        if stage == 0:
            return [self.patch_embed]
        index = stage - 1
        if index >= len(self.positions):
            return []
        before = self.positions[index - 1] + 1 if index else 0
        parts = list(self.network[before : self.positions[index] + 1])
        return parts + ([self.get_submodule(self.norm_name(index))] if index in self.out_indices else [])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a published file to those of this backbone.

        Takes classifiers of the authors, timm and mmpretrain, dense models, and whole detectors and
        segmentors. Output norms that the file does not have stay as they are; its head is dropped.

        Raises:
            UserError: for a file of MetaFormer Baselines, which is another network.
        """
        beyond = "|".join(map(str, range(len(self.network), self.entries)))
        unused = rf"^(norm\d*|head|network\.({beyond}))\."
        return fit(self.state_dict(), authors_names(tensors), fresh=r"^norm\d+\.", unused=unused)


@MODELS.register_module()
class MetaFormerClassifier(Network, Classifier):
    """The published classifier: stages, a norm of the map, its mean, linear head.

    Args:
        arch: as for `MetaFormer`.
        num_classes: logits; 0 for no head.
        in_channels, drop_path_rate: as for `MetaFormer`.
        with_cp, init_cfg: see `Trunk`.
        changes: fields of `Arch` that replace those of `arch`.

    Raises:
        UserError: for an unknown `arch` or setting.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "poolformer_s12",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        variant = resolve_settings("MetaFormer", ARCHS, arch, changes)
        self.add_network(variant, in_channels, drop_path_rate, built=len(variant.layers))
        self.num_features = variant.embed_dims[-1]
        self.norm = variant.make_norm(self.num_features)
        self.reset_classifier(num_classes)

    def forward_map(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed last map (N, num_features, H', W')."""
        for end in self.ends_of_stages(x):
            x = end
        return self.norm(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean of the normed map (N, num_features).

        Raises:
            UserError: if a part that is for one size of picture meets another.
        """
        return self.forward_map(x).mean((2, 3))

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file of the authors, timm or mmpretrain to those of this network.

        Warns of timm's files: if the weights are the authors' (`sail_in1k`), this network computes what the
        authors published and timm does not; weights trained by timm would lose their pooled norm.

        Raises:
            UserError: for a file of MetaFormer Baselines, which is another network.
        """
        given = authors_names(tensors)
        if is_of_timm(tensors):
            warnings.warn(TIMM_DIFFERS, stacklevel=2)
        last = rf"^norm{self.positions[-1]}\."  # mmpretrain numbers the final norm
        return {re.sub(last, "norm.", name): tensor for name, tensor in given.items()}


register_models(
    "poolformer",
    MetaFormerClassifier,
    {name: {"arch": name} for name in ARCHS if not name.endswith("_224")},
    backbone=MetaFormer,
)
# for one size of picture, so of little use as feature extractors
register_models(
    "poolformer", MetaFormerClassifier, {name: {"arch": name} for name in ARCHS if name.endswith("_224")}
)
