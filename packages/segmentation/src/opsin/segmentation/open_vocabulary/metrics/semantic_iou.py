"""mIoU of semantic predictions against the id PNGs of COCO's panoptic format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import METRICS
from opsin.segmentation.panoptic.datasets import read_ids


@METRICS.register_module()
class SemanticIoU(IoUMetric):
    """mmseg's `IoUMetric`, whose truth is read from the id PNG of a sample in its own size.

    Pixels of no segment don't count. There may be more than 255 classes.

    Args:
        **kwargs: of `IoUMetric`.

    Raises:
        UserError: if prediction and PNG differ in size.
    """

    default_prefix = "semantic"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ignore_index=-1, **kwargs)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Compares the `pred_sem_seg` of a batch with the PNGs of `seg_map_path`."""
        classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            predicted = sample["pred_sem_seg"]["data"][0].cpu()
            truth = semantic_truth(read_ids(sample["seg_map_path"]), sample["segments_info"])
            if predicted.shape != truth.shape:
                sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (predicted.shape, truth.shape))
                raise UserError(f"prediction and mask {sample['seg_map_path']} differ in size: {sizes}")
            self.results.append(
                self.intersect_and_union(predicted, torch.from_numpy(truth), classes, self.ignore_index)
            )


def semantic_truth(ids: NDArray[np.int32], segments: Sequence[dict[str, Any]]) -> NDArray[np.int64]:
    """Segment ids (H, W) to class indices, -1 where there is no segment."""
    truth = np.full(ids.shape, -1, np.int64)
    for segment in segments:
        truth[ids == segment["id"]] = segment["category"]
    return truth
