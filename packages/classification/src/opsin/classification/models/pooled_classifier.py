"""Any dense backbone as a classifier: norm, mean over the last map, linear head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from opsin.core.backbones.backbone import Classifier
from opsin.core.errors import UserError
from opsin.registry import MODELS


@MODELS.register_module()
class PooledClassifier(Classifier):
    """A backbone of opsin, mmdet or mmseg, layer-normed mean of its last map, and a linear layer.

    Args:
        backbone: gives a tuple of maps (N, C_i, H_i, W_i), or one map.
        num_classes: logits; 0 for no head.
        in_channels: channels of the backbone's last map; opsin's backbones say it themselves.

    Raises:
        UserError: if `in_channels` is missing for a backbone that does not tell, or contradicts what it
            tells.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        *,
        num_classes: int = 1000,
        in_channels: int | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.num_features = _channels(self.backbone, in_channels)
        self.norm = nn.LayerNorm(self.num_features)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed mean vector (N, num_features)."""
        maps = self.backbone(x)
        last = maps if isinstance(maps, Tensor) else maps[-1]
        return self.norm(last.mean((2, 3)))

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """The backbone's layers; norm and head have its last one."""
        return self.backbone.get_layer_depth(name, f"{prefix}backbone.")

    def no_weight_decay(self) -> set[str]:
        """Parameters that the backbone's authors don't decay, if it tells."""
        told = getattr(self.backbone, "no_weight_decay", set)
        return {f"backbone.{name}" for name in told()}

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """The backbone's own losses of the last training forward, if it has any."""
        own: dict[str, Tensor] = getattr(self.backbone, "auxiliary_losses", dict)()
        return own


def _channels(backbone: nn.Module, given: int | None) -> int:
    info = getattr(backbone, "feature_info", None)
    told: int | None = info[-1].channels if info else given
    name = type(backbone).__name__
    if told is None:
        raise UserError(f"{name} does not say how many channels its last map has", "set in_channels")
    if given not in (None, told):
        raise UserError(f"in_channels is {given} and the last map of {name} has {told}", "leave it out")
    return told
