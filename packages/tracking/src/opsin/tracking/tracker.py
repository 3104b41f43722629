"""Following targets through a video, frame by frame.

Each target has a box, the templates of the first frame and of recent ones, and their encoding, which is
computed when a template changes and not before. The search regions of all targets that have equally many
templates go through the network as one batch. Nothing grows with the length of the video.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.core.errors import UserError
from opsin.tracking.crops import Box, Crop, box_from_crop, box_text, crop_square
from opsin.tracking.models.mixformer.memory import TemplateMemory
from opsin.tracking.models.mixformer.network import MixFormer
from opsin.tracking.online_memory import OnlineMemory, UpdateRule

Image = NDArray[np.uint8]
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
LOST_SCORE = 0.5  # the update rule's threshold: the head says that the target is rather not there
LOST_AFTER = 5  # frames in a row


@dataclass(frozen=True)
class CropRule:
    """Sizes of the crops: sides in pixels, and sides over the box's."""

    template_size: int = 128
    template_factor: float = 2.0
    search_size: int = 320
    search_factor: float = 4.5


@dataclass(frozen=True)
class Tracked:
    """One target in one frame.

    Attributes:
        box: x, y, w, h in pixels.
        score: how sure the tracker is that this is the target, 0 to 1; None without a score head.
        lost: the score has been low for `LOST_AFTER` frames or more.
        updated: the online templates were renewed at this frame.
    """

    box: Box
    score: float | None = None
    lost: bool = False
    updated: bool = False


@dataclass
class Target:
    """The state of one target."""

    box: Box
    memory: OnlineMemory[Image]
    encoded: TemplateMemory
    low_scores: int = 0


@dataclass
class _Batch:
    """Targets that go through the network together, and their encodings side by side."""

    targets: list[Target] = field(default_factory=list)
    encoded: TemplateMemory | None = None


class Tracker:
    """Follows targets with a MixFormer.

    Args:
        network: in evaluation mode, on any device.
        crops: sizes of the crops.
        update: when online templates are renewed; without a score head they never are.
    """

    def __init__(
        self, network: MixFormer, crops: CropRule | None = None, update: UpdateRule | None = None
    ) -> None:
        self.network = network
        self.crops = crops or CropRule()
        self.update = update or UpdateRule()
        self.targets: list[Target] = []
        self._batches: list[_Batch] = []

    @torch.inference_mode()
    def start(self, image: Image, boxes: Sequence[Box]) -> None:
        """Begins with the first frame (H, W, 3); targets followed before are forgotten.

        Args:
            image: RGB uint8.
            boxes: x, y, w, h in pixels, one a target.

        Raises:
            UserError: if there is no box, or one has no area or lies outside the picture.
        """
        if not boxes:
            raise UserError("nothing to track", "give the target's box, x,y,w,h in pixels of the first frame")
        for box in boxes:
            check_box(box, image.shape[:2])
        self.targets = []
        for box in boxes:
            memory = OnlineMemory(self._template(image, box).pixels, self.update)
            self.targets.append(Target(box, memory, self._encode(memory)))
        self._regroup()

    @torch.inference_mode()
    def track(self, image: Image) -> list[Tracked]:
        """The targets in the next frame, RGB uint8 (H, W, 3), in the order of `start`'s boxes."""
        found: dict[int, Tracked] = {}
        for batch in self._batches:
            crops = [self._search(image, target.box) for target in batch.targets]
            if batch.encoded is None:
                batch.encoded = TemplateMemory.stack([target.encoded for target in batch.targets])
            prediction = self.network.look(self._normalised([c.pixels for c in crops]), batch.encoded)
            boxes = prediction.boxes.float().tolist()
            logits = prediction.logits
            scores = [None] * len(boxes) if logits is None else logits.float().sigmoid().tolist()
            for target, crop, box, score in zip(batch.targets, crops, boxes, scores, strict=True):
                found[id(target)] = self._advance(target, image, crop, box, score)
        if any(tracked.updated for tracked in found.values()):
            self._regroup()
        return [found[id(target)] for target in self.targets]

    def _advance(
        self, target: Target, image: Image, crop: Crop, predicted: list[float], score: float | None
    ) -> Tracked:
        size = self.crops.search_size
        target.box = box_from_crop(predicted, target.box, crop.resize_factor, size, image.shape[:2])
        if score is None:
            return Tracked(target.box)
        box = target.box
        updated = target.memory.observe(score, lambda: self._template(image, box).pixels)
        if updated:
            target.encoded = self._encode(target.memory)
        target.low_scores = target.low_scores + 1 if score < LOST_SCORE else 0
        return Tracked(target.box, score, target.low_scores >= LOST_AFTER, updated)

    def _regroup(self) -> None:
        """Targets by their number of templates: tensors of one batch have one shape."""
        groups: dict[int, _Batch] = defaultdict(_Batch)
        for target in self.targets:
            groups[len(target.memory.entries)].targets.append(target)
        self._batches = list(groups.values())

    def _template(self, image: Image, box: Box) -> Crop:
        return crop_square(image, box, self.crops.template_factor, self.crops.template_size)

    def _search(self, image: Image, box: Box) -> Crop:
        return crop_square(image, box, self.crops.search_factor, self.crops.search_size)

    def _encode(self, memory: OnlineMemory[Image]) -> TemplateMemory:
        templates = self._normalised([memory.first, *memory.entries])
        return self.network.remember(templates[:1], templates[None, 1:])

    def _normalised(self, crops: Sequence[Image]) -> Tensor:
        """Crops (size, size, 3) as the network takes them, (N, 3, size, size)."""
        device = next(self.network.parameters()).device
        return normalise(torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2))


def normalise(crops: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) to floats of ImageNet's mean 0 and standard deviation 1."""
    mean, std = (crops.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (MEAN, STD))
    return (crops.float() - mean) / std


def check_box(box: Box, picture: tuple[int, ...]) -> None:
    """Looks whether a box can be followed.

    Args:
        box: x, y, w, h.
        picture: height and width, pixels.

    Raises:
        UserError: if the box has no area, is not finite, or has no pixel in the picture.
    """
    x, y, w, h = box
    height, width = picture[:2]
    if not all(map(math.isfinite, box)) or w <= 0 or h <= 0:
        raise UserError(f"the box {box_text(box)} has no area", "give x,y,w,h in pixels with w and h above 0")
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise UserError(
            f"the box {box_text(box)} lies outside the first frame, which is {width}x{height}",
            "x,y is the box's upper left corner, w,h its size, all in pixels",
        )
