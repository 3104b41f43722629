"""Classes as text features: several rows a class, one a synonym, and a learnt row for "none of them"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SCALE = 100.0


@dataclass
class TextClassifier:
    """The rows that a feature is compared with.

    Args:
        rows: (T, D) unit vectors, the synonyms of class 0, of class 1, …, and last the row for void.
        owners: (T,) integers: which class a row belongs to; void's is the number of classes.
        num_classes: classes C without void.
    """

    rows: Tensor
    owners: Tensor
    num_classes: int

    @classmethod
    def of(cls, names: Tensor, void: Tensor, synonyms: Sequence[int]) -> TextClassifier:
        """Rows for names and void.

        Args:
            names: (T - 1, D) features of the synonyms, class after class.
            void: (1, D), of any length.
            synonyms: how many rows each class has.
        """
        counts = torch.tensor([*synonyms, 1], device=names.device)
        owners = torch.arange(len(counts), device=names.device).repeat_interleave(counts)
        return cls(torch.cat([names, F.normalize(void, dim=-1)]), owners, len(synonyms))

    def logits(self, features: Tensor, log_scale: Tensor) -> Tensor:
        """(B, Q, D) to logits (B, Q, C + 1), void last: the cosine with a class's nearest synonym, scaled.

        Args:
            features: of any length.
            log_scale: () logarithm of the scale, which is cut at 100.
        """
        cosines = F.normalize(features, dim=-1) @ self.rows.to(features).T
        scaled = log_scale.exp().clamp(max=MAX_SCALE) * cosines
        nearest = scaled.new_full((*scaled.shape[:-1], self.num_classes + 1), -torch.inf)
        return nearest.scatter_reduce(-1, self.owners.expand_as(scaled), scaled, "amax")
