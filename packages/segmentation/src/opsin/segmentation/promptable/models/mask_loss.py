"""Dice and cross entropy of masks at sampled points, most of them where the answer is unsure.

PointRend (arXiv 1912.08193) and Mask2Former (arXiv 2112.01527): three times as many places as wanted are
looked at, three quarters of the wanted ones are those whose logit is nearest to zero, the rest are drawn
evenly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.registry import MODELS


def values_at(maps: Tensor, places: Tensor) -> Tensor:
    """Maps (N, H, W) read between their cells at places (N, P, 2), (x, y) in [0, 1], to (N, P)."""
    read = F.grid_sample(maps[:, None].float(), 2 * places[:, :, None] - 1, align_corners=False)
    return read[:, 0, :, 0]


@torch.no_grad()
def unsure_places(logits: Tensor, count: int, *, oversampling: float = 3.0, share: float = 0.75) -> Tensor:
    """Places (N, count, 2) in [0, 1]: `share` of them where logits (N, H, W) are nearest to zero."""
    places = torch.rand(len(logits), int(oversampling * count), 2, device=logits.device)
    unsure = int(share * count)
    nearest = values_at(logits, places).abs().topk(unsure, dim=1, largest=False).indices
    chosen = places.gather(1, nearest[..., None].expand(-1, -1, 2))
    return torch.cat((chosen, torch.rand_like(places[:, : count - unsure])), 1)


@MODELS.register_module()
class SampledMaskLoss(nn.Module):
    """Dice and sigmoid cross entropy, each a mean over masks.

    The authors publish no weights; Mask2Former's are taken.

    Args:
        points: places a mask is compared at.
        dice_weight: factor of the dice loss.
        mask_weight: factor of the cross entropy.
    """

    def __init__(self, points: int = 12544, *, dice_weight: float = 5.0, mask_weight: float = 5.0) -> None:
        super().__init__()
        self.points, self.dice_weight, self.mask_weight = points, dice_weight, mask_weight

    def forward(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Logits (N, h, w) and masks (N, H, W) of the same pictures to `loss_dice` and `loss_mask`."""
        places = unsure_places(logits, self.points)
        given, wanted = values_at(logits, places), values_at(masks, places)
        share = given.sigmoid()
        overlap = 2 * (share * wanted).sum(1) + 1
        dice = 1 - overlap / (share.sum(1) + wanted.sum(1) + 1)
        entropy = F.binary_cross_entropy_with_logits(given, wanted)
        return {"loss_dice": self.dice_weight * dice.mean(), "loss_mask": self.mask_weight * entropy}
