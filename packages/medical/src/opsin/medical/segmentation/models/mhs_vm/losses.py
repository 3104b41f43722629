"""The losses of MHS-VM: pixel-wise entropy plus Dice, for one class and for several.

What a naive reading gets wrong: for one class Dice is taken of each picture and averaged, with 1 added above
and below; for several it is taken over the whole batch, with squares below, and averaged over all classes,
the background among them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.registry import MODELS


def soft_dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of each picture, averaged. Both (N, …) in [0, 1]; the target may be soft."""
    p, t = probability.flatten(1), target.flatten(1)
    return 1 - ((2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).mean()


def class_dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of each class over the batch, averaged over the classes.

    Args:
        probability: (N, K, …), which sums to 1 over K.
        target: classes (N, …), integers below K.
    """
    one_hot = F.one_hot(target.long(), probability.shape[1]).movedim(-1, 1).to(probability)
    over = (0, *range(2, probability.ndim))
    both = (probability * one_hot).sum(over)
    squares = probability.square().sum(over) + one_hot.sum(over)
    return (1 - (2 * both + 1e-5) / (squares + 1e-5)).mean()


@MODELS.register_module()
class BCEDiceLoss(nn.Module):
    """Binary cross-entropy and Dice of logits for one class.

    Args:
        bce_weight: weight of the cross-entropy.
        dice_weight: weight of the Dice loss.
    """

    def __init__(self, bce_weight: float = 1.0, dice_weight: float = 1.0) -> None:
        super().__init__()
        self.bce_weight, self.dice_weight = bce_weight, dice_weight

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Logits (N, 1, …) and masks (N, …) in [0, 1], perhaps soft, to `loss_bce` and `loss_dice`."""
        wide = logits.squeeze(1).to(torch.promote_types(logits.dtype, torch.float32))
        target = target.to(wide)
        bce = F.binary_cross_entropy_with_logits(wide, target)
        dice = soft_dice_loss(wide.sigmoid(), target)
        return {"loss_bce": self.bce_weight * bce, "loss_dice": self.dice_weight * dice}


@MODELS.register_module()
class CEDiceLoss(nn.Module):
    """Cross-entropy and Dice of logits for several classes.

    Args:
        ce_weight: weight of the cross-entropy.
        dice_weight: weight of the Dice loss.
    """

    def __init__(self, ce_weight: float = 0.4, dice_weight: float = 0.6) -> None:
        super().__init__()
        self.ce_weight, self.dice_weight = ce_weight, dice_weight

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Logits (N, K, …) and classes (N, …) to `loss_ce` and `loss_dice`."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        ce = F.cross_entropy(wide, target.long())
        dice = class_dice_loss(wide.softmax(1), target)
        return {"loss_ce": self.ce_weight * ce, "loss_dice": self.dice_weight * dice}
