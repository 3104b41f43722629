"""The model that trains a super-resolution network against a discriminator, for real-world photographs.

Its losses are those of "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks" (arXiv 1809.00219)
and Real-ESRGAN (arXiv 2107.10833), as HAT's real-world models use them: L1 and perceptual loss against the
target, which may be sharpened (`sharp_img`), and a GAN loss whose real pictures are not (`gt_img`).

A step trains the network against the discriminator as it stands, then the discriminator on the pictures that
the network made before its update. Testing and predicting need the network alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import MODELS
from opsin.restoration.adversarial import frozen, update_part
from opsin.restoration.datasets.sample import SuperResolutionSample
from opsin.restoration.models.super_resolver import Config, SuperResolver, batch, targets

Losses = dict[str, Tensor]


@MODELS.register_module()
class VanillaGANLoss(nn.Module):
    """The first GAN loss: cross-entropy of "real" and "made", which the generator's part turns round.

    "Generative Adversarial Networks" (arXiv 1406.2661), in the form that does not saturate.

    Args:
        loss_weight: of the generator's part; the discriminator's is not weighted.
    """

    def __init__(self, loss_weight: float = 0.1) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def generator(self, fake: Tensor) -> Tensor:
        """Logits of made pictures, any shape, to a scalar: small if they are taken for real."""
        return self.loss_weight * F.softplus(-fake).mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of real and of made pictures to a scalar each: small if they are told apart."""
        return F.softplus(-real).mean(), F.softplus(fake).mean()


@MODELS.register_module()
class RealWorldSuperResolver(SuperResolver):
    """A `SuperResolver` that trains against a discriminator.

    It needs an optimizer for `network` and one for `discriminator` (`opsin.OptimizerPerModule`). A file
    without a discriminator, an authors' one or one of a training by L1 alone, can be loaded too.

    Args:
        discriminator: config of the network (N, 3, H, W) to logits of any shape.
        gan_loss: config of the GAN loss.
        perceptual_loss: config of the perceptual loss; None: without.
        resolver: arguments of `SuperResolver`.
    """

    optional_parts = ("discriminator",)

    def __init__(
        self,
        discriminator: Config,
        gan_loss: Config | None = None,
        perceptual_loss: Config | None = None,
        **resolver: Any,
    ) -> None:
        super().__init__(**resolver)
        self.discriminator = MODELS.build(discriminator)
        self.gan_loss = MODELS.build(gan_loss or dict(type="opsin.VanillaGANLoss"))
        self.perceptual_loss = MODELS.build(perceptual_loss) if perceptual_loss else None

    def train_step(self, data: dict[str, Any], optim_wrapper: OptimWrapperDict) -> Losses:
        """One update of the network, then one of the discriminator.

        Args:
            data: `inputs`, LR pictures of one size, and `data_samples` with `gt_img`.
            optim_wrapper: has `network` and `discriminator`.

        Returns:
            What is logged: the network's losses and their sum `loss`, the discriminator's `loss_real` and
            `loss_fake`, and its mean logits `logit_real` and `logit_fake`.

        Raises:
            UserError: if there is one optimizer for the whole model.
        """
        if not isinstance(optim_wrapper, OptimWrapperDict):
            raise UserError(
                "RealWorldSuperResolver needs an optimizer for network and one for discriminator",
                "set optim_wrapper.constructor to opsin.OptimizerPerModule",
            )
        data = self.data_preprocessor(data, True)
        inputs, samples = data["inputs"], data["data_samples"]
        generator, critic = optim_wrapper["network"], optim_wrapper["discriminator"]
        with generator.optim_context(self.network):
            restored = self.network(batch(inputs))
            loss, log = self.parse_losses(self.generator_losses(restored, samples))
        update_part(self.network, loss, generator)
        with critic.optim_context(self.discriminator):
            losses = self.discriminator_losses(restored.detach(), samples)
            loss, critic_log = self.parse_losses(losses)
        update_part(self.discriminator, loss, critic)
        return {**critic_log, **log}

    def generator_losses(self, restored: Tensor, samples: Sequence[SuperResolutionSample]) -> Losses:
        """`loss_pixel`, `loss_perceptual` if there is one, and `loss_gan` of pictures (N, 3, H, W)."""
        target = targets(samples)
        losses = {"loss_pixel": self.pixel_loss(restored, target)}
        if self.perceptual_loss is not None:
            losses["loss_perceptual"] = self.perceptual_loss(restored, target)
        with frozen(self.discriminator):
            losses["loss_gan"] = self.gan_loss.generator(self.discriminator(restored))
        return losses

    def discriminator_losses(self, restored: Tensor, samples: Sequence[SuperResolutionSample]) -> Losses:
        """`loss_real`, `loss_fake` and mean logits, for pictures (N, 3, H, W) and their `gt_img`."""
        real = self.discriminator(batch([sample.gt_img for sample in samples]))
        fake = self.discriminator(restored)
        loss_real, loss_fake = self.gan_loss.discriminator(real, fake)
        logits = {"logit_real": real.detach().mean(), "logit_fake": fake.detach().mean()}
        return {"loss_real": loss_real, "loss_fake": loss_fake, **logits}
