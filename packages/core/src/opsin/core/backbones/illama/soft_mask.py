"""The soft mask of iLLaMA's training: attention begins bidirectional and becomes causal.

The paper finds that a causal mask from the first step on trains worse; so the mask's upper half begins at 1
and is taken back over the first epochs.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from mmengine.hooks import Hook
from numpy.typing import NDArray
from torch import nn

from opsin.core.backbones.illama.model import ILLaMATrunk
from opsin.core.errors import UserError, unknown
from opsin.registry import HOOKS

Schedule = Literal["constant", "linear", "standard"]
SCHEDULES: tuple[Schedule, ...] = ("constant", "linear", "standard")


def soft_mask_schedule(
    schedule: Schedule, epochs: int, iterations: int, cutoff_epoch: int, start: float = 1.0
) -> NDArray[np.float64]:
    """The soft mask rate of every iteration, (epochs * iterations,).

    Args:
        schedule: 'constant' stays at `start` until the cut-off and is 0 from there, 'linear' falls from
            `start` to 0 and reaches 0 in the last iteration before the cut-off, 'standard' is `start` always.
        epochs: epochs of the training.
        iterations: iterations of an epoch.
        cutoff_epoch: epochs before the cut-off.
        start: the rate of the first iteration, in [0, 1].

    Raises:
        UserError: for an unknown schedule, or a cut-off outside the training.
    """
    if schedule not in SCHEDULES:
        raise unknown("soft mask schedule", schedule, SCHEDULES)
    if not 0 <= cutoff_epoch <= epochs:
        raise UserError(f"cutoff_epoch {cutoff_epoch} of the soft mask is not within 0..{epochs} epochs")
    if schedule == "standard":
        return np.full(epochs * iterations, start)
    soft = cutoff_epoch * iterations
    rates = np.zeros(epochs * iterations)
    rates[:soft] = start if schedule == "constant" else np.linspace(start, 0, soft)
    return rates


@HOOKS.register_module()
class SoftMaskHook(Hook):
    """Sets `soft_mask_rate` of every iLLaMA in the model: before each iteration, and to 0 for evaluation.

        custom_hooks = [dict(type='opsin.SoftMaskHook', schedule='linear', cutoff_epoch=50)]

    Args:
        schedule, cutoff_epoch, start: see `soft_mask_schedule`.

    Raises:
        UserError: before training, for a wrong setting or a model without iLLaMA.
    """

    def __init__(self, schedule: Schedule = "linear", cutoff_epoch: int = 50, start: float = 1.0) -> None:
        if schedule not in SCHEDULES:
            raise unknown("soft mask schedule", schedule, SCHEDULES)
        self.schedule, self.cutoff_epoch, self.start = schedule, cutoff_epoch, start

    def before_train(self, runner: Any) -> None:
        """Computes the rate of every iteration."""
        iterations = len(runner.train_dataloader)
        epochs = -(-runner.max_iters // iterations)
        self.rates = soft_mask_schedule(self.schedule, epochs, iterations, self.cutoff_epoch, self.start)
        if not _networks(runner.model):
            raise UserError("SoftMaskHook found no iLLaMA in the model", "drop it from custom_hooks")

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Sets this iteration's rate."""
        _set_rate(runner.model, float(self.rates[runner.iter]))

    def before_val(self, runner: Any) -> None:
        """Evaluation is causal, whatever the training has reached."""
        _set_rate(runner.model, 0.0)

    def before_test(self, runner: Any) -> None:
        """So are tests."""
        _set_rate(runner.model, 0.0)

    def after_train(self, runner: Any) -> None:
        """So is the model that training leaves."""
        _set_rate(runner.model, 0.0)


def _networks(model: nn.Module) -> list[ILLaMATrunk]:
    return [module for module in model.modules() if isinstance(module, ILLaMATrunk)]


def _set_rate(model: nn.Module, rate: float) -> None:
    for network in _networks(model):
        network.soft_mask_rate = rate
