"""A classifier of pictures that may have several findings at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.classification.models.image_classifier import ImageClassifier, Samples
from opsin.core.errors import UserError
from opsin.registry import MODELS

MODELS.register_module(name="BinaryCrossEntropy", module=nn.BCEWithLogitsLoss)


@MODELS.register_module()
class MultiLabelClassifier(ImageClassifier):
    """Trains and applies a network each of whose logits decides on one finding.

    A sample's `gt_label` is a vector of zeros and ones; the loss is `opsin.BinaryCrossEntropy` unless told
    otherwise, `pred_scores` are probabilities of their own, which do not sum to one.

    Args:
        loss: built with logits and targets, both (N, C).
        **kwargs: those of `ImageClassifier`.
    """

    def __init__(self, *, loss: dict[str, object] | None = None, **kwargs: object) -> None:
        super().__init__(loss=loss or {"type": "opsin.BinaryCrossEntropy"}, **kwargs)  # type: ignore[arg-type] # ImageClassifier's own

    def targets(self, samples: Samples) -> Tensor:
        """The findings as zeros and ones (N, num_classes).

        Raises:
            UserError: if the labels are not one number a logit.
        """
        labels = torch.stack([torch.atleast_1d(sample.gt_label) for sample in samples]).float()
        if labels.shape[1] != self.network.num_classes:
            raise UserError(
                f"a sample has {labels.shape[1]} findings, the network {self.network.num_classes} classes",
                "set model.network.num_classes; a set with one label a picture needs type='ImageClassifier'",
            )
        return labels

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (N, C) to probabilities."""
        return logits.float().sigmoid()
