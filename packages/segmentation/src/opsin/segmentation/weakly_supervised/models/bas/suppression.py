"""Background activation suppression: what the paper asks of a foreground map.

Background Activation Suppression for Weakly Supervised Object Localization and Semantic Segmentation, arXiv
2112.00580 (CVPR 2022) and 2309.12943 (IJCV 2023). Built from a description; the authors' code has no licence
and none of it was read.

The features with the foreground taken out go through the rest of the network once more; what activation the
label keeps there, relative to the whole, shall be small, and so shall the map.

What a naive reading gets wrong: the second pass must not teach the weights that it goes through (the network
would win by forgetting), so they are constants there, and what its batch norms learn of running statistics is
thrown away; a ratio above one is set to a constant, so it has no gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call


def run_frozen(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Runs modules one after the other with weights that get no gradient and statistics that do not stay.

    Gradients reach `x`. Batch norms use the batch's statistics in training, as in the first pass.
    """
    for module in modules:
        weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
        statistics = {name: buffer.clone() for name, buffer in module.named_buffers()}
        x = functional_call(module, {**weights, **statistics}, (x,))
    return x


@dataclass(frozen=True)
class Clamp:
    """What a ratio of activations becomes where the background has more than the whole.

    Args:
        value: 1, or 0 in the authors' VGG16 and in the whole of their first version.
        equal: whether it holds where both are equal too, as in the first version.
    """

    value: float = 1.0
    equal: bool = False


def background_ratio(background: Tensor, whole: Tensor, clamp: Clamp) -> Tensor:
    """Activation of the background over that of the whole, both (B,) raw scores, to (B,).

    Negative scores count as none.
    """
    background, whole = background.relu(), whole.relu()
    beyond = background >= whole if clamp.equal else background > whole
    constant = torch.full_like(background, clamp.value)
    return torch.where(beyond, constant, background / (whole + 1e-8))


def of_label(maps: Tensor, labels: Tensor) -> Tensor:
    """The map or score of each image's label: (B, K, …) and (B,) to (B, …)."""
    return maps[torch.arange(len(labels), device=labels.device), labels]


@dataclass(frozen=True)
class Suppression:
    """What a training pass gives.

    Args:
        scores: class scores (B, K).
        foreground_scores: those of the class maps under the foreground map, (B, K).
        foreground: the map of the label (B, 1, h, w), in (0, 1).
        whole: score of the label, (B,), a constant.
        background: its score without the foreground, (B,).
        ratio: of both, (B,).
    """

    scores: Tensor
    foreground_scores: Tensor
    foreground: Tensor
    whole: Tensor
    background: Tensor
    ratio: Tensor

    @property
    def area(self) -> Tensor:
        """Mean of the foreground map, (B,)."""
        return self.foreground.mean((1, 2, 3))
