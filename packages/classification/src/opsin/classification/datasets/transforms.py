"""The ends of the classification pipeline: the crop that is evaluated, and packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import BaseDataElement
from PIL import Image

from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class EvaluationCrop(BaseTransform):
    """The picture that published accuracies are measured on: short side resized, square cut from the middle.

    The short side becomes int(size / crop_ratio). Pillow's bicubic filter resizes, as in the authors' code:
    it averages over what a smaller picture leaves out, while OpenCV's (and so albumentations') skips pixels,
    which changes the accuracy.

    Args:
        size: side of the square, in pixels.
        crop_ratio: `size` over the short side before the cut, in (0, 1]; None warps the whole picture to the
            square instead (ConvNeXt from 384 pixels on).

    Raises:
        UserError: at construction, for a ratio outside (0, 1].
    """

    def __init__(self, size: int, crop_ratio: float | None = 0.875) -> None:
        if crop_ratio is not None and not 0 < crop_ratio <= 1:
            raise UserError(f"crop_ratio={crop_ratio} of EvaluationCrop", "give a number in (0, 1], or None")
        self.size = size
        self.short_side = None if crop_ratio is None else int(size / crop_ratio)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces `img` by its (size, size, 3) crop."""
        image = Image.fromarray(results["img"])
        if self.short_side is None:
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        else:
            image = self._resize_short_side(image, self.short_side)
            left, top = round((image.width - self.size) / 2), round((image.height - self.size) / 2)
            image = image.crop((left, top, left + self.size, top + self.size))
        results["img"] = np.asarray(image)
        results["img_shape"] = (self.size, self.size)
        return results

    @staticmethod
    def _resize_short_side(image: Image.Image, short_side: int) -> Image.Image:
        shorter = min(image.size)
        width, height = (int(short_side * side / shorter) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)


@TRANSFORMS.register_module()
class PackClassification(BaseTransform):
    """Makes of `img` the tensor `inputs` (3, H, W) uint8, and of the rest the `data_samples`.

    The data sample has `gt_label` (an integer tensor without dimensions) if the label is known, and
    `img_path`, `ori_shape` and `img_shape` as meta information.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs one sample."""
        image = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        meta = {key: results[key] for key in ("img_path", "ori_shape", "img_shape") if key in results}
        sample = BaseDataElement(metainfo=meta)
        if "gt_label" in results:
            sample.gt_label = torch.tensor(results["gt_label"])
        return {"inputs": torch.from_numpy(image), "data_samples": sample}
