"""What travels beside a picture through a weakly supervised model."""

from __future__ import annotations

from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor


class WeakSample(BaseDataElement):
    """Metainfo `img_path`, `ori_shape`, `view` (see `CenterView`), and what follows; K classes.

    Attributes:
        gt_label: the class, an index (1,), of a picture of one object.
        gt_box: x0, y0, x1, y1 (4,) in pixels of the network's input; 0 where nothing of the object is left.
        gt_labels: 0 or 1 for each class (K,), of a picture of several.
        gt_sem_seg: mask (1, H, W), 0 for background.
        pred_scores: (K,).
        pred_map: foreground (H, W) of the network's input, 0 to almost 1.
        pred_box: (4,), as `gt_box`.
        pred_sem_seg: seed (1, H, W), 0 for background.
    """

    gt_label: Tensor
    gt_box: Tensor
    gt_labels: Tensor
    gt_sem_seg: PixelData
    pred_scores: Tensor
    pred_map: Tensor
    pred_box: Tensor
    pred_sem_seg: PixelData
