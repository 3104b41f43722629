"""Fine-tuning with the batch statistics of pre-training, as detectors with few images a device do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import nn

from opsin.core.backbones.backbone import Backbone


class NormEvalBackbone(Backbone):
    """A backbone of batch norms, which may keep their running statistics while training.

    Args:
        norm_eval: batch norms use and keep their running statistics while training; their weights learn.
        out_indices, frozen_stages, with_cp, init_cfg: see `Backbone`.
    """

    def __init__(
        self,
        *,
        norm_eval: bool,
        out_indices: Sequence[int],
        frozen_stages: int,
        with_cp: bool,
        init_cfg: dict[str, Any] | None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        self.norm_eval = norm_eval

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen stages and, with `norm_eval`, the batch norms."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self
