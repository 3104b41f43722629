"""Uni4Eye's encoder as a classifier of pictures or volumes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from opsin.core.backbones.backbone import Classifier
from opsin.core.models import register_models
from opsin.core.published import fit
from opsin.medical.pretraining.models.uni4eye.encoder import EPS, Uni4EyeEncoder
from opsin.registry import MODELS


@MODELS.register_module()
class Uni4EyeClassifier(Classifier):
    """Encoder, mean of all tokens but the class token, LayerNorm, linear layer; takes either kind of input.

    The mean and its norm are chosen here, as masked autoencoders are fine-tuned; the card has no classifier.

    Args:
        encoder: arguments of `Uni4EyeEncoder`.
        num_classes: logits; 0 for none.
        with_cp, init_cfg: see `Trunk`; `dict(type='opsin.Published', checkpoint=…)` loads a pretrained file.
    """

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        *,
        num_classes: int = 2,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.encoder = Uni4EyeEncoder(**(encoder or {}))
        self.num_features = self.encoder.dim
        self.fc_norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Pictures (N, C, H, W) or volumes (N, C, A, H, W) to (N, dim)."""
        return self.fc_norm(self.encoder(x)[:, 1:].mean(1))

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0 is the embedding, then one a block; norms and head have the last."""
        name, layers = name.removeprefix(prefix), len(self.encoder.blocks) + 2
        if name.startswith("encoder.blocks."):
            return int(name.split(".")[2]) + 1, layers
        return (0 if name.startswith("encoder.") and "norm" not in name else layers - 1), layers

    def from_published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The encoder out of a file of `Uni4Eye`; head and last norm, which it lacks, stay as they are."""
        renamed = {
            name if name.startswith(("encoder.", "fc_norm.", "head.")) else f"encoder.{name}": tensor
            for name, tensor in tensors.items()
        }
        unused = r"^encoder\.(decoder|mask_token|controller|mlp\.)"
        return fit(self.state_dict(), renamed, fresh=r"^(fc_norm|head)\.", unused=unused)


register_models(
    "uni4eye",
    Uni4EyeClassifier,
    {
        "uni4eye_large": {"encoder": {"dim": 1024, "depth": 24, "heads": 16}},
        "uni4eye_base": {"encoder": {"dim": 768, "depth": 12, "heads": 12}},
    },
)
