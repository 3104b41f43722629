"""Transforms on a picture `img` (H, W, 3) and its regions `gt_seg_map` (H, W), numbered from 0."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.data.image import read_image
from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS
from opsin.restoration.compression.datasets.sample import CompressionSample

Results = dict[str, Any]
COLOUR_BITS = 16  # a channel, so that masks of 16-bit grey keep all their regions


def numbered(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Region numbers from 0 without gaps, in the order of the labels (H, W)."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


@TRANSFORMS.register_module()
class LoadRegions(BaseTransform):
    """Reads `mask_path` into `gt_seg_map`, int32 region numbers (H, W); nothing where there is no mask.

    Raises:
        UserError: if the file cannot be read, or is not of the picture's size; the message names it.
    """

    def transform(self, results: Results) -> Results:
        """Adds the regions."""
        if "mask_path" not in results:
            return results
        colours = read_image(results["mask_path"], dtype=np.uint16).astype(np.int64)
        if colours.shape[:2] != results["img"].shape[:2]:
            (height, width), (rows, columns) = results["img"].shape[:2], colours.shape[:2]
            raise UserError(
                f"mask {results['mask_path']} is {columns}x{rows} pixels, its picture {width}x{height}"
            )
        red, green, blue = np.moveaxis(colours, -1, 0)
        label = (red << 2 * COLOUR_BITS) | (green << COLOUR_BITS) | blue
        return results | dict(gt_seg_map=numbered(label))


@TRANSFORMS.register_module()
class StretchShortSides(BaseTransform):
    """Stretches each side shorter than `size` to `size`, that side alone (Lanczos; regions: nearest)."""

    def __init__(self, size: int = 256) -> None:
        self.size = size

    def transform(self, results: Results) -> Results:
        """Enlarges `img`, and `gt_seg_map` if there is one."""
        height, width = results["img"].shape[:2]
        if min(height, width) >= self.size:
            return results
        size = (max(width, self.size), max(height, self.size))
        stretched = dict(img=cv2.resize(results["img"], size, interpolation=cv2.INTER_LANCZOS4))
        if "gt_seg_map" in results:
            stretched["gt_seg_map"] = cv2.resize(results["gt_seg_map"], size, interpolation=cv2.INTER_NEAREST)
        return results | stretched | dict(img_shape=stretched["img"].shape[:2])


@TRANSFORMS.register_module()
class PackCompression(BaseTransform):
    """Makes the model's input: `inputs` uint8 (3, H, W), and a `CompressionSample` with what is known.

    Regions are numbered anew, as a crop may have lost some.
    """

    def transform(self, results: Results) -> Results:
        """Packs picture and regions."""
        paths = {key: results[key] for key in ("img_path", "mask_path") if key in results}
        image = torch.from_numpy(np.ascontiguousarray(results["img"].transpose(2, 0, 1)))
        sample = CompressionSample(metainfo=paths, gt_img=image)
        if "gt_seg_map" in results:
            sample.regions = torch.from_numpy(numbered(results["gt_seg_map"])).long()
        return dict(inputs=image, data_samples=sample)
