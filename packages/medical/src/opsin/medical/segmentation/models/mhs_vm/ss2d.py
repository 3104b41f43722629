"""VM-UNet's mixer, the baseline of MHS-VM: VMamba's scan of the whole width along four raster routes.

VM-UNet: Vision Mamba UNet for Medical Image Segmentation (arXiv 2402.02491). The inner width is twice the
block's, and a projection follows the gate.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.scan_routes import ordered, restored
from opsin.medical.segmentation.models.mhs_vm.scan import EPS, MambaEngine, scan_together

ROUTES = (1, 3, 2, 4)  # along the rows, along the columns, both backwards


class SS2D(MambaEngine):
    """The baseline's mixer, with the parameters of its one scan under their published names.

    Args:
        dim: channels d; 2d are scanned.
        d_state: states a channel.
        dropout: dropout of the result.
    """

    def __init__(self, dim: int, *, d_state: int = 16, dropout: float = 0.0) -> None:
        inner = 2 * dim
        super().__init__(inner, d_state, math.ceil(dim / 16))
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.out_norm = nn.LayerNorm(inner, eps=EPS)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, d) to the same shape."""
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x = F.silu(self.conv2d(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        sequences = ordered(x, ROUTES).unflatten(1, (len(ROUTES), -1)).transpose(2, 3)
        y = scan_together([self], sequences[:, None])[:, 0]
        y = restored(y.transpose(2, 3).flatten(1, 2), ROUTES, x)
        return self.dropout(self.out_proj(self.out_norm(y) * F.silu(z)))
