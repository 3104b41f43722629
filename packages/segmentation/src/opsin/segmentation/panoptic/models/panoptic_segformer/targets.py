"""What one picture's losses are computed against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.errors import UserError


@dataclass(frozen=True)
class Targets:
    """One picture's segments; masks are as large as the padded batch.

    Args:
        labels: (K,) classes of the things.
        boxes: (K, 4) their corners in pixels.
        masks: (K, H, W) their masks, 0 or 1.
        stuff_labels: (S,) stuff classes that occur, counted from 0.
        stuff_masks: (S, H, W) their masks.
        img_shape: height and width of the picture without the padding.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor
    stuff_labels: Tensor
    stuff_masks: Tensor
    img_shape: tuple[int, int]

    @property
    def size(self) -> Tensor:
        """(4,) width, height, width, height of the picture."""
        height, width = self.img_shape
        return self.boxes.new_tensor([width, height, width, height])


def targets_of(samples: list[Any], num_things: int, num_stuff: int) -> list[Targets]:
    """The targets in mmdet's data samples: `gt_instances` for things, `gt_sem_seg` for stuff.

    Raises:
        UserError: for a sample without either, or with a label outside the classes.
    """
    return list(_targets(samples, num_things, num_stuff))


def _targets(samples: list[Any], num_things: int, num_stuff: int) -> Iterator[Targets]:
    for sample in samples:
        if "gt_sem_seg" not in sample or "masks" not in sample.get("gt_instances", {}):
            raise UserError(
                f"{sample.get('img_path', 'a sample')} comes without masks or without a semantic map",
                "load both with opsin.LoadPanoptic",
            )
        things, semantic = sample.gt_instances, sample.gt_sem_seg.sem_seg[0].long()
        height, width = sample.metainfo.get("batch_input_shape", sample.img_shape)
        present = semantic.unique()
        stuff = present[(present >= num_things) & (present < num_things + num_stuff)]
        _check(things.labels, present, num_things, num_stuff, sample)
        masks = things.masks.to_tensor(torch.float32, things.labels.device)
        stuff_masks = (semantic == stuff[:, None, None]).float()
        yield Targets(
            labels=things.labels,
            boxes=getattr(things.bboxes, "tensor", things.bboxes).float(),
            masks=_padded(masks, height, width),
            stuff_labels=stuff - num_things,
            stuff_masks=_padded(stuff_masks, height, width),
            img_shape=tuple(sample.img_shape[:2]),
        )


def _check(labels: Tensor, present: Tensor, num_things: int, num_stuff: int, sample: Any) -> None:
    wrong = [*labels[labels >= num_things].tolist()]
    wrong += present[(present >= num_things + num_stuff) & (present != 255)].tolist()
    if wrong:
        raise UserError(
            f"{sample.get('img_path', 'a sample')} has label {wrong[0]}, but the model knows {num_things}"
            f" things and {num_stuff} stuff classes",
            "set model.bbox_head.num_things_classes and num_stuff_classes",
        )


def _padded(masks: Tensor, height: int, width: int) -> Tensor:
    return F.pad(masks, (0, width - masks.shape[2], 0, height - masks.shape[1]))
