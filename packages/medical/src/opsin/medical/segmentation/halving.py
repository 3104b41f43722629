"""The learning rate of multi-scale guided attention: halved some epochs after the best one."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from opsin.registry import HOOKS


@HOOKS.register_module()
class HalveAfterBest(Hook):
    """Halves the learning rates at the end of every epoch with epoch % (best epoch + patience) == 0.

    Epochs count from 0, so the first halves too, as published. The best epoch is of all validations so far,
    that of the same epoch included. Goes on rightly when training is resumed.

    Args:
        key: the metric; higher is better.
        patience: epochs.
    """

    def __init__(self, key: str = "seg/dice", patience: int = 50) -> None:
        self.key, self.patience = key, patience

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Notes the best epoch, and halves where it is due."""
        epoch = runner.epoch - 1  # the loop has counted the epoch that is being validated
        best, value = runner.message_hub.get_info("halving_best", (-1, float("-inf")))
        if metrics and metrics[self.key] > value:
            best, value = epoch, metrics[self.key]
            runner.message_hub.update_info("halving_best", (best, value))
        if epoch % (max(best, 0) + self.patience) == 0:
            for group in runner.optim_wrapper.optimizer.param_groups:
                group["lr"] *= 0.5
