"""mmengine's Runner with exact resume, atomic checkpoints and one-line errors; `train` and `test` use it.

Stock configs of mmdet and mmseg run on it unchanged: their `CheckpointHook` and train loops are replaced by
opsin's of the same names.
"""

from __future__ import annotations

import atexit
import copy
import gc
import itertools
import logging
import numbers
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, get_dist_info, is_distributed
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader

from opsin.core.engine import checkpoint as checkpoints
from opsin.core.engine.config import unknown_types_named
from opsin.core.engine.loops import EpochBasedTrainLoop
from opsin.core.engine.progress import ProgressHook
from opsin.core.engine.seeding import SeededBatches, SeededDataset
from opsin.core.engine.workdir import exclusive, prepare_work_dir, process_backend, storage_errors
from opsin.core.errors import UserError
from opsin.registry import RUNNERS

LOOPS = ("EpochBasedTrainLoop", "IterBasedTrainLoop")
HOOKS: dict[str, dict[str, Any]] = {
    "checkpoint": {"type": "opsin.CheckpointHook", "interval": 1},
    "seed_steps": {"type": "opsin.SeedSteps"},
    "average_losses": {"type": "opsin.AverageLosses"},
    "stop_on_nan": {"type": "opsin.StopOnNaN"},
    "progress": {"type": "opsin.ProgressHook"},
    "exact_resume": {"type": "opsin.ExactResume"},
}
_runs = itertools.count()


@RUNNERS.register_module()
class Runner(MMEngineRunner):
    """mmengine's Runner; arguments are mmengine's, and `env_cfg.dist_cfg.backend` may be `auto`."""

    strict = False  # whether a checkpoint that is loaded must have the model's tensors, no more and no less
    pending_gradients: list[dict[str, Tensor]] | None = None  # of each process, while a checkpoint is written

    _loaded_meta: Mapping[str, Any] = MappingProxyType({})  # of the checkpoint that was loaded last

    @property
    def resuming(self) -> bool:
        """Whether this run goes on from a checkpoint's state, not only from its weights."""
        return bool(self._resume)

    @property
    def bare_model(self) -> nn.Module:
        """The model without the wrapper that several processes need."""
        return self.model.module if is_model_wrapper(self.model) else self.model

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Starts the process group, if there are several processes; sets up the rest as mmengine does."""
        if self.distributed and not is_distributed():
            dist_cfg = dict(env_cfg.get("dist_cfg", {}))
            dist_cfg["backend"] = process_backend(dist_cfg.get("backend"))
            if not torch.cuda.is_available():  # mmengine would choose a GPU
                torch.distributed.init_process_group(dist_cfg["backend"])
            env_cfg = {**env_cfg, "dist_cfg": dist_cfg}
        super().setup_env(env_cfg)
        if self.distributed:
            atexit.register(_leave_process_group)

    def set_randomness(
        self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False
    ) -> None:
        """Seeds the run. `deterministic` only warns of an operation that has no deterministic form."""
        super().set_randomness(seed, diff_rank_seed)
        self._deterministic = deterministic
        torch.backends.cudnn.deterministic = deterministic
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        # Filling fresh memory guards against reading it uninitialised, at the price of speed.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set at run time

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """The logger of mmengine: to the terminal what a person follows, to the log file everything.

        The terminal's lines go to standard error, as standard output is for results (`--json`).
        """
        logger: MMLogger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setStream(sys.stderr)
                handler.addFilter(_is_for_people)
        return logger

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Moves the model to its device, and wraps it for several processes, on the CPU too."""
        if not self.distributed and not any(type(m).__name__ == "SyncBatchNorm" for m in model.modules()):
            return model.to(get_device())  # mmengine would import all of mmcv.ops to look for SyncBatchNorm
        if self.distributed and not torch.cuda.is_available():
            defaults = {
                "type": "MMDistributedDataParallel",
                "broadcast_buffers": False,
                "find_unused_parameters": self.cfg.get("find_unused_parameters", False),
            }
            model_wrapper_cfg = {**(model_wrapper_cfg or defaults), "device_ids": None}
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader[Any] | dict[str, Any], seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader[Any]:
        """A data loader whose order and augmentation follow from the seed; the config is mmengine's."""
        if isinstance(dataloader, DataLoader):
            return dataloader
        cfg = copy.deepcopy(dataloader)
        if cfg.get("num_workers", 0) == 0:  # torch refuses what only workers could do
            cfg.pop("persistent_workers", None)
            cfg.pop("prefetch_factor", None)
        dataset = (
            DATASETS.build(cfg.pop("dataset")) if isinstance(cfg["dataset"], dict) else cfg.pop("dataset")
        )
        if hasattr(dataset, "full_init"):
            dataset.full_init()
        rank, world_size = get_dist_info()
        batch_size = cfg.pop("batch_size", 1)
        per_epoch = cfg.pop("num_batch_per_epoch", None)
        seen = SeededDataset(dataset, per_epoch * batch_size * world_size) if per_epoch else dataset
        sampler = cfg.pop("sampler")
        if isinstance(sampler, dict):
            sampler_seed = None if diff_rank_seed else seed
            sampler = DATA_SAMPLERS.build(sampler, default_args={"dataset": seen, "seed": sampler_seed})
        batches = cfg.pop("batch_sampler", None)
        if batches is None:
            batches = BatchSampler(sampler, batch_size, cfg.pop("drop_last", False))
        elif isinstance(batches, dict):
            batches = DATA_SAMPLERS.build(
                batches, default_args={"sampler": sampler, "batch_size": batch_size}
            )
        loader: DataLoader[Any] = MMEngineRunner.build_dataloader(
            {
                **cfg,
                "dataset": SeededDataset(seen),
                "sampler": None,
                "batch_sampler": SeededBatches(batches, seed=seed or 0, rank=rank, world_size=world_size),
            },
            seed=seed,
            diff_rank_seed=diff_rank_seed,
        )
        if len(dataset) and not len(loader):
            raise UserError(
                f"{len(dataset)} samples do not fill one batch of {batch_size}",
                "set a smaller batch_size in train_dataloader",
            )
        # torch leaves it None beside a batch sampler, and mmengine's scale_lr reads it
        loader.__dict__["batch_size"] = batch_size
        return loader

    def dump_config(self) -> None:
        """Writes the config into the work dir, laid out for people."""
        super().dump_config()
        # Each checkpoint holds the config too; laying that out with yapf would take it a second.
        object.__setattr__(self.cfg, "_format_python_code", False)

    def build_train_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """A train loop that can begin anywhere, for mmengine's two; others as they are."""
        if isinstance(loop, dict):
            loop = dict(loop)
            if "type" not in loop:
                loop["type"] = LOOPS[0] if loop.pop("by_epoch") else LOOPS[1]
            if loop["type"] in LOOPS:
                loop["type"] = f"opsin.{loop['type']}"
        return super().build_train_loop(loop)

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Registers mmengine's default hooks and opsin's; a None drops one of either."""
        given = dict(hooks or {})
        if isinstance(given.get("checkpoint"), dict) and given["checkpoint"].get("type") == "CheckpointHook":
            given["checkpoint"] = {**given["checkpoint"], "type": "opsin.CheckpointHook"}
        merged = {**{name: dict(hook) for name, hook in HOOKS.items()}, **given}
        mmengine_own = {"runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"}
        super().register_default_hooks(
            {k: v for k, v in merged.items() if v is not None or k in mmengine_own}
        )

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Takes up the state of a checkpoint; arguments are mmengine's.

        In the middle of an epoch, with another batch size or number of processes than before, training goes
        on after the same fraction of the epoch.
        """
        super().resume(filename, *args, **kwargs)
        if isinstance(self.train_loop, EpochBasedTrainLoop):
            self.train_loop.take_up(self._loaded_meta.get("iterations_per_epoch"))

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = "cpu",
        strict: bool = False,
        revise_keys: Any = ((r"^module\.", ""),),
    ) -> dict[str, Any]:
        """Loads a checkpoint file, reading tensors and plain types only.

        Resuming and testing need the model's tensors exactly; `load_from` in a config takes those that fit.

        Raises:
            UserError: if the file can't be read, or is of another model where that matters.
        """
        if "://" in str(filename):
            loaded: dict[str, Any] = super().load_checkpoint(
                filename, map_location, strict, list(revise_keys)
            )
            return loaded
        content = checkpoints.read_run(filename)
        self.call_hook("after_load_checkpoint", checkpoint=content)
        if strict or self.strict or self.resuming:
            self._check_classes(content["meta"].get("dataset_meta"), filename)
            checkpoints.load_exactly(self.bare_model, content["state_dict"], source=str(filename))
        else:
            checkpoints.load_what_fits(self.bare_model, content, list(revise_keys), source=str(filename))
        self._has_loaded = True
        self._loaded_meta = content["meta"]
        self.logger.info(f"loaded {filename}")
        return content

    def _check_classes(self, trained_on: Any, filename: str) -> None:
        loop = next((x for x in (self._test_loop, self._train_loop) if isinstance(x, BaseLoop)), None)
        here = (getattr(loop.dataloader.dataset, "metainfo", None) or {}).get("classes") if loop else None
        there = trained_on.get("classes") if isinstance(trained_on, dict) else None
        if here and there and len(here) != len(there):
            raise UserError(
                f"{filename} was trained for {len(there)} classes ({', '.join(map(str, there[:3]))}…) "
                f"and this data has {len(here)} ({', '.join(map(str, here[:3]))}…)",
                "use the config and data that it was trained with, or fine-tune with load_from",
            )

    def save_checkpoint(
        self, out_dir: str, filename: str, *args: Any, backend_args: Any = None, **kwargs: Any
    ) -> None:
        """Saves a checkpoint whole or not at all (on local disks); arguments are mmengine's.

        Raises:
            UserError: if the disk is full or can't be written; the checkpoints before are intact.
        """
        self.pending_gradients = self._gather_pending_gradients()
        if backend_args is None and not any(args) and "://" not in str(out_dir):
            backend_args = {"backend": checkpoints.BACKEND}
        super().save_checkpoint(out_dir, filename, *args, backend_args=backend_args, **kwargs)
        self.pending_gradients = None

    def _gather_pending_gradients(self) -> list[dict[str, Tensor]] | None:
        wrapper = self.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        if all(not hasattr(w, "should_update") or w.should_update() for w in wrappers):
            return None
        own = {name: p.grad.cpu() for name, p in self.bare_model.named_parameters() if p.grad is not None}
        gathered: list[dict[str, Tensor]] = all_gather_object(own)
        return gathered


def _leave_process_group() -> None:
    """Ends the threads of the process group: gloo's may abort a process that exits with them running."""
    if is_distributed():
        torch.distributed.destroy_process_group()
        gc.collect()  # the threads end with the group's last reference, which a runner's cycles hold


def _is_for_people(record: logging.LogRecord) -> bool:
    """Not the machine, the whole config, the table of hooks, or advice to OpenMMLab's own developers."""
    text = record.getMessage()
    return record.funcName != "_log_env" and not text.startswith("Hooks will be") and "deprecated" not in text


def train(cfg: Config, work_dir: str | Path, *, resume: bool = False) -> Runner:
    """Trains what `cfg` says, alone in `work_dir`.

    Under `torchrun` the processes train together; each calls this.

    Args:
        cfg: a config as `load_config` gives it; it is not changed.
        work_dir: folder for checkpoints and logs.
        resume: go on from the folder's last checkpoint, to the weights that an uninterrupted run would have.

    Returns:
        The runner, after training.

    Raises:
        UserError: if the work dir is used by another run or can't be written, there is nothing to resume, the
            loss is NaN, GPUs are missing, or data and checkpoint have the mistakes that their readers name.
    """
    if "train_dataloader" not in cfg:
        raise UserError("the config has no train_dataloader", "it can be tested only")
    place = prepare_work_dir(work_dir)
    cfg = _prepared(cfg, place)
    with exclusive(place), one_line_errors(place):
        if resume:
            last = checkpoints.last_checkpoint(place)
            cfg.resume, cfg.load_from = True, str(last)
            seed = checkpoints.read_run(last)["meta"].get("seed")
            if (
                seed is not None
            ):  # the data's order comes from the seed, and is fixed before the Runner resumes
                cfg.randomness = {**cfg.get("randomness", {}), "seed": seed}
        runner = Runner.from_cfg(cfg)
        with _bars_closed(runner):
            runner.train()
    return runner


def test(cfg: Config, checkpoint: str | Path, *, work_dir: str | Path | None = None) -> dict[str, float]:
    """Evaluates a checkpoint as the config's `test_dataloader` and `test_evaluator` say.

    Args:
        cfg: a config as `load_config` gives it; it is not changed.
        checkpoint: a checkpoint of exactly this model.
        work_dir: folder for logs; `test/` beside the checkpoint if None.

    Returns:
        The metrics that are numbers.

    Raises:
        UserError: if the checkpoint can't be read, would run code, or is of another model (names the first
            tensors that differ) or another number of classes.
    """
    if "test_dataloader" not in cfg:
        raise UserError("the config has no test_dataloader", "nothing to test on")
    checkpoint = Path(checkpoint)
    if not checkpoint.is_file():
        raise UserError(f"no checkpoint at {checkpoint}")
    place = prepare_work_dir(work_dir or checkpoint.parent / "test")
    cfg = _prepared(cfg, place)
    cfg.load_from = str(checkpoint)
    with one_line_errors(place):
        runner = Runner.from_cfg(cfg)
        runner.strict = True
        with _bars_closed(runner):
            metrics = runner.test()
    return {name: float(value) for name, value in metrics.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0)


def _prepared(cfg: Config, work_dir: Path) -> Config:
    """A copy of `cfg` with its work dir, its launcher, and a name that no other run of this process has."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(work_dir)
    cfg.resume = False
    # mmengine keeps loggers and message hubs by name, and a name is the same for a second
    cfg.experiment_name = f"{cfg.get('experiment_name') or Path(cfg.filename or 'run').stem}-{next(_runs)}"
    if cfg.get("launcher", "none") == "none" and {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys():
        cfg.launcher = "pytorch"
    return cfg


@contextmanager
def one_line_errors(work_dir: Path) -> Iterator[None]:
    """Makes one line of failing storage, an unknown class in the config, or an error of a loader's worker.

    Raises:
        UserError: in their place.
    """
    try:
        with storage_errors(work_dir), unknown_types_named():
            yield
    except UserError as error:
        text = str(error)
        if not text.startswith("Caught ") or "in DataLoader worker" not in text:
            raise
        raise type(error)(text.rpartition(f"{type(error).__name__}: ")[2]) from error


@contextmanager
def _bars_closed(runner: Runner) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in runner.hooks:
            if isinstance(hook, ProgressHook):
                hook.close()
