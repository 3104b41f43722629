"""What a masked autoencoder makes of pictures and volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from opsin.core.engine.predictor import Predictor
from opsin.medical.pretraining.models.uni4eye.targets import patchify, unpatchify
from opsin.medical.takes_volumes import TakesVolumes

Image = NDArray[np.uint8]


class ReconstructionPredictor(TakesVolumes, Predictor):
    """Writes `pictures/`: the input, what of it is seen, what is reconstructed, and its edges, side by side.

    Of a volume the slice in the middle of its second axis is shown. A record has `explained`, the share of
    the hidden numbers' variance that the reconstruction explains.
    """

    def infer(self, image: Image, path: Path) -> Any:
        """The model's result, with the input itself as `given`."""
        batch = self.batch(image, path)
        with torch.inference_mode():
            result = self.model.test_step(batch)[0]
        result.given = batch["inputs"][0]
        return result

    def record(self, result: Any, image: Image, path: Path) -> dict[str, Any]:
        """How much of what was hidden is explained."""
        hidden = result.mask.bool()
        wanted, found = result.target[hidden], result.prediction[hidden]
        error, spread = (wanted - found).square().sum(), (wanted - wanted.mean()).square().sum()
        return {"explained": float(1 - error / spread.clamp(min=1e-12))}

    def picture(self, result: Any, image: Image) -> Image:
        """Input, what is seen of it, its reconstruction, its edges."""
        patch = self.model.encoder.patch_size
        grid = tuple(side // patch for side in result.given.shape[1:])

        def whole(patches: torch.Tensor) -> torch.Tensor:
            return unpatchify(patches[None], grid, patch)[0]

        mask, prediction = result.mask[:, None], result.prediction
        given = patchify(result.given[None].float(), patch)[0]
        if self.model.norm_pix_loss:  # the network gives patches without their mean and deviation
            prediction = prediction * given.std(-1, keepdim=True) + given.mean(-1, keepdim=True)
        parts = [
            given,
            given * (1 - mask),
            prediction * mask + given * (1 - mask),
            result.gradient_prediction,
        ]
        return np.concatenate([_as_picture(_middle(whole(part))) for part in parts], 1)


def _middle(x: torch.Tensor) -> torch.Tensor:
    """A picture (C, H, W) as it is, of a volume (1, A, B, C) the slice in the middle of B."""
    return x if x.ndim == 3 else x[:, :, x.shape[2] // 2]


def _as_picture(x: torch.Tensor) -> Image:
    """(C, H, W) of any range as RGB uint8 (H, W, 3)."""
    x = x.float()
    low, high = (x.min(), x.max()) if x.shape[0] == 1 else (torch.tensor(0.0), torch.tensor(1.0))
    scaled = ((x - low) / (high - low).clamp(min=1e-6)).clamp(0, 1) * 255
    picture: Image = scaled.byte().permute(1, 2, 0).expand(-1, -1, 3).numpy()
    return np.ascontiguousarray(picture)
