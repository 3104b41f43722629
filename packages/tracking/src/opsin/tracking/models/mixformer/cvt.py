"""The CvT backbone: three stages of a patch convolution and mixed-attention blocks, without positions.

CvT: "Introducing Convolutions to Vision Transformers" (arXiv 2103.15808). No class token; the classifier and
final norm of the published state dict are used nowhere and do not exist here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Self

from torch import Tensor, nn

from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.weight_init import init_linear
from opsin.registry import MODELS
from opsin.tracking.models.mixformer.backbone import MixedBackbone, to_maps, to_tokens
from opsin.tracking.models.mixformer.memory import KeysValues, TemplateMemory
from opsin.tracking.models.mixformer.mixed_attention import ConvMixedAttention, MixedBlock, QuickGELU

EPS = 1e-5


class PatchConv(nn.Module):
    """A convolution (`proj`) and a LayerNorm over channels (`norm`).

    Args:
        in_channels: channels in.
        dim: channels out.
        kernel_size, stride, padding: of the convolution.
    """

    def __init__(self, in_channels: int, dim: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(M, C_in, H, W) to tokens (M, H' * W', C) and (H', W')."""
        maps = self.proj(x)
        return self.norm(to_tokens(maps)), (maps.shape[2], maps.shape[3])


class MixedStage(nn.Module):
    """One stage; arguments are `MixCvT`'s of this stage."""

    def __init__(
        self,
        in_channels: int,
        dim: int,
        depth: int,
        num_heads: int,
        patch: tuple[int, int, int],
        *,
        drop_path_rate: float,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_rate: float,
        kernel_size: int,
        stride_q: int,
        stride_kv: int,
        padding_q: int,
        padding_kv: int,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchConv(in_channels, dim, *patch)
        self.blocks = nn.ModuleList(
            MixedBlock(
                ConvMixedAttention(
                    dim,
                    num_heads,
                    qkv_bias=qkv_bias,
                    kernel_size=kernel_size,
                    stride_q=stride_q,
                    stride_kv=stride_kv,
                    padding_q=padding_q,
                    padding_kv=padding_kv,
                ),
                dim,
                mlp_ratio=mlp_ratio,
                drop_path_rate=rate,
                eps=EPS,
                act=QuickGELU,
                drop=drop_rate,
            )
            for rate in drop_path_rates(drop_path_rate, [depth])[0]
        )

    def mixed_blocks(self) -> Iterable[MixedBlock]:
        """The blocks, first to last."""
        return self.blocks  # type: ignore[return-value] # a ModuleList tells nothing of its entries

    def encode_templates(self, templates: Tensor) -> tuple[Tensor, list[KeysValues]]:
        """Maps (B, T, C_in, h, w) to (B, T, C, h', w'), and each block's keys and values."""
        batch, count = templates.shape[:2]
        tokens, grid = self.patch_embed(templates.flatten(0, 1))
        x = tokens.reshape(batch, -1, tokens.shape[2])
        left = []
        for block in self.mixed_blocks():
            x, keys_values = block.encode_templates(x, count, grid)
            left.append(keys_values)
        return to_maps(x.reshape(tokens.shape), grid).unflatten(0, (batch, count)), left

    def encode_search(self, search: Tensor, blocks: Iterator[KeysValues]) -> Tensor:
        """Maps (B, C_in, H, W) to (B, C, H', W'); takes as many of `blocks` as the stage has."""
        x, grid = self.patch_embed(search)
        for block, keys_values in zip(self.mixed_blocks(), islice(blocks, len(self.blocks)), strict=True):
            x = block.encode_search(x, grid, keys_values)
        return to_maps(x, grid)


@MODELS.register_module()
class MixCvT(MixedBackbone):
    """CvT with mixed attention; the defaults are MixFormer's CvT-21. Lists have one entry a stage.

    Args:
        dims: widths.
        depths: blocks.
        num_heads: heads.
        drop_path_rates: stochastic depth at each stage's end, growing from 0 at its beginning.
        patches: kernel size, stride and padding of each patch convolution.
        mlp_ratios: hidden width of the perceptrons over the width.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rates: dropout rates.
        kernel_sizes, strides_q, strides_kv, paddings_q, paddings_kv: of the attention's convolutions.
        frozen_stages: the first so many stages do not learn; MixFormer-L freezes one.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int] = (64, 192, 384),
        depths: Sequence[int] = (1, 4, 16),
        num_heads: Sequence[int] = (1, 3, 6),
        drop_path_rates: Sequence[float] = (0.0, 0.0, 0.1),
        patches: Sequence[tuple[int, int, int]] = ((7, 4, 2), (3, 2, 1), (3, 2, 1)),
        mlp_ratios: Sequence[float] = (4.0, 4.0, 4.0),
        qkv_bias: Sequence[bool] = (True, True, True),
        drop_rates: Sequence[float] = (0.0, 0.0, 0.0),
        kernel_sizes: Sequence[int] = (3, 3, 3),
        strides_q: Sequence[int] = (1, 1, 1),
        strides_kv: Sequence[int] = (2, 2, 2),
        paddings_q: Sequence[int] = (1, 1, 1),
        paddings_kv: Sequence[int] = (1, 1, 1),
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        self.channels, self.stride = dims[-1], 1
        self.frozen_stages, self.num_stages = frozen_stages, len(dims)
        for i, (dim, patch) in enumerate(zip(dims, patches, strict=True)):
            stage = MixedStage(
                dims[i - 1] if i else 3,
                dim,
                depths[i],
                num_heads[i],
                patch,
                drop_path_rate=drop_path_rates[i],
                mlp_ratio=mlp_ratios[i],
                qkv_bias=qkv_bias[i],
                drop_rate=drop_rates[i],
                kernel_size=kernel_sizes[i],
                stride_q=strides_q[i],
                stride_kv=strides_kv[i],
                padding_q=paddings_q[i],
                padding_kv=paddings_kv[i],
            )
            self.add_module(f"stage{i}", stage)
            self.stride *= patch[1]
        self.apply(init_linear)
        for stage in self.stages[:frozen_stages]:
            stage.requires_grad_(False)

    @property
    def stages(self) -> list[MixedStage]:
        """The stages, first to last."""
        return [getattr(self, f"stage{i}") for i in range(self.num_stages)]

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen stages."""
        super().train(mode)
        for stage in self.stages[: self.frozen_stages]:
            stage.eval()
        return self

    def encode_templates(self, templates: Tensor) -> TemplateMemory:
        """See `MixedBackbone`."""
        blocks: list[KeysValues] = []
        for stage in self.stages:
            templates, left = stage.encode_templates(templates)
            blocks += left
        return TemplateMemory(tuple(blocks), templates[:, 0])

    def encode_search(self, search: Tensor, memory: TemplateMemory) -> Tensor:
        """See `MixedBackbone`."""
        blocks = iter(memory.blocks)
        for stage in self.stages:
            search = stage.encode_search(search, blocks)
        return search
