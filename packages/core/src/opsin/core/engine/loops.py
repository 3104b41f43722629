"""mmengine's train loops, made to begin anywhere: in the middle of an epoch, or at iteration k.

They skip in the sampler, so no picture is read for what was trained already. Validation is mmengine's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import BaseLoop
from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterLoop
from mmengine.runner.utils import calc_dynamic_intervals

from opsin.core.engine.seeding import SeededBatches
from opsin.registry import LOOPS


def _skip(dataloader: Any, count: int) -> None:
    if count:
        batches = dataloader.batch_sampler
        if not isinstance(batches, SeededBatches):
            raise TypeError("a data loader that opsin.Runner did not build can't begin in the middle")
        batches.skip(count)


@LOOPS.register_module()
class EpochBasedTrainLoop(MMEngineEpochLoop):
    """Trains by epochs; arguments as in mmengine's loop of this name."""

    _iter: int
    _epoch: int

    def take_up(self, iterations_per_epoch: int | None) -> None:
        """Keeps the place in the epoch when an epoch of the checkpoint's run had `iterations_per_epoch`.

        That is another number than now after a change of batch size or of the number of processes.
        """
        now = len(self.dataloader)
        if iterations_per_epoch not in (None, now):
            done = (self._iter - self._epoch * iterations_per_epoch) * now // iterations_per_epoch
            self._iter = self._epoch * now + done
            print_log(
                f"an epoch had {iterations_per_epoch} iterations and has {now}: going on after {done}",
                logger="current",
                level=logging.WARNING,
            )

    def run_epoch(self) -> None:
        """Trains what is left of the current epoch."""
        done = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        _skip(self.dataloader, done)
        for index, batch in enumerate(self.dataloader, start=done):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


@LOOPS.register_module()
class IterBasedTrainLoop(MMEngineIterLoop):
    """Trains by iterations; arguments as in mmengine's loop of this name.

    The data are not opened before the first iteration is known, and a sampler that ends is run again with the
    next epoch's order.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        BaseLoop.__init__(self, runner, dataloader)  # mmengine's own __init__ starts the workers
        self._max_iters = int(max_iters)
        self._max_epochs = 1
        self._epoch = 0
        self._iter = 0
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.stop_training = False
        self.runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, "metainfo", None)
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(
            val_interval, dynamic_intervals
        )

    def batches(self) -> Iterator[Any]:
        """Batches without end, from the current iteration on."""
        epoch, done = divmod(self._iter, len(self.dataloader)) if self._restarts() else (0, self._iter)
        while True:
            if self._restarts():
                self.dataloader.batch_sampler.sampler.set_epoch(epoch)
            _skip(self.dataloader, done)
            yield from self.dataloader
            epoch, done = epoch + 1, 0

    def _restarts(self) -> bool:
        """Whether the sampler ends, as samplers that know of epochs do."""
        return hasattr(self.dataloader.batch_sampler.sampler, "epoch")

    def run(self) -> Any:
        """Trains from the current iteration to the last."""
        self.runner.call_hook("before_train")
        # hooks see the whole training as one epoch
        self.runner.call_hook("before_train_epoch")
        batches = self.batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            if self._validates():
                self.runner.val_loop.run()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _validates(self) -> bool:
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return self.runner.val_loop is not None and self._iter >= self.val_begin and due
