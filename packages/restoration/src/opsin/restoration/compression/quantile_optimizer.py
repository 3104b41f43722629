"""Two optimizers for a codec: one for its quantiles, which the auxiliary loss moves, one for the rest."""

from __future__ import annotations

from typing import Any, cast

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from opsin.core.errors import UserError
from opsin.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from opsin.restoration.adversarial import OptimizerPerPart

QUANTILES = "quantiles"


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class QuantilesApart:
    """Builds `main` and `aux`, which `ImageCompressor` steps one after the other.

        optim_wrapper = dict(
            constructor='opsin.QuantilesApart',
            main=dict(
                type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4), clip_grad=dict(max_norm=1.0)
            ),
            aux=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3)),
        )

    Args:
        optim_wrapper_cfg: the two configs, as mmengine has them for a model.
        paramwise_cfg: not supported, and there because mmengine passes it.

    Raises:
        UserError: if a config is missing or superfluous, or `paramwise_cfg` is given.
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        if set(optim_wrapper_cfg) != {"main", "aux"} or paramwise_cfg:
            raise UserError(
                f"QuantilesApart takes main and aux, not {', '.join(sorted(optim_wrapper_cfg))}",
                "and no paramwise_cfg",
            )
        self.configs = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimizerPerPart:
        """The optimizers of `model`, which may be wrapped for several processes."""
        bare = cast("nn.Module", model.module) if is_model_wrapper(model) else model
        named = list(bare.named_parameters())
        parts = {
            "main": [p for name, p in named if not name.endswith(QUANTILES)],
            "aux": [p for name, p in named if name.endswith(QUANTILES)],
        }
        return OptimizerPerPart(**{name: self._built(name, parts[name]) for name in parts})

    def _built(self, part: str, parameters: list[nn.Parameter]) -> OptimWrapper:
        cfg = dict(self.configs[part])
        optimizer = OPTIMIZERS.build({**cfg.pop("optimizer"), "params": parameters})
        built: OptimWrapper = OPTIM_WRAPPERS.build({**cfg, "optimizer": optimizer})
        return built
