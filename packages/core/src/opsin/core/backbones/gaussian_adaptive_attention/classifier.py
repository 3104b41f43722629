"""A classifier of a frozen backbone and a light head that reads all its layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from opsin.core.backbones.backbone import Classifier
from opsin.core.backbones.gaussian_adaptive_attention.encoder import FrozenEncoder
from opsin.core.backbones.gaussian_adaptive_attention.heads import LayerHead
from opsin.registry import MODELS


@MODELS.register_module()
class FrozenEncoderClassifier(Classifier):
    """Image (N, 3, H, W) through a frozen encoder and a head, which alone is trained; `encoder`, `head`.

    Args:
        encoder: config of the backbone, see `FrozenEncoder`; its weights come by its own `init_cfg`.
        head: config of a `LayerHead` without its `num_layers` and `feature_size`, which the encoder tells;
            `dict(type="opsin.GATHead")` if None.
        num_classes: logits; 0 for none.
        cache: folder for the encoder's features, see `FrozenEncoder`.
        with_cp, init_cfg: see `Trunk`; nothing is checkpointed.

    Raises:
        UserError: if the encoder's maps differ in channels, or the head doesn't fit their number.
    """

    head: LayerHead

    def __init__(
        self,
        encoder: dict[str, Any],
        head: dict[str, Any] | None = None,
        *,
        num_classes: int = 1000,
        cache: str | None = None,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.encoder = FrozenEncoder(encoder, cache)
        told = {"num_layers": self.encoder.num_layers, "feature_size": self.encoder.feature_size}
        built = MODELS.build({"type": "opsin.GATHead", **(head or {}), **told, "num_classes": num_classes})
        assert isinstance(built, LayerHead)
        self.head = built
        self.num_classes, self.num_features = num_classes, built.num_features

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the vector (N, num_features) that the head's last layer reads."""
        return self.head.embed(self.encoder(x))

    def forward_head(self, features: Tensor) -> Tensor:
        """(N, num_features) to logits (N, num_classes)."""
        return self.head.fc(features)

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the head's last layer by a freshly initialised one (0: none)."""
        self.num_classes = num_classes
        self.head.reset_classifier(num_classes)

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: the encoder; layer 1: the head."""
        return int(not name.removeprefix(prefix).startswith("encoder.")), 2
