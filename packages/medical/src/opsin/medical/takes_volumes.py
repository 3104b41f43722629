"""Predictors that take volumes beside pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import pseudo_collate
from numpy.typing import NDArray

from opsin.core.engine.predictor import Predictor, Source, find_sources, with_unique_names
from opsin.medical.volumes import is_volume, stem

Image = NDArray[np.uint8]


class TakesVolumes(Predictor):
    """A predictor whose pipeline reads volumes itself (`is_volume`, `img_path`); pictures are read here."""

    def sources(self, inputs: Sequence[Path]) -> list[Source]:
        """Pictures, and volumes among the inputs or in folders."""
        return find_pictures_and_volumes(inputs)

    def read(self, path: Path) -> Image:
        """A picture's pixels; of a volume one black pixel, since the pipeline reads it."""
        return np.zeros((1, 1, 3), np.uint8) if is_volume(path) else super().read(path)

    def batch(self, image: Image, path: Path) -> Any:
        """One picture or volume as the batch that `test_step` takes."""
        if not is_volume(path):
            return super().batch(image, path)
        return pseudo_collate([self.pipeline({"img_path": str(path), "is_volume": True})])


def find_pictures_and_volumes(inputs: Sequence[Path]) -> list[Source]:
    """Pictures and volumes that `inputs` name, folders walked.

    Raises:
        UserError: if an input is not there, is of another kind, or a folder holds none.
    """
    found: list[Source] = []
    for given in map(Path, inputs):
        inside = sorted(p for p in given.rglob("*") if is_volume(p)) if given.is_dir() else [given]
        volumes = [path for path in inside if path.is_file() and is_volume(path)]
        found += [Source(path, Path(stem(path))) for path in volumes]
        if not volumes:
            found += find_sources([given])
    return with_unique_names(found)
