"""Multi-head attention whose logits a mask multiplies; parameters `qkv`, `proj` and `mask`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.gaussian_mixture_mask.mask import Grid, pad_weights
from opsin.core.layers.weighted_attention import weighted_attention
from opsin.registry import MODELS


@MODELS.register_module()
class MaskedAttention(nn.Module):
    """softmax(W * scale q k^T) v over all tokens of a map, with class tokens before them or without.

    Args:
        dim: width C.
        num_heads: heads.
        head_dim: width of a head.
        mask: called with the map's size, gives W (heads, N, N) or (N, N); None is plain attention.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, mask: nn.Module | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=False)
        self.proj = nn.Linear(num_heads * head_dim, dim)
        self.mask = mask

    def forward(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, C), the last h * w tokens a map of `size` (h, w), to the same shape."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.mask is None:
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        else:
            weights = pad_weights(self.mask(size), x.shape[1] - size[0] * size[1])
            y = weighted_attention(q, k, v, weights, self.scale)
        return self.proj(y.transpose(1, 2).flatten(2))
