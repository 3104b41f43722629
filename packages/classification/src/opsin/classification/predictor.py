"""Classes of pictures: JSON and CSV of the five likeliest, and a picture of where the model looked."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray

from opsin.classification.activation_map import activation_map
from opsin.classification.visualization import draw_classes, draw_heat
from opsin.core.engine.predictor import Predictor

TOP = 5


class ClassificationPredictor(Predictor):
    """Writes `predictions.json`, `predictions.csv` and `pictures/`.

    A record has `label` (index), `class` (name) and `top`, a list of `{"label", "class", "score"}` for the
    five likeliest classes. A model whose checkpoint names no classes calls them by their numbers.
    """

    def record(self, result: BaseDataElement, image: NDArray[np.uint8], path: Path) -> dict[str, Any]:
        """The five likeliest classes of one picture."""
        top = self._top(result)
        return {"label": top[0]["label"], "class": top[0]["class"], "top": top}

    def infer(self, image: NDArray[np.uint8], path: Path) -> BaseDataElement:
        """Scores, label and, unless the config says `activation_map = False`, where the model looked.

        That is `seen`: the part of the picture that the network was given, RGB (h, w, 3), in the colours of
        its Grad-CAM for the label.
        """
        batch = self.batch(image, path)
        with torch.no_grad():
            result: BaseDataElement = self.model.test_step(batch)[0]
        if self.cfg.get("activation_map", True):
            crop = batch["inputs"][0].permute(1, 2, 0).numpy()
            normalised = self.model.data_preprocessor(batch, training=False)["inputs"]
            heat = activation_map(self.model.network, normalised, int(result.pred_label))
            if heat is not None:
                result.seen = draw_heat(crop, heat.cpu().numpy())
        return result

    def picture(self, result: BaseDataElement, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture, where the model looked, and the five likeliest classes as bars."""
        top = [(row["class"], row["score"]) for row in self._top(result)]
        return draw_classes(image, top, result.get("seen"))

    def finish(self, records: list[dict[str, Any]], out: Path) -> None:
        """Writes the JSON, and a CSV with a row a file: its classes and their scores."""
        super().finish(records, out)
        columns = [f"{what}{place}" for place in range(1, TOP + 1) for what in ("class", "score")]
        with (out / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["file", "frame", *columns])
            writer.writeheader()
            for record in records:
                row = {"file": record["file"], "frame": record.get("frame", "")}
                for place, guess in enumerate(record.get("top", ()), start=1):
                    row |= {f"class{place}": guess["class"], f"score{place}": f"{guess['score']:.6f}"}
                writer.writerow(row)

    def _top(self, result: BaseDataElement) -> list[dict[str, Any]]:
        scores, labels = result.pred_scores.topk(min(TOP, len(result.pred_scores)))
        classes = self.meta.get("classes") or ()
        return [
            {"label": label, "class": classes[label] if label < len(classes) else str(label), "score": score}
            for score, label in zip(scores.tolist(), labels.tolist(), strict=True)
        ]
