"""Stock mmdet heads in two halves: the towers give features, the predictors read them.

The relation goes between the halves, which stock heads run in one `forward_single`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmdet.models.dense_heads import ATSSHead, FCOSHead, RetinaHead
from torch import Tensor

from opsin.core.errors import UserError

Predict = Callable[[Any, Tensor, Tensor, int], tuple[Tensor, ...]]
_PREDICTORS: dict[type, Predict] = {}


def predictor_of(head: type) -> Callable[[Predict], Predict]:
    """Registers the second half of a head class, whose towers are `cls_convs` and `reg_convs`.

    The decorated function takes (head, cls_feat, reg_feat, level) and gives what `forward_single` gives.
    """

    def register(predict: Predict) -> Predict:
        _PREDICTORS[head] = predict
        return predict

    return register


def find_predictor(head: Any) -> Predict:
    """The second half of `head`.

    Raises:
        UserError: if its class is not known, or runs its layers in another way than the class it comes from.
    """
    owner = next(cls for cls in type(head).__mro__ if "forward_single" in vars(cls))
    if owner not in _PREDICTORS:
        known = ", ".join(cls.__name__ for cls in _PREDICTORS)
        raise UserError(
            f"a relation can't go into {type(head).__name__}, only into {known}",
            "register its predictors with opsin.detection.models.relationnet2.predictor_of",
        )
    return _PREDICTORS[owner]


def tower_features(head: Any, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What the classification and the regression tower make of each level (N, C, H, W)."""
    return [_run(head.cls_convs, level) for level in levels], [
        _run(head.reg_convs, level) for level in levels
    ]


def _run(convs: Sequence[Any], x: Tensor) -> Tensor:
    for conv in convs:
        x = conv(x)
    return x


@predictor_of(RetinaHead)
def _retina(head: Any, cls_feat: Tensor, reg_feat: Tensor, level: int) -> tuple[Tensor, ...]:
    return head.retina_cls(cls_feat), head.retina_reg(reg_feat)


@predictor_of(ATSSHead)
def _atss(head: Any, cls_feat: Tensor, reg_feat: Tensor, level: int) -> tuple[Tensor, ...]:
    boxes = head.scales[level](head.atss_reg(reg_feat)).float()
    return head.atss_cls(cls_feat), boxes, head.atss_centerness(reg_feat)


@predictor_of(FCOSHead)
def _fcos(head: Any, cls_feat: Tensor, reg_feat: Tensor, level: int) -> tuple[Tensor, ...]:
    centerness = head.conv_centerness(reg_feat if head.centerness_on_reg else cls_feat)
    boxes = head.scales[level](head.conv_reg(reg_feat)).float()
    if not head.norm_on_bbox:
        boxes = boxes.exp()
    else:
        boxes = boxes.clamp(min=0) * (1 if head.training else head.strides[level])
    return head.conv_cls(cls_feat), boxes, centerness
