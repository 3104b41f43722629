"""Training and applying a localiser: classes and boxes from image labels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from torch import Tensor

from opsin.core.errors import UserError
from opsin.registry import MODELS
from opsin.segmentation.weakly_supervised.datasets.sample import WeakSample
from opsin.segmentation.weakly_supervised.models.map_to_box import enlarged, largest_box, normalized
from opsin.segmentation.weakly_supervised.models.weak_model import WeakModel

Config = dict[str, Any]


@MODELS.register_module()
class WeakLocalization(WeakModel):
    """A BAS network with its loss, and the box of its map.

    Args:
        network: config, `dict(type='opsin.BASResNet', …)`.
        guidance_weight: alpha, factor of the cross entropy under the foreground map.
        area_weight: beta, factor of the map's mean.
        top_k: of how many best classes maps are averaged. With 1, what is measured is the map of the label
            that the data give, as the authors do; a prediction for a person takes the best class.
        threshold: what of the stretched map belongs to the object.
        classify_first: iterations with the loss of the classes alone, for a training from scratch: while no
            class is told apart, nothing holds a map up against its area.
        data_preprocessor, init_cfg: see mmengine's `BaseModel`.
    """

    def __init__(
        self,
        network: Config,
        *,
        guidance_weight: float = 0.5,
        area_weight: float = 1.5,
        top_k: int = 1,
        threshold: float = 0.1,
        classify_first: int = 0,
        data_preprocessor: Config | None = None,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.network = MODELS.build(network)
        self.guidance_weight, self.area_weight = guidance_weight, area_weight
        self.top_k, self.threshold, self.classify_first = top_k, threshold, classify_first

    def loss(self, images: Tensor, samples: list[WeakSample]) -> dict[str, Tensor]:
        """The four parts of the loss.

        Raises:
            UserError: for a label that the network lacks.
        """
        labels = torch.cat([sample.gt_label for sample in samples]).to(images.device)
        check_labels(labels, self.network.num_classes)
        found = self.network.suppress(images, labels)
        iteration = MessageHub.get_current_instance().get_info("iter", 0)
        begun = float(iteration >= self.classify_first)
        guidance = F.cross_entropy(found.foreground_scores, labels)
        return {
            "loss_class": F.cross_entropy(found.scores, labels),
            "loss_guidance": begun * self.guidance_weight * guidance,
            "loss_background": begun * found.ratio.mean(),
            "loss_area": begun * self.area_weight * found.area.mean(),
        }

    def predict(self, images: Tensor, samples: list[WeakSample]) -> list[WeakSample]:
        """The samples with `pred_scores` (they sum to one), `pred_map` and `pred_box`."""
        known = [sample.gt_label for sample in samples if "gt_label" in sample]
        labels = torch.cat(known).to(images.device) if len(known) == len(samples) else None
        scores, maps = self.network.localize(images, self.top_k, labels)
        size = (images.shape[2], images.shape[3])
        for sample, score, heat in zip(samples, scores.softmax(1), maps[:, 0].float().cpu(), strict=True):
            stretched = enlarged(normalized(heat.numpy()), size)
            sample.pred_scores, sample.pred_map = score, torch.from_numpy(stretched)
            sample.pred_box = torch.from_numpy(largest_box(stretched, self.threshold))
        return samples


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raises `UserError` for a label outside 0 … `num_classes` - 1."""
    bad = labels[(labels < 0) | (labels >= num_classes)]
    if len(bad):
        raise UserError(f"label {int(bad[0])} with {num_classes} classes", "set num_classes to the data's")
