"""SynthText: words set into photographs by machine, for pre-training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from opsin.core.data.dataset import Dataset
from opsin.core.errors import UserError
from opsin.ocr.text_detection.datasets.text_dataset import Entry, TextDataset
from opsin.registry import DATASETS

TABLES = ("imnames", "wordBB", "txt")

LEAST_AREA = 1.0
"""Words of less area, in pixels, are dropped; the published file has some."""


@DATASETS.register_module()
class SynthText(Dataset):
    """SynthText as published: `gt.mat` and the pictures that it names, in folders `1` … `200`.

    Entries are those of `TextDataset` without height and width: there are 858 750 pictures, which are not
    opened, and 7 million words, which are kept as one array a picture until they are asked for.

    Args:
        **kwargs: those of `Dataset`: `data_root`, `pipeline`, …

    Raises:
        UserError: when `gt.mat` is missing or has not the tables imnames, wordBB and txt of one length.
    """

    METAINFO: ClassVar[dict[str, Any]] = TextDataset.METAINFO

    def expected_files(self) -> list[Path]:
        """The one file with the annotations of all pictures."""
        return [Path(self.data_root) / "gt.mat"]

    def load_data_list(self) -> list[Entry]:
        """Reads `gt.mat`."""
        path = Path(self.data_root) / "gt.mat"
        names, boxes, texts = _tables(path)
        return [
            _entry(Path(self.data_root), str(_first(name)), box, text, f"{path} picture {number}")
            for number, (name, box, text) in enumerate(zip(names, boxes, texts, strict=True), start=1)
        ]

    def get_data_info(self, idx: int) -> Entry:
        """The entry of a picture, its words as `instances`."""
        entry: Entry = super().get_data_info(idx)
        words, texts = entry.pop("words"), entry.pop("texts")
        entry["instances"] = [
            {"polygon": word, "text": text, "ignore": False} for word, text in zip(words, texts, strict=True)
        ]
        return entry


def _tables(path: Path) -> list[Any]:
    try:
        content = loadmat(path, variable_names=TABLES)
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise UserError(f"{path} cannot be read as a .mat file ({error})") from None
    missing = [name for name in TABLES if name not in content]
    if missing:
        raise UserError(f"{path} lacks the table(s) {', '.join(missing)}")
    tables = [content[name].reshape(-1) for name in TABLES]
    if len({len(table) for table in tables}) > 1:
        lengths = ", ".join(f"{name} {len(table)}" for name, table in zip(TABLES, tables, strict=True))
        raise UserError(f"the tables of {path} are of different lengths: {lengths}")
    return tables


def _entry(root: Path, name: str, box: Any, text: Any, where: str) -> Entry:
    """One picture; `box` is (2, 4, words) or, of one word, (2, 4), and `text` its blocks of lines."""
    points = np.asarray(box, np.float32)
    if points.shape[:2] != (2, 4) or not np.isfinite(points).all():
        raise UserError(f"{where} ({name}): corners of shape {points.shape} instead of (2, 4, words)")
    words = points.reshape(2, 4, -1).transpose(2, 1, 0)
    texts = [word for block in np.asarray(text).reshape(-1) for word in str(block).split()]
    if len(texts) != len(words):
        raise UserError(f"{where} ({name}): {len(words)} quadrilaterals for {len(texts)} words")
    kept = _areas(words) >= LEAST_AREA
    return {
        "img_path": str(root / name),
        "img_id": name,
        "words": words[kept],
        "texts": [text for text, keep in zip(texts, kept, strict=True) if keep],
    }


def _areas(words: NDArray[np.float32]) -> NDArray[np.float32]:
    """Areas of quadrilaterals (words, 4, 2)."""
    x, y = words[..., 0], words[..., 1]
    area: NDArray[np.float32] = np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(axis=1)) / 2
    return area


def _first(cell: Any) -> Any:
    return np.asarray(cell).reshape(-1)[0]
