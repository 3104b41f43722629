"""Layer-wise learning-rate decay, as papers that fine-tune pretrained transformers and ConvNeXt use it."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from opsin.core.errors import UserError
from opsin.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Parameters in layer l of L learn at lr * decay ** (L - 1 - l); those outside the backbone at lr.

    One-dimensional parameters (norms, biases) and those in the backbone's `no_weight_decay()` don't decay.

        optim_wrapper = dict(
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            constructor='opsin.LayerDecayConstructor',
            paramwise_cfg=dict(decay=0.8),
        )

    Args (in `paramwise_cfg`):
        decay: the factor from one layer to the next below, in (0, 1].
        module: name of the submodule that has `get_layer_depth`; "" is the model itself. Default: `backbone`
            if the model has one, else the model.

    Raises:
        UserError: for another argument, a decay outside (0, 1], or a module without `get_layer_depth`.
    """

    def _validate_cfg(self) -> None:
        unknown = sorted(set(self.paramwise_cfg) - {"decay", "module"})
        if unknown:
            raise UserError(
                f"LayerDecayConstructor has no {', '.join(unknown)}", "paramwise_cfg takes decay and module"
            )
        if not 0 < self.paramwise_cfg.get("decay", 1.0) <= 1:
            raise UserError(
                f"paramwise_cfg.decay is {self.paramwise_cfg['decay']}", "give a factor in (0, 1]"
            )

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **kwargs: Any) -> None:
        """Adds one group to `params` for each pair of learning-rate scale and weight decay in `module`."""
        prefix, trunk = self._trunk(module)
        exempt = (
            {f"{prefix}{name}" for name in trunk.no_weight_decay()}
            if hasattr(trunk, "no_weight_decay")
            else set()
        )
        groups: dict[tuple[float, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            scale = self._scale(name, prefix, trunk)
            decays = parameter.ndim > 1 and not name.endswith(".bias") and name not in exempt
            group = groups.setdefault((scale, decays), self._group(scale, decays))
            group["params"].append(parameter)
        for (scale, decays), group in sorted(groups.items()):
            print_log(
                f"{len(group['params'])} tensors: lr * {scale:.4g}, weight decay {'on' if decays else 'off'}",
                "current",
            )
            params.append(group)

    def _trunk(self, model: nn.Module) -> tuple[str, Any]:
        name = self.paramwise_cfg.get("module", "backbone" if hasattr(model, "backbone") else "")
        trunk = model.get_submodule(name)
        if not hasattr(trunk, "get_layer_depth"):
            raise UserError(
                f"{name or 'the model'} ({type(trunk).__name__}) has no get_layer_depth",
                "set paramwise_cfg.module",
            )
        return f"{name}." if name else "", trunk

    def _scale(self, name: str, prefix: str, trunk: Any) -> float:
        if not name.startswith(prefix):
            return 1.0
        layer, layers = trunk.get_layer_depth(name.removeprefix(prefix))
        return float(self.paramwise_cfg.get("decay", 1.0) ** (layers - 1 - layer))

    def _group(self, scale: float, decays: bool) -> dict[str, Any]:
        group: dict[str, Any] = {"params": [], "lr_scale": scale}
        if self.base_lr is not None:
            group["lr"] = self.base_lr * scale
        if not decays:
            group["weight_decay"] = 0.0
        return group
