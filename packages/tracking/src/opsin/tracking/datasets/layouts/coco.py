"""COCO (arXiv 1405.0312) as still videos: every object is a sequence of one frame.

annotations/instances_train2017.json   train2017/000000000009.jpg
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from opsin.core.errors import UserError
from opsin.tracking.datasets.sequence import VideoSequence, sequence

LEAST_AREA = 100.0  # square pixels; smaller objects show nothing in a template
YEAR = "2017"


def read(root: Path, split: str) -> list[VideoSequence]:
    """The objects of `train` or `val` that are no crowds and not tiny.

    Raises:
        UserError: if the annotations are missing or damaged.
    """
    name = f"{split}{YEAR}"
    file = root / "annotations" / f"instances_{name}.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        pictures = {row["id"]: root / name / row["file_name"] for row in content["images"]}
        return [
            sequence(f"{name}-{row['id']}", [pictures[row["image_id"]]], np.array([row["bbox"]], np.float64))
            for row in content["annotations"]
            if not row.get("iscrowd") and row["bbox"][2] * row["bbox"][3] >= LEAST_AREA
        ]
    except FileNotFoundError:
        raise UserError(f"no file {file}", "give another folder with --data DIR") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{file} is not a COCO annotation file ({error!r})") from None
