"""Layer normalisation over the channels of a map."""

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.registry import MODELS


@MODELS.register_module()
class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over C of an (N, C, H, W) map; parameters are those of `nn.LayerNorm(C)`.

    In configs of mmdet and mmseg: `norm_cfg=dict(type="opsin.LayerNorm2d", eps=1e-6)`.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)
