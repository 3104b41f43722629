"""CutDepth (arXiv 2107.07684), vertically: a strip of the depth map takes the place of the picture there."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from opsin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CutDepth(BaseTransform):
    """Paints a vertical strip of `gt_depth` into `img` as grey: black is 0 metres, white `max_depth`.

    Args:
        p: probability.
        share: the widest strip, as a share of what lies to the right of its random left edge.
        max_depth: metres.
    """

    def __init__(self, p: float = 0.25, share: float = 0.75, max_depth: float = 10.0) -> None:
        self.p, self.share, self.max_depth = p, share, max_depth

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Changes `img`."""
        if np.random.random() >= self.p:
            return results
        width = results["img"].shape[1]
        left = int(np.random.random() * width)
        right = left + max(1, int((width - left) * np.random.random() * self.share))
        strip = results["gt_depth"][:, left:right] / self.max_depth
        image = results["img"].copy()
        image[:, left:right] = (strip.clip(0, 1) * 255).round().astype(np.uint8)[..., None]
        return {**results, "img": image}
