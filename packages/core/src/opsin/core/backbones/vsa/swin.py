"""Swin with varied-size window attention in place of its shifted windows.

The paper (arXiv 2204.08446) gives results of this host, its code was never published. Chosen here: every
block has windows of 7 pixels and no shift, and the depth-wise 7x7 position convolution stands inside the
attention branch, before the norm, as in ViTAE's normal cell. All else is Swin's (arXiv 2103.14030). Image
(N, 3, H, W) to maps of strides 4, 8, 16, 32; sides round up. Maps are channels-last in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.backbones.settings import one_a_stage
from opsin.core.backbones.vsa.attention import VSAWindowAttention
from opsin.core.backbones.vsa.cells import Attended
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.swin_merging import SwinMerging
from opsin.core.layers.weight_init import init_linear
from opsin.core.models import register_models
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

EPS = 1e-5
ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
}


class Block(Attended):
    """Attention and perceptron, both residual.

    Args:
        dim: channels C.
        attn: the attention, of C channels out.
        pos_size: side of the position convolution's kernel, odd; 0 for none.
        mlp_ratio: hidden over outer width of the perceptron.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
    """

    def __init__(
        self, dim: int, attn: VSAWindowAttention, *, pos_size: int, mlp_ratio: float, drop_path_rate: float
    ) -> None:
        super().__init__(dim, attn, eps=EPS, pos_size=pos_size, mlp_ratio=mlp_ratio)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        x = x + self.drop_path(self.attend(x))
        return x + self.drop_path(self.transform(x))


class Stage(nn.Module):
    """Blocks of one width, and the merging before them unless the stage is the first."""

    def __init__(self, downsample: SwinMerging | None, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)


class SwinVSATrunk(Trunk):
    """What backbone and classifier share: `patch_embed` and the stages, `layers`."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]

    def add_stages(
        self,
        arch: str | Mapping[str, Any],
        in_channels: int,
        drop_path_rate: float,
        *,
        window_size: int,
        pos_size: int,
        mlp_ratio: float,
        qkv_bias: bool,
        last: int | None = None,
    ) -> None:
        """Makes the stages up to `last`, all of them if None."""
        settings = resolve_arch("SwinVSA", ARCHS, arch)
        self.depths = tuple(settings["depths"])
        heads = one_a_stage("num_heads of SwinVSA", settings["num_heads"], len(self.depths))
        self.dims = tuple(settings["embed_dim"] * 2**stage for stage in range(len(self.depths)))
        built = len(self.depths) if last is None else last + 1
        self.patch_embed = PatchEmbedding(in_channels, self.dims[0], 4, pad=True)
        self.layers = nn.ModuleList()
        for stage, rates in enumerate(drop_path_rates(drop_path_rate, self.depths)[:built]):
            dim = self.dims[stage]
            blocks = (
                Block(
                    dim,
                    VSAWindowAttention(dim, heads[stage], window_size=window_size, qkv_bias=qkv_bias),
                    pos_size=pos_size,
                    mlp_ratio=mlp_ratio,
                    drop_path_rate=rate,
                )
                for rate in rates
            )
            self.layers.append(Stage(SwinMerging(dim // 2) if stage else None, blocks))
        self.apply(init_linear)

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Image (N, 3, H, W) to the map (N, C_i, H_i, W_i) of every stage."""
        x = self.patch_embed(x).permute(0, 3, 1, 2)
        for stage in self.layers:
            assert isinstance(stage, Stage)
            if stage.downsample is not None:
                x = stage.downsample(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for block in stage.blocks:
                x = self.run(block, x)
            yield x

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the patches, every block, the head.

        A merging goes with the block after it, an output's norm with the block before it.
        """
        name, last = name.removeprefix(prefix), sum(self.depths) + 1
        part = re.match(r"layers\.(\d+)\.(?:blocks\.(\d+)|downsample)", name)
        if part is not None:
            return sum(self.depths[: int(part[1])]) + int(part[2] or 0) + 1, last + 1
        norm = re.match(r"norm(\d+)\.", name)
        if norm is not None:
            return sum(self.depths[: int(norm[1]) + 1]), last + 1
        return 0 if name.startswith("patch_embed.") else last, last + 1

    def no_weight_decay(self) -> set[str]:
        """The tables of relative positions."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}


@MODELS.register_module()
class SwinVSA(SwinVSATrunk, Backbone):
    """The feature extractor; each map has a norm of its own, `norm0` …, as Swin's.

    Args:
        arch: 'tiny', 'small', or dict(embed_dim=…, depths=…, num_heads=…).
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        window_size: side of the default windows.
        pos_size: side of the position convolutions' kernels, odd; 0 for none.
        mlp_ratio: hidden over outer width of the perceptrons.
        qkv_bias: whether queries, keys and values have a bias.
        out_indices: stages that give a map; stages after the last are not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch`, heads that don't divide a width, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        window_size: int = 7,
        pos_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        self.check_out_indices(len(resolve_arch("SwinVSA", ARCHS, arch)["depths"]))
        self.add_stages(
            arch,
            in_channels,
            drop_path_rate,
            window_size=window_size,
            pos_size=pos_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            last=self.out_indices[-1],
        )
        for index in self.out_indices:
            self.add_module(f"norm{index}", LayerNorm2d(self.dims[index], eps=EPS))
        self.feature_info = tuple(FeatureInfo(self.dims[i], 4 * 2**i) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        return tuple(
            self.get_submodule(f"norm{index}")(m)
            for index, m in enumerate(self.maps(x))
            if index in self.out_indices
        )

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0), or stage `stage` with the merging before it and the norm of its map."""
        if stage == 0:
            return [self.patch_embed]
        if stage > len(self.layers):
            return []
        has_norm = stage - 1 in self.out_indices
        return [self.layers[stage - 1]] + ([self.get_submodule(f"norm{stage - 1}")] if has_norm else [])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier, detector or segmentor of this family to those of this backbone.

        Norms of outputs that the file lacks keep their values.
        """
        later = "|".join(str(stage) for stage in range(len(self.layers), len(self.depths)))
        unused = r"^(norm\d*|head)\." + (rf"|^layers\.({later})\." if later else "")
        return fit(self.state_dict(), backbone_of(tensors), fresh=r"^norm\d+\.", unused=unused)


@MODELS.register_module()
class SwinVSAClassifier(SwinVSATrunk, Classifier):
    """The classifier: stages, norm, mean over positions, linear head.

    Args:
        arch, in_channels, drop_path_rate, window_size, pos_size, mlp_ratio, qkv_bias: as for `SwinVSA`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: as `SwinVSA` does.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        window_size: int = 7,
        pos_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.add_stages(
            arch,
            in_channels,
            drop_path_rate,
            window_size=window_size,
            pos_size=pos_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
        )
        self.num_features = self.dims[-1]
        self.norm = LayerNorm2d(self.num_features, eps=EPS)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean of the last map, normed (N, num_features)."""
        *_, x = self.maps(x)
        return self.norm(x).mean((2, 3))


register_models(
    "vsa", SwinVSAClassifier, {f"swin_vsa_{arch}": {"arch": arch} for arch in ARCHS}, backbone=SwinVSA
)
