"""Agent-DeiT: a plain vision transformer with a class token whose first blocks attend through agents.

Agent Attention (arXiv 2312.08874). Image (N, 3, H, W) to patches of 16 pixels; all blocks have one width.
The class token is a query and a key in both steps, with biases of its own (`ac_bias`, `ca_bias`), but
agents are pooled from patches alone and the convolution of V leaves it out. Norms have epsilon 1e-6. The
tiny and small variants have agents in all blocks; base in its first four.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.agent_attention.attention import AgentAttention, check_heads
from opsin.core.backbones.agent_attention.block import Block, SoftmaxBlock
from opsin.core.backbones.agent_attention.tables import fit_tables, undecayed
from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.errors import UserError
from opsin.core.layers.attention import Attention
from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.plain_pyramid import PlainPyramid
from opsin.core.layers.position_table import resize_position_table
from opsin.core.layers.weight_init import init_linear
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

EPS = 1e-6
# agents of every block; 0 is plain softmax attention
ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "num_heads": 3, "agents": (49,) * 12},
    "small": {"embed_dim": 384, "num_heads": 6, "agents": (49,) * 12},
    "base": {"embed_dim": 768, "num_heads": 12, "agents": (81,) * 4 + (0,) * 8},
}


class AgentDeiTTrunk(Trunk):
    """What backbone and classifier share: patches, class token, positions, blocks."""

    grid: tuple[int, int]
    depth: int

    def build(
        self,
        arch: str | Mapping[str, Any],
        *,
        img_size: int,
        patch_size: int,
        in_channels: int,
        qkv_bias: bool,
        mlp_ratio: float,
        drop_path_rate: float,
        blocks: int | None = None,
    ) -> int:
        """Makes the parts, of the blocks the first `blocks`; returns the width."""
        settings = resolve_arch("AgentDeiT", ARCHS, arch)
        dim, num_heads, agents = settings["embed_dim"], settings["num_heads"], settings["agents"]
        check_heads(dim, num_heads)
        side = img_size // patch_size
        self.grid, self.depth = (side, side), len(agents)
        self.patch_embed = PatchEmbedding(in_channels, dim, patch_size, norm=False)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + side * side, dim))
        for table in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        (rates,) = drop_path_rates(drop_path_rate, (self.depth,))
        self.blocks = nn.ModuleList()
        for agent_num, rate in list(zip(agents, rates, strict=True))[:blocks]:
            attn = (
                AgentAttention(dim, num_heads, agent_num, self.grid, qkv_bias=qkv_bias, class_token=True)
                if agent_num
                else Attention(dim, num_heads, qkv_bias=qkv_bias)
            )
            block = Block if agent_num else SoftmaxBlock
            self.blocks.append(block(dim, attn, mlp_ratio=mlp_ratio, drop_path_rate=rate, eps=EPS))
        return int(dim)

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, tuple[int, int]]]:
        """Image (N, 3, H, W) to tokens (N, 1 + h * w, C) after every block, and the grid (h, w)."""
        if min(x.shape[2:]) < self.patch_embed.patch_size:
            raise UserError(
                f"an image of {x.shape[2]} x {x.shape[3]} pixels is smaller than a patch of "
                f"{self.patch_embed.patch_size}"
            )
        patches = self.patch_embed(x)
        size = (patches.shape[1], patches.shape[2])
        tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), patches.flatten(1, 2)), 1)
        tokens = tokens + resize_position_table(self.pos_embed, self.grid, size, before=1)
        for block in self.blocks:
            tokens = self.run(block, tokens, size)
            yield tokens, size

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: patches, class token and positions; block i: i + 1; the rest: the last."""
        part, _, rest = name.removeprefix(prefix).partition(".")
        if part in ("patch_embed", "cls_token", "pos_embed"):
            return 0, self.depth + 2
        return (int(rest.split(".")[0]) + 1 if part == "blocks" else self.depth + 1), self.depth + 2

    def no_weight_decay(self) -> set[str]:
        """Bias tables, positions and the class token."""
        return undecayed(self)


@MODELS.register_module()
class AgentDeiT(AgentDeiTTrunk, Backbone):
    """The feature extractor; the authors have none of this host. The class token goes along and is dropped.

    Args:
        arch: 'tiny', 'small', 'base', or dict(embed_dim=…, num_heads=…, agents=agents of every block, 0 for
            plain attention).
        img_size: side of the images that positions and bias tables are for; they are resized for others.
        patch_size: side of a patch.
        in_channels: channels of the image.
        qkv_bias: whether queries, keys and values have a bias.
        mlp_ratio: hidden width of the perceptrons.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        out_indices: blocks that give a map; None is the ends of the four quarters of the depth. Blocks after
            the last are not built.
        fpn: whether maps go to strides 4, 8, 16 and 32; otherwise all have the patches'.
        frozen_stages, with_cp, init_cfg: see `Backbone`; a stage is a block.

    Raises:
        UserError: for an unknown arch, impossible `out_indices`, or a number of agents that is no square.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        img_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        qkv_bias: bool = True,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] | None = None,
        fpn: bool = True,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        depth = len(resolve_arch("AgentDeiT", ARCHS, arch)["agents"])
        quarters = sorted({max(0, depth * k // 4 - 1) for k in (1, 2, 3, 4)})
        super().__init__(
            out_indices=quarters if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(depth)
        if fpn and len(self.out_indices) > 4:
            raise UserError(f"out_indices {self.out_indices} are more than the four levels of fpn")
        dim = self.build(
            arch,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            qkv_bias=qkv_bias,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            blocks=self.out_indices[-1] + 1,
        )
        self.fpn = fpn
        strides = (patch_size,) * len(self.out_indices)
        self.apply(init_linear)
        if fpn:
            levels = 4 if len(self.out_indices) == 1 else len(self.out_indices)
            self.pyramid = PlainPyramid(dim, patch_size, levels)
            strides = self.pyramid.strides
        self.feature_info = tuple(FeatureInfo(dim, stride) for stride in strides)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to maps as `feature_info` says."""
        maps = [
            tokens[:, 1:].transpose(1, 2).unflatten(2, size)
            for index, (tokens, size) in enumerate(self.walk(x))
            if index in self.out_indices
        ]
        return self.pyramid(maps) if self.fpn else tuple(m.contiguous() for m in maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0) or a block (from 1)."""
        if stage == 0:
            return [self.patch_embed]
        return [self.blocks[stage - 1]] if stage <= len(self.blocks) else []

    def train(self, mode: bool = True) -> AgentDeiT:
        """Training mode for all but the frozen stages; with the patches, class token and positions freeze."""
        super().train(mode)
        if self.frozen_stages >= 0:
            self.cls_token.requires_grad_(False)
            self.pos_embed.requires_grad_(False)
        return self

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifier to those of this backbone; tables are resized."""
        own = self.state_dict()
        later = "|".join(str(index) for index in range(len(self.blocks), self.depth)) or "none"
        given = fit_tables(own, backbone_of(tensors))
        return fit(own, given, fresh=r"^pyramid\.", unused=rf"^(norm|head)\.|^blocks\.({later})\.")


@MODELS.register_module()
class AgentDeiTClassifier(AgentDeiTTrunk, Classifier):
    """The published classifier: blocks, final norm, linear head on the class token.

    Args:
        arch, img_size, patch_size, in_channels, qkv_bias, mlp_ratio, drop_path_rate: as for `AgentDeiT`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown arch, or a number of agents that is no square.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        img_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        qkv_bias: bool = True,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.num_features = self.build(
            arch,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            qkv_bias=qkv_bias,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
        )
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.apply(init_linear)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed class token (N, num_features)."""
        *_, (tokens, _) = self.walk(x)
        return self.norm(tokens[:, 0])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file; tables of another image size are resized."""
        return fit_tables(self.state_dict(), tensors)
