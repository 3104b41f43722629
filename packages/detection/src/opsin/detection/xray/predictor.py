"""The inspector's report: what was found in each picture, how much of each kind, and what is alarming."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from opsin.core.engine.predictor import Image, write_json
from opsin.core.errors import unknown
from opsin.core.files import write_atomically
from opsin.detection.predictor import DetectionPredictor
from opsin.detection.visualization import SMALLEST_SIDE
from opsin.detection.xray.classes import CLASSES, PALETTE

ALARM_COLOUR = (214, 0, 28)
CLEAR_COLOUR = (0, 128, 60)


class XrayPredictor(DetectionPredictor):
    """Boxes and masks as `DetectionPredictor` writes them, and a report.

    An item whose score reaches the alarm threshold raises an alarm: `alarm_above` in the config, a number for
    all classes or a dictionary by class (others then take 0.5). Besides `predictions.json` and `images.json`:

    * `report.json`: the thresholds, totals, and for each picture `alarm`, `counts` by class and `items`
      (class, score, box, area in pixels, whether it raises the alarm);
    * `report.csv`: one row a picture: file, alarm, the highest score, what raised the alarm, a count a class;
    * pictures of what is alarming, under a banner that says so, or that the bag is clear.

    Raises:
        UserError: if `alarm_above` names a class that the model does not know.
    """

    default_alarm = 0.5

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meta = {"classes": CLASSES, "palette": PALETTE, **self.meta}
        given = self.cfg.get("alarm_above", self.default_alarm)
        if isinstance(given, dict):
            for name in given:
                if name not in self.meta["classes"]:
                    raise unknown("class in alarm_above", name, self.meta["classes"])
            self.alarm_above = [float(given.get(name, self.default_alarm)) for name in self.meta["classes"]]
        else:
            self.alarm_above = [float(given)] * len(self.meta["classes"])

    def shown(self, found: Any) -> Tensor:
        """What raises an alarm, (N,) bool."""
        return torch.as_tensor(found.scores) >= torch.tensor(self.alarm_above)[torch.as_tensor(found.labels)]

    def items(self, result: Any) -> list[dict[str, Any]]:
        """What the model found, surest first: class, score, box x1 y1 x2 y2, area, whether it is alarming."""
        found = result.pred_instances.cpu()
        alarming = self.shown(found)
        found = found.numpy()
        items = []
        for index in np.argsort(-found.scores, kind="stable"):
            name = self.meta["classes"][int(found.labels[index])]
            box = [round(float(v), 1) for v in found.bboxes[index]]
            area = found.masks[index].sum() if "masks" in found else (box[2] - box[0]) * (box[3] - box[1])
            score = float(found.scores[index])
            alarm = bool(alarming[index])
            items.append(
                {"class": name, "score": round(score, 4), "box": box, "area": int(area), "alarm": alarm}
            )
        return items

    def record(self, result: Any, image: Image, path: Path) -> dict[str, Any]:
        """COCO's detections, and the report's `alarm`, `counts` of alarming items and `items`."""
        items = self.items(result)
        counts = Counter(item["class"] for item in items if item["alarm"])
        return {
            **super().record(result, image, path),
            "alarm": bool(counts),
            "counts": {name: counts[name] for name in self.meta["classes"] if counts[name]},
            "items": items,
        }

    def picture(self, result: Any, image: Image) -> Image:
        """The picture with what was found, under a banner."""
        drawn = super().picture(result, image)
        counts = Counter(item["class"] for item in self.items(result) if item["alarm"])
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        return np.concatenate((banner(drawn.shape[1], said), drawn))

    def finish(self, records: list[dict[str, Any]], out: Path) -> None:
        """Writes COCO's files and both reports."""
        own = ("alarm", "counts", "items")
        super().finish([{k: v for k, v in record.items() if k not in own} for record in records], out)
        pictures = [{k: v for k, v in record.items() if k != "detections"} for record in records]
        totals: Counter[str] = Counter()
        for picture in pictures:
            totals.update(picture.get("counts", {}))
        summary = {
            "pictures": len(pictures),
            "alarms": sum(bool(picture.get("alarm")) for picture in pictures),
            "unreadable": sum("error" in picture for picture in pictures),
            "alarm_above": dict(zip(self.meta["classes"], self.alarm_above, strict=True)),
            "counts": dict(totals),
        }
        write_json(out / "report.json", {"summary": summary, "pictures": pictures})
        write_atomically(out / "report.csv", self._table(pictures).encode())

    def _table(self, pictures: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "frame", "alarm", "highest_score", "items", *self.meta["classes"], "error"])
        for picture in pictures:
            counts = picture.get("counts", {})
            writer.writerow(
                [
                    picture["file"],
                    picture.get("frame", ""),
                    "" if "error" in picture else int(picture["alarm"]),
                    max((item["score"] for item in picture.get("items", [])), default=""),
                    " ".join(f"{name}:{count}" for name, count in counts.items()),
                    *(counts.get(name, 0) for name in self.meta["classes"]),
                    picture.get("error", ""),
                ]
            )
        return text.getvalue()


def banner(width: int, said: str) -> Image:
    """A strip (H, width, 3) that says ALARM and what raised it, or that nothing was found."""
    height = max(24, SMALLEST_SIDE // 14)
    strip = np.empty((height, width, 3), np.uint8)
    strip[:] = ALARM_COLOUR if said else CLEAR_COLOUR
    text = f"ALARM: {said}" if said else "clear"
    size = 0.02 * height
    wide = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]
    size *= min(1.0, (width - 16) / max(1, wide))
    place = (8, int(height * 0.7))
    cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return strip
