"""What the engine needs to train two networks against each other: an optimizer, and averages, for each alone.

* `OptimizerPerModule` builds one optimizer for each named part of a model; mmengine saves and resumes all.
* `ModuleEMAHook` averages the weights of one part: the generator's, not the discriminator's.
* `SelfTrainingDataParallel` lets a model with its own `train_step` train in several processes.
* `frozen` and `update_part` are the two things that such a `train_step` does with a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

from mmengine.dist import all_reduce_params
from mmengine.hooks import EMAHook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.runner.checkpoint import load_state_dict
from torch import Tensor, nn

from opsin.core.errors import unknown
from opsin.registry import HOOKS, MODEL_WRAPPERS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS


class OptimizerPerPart(OptimWrapperDict):
    """mmengine's dictionary of optimizers, for a model that makes one backward pass for each every iteration.

    Gradient accumulation then counts in each as it does in a single optimizer.
    """

    def initialize_count_status(self, model: nn.Module, cur_iter: int, max_iters: int) -> None:
        """Tells every optimizer the iteration that training begins with."""
        for optimizer in self.values():
            optimizer.initialize_count_status(model, cur_iter, max_iters)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class OptimizerPerModule:
    """One optimizer a part of the model, under the part's name.

        optim_wrapper = dict(
            constructor='opsin.OptimizerPerModule',
            network=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4)),
            discriminator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4)),
        )

    Args:
        optim_wrapper_cfg: for each part the config of its optimizer wrapper, as mmengine has it for a model.
        paramwise_cfg: for all parts that give none of their own.

    Raises:
        UserError: for a part that the model has not.
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        self.parts = optim_wrapper_cfg
        self.paramwise_cfg = paramwise_cfg

    def __call__(self, model: nn.Module) -> OptimizerPerPart:
        """The optimizers of `model`, which may be wrapped for several processes."""
        bare = cast("nn.Module", model.module) if is_model_wrapper(model) else model
        known = dict(bare.named_children())
        built: dict[str, OptimWrapper] = {}
        for name, cfg in self.parts.items():
            if name not in known:
                raise unknown(f"part of {type(bare).__name__} in optim_wrapper", name, known)
            built[name] = build_optim_wrapper(known[name], {"paramwise_cfg": self.paramwise_cfg, **cfg})
        return OptimizerPerPart(**built)


@HOOKS.register_module()
class ModuleEMAHook(EMAHook):
    """mmengine's `EMAHook` for one part of the model, which then tests and is saved with averaged weights.

    The part's other weights lie in the checkpoint's `ema_state_dict`, by their names within the part.

    Args:
        module: name of the part.
        ema: arguments of mmengine's hook.
    """

    def __init__(self, module: str = "network", **ema: Any) -> None:
        super().__init__(**ema)
        self.module = module

    def before_run(self, runner: Any) -> None:
        """Copies the part."""
        self.src_model = runner.bare_model.get_submodule(self.module)
        self.ema_model = MODELS.build(self.ema_cfg, default_args=dict(model=self.src_model))

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Takes up the averages where training goes on, else begins them with the loaded weights."""
        if runner.resuming and "ema_state_dict" in checkpoint:
            super().after_load_checkpoint(runner, checkpoint)
            return
        prefix = f"{self.module}."
        state = checkpoint["state_dict"]
        part = {name.removeprefix(prefix): deepcopy(state[name]) for name in state if name.startswith(prefix)}
        load_state_dict(self.ema_model.module, part or deepcopy(state), strict=self.strict_load)

    def _swap_ema_state_dict(self, checkpoint: dict[str, dict[str, Tensor]]) -> None:
        """Exchanges averaged and other weights in a checkpoint."""
        whole, part = checkpoint["state_dict"], checkpoint["ema_state_dict"]
        for name in part:
            if name.startswith("module."):
                own = f"{self.module}.{name.removeprefix('module.')}"
                whole[own], part[name] = part[name], whole[own]


@MODEL_WRAPPERS.register_module()
class SelfTrainingDataParallel(MMDistributedDataParallel):
    """For a model whose `train_step` runs several optimizers and averages gradients itself.

    mmengine's wrapper runs one optimizer, and expects every parameter in every backward pass.
    """

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """The model's own."""
        return self.module.train_step(data, optim_wrapper)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through `module` inside, and none stays in its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def update_part(module: nn.Module, loss: Tensor, optimizer: OptimWrapper) -> None:
    """What `OptimWrapper.update_params` does, with gradients averaged over the processes before the step."""
    optimizer.backward(optimizer.scale_loss(loss))
    if optimizer.should_update():
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        all_reduce_params(gradients, op="mean")
        optimizer.step()
        optimizer.zero_grad()
