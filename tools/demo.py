"""The main job: sample pictures, a trained detector, its box AP, predictions on held-out pictures, a report.

    python tools/demo.py [OUT] [key=value …]

writes everything into OUT (default `demo_out`) and ends with `AP50 trained X untrained Y report PATH`. All
of it goes along the road of `opsin samples`, `train`, `test` and `predict`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from opsin.core.data.image import read_image, write_image
from opsin.core.engine.checkpoint import last_checkpoint
from opsin.core.engine.config import build_model, load_config
from opsin.core.engine.runner import test, train
from opsin.core.report import Section, plot_curves, read_curves, write_page
from opsin.core.task import get_task
from opsin.detection.palette import palette
from opsin.detection.visualization import draw

CONFIG = "retinanet_convnext_samples"
AP50 = "coco/bbox_mAP_50"
SHOWN = 6  # held-out pictures in the report


def main(out: Path, overrides: list[str]) -> None:
    started = time.perf_counter()
    data, work, results = out / "samples", out / "work", out / "predictions"
    for stale in (data, work, results):
        shutil.rmtree(stale, ignore_errors=True)
    task = get_task("detection")
    task.write_samples(data)

    def config() -> Config:
        return load_config(CONFIG, data=data, overrides=overrides)

    untrained = test(config(), save_untrained(config(), work / "untrained.pth"), work_dir=work / "untrained")
    train(config(), work)
    checkpoint = last_checkpoint(work)
    trained = test(config(), checkpoint, work_dir=work / "test")
    pictures = sorted((data / "images" / "val").glob("*"))[:SHOWN]
    task.load_predictor()(config(), checkpoint).predict(pictures, results)
    pairs = [beside_truth(path, data, results) for path in pictures]
    seconds = time.perf_counter() - started
    page = report(out, work, trained, untrained, pairs, seconds)
    print(f"AP50 trained {trained[AP50]:.3f} untrained {untrained[AP50]:.3f} report {page}")


def save_untrained(cfg: Config, path: Path) -> Path:
    """A checkpoint of the network as it is before training, so that it is tested along the same road."""
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, path)
    return path


def beside_truth(image: Path, data: Path, results: Path) -> Path:
    """Writes ground truth (left) and prediction (right) side by side; returns the PNG's path."""
    annotations = json.loads((data / "annotations" / "instances_val.json").read_text())
    classes = [category["name"] for category in annotations["categories"]]
    index = {category["id"]: i for i, category in enumerate(annotations["categories"])}
    image_id = next(row["id"] for row in annotations["images"] if Path(row["file_name"]).name == image.name)
    things = [a for a in annotations["annotations"] if a["image_id"] == image_id]
    boxes = np.array([a["bbox"] for a in things], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = [index[a["category_id"]] for a in things]
    truth = draw(read_image(image), boxes, labels, classes=classes, colours=palette(len(classes)))
    predicted = read_image(results / "pictures" / image.with_suffix(".png").name)
    gap = np.full((truth.shape[0], 8, 3), 255, np.uint8)
    path = results / "beside_truth" / image.with_suffix(".png").name
    write_image(path, np.hstack([truth, gap, predicted]))
    return path


def report(
    out: Path,
    work: Path,
    trained: dict[str, float],
    untrained: dict[str, float],
    pairs: list[Path],
    seconds: float,
) -> Path:
    """Draws the curves and writes the page."""
    curves = read_curves(work)
    losses = {name: curve for name, curve in curves.items() if "loss" in name}
    precision = {name: curves[name] for name in ("coco/bbox_mAP", AP50) if name in curves}
    plots = [
        plot_curves(losses, out / "loss.png", title="Training loss", xlabel="iteration", ylabel="loss"),
        plot_curves(
            precision, out / "ap.png", title="Box AP on held-out pictures", xlabel="epoch", ylabel="AP"
        ),
    ]
    rows = [(name, f"{value:.3f} (untrained {untrained[name]:.3f})") for name, value in trained.items()]
    sections = [
        Section(
            "Result", f"{CONFIG}, trained from scratch; {seconds:.0f} s from pictures to this page.", rows
        ),
        Section("Curves", pictures=[(plot, "") for plot in plots]),
        Section("Held-out pictures", "Ground truth, then prediction.", pictures=[(p, p.stem) for p in pairs]),
    ]
    return write_page(out / "report.html", "opsin: a detector trained on sample pictures", sections)


if __name__ == "__main__":
    given = sys.argv[1:]
    changes = [word for word in given if "=" in word]
    place = next((word for word in given if "=" not in word), "demo_out")
    main(Path(place), changes)
