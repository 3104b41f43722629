"""The models that mmengine's Runner trains and evaluates: a network, what it learns, and how it tracks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.bare_network import BareNetworkLoading
from opsin.core.data.image import read_image
from opsin.core.errors import UserError
from opsin.registry import MODELS
from opsin.tracking.boxes import ciou, to_corners
from opsin.tracking.datasets.sample import TrackingSample
from opsin.tracking.models.mixformer.network import Prediction
from opsin.tracking.online_memory import UpdateRule
from opsin.tracking.tracker import CropRule, Tracker, normalise

Config = dict[str, Any]
Inputs = dict[str, Sequence[Tensor]]
ROLES = ("template", "online", "search")


@MODELS.register_module()
class SequenceTracker(BareNetworkLoading):
    """Learns boxes (stage 1): 2 (1 - CIoU) + 5 L1 of the corners, in frames that show the target.

    Args:
        network: config of a `MixFormer`.
        crops: arguments of `CropRule` in tracking.
        update: arguments of `UpdateRule` in tracking.
        iou_weight, l1_weight: factors on the losses.
        base: arguments of mmengine's `BaseModel`.
    """

    def __init__(
        self,
        network: Config,
        *,
        crops: Config | None = None,
        update: Config | None = None,
        iou_weight: float = 2.0,
        l1_weight: float = 5.0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.network = MODELS.build(network)
        self.crops, self.update = CropRule(**crops or {}), UpdateRule(**update or {})
        self.iou_weight, self.l1_weight = iou_weight, l1_weight

    def forward(
        self,
        inputs: Any,
        data_samples: list[TrackingSample] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Runs on crops to learn, on whole sequences to predict.

        Args:
            inputs: `template`, `online` and `search`, uint8 (3, H, W) each, a list of each; not read to
                predict, where `data_samples` have the sequences.
            data_samples: with `gt_box` and `label` for the loss, with `sequence` to predict.
            mode: `loss` gives the losses; `predict` the samples with boxes, scores and times of every frame;
                `tensor` the network's `Prediction`.
        """
        if mode == "predict":
            return [self.follow(sample) for sample in data_samples or []]
        crops = {role: normalise(torch.stack(list(inputs[role]))) for role in ROLES}
        if mode == "tensor":
            return self.network(crops["template"], crops["online"], crops["search"])
        if data_samples is None:
            raise UserError("a loss needs boxes, and the data set gives none", "use opsin.TrainingPairs")
        return self.losses(crops, data_samples)

    def losses(self, crops: dict[str, Tensor], data_samples: list[TrackingSample]) -> dict[str, Tensor]:
        """Losses of the predicted boxes, and their mean IoU with the truth."""
        prediction: Prediction = self.network(crops["template"], crops["online"], crops["search"])
        truth = _corners(torch.stack([sample.gt_box for sample in data_samples])).clamp(0, 1)
        boxes = to_corners(prediction.boxes)
        complete, iou = ciou(boxes, truth)
        return {
            "loss_iou": self.iou_weight * (1 - complete).mean(),
            "loss_l1": self.l1_weight * F.l1_loss(boxes, truth),
            "iou": iou.mean().detach(),
        }

    def tracker(self) -> Tracker:
        """A tracker of this network with its crops and update rule."""
        return Tracker(self.network, self.crops, self.update)

    def follow(self, sample: TrackingSample) -> TrackingSample:
        """Tracks `sample.sequence` from its first box: boxes, scores and seconds of every frame."""
        frames, first = sample.sequence.frames, sample.sequence.boxes[0].tolist()
        tracker = self.tracker()
        boxes, scores, seconds = [first], [float("nan")], []
        for number, path in enumerate(frames):
            image = read_image(path)
            start = time.perf_counter()
            if number == 0:
                tracker.start(image, [tuple(first)])
            else:
                found = tracker.track(image)[0]
                boxes.append(list(found.box))
                scores.append(float("nan") if found.score is None else found.score)
            seconds.append(time.perf_counter() - start)
        sample.pred_boxes = torch.tensor(boxes, dtype=torch.float64)
        sample.pred_scores, sample.seconds = torch.tensor(scores), torch.tensor(seconds)
        return sample


@MODELS.register_module()
class ScoreTracker(SequenceTracker):
    """Learns the score (stage 2): binary cross-entropy, with all but the score head fixed.

    The box that is scored is the truth, or the negative's; arguments are `SequenceTracker`'s.

    Raises:
        UserError: if the network has no score head.
    """

    def __init__(self, network: Config, **tracker: Any) -> None:
        super().__init__(network, **tracker)
        if self.network.score_branch is None:
            raise UserError("stage 2 trains the score head, and this network has none", "give network.score")
        self.network.requires_grad_(False)
        self.network.score_branch.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Training mode for the score head alone."""
        super().train(mode)
        for name, part in self.network.named_children():
            part.train(mode and name == "score_branch")
        return self

    def losses(self, crops: dict[str, Tensor], data_samples: list[TrackingSample]) -> dict[str, Tensor]:
        """The loss of the scores, and how many of them are on the right side."""
        boxes = _corners(torch.stack([sample.gt_box for sample in data_samples]))
        labels = torch.stack([sample.label for sample in data_samples]).to(boxes)
        with torch.no_grad():
            memory = self.network.remember(crops["template"], crops["online"])
        logits = self.network.look(crops["search"], memory, boxes).logits
        right = ((logits > 0) == (labels > 0.5)).float().mean()
        return {"loss_score": F.binary_cross_entropy_with_logits(logits, labels), "right": right}


def _corners(boxes: Tensor) -> Tensor:
    """x, y, w, h to x1, y1, x2, y2."""
    return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)
