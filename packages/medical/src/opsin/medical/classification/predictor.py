"""Classes of medical pictures and volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray

from opsin.classification.predictor import ClassificationPredictor
from opsin.medical.takes_volumes import TakesVolumes, holds_volume

SHORTEST = 160  # pixels that a drawn slice has on its shorter side


class MedicalClassificationPredictor(TakesVolumes, ClassificationPredictor):
    """As `ClassificationPredictor`; of a volume the slice in the middle of its second axis is drawn."""

    def infer(self, image: NDArray[np.uint8], path: Path) -> BaseDataElement:
        """Scores and label; for a picture also where the model looked."""
        if not holds_volume(path):
            return super().infer(image, path)
        batch = self.batch(image, path)
        with torch.inference_mode():
            result: BaseDataElement = self.model.test_step(batch)[0]
        result.middle = _drawn(batch["inputs"][0][0].numpy())
        return result

    def picture(self, result: Any, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture, or the slice of a volume, and the five likeliest classes as bars."""
        return super().picture(result, result.get("middle", image))


def _drawn(volume: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The slice (A, C) in the middle of a volume (A, B, C) as RGB, upright."""
    cut = np.ascontiguousarray(volume[:, volume.shape[1] // 2].T[::-1])
    grey = cv2.normalize(cut, np.empty_like(cut), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    scale = max(1, -(-SHORTEST // min(grey.shape)))
    return np.repeat(grey.repeat(scale, 0).repeat(scale, 1)[..., None], 3, -1)
