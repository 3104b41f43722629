"""Training IRN on confident seeds, and pseudo masks: seeds that a random walk has spread up to boundaries."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from torch import Tensor

from opsin.core.errors import UserError
from opsin.registry import MODELS
from opsin.segmentation.weakly_supervised.datasets.sample import WeakSample
from opsin.segmentation.weakly_supervised.models.bas.seeder import flipped_sum, mirrored
from opsin.segmentation.weakly_supervised.models.irn import STRIDE, random_walk, relation_losses
from opsin.segmentation.weakly_supervised.models.weak_model import WeakModel

Config = dict[str, Any]


@MODELS.register_module()
class SeedRefinement(WeakModel):
    """A network of inter-pixel relations with its losses, and the pseudo masks of its boundaries.

    Args:
        network: config, `dict(type='opsin.IRN', …)`.
        num_classes: K, without background.
        radius: of the pairs in training, in cells of 4 pixels.
        walk_radius: how far a step of the walk goes, in cells.
        fill_to: side of the square that images are filled up to, on the right and below, before boundaries
            are looked for, as in training: group norms average over the fill too. 0 leaves them as they are.
        beta: power of the affinities: the greater, the harder boundaries are to pass.
        steps: of the walk; 2 to the power of the authors' `exp_times`.
        background: where the best class has less than this, of the picture's greatest value, is background.
        data_preprocessor, init_cfg: see mmengine's `BaseModel`.
    """

    def __init__(
        self,
        network: Config,
        num_classes: int,
        *,
        radius: int = 10,
        walk_radius: int = 5,
        fill_to: int = 0,
        beta: float = 10.0,
        steps: int = 256,
        background: float = 0.25,
        data_preprocessor: Config | None = None,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.network, self.num_classes = MODELS.build(network), num_classes
        self.radius, self.walk_radius, self.beta, self.steps = radius, walk_radius, beta, steps
        self.fill_to, self.background = fill_to, background

    def loss(self, images: Tensor, samples: list[WeakSample]) -> dict[str, Tensor]:
        """The four losses of pairs, from the confident labels in `gt_sem_seg`."""
        boundary, displacement = self.network(images)
        labels = torch.stack([sample.gt_sem_seg.data for sample in samples]).to(images.device)
        coarse = F.interpolate(labels.float(), boundary.shape[2:], mode="nearest-exact")[:, 0].long()
        return relation_losses(boundary[:, 0].float().sigmoid(), displacement.float(), coarse, self.radius)

    def predict(self, images: Tensor, samples: list[WeakSample]) -> list[WeakSample]:
        """The samples with `pred_map`, the boundaries (h, w), and the pseudo mask `pred_sem_seg`.

        The mask is of the original size.

        Raises:
            UserError: for a picture without seeds.
        """
        for sample, image in zip(samples, images, strict=True):
            if "seed_maps" not in sample:
                raise UserError(
                    f"{sample.get('img_path')} has no seeds", "add opsin.FindSeeds to the pipeline"
                )
            seeds = sample.seed_maps.to(image.device)
            if "gt_labels" in sample:
                seeds = seeds * sample.gt_labels.to(image.device)[:, None, None]
            boundary = self.boundaries(image)
            maps = self.spread(seeds, boundary, tuple(sample.ori_shape[:2]))
            labels = torch.cat((torch.full_like(maps[:1], self.background), maps)).argmax(0, keepdim=True)
            sample.pred_map, sample.pred_sem_seg = boundary.cpu(), PixelData(data=labels)
        return samples

    def boundaries(self, image: Tensor) -> Tensor:
        """One image (3, H, W) to its boundaries in 0 … 1, (h, w): those of the image and its mirror."""
        sides = image.shape[1:]
        missing = [max(0, self.fill_to - side) for side in sides]
        filled = F.pad(mirrored(image), (0, missing[1], 0, missing[0]))
        height, width = (-(-side // STRIDE) for side in sides)
        logits: Tensor = self.network(filled)[0][..., :height, :width]
        return (flipped_sum(logits)[0].float() / 2).sigmoid()

    def spread(self, seeds: Tensor, boundary: Tensor, size: tuple[int, int]) -> Tensor:
        """Seeds (K, h', w') to maps (K, *size), of which the greatest value of all is 1."""
        maps = seeds.new_zeros(self.num_classes, *boundary.shape)
        present = seeds.amax((1, 2)) > 0
        if not present.any():
            return F.interpolate(maps[None], size)[0]
        resized = _resized(seeds[present], (boundary.shape[0], boundary.shape[1]))
        maps[present] = random_walk(resized, boundary, self.walk_radius, self.beta, self.steps)
        enlarged = _resized(maps, size)
        return enlarged / enlarged.max()


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
