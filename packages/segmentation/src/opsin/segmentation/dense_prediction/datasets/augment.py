"""Geometric augmentation of a picture and of the depth, normals and classes that belong to it.

Geometry changes values too: a picture enlarged s times looks as if taken from s times as near, and a mirror
turns normals round. Randomness comes from numpy's global generator, which the engine seeds for each sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.registry import TRANSFORMS

Results = dict[str, Any]
Array = NDArray[Any]

UNKNOWN = {"img": 0, "gt_depth": 0, "gt_normals": 0, "gt_seg_map": 255}
"""What lies outside the picture, for everything that has the picture's size."""


def _change(results: Results, change: Callable[[str, Array], Array]) -> Results:
    for key in UNKNOWN:
        if key in results:
            results[key] = change(key, results[key])
    results["img_shape"] = results["img"].shape[:2]
    return results


@TRANSFORMS.register_module()
class RandomScaleDense(BaseTransform):
    """Resizes by a random factor; depth is divided by it, normals stay.

    Args:
        low: the least factor.
        high: the greatest.
    """

    def __init__(self, low: float = 0.5, high: float = 2.0) -> None:
        self.low, self.high = low, high

    def transform(self, results: Results) -> Results:
        """Resizes `results` in place."""
        factor = float(np.random.uniform(self.low, self.high))
        height, width = (max(1, round(side * factor)) for side in results["img"].shape[:2])

        def resized(key: str, values: Array) -> Array:
            how = cv2.INTER_LINEAR if key == "img" else cv2.INTER_NEAREST  # unknown must not be mixed in
            return cv2.resize(values, (width, height), interpolation=how)

        _change(results, resized)
        if "gt_depth" in results:
            results["gt_depth"] = results["gt_depth"] / np.float32(factor)
        return results


@TRANSFORMS.register_module()
class RandomCropDense(BaseTransform):
    """Cuts out a random place; what is smaller is padded with nothing on the right and below.

    Args:
        size: height and width.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.height, self.width = size

    def transform(self, results: Results) -> Results:
        """Crops `results` in place."""
        height, width = results["img"].shape[:2]
        top = int(np.random.randint(max(0, height - self.height) + 1))
        left = int(np.random.randint(max(0, width - self.width) + 1))

        def cropped(key: str, values: Array) -> Array:
            part = values[top : top + self.height, left : left + self.width]
            missing = [(0, self.height - part.shape[0]), (0, self.width - part.shape[1])]
            missing += [(0, 0)] * (part.ndim - 2)
            return np.pad(part, missing, constant_values=UNKNOWN[key])

        return _change(results, cropped)


@TRANSFORMS.register_module()
class RandomFlipDense(BaseTransform):
    """Mirrors left and right; the normals' x changes its sign.

    Args:
        p: probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def transform(self, results: Results) -> Results:
        """Mirrors `results` in place."""
        if np.random.random() >= self.p:
            return results
        _change(results, lambda key, values: values[:, ::-1].copy())
        if "gt_normals" in results:
            results["gt_normals"][..., 0] *= -1
        return results
