"""The model that trains and runs a super-resolution network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.bare_network import BareNetworkLoading
from opsin.core.errors import UserError
from opsin.registry import MODELS, TASK_UTILS
from opsin.restoration.datasets.sample import SuperResolutionSample
from opsin.restoration.models.tiling import Progress, Untiled, restore, white_of

Config = dict[str, Any]


@MODELS.register_module()
class PixelL1Loss(nn.Module):
    """Mean absolute difference of two pictures, times `loss_weight`."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar."""
        return self.loss_weight * F.l1_loss(image, target)


@MODELS.register_module()
class SuperResolver(BareNetworkLoading):
    """A network (N, 3, H, W) in [0, 1] to (N, 3, scale·H, scale·W), its loss, and its way of predicting.

    Args:
        network: config of the network, `dict(type='opsin.HAT', …)`; it has `upscale`.
        pixel_loss: config of the loss.
        tile: how pictures are cut in prediction, `dict(type='opsin.BlockwiseTiling', size=128)`; None: whole.
        base: arguments of mmengine's `BaseModel`.

    Attributes:
        progress: called after every tile of a picture in prediction, with the tiles done and all tiles.
    """

    progress: Progress | None = None

    def __init__(
        self,
        network: Config,
        pixel_loss: Config | None = None,
        tile: Config | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.network = MODELS.build(network)
        self.pixel_loss = MODELS.build(pixel_loss or dict(type="opsin.PixelL1Loss"))
        self.tiling = TASK_UTILS.build(tile) if tile else Untiled()

    def forward(
        self,
        inputs: Sequence[Tensor],
        data_samples: list[SuperResolutionSample] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Runs on LR pictures (3, H, W) of uint8 or uint16, or floats in [0, 1].

        Args:
            inputs: the pictures; of one size, except to predict.
            data_samples: their samples, with `gt_img` for the loss.
            mode: `loss` gives `{"loss_pixel": …}`; `predict` the samples with `pred_img`, in the pictures'
                own type; `tensor` the network's result, not clamped.
        """
        if mode == "predict":
            return self.predict(inputs, data_samples)
        restored = self.network(batch(inputs))
        if mode == "tensor":
            return restored
        return {"loss_pixel": self.pixel_loss(restored, targets(data_samples))}

    def predict(
        self, inputs: Sequence[Tensor], data_samples: list[SuperResolutionSample] | None
    ) -> list[SuperResolutionSample]:
        """One sample a picture, with `pred_img` (3, scale·H, scale·W) in the picture's own type."""
        samples = data_samples or [SuperResolutionSample() for _ in inputs]
        for image, sample in zip(inputs, samples, strict=True):
            pixels = image.cpu().permute(1, 2, 0).numpy()
            restored = restore(self.network, pixels, self.tiling, self.progress)
            sample.pred_img = torch.from_numpy(restored).permute(2, 0, 1)
        return samples


def targets(data_samples: Sequence[SuperResolutionSample] | None) -> Tensor:
    """What restored pictures should be, (N, 3, H, W) from 0 to 1: `sharp_img`, or `gt_img` if there is none.

    Raises:
        UserError: if there are no HR pictures.
    """
    if data_samples is None:
        raise UserError(
            "a loss needs HR pictures, and the data set gives none", "use opsin.PairedImageDataset"
        )
    return batch([sample.get("sharp_img", sample.gt_img) for sample in data_samples])


def batch(images: Sequence[Tensor]) -> Tensor:
    """Pictures of one size and type to floats (N, 3, H, W) where 1 is white."""
    return torch.stack(list(images)).float() / white_of(images[0].dtype)
