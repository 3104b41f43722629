"""The PiT host: three stages with a class token, depth-wise convolutions between them (arXiv 2103.16302).

Gaussian mixture mask (arXiv 2309.05375). Image (N, 3, H, W) to maps whose strides are the patch size, which
is a sixteenth of `img_size`, and twice and four times that; sides round up.

What a naive reading gets wrong: the class token goes through every stage, and a linear layer of its own
widens it where the map is halved; the mask leaves the logits of its pairs as they are; positions, one for the
class token too, are added once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.backbones.gaussian_mixture_mask.attention import MaskedAttention
from opsin.core.backbones.gaussian_mixture_mask.host import PatchSettings
from opsin.core.backbones.gaussian_mixture_mask.mask import Grid
from opsin.core.backbones.gaussian_mixture_mask.names import own_names, without_base
from opsin.core.backbones.gaussian_mixture_mask.plain import EPS, fit_positions, xavier_linears
from opsin.core.errors import UserError
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.position_table import resize_position_table
from opsin.core.layers.token_block import TokenBlock
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 6, 4), "num_heads": (2, 4, 8), "head_dim": 48, "mlp_ratio": 2.0}
}
PATCHES_A_SIDE = 16


class Pool(nn.Module):
    """Halves a map and doubles its width: depth-wise 3x3 of stride 2, then 1x1; a linear layer for the token.

    Args:
        dim: channels in, C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1, groups=dim)
        self.pointwise = nn.Conv2d(2 * dim, 2 * dim, 1)
        self.cls_ff = nn.Linear(dim, 2 * dim)

    def forward(self, tokens: Tensor, size: Grid) -> tuple[Tensor, Grid]:
        """(N, 1 + h * w, C) of a map of `size` (h, w) to tokens of width 2 C, and their map's size."""
        token, patches = tokens[:, :1], tokens[:, 1:].transpose(1, 2).unflatten(2, size)
        halved = self.pointwise(self.depthwise(patches))
        tokens = torch.cat((self.cls_ff(token), halved.flatten(2).transpose(1, 2)), 1)
        return tokens, (halved.shape[2], halved.shape[3])


class Stage(nn.Module):
    """Blocks of one width, and the pooling before them unless the stage is the first.

    Args:
        pool: the pooling.
        blocks: the blocks.
    """

    def __init__(self, pool: Pool | None, blocks: Iterable[TokenBlock]) -> None:
        super().__init__()
        self.pool = pool
        self.blocks = nn.ModuleList(blocks)


class PiTTrunk(Trunk):
    """What backbone and classifier share: patches, class token, positions and stages."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    grid: Grid

    def build(self, arch: str | Mapping[str, Any], host: PatchSettings, *, stages: int | None = None) -> None:
        """Makes the first `stages` stages."""
        settings = resolve_arch("MaskedPiT", ARCHS, arch)
        self.depths = tuple(settings["depths"])
        num_heads = settings["num_heads"]
        if len(num_heads) != len(self.depths):
            raise UserError(f"num_heads {num_heads} of MaskedPiT must have {len(self.depths)} entries")
        self.dims = tuple(settings["embed_dim"] * 2**stage for stage in range(len(self.depths)))
        patch_size, self.grid = host.patches(PATCHES_A_SIDE)
        side = self.grid[0]
        self.mask = host.mask_settings()
        self.patch_embed = PatchEmbedding(host.in_channels, self.dims[0], patch_size, norm=False, pad=True)
        self.cls_token = nn.Parameter(torch.randn(1, 1, self.dims[0]))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + side * side, self.dims[0]))
        self.stages = nn.ModuleList()
        for stage in range(len(self.depths) if stages is None else stages):
            dim, heads, stage_side = self.dims[stage], num_heads[stage], -(-side // 2**stage)
            blocks = [
                TokenBlock(
                    dim,
                    MaskedAttention(
                        dim, heads, settings["head_dim"], self.mask.make(heads, (stage_side, stage_side))
                    ),
                    mlp_ratio=settings["mlp_ratio"],
                    drop_path_rate=host.drop_path_rate,
                    eps=EPS,
                )
                for _ in range(self.depths[stage])
            ]
            self.stages.append(Stage(Pool(self.dims[stage - 1]) if stage else None, blocks))
        self.apply(xavier_linears)

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Image (N, 3, H, W) to the tokens (N, 1 + h * w, C) of every stage, and their map's size (h, w)."""
        patches = self.patch_embed(x)
        size = (patches.shape[1], patches.shape[2])
        tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), patches.flatten(1, 2)), 1)
        tokens = tokens + resize_position_table(self.pos_embed, self.grid, size, before=1)
        for stage in self.stages.children():
            assert isinstance(stage, Stage)
            if stage.pool is not None:
                tokens, size = stage.pool(tokens, size)
            for block in stage.blocks:
                tokens = self.run(block, tokens, size)
            yield tokens, size

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: patches, class token and positions; each block one, with the pooling before; the head."""
        name, last = name.removeprefix(prefix), sum(self.depths) + 1
        part = re.match(r"stages\.(\d+)\.(?:pool|blocks\.(\d+))\.", name)
        if part is not None:
            return sum(self.depths[: int(part[1])]) + int(part[2] or 0) + 1, last + 1
        return 0 if name.startswith(("patch_embed.", "pos_embed", "cls_token")) else last, last + 1

    def authors_tensors(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file under own names, without frozen tables; positions are resized."""
        named = {_stage_name(name): tensor for name, tensor in tensors.items()}
        named = own_names(named, (), self.patch_embed.proj.weight.shape[1:])
        kept = without_base(named, learned=self.mask.kind == "elm")
        return fit_positions(self.state_dict(), kept)


def _stage_name(name: str) -> str:
    """Own name of a tensor of the authors' `layers`: stages (0, 2, 4) and poolings (1, 3) by turns."""
    block = re.match(r"layers\.(\d+)\.layers\.(\d+)\.([01])\.(norm|fn)\.(.*)", name)
    if block is not None:
        part = f"norm{int(block[3]) + 1}" if block[4] == "norm" else ("attn", "mlp")[int(block[3])]
        name = f"stages.{int(block[1]) // 2}.blocks.{block[2]}.{part}.{block[5]}"
        name = name.replace(".to_qkv.", ".qkv.").replace(".to_out.0.", ".proj.")
        return name.replace(".net.0.", ".fc1.").replace(".net.3.", ".fc2.")
    pool = re.match(r"layers\.(\d+)\.(downsample\.net\.0|downsample\.net\.1|cls_ff)\.(.*)", name)
    if pool is None:
        return name
    part = {"downsample.net.0": "depthwise", "downsample.net.1": "pointwise"}.get(pool[2], pool[2])
    return f"stages.{(int(pool[1]) + 1) // 2}.pool.{part}.{pool[3]}"


@MODELS.register_module()
class MaskedPiT(PiTTrunk, Backbone):
    """The feature extractor: the patches of every stage, without norm. The authors have none of this host.

    Args:
        arch: 'tiny', or dict(embed_dim=…, depths=…, num_heads=…, head_dim=…, mlp_ratio=…).
        out_indices: stages that give a map, None all; stages after the last are not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`.
        host: see `PatchSettings`.

    Raises:
        UserError: for an unknown arch or mask, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **host: Any,
    ) -> None:
        stages = len(resolve_arch("MaskedPiT", ARCHS, arch)["depths"])
        super().__init__(
            out_indices=range(stages) if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(stages)
        self.build(arch, PatchSettings.of(host), stages=self.out_indices[-1] + 1)
        stride = self.patch_embed.patch_size
        self.feature_info = tuple(FeatureInfo(self.dims[i], stride * 2**i) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`."""
        return tuple(
            tokens[:, 1:].transpose(1, 2).unflatten(2, size).contiguous()
            for index, (tokens, size) in enumerate(self.walk(x))
            if index in self.out_indices
        )

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0), or stage `stage` with the pooling before it."""
        if stage == 0:
            return [self.patch_embed]
        return [self.stages[stage - 1]] if stage <= len(self.stages) else []

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen stages; positions and class token freeze with the patches."""
        super().train(mode)
        if self.frozen_stages >= 0:
            self.pos_embed.requires_grad_(False)
            self.cls_token.requires_grad_(False)
        return self

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifier to those of this backbone."""
        later = "|".join(str(stage) for stage in range(len(self.stages), len(self.depths))) or "none"
        given = self.authors_tensors(backbone_of(tensors))
        return fit(self.state_dict(), given, unused=rf"^(norm|head)\.|^stages\.({later})\.")


@MODELS.register_module()
class MaskedPiTClassifier(PiTTrunk, Classifier):
    """The published classifier: three stages, norm and linear head on the class token.

    Args:
        arch, host: as for `MaskedPiT`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown arch or mask.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 10,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **host: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.build(arch, PatchSettings.of(host))
        self.num_features = self.dims[-1]
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed class token (N, num_features)."""
        *_, (tokens, _) = self.walk(x)
        return self.norm(tokens[:, 0])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file; positions of another image size are resized."""
        return self.authors_tensors(backbone_of(tensors, "head."))
