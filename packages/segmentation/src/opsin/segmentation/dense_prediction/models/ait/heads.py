"""What AiT does for one task each: tokens and losses out of a truth, results out of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.published import place, read_checkpoint
from opsin.segmentation.dense_prediction.models.ait import objects
from opsin.segmentation.dense_prediction.models.ait.depth import (
    at_shorter_side,
    predict_depth,
    silog,
    square_windows,
)
from opsin.segmentation.dense_prediction.models.ait.task_solver import (
    BOX_WORDS,
    DEPTH,
    DETECTION,
    INSTANCES,
    TaskSolver,
)
from opsin.segmentation.dense_prediction.models.ait.tokenizer import VQVAE


class TokenizedHead(nn.Module):
    """A head with a tokenizer, which is trained before and stays as it is.

    Args:
        tokenizer: arguments of `VQVAE`.
        checkpoint: the tokenizer's file: the authors', or a checkpoint of `opsin.AiTTokenizer`.
    """

    def __init__(self, tokenizer: Mapping[str, Any], checkpoint: str | None) -> None:
        super().__init__()
        self.vqvae = VQVAE(**tokenizer)
        if checkpoint is not None:
            place(self.vqvae, read_tokenizer(checkpoint), source=checkpoint)
        self.vqvae.requires_grad_(False)
        self.vqvae.eval()

    def train(self, mode: bool = True) -> TokenizedHead:
        """The tokenizer stays in eval mode: its codes do not move."""
        super().train(mode)
        self.vqvae.eval()
        return self

    def check_trained(self) -> None:
        """Says so if nothing was ever assigned to the tokenizer's codes."""
        if self.vqvae._vq_vae.is_new:
            kind = type(self).__name__.removesuffix("Head").lower()
            raise UserError(
                f"AiT's tokenizer for {kind} is untrained, so its tokens mean nothing",
                f"train one with opsin.AiTTokenizer and give it as model.{kind}.checkpoint=FILE",
            )


def read_tokenizer(path: str) -> dict[str, Tensor]:
    """The tensors of a tokenizer's file, the authors' (`weights`) or of `opsin.AiTTokenizer` (`vqvae.…`)."""
    try:
        tensors = read_checkpoint(path)
    except UserError:
        tensors = read_checkpoint(path, "weights")
    own = {n.removeprefix("vqvae."): t for n, t in tensors.items() if n.startswith("vqvae.")}
    return own or tensors


class DepthHead(TokenizedHead):
    """Depth as a grid of tokens.

    Args:
        tokenizer: arguments of `VQVAE`.
        checkpoint: the tokenizer's file.
        weight: of both losses.
        pixel_weight: of the error of the decoded depth.
        soft: decodes probabilities of codes instead of codes; without it there is no pixel loss.
    """

    def __init__(
        self,
        tokenizer: Mapping[str, Any],
        *,
        checkpoint: str | None = None,
        weight: float = 1.0,
        pixel_weight: float = 1.0,
        soft: bool = True,
    ) -> None:
        super().__init__({"use_norm": False, **tokenizer}, checkpoint)
        self.weight, self.pixel_weight, self.soft = weight, pixel_weight, soft

    def loss(self, solver: TaskSolver, feature: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Losses of the words and of the pixels.

        Args:
            solver: the task solver.
            feature: (B, C, h, w).
            truth: metres (B, S, S), 0 where unknown.
        """
        self.check_trained()
        part = solver.words.depth
        tokens = self.vqvae.encode(truth) + part.start
        task = torch.full((len(tokens),), DEPTH, device=tokens.device)
        logits = solver(feature, tokens[:, :-1], task)
        losses = {"depth.loss_words": self.weight * objects.word_loss(logits, tokens, solver.words, 1.0)}
        if self.soft:
            codes = logits[..., part.start : part.stop].transpose(1, 2)
            depth = self.vqvae.decode_soft(codes.unflatten(2, (self.vqvae.grid, self.vqvae.grid)))
            losses["depth.loss_pixels"] = self.weight * self.pixel_weight * silog(depth, truth)
        return losses

    def predict(self, backbone: nn.Module, solver: TaskSolver, image: Tensor) -> Tensor:
        """Metres (B, H, W) of normalised images (B, 3, H, W) of any size."""

        def of_window(window: Tensor) -> Tensor:
            return predict_depth(backbone, solver, self.vqvae, window, soft=self.soft)

        return at_shorter_side(image, self.vqvae.mask_size, lambda x: square_windows(x, of_window))


class InstancesHead(TokenizedHead):
    """Objects with masks as tokens.

    Args:
        tokenizer: arguments of `VQVAE`.
        checkpoint: the tokenizer's file.
        count: objects of a sequence.
        extent: pixels that the coordinates' words span.
        mask_weight: of mask codes among the words, and a factor of the pixel loss.
        pixel_weight: of the pixel loss.
        soft: as in `DepthHead`.
    """

    def __init__(
        self,
        tokenizer: Mapping[str, Any],
        *,
        checkpoint: str | None = None,
        count: int = 100,
        extent: float = 640.0,
        mask_weight: float = 0.2,
        pixel_weight: float = 5.0,
        soft: bool = True,
    ) -> None:
        super().__init__(tokenizer, checkpoint)
        self.count, self.extent = count, extent
        self.mask_weight, self.pixel_weight, self.soft = mask_weight, pixel_weight, soft

    def loss(
        self, solver: TaskSolver, feature: Tensor, truth: list[InstanceData], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Losses of the words and of the pixels.

        Args:
            solver: the task solver.
            feature: (B, C, h, w).
            truth: each picture's `bboxes` (N, 4), `labels` (N,), `masks` (mmdet's bitmaps).
            size: height and width of the batch.
        """
        self.check_trained()
        grid = self.vqvae.grid
        shuffled = [one[torch.randperm(len(one))][: self.count] for one in truth]
        crops = [crop_masks(one, self.vqvae.mask_size) for one in shuffled]
        sequences = [
            objects.object_sequence(
                solver.words,
                corners(one),
                one.labels,
                self.vqvae.encode(crop),
                count=self.count,
                extent=self.extent,
                size=size,
            )
            for one, crop in zip(shuffled, crops, strict=True)
        ]
        fed = torch.stack([s.fed for s in sequences])
        wanted = torch.stack([s.wanted for s in sequences])
        task = torch.full((len(fed),), INSTANCES, device=fed.device)
        logits = solver(feature, fed[:, :-1], task)
        losses = {"instances.loss_words": objects.word_loss(logits, wanted, solver.words, self.mask_weight)}
        target = torch.cat(crops)
        if self.soft and len(target):
            part = solver.words.masks
            each = logits.unflatten(1, (self.count, -1))[:, :, BOX_WORDS + 1 :, part.start : part.stop]
            of_real = torch.cat([own[: len(crop)] for own, crop in zip(each, crops, strict=True)])
            masks = self.vqvae.decode_soft(of_real.transpose(1, 2).unflatten(2, (grid, grid)))
            share = len(target) * grid**2 / (wanted != objects.IGNORE).sum()
            factor = self.pixel_weight * self.mask_weight * share
            losses["instances.loss_pixels"] = factor * objects.mask_loss(masks, target)
        return losses

    def predict(
        self, solver: TaskSolver, feature: Tensor, sizes: list[tuple[int, int]]
    ) -> list[InstanceData]:
        """Boxes, classes, scores and masks of every picture, in pixels of the batch.

        Args:
            solver: the task solver.
            feature: (B, C, h, w).
            sizes: height and width of each picture.
        """
        grid = self.vqvae.grid
        found = solver.write_objects(feature, self.count, grid**2)
        boxes = objects.boxes_of(found.boxes, self.extent, solver.words.num_bins)
        if self.soft:
            logits = found.mask_logits.flatten(0, 1).transpose(1, 2).unflatten(2, (grid, grid))
            masks = self.vqvae.decode_soft(logits)
        else:
            masks = self.vqvae.decode(found.masks.flatten(0, 1))
        masks = masks.unflatten(0, found.classes.shape)
        return [
            InstanceData(
                bboxes=clipped(boxes[i], size),
                labels=found.classes[i],
                scores=found.scores[i],
                masks=objects.paste(masks[i], boxes[i], size),
            )
            for i, size in enumerate(sizes)
        ]


class DetectionHead(nn.Module):
    """Objects without masks as tokens.

    Args:
        count: objects of a sequence.
        extent: pixels that the coordinates' words span.
    """

    def __init__(self, *, count: int = 100, extent: float = 640.0) -> None:
        super().__init__()
        self.count, self.extent = count, extent

    def loss(
        self, solver: TaskSolver, feature: Tensor, truth: list[InstanceData], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """The loss of the words; arguments as in `InstancesHead`."""
        sequences = []
        for one in truth:
            one = one[torch.randperm(len(one))]
            sequences.append(
                objects.object_sequence(
                    solver.words,
                    corners(one),
                    one.labels,
                    one.labels.new_zeros(len(one), 0),
                    count=self.count,
                    extent=self.extent,
                    size=size,
                )
            )
        fed = torch.stack([s.fed for s in sequences])
        wanted = torch.stack([s.wanted for s in sequences])
        task = torch.full((len(fed),), DETECTION, device=fed.device)
        logits = solver(feature, fed[:, :-1], task)
        return {"detection.loss_words": objects.word_loss(logits, wanted, solver.words, 1.0)}

    def predict(
        self, solver: TaskSolver, feature: Tensor, sizes: list[tuple[int, int]]
    ) -> list[InstanceData]:
        """Boxes, classes and scores of every picture; arguments as in `InstancesHead`."""
        found = solver.write_objects(feature, self.count, 0)
        boxes = objects.boxes_of(found.boxes, self.extent, solver.words.num_bins)
        return [
            InstanceData(bboxes=clipped(boxes[i], size), labels=found.classes[i], scores=found.scores[i])
            for i, size in enumerate(sizes)
        ]


def corners(truth: InstanceData) -> Tensor:
    """The boxes (N, 4) of mmdet's box structures, or a plain tensor's."""
    boxes: Tensor = getattr(truth.bboxes, "tensor", truth.bboxes)
    return boxes


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) inside a picture of this height and width."""
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def crop_masks(truth: InstanceData, size: int) -> Tensor:
    """What lies in each object's box of its mask, as (N, size, size) zeros and ones."""
    boxes = corners(truth)
    if not len(boxes):
        return boxes.new_zeros(0, size, size)
    every = torch.arange(len(boxes), device=boxes.device)
    cropped = truth.masks.crop_and_resize(boxes.cpu(), (size, size), every.cpu(), device="cpu")
    return torch.from_numpy(cropped.masks).to(boxes)
