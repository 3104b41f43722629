"""What the models of this task have in common: what mmengine asks of a model, by mode."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

from mmengine.model import BaseModel
from torch import Tensor

from opsin.segmentation.weakly_supervised.datasets.sample import WeakSample


class WeakModel(BaseModel):
    """A `network` with its losses and predictions."""

    network: Any

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[WeakSample] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Normalised images (B, 3, H, W) to the network's output, a dict of losses, or filled samples."""
        if mode == "loss":
            return self.loss(inputs, data_samples or [])
        return self.predict(inputs, data_samples or []) if mode == "predict" else self.network(inputs)

    @abstractmethod
    def loss(self, images: Tensor, samples: list[WeakSample]) -> dict[str, Tensor]:
        """The parts of the loss, from what the samples are labelled with."""

    @abstractmethod
    def predict(self, images: Tensor, samples: list[WeakSample]) -> list[WeakSample]:
        """The samples with what was found."""
