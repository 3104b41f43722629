"""The parts of multi-scale guided attention: position and channel attention, and the semantic autoencoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCTION = 8  # of the channels of queries and keys


class PositionAttention(nn.Module):
    """Attention of every pixel to every pixel, without a scale; gamma * attended + x, gamma 0 at first.

    Args:
        channels: channels C, at least 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // REDUCTION, 1)
        self.key_conv = nn.Conv2d(channels, channels // REDUCTION, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        query, key, value = (
            conv(x).flatten(2).transpose(1, 2)[:, None]
            for conv in (self.query_conv, self.key_conv, self.value_conv)
        )
        # Zeros change no score; heads of one width are what the kernels that keep no scores ask for.
        missing = value.shape[-1] - query.shape[-1]
        query, key = F.pad(query, (0, missing)), F.pad(key, (0, missing))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.gamma * attended[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]) + x


class ChannelAttention(nn.Module):
    """Attention among channels, where the LEAST alike weigh most; gamma * attended + x, gamma 0 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        rows = x.flatten(2)
        energy = rows @ rows.transpose(1, 2)
        weights = (energy.amax(-1, keepdim=True) - energy).softmax(-1)
        return self.gamma * (weights @ rows).view_as(x) + x


class AttentionLayer(nn.Module):
    """Convolution from 2C to C channels, an attention, and another convolution (`PAM_CAM_Layer`).

    Args:
        channels: channels C.
        attention: the attention of C channels between the convolutions.
    """

    def __init__(self, channels: int, attention: nn.Module) -> None:
        super().__init__()
        self.attn = nn.Sequential(
            *conv_norm_prelu(2 * channels, channels, 3), attention, *conv_norm_prelu(channels, channels, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2C, H, W) to (N, C, H, W)."""
        return self.attn(x)


class MultiConv(nn.Module):
    """3x3, 3x3 and 1x1 convolutions, each with batch norm and PReLU.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        softmax: whether a softmax over channels takes the place of the last PReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, *, softmax: bool = False) -> None:
        super().__init__()
        layers = [
            *conv_norm_prelu(in_channels, out_channels, 3),
            *conv_norm_prelu(out_channels, out_channels, 3),
            *conv_norm_prelu(out_channels, out_channels, 1),
        ]
        if softmax:
            layers[-1] = nn.Softmax(dim=1)
        self.fuse_attn = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W)."""
        return self.fuse_attn(x)


class EncoderBlock(nn.Module):
    """Two convolutions with batch norm and ReLU, and a max pooling that halves the sides."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(*_two_convs(in_channels, out_channels), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H / 2, W / 2)."""
        return self.encode(x)


class DecoderBlock(nn.Module):
    """Two convolutions with batch norm and ReLU, and a transposed one that doubles the sides."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(out_channels, out_channels, 2, 2)
        self.decode = nn.Sequential(*_two_convs(in_channels, out_channels), up)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, 2H, 2W)."""
        return self.decode(x)


class SemanticModule(nn.Module):
    """An autoencoder without skips; its code says what is in the whole batch of maps.

    Args:
        channels: channels C of its input and its reconstruction.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enc1 = EncoderBlock(channels, 2 * channels)
        self.enc2 = EncoderBlock(2 * channels, 4 * channels)
        self.dec2 = DecoderBlock(4 * channels, 2 * channels)
        self.dec1 = DecoderBlock(2 * channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to the code (N * 4C * H/4 * W/4,) and the reconstruction (N, C, H, W)."""
        half = self.enc1(x)
        code = self.enc2(half)
        up = F.interpolate(self.dec2(code), size=half.shape[2:], mode="bilinear")
        return code.flatten(), self.dec1(up)


def conv_norm_prelu(in_channels: int, out_channels: int, kernel_size: int) -> list[nn.Module]:
    """A convolution that keeps the size, its batch norm and a PReLU of one slope."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return [conv, nn.BatchNorm2d(out_channels), nn.PReLU()]


def _two_convs(in_channels: int, out_channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return layers
