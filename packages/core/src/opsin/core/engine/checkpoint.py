"""Checkpoints: written whole or not at all, made of plain types, read without running code.

A checkpoint holds what mmengine puts there (`meta`, `state_dict`, `optimizer`, `param_schedulers`,
`message_hub`, `ema_state_dict`), with log histories as tensors and NumPy values as Python's, so that
`torch.load` with `weights_only=True` reads it anywhere, opsin installed or not. One that was saved between
two optimizer steps of gradient accumulation holds `pending_gradients` too: a dictionary for each process.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.files import write_atomically
from opsin.core.published import differences, load_weights_only, read_checkpoint
from opsin.registry import HOOKS

LAST = "last_checkpoint"
BACKEND = "opsin.atomic"
HISTORY = "log_history"


@register_backend(BACKEND)
class AtomicBackend(LocalBackend):
    """mmengine's local files, written atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes `obj` to `filepath` whole or not at all."""
        write_atomically(filepath, obj)


def to_plain(value: Any) -> Any:
    """`value` in what `weights_only=True` reads: tensors, numbers, strings, lists, tuples, dictionaries."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if value is None or isinstance(value, Tensor | bool | bytes):
        return value
    for kind in (str, int, float):  # their subclasses become the plain type
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return {
            HISTORY: torch.from_numpy(log.copy()),
            "count_history": torch.from_numpy(count.copy()),
            "max_length": value.max_length,
        }
    if isinstance(value, OrderedDict) and all(isinstance(entry, Tensor) for entry in value.values()):
        return value  # a state dict, whose `_metadata` tells its modules' versions
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(entry) for entry in value)
    if isinstance(value, list | set | frozenset | deque):
        return [to_plain(entry) for entry in value]
    return str(value)


def _restore_histories(scalars: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: HistoryBuffer(entry[HISTORY].numpy(), entry["count_history"].numpy(), entry["max_length"])
        if isinstance(entry, Mapping) and HISTORY in entry
        else entry
        for name, entry in scalars.items()
    }


def read_run(path: str | Path) -> dict[str, Any]:
    """A checkpoint of a run, as mmengine's Runner wants it: at least `state_dict` and `meta`.

    A file of bare tensors (`.safetensors`, or an author's) has an empty `meta`.

    Raises:
        UserError: if the file is missing, truncated, no checkpoint, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    content = {} if path.suffix == ".safetensors" else load_weights_only(path)
    if not (isinstance(content, dict) and isinstance(content.get("state_dict"), Mapping)):
        return {"state_dict": read_checkpoint(path), "meta": {}}
    content.setdefault("meta", {})
    if "message_hub" in content:
        content["message_hub"]["log_scalars"] = _restore_histories(content["message_hub"]["log_scalars"])
    return content


def last_checkpoint(work_dir: Path) -> Path:
    """The checkpoint that a run in `work_dir` goes on from; it may have moved with the folder.

    Raises:
        UserError: if there is none.
    """
    mark = work_dir / LAST
    if not mark.is_file():
        raise UserError(f"nothing to resume in {work_dir}: it has no {LAST}", "train without --resume")
    path = Path(mark.read_text(encoding="utf-8").strip())
    for candidate in (path, work_dir / path.name):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"nothing to resume in {work_dir}: {path} is gone", f"write another checkpoint's path into {mark}"
    )


def load_exactly(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Loads `tensors`, none missing and none left over; a model's own hooks may rename old names first.

    Raises:
        UserError: with `source` and the first tensors that differ.
    """
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        found = differences(model.state_dict(), tensors) or [str(error).splitlines()[-1].strip()]
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"{source} is not for this {type(model).__name__}: {'; '.join(found[:3])}{more}"
        ) from error


def load_what_fits(model: nn.Module, content: dict[str, Any], revise_keys: Any, *, source: str) -> None:
    """Loads the tensors whose names and shapes fit (`load_from`, for fine-tuning); mmengine logs the others.

    Raises:
        UserError: if none fits.
    """
    before = {name: tensor.shape for name, tensor in model.state_dict().items()}
    _load_checkpoint_to_model(model, content, strict=False, revise_keys=revise_keys)
    given = {re.sub(p, r, name): t for name, t in content["state_dict"].items() for p, r in revise_keys}
    if not any(before.get(name) == tensor.shape for name, tensor in given.items()):
        raise UserError(
            f"no tensor of {source} fits this {type(model).__name__}", "is it a checkpoint of another model?"
        )


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook, which deletes an old checkpoint only when the new one is safely there.

    Args and file names are mmengine's. `save_best="auto"` knows more metrics that are better when higher.
    """

    keep_ckpt_ids: deque[int]
    _default_greater_keys = (
        *MMEngineCheckpointHook._default_greater_keys,
        "AP",
        "PQ",
        "PSNR",
        "SSIM",
        "IoU",
        "dice",
        "F1",
    )

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        stale: list[int] = []
        if self.max_keep_ckpts > 0:
            kept = [*(old for old in self.keep_ckpt_ids if old != step), step]
            stale = kept[: -self.max_keep_ckpts]
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(Path(runner.work_dir) / LAST, str(self.last_ckpt).encode())
            for old in stale:
                self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))

    def _save_best_checkpoint(self, runner: Any, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return
        before = self._take_best()
        super()._save_best_checkpoint(runner, metrics)
        after = self._take_best()
        self._set_best([new or old for new, old in zip(after, before, strict=True)])
        for new, old in zip(after, before, strict=True):
            if old and new and new != old and is_main_process():
                self._remove(old)

    def _take_best(self) -> list[str | None]:
        """The best checkpoints' paths, one a metric; mmengine would delete them too early if they stayed."""
        single = len(self.key_indicators) == 1
        best = (
            [self.best_ckpt_path]
            if single
            else [self.best_ckpt_path_dict[key] for key in self.key_indicators]
        )
        self._set_best([None] * len(best))
        return best

    def _set_best(self, best: list[str | None]) -> None:
        if len(self.key_indicators) == 1:
            (self.best_ckpt_path,) = best
        else:
            self.best_ckpt_path_dict = dict(zip(self.key_indicators, best, strict=True))

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
