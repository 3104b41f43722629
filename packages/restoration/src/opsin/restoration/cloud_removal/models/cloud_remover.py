"""The models that train and run a cloud removal network: without a discriminator, and against one.

PMAA's losses (arXiv 2303.16565): 100·L1 of picture and truth, the squared error between each date's cloud
attention and a teacher's mask, optionally L1 of each date's own guess, and a least squares GAN loss that sees
the picture beside its dates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from opsin.core.bare_network import BareNetworkLoading
from opsin.core.errors import UserError
from opsin.registry import MODELS, TASK_UTILS
from opsin.restoration.adversarial import frozen, update_part
from opsin.restoration.cloud_removal.datasets.sample import CloudRemovalSample
from opsin.restoration.cloud_removal.models.pmaa import CloudFree
from opsin.restoration.models.blended_tiling import BlendedTiling, Progress, Region

Config = dict[str, Any]
Losses = dict[str, Tensor]


@MODELS.register_module()
class DifferenceTeacher(nn.Module):
    """Cloud masks by the truth: how far a date lies from the cloud-free picture; needs no weights.

    Args:
        full: mean difference, in the network's units (2 from black to white), from which a mask is 1.
    """

    def __init__(self, full: float = 0.5) -> None:
        super().__init__()
        self.full = full

    def masks(self, dates: Tensor, clear: Tensor) -> Tensor:
        """Masks (B, T, 1, H, W) of dates (B, T, C, H, W); `clear` (B, C', H, W) has their first bands."""
        difference = (dates[:, :, : clear.shape[1]] - clear[:, None]).abs().mean(2, keepdim=True)
        return (difference / self.full).clamp(max=1)


@MODELS.register_module()
class LeastSquaresGANLoss(nn.Module):
    """Squared distance of verdicts from 1 (real) or 0 (made): "Least Squares GANs" (arXiv 1611.04076).

    Args:
        loss_weight: of the generator's part.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def generator(self, fake: Tensor) -> Tensor:
        """Verdicts on made pictures, any shape, to a scalar: small if they are taken for real."""
        return self.loss_weight * (fake - 1).square().mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Verdicts on real and on made pictures to half a loss each: small if they are told apart."""
        return 0.5 * (real - 1).square().mean(), 0.5 * fake.square().mean()


@MODELS.register_module()
class CloudRemover(BareNetworkLoading):
    """A network of several dates to one picture, its losses, and its way of predicting.

    Authors' files, which hold the network alone, can be loaded as they are.

    Args:
        network: config of the network, `dict(type='opsin.PMAA', …)`.
        white: the stored value that becomes 1; 0 becomes -1. 10000 for reflectances, 255 for 8-bit pictures.
        teacher: config of what gives cloud masks to train attention towards; None: no attention loss.
        pixel_weight: of the L1 loss.
        attention_weight: of the attention loss.
        aux_weight: of the dates' own guesses; 0: without, as published by default.
        tile: config of the tiling in prediction; None: whole pictures.
        base: arguments of mmengine's `BaseModel`.

    Attributes:
        progress: called after every tile of a place in prediction, with the tiles done and all tiles.
    """

    progress: Progress | None = None
    optional_parts: tuple[str, ...] = ("teacher",)

    def __init__(
        self,
        network: Config,
        *,
        white: int = 10_000,
        teacher: Config | None = None,
        pixel_weight: float = 100.0,
        attention_weight: float = 1.0,
        aux_weight: float = 0.0,
        tile: Config | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.network = MODELS.build(network)
        self.white = white
        self.teacher = MODELS.build(teacher) if teacher else None
        self.pixel_weight, self.attention_weight, self.aux_weight = pixel_weight, attention_weight, aux_weight
        self.tiling: BlendedTiling | None = TASK_UTILS.build(tile) if tile else None

    def forward(
        self,
        inputs: Sequence[Tensor],
        data_samples: list[CloudRemovalSample] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Runs on places, each (T, C, H, W) of uint8, uint16 or float, in the stored units.

        Args:
            inputs: the places; of one size, except to predict.
            data_samples: their samples, with `gt_img` for the losses.
            mode: `loss` gives a dictionary; `predict` the samples with `pred_img` and `cloud_masks`; `tensor`
                what the network gives.
        """
        if mode == "predict":
            return self.predict(inputs, data_samples)
        dates = self._batch(inputs)
        restored = self.network(dates)
        if mode == "tensor":
            return restored
        return self.restoration_losses(restored, dates, self.truth(data_samples))

    def restoration_losses(self, restored: CloudFree, dates: Tensor, truth: Tensor) -> Losses:
        """`loss_pixel`, and `loss_attention` and `loss_aux` if they are wanted; each sums over the dates."""
        count = dates.shape[1]
        losses = {"loss_pixel": self.pixel_weight * F.l1_loss(restored.image, truth)}
        if self.teacher is not None:
            masks = self.teacher.masks(dates, truth)
            losses["loss_attention"] = self.attention_weight * count * F.mse_loss(restored.masks, masks)
        if self.aux_weight:
            aux = restored.aux[:, :, : truth.shape[1]]
            losses["loss_aux"] = self.aux_weight * count * F.l1_loss(aux, truth[:, None].expand_as(aux))
        return losses

    def truth(self, data_samples: Sequence[CloudRemovalSample] | None) -> Tensor:
        """The cloud-free pictures (B, C, H, W), from -1 to 1.

        Raises:
            UserError: if there are none.
        """
        if data_samples is None:
            raise UserError("a loss needs cloud-free pictures, and the data set gives none")
        return self._batch([sample.gt_img for sample in data_samples])

    def _batch(self, stored: Sequence[Tensor]) -> Tensor:
        return torch.stack([picture.float() for picture in stored]) * (2 / self.white) - 1

    @torch.inference_mode()
    def predict(
        self, inputs: Sequence[Tensor], data_samples: list[CloudRemovalSample] | None
    ) -> list[CloudRemovalSample]:
        """One sample a place, with `pred_img` (C', H, W) in the places' type and `cloud_masks` (T, H, W)."""
        samples = data_samples or [CloudRemovalSample() for _ in inputs]
        for dates, sample in zip(inputs, samples, strict=True):
            image, masks = self._restore(dates)
            stored = ((image + 1) * (self.white / 2)).clip(0, self.white)
            dtype = dates.cpu().numpy().dtype
            sample.pred_img = torch.from_numpy(
                (stored.round() if dtype.kind == "u" else stored).astype(dtype)
            )
            sample.cloud_masks = torch.from_numpy(masks)
        return samples

    def _restore(self, dates: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The picture (C', H, W) from -1 to 1 and the masks (T, H, W) of one place, float32."""
        device = next(self.network.parameters()).device
        tiling = self.tiling or BlendedTiling(size=max(dates.shape[-2:]) + 1, overlap=1)

        def run(region: Region) -> Tensor:
            restored = self.network(self._batch([dates[(..., *region)].to(device)]))
            return torch.cat((restored.masks[0, :, 0], restored.image[0]))

        height, width = dates.shape[-2:]
        whole = tiling.restore(run, height, width, self.progress)
        return whole[len(dates) :], whole[: len(dates)]


@MODELS.register_module()
class AdversarialCloudRemover(CloudRemover):
    """A `CloudRemover` that trains against a discriminator, which is updated first in each step.

    It needs an optimizer for `network` and one for `discriminator` (`opsin.OptimizerPerModule`).

    Args:
        discriminator: config of the network of dates and picture, concatenated, to verdicts.
        gan_loss: config of the GAN loss.
        remover: arguments of `CloudRemover`.
    """

    optional_parts = ("teacher", "discriminator")

    def __init__(self, discriminator: Config, gan_loss: Config | None = None, **remover: Any) -> None:
        super().__init__(**remover)
        self.discriminator = MODELS.build(discriminator)
        self.gan_loss = MODELS.build(gan_loss or dict(type="opsin.LeastSquaresGANLoss"))

    def train_step(self, data: dict[str, Any], optim_wrapper: OptimWrapperDict) -> Losses:
        """One update of the discriminator, then one of the network.

        Args:
            data: `inputs`, places of one size, and `data_samples` with `gt_img`.
            optim_wrapper: has `network` and `discriminator`.

        Returns:
            What is logged: the network's losses and their sum `loss`, and the discriminator's `loss_real` and
            `loss_fake`.

        Raises:
            UserError: if there is one optimizer for the whole model.
        """
        if not isinstance(optim_wrapper, OptimWrapperDict):
            raise UserError(
                "AdversarialCloudRemover needs an optimizer for network and one for discriminator",
                "set optim_wrapper.constructor to opsin.OptimizerPerModule",
            )
        data = self.data_preprocessor(data, True)
        dates, truth = self._batch(data["inputs"]), self.truth(data["data_samples"])
        generator, critic = optim_wrapper["network"], optim_wrapper["discriminator"]
        with generator.optim_context(self.network):
            restored = self.network(dates)
        with critic.optim_context(self.discriminator):
            losses = self.discriminator_losses(restored.image.detach(), dates, truth)
            loss, critic_log = self.parse_losses(losses)
        update_part(self.discriminator, loss, critic)
        with generator.optim_context(self.network):
            losses = self.restoration_losses(restored, dates, truth)
            with frozen(self.discriminator):
                verdicts = self.discriminator(beside(dates, restored.image))
            losses["loss_gan"] = self.gan_loss.generator(verdicts)
            loss, log = self.parse_losses(losses)
        update_part(self.network, loss, generator)
        return {**critic_log, **log}

    def discriminator_losses(self, made: Tensor, dates: Tensor, truth: Tensor) -> Losses:
        """`loss_real` and `loss_fake` of made pictures and the truth (B, C', H, W), beside their dates."""
        real, fake = (self.discriminator(beside(dates, image)) for image in (truth, made))
        loss_real, loss_fake = self.gan_loss.discriminator(real, fake)
        return {"loss_real": loss_real, "loss_fake": loss_fake}


def beside(dates: Tensor, image: Tensor) -> Tensor:
    """Dates (B, T, C, H, W) and a picture (B, C', H, W) as one map (B, T·C + C', H, W)."""
    return torch.cat((dates.flatten(1, 2), image), dim=1)
