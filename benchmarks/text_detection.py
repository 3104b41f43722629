"""MAYOR's three ideas on the sample data: each taken out alone, and all of them, at one training budget.

    opsin samples text_detection data/text
    python benchmarks/text_detection.py data/text WORK_DIR --seeds 0 1 --epochs 12

Prints a table of the test pictures of the Total-Text-like samples; a run that WORK_DIR has already is not
repeated. CPU seconds are the training's, of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean

from mmengine.config import Config

from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test, train

IDEAS = ("perceptron", "whole instance", "adaptive assignment")
VARIANTS = {
    "MAYOR": IDEAS,
    "without the perceptron": IDEAS[1:],
    "without whole instances": (IDEAS[0], IDEAS[2]),
    "without adaptive assignment": IDEAS[:2],
    "Mask R-CNN": (),
}
COLUMNS = ("precision", "recall", "hmean", "best_hmean", "best_threshold")


def configured(ideas: tuple[str, ...], data: Path, epochs: int, seed: int) -> Config:
    """The sample config with some of the ideas; the others are as in the baseline."""
    cfg = load_config(
        "mayor_tiny_samples",
        data=data,
        overrides=[
            f"train_cfg.max_epochs={epochs}",
            f"train_cfg.val_interval={epochs + 1}",
            f"param_scheduler.1.T_max={epochs}",
            f"randomness.seed={seed}",
            "model.test_cfg.rcnn.score_thr=0.05",
        ],
    )
    plain = load_config("mask_rcnn_tiny_samples").model
    head, plain_head = cfg.model.roi_head.mask_head, plain.roi_head.mask_head
    if IDEAS[0] not in ideas:
        head.decoder = plain_head.decoder
    if IDEAS[1] not in ideas:
        head.target_frame = plain_head.target_frame
    if IDEAS[2] not in ideas:
        cfg.model.rpn_head.anchor_generator = plain.rpn_head.anchor_generator
        cfg.model.train_cfg.rpn.assigner = plain.train_cfg.rpn.assigner
    return cfg


def run(cfg: Config, work_dir: Path) -> dict[str, float]:
    """Trains and tests once; what was done before is read."""
    done = work_dir / "result.json"
    if not done.is_file():
        start = time.process_time()
        train(cfg, work_dir)
        seconds = time.process_time() - start
        found = test(cfg, max(work_dir.glob("epoch_*.pth"), key=lambda path: path.stat().st_mtime))
        done.write_text(json.dumps({**found, "cpu_seconds": seconds}))
    result: dict[str, float] = json.loads(done.read_text())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in given.seeds:
        for name, ideas in VARIANTS.items():
            cfg = configured(ideas, given.data, given.epochs, seed)
            results[name].append(run(cfg, given.work_dir / f"{name.replace(' ', '_')}_{seed}"))
    print(f"| variant | {' | '.join(COLUMNS)} | CPU s |\n|{'---|' * (len(COLUMNS) + 2)}")
    for name, runs in results.items():
        values = [f"{mean(r[f'text/{column}'] for r in runs):.3f}" for column in COLUMNS]
        hmeans = ", ".join(f"{r['text/best_hmean']:.3f}" for r in runs)
        print(f"| {name} | {' | '.join(values)} ({hmeans}) | {mean(r['cpu_seconds'] for r in runs):.0f} |")


if __name__ == "__main__":
    main()
