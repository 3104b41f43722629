"""Prediction for people: trained trackers on videos and on folders of sequences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import Progress

from opsin.core.engine.predictor import VIDEO_SUFFIXES, Predictor
from opsin.core.errors import UserError
from opsin.tracking.crops import Box
from opsin.tracking.datasets.sequence import read_boxes, read_lines
from opsin.tracking.following import Row, follow_video
from opsin.tracking.tracker import Tracker
from opsin.tracking.video import open_frames

TRUTH = "groundtruth.txt"


class TrackingPredictor(Predictor):
    """Follows the target of each sequence; its first box is the first line of `groundtruth.txt`.

    Inputs are sequence folders, folders of them (GOT-10k's `val`), and video files with a text file of the
    same name (`walk.mp4`, `walk.txt`) that holds one box a target.
    """

    def tracker(self) -> Tracker:
        """A new tracker of the model."""
        found: Tracker = self.model.tracker()
        return found

    def predict(
        self,
        inputs: Sequence[Path],
        out: Path,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        quiet: bool = False,
    ) -> list[Row]:
        """Follows every input into files in `out`.

        Args:
            inputs: see the class.
            out: folder for the results; made if it is not there.
            on_error: what a bad frame or sequence does: stop, or be reported and skipped.
            quiet: no progress bar.

        Returns:
            One record a sequence: `file`, `name`, `frames`, `lost_frames`; a skipped one has `file`, `error`.
        """
        sources = [source for given in inputs for source in find_sequences(Path(given))]
        records = []
        for path in sources:
            try:
                rows = self.follow(str(path), first_boxes(path), out, on_error=on_error, quiet=quiet)
            except UserError as error:
                if on_error == "raise":
                    raise
                records.append({"file": str(path), "error": str(error)})
                continue
            lost = sum(row["lost"] for row in rows)
            name = path.name if path.is_dir() else path.stem
            records.append(
                {"file": str(path), "name": name, "frames": rows[-1]["frame"], "lost_frames": lost}
            )
        return records

    def follow(
        self,
        source: str,
        boxes: Sequence[Box],
        out: Path,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        quiet: bool = False,
        **options: Any,
    ) -> list[Row]:
        """Follows targets through one video; see `open_frames` for `source`, `follow_video` for the rest."""
        video = open_frames(source, on_error=on_error)
        with _bar(video.name, video.count, quiet) as step:
            return follow_video(self.tracker(), video, boxes, out, progress=step, **options)


def find_sequences(given: Path) -> list[Path]:
    """The sequence folders and videos at a path.

    Raises:
        UserError: if there is none.
    """
    if not given.exists():
        raise UserError(f"no file or folder at {given}")
    if given.is_file():
        return [given]
    if (given / TRUTH).is_file():
        return [given]
    if (given / "list.txt").is_file():
        return [given / name for name in read_lines(given / "list.txt")]
    found = sorted(path.parent for path in given.glob(f"*/{TRUTH}"))
    found += sorted(p for p in given.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise UserError(
            f"nothing to track in {given}",
            f"a sequence is a folder of frames with {TRUTH}; or use opsin track",
        )
    return found


def first_boxes(path: Path) -> list[Box]:
    """The boxes to begin with: the first line of a folder's truth, or all lines of a video's text file.

    Raises:
        UserError: if the file is missing or holds no box.
    """
    file = path / TRUTH if path.is_dir() else path.with_suffix(".txt")
    if not file.is_file():
        raise UserError(f"no box for {path}", f"write x,y,w,h into {file}, or use opsin track with --init")
    boxes = [(x, y, w, h) for x, y, w, h in read_boxes(file).tolist()]
    return boxes[:1] if path.is_dir() else boxes


@contextlib.contextmanager
def _bar(name: str, count: int | None, quiet: bool) -> Iterator[Any]:
    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task(name, total=count)
        yield lambda: progress.advance(bar)
