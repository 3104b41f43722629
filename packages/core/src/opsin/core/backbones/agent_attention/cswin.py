"""Agent-CSWin: the cross-shaped window transformer with agent attention in its first stages.

Agent Attention (arXiv 2312.08874) on CSWin (arXiv 2107.00652). Image (N, 3, H, W) to maps of strides 4, 8,
16, 32; convolutions that overlap cut the patches, sides round up after the stem. A block projects q, k and
v once and gives the first half of their channels (and heads) to attention in stripes of full height, the
second half to stripes of full width.

What a naive reading gets wrong: agents see the whole map, so their stages have one branch of all channels
and heads instead of two, as has every stage whose stripe is as wide as the map, and stage 4; the depth-wise
convolution of V (`get_v`) stops at the stripe's border; `qkv`, `norm1` and `proj` belong to the block.
Where a map's side is no multiple of the stripe's width, the last stripe is narrower (the authors have no
dense form).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.agent_attention.attention import AgentMixer, check_heads, depthwise
from opsin.core.backbones.agent_attention.plan import agent_blocks
from opsin.core.backbones.agent_attention.tables import fit_tables, undecayed
from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.errors import UserError
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.weight_init import init_linear
from opsin.core.layers.windows import partition, reverse
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

Grid = tuple[int, int]
Direction = Literal["whole", "columns", "rows"]
STAGES = 4


def _arch(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> dict[str, Any]:
    return {
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": num_heads,
        "agent_num": (9, 16, 49, 49),
        "attn_type": "AABB",
    }


ARCHS: dict[str, dict[str, Any]] = {
    "tiny": _arch(64, (2, 4, 18, 1), (2, 4, 8, 16)),
    "small": _arch(64, (3, 6, 29, 2), (2, 4, 8, 16)),
    "base": _arch(96, (3, 6, 29, 2), (4, 8, 16, 32)),
}


class Stripes:
    """How a map is cut: whole, or into columns of full height or rows of full width that are `width` wide."""

    def __init__(self, direction: Direction, width: int) -> None:
        self.direction, self.width = direction, width

    def shape(self, size: Grid) -> Grid:
        """Rows and columns of a stripe of a map of `size`."""
        if self.direction == "whole":
            return size
        return (size[0], self.width) if self.direction == "columns" else (self.width, size[1])

    def cut(self, maps: Tensor) -> Iterator[Tensor]:
        """The part of a map (B, H, W, C) that whole stripes fill, and what is left at the end, if any."""
        axis = 2 if self.direction == "columns" else 1
        side = maps.shape[axis]
        filled = side // self.width * self.width
        for start, stop in ((0, filled), (filled, side)):
            if stop > start:
                yield maps.narrow(axis, start, stop - start)


class StripeAttention(nn.Module):
    """One branch of a block: attention inside stripes; `attend` is that of a single stripe."""

    num_heads: int  # of this branch
    stripes: Stripes

    def attend(self, q: Tensor, k: Tensor, v: Tensor, size: Grid) -> Tensor:
        """Queries, keys and values (B, N, C) of stripes of `size` to (B, N, C)."""
        raise NotImplementedError

    def forward(self, qkv: Tensor, size: Grid) -> Tensor:
        """Queries, keys and values (B, N, 3, C) of a map of `size` to (B, N, C)."""
        if self.stripes.direction == "whole":
            q, k, v = qkv.unbind(2)
            return self.attend(q, k, v, size)
        parts = []
        for part in self.stripes.cut(qkv.flatten(2).unflatten(1, size)):
            inner = (part.shape[1], part.shape[2])
            full = self.stripes.shape(inner)
            stripe = (min(full[0], inner[0]), min(full[1], inner[1]))
            q, k, v = partition(part, stripe).chunk(3, -1)
            parts.append(reverse(self.attend(q, k, v, stripe), stripe, inner))
        return torch.cat(parts, 2 if self.stripes.direction == "columns" else 1).flatten(1, 2)


class SoftmaxStripes(StripeAttention):
    """CSWin's own attention: softmax inside stripes, plus the convolution of V (`get_v`).

    Args:
        dim: channels of this branch.
        num_heads: heads of this branch.
        stripes: how the map is cut.
    """

    def __init__(self, dim: int, num_heads: int, stripes: Stripes) -> None:
        super().__init__()
        self.num_heads, self.stripes = num_heads, stripes
        self.get_v = depthwise(dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, size: Grid) -> Tensor:
        """Queries, keys and values (B, N, C) of stripes of `size` to (B, N, C)."""
        local = self.get_v(v.unflatten(1, size).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
        q, k, v = (t.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) + local


class AgentStripes(AgentMixer, StripeAttention):
    """Agent attention inside stripes, plus the convolution of V (`get_v`).

    Args:
        dim: channels of this branch.
        num_heads: heads of this branch.
        stripes: how the map is cut.
        agent_num: agents of a stripe that the tables are for.
        size: rows and columns of the map that the tables are for.
        agent_shape: see `AgentMixer`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        stripes: Stripes,
        *,
        agent_num: int,
        size: Grid,
        agent_shape: Grid | None = None,
    ) -> None:
        super().__init__(num_heads, agent_num, stripes.shape(size), agent_shape=agent_shape)
        self.stripes = stripes
        self.get_v = depthwise(dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, size: Grid) -> Tensor:
        """Queries, keys and values (B, N, C) of stripes of `size` to (B, N, C)."""
        return self.add_local(self.mix(q, k, v, size), self.get_v, v, size)


class Block(nn.Module):
    """Norm, one projection for all branches, the branches side by side, perceptron; residual.

    Args:
        dim: width C.
        attns: the branches, each of C / len(attns) channels.
        mlp_ratio: hidden width of the perceptron in units of C.
        qkv_bias: whether `qkv` has a bias.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
    """

    def __init__(
        self,
        dim: int,
        attns: Sequence[StripeAttention],
        *,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attns = nn.ModuleList(attns)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, C), tokens of a map of `size`, to the same shape."""
        parts = self.qkv(self.norm1(x)).unflatten(2, (3, -1)).chunk(len(self.attns), -1)
        mixed = [attn(part, size) for attn, part in zip(self.attns, parts, strict=True)]
        x = x + self.drop_path(self.proj(mixed[0] if len(mixed) == 1 else torch.cat(mixed, -1)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ChannelsLast(nn.Module):
    """(N, C, H, W) to (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, H, W, C)."""
        return x.permute(0, 2, 3, 1)


class Merging(nn.Module):
    """A 3x3 convolution of stride 2 (`conv`) and a LayerNorm (`norm`) between two stages.

    Args:
        dim: channels in.
        out_dim: channels out.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out_dim, 3, 2, 1)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), out_dim)."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class AgentCSWinTrunk(Trunk):
    """What backbone and classifier share: stem, stages, mergings."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    built: int

    def build(
        self,
        arch: str | Mapping[str, Any],
        *,
        img_size: int,
        in_channels: int,
        split_size: Sequence[int] | None,
        agent_split_size: Sequence[int] | None,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path_rate: float,
        downstream_agent_shapes: Sequence[Grid] | None,
        stages: int = STAGES,
    ) -> None:
        """Makes the first `stages` stages."""
        settings = resolve_arch("AgentCSWin", ARCHS, arch)
        self.depths, self.built = tuple(settings["depths"]), stages
        self.dims = tuple(settings["embed_dim"] * 2**stage for stage in range(STAGES))
        sides = [img_size // 4 // 2**stage for stage in range(STAGES)]
        widths = (1, 2, img_size // 32, img_size // 32) if split_size is None else split_size
        agent_widths = sides if agent_split_size is None else agent_split_size
        for name, given in (("split_size", widths), ("agent_split_size", agent_widths)):
            if len(given) != STAGES or min(given) < 1:
                raise UserError(f"{name} {tuple(given)} does not give a width of 1 or more for four stages")
        plan = agent_blocks(settings["attn_type"], self.depths)
        rates = drop_path_rates(drop_path_rate, self.depths)
        stem = nn.Conv2d(in_channels, self.dims[0], 7, 4, 2)
        self.stage1_conv_embed = nn.Sequential(stem, ChannelsLast(), nn.LayerNorm(self.dims[0]))
        for stage in range(stages):
            if stage:
                self.add_module(f"merge{stage}", Merging(self.dims[stage - 1], self.dims[stage]))
            blocks = nn.ModuleList()
            for has_agents, rate in zip(plan[stage], rates[stage], strict=True):
                attns = _branches(
                    self.dims[stage],
                    settings["num_heads"][stage],
                    settings["agent_num"][stage] if has_agents else 0,
                    side=sides[stage],
                    width=(agent_widths if has_agents else widths)[stage],
                    is_last=stage == STAGES - 1,
                    agent_shape=downstream_agent_shapes[stage] if downstream_agent_shapes else None,
                )
                blocks.append(
                    Block(
                        self.dims[stage], attns, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, drop_path_rate=rate
                    )
                )
            self.add_module(f"stage{stage + 1}", blocks)
        self.apply(init_linear)

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Image (N, 3, H, W) to the tokens (N, h * w, C) of every stage, and the size (h, w) of their map."""
        for stage in range(1, self.built + 1):
            x = self.get_submodule(f"merge{stage - 1}")(x) if stage > 1 else self.stage1_conv_embed(x)
            size = (x.shape[1], x.shape[2])
            tokens = x.flatten(1, 2)
            for block in self.get_submodule(f"stage{stage}").children():
                tokens = self.run(block, tokens, size)
            yield tokens, size
            x = tokens.unflatten(1, size)

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the stem, every block, the head.

        A merging goes with the block after it, an output's norm with the block before it.
        """
        name, last = name.removeprefix(prefix), sum(self.depths) + 1
        part = re.match(r"(stage|merge|norm)(\d)\.(\d*)", name)
        if part is None:
            return 0 if name.startswith("stage1_conv_embed.") else last, last + 1
        number = int(part[2])
        if part[1] == "stage":
            return sum(self.depths[: number - 1]) + int(part[3]) + 1, last + 1
        if part[1] == "merge":
            return sum(self.depths[:number]) + 1, last + 1
        return sum(self.depths[: number + 1]), last + 1

    def no_weight_decay(self) -> set[str]:
        """Bias tables of agents."""
        return undecayed(self)


def _branches(
    dim: int,
    num_heads: int,
    agent_num: int,
    *,
    side: int,
    width: int,
    is_last: bool,
    agent_shape: Grid | None,
) -> list[StripeAttention]:
    """The branches of a block on a map of `side`, with agents or, where `agent_num` is 0, softmax."""
    directions: tuple[Direction, ...] = ("whole",) if is_last or width == side else ("columns", "rows")
    check_heads(dim, num_heads)
    if num_heads % len(directions):
        raise UserError(f"{num_heads} heads can't be halved for the two branches of a stage")
    dim, num_heads = dim // len(directions), num_heads // len(directions)
    cuts = [Stripes(direction, width) for direction in directions]
    if not agent_num:
        return [SoftmaxStripes(dim, num_heads, cut) for cut in cuts]
    return [
        AgentStripes(dim, num_heads, cut, agent_num=agent_num, size=(side, side), agent_shape=agent_shape)
        for cut in cuts
    ]


@MODELS.register_module()
class AgentCSWin(AgentCSWinTrunk, Backbone):
    """The feature extractor, of which the authors have none: a LayerNorm on each map, as in Agent-Swin.

    Args:
        arch: 'tiny', 'small', 'base', or a mapping with the same keys as an entry of `ARCHS`.
        img_size: side of the images that bias tables are for; they are resized for others.
        in_channels: channels of the image.
        split_size: width of the stripes of every stage without agents; None is 1, 2 and img_size / 32.
        agent_split_size: the same where there are agents; None is the whole map, as published.
        mlp_ratio: hidden width of the perceptrons.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        downstream_agent_shapes: rows and columns that every stage pools its agents to, to whose number bias
            tables are resized; None for as many as the tables have.
        out_indices: stages that give a map; stages after the last are not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown arch, plan, impossible widths or `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        img_size: int = 224,
        in_channels: int = 3,
        split_size: Sequence[int] | None = None,
        agent_split_size: Sequence[int] | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        downstream_agent_shapes: Sequence[Grid] | None = None,
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
            split_size=split_size,
            agent_split_size=agent_split_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            drop_path_rate=drop_path_rate,
            downstream_agent_shapes=downstream_agent_shapes,
            stages=self.out_indices[-1] + 1,
        )
        for index in self.out_indices:
            self.add_module(f"norm{index}", nn.LayerNorm(self.dims[index]))
        self.feature_info = tuple(FeatureInfo(self.dims[i], 4 * 2**i) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        maps = []
        for index, (tokens, size) in enumerate(self.walk(x)):
            if index in self.out_indices:
                tokens = self.get_submodule(f"norm{index}")(tokens)
                maps.append(tokens.transpose(1, 2).unflatten(2, size).contiguous())
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` with the merging before it and the norm of its map."""
        if stage == 0:
            return [self.stage1_conv_embed]
        names = (f"stage{stage}", f"merge{stage - 1}", f"norm{stage - 1}")
        return [module for name, module in self.named_children() if name in names]

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifier to those of this backbone; tables are resized.

        Norms of outputs, which a classifier lacks, keep their values.
        """
        own = self.state_dict()
        given = fit_tables(own, backbone_of(tensors))
        later = "".join(str(stage) for stage in range(self.built + 1, STAGES + 1)) or "-"
        mergings = "".join(str(stage) for stage in range(self.built, STAGES)) or "-"
        unused = rf"^(norm\d?|head|stage[{later}]|merge[{mergings}])\."
        return fit(own, given, fresh=r"^norm\d\.", unused=unused)


@MODELS.register_module()
class AgentCSWinClassifier(AgentCSWinTrunk, Classifier):
    """The published classifier: four stages, norm, mean of the tokens, linear head.

    Args:
        arch, img_size, in_channels, split_size, agent_split_size, mlp_ratio, qkv_bias, drop_path_rate,
            downstream_agent_shapes: as for `AgentCSWin`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown arch, plan or impossible widths.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        img_size: int = 224,
        in_channels: int = 3,
        split_size: Sequence[int] | None = None,
        agent_split_size: Sequence[int] | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        downstream_agent_shapes: Sequence[Grid] | None = None,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.build(
            arch,
            img_size=img_size,
            in_channels=in_channels,
            split_size=split_size,
            agent_split_size=agent_split_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            drop_path_rate=drop_path_rate,
            downstream_agent_shapes=downstream_agent_shapes,
        )
        self.num_features = self.dims[-1]
        self.norm = nn.LayerNorm(self.num_features)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean of the last stage's normed tokens (N, num_features)."""
        *_, (tokens, _) = self.walk(x)
        return self.norm(tokens).mean(1)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file; tables of another image size are resized."""
        return fit_tables(self.state_dict(), tensors)
