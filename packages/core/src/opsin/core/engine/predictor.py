"""Prediction for people: picture files, folders and videos in; predictions and pictures out.

A task's predictor says how one result becomes JSON (`record`) and a picture (`picture`); walking the inputs,
loading the model, reading images and writing files is the same for every task and stands here.

A model that works on a picture part by part, and has an attribute `progress`, gets there a function to call
with the parts done and all parts; the command line shows a bar for them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from opsin.core.data.image import IMAGE_SUFFIXES, list_images, read_image, write_image
from opsin.core.engine.checkpoint import load_exactly, read_run
from opsin.core.engine.config import build_model, pipeline_of
from opsin.core.errors import UserError
from opsin.core.files import write_atomically

Image = NDArray[np.uint8]
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})


@dataclass(frozen=True)
class Source:
    """One thing to predict on: a file, and the name of its outputs (relative to the given folder)."""

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether the file is a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


class Predictor:
    """Runs a trained model on files; the base class of every task's predictor.

    Args:
        cfg: the config that the model was trained with.
        checkpoint: its checkpoint; None keeps the random weights (an untrained baseline).
        device: `cpu`, `cuda`, `cuda:1` …

    Raises:
        UserError: if the checkpoint can't be read or is of another model.
    """

    def __init__(self, cfg: Config, checkpoint: Path | None, *, device: str = "cpu") -> None:
        self.cfg = cfg
        self.model = build_model(cfg)
        self.meta: dict[str, Any] = {}
        if checkpoint is not None:
            self._load(Path(checkpoint))
        self.model.to(device).eval()
        self._bars: tuple[Progress, TaskID] | None = None  # while it predicts, with the task of the parts
        if hasattr(self.model, "progress"):
            self.model.progress = self._show_parts
        loader, self.pipeline = self._split_pipeline()
        self.channels_reversed = loader == "LoadImageFromFile"  # OpenMMLab's loader gives BGR

    def _load(self, checkpoint: Path) -> None:
        content = read_run(checkpoint)
        load_exactly(self.model, content["state_dict"], source=str(checkpoint))
        self.meta = dict(content["meta"].get("dataset_meta") or {})

    def _split_pipeline(self) -> tuple[str, Compose]:
        """The name of the image loader, and the transforms without it and without annotation loaders."""
        transforms = pipeline_of(self.cfg)
        names = [str(t["type"]).rsplit(".", 1)[-1] for t in transforms]
        loader = next((name for name in names if name.startswith("LoadImage")), "")
        kept = [t for t, name in zip(transforms, names, strict=True) if not name.startswith("Load")]
        return loader, Compose(kept)

    # What a task says.

    def record(self, result: Any, image: Image, path: Path) -> dict[str, Any]:
        """The JSON values of one result."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a result becomes JSON")

    def picture(self, result: Any, image: Image) -> Image:
        """The picture of one result, RGB uint8."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a result is drawn")

    def frames(self, result: Any, image: Image) -> dict[str, Image]:
        """The pictures of one frame of a video, RGB uint8, by the folder of the video that they make."""
        return {"pictures": self.picture(result, image)}

    def save(self, result: Any, image: Image, source: Source, out: Path) -> None:
        """Writes the files of one result besides picture and record (masks, restored images); none here."""

    def finish(self, records: list[dict[str, Any]], out: Path) -> None:
        """Writes all records; here as a list in `predictions.json`."""
        write_json(out / "predictions.json", records)

    def sources(self, inputs: Sequence[Path]) -> list[Source]:
        """What to predict on: the images and videos that `inputs` name."""
        return find_sources(inputs)

    def read(self, path: Path) -> Image:
        """Reads one image file as RGB uint8 (H, W, 3)."""
        return read_image(path)

    def infer(self, image: Image, path: Path) -> Any:
        """The model's result for one RGB image: pipeline, collate, `test_step`, first result."""
        with torch.inference_mode():
            return self.model.test_step(self.batch(image, path))[0]

    def batch(self, image: Image, path: Path) -> Any:
        """One RGB image as the batch that `test_step` takes."""
        pixels = image[..., ::-1].copy() if self.channels_reversed else image
        sample = {
            "img": pixels,
            "img_path": str(path),
            "img_id": 0,
            "img_shape": image.shape[:2],
            "ori_shape": image.shape[:2],
            "scale_factor": (1.0, 1.0),
        }
        return pseudo_collate([self.pipeline(sample)])

    # The way of the files.

    def predict(
        self,
        inputs: Sequence[Path],
        out: Path,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        quiet: bool = False,
    ) -> list[dict[str, Any]]:
        """Predicts on every image and video, writes `out/pictures/…` and the task's prediction files.

        Args:
            inputs: image files, video files and folders of them.
            out: folder for the results; made if it is not there.
            on_error: what a file that can't be read does: stop (after what is done has been written) or be
                reported and skipped.
            quiet: no progress bar.

        Returns:
            The records, in the order of the inputs; a skipped file has `{"file", "error"}`.
        """
        sources = self.sources(inputs)
        make_folder(out)
        records: list[dict[str, Any]] = []
        console = Console(stderr=True)
        try:
            for source in self._tracked(sources, console, quiet or not console.is_terminal):
                try:
                    records += (
                        self._predict_video(source, out)
                        if source.is_video
                        else [self._predict_image(source, out)]
                    )
                except UserError as error:
                    if on_error == "raise":
                        raise
                    console.print(f"skipped: {error}", soft_wrap=True, highlight=False)
                    records.append({"file": str(source.path), "error": str(error)})
        finally:
            self.finish(records, out)
        return records

    def _tracked(self, sources: list[Source], console: Console, hidden: bool) -> Iterator[Source]:
        """The sources, under a bar that counts them and one for the parts of a picture."""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, disable=hidden) as bars:
            files = bars.add_task("predict", total=len(sources))
            self._bars = bars, bars.add_task("parts", visible=False)
            try:
                for source in sources:
                    yield source
                    bars.advance(files)
            finally:
                self._bars = None

    def _show_parts(self, done: int, total: int) -> None:
        """Moves the bar of parts, which is there as long as parts are missing."""
        if self._bars is not None:
            bars, parts = self._bars
            bars.update(parts, completed=done, total=total, visible=done < total)

    def _predict_image(self, source: Source, out: Path) -> dict[str, Any]:
        image = self.read(source.path)
        result = self.infer(image, source.path)
        self.save(result, image, source, out)
        write_image(out / "pictures" / source.name.with_suffix(".png"), self.picture(result, image))
        return {"file": str(source.path), **self.record(result, image, source.path)}

    def _predict_video(self, source: Source, out: Path) -> list[dict[str, Any]]:
        records = []
        rate, frames = open_video(source.path)
        with ExitStack() as stack:
            films: dict[str, Film] = {}
            for index, image in enumerate(frames):
                result = self.infer(image, source.path)
                for folder, picture in self.frames(result, image).items():
                    if folder not in films:
                        target = out / folder / source.name.with_suffix(".mp4")
                        films[folder] = stack.enter_context(Film(target, rate))
                    films[folder].add(picture)
                records.append(
                    {"file": str(source.path), "frame": index, **self.record(result, image, source.path)}
                )
        if not records:
            raise UserError(f"{source.path} holds no readable frame")
        return records


class Film:
    """A video file that is written frame by frame, without sound; a context manager.

    Args:
        path: an `.mp4` file; its folder is made if need be.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self.writer: cv2.VideoWriter | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, picture: Image) -> None:
        """Writes a frame, RGB uint8; the first one's size is the video's."""
        if self.writer is None:
            self.height, self.width = picture.shape[:2]
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            self.writer = cv2.VideoWriter(str(self.path), fourcc, self.rate, (self.width, self.height))
        self.writer.write(fitted(picture, self.height, self.width)[..., ::-1])

    def __exit__(self, *exception: object) -> None:
        if self.writer is not None:
            self.writer.release()


def fitted(picture: Image, height: int, width: int) -> Image:
    """The picture cut or filled up with white: a video's frames have one size, legends have several."""
    cut = picture[:height, :width]
    missing = ((0, height - cut.shape[0]), (0, width - cut.shape[1]), (0, 0))
    return np.pad(cut, missing, constant_values=255)


def find_sources(inputs: Sequence[Path]) -> list[Source]:
    """The images and videos that `inputs` name, folders walked; output names are unique.

    Raises:
        UserError: if an input is not there, is of an unknown kind, or a folder holds nothing to predict on.
    """
    sources = []
    for given in map(Path, inputs):
        if given.is_dir():
            videos = sorted(p for p in given.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
            images = [] if videos and not _has_images(given) else list_images(given)
            sources += [Source(path, path.relative_to(given)) for path in images + videos]
        elif not given.exists():
            raise UserError(f"no file or folder at {given}")
        elif given.suffix.lower() in {*VIDEO_SUFFIXES, *IMAGE_SUFFIXES}:
            sources.append(Source(given, Path(given.name)))
        else:
            raise UserError(f"{given} is neither an image nor a video")
    return with_unique_names(sources)


def _has_images(folder: Path) -> bool:
    return any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.rglob("*"))


def with_unique_names(sources: list[Source]) -> list[Source]:
    """The sources, names that differ in their suffix alone told apart by a number."""
    taken: dict[Path, int] = {}
    unique = []
    for source in sources:
        key = source.name.with_suffix("")
        count = taken.get(key, 0)
        taken[key] = count + 1
        name = (
            source.name
            if count == 0
            else source.name.with_name(f"{key.name}_{count + 1}{source.name.suffix}")
        )
        unique.append(replace(source, name=name))
    return unique


def open_video(path: Path) -> tuple[float, Iterator[Image]]:
    """Frames per second, and the frames as RGB uint8 (H, W, 3)."""
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise UserError(f"{path} can't be read as a video")

    def frames() -> Iterator[Image]:
        while True:
            read, frame = capture.read()
            if not read:
                capture.release()
                return
            yield np.ascontiguousarray(frame[..., ::-1], dtype=np.uint8)

    return capture.get(cv2.CAP_PROP_FPS) or 25.0, frames()


def make_folder(path: Path) -> None:
    """Makes a folder and its parents.

    Raises:
        UserError: if it can't be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't write to {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"can't write to {path}: permission denied")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
