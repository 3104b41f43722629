"""How pictures and volumes become what Uni4Eye sees and reconstructs.

A picture is `img` (H, W, 3) uint8 until it is packed; a volume is `volume` (A, B, C) float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmengine.structures import BaseDataElement

from opsin.core.errors import UserError
from opsin.medical.pretraining.models.uni4eye.targets import gradient_map, volume_gradient_map
from opsin.medical.volumes import conceal, read_volume
from opsin.registry import TRANSFORMS

Results = dict[str, Any]


@TRANSFORMS.register_module()
class ByKind(BaseTransform):
    """Does other things to pictures than to volumes.

    Args:
        picture: transforms of a picture.
        volume: transforms of a volume.
    """

    def __init__(self, picture: Sequence[Results], volume: Sequence[Results]) -> None:
        self.picture, self.volume = Compose(picture), Compose(volume)

    def transform(self, results: Results) -> Results | None:
        """Does those of its kind (`is_volume`)."""
        return (self.volume if results.get("is_volume") else self.picture)(results)


@TRANSFORMS.register_module()
class LoadVolume(BaseTransform):
    """Reads a volume, cut to the voxels that differ from the first one: `volume` (A, B, C) float32."""

    def transform(self, results: Results) -> Results:
        """Reads `img_path`.

        Raises:
            UserError: if it can't be read, or all its voxels are alike.
        """
        volume = read_volume(results["img_path"])
        values = volume.values
        found = np.argwhere(values != values[0, 0, 0])
        if not len(found):
            raise UserError(f"volume {conceal(results['img_path'], volume.identity)} is constant")
        low, high = found.min(0), found.max(0) + 1
        results["ori_shape"] = values.shape
        results["volume"] = values[tuple(slice(*ends) for ends in zip(low, high, strict=True))]
        return results


@TRANSFORMS.register_module()
class AugmentVolume(BaseTransform):
    """Flips each axis, and adds noise to the raw intensities, by chance.

    Args:
        flip: chance of flipping an axis.
        noise: chance of noise.
        variance: the noise's variance is drawn from 0 to this.
    """

    def __init__(self, flip: float = 0.5, noise: float = 0.2, variance: float = 5.0) -> None:
        self.flip, self.noise, self.variance = flip, noise, variance

    def transform(self, results: Results) -> Results:
        """Changes `volume`; draws from numpy's global generator."""
        volume = results["volume"]
        axes = tuple(axis for axis in range(3) if np.random.rand() < self.flip)
        volume = np.flip(volume, axes)
        if np.random.rand() < self.noise:
            deviation = np.sqrt(np.random.uniform(0, self.variance))
            volume = volume + np.random.normal(0, deviation, volume.shape).astype(np.float32)
        results["volume"] = np.ascontiguousarray(volume, np.float32)
        return results


@TRANSFORMS.register_module()
class FitVolume(BaseTransform):
    """Resizes a volume to (s, s / 2, s), the nearest voxel each, and standardises it.

    Mean and deviation are those of the positive voxels; voxels that are 0 become noise of N(0, 1).

    Args:
        size: s.
    """

    def __init__(self, size: int = 224) -> None:
        self.shape = (size, size // 2, size)

    def transform(self, results: Results) -> Results:
        """Changes `volume`; draws from numpy's global generator."""
        given = torch.from_numpy(results["volume"])[None, None]
        volume = F.interpolate(given, self.shape, mode="nearest")[0, 0].numpy()
        inside = volume[volume > 0]
        mean, deviation = (inside.mean(), inside.std()) if len(inside) else (0.0, 1.0)
        standard = (volume - mean) / max(float(deviation), 1e-6)
        noise = np.random.normal(size=volume.shape)
        results["volume"] = np.where(volume == 0, noise, standard).astype(np.float32)
        return results


@TRANSFORMS.register_module()
class EdgeTarget(BaseTransform):
    """The edges of the picture or volume as it is now: `gradient` (1, …) float32.

    Args:
        reverse_channels: weigh blue as red and red as blue, as the authors' loader does by mistake.
    """

    def __init__(self, reverse_channels: bool = False) -> None:
        self.reverse_channels = reverse_channels

    def transform(self, results: Results) -> Results:
        """Adds `gradient`."""
        if results.get("is_volume"):
            results["gradient"] = volume_gradient_map(torch.from_numpy(results["volume"]))[None]
        else:
            image = results["img"][..., ::-1] if self.reverse_channels else results["img"]
            results["gradient"] = torch.from_numpy(gradient_map(image.astype(np.float32) / 255))[None]
        return results


@TRANSFORMS.register_module()
class PackPretraining(BaseTransform):
    """`inputs`: a picture (3, H, W) of 0 to 1 or a volume (1, A, B, C); the rest in `data_samples`.

    The sample has `gt_label` and `gradient` if they are there, and `img_path` and `ori_shape`.
    """

    def transform(self, results: Results) -> Results:
        """Packs one sample."""
        if results.get("is_volume"):
            inputs = torch.from_numpy(results["volume"])[None]
        else:
            pixels = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
            inputs = torch.from_numpy(pixels).float() / 255
        meta = {key: results[key] for key in ("img_path", "ori_shape", "is_volume") if key in results}
        sample = BaseDataElement(metainfo=meta)
        if "gt_label" in results:
            sample.gt_label = torch.tensor(results["gt_label"])
        if "gradient" in results:
            sample.gradient = results["gradient"]
        return {"inputs": inputs, "data_samples": sample}
