"""A classification network as mmengine trains it: preprocessing, batch augmentation, loss, prediction."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS

MODELS.register_module(name="SoftTargetCrossEntropy", module=nn.CrossEntropyLoss)

Samples = list[BaseDataElement]


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Trains and applies any network that maps images (N, 3, H, W) to logits (N, num_classes).

    A network may have losses of its own, which are added: what its method `auxiliary_losses()` gives after a
    training forward, a dict of tensors whose names contain "loss".

    Args:
        network: the network, e.g. `dict(type='opsin.ConvNeXtClassifier', arch='tiny', num_classes=10)`.
        loss: built with logits (N, C) and target probabilities (N, C); torch's cross entropy, which has
            `label_smoothing`, goes under the name `opsin.SoftTargetCrossEntropy`.
        batch_augmentation: a module that changes images and target probabilities of a training batch
            (`dict(type='opsin.MixupCutmix')`), or None.
        distillation: a teacher (`dict(type='opsin.Distillation', teacher=…)`), or None. A network that gives
            two tensors of logits in training has a head of its own for it, the second.
        data_preprocessor, init_cfg: see mmengine's `BaseModel`.
    """

    def __init__(
        self,
        network: dict[str, Any],
        loss: dict[str, Any] | None = None,
        batch_augmentation: dict[str, Any] | None = None,
        distillation: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.network = MODELS.build(network)
        self.criterion = MODELS.build(loss or {"type": "opsin.SoftTargetCrossEntropy"})
        self.batch_augmentation = MODELS.build(batch_augmentation) if batch_augmentation else None
        self.distillation = MODELS.build(distillation) if distillation else None

    def forward(
        self,
        inputs: Tensor,
        data_samples: Samples | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Normalised images (N, 3, H, W) to logits, a dict of losses, or data samples with predictions.

        Predictions are `pred_scores` (C,), which sum to one, and `pred_label`, the index of the largest.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples or [])
        logits = self.network(inputs)
        return self.predict(logits, data_samples) if mode == "predict" else logits

    def loss(self, images: Tensor, samples: Samples) -> dict[str, Tensor]:
        """The training loss of a batch, after batch augmentation, and the network's own losses.

        Raises:
            UserError: for a label that the network lacks, or a head for a teacher without a teacher.
        """
        targets = self.targets(samples).to(images.device)
        if self.batch_augmentation is not None:
            images, targets = self.batch_augmentation(images, targets)
        outputs = self.network(images)
        logits, distilled = outputs if isinstance(outputs, tuple) else (outputs, outputs)
        loss = self.criterion(logits, targets)
        if self.distillation is not None:
            loss = self.distillation(images, distilled, loss)
        elif distilled is not logits:
            raise UserError(
                "the network has a head that follows a teacher, and there is no teacher",
                "set model.distillation, or model.network.distillation=False",
            )
        return {"loss": loss, **getattr(self.network, "auxiliary_losses", dict)()}

    def targets(self, samples: Samples) -> Tensor:
        """The labels as probabilities (N, num_classes).

        Raises:
            UserError: for a label that the network lacks.
        """
        labels = torch.stack([sample.gt_label for sample in samples])
        classes = self.network.num_classes
        largest = int(labels.max())
        if largest >= classes:
            raise UserError(
                f"a sample has class {largest} (counted from 0) but the network has {classes} classes",
                "set model.network.num_classes",
            )
        return F.one_hot(labels, classes).float()

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (N, C) to scores, of the same shape."""
        return logits.float().softmax(dim=1)

    def predict(self, logits: Tensor, samples: Samples | None) -> Samples:
        """Logits (N, C) to data samples that carry scores and label."""
        scores = self.scores(logits)
        samples = samples or [BaseDataElement() for _ in scores]
        for sample, score in zip(samples, scores, strict=True):
            sample.pred_scores = score
            sample.pred_label = score.argmax()
        return samples

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer-wise learning-rate decay is the network's."""
        return self.network.get_layer_depth(name, f"{prefix}network.")

    def no_weight_decay(self) -> set[str]:
        """Parameters that the network's authors don't decay, besides one-dimensional ones."""
        return {f"network.{name}" for name in self.network.no_weight_decay()}
