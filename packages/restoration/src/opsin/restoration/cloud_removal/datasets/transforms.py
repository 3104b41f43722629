"""Transforms on places: `img` is all dates behind one another (H, W, T·C), `gt_img` the truth (H, W, C').

So the transforms of pairs serve here too, with `scale` 1: `opsin.RandomCropPair`, `opsin.RandomSymmetry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS
from opsin.restoration.cloud_removal.datasets.sample import CloudRemovalSample
from opsin.restoration.cloud_removal.raster import read_bands

Results = dict[str, Any]


def read_dates(paths: Sequence[Path], infrared: Sequence[Path] = ()) -> NDArray[Any]:
    """The dates of a place (T, H, W, C), uint8 or uint16; near infrared files add their first band.

    Raises:
        UserError: if a file can't be read, or differs from the first in size, bands or depth (names it).
    """
    dates = [read_bands(path) for path in paths]
    if infrared:
        extra = [read_bands(path)[..., :1] for path in infrared]
        for path, band in zip(infrared, extra, strict=True):
            _require_alike(path, band, paths[0], dates[0][..., :1])
        dates = [np.concatenate(pair, axis=2) for pair in zip(dates, extra, strict=True)]
    for path, date in zip(paths[1:], dates[1:], strict=True):
        _require_alike(path, date, paths[0], dates[0])
    return np.stack(dates)


def _require_alike(path: Path, pixels: NDArray[Any], first: Path, expected: NDArray[Any]) -> None:
    if pixels.shape != expected.shape or pixels.dtype != expected.dtype:
        raise UserError(
            f"{path} is {_described(pixels)}, and {first} is {_described(expected)}",
            "the pictures of a place have one size, one number of bands and one depth",
        )


def _described(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]} with {pixels.shape[2]} bands of {pixels.dtype}"


@TRANSFORMS.register_module()
class LoadPlace(BaseTransform):
    """Reads `date_paths`, with `ir_paths`, into `img`, and `gt_path` into `gt_img`.

    Raises:
        UserError: if a file can't be read or does not fit the others; the message names it.
    """

    def transform(self, results: Results) -> Results:
        """Adds the pictures, and `scale` 1."""
        dates = read_dates([Path(p) for p in results["date_paths"]], [Path(p) for p in results["ir_paths"]])
        gt_img = read_bands(Path(results["gt_path"]))
        if gt_img.shape[:2] != dates.shape[1:3]:
            height, width = dates.shape[1:3]
            raise UserError(
                f"{results['gt_path']} is {_described(gt_img)}, and its dates are {width}x{height}"
            )
        img = np.concatenate(list(dates), axis=2)
        return results | dict(img=img, gt_img=gt_img, bands=dates.shape[3], scale=1)


@TRANSFORMS.register_module()
class ResizePlace(BaseTransform):
    """Resizes all pictures of a place to a square (OpenCV, bicubic), as published for Sen2_MTC_Old.

    Args:
        size: side in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def transform(self, results: Results) -> Results:
        """Resizes `img` and `gt_img`."""
        return results | {key: self._resized(results[key]) for key in ("img", "gt_img")}

    def _resized(self, pixels: NDArray[Any]) -> NDArray[Any]:
        bands = [
            cv2.resize(pixels[..., band], (self.size, self.size), interpolation=cv2.INTER_CUBIC)
            for band in range(pixels.shape[2])
        ]
        return np.stack(bands, axis=2)


@TRANSFORMS.register_module()
class RandomFlipPlace(BaseTransform):
    """Mirrors all pictures of a place left to right, every second time."""

    def transform(self, results: Results) -> Results:
        """Mirrors `img` and `gt_img`."""
        if np.random.randint(2):
            return results | {key: results[key][:, ::-1] for key in ("img", "gt_img")}
        return results


@TRANSFORMS.register_module()
class PackPlace(BaseTransform):
    """Makes the model's input: `inputs` (T, C, H, W) in the stored type, and a `CloudRemovalSample`."""

    def transform(self, results: Results) -> Results:
        """Packs `img` and `gt_img`."""
        paths = {key: results[key] for key in ("img_path", "gt_path")}
        sample = CloudRemovalSample(metainfo=paths)
        sample.gt_img = _to_tensor(results["gt_img"])
        dates = _to_tensor(results["img"])
        return dict(inputs=dates.unflatten(0, (-1, results["bands"])), data_samples=sample)


def _to_tensor(pixels: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
