"""Training samples: two templates and a search region out of a video.

Stage 1 learns boxes from frames in which the target is visible: the templates come before the search region
(`causal`). Stage 2 learns the score: in half of the samples the search region does not hold the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import read_image
from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.tracking.crops import Box, Crop, box_in_crop, crop_square
from opsin.tracking.datasets.layouts import read_sequences
from opsin.tracking.datasets.sample import TrackingSample
from opsin.tracking.datasets.sequence import VideoSequence

Config = dict[str, Any]
TRIES = 100  # redraws before a data set is declared unusable
WIDENING = 5  # frames by which the gap grows at each redraw
PADDING_STRIDE = 16  # a crop must show some picture on the features' grid


class Frame(NamedTuple):
    """A frame of a sequence and the target's box in it; None stands for the box in the picture's middle."""

    path: str
    box: Box | None


class Draw(NamedTuple):
    """Frames of one sample; `label` says whether the search frame holds the target."""

    template: Frame
    online: Frame
    search: Frame
    label: float


@DATASETS.register_module()
class TrainingPairs(Dataset):
    """Samples for stage 1; the randomness is numpy's global generator.

    Args:
        sources: benchmarks, each `dict(layout=, split=, root=, ratio=)`: `root` is relative to `data_root`,
            and samples come from a benchmark in proportion to `ratio` (default 1), whatever its size.
        samples_per_epoch: length of the data set.
        template_size, search_size: sides of the crops, pixels.
        template_factor, search_factor: sides of the crops over the box's.
        centre_jitter: the search region is off the target by up to half of this, times the box's side.
        scale_jitter: standard deviation of the logarithm of the box that the search region is cut around.
        max_gap: frames between templates, and between them and the search region.
        grey, flip: chances of all three crops at once.
        brightness: each crop's factor lies within 1 ± this.
        dataset: `data_root`, `on_error`, … of `Dataset`.
    """

    def __init__(
        self,
        *,
        sources: Sequence[Config],
        samples_per_epoch: int = 60_000,
        template_size: int = 128,
        search_size: int = 320,
        template_factor: float = 2.0,
        search_factor: float = 5.0,
        centre_jitter: float = 4.5,
        scale_jitter: float = 0.5,
        max_gap: int = 200,
        grey: float = 0.05,
        flip: float = 0.5,
        brightness: float = 0.2,
        **dataset: Any,
    ) -> None:
        self.sources = [dict(source) for source in sources]
        self.samples_per_epoch = samples_per_epoch
        self.template_size, self.search_size = template_size, search_size
        self.template_factor, self.search_factor = template_factor, search_factor
        self.centre_jitter, self.scale_jitter = centre_jitter, scale_jitter
        self.max_gap = max_gap
        self.grey, self.flip, self.brightness = grey, flip, brightness
        super().__init__(**dataset)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The usable sequences of all sources: those whose target can be seen."""
        entries = []
        for number, source in enumerate(self.sources):
            root = Path(self.data_root or ".") / source.get("root", "")
            found = read_sequences(source["layout"], root, source["split"])
            entries += [
                {"img_path": s.frames[0], "sequence": s, "source": number} for s in found if s.visible.any()
            ]
        return entries

    def full_init(self) -> None:
        """Reads the annotations and sorts the sequences by source."""
        if self._fully_initialized:
            return
        super().full_init()
        of = [self.get_data_info(i)["source"] for i in range(super().__len__())]
        self._members = [np.flatnonzero(np.array(of) == n) for n in range(len(self.sources))]
        for source, members in zip(self.sources, self._members, strict=True):
            if not len(members):
                raise UserError(f"no visible target in the {source['split']} set of {source['layout']}")
        ratios = np.array([float(source.get("ratio", 1)) for source in self.sources])
        self._chances = ratios / ratios.sum()

    def __len__(self) -> int:
        """Samples an epoch."""
        return self.samples_per_epoch

    def prepare_data(self, index: int) -> dict[str, Any]:
        """A sample drawn at random; `index` does not matter.

        Raises:
            UserError: if no draw can be cropped, or a frame can't be read.
        """
        for step in range(TRIES):
            drawn = self.draw(self.random_sequence(), self.max_gap + WIDENING * step)
            sample = drawn and self._crops(drawn)
            if sample:
                return sample
        raise UserError(f"no usable pair in {self._where()} after {TRIES} draws", "are the boxes right?")

    def random_sequence(self) -> VideoSequence:
        """A sequence: first a source by its ratio, then one of its sequences."""
        source = np.random.choice(len(self.sources), p=self._chances)
        found: VideoSequence = self.get_data_info(int(np.random.choice(self._members[source])))["sequence"]
        return found

    def draw(self, sequence: VideoSequence, gap: int) -> Draw | None:
        """Frames for a sample: a template, an earlier one, and a later search frame, all with the target."""
        if len(sequence.frames) == 1:
            only = frame_of(sequence, 0)
            return Draw(only, only, only, 1.0)
        base = _visible(sequence, 1, len(sequence.boxes) - 1)
        if base is None:
            return None
        earlier, later = _visible(sequence, base - gap, base), _visible(sequence, base + 1, base + gap)
        if earlier is None or later is None:
            return None
        template, online, search = (frame_of(sequence, i) for i in (base, earlier, later))
        return Draw(template, online, search, 1.0)

    def _crops(self, drawn: Draw) -> dict[str, Any] | None:
        grey, flip = np.random.rand() < self.grey, np.random.rand() < self.flip
        inputs: dict[str, Tensor] = {}
        for role, frame in (("template", drawn.template), ("online", drawn.online), ("search", drawn.search)):
            image, box = _augmented(frame, grey, flip)
            around = self._jittered(box) if role == "search" else box
            size = self.search_size if role == "search" else self.template_size
            factor = self.search_factor if role == "search" else self.template_factor
            crop = crop_square(image, around, factor, size)
            if not _shows_picture(crop):
                return None
            inputs[role] = torch.from_numpy(self._brightened(crop.pixels)).permute(2, 0, 1).contiguous()
        truth = torch.tensor(box_in_crop(box, around, crop.resize_factor, size))  # of the search region
        sample = TrackingSample(metainfo={"img_path": drawn.search.path})
        sample.gt_box, sample.label = truth, torch.tensor(drawn.label)
        return {"inputs": inputs, "data_samples": sample}

    def _jittered(self, box: Box) -> Box:
        x, y, w, h = box
        new_w, new_h = (side * math.exp(np.random.randn() * self.scale_jitter) for side in (w, h))
        reach = math.sqrt(new_w * new_h) * self.centre_jitter
        offset_x, offset_y = ((np.random.rand() - 0.5) * reach for _ in range(2))
        return x + w / 2 + offset_x - new_w / 2, y + h / 2 + offset_y - new_h / 2, new_w, new_h

    def _brightened(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        factor = np.random.uniform(max(0.0, 1 - self.brightness), 1 + self.brightness)
        return (pixels * factor).clip(0, 255).astype(np.uint8)


@DATASETS.register_module()
class ScorePairs(TrainingPairs):
    """Samples for stage 2: half of the search regions do not hold the target (`trident_pro`).

    Template and search frame are any with the target; the online frame is within `max_gap` of the search
    frame, target or not. A negative search frame is another video's, or one of the same without the target,
    and the box to score there is an eighth of the picture, in its middle. Besides the arguments above:

    Args:
        negatives: chance of a negative.
    """

    def __init__(self, *, negatives: float = 0.5, **pairs: Any) -> None:
        self.negatives = negatives
        super().__init__(**pairs)

    def draw(self, sequence: VideoSequence, gap: int) -> Draw | None:
        """Frames for a sample; see the class."""
        template, search = (_visible(sequence, 0, len(sequence.boxes)) for _ in range(2))
        if template is None or search is None:
            return None
        low, high = max(0, search - gap), min(len(sequence.boxes), search + gap + 1)
        online = frame_of(sequence, int(np.random.randint(low, high)))
        first = frame_of(sequence, template)
        if np.random.rand() >= self.negatives:
            return Draw(first, online, frame_of(sequence, search), 1.0)
        return Draw(first, online, self._without_target(sequence), 0.0)

    def _without_target(self, sequence: VideoSequence) -> Frame:
        absent = np.flatnonzero(~sequence.visible)
        other = self.random_sequence()
        if len(absent) and (np.random.rand() < 0.5 or other.name == sequence.name):
            return Frame(sequence.frames[int(np.random.choice(absent))], None)
        return Frame(other.frames[int(np.random.randint(len(other.frames)))], None)


def frame_of(sequence: VideoSequence, index: int) -> Frame:
    """Frame `index`, with its box if the target can be seen."""
    x, y, w, h = sequence.boxes[index].tolist()
    return Frame(sequence.frames[index], (x, y, w, h) if sequence.visible[index] else None)


def middle_box(height: int, width: int) -> Box:
    """A box with an eighth of a picture's sides, in its middle."""
    return width * 7 / 16, height * 7 / 16, width / 8, height / 8


def _visible(sequence: VideoSequence, start: int, stop: int) -> int | None:
    """A random frame from `start` until `stop` in which the target can be seen."""
    start = max(0, start)
    found = np.flatnonzero(sequence.visible[start : max(start, stop)])
    return int(np.random.choice(found)) + start if len(found) else None


def _augmented(frame: Frame, grey: bool, flip: bool) -> tuple[NDArray[np.uint8], Box]:
    image = read_image(frame.path)
    height, width = image.shape[:2]
    x, y, w, h = frame.box or middle_box(height, width)
    if grey:
        luma = (image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
        image = np.repeat(luma[..., None], 3, axis=2)
    if flip:
        image, x = image[:, ::-1], width - x - w
    return image, (x, y, w, h)


def _shows_picture(crop: Crop) -> bool:
    return not crop.padding[::PADDING_STRIDE, ::PADDING_STRIDE].all()
