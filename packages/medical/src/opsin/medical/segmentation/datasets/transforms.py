"""Transforms of `img` (C, H, W) or (C, D, H, W) and `gt_label` without C: MONAI's, and published ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import monai.transforms
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from monai.data import set_track_meta
from scipy import ndimage

from opsin.core.errors import UserError, unknown
from opsin.medical.segmentation.datasets.dataset import Array, Results
from opsin.medical.segmentation.datasets.sample import SegmentationSample
from opsin.registry import TRANSFORMS

set_track_meta(False)  # the place in the patient is the volume's own business; pipelines pass plain tensors

KEYS = ("img", "gt_label")


@TRANSFORMS.register_module()
class MonaiTransforms(BaseTransform):
    """Runs MONAI's dictionary transforms on the picture and its labels.

    The labels have a channel dimension while they run. Randomness comes from numpy's global generator, so
    that the engine can make it a function of seed, epoch and sample.

    Args:
        transforms: MONAI's classes by name, `dict(type='RandFlipd', prob=0.5, spatial_axis=1)`; `keys` are
            `('img', 'gt_label')` unless given, and labels may be absent.

    Raises:
        UserError: at construction, for an unknown transform or wrong arguments.
    """

    def __init__(self, transforms: Sequence[Results]) -> None:
        self.compose = monai.transforms.Compose([_build(spec) for spec in transforms])

    def transform(self, results: Results) -> Results:
        """Transforms `results`."""
        self.compose.set_random_state(seed=int(np.random.randint(2**31)))
        arrays = {"img": torch.as_tensor(results["img"])}
        if "gt_label" in results:
            arrays["gt_label"] = torch.as_tensor(results["gt_label"])[None]
        out = {key: np.asarray(value) for key, value in self.compose(arrays).items()}
        if "gt_label" in out:
            kind = np.asarray(results["gt_label"]).dtype
            out["gt_label"] = out["gt_label"][0].astype(kind)
        return results | out


def _build(spec: Results) -> Any:
    arguments = {"keys": KEYS, "allow_missing_keys": True, **spec}
    name = arguments.pop("type")
    known = {n: c for n, c in vars(monai.transforms).items() if n.endswith("d") and isinstance(c, type)}
    if name not in known:
        raise unknown("MONAI transform", name, known)
    try:
        return known[name](**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"MONAI transform {name}: {error}") from None


@TRANSFORMS.register_module()
class StretchIntensity(BaseTransform):
    """A picture's least to most as 0 to 255; a constant picture becomes 0.

    It is what ISIC's published normalisation amounts to: that subtracts the data set's mean and divides by
    its standard deviation first, which the stretch undoes.
    """

    def transform(self, results: Results) -> Results:
        """Stretches `img`."""
        img = results["img"]
        low, high = float(img.min()), float(img.max())
        stretched = (img - low) / (high - low) * 255 if high > low else np.zeros_like(img)
        return results | dict(img=stretched.astype(np.float32))


@TRANSFORMS.register_module()
class OneAngleRotation(BaseTransform):
    """Rotates by one angle, which is drawn when the transform is built, as the authors of MHS-VM do.

    What comes in from outside is 0; sizes stay; picture and mask are interpolated linearly.

    Args:
        prob: chance of rotating.
        degrees: the angle is drawn from 0 to this.
    """

    def __init__(self, prob: float = 0.5, degrees: float = 360.0) -> None:
        self.prob = prob
        self.angle = float(np.random.uniform(0, degrees))

    def transform(self, results: Results) -> Results:
        """Rotates `img` and `gt_label`, or leaves both."""
        if np.random.rand() >= self.prob:
            return results
        turned = {
            key: ndimage.rotate(results[key], self.angle, axes=(-2, -1), reshape=False, order=1)
            for key in KEYS
            if key in results
        }
        return results | turned


@TRANSFORMS.register_module()
class RandomTurnOrRotation(BaseTransform):
    """Synapse's augmentation: with 0.5 quarter turns and a flip, else with 0.5 a turn by -20 to 19 degrees.

    The rotation takes the nearest value, of the slice too.
    """

    def transform(self, results: Results) -> Results:
        """Moves `img` and `gt_label` alike."""
        if np.random.rand() < 0.5:
            turns, axis = int(np.random.randint(4)), int(np.random.randint(2)) - 2
            return results | {
                key: np.flip(np.rot90(results[key], turns, axes=(-2, -1)), axis).copy() for key in KEYS
            }
        if np.random.rand() < 0.5:
            angle = int(np.random.randint(-20, 20))
            return results | {
                key: ndimage.rotate(results[key], angle, axes=(-2, -1), reshape=False, order=0)
                for key in KEYS
            }
        return results


@TRANSFORMS.register_module()
class ZoomSlice(BaseTransform):
    """Resizes a slice by splines of order 3 and its labels by the nearest value.

    Args:
        size: height and width.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = tuple(size)

    def transform(self, results: Results) -> Results:
        """Resizes `img` (C, H, W) and `gt_label` (H, W)."""
        zoomed = {"img": np.stack([zoom(channel, self.size, order=3) for channel in results["img"]])}
        if "gt_label" in results:
            zoomed["gt_label"] = zoom(results["gt_label"], self.size, order=0)
        return results | zoomed


def zoom(values: Array, size: Sequence[int], order: int) -> Array:
    """An array at another size, corner voxels kept at the corners, by splines of `order`."""
    if values.shape == tuple(size):
        return values
    factors = [new / old for new, old in zip(size, values.shape, strict=True)]
    return np.asarray(ndimage.zoom(values, factors, order=order))


@TRANSFORMS.register_module()
class RandomAxialSlice(BaseTransform):
    """One axial slice of a volume: (C, D, H, W) to (C, H, W).

    Args:
        labelled: chance of choosing among the slices that have labels.
    """

    def __init__(self, labelled: float = 0.8) -> None:
        self.labelled = labelled

    def transform(self, results: Results) -> Results:
        """Chooses a slice."""
        depth = results["img"].shape[1]
        candidates = np.flatnonzero(results["gt_label"].any((1, 2)))
        if not len(candidates) or np.random.rand() >= self.labelled:
            candidates = np.arange(depth)
        at = int(candidates[np.random.randint(len(candidates))])
        return results | dict(img=results["img"][:, at], gt_label=results["gt_label"][at], slice=at + 1)


@TRANSFORMS.register_module()
class PackMedical(BaseTransform):
    """Makes the model's input: `inputs` (C, H, W) or (C, D, H, W) float32, and a `SegmentationSample`."""

    def transform(self, results: Results) -> Results:
        """Packs picture, labels and what belongs to them."""
        meta = {k: results[k] for k in ("img_path", "case", "slice", "spacing") if k in results}
        sample = SegmentationSample(metainfo=meta)
        if "gt_label" in results:
            sample.gt_label = torch.from_numpy(np.ascontiguousarray(results["gt_label"]))
        inputs = torch.from_numpy(np.ascontiguousarray(results["img"], np.float32))
        return dict(inputs=inputs, data_samples=sample)
