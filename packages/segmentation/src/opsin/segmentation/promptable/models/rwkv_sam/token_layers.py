"""The blocks on tokens that RWKV-SAM's ablations put in the place of RWKV blocks (arXiv 2406.19369).

| `token_layers` | blocks |
|---|---|
| rwkv | RWKV, as released |
| transformer | softmax attention with 6 heads, and a GEGLU of ratio 2 |
| rwkv_trans | RWKV, then transformer |
| rwkv_mbconv, mbconv_rwkv | RWKV, then inverted bottlenecks; the other way round |

The paper's weights of none of these are known. Of the mixes nothing is known but the names: that the first
kind makes up the first half of the blocks, and the second the rest, is a choice; so are a transformer's
biases and the names of its parameters.
"""

from __future__ import annotations

from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.core.layers.attention import Attention
from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.geglu import FeedForward
from opsin.core.layers.weight_init import init_conv_fan_out
from opsin.segmentation.promptable.models.rwkv_sam.blocks import Grid, RWKVBlock
from opsin.segmentation.promptable.models.rwkv_sam.convolutions import MBConv

HEADS = 6
TOKEN_LAYERS = {  # the first half of the blocks, and the rest
    "rwkv": ("rwkv", "rwkv"),
    "transformer": ("transformer", "transformer"),
    "rwkv_trans": ("rwkv", "transformer"),
    "rwkv_mbconv": ("rwkv", "mbconv"),
    "mbconv_rwkv": ("mbconv", "rwkv"),
}


class TransformerBlock(nn.Module):
    """Attention over all tokens and a GEGLU, each normed before and residual.

    Args:
        channels: C.
        num_heads: heads; divides `channels`.
        mlp_ratio: hidden channels of the GEGLU in units of C.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
    """

    def __init__(
        self, channels: int, *, num_heads: int = HEADS, mlp_ratio: float = 2.0, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = FeedForward(channels, mlp_ratio)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, T, C), tokens of `grid`, to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ConvTokens(nn.Module):
    """An inverted bottleneck, as in the convolutional stages, on the map of the tokens.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = MBConv(channels, channels, stride=1)
        self.apply(init_conv_fan_out)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, T, C), tokens of `grid`, to the same shape."""
        return self.conv(x.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)


def token_layer(
    kind: str,
    channels: int,
    *,
    layer: int,
    layers: int,
    mlp_ratio: float,
    num_heads: int = HEADS,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Block `layer` of `layers` of a network; it is called with tokens (B, T, C) and their grid.

    Args:
        kind: a key of `TOKEN_LAYERS`.
        channels: C.
        layer: index of the block.
        layers: blocks of the network.
        mlp_ratio: hidden channels in units of C, of RWKV blocks and transformers.
        num_heads: of transformers.
        drop_path_rate: chance of dropping a branch of a sample, of RWKV blocks and transformers.

    Raises:
        UserError: for an unknown kind, or heads that do not divide `channels`.
    """
    if kind not in TOKEN_LAYERS:
        raise unknown("token layer", kind, TOKEN_LAYERS)
    block = TOKEN_LAYERS[kind][2 * layer >= layers]
    if block == "mbconv":
        return ConvTokens(channels)
    if block == "rwkv":
        return RWKVBlock(
            channels, mlp_ratio=mlp_ratio, drop_path_rate=drop_path_rate, layer=layer, layers=layers
        )
    if channels % num_heads:
        raise UserError(f"{num_heads} heads do not divide the {channels} channels of the tokens")
    return TransformerBlock(channels, num_heads=num_heads, mlp_ratio=mlp_ratio, drop_path_rate=drop_path_rate)
