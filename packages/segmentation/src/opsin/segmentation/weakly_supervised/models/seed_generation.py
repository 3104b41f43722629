"""Training a seed network and cutting seeds: masks of the classes that a picture is known to have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from torch import Tensor

from opsin.registry import MODELS
from opsin.segmentation.weakly_supervised.datasets.sample import WeakSample
from opsin.segmentation.weakly_supervised.models.bas.seeder import present_against_absent
from opsin.segmentation.weakly_supervised.models.weak_model import WeakModel

Config = dict[str, Any]

EPSILON = 1e-5
SCALES = (1.0, 0.5, 1.5, 2.0)
NEAR_BEST = 0.5


@MODELS.register_module()
class SeedGeneration(WeakModel):
    """A seed network with its loss, and the seeds of its maps.

    Args:
        network: config, `dict(type='opsin.BASSeeder', …)`.
        cam_network: config of a trained network whose class activation maps are added, as published; None:
            the foreground maps alone.
        guidance_weight: factor of the cross entropy under the foreground map.
        area_weight: factor of the map's mean.
        scales: factors of the picture's size that maps are summed over.
        background: a place whose best class has less than this, of 1, is background.
        data_preprocessor, init_cfg: see mmengine's `BaseModel`.
    """

    def __init__(
        self,
        network: Config,
        cam_network: Config | None = None,
        *,
        guidance_weight: float = 0.2,
        area_weight: float = 1.2,
        scales: Sequence[float] = SCALES,
        background: float = 0.3,
        data_preprocessor: Config | None = None,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.network = MODELS.build(network)
        self.cam_network = MODELS.build(cam_network) if cam_network else None
        if self.cam_network is not None:
            self.cam_network.requires_grad_(False)
        self.guidance_weight, self.area_weight = guidance_weight, area_weight
        self.scales, self.background = tuple(scales), background

    def loss(self, images: Tensor, samples: list[WeakSample]) -> dict[str, Tensor]:
        """The four parts of the loss, for one class of each image that is drawn from those it has."""
        present = torch.stack([sample.gt_labels for sample in samples]).to(images.device)
        labels = torch.multinomial(present, 1)[:, 0]
        found = self.network.suppress(images, labels)
        return {
            "loss_class": present_against_absent(found.scores, present),
            "loss_guidance": self.guidance_weight * F.cross_entropy(found.foreground_scores, labels),
            "loss_background": found.ratio.mean(),
            "loss_area": self.area_weight * found.area.mean(),
        }

    def predict(self, images: Tensor, samples: list[WeakSample]) -> list[WeakSample]:
        """The samples with `pred_scores`, and of the original size `seed_maps` and the seed `pred_sem_seg`.

        A picture without `gt_labels` is taken to have its best class, and those at least half as probable.
        """
        scores = self.network(images).softmax(1)
        for sample, image, score in zip(samples, images, scores, strict=True):
            present = sample.gt_labels.bool() if "gt_labels" in sample else score >= NEAR_BEST * score.max()
            seeds = self.seed_maps(image, present.to(image.device), tuple(sample.ori_shape[:2]))
            background = torch.full_like(seeds[:1], self.background)
            labels = torch.cat((background, seeds)).argmax(0, keepdim=True)
            sample.pred_scores, sample.seed_maps, sample.pred_sem_seg = score, seeds, PixelData(data=labels)
        return samples

    def seed_maps(self, image: Tensor, present: Tensor, size: tuple[int, int]) -> Tensor:
        """One image (3, H, W) to maps (K, *size) whose greatest value is almost 1; absent classes have 0."""
        maps = self._summed(self.network.class_foregrounds, image, size)
        if self.cam_network is not None:
            maps = _stretched(maps + self._summed(self.cam_network.class_activations, image, size))
        return maps * present[:, None, None]

    def _summed(self, of: Callable[[Tensor], Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
        """The maps that `of` gives of the image at all scales, resized, added and stretched."""
        total = image.new_zeros(self.network.num_classes, *size)
        for scale in self.scales:
            sides = [max(1, round(side * scale)) for side in image.shape[1:]]
            scaled = F.interpolate(image[None], sides, mode="bilinear", align_corners=False)[0]
            total += F.interpolate(of(scaled)[None], size, mode="bilinear", align_corners=False)[0]
        return _stretched(total)


def _stretched(maps: Tensor) -> Tensor:
    """Maps (K, H, W), each divided by its greatest value."""
    return maps / (maps.amax((1, 2), keepdim=True) + EPSILON)
