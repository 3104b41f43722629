"""What travels beside a picture through a weakly supervised model."""

from __future__ import annotations

from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor


class WeakSample(BaseDataElement):
    """Metainfo `img_path`, `ori_shape`, `view` (see `CenterView`), and what follows; K classes.

    Attributes:
        gt_label: the class, an index (1,), of a picture of one class.
        gt_boxes: of each object x0, y0, x1, y1, (N, 4) in pixels of the network's input; 0 where nothing
            of it is left.
        gt_labels: 0 or 1 for each class (K,), of a picture of several.
        gt_sem_seg: mask (1, H, W), 0 for background; of a picture of one class 1 for it.
        seed_maps: of each class (K, h, w), 0 … 1; 0 for those that the picture does not have.
        pred_scores: (K,).
        pred_map: foreground (H, W) of the network's input, 0 to almost 1; or boundaries (h, w), 0 … 1.
        pred_box: (4,), as `gt_boxes`.
        pred_sem_seg: seed (1, H, W), 0 for background.
    """

    gt_label: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_sem_seg: PixelData
    seed_maps: Tensor
    pred_scores: Tensor
    pred_map: Tensor
    pred_box: Tensor
    pred_sem_seg: PixelData
