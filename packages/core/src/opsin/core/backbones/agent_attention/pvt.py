"""Agent-PVT: the pyramid vision transformer with agent attention in place of spatial reduction.

Agent Attention (arXiv 2312.08874) on PVT v1 (arXiv 2102.12122). Image (N, 3, H, W) to maps of strides 4, 8,
16, 32. Every stage cuts the map before it into patches (4 x 4, later 2 x 2), normalises, adds a learned
position table, and runs its blocks. Sides floor.

What a naive reading gets wrong: where agents are used, keys and values are not reduced (`sr_ratios` are
those of softmax stages, `agent_sr_ratios` of agent stages); there is no class token and no final norm, the
classifier averages the raw tokens of stage 4; blocks' norms have epsilon 1e-6, those of patches and of
reductions 1e-5. In an agent stage with a reduction ratio r the first step's tables are those of the reduced
map, the second step's those of the whole one, and V is resized before its convolution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.agent_attention.attention import AgentMixer, check_heads, depthwise
from opsin.core.backbones.agent_attention.block import Block
from opsin.core.backbones.agent_attention.plan import agent_blocks
from opsin.core.backbones.agent_attention.tables import fit_tables, undecayed
from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.position_table import resize_position_table
from opsin.core.layers.weight_init import init_linear
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

Grid = tuple[int, int]
EPS = 1e-6
STAGES = 4


def _arch(*depths: int) -> dict[str, Any]:
    return {
        "depths": depths,
        "embed_dims": (64, 128, 320, 512),
        "num_heads": (1, 2, 5, 8),
        "mlp_ratios": (8, 8, 4, 4),
        "agent_num": (9, 16, 49, 49),
        "attn_type": "AAAA",
        "sr_ratios": (8, 4, 2, 1),
        "agent_sr_ratios": (1, 1, 1, 1),
    }


ARCHS: dict[str, dict[str, Any]] = {
    "tiny": _arch(2, 2, 2, 2),
    "small": _arch(3, 4, 6, 3),
    "medium": _arch(3, 4, 18, 3),
    "large": _arch(3, 8, 27, 3),
}
# what the authors pool agents to in detection and segmentation, stage by stage
DENSE_AGENTS = ((12, 12), (16, 16), (28, 28), (28, 28))


class _Reduction(nn.Module):
    """Queries from every token, keys and values from a map that a convolution reduces by `sr_ratio`.

    Parameters `q`, `kv`, `proj`, and with a ratio above 1 `sr` and `norm`.
    """

    def add_projections(self, dim: int, sr_ratio: int, qkv_bias: bool) -> None:
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, sr_ratio, sr_ratio)
            self.norm = nn.LayerNorm(dim)

    def project(self, x: Tensor, size: Grid) -> tuple[Tensor, Tensor, Tensor, Grid]:
        """Tokens (B, N, C) to queries, keys, values, and the size of the keys' map."""
        q = self.q(x)
        if self.sr_ratio > 1:
            reduced = self.sr(x.unflatten(1, size).permute(0, 3, 1, 2))
            size = (reduced.shape[2], reduced.shape[3])
            x = self.norm(reduced.flatten(2).transpose(1, 2))
        k, v = self.kv(x).chunk(2, -1)
        return q, k, v, size


class ReducedAttention(_Reduction):
    """PVT's own attention: softmax over a reduced map.

    Args:
        dim: width C.
        num_heads: heads.
        sr_ratio: by how much keys and values are reduced on a side.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(self, dim: int, num_heads: int, sr_ratio: int = 1, *, qkv_bias: bool = True) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.add_projections(dim, sr_ratio, qkv_bias)

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, C), tokens of a map of `size`, to the same shape."""
        q, k, v = (
            tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for tokens in self.project(x, size)[:3]
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class AgentReducedAttention(AgentMixer, _Reduction):
    """Agent attention with PVT's projections, on keys and values that may be reduced.

    Args:
        dim: width C.
        num_heads: heads.
        agent_num: agents that the tables are for.
        size: rows and columns of the map that the tables are for.
        sr_ratio: by how much keys and values are reduced on a side.
        qkv_bias: whether queries, keys and values have a bias.
        kernel_size: side of the convolution of V.
        agent_shape, scale_exponent: see `AgentMixer`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        agent_num: int,
        size: Grid,
        sr_ratio: int = 1,
        *,
        qkv_bias: bool = True,
        kernel_size: int = 3,
        agent_shape: Grid | None = None,
        scale_exponent: float = -0.5,
    ) -> None:
        check_heads(dim, num_heads)
        super().__init__(
            num_heads,
            agent_num,
            size,
            key_size=(size[0] // sr_ratio, size[1] // sr_ratio),
            agent_shape=agent_shape,
            scale_exponent=scale_exponent,
        )
        self.add_projections(dim, sr_ratio, qkv_bias)
        self.dwc = depthwise(dim, kernel_size)

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, C), tokens of a map of `size`, to the same shape."""
        q, k, v, key_size = self.project(x, size)
        mixed = self.mix(q, k, v, size, key_size)
        if key_size != size:
            reduced = v.unflatten(1, key_size).permute(0, 3, 1, 2)
            v = F.interpolate(reduced, size=size, mode="bilinear").flatten(2).transpose(1, 2)
        return self.proj(self.add_local(mixed, self.dwc, v, size))


class AgentPVTTrunk(Trunk):
    """What backbone and classifier share: for every stage patches, positions and blocks."""

    grids: tuple[Grid, ...]
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    built: int

    def build(
        self,
        arch: str | Mapping[str, Any],
        *,
        img_size: int,
        in_channels: int,
        qkv_bias: bool,
        drop_path_rate: float,
        downstream_agent_shapes: Sequence[Grid] | None,
        stages: int = STAGES,
        **attention: Any,
    ) -> None:
        """Makes the first `stages` stages; `attention` goes to every agent attention."""
        settings = resolve_arch("AgentPVT", ARCHS, arch)
        self.depths, self.dims = tuple(settings["depths"]), tuple(settings["embed_dims"])
        self.grids = tuple((img_size // stride, img_size // stride) for stride in (4, 8, 16, 32))
        self.built = stages
        plan = agent_blocks(settings["attn_type"], self.depths)
        rates = drop_path_rates(drop_path_rate, self.depths)
        widths = (in_channels, *self.dims)
        for stage, (rows, columns) in enumerate(self.grids[:stages]):
            patches = PatchEmbedding(widths[stage], self.dims[stage], 2 if stage else 4)
            table = nn.Parameter(torch.empty(1, rows * columns, self.dims[stage]))
            nn.init.trunc_normal_(table, std=0.02)
            shape = downstream_agent_shapes[stage] if downstream_agent_shapes else None
            blocks = [
                self._block(
                    settings,
                    stage,
                    rate,
                    qkv_bias,
                    {"agent_shape": shape, **attention} if has_agents else None,
                )
                for has_agents, rate in zip(plan[stage], rates[stage], strict=True)
            ]
            self.add_module(f"patch_embed{stage + 1}", patches)
            self.register_parameter(f"pos_embed{stage + 1}", table)
            self.add_module(f"block{stage + 1}", nn.ModuleList(blocks))
        self.apply(init_linear)

    def _block(
        self,
        settings: Mapping[str, Any],
        stage: int,
        drop_path_rate: float,
        qkv_bias: bool,
        agents: Mapping[str, Any] | None,
    ) -> Block:
        """A block of `stage`; `agents` are arguments of its agent attention, None for softmax."""
        dim, num_heads = self.dims[stage], settings["num_heads"][stage]
        attn: nn.Module
        if agents is None:
            attn = ReducedAttention(dim, num_heads, settings["sr_ratios"][stage], qkv_bias=qkv_bias)
        else:
            attn = AgentReducedAttention(
                dim,
                num_heads,
                settings["agent_num"][stage],
                self.grids[stage],
                settings["agent_sr_ratios"][stage],
                qkv_bias=qkv_bias,
                **agents,
            )
        mlp_ratio = settings["mlp_ratios"][stage]
        return Block(dim, attn, mlp_ratio=mlp_ratio, drop_path_rate=drop_path_rate, eps=EPS)

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Image (N, 3, H, W) to the tokens (N, h * w, C) of every stage, and the size (h, w) of their map."""
        for stage in range(1, self.built + 1):
            x = self.get_submodule(f"patch_embed{stage}")(x)
            size = (x.shape[1], x.shape[2])
            table = self.get_parameter(f"pos_embed{stage}")
            table = resize_position_table(table, self.grids[stage - 1], size, mode="bilinear")
            tokens = x.flatten(1, 2) + table
            for block in self.get_submodule(f"block{stage}").children():
                tokens = self.run(block, tokens, size)
            yield tokens, size
            x = tokens.transpose(1, 2).unflatten(2, size)

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the first patches, every block, the head.

        Later patch embeddings and positions go with the block after them.
        """
        last = sum(self.depths) + 1
        part = re.match(r"(patch_embed|pos_embed|block)(\d)\.?(\d*)", name.removeprefix(prefix))
        if part is None:
            return last, last + 1
        before = sum(self.depths[: int(part[2]) - 1])
        inside = int(part[3]) + 1 if part[1] == "block" else int(part[2] != "1")
        return before + inside, last + 1

    def no_weight_decay(self) -> set[str]:
        """Bias tables and positions."""
        return undecayed(self)


@MODELS.register_module()
class AgentPVT(AgentPVTTrunk, Backbone):
    """The feature extractor of the authors' detection and segmentation code; maps have no norm of their own.

    Args:
        arch: 'tiny', 'small', 'medium', 'large', or a mapping with the same keys as an entry of `ARCHS`.
        img_size: side of the images that positions and bias tables are for; they are resized for others.
        in_channels: channels of the image.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        downstream_agent_shapes: rows and columns that every stage pools its agents to, to whose number bias
            tables are resized; None for as many as the tables have.
        kernel_size: side of the convolutions of V.
        scale_exponent: logits are multiplied by the heads' width to this power, in agent attention.
        out_indices: stages that give a map; stages after the last are not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown arch, plan or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        img_size: int = 224,
        in_channels: int = 3,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        downstream_agent_shapes: Sequence[Grid] | None = DENSE_AGENTS,
        kernel_size: int = 3,
        scale_exponent: float = -0.5,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        self.check_out_indices(STAGES)
        self.build(
            arch,
            img_size=img_size,
            in_channels=in_channels,
            qkv_bias=qkv_bias,
            drop_path_rate=drop_path_rate,
            downstream_agent_shapes=downstream_agent_shapes,
            stages=self.out_indices[-1] + 1,
            kernel_size=kernel_size,
            scale_exponent=scale_exponent,
        )
        self.feature_info = tuple(FeatureInfo(self.dims[i], 4 * 2**i) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`."""
        return tuple(
            tokens.transpose(1, 2).unflatten(2, size).contiguous()
            for index, (tokens, size) in enumerate(self.walk(x))
            if index in self.out_indices
        )

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The first patch embedding (0), or the blocks of stage `stage` with the embedding before them."""
        if stage == 0:
            return [self.get_submodule("patch_embed1")]
        if stage > self.built:
            return []
        return [self.get_submodule(f"{part}{stage}") for part in ("patch_embed", "block")]

    def train(self, mode: bool = True) -> AgentPVT:
        """Training mode for all but the frozen stages; position tables are frozen with their patches."""
        super().train(mode)
        for stage in range(1, min(max(self.frozen_stages, 1), self.built) + 1):
            if self.frozen_stages >= 0:
                self.get_parameter(f"pos_embed{stage}").requires_grad_(False)
        return self

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier, detector or segmentor to those of this backbone; tables are resized."""
        own = self.state_dict()
        later = "".join(str(stage) for stage in range(self.built + 1, STAGES + 1)) or "-"
        unused = rf"^head\.|^(patch_embed|pos_embed|block)[{later}]"
        return fit(own, fit_tables(own, backbone_of(tensors)), unused=unused)


@MODELS.register_module()
class AgentPVTClassifier(AgentPVTTrunk, Classifier):
    """The published classifier: four stages, mean of the tokens, linear head.

    Args:
        arch, img_size, in_channels, qkv_bias, drop_path_rate, kernel_size, scale_exponent: as for `AgentPVT`.
        num_classes: logits; 0 for no head.
        downstream_agent_shapes: as for `AgentPVT`; the published classifiers have as many agents as tables.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown arch or plan.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        img_size: int = 224,
        in_channels: int = 3,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        downstream_agent_shapes: Sequence[Grid] | None = None,
        kernel_size: int = 3,
        scale_exponent: float = -0.5,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.build(
            arch,
            img_size=img_size,
            in_channels=in_channels,
            qkv_bias=qkv_bias,
            drop_path_rate=drop_path_rate,
            downstream_agent_shapes=downstream_agent_shapes,
            kernel_size=kernel_size,
            scale_exponent=scale_exponent,
        )
        self.num_features = self.dims[-1]
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean of stage 4's tokens (N, num_features)."""
        *_, (tokens, _) = self.walk(x)
        return tokens.mean(1)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file; tables of another image size are resized."""
        return fit_tables(self.state_dict(), tensors)
