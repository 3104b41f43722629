"""Seeds as files, and the labels that IRN learns from: where they are confident.

NAME.npz    `maps` (P, h, w) of 0 … 1, of any size; `classes` (P,), their indices, from 0 without background

`opsin predict` writes them with a seed network; maps of any other method do too.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS
from opsin.segmentation.datasets.mask_pairs import IGNORE

Results = dict[str, Any]

STRIDE = 4  # of the written maps: no seed network sees finer


def write_seeds(path: Path, maps: NDArray[np.float32]) -> None:
    """Writes the maps (K, H, W) of a picture's classes, a quarter of its size; none without a seed."""
    present = np.flatnonzero(maps.any((1, 2)))
    size = tuple(-(-side // STRIDE) for side in maps.shape[1:])
    small = [cv2.resize(maps[index], size[::-1], interpolation=cv2.INTER_AREA) for index in present]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, maps=np.reshape(small, (-1, *size)).astype(np.float16), classes=present)


def read_seeds(path: Path, num_classes: int) -> NDArray[np.float32]:
    """The maps (K, h, w) in a file, 0 for classes that it has none of.

    Raises:
        UserError: if the file is missing, no file of seeds, or has a class beyond the last.
    """
    try:
        with np.load(path) as content:
            maps, classes = content["maps"], content["classes"]
    except FileNotFoundError:
        raise UserError(f"no seeds {path}", "write them by opsin predict with a seed network") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no file of seeds ({error})") from None
    if maps.ndim != 3 or classes.shape != maps.shape[:1]:
        shapes = f"maps {maps.shape} and classes {classes.shape}"
        raise UserError(f"{path} has {shapes}, not (P, h, w) and (P,)")
    if len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
        raise UserError(f"{path} has class {classes.max()} of {num_classes}, counted from 0")
    seeds = np.zeros((num_classes, *maps.shape[1:]), np.float32)
    seeds[classes] = maps
    return seeds


@TRANSFORMS.register_module()
class FindSeeds(BaseTransform):
    """Adds `seed_maps` (K, h, w) float32 of the picture, 0 … 1, from a file of its name.

    Args:
        folder: of the files.
        num_classes: K.
        floor: what of a map is none; the rest is stretched to 0 … 1. Maps of a sigmoid, unlike those of class
            activations, are nowhere near 0.

    Raises:
        UserError: at construction for a floor outside 0 … 1; as `read_seeds` does.
    """

    def __init__(self, folder: str, num_classes: int, floor: float = 0.0) -> None:
        if not 0 <= floor < 1:
            raise UserError(f"floor={floor} of FindSeeds", "give 0 to less than 1")
        self.folder, self.num_classes, self.floor = Path(folder), num_classes, floor

    def transform(self, results: Results) -> Results:
        """Adds the maps."""
        seeds = read_seeds(self.folder / f"{Path(results['img_path']).stem}.npz", self.num_classes)
        results["seed_maps"] = (seeds - self.floor).clip(0) / (1 - self.floor)
        return results


@TRANSFORMS.register_module()
class ConfidentLabels(BaseTransform):
    """Adds `gt_seg_map` (H, W) uint8 from `seed_maps`: 0 is background, 255 where no label is confident.

    The published way lets a CRF (pydensecrf) move the edges of both; here thresholds alone decide.

    Args:
        foreground: from which value on a place is of its best class.
        background: below which value a place is background.

    Raises:
        UserError: at construction unless 0 < background <= foreground.
    """

    def __init__(self, foreground: float = 0.3, background: float = 0.05) -> None:
        if not 0 < background <= foreground:
            raise UserError(f"background={background} and foreground={foreground} of ConfidentLabels")
        self.foreground, self.background = foreground, background

    def transform(self, results: Results) -> Results:
        """Adds the labels, of the picture's size; classes that it is known not to have get none."""
        seeds = results["seed_maps"]
        if "gt_labels" in results:
            seeds = seeds * results["gt_labels"][:, None, None]
        height, width = results["img"].shape[:2]
        maps = [cv2.resize(seed, (width, height), interpolation=cv2.INTER_LINEAR) for seed in seeds]
        best, label = np.max(maps, 0), np.argmax(maps, 0) + 1
        unsure = np.where(best < self.background, 0, IGNORE)
        results["gt_seg_map"] = np.where(best >= self.foreground, label, unsure).astype(np.uint8)
        return results
