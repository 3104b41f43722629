"""Learning from a teacher's labels (DeiT: Training data-efficient image transformers, arXiv 2012.12877)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.registry import MODELS

KINDS = ("hard", "soft")


@MODELS.register_module()
class Distillation(nn.Module):
    """Adds to a classification loss how far the network is from a teacher.

    The teacher sees the same images, after batch augmentation. It is no part of checkpoints.

    Args:
        teacher: a network that maps images to logits of the same classes; its weights come by its `init_cfg`,
            `dict(type='opsin.Published', checkpoint=PATH)`.
        kind: 'hard' learns the teacher's likeliest class, 'soft' its probabilities.
        alpha: share of the teacher in the loss, in [0, 1].
        tau: temperature of 'soft'.

    Raises:
        UserError: for another kind or an alpha outside [0, 1].
    """

    teacher: nn.Module

    def __init__(
        self,
        teacher: dict[str, Any],
        kind: Literal["hard", "soft"] = "hard",
        alpha: float = 0.5,
        tau: float = 1.0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("kind of distillation", kind, KINDS)
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha={alpha} of Distillation", "give a number in [0, 1]")
        built = MODELS.build(teacher)
        if hasattr(built, "init_weights"):
            built.init_weights()
        # not a submodule: neither saved, nor averaged, nor trained
        object.__setattr__(self, "teacher", built.eval().requires_grad_(False))
        self.kind, self.alpha, self.tau = kind, alpha, tau

    def forward(self, images: Tensor, distilled: Tensor, loss: Tensor) -> Tensor:
        """The whole loss.

        Args:
            images: (N, 3, H, W).
            distilled: logits (N, C) of the head that follows the teacher.
            loss: the classification loss of the other head.
        """
        with torch.no_grad():
            taught = self.teacher.to(images.device)(images)
        if self.kind == "hard":
            apart = F.cross_entropy(distilled, taught.argmax(1))
        else:
            log_taught, log_given = ((logits / self.tau).log_softmax(1) for logits in (taught, distilled))
            apart = F.kl_div(log_given, log_taught, reduction="sum", log_target=True)
            apart = apart * self.tau**2 / distilled.numel()
        return loss * (1 - self.alpha) + apart * self.alpha
