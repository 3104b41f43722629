"""Transforms on pairs: `img` is the LR picture (H, W, 3), `gt_img` the HR picture, `scale` times as large."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import albumentations
import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.data.image import read_image
from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS
from opsin.restoration.datasets.sample import SuperResolutionSample
from opsin.restoration.degradation import Border, bicubic, crop_to_multiple

Results = dict[str, Any]


@TRANSFORMS.register_module()
class LoadPair(BaseTransform):
    """Reads `img_path` and `gt_path` into `img` and `gt_img`, RGB uint8.

    Raises:
        UserError: if a file cannot be read, or the sizes do not belong together; the message names the file.
    """

    def transform(self, results: Results) -> Results:
        """Adds both pictures."""
        img, gt_img = read_image(results["img_path"]), read_image(results["gt_path"])
        scale = results["scale"]
        height, width = (side * scale for side in img.shape[:2])
        if not (0 <= gt_img.shape[0] - height < scale and 0 <= gt_img.shape[1] - width < scale):
            raise UserError(
                f"{results['img_path']} is {img.shape[1]}x{img.shape[0]}, which is not 1/{scale} of "
                f"{results['gt_path']} ({gt_img.shape[1]}x{gt_img.shape[0]})"
            )
        return results | dict(img=img, gt_img=gt_img[:height, :width])


@TRANSFORMS.register_module()
class LoadHighResolution(BaseTransform):
    """Reads `gt_path` into `gt_img` and reduces it to `img` by the field's bicubic.

    The whole picture is reduced, so that crops are equal to those of pairs made beforehand.

    Args:
        border: as in `opsin.restoration.degradation.bicubic`.
        min_size: pictures with a shorter side are enlarged to it first (OpenCV, bilinear), as published for
            ImageNet; give `scale` times the patch.
        cache: how many pictures to keep in memory (per worker) with their reductions.

    Raises:
        UserError: if the file cannot be read, or is smaller than one pixel after the reduction.
    """

    def __init__(self, border: Border = "symmetric", min_size: int = 0, cache: int = 0) -> None:
        self.border = border
        self.min_size = min_size
        self._pair = lru_cache(maxsize=cache)(self._read)

    def _read(self, path: str, scale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        gt_img = crop_to_multiple(self._enlarged(read_image(path)), scale)
        if not gt_img.size:
            raise UserError(f"{path} is smaller than {scale}x{scale}")
        return bicubic(gt_img, 1 / scale, self.border), gt_img

    def _enlarged(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if min(height, width) >= self.min_size:
            return image
        size = max(width, self.min_size), max(height, self.min_size)
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)

    def transform(self, results: Results) -> Results:
        """Adds both pictures."""
        img, gt_img = self._pair(results["gt_path"], results["scale"])
        return results | dict(img=img, gt_img=gt_img)


@TRANSFORMS.register_module()
class RandomCropPair(BaseTransform):
    """Cuts the same random square out of both pictures, and out of `sharp_img` where there is one.

    Args:
        size: side in LR pixels; the HR square is `scale` times as large.

    Raises:
        UserError: if the LR picture is smaller; the message names the file.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def transform(self, results: Results) -> Results:
        """Crops the pictures."""
        img, scale, size = results["img"], results["scale"], self.size
        height, width = img.shape[:2]
        if min(height, width) < size:
            raise UserError(
                f"{results['img_path']} gives {width}x{height} LR pixels, less than a patch of {size}"
            )
        top, left = np.random.randint(height - size + 1), np.random.randint(width - size + 1)
        large = slice(top * scale, (top + size) * scale), slice(left * scale, (left + size) * scale)
        cropped = {key: results[key][large] for key in ("gt_img", "sharp_img") if key in results}
        return results | cropped | dict(img=img[top : top + size, left : left + size])


@TRANSFORMS.register_module()
class RandomSymmetry(BaseTransform):
    """Flips and quarter turns: one of the eight symmetries of a square, the same for both pictures."""

    def __init__(self) -> None:
        self.compose = albumentations.Compose(
            [albumentations.D4(p=1)], additional_targets={"gt_img": "image"}, is_check_shapes=False
        )

    def transform(self, results: Results) -> Results:
        """Turns `img` and `gt_img`."""
        seed = int(np.random.randint(2**31))
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        turned = self.compose(image=results["img"], gt_img=results["gt_img"])
        return results | dict(img=turned["image"], gt_img=turned["gt_img"])


@TRANSFORMS.register_module()
class PackPair(BaseTransform):
    """Makes the model's input: `inputs` (3, H, W) in the picture's type, and a `SuperResolutionSample`."""

    def transform(self, results: Results) -> Results:
        """Packs `img`, and `gt_img` and `sharp_img` if there are any."""
        paths = {key: results[key] for key in ("img_path", "gt_path") if key in results}
        sample = SuperResolutionSample(metainfo=paths)
        sample.set_data({k: _to_tensor(results[k]) for k in ("gt_img", "sharp_img") if k in results})
        return dict(inputs=_to_tensor(results["img"]), data_samples=sample)


def _to_tensor(image: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
