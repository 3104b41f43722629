"""Result files, each in its benchmark's own format, ready to upload."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from opsin.core.errors import unknown
from opsin.core.files import write_atomically
from opsin.tracking.datasets.sequence import Boxes, read_boxes

Times = NDArray[Any]


@dataclass(frozen=True)
class ResultFormat:
    """How a benchmark wants results.

    Attributes:
        boxes, times: file names in the result folder, of a sequence's name.
        line: writes one box.
        zipped: the benchmark's server takes one zip of all files.
    """

    boxes: str
    times: str | None
    line: Callable[[Sequence[float]], str]
    zipped: bool = False

    def write(self, folder: Path, name: str, boxes: Boxes, seconds: Times) -> None:
        """Writes one sequence's files; that of the boxes appears last, so that it stands for the whole.

        Args:
            folder: of all results.
            name: of the sequence.
            boxes: x, y, w, h (N, 4).
            seconds: that each frame took, (N,).
        """
        if self.times:
            lines = [f"{value:.6f}" for value in seconds]
            write_atomically(folder / self.times.format(name=name), ("\n".join(lines) + "\n").encode())
        rows = "".join(f"{self.line(box)}\n" for box in boxes.tolist())
        write_atomically(folder / self.boxes.format(name=name), rows.encode())

    def read(self, folder: Path, name: str) -> Boxes | None:
        """The boxes of a sequence, or None if there is no result yet."""
        path = folder / self.boxes.format(name=name)
        return read_boxes(path) if path.is_file() else None

    def pack(self, folder: Path, names: Sequence[str]) -> Path | None:
        """Writes `<folder>.zip` of the named sequences' files, if the benchmark wants one; its path."""
        if not self.zipped:
            return None
        files = [form.format(name=name) for name in names for form in (self.boxes, self.times) if form]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(folder / file, file)
        path = folder.with_name(f"{folder.name}.zip")
        write_atomically(path, content.getvalue())
        return path


def _integers(separator: str) -> Callable[[Sequence[float]], str]:
    return lambda box: separator.join(str(int(value)) for value in box)  # truncated, as in published results


def _hundredths(box: Sequence[float]) -> str:
    return ",".join(f"{value:.2f}" for value in box)


def _ten_thousandths(box: Sequence[float]) -> str:
    return ",".join(f"{value:.4f}" for value in box)


TABBED = ResultFormat("{name}.txt", "{name}_time.txt", _integers("\t"))
FORMATS = {
    "lasot": TABBED,
    "uav123": TABBED,
    "otb100": TABBED,
    "got10k": ResultFormat("{name}/{name}_001.txt", "{name}/{name}_time.txt", _integers(","), zipped=True),
    "trackingnet": ResultFormat("{name}.txt", None, _hundredths, zipped=True),
    "vot": ResultFormat("{name}/{name}_001.txt", "{name}/{name}_time.txt", _ten_thousandths),
}


def result_format(layout: str) -> ResultFormat:
    """The format of a benchmark.

    Raises:
        UserError: if it has none (COCO and VID are for training).
    """
    if layout not in FORMATS:
        raise unknown("benchmark", layout, FORMATS)
    return FORMATS[layout]
