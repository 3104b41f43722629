"""What every run of opsin does besides mmengine's default hooks; `Runner` adds them to any config.

A config drops one by its key, `default_hooks=dict(stop_on_nan=None)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import EarlyStoppingHook as MMEngineEarlyStoppingHook
from mmengine.hooks import Hook
from torch import Tensor

from opsin.core.engine.checkpoint import to_plain
from opsin.core.engine.seeding import seed_generators, seed_of
from opsin.core.errors import UserError
from opsin.registry import HOOKS

Outputs = dict[str, Any]


class NonFiniteError(UserError):
    """The loss, or a weight, is NaN or infinite."""


@HOOKS.register_module()
class SeedSteps(Hook):
    """Makes what a step draws (dropout, drop path, sampling in heads) follow from seed, step and rank."""

    priority = "HIGHEST"

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the generators for this step."""
        seed_generators(seed_of(runner.seed, "step", runner.iter, runner.rank))


@HOOKS.register_module()
class AverageLosses(Hook):
    """Detaches the losses that get logged, and replaces them by their mean over all processes."""

    priority = "HIGHEST"

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Outputs | None = None
    ) -> None:
        """Changes the tensors of `outputs` in place."""
        tensors = {name: v.detach() for name, v in (outputs or {}).items() if isinstance(v, Tensor)}
        if outputs is None or not tensors:
            return
        if get_world_size() > 1:
            values = torch.stack([value.float().mean() for value in tensors.values()])
            all_reduce(values, op="mean")
            tensors = dict(zip(tensors, values, strict=True))
        outputs.update(tensors)


@HOOKS.register_module()
class StopOnNaN(Hook):
    """Stops when the loss is NaN or infinite, before anything is saved, and names the step and the pictures.

    Args:
        interval: looks at every `interval`-th step's loss; on a GPU each look waits for the step to end.

    Raises:
        NonFiniteError: for such a loss, and for such a weight in a checkpoint that is about to be written.
    """

    priority = "VERY_HIGH"

    def __init__(self, interval: int = 1) -> None:
        self.interval = interval

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Outputs | None = None
    ) -> None:
        """Looks at the losses of the step."""
        if not outputs or not self.every_n_train_iters(runner, self.interval):
            return
        losses = {name: float(torch.as_tensor(x).detach()) for name, x in outputs.items() if "loss" in name}
        bad = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            pictures = ", ".join(image_paths(data_batch)) or "no picture paths known"
            raise NonFiniteError(
                f"{', '.join(bad)} at iteration {runner.iter + 1} "
                f"(epoch {runner.epoch + 1}, batch {batch_idx + 1}: {pictures})",
                "lower the learning rate, clip gradients, or look at these pictures; this step was not saved",
            )

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Looks at the weights: a step with a finite loss can still break them."""
        for name, tensor in checkpoint["state_dict"].items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise NonFiniteError(
                    f"the weight {name} is not finite after iteration {runner.iter + 1}",
                    "lower the learning rate or clip gradients; the checkpoint was not written",
                )


def image_paths(batch: Any) -> list[str]:
    """The picture files of a batch, wherever its samples keep `img_path`."""
    return list(dict.fromkeys(_image_paths(batch)))


def _image_paths(batch: Any) -> Iterator[str]:
    path = batch.get("img_path") if hasattr(batch, "get") else None
    if isinstance(path, str):
        yield path
        return
    if isinstance(path, list | tuple):
        yield from map(str, path)
        return
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    for part in parts:
        yield from _image_paths(part)


@HOOKS.register_module()
class ExactResume(Hook):
    """Adds to what mmengine saves, and makes it plain types.

    Added are gradients that wait for an optimizer step, which the runner gathers, and the length of an epoch.
    """

    priority = "LOWEST"  # after hooks that add to the checkpoint

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Adds what mmengine leaves out, and replaces objects by plain types."""
        checkpoint["meta"]["iterations_per_epoch"] = len(runner.train_dataloader)
        if runner.pending_gradients is not None:
            checkpoint["pending_gradients"] = runner.pending_gradients
        for key in set(checkpoint) - {"state_dict"}:
            checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Puts pending gradients back when training goes on."""
        pending = checkpoint.get("pending_gradients")
        if pending is None or not runner.resuming:
            return
        if len(pending) != runner.world_size:
            raise UserError(
                f"this checkpoint was saved between optimizer steps by {len(pending)} processes",
                f"resume with as many, not {runner.world_size}",
            )
        for name, parameter in runner.bare_model.named_parameters():
            if name in pending[runner.rank]:
                parameter.grad = pending[runner.rank][name].to(parameter.device)


@HOOKS.register_module()
class EarlyStoppingHook(MMEngineEarlyStoppingHook):
    """mmengine's hook, whose best score and patience survive `--resume`; arguments are mmengine's."""

    priority = "HIGH"  # so that the best checkpoint, saved after, holds this evaluation's state

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Adds the hook's state."""
        checkpoint["early_stopping"] = {"wait_count": self.wait_count, "best_score": self.best_score}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Takes the state back when training goes on."""
        if runner.resuming and "early_stopping" in checkpoint:
            self.wait_count = checkpoint["early_stopping"]["wait_count"]
            self.best_score = checkpoint["early_stopping"]["best_score"]
