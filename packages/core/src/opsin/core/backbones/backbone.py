"""What every backbone answers, under one set of names.

A family has two classes on one trunk: the backbone (`ConvNeXt`), which gives feature maps to dense tasks, and
the classifier (`ConvNeXtClassifier`), the published network with its head. Variants are data, not subclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from opsin.core.errors import UserError, unknown
from opsin.core.layers.conv_norm import fuse


@dataclass(frozen=True)
class FeatureInfo:
    """One feature map: its channels and how many input pixels one of its cells spans on a side."""

    channels: int
    stride: int


def resolve_arch(
    family: str, archs: Mapping[str, Mapping[str, Any]], arch: str | Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of a named variant, or of a mapping that must give the same keys.

    Raises:
        UserError: for an unknown name, a key that no variant has, or a missing one.
    """
    if isinstance(arch, str):
        if arch not in archs:
            raise unknown(f"{family} arch", arch, archs)
        return dict(archs[arch])
    known = list(next(iter(archs.values())))
    for key in arch:
        if key not in known:
            raise unknown(f"key of {family}'s arch", key, known)
    missing = [key for key in known if key not in arch]
    if missing:
        raise UserError(f"{family} arch {dict(arch)} lacks {', '.join(missing)}")
    return dict(arch)


class Trunk(BaseModule):
    """The part that a family's backbone and classifier share.

    Args:
        with_cp: recompute blocks in the backward pass instead of keeping their activations (gradient
            checkpointing).
        init_cfg: OpenMMLab's weight initialisation; `dict(type='opsin.Published', checkpoint=PATH)` loads the
            authors' file.
    """

    def __init__(self, *, with_cp: bool = False, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        self.with_cp = with_cp

    def run(self, block: Callable[..., Any], *args: Any) -> Any:
        """`block(*args)`, checkpointed while training if `with_cp` is set."""
        if self.with_cp and self.training:
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def fuse(self) -> Self:
        """Folds batch norms into the weights before them, in place, for inference; see `layers.conv_norm`."""
        fuse(self)
        return self.eval()

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """For layer-wise learning-rate decay: the layer of parameter `name`, and how many layers there are.

        A parameter's rate is multiplied by decay ** (layers - 1 - layer); the head has the last layer.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no layers for learning-rate decay")

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the authors do not decay, besides one-dimensional ones."""
        return set()


class Backbone(Trunk):
    """A feature extractor: image (N, 3, H, W) to maps (N, C_i, H_i, W_i), one an entry of `out_indices`.

    Args:
        out_indices: which stages (or blocks, for a plain backbone) give a map, in ascending order.
        frozen_stages: parts up to this one keep their weights and their norm statistics: -1 none, 0 the stem,
            1 the stem and the first stage, and so on.
        with_cp: gradient checkpointing.
        init_cfg: OpenMMLab's weight initialisation.
    """

    feature_info: tuple[FeatureInfo, ...]

    def __init__(
        self,
        *,
        out_indices: Sequence[int],
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages

    def check_out_indices(self, count: int) -> None:
        """Checks `out_indices` against the number of stages (or blocks) there are.

        Raises:
            UserError: unless they ascend within 0 … count - 1 and there is at least one.
        """
        out = self.out_indices
        if not out or list(out) != sorted(set(out)) or out[0] < 0 or out[-1] >= count:
            raise UserError(f"out_indices {out} of {type(self).__name__} must ascend within 0..{count - 1}")

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The modules of the stem (`stage` 0) or of stage `stage` (from 1)."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Backbone:
        """Training mode for all but the frozen stages."""
        super().train(mode)
        for stage in range(self.frozen_stages + 1):
            for module in self.stage_modules(stage):
                module.eval()
                module.requires_grad_(False)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`, as `feature_info` says."""
        raise NotImplementedError


class Classifier(Trunk):
    """A published classification network: `forward` is `forward_head(forward_features(x))`.

    Its `head` is a linear layer to `num_classes` logits, or an identity when `num_classes` is 0.
    """

    num_classes: int
    num_features: int
    head: nn.Module

    def forward_features(self, x: Tensor) -> Tensor:
        """Image (N, 3, H, W) to the vector (N, num_features) that the head reads."""
        raise NotImplementedError

    def forward_head(self, features: Tensor) -> Tensor:
        """(N, num_features) to logits (N, num_classes)."""
        return self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        """Image (N, 3, H, W) to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the head by a freshly initialised one for `num_classes` classes (0: none)."""
        self.num_classes = num_classes
        if not num_classes:
            self.head = nn.Identity()
            return
        head = nn.Linear(self.num_features, num_classes)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        self.head = head
