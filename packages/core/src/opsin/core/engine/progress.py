"""A progress bar for training and evaluation, on terminals only; logs and pipes get mmengine's lines."""

from __future__ import annotations

import logging
import sys
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from opsin.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows iterations, loss and the time left, on the first process; nothing if stderr is no terminal."""

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []

    def before_train(self, runner: Any) -> None:
        """Shows the bar of the whole training."""
        self._show(runner, "train", runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Moves on by one iteration."""
        if self.progress is not None:
            loss = f"loss {float(outputs['loss']):.4g}" if outputs and "loss" in outputs else ""
            self.progress.update(self.tasks["train"], completed=runner.iter + 1, note=loss)

    def before_val_epoch(self, runner: Any) -> None:
        """Shows the bar of a validation."""
        self._show(runner, "val", len(runner.val_dataloader), 0)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Moves on by one batch."""
        self._advance("val")

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Takes the validation's bar away."""
        self._hide("val")

    def before_test_epoch(self, runner: Any) -> None:
        """Shows the bar of a test."""
        self._show(runner, "test", len(runner.test_dataloader), 0)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Moves on by one batch."""
        self._advance("test")

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Takes the test's bar away."""
        self._hide("test")

    def after_run(self, runner: Any) -> None:
        """Leaves the terminal as it was."""
        self.close()

    def close(self) -> None:
        """Removes the bars; also called when a run ends by an error."""
        if self.progress is not None:
            self.progress.refresh()
            self.progress.stop()
            self.progress = None
        self.tasks.clear()
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams.clear()

    def _show(self, runner: Any, name: str, total: int, completed: int) -> None:
        if not sys.stderr.isatty() or not is_main_process():
            return
        if self.progress is None:
            self._start(runner)
        assert self.progress is not None
        self.tasks[name] = self.progress.add_task(name, total=total, completed=completed, note="")

    def _start(self, runner: Any) -> None:
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(
            *columns,
            TextColumn("{task.fields[note]}"),
            console=Console(file=sys.stderr),
            transient=True,
            redirect_stdout=False,
        )
        self.progress.start()
        # Lines that go to the same terminal go above the bar: rich has replaced sys.stderr to do that.
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler and handler.stream.isatty():
                self._streams.append((handler, handler.stream))
                handler.setStream(sys.stderr)

    def _advance(self, name: str) -> None:
        if self.progress is not None and name in self.tasks:
            self.progress.advance(self.tasks[name])

    def _hide(self, name: str) -> None:
        if self.progress is not None and name in self.tasks:
            self.progress.remove_task(self.tasks.pop(name))
