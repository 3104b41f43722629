"""Mixed attention (MAM): templates attend to templates, the search region to templates and to itself.

Because templates never see the search region, they go through a block on their own, and the search region
later against the keys and values that they left. One joint pass over all tokens, as the published training
code has it, gives the same numbers.

Letters: B targets, T templates each, N tokens a map, C width. Template tokens stand template by template.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.mlp import Mlp
from opsin.tracking.models.mixformer.frozen_batch_norm import FrozenBatchNorm2d
from opsin.tracking.models.mixformer.memory import KeysValues

Grid = tuple[int, int]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return x * torch.sigmoid(1.702 * x)


class ConvProjection(nn.Module):
    """A depth-wise convolution without bias (`conv`) and its frozen norm (`bn`), computed as one convolution.

    Args:
        dim: channels C.
        kernel_size: side of the kernel.
        stride: of the convolution; 2 leaves a quarter of the keys.
        padding: zeros on each side.
    """

    def __init__(self, dim: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel_size, stride, padding, groups=dim, bias=False)
        self.bn = FrozenBatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (M, C, H, W) to tokens (M, H' * W', C)."""
        scale, shift = self.bn.scale_and_shift()
        conv = self.conv
        weight = conv.weight * scale[:, None, None, None]
        y = F.conv2d(x, weight, shift, conv.stride, conv.padding, groups=conv.groups)
        return y.flatten(2).transpose(1, 2)


class MixedAttention(nn.Module):
    """What both kinds of mixed attention share; a subclass says how tokens become queries, keys and values.

    Args:
        dim: width C.
        num_heads: heads; divides `dim`.
        scale: factor on the logits.

    Raises:
        ValueError: if `num_heads` does not divide `dim`.
    """

    proj: nn.Linear

    def __init__(self, dim: int, num_heads: int, scale: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide a width of {dim}")
        self.num_heads, self.scale = num_heads, scale

    def project(self, x: Tensor, maps: int, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, maps * N, C) of maps of `grid` to queries, keys and values, each (B, heads, …, d)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how tokens are projected")

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Softmax attention and the heads' outputs side by side, (B, N, C)."""
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2).flatten(2)

    def heads(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, heads, N, d)."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class ConvMixedAttention(MixedAttention):
    """CvT's: queries, keys and values come from depth-wise convolutions of each map on its own.

    The published scale is C ** -0.5 with the whole width, not that of a head.

    Args:
        dim, num_heads: see `MixedAttention`.
        qkv_bias: whether the three linear layers have a bias.
        kernel_size: side of the convolutions' kernels.
        stride_q, stride_kv: strides of the convolution of queries, and of those of keys and values.
        padding_q, padding_kv: their paddings.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        kernel_size: int = 3,
        stride_q: int = 1,
        stride_kv: int = 2,
        padding_q: int = 1,
        padding_kv: int = 1,
    ) -> None:
        super().__init__(dim, num_heads, dim**-0.5)
        self.conv_proj_q = ConvProjection(dim, kernel_size, stride_q, padding_q)
        self.conv_proj_k = ConvProjection(dim, kernel_size, stride_kv, padding_kv)
        self.conv_proj_v = ConvProjection(dim, kernel_size, stride_kv, padding_kv)
        self.proj_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj_k = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj_v = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor, maps: int, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """See `MixedAttention`; keys and values have ceil(side / stride) tokens along each side."""
        batch = x.shape[0]
        folded = x.reshape(batch * maps, *grid, -1).permute(0, 3, 1, 2)
        q, k, v = (
            self.heads(linear(conv(folded).reshape(batch, -1, x.shape[2])))
            for conv, linear in (
                (self.conv_proj_q, self.proj_q),
                (self.conv_proj_k, self.proj_k),
                (self.conv_proj_v, self.proj_v),
            )
        )
        return q, k, v


class LinearMixedAttention(MixedAttention):
    """The plain transformer's: one linear layer, all tokens are keys, and the scale is that of a head.

    Args:
        dim, num_heads: see `MixedAttention`.
        qkv_bias: whether the linear layer has a bias.
    """

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, (dim // num_heads) ** -0.5)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor, maps: int, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """See `MixedAttention`; maps and grid do not matter here."""
        q, k, v = (self.heads(part) for part in self.qkv(x).chunk(3, dim=2))
        return q, k, v


class MixedBlock(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)), for templates and for the search region.

    Stochastic depth draws for the two separately.

    Args:
        attn: the mixed attention, of width C.
        dim: C.
        mlp_ratio: hidden width of the perceptron over C.
        drop_path_rate: stochastic depth, in [0, 1).
        eps: of both norms.
        act: makes the perceptron's activation.
        drop: dropout rate of attention outputs and in the perceptron.
    """

    def __init__(
        self,
        attn: MixedAttention,
        dim: int,
        *,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        eps: float = 1e-6,
        act: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act=act, drop=drop)
        self.drop = nn.Dropout(drop)
        self.drop_path = DropPath(drop_path_rate)

    def encode_templates(self, x: Tensor, maps: int, grid: Grid) -> tuple[Tensor, KeysValues]:
        """Template tokens (B, T * N, C) to the same shape, and the keys and values that they leave."""
        q, k, v = self.attn.project(self.norm1(x), maps, grid)
        return self._residuals(x, self.attn.attend(q, k, v)), (k, v)

    def encode_search(self, x: Tensor, grid: Grid, templates: KeysValues) -> Tensor:
        """Search tokens (B, N, C) to the same shape, against those of the templates and their own."""
        q, k, v = self.attn.project(self.norm1(x), 1, grid)
        k, v = torch.cat((templates[0], k), dim=2), torch.cat((templates[1], v), dim=2)
        return self._residuals(x, self.attn.attend(q, k, v))

    def _residuals(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.drop_path(self.drop(self.attn.proj(attended)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
