"""One-pass evaluation of a tracker on a benchmark: in parallel over sequences, and going on where it stopped.

A sequence whose result file is whole is not tracked again. Each process has a copy of the model; a sequence's
result does not depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from opsin.core.engine.config import apply_overrides, load_config
from opsin.core.engine.predictor import make_folder, write_json
from opsin.core.errors import UserError
from opsin.tracking.datasets.layouts import read_sequences
from opsin.tracking.datasets.sample import TrackingSample
from opsin.tracking.datasets.sequence import VideoSequence
from opsin.tracking.metrics.one_pass import evaluate_sequence, summarise_subsets
from opsin.tracking.results import ResultFormat, result_format


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate.

    Args:
        config: path or short name of a config.
        checkpoint: of its model.
        layout: the benchmark.
        split: of it.
        data: its folder.
        overrides: `key=value` changes to the config.
        device: of the model.
    """

    config: str
    checkpoint: Path
    layout: str
    split: str
    data: Path
    overrides: tuple[str, ...] = ()
    device: str = "cpu"

    def load(self) -> Config:
        """The config with the benchmark's own settings; overrides win."""
        return load_for(self.layout, self.config, self.overrides)


def load_for(layout: str, config: str, overrides: Sequence[str] = ()) -> Config:
    """A config with the settings that its `protocols` has for a benchmark; overrides win."""
    cfg = load_config(config)
    for part, settings in cfg.get("protocols", {}).get(layout, {}).items():
        cfg.model[part] = {**cfg.model.get(part, {}), **settings}
    apply_overrides(cfg, overrides)
    return cfg


def run(
    evaluation: Evaluation,
    out: Path,
    *,
    jobs: int = 1,
    subsets: dict[str, list[str]] | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, float]:
    """Tracks the sequences that have no result yet, then scores and packs all results.

    Args:
        evaluation: what to evaluate.
        out: folder for result files, in the benchmark's format; `metrics.json` and a zip stand beside it.
        jobs: processes.
        subsets: names of groups of sequences that are scored apart too.
        progress: called with a sequence's name, and how many are done of how many.

    Returns:
        The numbers in percent; empty where the truth is on the benchmark's server.

    Raises:
        UserError: for mistakes in config, checkpoint or data, and if `out` can't be written.
    """
    form = result_format(evaluation.layout)
    sequences = read_sequences(evaluation.layout, evaluation.data, evaluation.split)
    make_folder(out)
    open_ones = [s for s in sequences if not _is_whole(form, out, s)]
    done = len(sequences) - len(open_ones)
    for name in _track_all(evaluation, open_ones, out, jobs):
        done += 1
        progress(name, done, len(sequences))
    form.pack(out, [s.name for s in sequences])
    if not all(s.has_truth for s in sequences):
        return {}
    scores = {s.name: evaluate_sequence(_result(form, out, s), s) for s in sequences}
    metrics = summarise_subsets(scores, subsets or {})
    write_json(out.with_name(f"{out.name}_metrics.json"), metrics)
    return metrics


def _is_whole(form: ResultFormat, out: Path, sequence: VideoSequence) -> bool:
    boxes = form.read(out, sequence.name)
    return boxes is not None and len(boxes) == len(sequence.frames)


def _result(form: ResultFormat, out: Path, sequence: VideoSequence) -> Any:
    boxes = form.read(out, sequence.name)
    if boxes is None:
        raise UserError(f"no result of {sequence.name} in {out}")
    return boxes


def _track_all(evaluation: Evaluation, sequences: list[VideoSequence], out: Path, jobs: int) -> Any:
    """Tracks sequences in `jobs` processes, the longest first; yields the name of each one that is done."""
    if not sequences:
        return
    longest_first = sorted(sequences, key=lambda s: -len(s.frames))
    if jobs <= 1:
        _start_worker(evaluation, torch.get_num_threads())
        yield from (_track_one(sequence, out) for sequence in longest_first)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(
        min(jobs, len(sequences)),
        mp_context=get_context("spawn"),  # a forked process would inherit torch's locked threads
        initializer=_start_worker,
        initargs=(evaluation, threads),
    )
    with pool:
        waiting = [pool.submit(_track_one, sequence, out) for sequence in longest_first]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_worker: dict[str, Any] = {}  # the process's model and format


def _start_worker(evaluation: Evaluation, threads: int) -> None:
    from opsin.tracking.predictor import TrackingPredictor

    torch.set_num_threads(threads)
    predictor = TrackingPredictor(evaluation.load(), evaluation.checkpoint, device=evaluation.device)
    _worker.update(model=predictor.model, form=result_format(evaluation.layout))


def _track_one(sequence: VideoSequence, out: Path) -> str:
    sample = _worker["model"].follow(TrackingSample(metainfo={"sequence": sequence}))
    boxes = np.asarray(sample.pred_boxes, np.float64)
    _worker["form"].write(out, sequence.name, boxes, sample.seconds.numpy())
    return sequence.name
