"""AiT's backbone: Swin Transformer V2 (arXiv 2111.09883) with a window of its own in every stage.

Image (B, 3, H, W) to maps of strides 4, 8, 16, 32. Norms come after attention and MLP, inside the residual
branch, and begin at 1e-5; attention compares cosines, with a learned scale of at most 100; keys have no bias.
The position bias is 16 sigmoid(MLP(log-spaced offsets)), where offsets are relative to the windows of the
pre-training, so windows may grow later. A map is padded to whole windows in every block, and padded cells
take part in the attention; the shift is made even where one window holds the whole map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, FeatureInfo, resolve_arch
from opsin.core.layers.biased_attention import biased_attention
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.relative_bias import relative_position_index
from opsin.core.layers.shifted_windows import attend_in_windows
from opsin.core.layers.windows import pad_to_multiple
from opsin.core.published import Tensors
from opsin.registry import MODELS

EPS = 1e-6
SMALL_NORM = 5e-5  # added to the lengths of queries and keys
INITIAL_NORM = 1e-5
MAX_SCALE = math.log(100.0)
STRIDES = (4, 8, 16, 32)
ARCHS: dict[str, dict[str, Any]] = {
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}
DERIVED = ("relative_coords_table", "relative_position_index")  # tables in published files


class CosineWindowAttention(nn.Module):
    """Attention of the tokens of square windows by the cosine of queries and keys.

    Args:
        dim: width C.
        num_heads: heads.
        window: side of a window, N = window ** 2 tokens.
        pretrain_window: side of the windows that the position MLP knows.
    """

    coordinates: Tensor
    index: Tensor

    def __init__(self, dim: int, num_heads: int, window: int, pretrain_window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10.0)))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.rpe_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, num_heads, bias=False))
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("coordinates", log_offsets(window, pretrain_window), persistent=False)
        self.register_buffer("index", relative_position_index((window, window)), persistent=False)

    def position_bias(self) -> Tensor:
        """(heads, N, N)."""
        bias: Tensor = 16 * self.rpe_mlp(self.coordinates).sigmoid()
        return bias[self.index].permute(2, 0, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B * windows, N, C) to the same shape; `mask` (windows, N, N) is added to the logits."""
        biases = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, biases)
        q, k, v = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q = _unit(q) * self.logit_scale.clamp(max=MAX_SCALE).exp()
        bias = self.position_bias()[None]
        if mask is not None:
            bias = (bias + mask[:, None]).expand(len(x) // len(mask), -1, -1, -1, -1).flatten(0, 1)
        y = biased_attention(q.to(v.dtype), _unit(k).to(v.dtype), v, bias.to(v.dtype), 1.0)
        attended: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return attended


def _unit(x: Tensor) -> Tensor:
    return x / (x.norm(dim=-1, keepdim=True) + SMALL_NORM)


def log_offsets(window: int, pretrain_window: int) -> Tensor:
    """((2 window - 1) ** 2, 2): offsets of row and column, log-spaced; 1 is 7/8 of a pre-training window."""
    steps = torch.arange(1.0 - window, window) * (8 / (pretrain_window - 1))
    spaced = steps.sign() * (steps.abs() + 1).log2() / math.log2(8)
    return torch.cartesian_prod(spaced, spaced)


class Block(nn.Module):
    """Window attention and MLP, each followed by its norm and added; the map is (B, H, W, C).

    Args:
        dim: width C.
        num_heads: heads.
        window: side of the windows.
        shift: by how much they are shifted.
        pretrain_window: see `CosineWindowAttention`.
        drop_path_rate: chance of dropping a branch of a sample.
    """

    def __init__(
        self, dim: int, num_heads: int, window: int, shift: int, pretrain_window: int, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.window, self.shift = (window, window), (shift, shift)
        self.attn = CosineWindowAttention(dim, num_heads, window, pretrain_window)
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, 4 * dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self.drop_path(self.norm1(attend_in_windows(self.attn, x, self.window, self.shift)))
        added: Tensor = x + self.drop_path(self.norm2(self.mlp(x)))
        return added


class Merging(nn.Module):
    """Four neighbours side by side, linear to twice the width, norm; odd sides are padded with zeros."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        x = pad_to_multiple(x, (2, 2))
        neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.norm(self.reduction(torch.cat(neighbours, -1)))
        return merged


class PatchEmbedding(nn.Module):
    """4x4 patches to tokens (B, H / 4, W / 4, C), normed; the image is padded with zeros to whole patches."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 4, stride=4)
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, ceil(H / 4), ceil(W / 4), C)."""
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        embedded: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return embedded


@MODELS.register_module()
class AiTSwinV2(Backbone):
    """The feature extractor.

    Args:
        arch: 'base', 'large', or dict(embed_dim=…, depths=…, num_heads=…).
        window_size: side of the windows of each stage.
        pretrain_window_size: the same in pre-training.
        use_shift: whether every second block of a stage shifts its windows.
        in_channels: of the image.
        drop_path_rate: of the last block; it grows linearly from 0.
        out_indices: stages that give a map, each with a norm of its own.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch` or wrong `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "base",
        *,
        window_size: Sequence[int] = (30, 30, 30, 15),
        pretrain_window_size: Sequence[int] = (12, 12, 12, 6),
        use_shift: Sequence[bool] = (True, True, False, False),
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] = (3,),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        settings = resolve_arch("AiTSwinV2", ARCHS, arch)
        depths, heads = settings["depths"], settings["num_heads"]
        self.check_out_indices(len(depths))
        dims = [settings["embed_dim"] * 2**stage for stage in range(len(depths))]
        self.depths = tuple(depths)
        self.patch_embed = PatchEmbedding(in_channels, dims[0])
        self.layers = nn.ModuleList()
        for stage, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            window = window_size[stage]
            shifts = [window // 2 * (use_shift[stage] and block % 2) for block in range(depths[stage])]
            blocks = nn.ModuleList(
                Block(dims[stage], heads[stage], window, shift, pretrain_window_size[stage], rate)
                for shift, rate in zip(shifts, rates, strict=True)
            )
            parts: dict[str, nn.Module] = {"blocks": blocks}
            if stage < len(depths) - 1:
                parts["downsample"] = Merging(dims[stage])
            self.layers.append(nn.ModuleDict(parts))
        for stage in self.out_indices:
            self.add_module(f"norm{stage}", nn.LayerNorm(dims[stage], eps=EPS))
        self.feature_info = tuple(FeatureInfo(dims[stage], STRIDES[stage]) for stage in self.out_indices)
        self.apply(_init)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to the normed maps (B, C_i, H_i, W_i) of `out_indices`; sides round up."""
        x = self.patch_embed(x)
        maps = []
        for stage, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleDict)
            for block in layer["blocks"].children():
                x = self.run(block, x)
            if stage in self.out_indices:
                maps.append(self.get_submodule(f"norm{stage}")(x).permute(0, 3, 1, 2))
            if "downsample" in layer and stage < self.out_indices[-1]:
                x = layer["downsample"](x)
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0), or a stage with the merging before it and the norm of its map."""
        if stage == 0:
            return [self.patch_embed]
        parts = [self.get_submodule(f"layers.{stage - 1}.blocks")]
        if stage > 1:
            parts.append(self.get_submodule(f"layers.{stage - 2}.downsample"))
        return parts + ([self.get_submodule(f"norm{stage - 1}")] if stage - 1 in self.out_indices else [])

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """One layer a block after the embedding; a merging belongs to the block before it."""
        total = sum(self.depths) + 2
        parts = name.removeprefix(prefix).split(".")
        if parts[0] == "patch_embed":
            return 0, total
        if parts[0] != "layers":
            return total - 1, total
        before = sum(self.depths[: int(parts[1])])
        return before + (int(parts[3]) + 1 if parts[2] == "blocks" else self.depths[int(parts[1])]), total

    def no_weight_decay(self) -> set[str]:
        """The MLPs of the position bias and the scales, as Swin V2 is trained."""
        return {n for n, _ in self.named_parameters() if "rpe_mlp" in n or n.endswith("logit_scale")}

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a pre-training's `encoder.…` or a task model's `backbone.…`, derived tables dropped."""
        for prefix in ("encoder.", "backbone."):
            if any(name.startswith(prefix) for name in tensors):
                tensors = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return {n: t for n, t in tensors.items() if not n.endswith(DERIVED)}


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, Block):
        nn.init.constant_(module.norm1.weight, INITIAL_NORM)
        nn.init.constant_(module.norm2.weight, INITIAL_NORM)
