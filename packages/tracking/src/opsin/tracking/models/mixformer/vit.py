"""The ViT and ConvMAE backbones of MixViT (arXiv 2302.02814), both pretrained as masked autoencoders.

MixViT adds fixed positions right after the patch convolution and has no final norm and no class token, though
the published state dict carries both. ConvMAE's first two stages are convolution blocks on each crop alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.layers.pointwise_conv import PointwiseConv
from opsin.core.layers.weight_init import init_linear
from opsin.registry import MODELS
from opsin.tracking.models.mixformer.backbone import MixedBackbone, to_maps, to_tokens
from opsin.tracking.models.mixformer.memory import TemplateMemory
from opsin.tracking.models.mixformer.mixed_attention import Grid, LinearMixedAttention, MixedBlock
from opsin.tracking.models.mixformer.position_table import sine_table

CONV_EPS = 1e-5  # of the convolution stages' norms; the published code leaves them at torch's default


class PositionedBackbone(MixedBackbone):
    """Crops become maps, whose cells get fixed positions and go through mixed blocks.

    Args:
        dim: width C of the tokens.
        stride: pixels a token.
        search_size, template_size: sides in pixels of the crops whose position tables are kept at hand;
            crops of other sizes work too.
    """

    pos_embed_s: Tensor
    pos_embed_t: Tensor

    def __init__(self, dim: int, stride: int, search_size: int, template_size: int) -> None:
        super().__init__()
        self.channels, self.stride = dim, stride
        for name, side in (("pos_embed_s", search_size // stride), ("pos_embed_t", template_size // stride)):
            self.register_buffer(name, sine_table(dim, (side, side)), persistent=False)

    def embed(self, crops: Tensor) -> Tensor:
        """Crops (M, 3, H, W) to maps (M, C, H / stride, W / stride)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how crops become maps")

    def mixed_blocks(self) -> Iterable[MixedBlock]:
        """The blocks, first to last."""
        raise NotImplementedError(f"{type(self).__name__} does not name its blocks")

    def encode_templates(self, templates: Tensor) -> TemplateMemory:
        """See `MixedBackbone`."""
        batch, count = templates.shape[:2]
        x, grid = self._tokens(templates.flatten(0, 1), self.pos_embed_t)
        x = x.reshape(batch, -1, self.channels)
        left = []
        for block in self.mixed_blocks():
            x, keys_values = block.encode_templates(x, count, grid)
            left.append(keys_values)
        return TemplateMemory(tuple(left), to_maps(x[:, : math.prod(grid)], grid))

    def encode_search(self, search: Tensor, memory: TemplateMemory) -> Tensor:
        """See `MixedBackbone`."""
        x, grid = self._tokens(search, self.pos_embed_s)
        for block, keys_values in zip(self.mixed_blocks(), memory.blocks, strict=True):
            x = block.encode_search(x, grid, keys_values)
        return to_maps(x, grid)

    def _tokens(self, crops: Tensor, table: Tensor) -> tuple[Tensor, Grid]:
        maps = self.embed(crops)
        grid = (maps.shape[2], maps.shape[3])
        side = math.isqrt(table.shape[1])
        if grid != (side, side):
            table = sine_table(self.channels, grid).to(table)
        return to_tokens(maps) + table, grid


def _mixed_blocks(
    dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, eps: float, rates: Iterable[float]
) -> nn.ModuleList:
    return nn.ModuleList(
        MixedBlock(
            LinearMixedAttention(dim, num_heads, qkv_bias=qkv_bias),
            dim,
            mlp_ratio=mlp_ratio,
            drop_path_rate=rate,
            eps=eps,
        )
        for rate in rates
    )


class PatchProjection(nn.Module):
    """The patch convolution under its published name `proj`: kernel and stride are the patch's side."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, crops: Tensor) -> Tensor:
        """(M, 3, H, W) to (M, C, H / patch_size, W / patch_size)."""
        return self.proj(crops)


@MODELS.register_module()
class MixViT(PositionedBackbone):
    """ViT with mixed attention; the defaults are ViT-B's.

    Args:
        dim: width.
        depth: blocks.
        num_heads: heads.
        patch_size: side of a patch in pixels.
        search_size, template_size: see `PositionedBackbone`.
        mlp_ratio: hidden width of the perceptrons over the width.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: stochastic depth of the last block, growing from 0.
        eps: of the norms.
    """

    def __init__(
        self,
        *,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        patch_size: int = 16,
        search_size: int = 288,
        template_size: int = 128,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.1,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(dim, patch_size, search_size, template_size)
        self.patch_embed = PatchProjection(dim, patch_size)
        rates = drop_path_rates(drop_path_rate, [depth])[0]
        self.blocks = _mixed_blocks(dim, num_heads, mlp_ratio, qkv_bias, eps, rates)
        self.apply(init_linear)

    def embed(self, crops: Tensor) -> Tensor:
        """See `PositionedBackbone`."""
        return self.patch_embed(crops)

    def mixed_blocks(self) -> Iterable[MixedBlock]:
        """See `PositionedBackbone`."""
        return self.blocks  # type: ignore[return-value] # a ModuleList tells nothing of its entries


class NormedPatches(nn.Module):
    """Patch convolution (`proj`), LayerNorm over channels (`norm`), GELU."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.norm = LayerNorm2d(dim, eps=CONV_EPS)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(M, C_in, H, W) to (M, C, H / patch_size, W / patch_size)."""
        return self.act(self.norm(self.proj(x)))


class PointwiseMlp(nn.Module):
    """Two 1x1 convolutions (`fc1`, `fc2`) with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = PointwiseConv(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = PointwiseConv(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, H, W) to the same shape."""
        return self.fc2(self.act(self.fc1(x)))


class ConvBlock(nn.Module):
    """A residual 1x1, depth-wise 5x5, 1x1 convolution in attention's place, and a residual perceptron.

    Args:
        dim: channels C.
        mlp_ratio: hidden width of the perceptron over C.
        drop_path_rate: stochastic depth, in [0, 1).
    """

    def __init__(self, dim: int, mlp_ratio: float, drop_path_rate: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(dim, eps=CONV_EPS)
        self.conv1 = PointwiseConv(dim, dim)
        self.attn = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv2 = PointwiseConv(dim, dim)
        self.norm2 = LayerNorm2d(dim, eps=CONV_EPS)
        self.mlp = PointwiseMlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, H, W) to the same shape."""
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@MODELS.register_module()
class MixConvMAE(PositionedBackbone):
    """ConvMAE (arXiv 2205.03892) with mixed attention in its last stage; the defaults are the base model's.

    Args:
        dims: widths of the three stages.
        depths: their blocks; the first two are convolutional.
        num_heads: heads of the third.
        patch_sizes: sides of the patches before each.
        search_size, template_size: see `PositionedBackbone`.
        mlp_ratios: hidden widths of the perceptrons over the widths.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: stochastic depth of the last block, growing from 0 at the first.
        eps: of the third stage's norms.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int] = (256, 384, 768),
        depths: Sequence[int] = (2, 2, 11),
        num_heads: int = 12,
        patch_sizes: Sequence[int] = (4, 2, 2),
        search_size: int = 288,
        template_size: int = 128,
        mlp_ratios: Sequence[float] = (4.0, 4.0, 4.0),
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(dims[2], math.prod(patch_sizes), search_size, template_size)
        rates = drop_path_rates(drop_path_rate, depths)
        self.patch_embed1 = NormedPatches(3, dims[0], patch_sizes[0])
        self.patch_embed2 = NormedPatches(dims[0], dims[1], patch_sizes[1])
        self.patch_embed3 = NormedPatches(dims[1], dims[2], patch_sizes[2])
        self.patch_embed4 = nn.Linear(dims[2], dims[2])
        self.blocks1, self.blocks2 = (
            nn.Sequential(*(ConvBlock(dims[i], mlp_ratios[i], rate) for rate in rates[i])) for i in (0, 1)
        )
        self.blocks3 = _mixed_blocks(dims[2], num_heads, mlp_ratios[2], qkv_bias, eps, rates[2])
        self.apply(init_linear)

    def embed(self, crops: Tensor) -> Tensor:
        """See `PositionedBackbone`."""
        x = self.blocks1(self.patch_embed1(crops))
        x = self.patch_embed3(self.blocks2(self.patch_embed2(x)))
        return self.patch_embed4(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def mixed_blocks(self) -> Iterable[MixedBlock]:
        """See `PositionedBackbone`."""
        return self.blocks3  # type: ignore[return-value] # a ModuleList tells nothing of its entries
