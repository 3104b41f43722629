"""The score head (SPM): whether the box in the search region holds the first frame's target.

A learned token looks at the features inside the box, then at the first template's; no residuals. The scale
of the attention is C ** -0.5 with the whole width, whatever the number of heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.registry import MODELS
from opsin.tracking.models.mixformer.backbone import to_tokens
from opsin.tracking.models.mixformer.prroi_pool import prroi_pool

STEPS = 2  # the box's features, then the template's


class ScorePerceptron(nn.Module):
    """C to C to C to 1 with ReLUs between; parameters `layers`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, out) for out in (dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) to (B, 1)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


@MODELS.register_module()
class ScoreHead(nn.Module):
    """Scores one box a search region.

    Args:
        dim: width C of the features.
        num_heads: heads; the published builders take one for every 64 channels.
        pool_size: the box is pooled to pool_size x pool_size tokens.
    """

    def __init__(self, dim: int, num_heads: int | None = None, pool_size: int = 4) -> None:
        super().__init__()
        self.num_heads, self.scale, self.pool_size = num_heads or dim // 64, dim**-0.5, pool_size
        if dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide a width of {dim}")
        self.score_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.norm1 = nn.LayerNorm(dim)
        self.proj_q, self.proj_k, self.proj_v, self.proj = (
            nn.ModuleList(nn.Linear(dim, dim) for _ in range(STEPS)) for _ in range(4)
        )
        self.norm2 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(STEPS))
        self.score_head = ScorePerceptron(dim)
        nn.init.trunc_normal_(self.score_token, std=0.02)

    def forward(self, search: Tensor, template: Tensor, boxes: Tensor) -> Tensor:
        """Logits (B,).

        Args:
            search: features of the search regions, (B, C, H, W).
            template: features of the first frames' templates, (B, C, h, w).
            boxes: x1, y1, x2, y2 over the search region's width, (B, 4).
        """
        inside = prroi_pool(search, boxes * search.shape[3], self.pool_size).to(search.dtype)
        x = self.norm1(self.score_token).expand(len(search), -1, -1)
        for i, seen in enumerate((to_tokens(inside), to_tokens(template))):
            q, k, v = (
                proj[i](tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
                for proj, tokens in ((self.proj_q, x), (self.proj_k, seen), (self.proj_v, seen))
            )
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
            x = self.norm2[i](self.proj[i](y.transpose(1, 2).flatten(2)))
        return self.score_head(x[:, 0])[:, 0]
