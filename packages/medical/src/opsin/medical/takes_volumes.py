"""Predictors that take volumes beside pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import pseudo_collate
from numpy.typing import NDArray

from opsin.core.engine.predictor import Predictor, Source, find_sources, with_unique_names
from opsin.medical.cases import Case, find_cases
from opsin.medical.volumes import is_volume

Image = NDArray[np.uint8]


class TakesVolumes(Predictor):
    """A predictor whose pipeline reads volumes itself (`is_volume`, `img_path`); pictures are read here.

    A folder with a DICOM series is one volume. Names of outputs and records do not tell who the patient is.
    """

    def sources(self, inputs: Sequence[Path]) -> list[Source]:
        """Pictures, and volumes among the inputs or in folders."""
        return find_pictures_and_volumes(inputs)

    def read(self, path: Path) -> Image:
        """A picture's pixels; of a volume one black pixel, since the pipeline reads it."""
        return np.zeros((1, 1, 3), np.uint8) if holds_volume(path) else super().read(path)

    def batch(self, image: Image, path: Path) -> Any:
        """One picture or volume as the batch that `test_step` takes."""
        if not holds_volume(path):
            return super().batch(image, path)
        return pseudo_collate([self.pipeline({"img_path": str(path), "is_volume": True})])

    def _predict_image(self, source: Source, out: Path) -> dict[str, Any]:
        if not isinstance(source, Case):
            return super()._predict_image(source, out)
        named = source.name.with_name(f"{source.name.name}.png")
        return super()._predict_image(Source(source.location, named), out) | {"file": str(source.path)}


def holds_volume(path: Path) -> bool:
    """Whether `path` is a volume's file, or the folder of a DICOM series."""
    return path.is_dir() or is_volume(path)


def find_pictures_and_volumes(inputs: Sequence[Path]) -> list[Source]:
    """Pictures and volumes that `inputs` name, folders walked; videos if there is no volume.

    Raises:
        UserError: if an input is not there, is of another kind, or a folder holds none.
    """
    found: list[Source] = []
    for given in map(Path, inputs):
        inside = given.rglob("*") if given.is_dir() else [given]
        with_volumes = any(path.is_file() and is_volume(path) for path in inside)
        found += find_cases([given]) if with_volumes else find_sources([given])
    return with_unique_names(found)
