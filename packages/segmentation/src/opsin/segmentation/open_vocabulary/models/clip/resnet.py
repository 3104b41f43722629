"""The image side of OpenAI's CLIP ResNets (RN50 … RN50x64).

A ResNet with a stem of three convolutions, an average pooling before every strided 1x1 convolution, and
attention pooling at the end. The pooling here attends under masks: its query is the mean of the whole map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.segmentation.open_vocabulary.models.mask_pooling import resize

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, average pooling where strided, 1x1; residual."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.downsample = None
        if stride > 1 or in_channels != out_channels:
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            parts["-1"] = nn.AvgPool2d(stride)
            parts["0"] = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            parts["1"] = nn.BatchNorm2d(out_channels)
            self.downsample = nn.Sequential(parts)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4 width, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        if self.stride > 1:
            y = F.avg_pool2d(y, self.stride)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class MaskedAttentionPool(nn.Module):
    """CLIP's attention pooling of a map, once for every mask.

    Args:
        grid: side of the map that the positions were trained for.
        dim: channels of the map.
        num_heads: heads.
        embed_dim: width of the common space.
    """

    def __init__(self, grid: int, dim: int, num_heads: int, embed_dim: int) -> None:
        super().__init__()
        self.grid, self.num_heads = grid, num_heads
        self.positional_embedding = nn.Parameter(torch.randn(grid**2 + 1, dim) / dim**0.5)
        self.k_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.c_proj = nn.Linear(dim, embed_dim)

    def forward(self, x: Tensor, masks: Tensor) -> Tensor:
        """(B, Q, embed_dim) from a map (B, C, H, W) and mask logits (B, Q, h, w).

        An empty mask would attend to nothing; it attends to the whole map instead.
        """
        inside = resize(masks, x.shape[-2:]).flatten(2) > 0
        inside = inside | ~inside.any(-1, keepdim=True)
        table = self.positional_embedding[1:].T.unflatten(1, (self.grid, self.grid))[None]
        query = x.flatten(2).mean(2) + self.positional_embedding[0]
        keys = (x + resize(table, x.shape[-2:]).to(x.dtype)).flatten(2).transpose(1, 2)
        query = query[:, None].expand(-1, masks.shape[1], -1)
        q, k, v = (
            project(t).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for project, t in ((self.q_proj, query), (self.k_proj, keys), (self.v_proj, keys))
        )
        pooled = F.scaled_dot_product_attention(q, k, v, attn_mask=inside[:, None])
        embedded: Tensor = self.c_proj(pooled.transpose(1, 2).flatten(2))
        return embedded


class ResNetVisual(nn.Module):
    """Stem, four stages and pooling.

    Args:
        layers: blocks of the four stages.
        width: of the first stage's 3x3 convolutions.
        embed_dim: width of the common space.
        image_size: side of the images that it was trained on.
    """

    def __init__(self, layers: Sequence[int], width: int, embed_dim: int, image_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.channels = tuple(width * EXPANSION * 2**i for i in range(4))
        before = (width, *self.channels[:-1])
        for i, depth in enumerate(layers):
            blocks = [Bottleneck(before[i], width * 2**i, 1 if i == 0 else 2)]
            blocks += [Bottleneck(self.channels[i], width * 2**i, 1) for _ in range(depth - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        heads = self.channels[-1] // 64
        self.attnpool = MaskedAttentionPool(image_size // 32, self.channels[-1], heads, embed_dim)

    def forward(self, image: Tensor) -> list[Tensor]:
        """res2 … res5 of a normalised image (B, 3, H, W)."""
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        maps = []
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            maps.append(x)
        return maps

    def embed_masks(self, res5: Tensor, masks: Tensor) -> Tensor:
        """(B, Q, embed_dim) of what mask logits (B, Q, h, w) cover."""
        embedded: Tensor = self.attnpool(res5, masks)
        return embedded
