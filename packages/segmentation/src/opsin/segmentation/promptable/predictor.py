"""Prediction with promptable models: an image is encoded once and then asked as often as one likes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.core.data import write_image
from opsin.core.engine.predictor import Predictor, Source
from opsin.core.errors import UserError
from opsin.segmentation.promptable.datasets.run_lengths import encode
from opsin.segmentation.promptable.models.mask_answers import Size, distinct_masks, grid_points, stability
from opsin.segmentation.promptable.models.rwkv_sam.network import PROMPTS_AT_ONCE, RWKVSAM, ImageFeatures
from opsin.segmentation.promptable.prompts import POSITIVE, Prompts
from opsin.segmentation.promptable.visualization import draw_masks

Rgb = NDArray[np.uint8]

POINTS_PER_SIDE = 32
LEAST_STABILITY = 0.8
LEAST_AREA = 20  # pixels
BOX_IOU = 0.7  # of two masks whose boxes overlap more, one stays


@dataclass(frozen=True)
class FoundMasks:
    """Masks (N, H, W) bool of a picture, and how firm each is, (N,) in [0, 1]."""

    masks: NDArray[np.bool_]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class EncodedImage:
    """A picture that the encoder has seen; every question costs a pass of the decoder alone.

    Args:
        model: the network.
        features: what its decoder reads.
        resized: rows and columns of the picture as the network sees it.
        original: those of the picture itself.
    """

    model: RWKVSAM
    features: ImageFeatures
    resized: Size
    original: Size

    def segment(self, prompts: Prompts) -> FoundMasks:
        """One mask a prompt, in its order.

        Args:
            prompts: in pixels of the picture.

        Raises:
            UserError: for a point or a box outside the picture, an empty box, or an unknown label.
        """
        _check(prompts, self.original)
        masks, scores = self._answer(prompts)
        return FoundMasks(masks.cpu().numpy(), scores.double().cpu().numpy())

    def everything(
        self, points_per_side: int = POINTS_PER_SIDE, *, least_stability: float = LEAST_STABILITY
    ) -> FoundMasks:
        """Masks of everything: a grid of points is asked, and of like answers the firmest stays.

        Args:
            points_per_side: the grid has its square.
            least_stability: answers less firm than this go.

        Returns:
            The masks, largest first.

        Raises:
            UserError: for a grid without points.
        """
        if points_per_side < 1:
            raise UserError(f"points_per_side={points_per_side}", "give 1 or more")
        grid = grid_points(points_per_side, self.original).to(self.features.embedding.device)
        kept_masks, kept_scores = [], []
        for points in grid.split(PROMPTS_AT_ONCE):
            labels = torch.full(points.shape[:2], POSITIVE, device=points.device)
            masks, scores = self._answer(Prompts(points, labels))
            good = (scores >= least_stability) & (masks.flatten(1).sum(1) >= LEAST_AREA)
            kept_masks.append(masks[good])
            kept_scores.append(scores[good])
        masks, scores = torch.cat(kept_masks), torch.cat(kept_scores)
        left = distinct_masks(masks, scores, iou_threshold=BOX_IOU)
        left = left[masks[left].flatten(1).sum(1).argsort(descending=True, stable=True)]
        return FoundMasks(masks[left].cpu().numpy(), scores[left].double().cpu().numpy())

    @torch.inference_mode()
    def _answer(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Masks (N, H, W) and their stability (N,)."""
        scale = (self.resized[1] / self.original[1], self.resized[0] / self.original[0])
        asked = prompts.to(self.features.embedding.device).scaled(*scale)
        logits = self.model.answer(self.features, asked, self.resized, self.original)
        return logits > 0, stability(logits)


class PromptablePredictor(Predictor):
    """Masks of everything in files; of what one asks for by `encode`.

    A config's `everything` has arguments of `EncodedImage.everything`.

    * `masks/NAME.png`: 16-bit, a pixel is the number of its mask from 1 in the order of the json, 0 none;
      a smaller mask lies over a larger one;
    * `pictures/NAME.png`: the masks in colours over the picture;
    * `predictions.json`: of each picture its size and masks: `segmentation` (COCO's run lengths), `bbox`
      (x, y, width, height), `area`, `stability_score`, as in SA-1B's files.
    """

    def encode(self, image: Rgb, path: Path = Path("image")) -> EncodedImage:
        """An RGB picture (H, W, 3) to what can be asked for masks.

        Args:
            image: uint8.
            path: its name, for errors.
        """
        with torch.inference_mode():
            data = self.model.data_preprocessor(self.batch(image, path), False)
            features = self.model.encode(data["inputs"])[0]
        resized = data["data_samples"][0].img_shape
        return EncodedImage(self.model, features, tuple(resized[:2]), image.shape[:2])

    def infer(self, image: Rgb, path: Path) -> FoundMasks:
        """Masks of everything in the picture."""
        return self.encode(image, path).everything(**self.cfg.get("everything", {}))

    def record(self, result: FoundMasks, image: Rgb, path: Path) -> dict[str, Any]:
        """Size of the picture, and its masks."""
        masks = [describe(mask, score) for mask, score in zip(result.masks, result.scores, strict=True)]
        return {"height": image.shape[0], "width": image.shape[1], "masks": masks}

    def picture(self, result: FoundMasks, image: Rgb) -> Rgb:
        """The masks in colours over the picture."""
        return draw_masks(image, result.masks)

    def save(self, result: FoundMasks, image: Rgb, source: Source, out: Path) -> None:
        """Writes the picture of mask numbers."""
        write_image(out / "masks" / source.name.with_suffix(".png"), numbered(result.masks, image.shape[:2]))


def describe(mask: NDArray[np.bool_], score: float) -> dict[str, Any]:
    """One mask (H, W) as SA-1B's files have it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [0, 0, 0, 0]
    if len(rows):
        left, top = int(columns[0]), int(rows[0])
        box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {
        "bbox": box,
        "area": int(mask.sum()),
        "stability_score": round(float(score), 4),
        "segmentation": encode(mask),
    }


def numbered(masks: NDArray[np.bool_], size: Size) -> NDArray[np.uint16]:
    """Masks (N, H, W), largest first, to a picture of their numbers from 1; later ones lie over earlier."""
    numbers = np.zeros(size, np.uint16)
    for number, mask in enumerate(masks, start=1):
        numbers[mask] = number
    return numbers


def _check(prompts: Prompts, size: Size) -> None:
    """Raises `UserError` unless all that is asked lies in a picture of `size` (rows, columns)."""
    height, width = size
    if prompts.points is not None and prompts.labels is not None:
        for x, y in prompts.points.flatten(0, 1)[prompts.labels.flatten() >= 0].tolist():
            if not (0 <= x < width and 0 <= y < height):
                raise UserError(f"point {x:g},{y:g} lies outside the picture of {width}x{height}")
        bad = prompts.labels[(prompts.labels < -1) | (prompts.labels > 1)]
        if len(bad):
            raise UserError(f"a point has label {int(bad[0])}", "use 1 (inside the mask) or 0 (outside)")
    for x1, y1, x2, y2 in [] if prompts.boxes is None else prompts.boxes.tolist():
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            box = f"{x1:g},{y1:g},{x2:g},{y2:g}"
            raise UserError(
                f"box {box} is empty or leaves the picture of {width}x{height}", "give x1,y1,x2,y2 in pixels"
            )
