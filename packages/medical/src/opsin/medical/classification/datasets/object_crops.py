"""Objects of a detection data set as pictures of their own, to classify: cells out of blood smears."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from opsin.core.data import Dataset
from opsin.core.errors import UserError
from opsin.registry import DATASETS, TRANSFORMS


@DATASETS.register_module()
class ObjectCrops(Dataset):
    """A sample is an object: `img_path`, its `box` (x1, y1, x2, y2) in pixels, and `gt_label`.

    Objects that are marked to be ignored are left out. The classes are the source's.

    Args:
        source: config of a detection data set, `dict(type='opsin.PascalVOC', data_root=…, split=…)`; its
            entries have `instances` with `bbox`, `bbox_label` and perhaps `ignore_flag`.
        most: at most so many objects of a class, spread evenly over the list; None: all.
        **kwargs: those of `opsin.core.data.Dataset` (`pipeline`, `test_mode`, `indices`, …).

    Raises:
        UserError: if `most` is not positive, or the source has no objects; and what the source raises.
    """

    def __init__(self, *, source: dict[str, Any], most: int | None = None, **kwargs: Any) -> None:
        if most is not None and most < 1:
            raise UserError(f"most={most} objects of a class", "give a positive number, or None for all")
        self.source, self.most = source, most
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The objects of every picture, in the source's order."""
        objects = DATASETS.build({"pipeline": [], "test_mode": True, **self.source})
        self._metainfo["classes"] = tuple(objects.metainfo["classes"])
        by_class = defaultdict(list)
        samples: list[dict[str, Any]] = []
        for index in range(len(objects)):
            entry = objects.get_data_info(index)
            for found in entry["instances"]:
                if found.get("ignore_flag"):
                    continue
                label = int(found["bbox_label"])
                by_class[label].append(len(samples))
                samples.append({"img_path": entry["img_path"], "box": found["bbox"], "gt_label": label})
        kept = sorted(place for places in by_class.values() for place in _spread(places, self.most))
        return [samples[place] for place in kept]


def _spread(places: list[int], most: int | None) -> list[int]:
    if most is None or len(places) <= most:
        return places
    return [places[i * len(places) // most] for i in range(most)]


@TRANSFORMS.register_module()
class CropToBox(BaseTransform):
    """Cuts the square around `box` out of `img`; what lies outside the picture repeats its border.

    Args:
        size: side of the result in pixels.
        context: side of the square, in longer sides of the box.

    Raises:
        UserError: for a size or context that is not positive.
    """

    def __init__(self, size: int, context: float = 1.2) -> None:
        if size < 1 or context <= 0:
            raise UserError(f"CropToBox with size={size} and context={context}", "both are positive")
        self.size, self.context = size, context

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces `img` (H, W, 3) by (size, size, 3), and its shapes."""
        x1, y1, x2, y2 = results["box"]
        scale = self.size / (self.context * max(x2 - x1, y2 - y1))
        middle = (self.size - 1) / 2
        # where pixel centres go: the box's centre to the middle
        turn = np.array(
            [
                [scale, 0, middle - scale * ((x1 + x2 - 1) / 2)],
                [0, scale, middle - scale * ((y1 + y2 - 1) / 2)],
            ]
        )
        cut = cv2.warpAffine(
            results["img"],
            turn,
            (self.size, self.size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        shape = (self.size, self.size)
        return results | {"img": cut, "img_shape": shape, "ori_shape": shape}
