"""What dense models give for a pixel (a class, a depth, a normal): its values, its loss, its result.

A model mixes value vectors per pixel, or computes them in any other way; everything after that is here and
knows nothing of the model. Shapes: D values a pixel, maps (D, H, W) of one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS

IGNORE = 255
SMALLEST = 1e-6  # metres; keeps the logarithm of a depth finite


class Output(nn.Module):
    """The base: `channels` is D."""

    channels: int

    def values(self, raw: Tensor) -> Tensor:
        """A network's raw numbers (…, D) to values of the output's kind."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its values are")

    def loss(self, predicted: Tensor, sample: SegDataSample) -> Tensor:
        """The loss of one picture's map (D, H, W), at the size of its truth."""
        raise NotImplementedError(f"{type(self).__name__} does not say its loss")

    def store(self, predicted: Tensor, sample: SegDataSample) -> None:
        """Puts one picture's result into its sample."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its result is")


@MODELS.register_module()
class SemanticOutput(Output):
    """Classes; values are distributions over them, so mixtures are too.

    Args:
        num_classes: D.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = self.channels = num_classes

    def values(self, raw: Tensor) -> Tensor:
        """Logits to probabilities."""
        return raw.softmax(-1)

    def loss(self, predicted: Tensor, sample: SegDataSample) -> Tensor:
        """Mean of -log of the true class's probability, over pixels that have a class."""
        truth = _truth(sample, "gt_sem_seg", predicted)[0].long()
        losses = F.nll_loss((predicted[None] + 1e-8).log(), truth[None], ignore_index=IGNORE, reduction="sum")
        return losses / (truth != IGNORE).sum().clamp(min=1)

    def store(self, predicted: Tensor, sample: SegDataSample) -> None:
        """`pred_sem_seg`: the likeliest class (1, H, W)."""
        sample.pred_sem_seg = PixelData(data=predicted.argmax(0, keepdim=True))


@MODELS.register_module()
class DepthOutput(Output):
    """Distance from the camera in metres.

    The loss is that of deeplab2's depth-aware panoptic models: variance of the logarithm's error, plus the
    root of the mean squared relative error; a pixel without depth (0) counts for nothing.

    Args:
        max_depth: the farthest that can be predicted.
    """

    channels = 1

    def __init__(self, max_depth: float = 10.0) -> None:
        super().__init__()
        self.max_depth = max_depth

    def values(self, raw: Tensor) -> Tensor:
        """To metres in 0..max_depth."""
        return self.max_depth * raw.sigmoid()

    def loss(self, predicted: Tensor, sample: SegDataSample) -> Tensor:
        """Mean square of e = log d - log p, less the square of its mean, plus sqrt(mean(((d - p) / d)²))."""
        truth = _truth(sample, "gt_depth_map", predicted)
        valid = truth > 0
        if not valid.any():
            return predicted.sum() * 0
        true, found = truth[valid], predicted[valid].clamp(min=SMALLEST)
        error = true.log() - found.log()
        relative = ((true - found) / true).square().mean()
        # The root has no gradient at 0, where there is nothing left to learn.
        return error.square().mean() - error.mean().square() + relative.clamp(min=1e-12).sqrt()

    def store(self, predicted: Tensor, sample: SegDataSample) -> None:
        """`pred_depth_map`: metres (1, H, W)."""
        sample.pred_depth_map = PixelData(data=predicted.clamp(min=SMALLEST))


@MODELS.register_module()
class NormalOutput(Output):
    """Surface normals: x to the right, y up, z towards the camera, of length 1."""

    channels = 3

    def values(self, raw: Tensor) -> Tensor:
        """As they are; a mixture is brought to length 1."""
        return raw

    def loss(self, predicted: Tensor, sample: SegDataSample) -> Tensor:
        """Mean of 1 - cosine plus squared distance, over pixels that have a normal."""
        truth = _truth(sample, "gt_normals", predicted)
        valid = truth.square().sum(0) > 0
        if not valid.any():
            return predicted.sum() * 0
        true = F.normalize(truth[:, valid], dim=0)
        found = F.normalize(predicted[:, valid], dim=0)
        return (1 - (true * found).sum(0) + (true - found).square().sum(0)).mean()

    def store(self, predicted: Tensor, sample: SegDataSample) -> None:
        """`pred_normals`: unit vectors (3, H, W)."""
        sample.pred_normals = PixelData(data=F.normalize(predicted, dim=0))


def _truth(sample: SegDataSample, key: str, like: Tensor) -> Tensor:
    """The sample's truth (…, H, W) on the device of `like`.

    Raises:
        UserError: if the sample has none.
    """
    if key not in sample:
        raise UserError(
            f"{sample.get('img_path', 'a sample')} comes without {key}",
            "load it with opsin.LoadDepth, opsin.LoadNormals or opsin.LoadLabels",
        )
    truth: Tensor = sample.get(key).data
    return truth.to(like.device)


def average_loss(output: Output, maps: Tensor, samples: Sequence[Any]) -> Tensor:
    """The mean over pictures of `output`'s loss.

    Args:
        output: what is predicted.
        maps: (B, D, H, W) at the size of the padded batch.
        samples: with `img_shape` and the truth.
    """
    losses = [
        output.loss(cut(predicted, sample).float(), sample)
        for predicted, sample in zip(maps, samples, strict=True)
    ]
    return torch.stack(losses).mean()


def cut(predicted: Tensor, sample: SegDataSample) -> Tensor:
    """A map (D, H, W) without the padding beyond the picture's `img_shape`."""
    height, width = sample.img_shape[:2]
    return predicted[:, :height, :width]


def store_all(output: Output, maps: Tensor, samples: Sequence[SegDataSample]) -> list[SegDataSample]:
    """The samples with their results, in the pictures' original size.

    Args:
        output: what is predicted.
        maps: (B, D, H, W) at the size of the padded batch.
        samples: with `img_shape` and `ori_shape`.
    """
    for predicted, sample in zip(maps, samples, strict=True):
        own = cut(predicted, sample).float()
        size = tuple(sample.get("ori_shape", sample.img_shape)[:2])
        if tuple(own.shape[1:]) != size:
            own = F.interpolate(own[None], size, mode="bilinear", align_corners=False)[0]
        output.store(own, sample)
    return list(samples)
