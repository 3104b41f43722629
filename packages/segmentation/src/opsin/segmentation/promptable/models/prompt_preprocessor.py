"""Pictures padded to the size that a prompt encoder knows, and prompts for those that bring masks alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.model import ImgDataPreprocessor

from opsin.core.errors import UserError, unknown
from opsin.registry import MODELS
from opsin.segmentation.promptable.models.prompt_sampling import (
    Mode,
    PromptSampler,
    box_prompts,
    central_point_prompts,
)

MEASURED = {"boxes": box_prompts, "points": central_point_prompts}
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


@MODELS.register_module()
class PromptPreprocessor(ImgDataPreprocessor):
    """Normalises pictures, pads them below and on the right, and makes prompts of masks.

    In training they are drawn anew for each batch. For evaluation they follow from the mask: its box, or its
    place farthest from the border. A sample that brings prompts keeps them.

    Args:
        image_size: side of the padded picture.
        mode: how prompts are drawn in training, see `PromptSampler`.
        most_masks: of a picture in training.
        measured_with: `boxes` or `points`, for evaluation.
        mean: of R, G and B.
        std: of R, G and B.

    Raises:
        UserError: for an unknown mode, and for a picture larger than `image_size`.
    """

    def __init__(
        self,
        *,
        image_size: int = 1024,
        mode: Mode = "mixed",
        most_masks: int = 60,
        measured_with: Literal["boxes", "points"] = "boxes",
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ) -> None:
        super().__init__(mean=mean, std=std)
        if measured_with not in MEASURED:
            raise unknown("kind of prompt", measured_with, MEASURED)
        self.image_size = image_size
        self.sampler = PromptSampler(mode, most_masks)
        self.measured_with = measured_with

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """A collated batch to `inputs` (N, 3, S, S) and `data_samples` with their prompts."""
        data = self.cast_data(data)
        inputs = torch.stack([self._padded(image) for image in data["inputs"]])
        samples = data["data_samples"]
        if training:
            drawn = self.sampler.draw([s.gt_masks for s in samples], [s.gt_things for s in samples])
            for sample, asked in zip(samples, drawn, strict=True):
                sample.asked = asked
        else:
            for sample in samples:
                if "prompts" not in sample and "gt_masks" in sample:
                    sample.prompts = MEASURED[self.measured_with](sample.gt_masks)
        return {"inputs": inputs, "data_samples": samples}

    def _padded(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[1:]
        if max(height, width) > self.image_size:
            raise UserError(
                f"a picture of {width}x{height} is larger than image_size={self.image_size}",
                "resize it in the pipeline by LongestMaxSize",
            )
        normed = (image.float() - self.mean) / self.std
        return F.pad(normed, (0, self.image_size - width, 0, self.image_size - height))
