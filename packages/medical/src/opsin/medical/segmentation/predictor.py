"""Segmentation of pictures, volumes and DICOM series, each in its own space and format.

    photo.jpg            OUT/photo.png            classes as grey values, in the picture's size
    scan.nii.gz          OUT/scan.nii.gz          classes with the scan's own affine
    series/*.dcm         OUT/series.nii.gz        the same; with `dicom_seg = True` in the config also
                         OUT/series.seg.dcm       a DICOM segmentation object
                         OUT/pictures/….png       the picture, or three planes, with the classes tinted
                         OUT/volumes.csv          millilitres of every class in every volume
                         OUT/predictions.json

Nothing that is written or said tells who a DICOM file's patient is: the parts of file and folder names that
do are replaced, and only classes and geometry go into files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray

from opsin.core.data.image import read_image, write_image
from opsin.core.engine.predictor import Predictor, Source
from opsin.core.errors import UserError
from opsin.core.files import write_atomically
from opsin.medical.cases import Case, find_cases
from opsin.medical.segmentation.datasets.dataset import LUMA
from opsin.medical.segmentation.dicom_seg import write_segmentation
from opsin.medical.segmentation.visualization import three_planes, tinted
from opsin.medical.volumes import (
    Volume,
    axial_slices,
    from_axial_slices,
    read_series,
    read_volume,
    write_labels,
)


class MedicalSegmentationPredictor(Predictor):
    """Writes the classes of pictures as PNG and those of volumes as NIfTI, overlays, and a table of volumes.

    `cfg.label_values`, if there, are the grey values of the classes in PNGs (`[0, 63, 126]`); else they are 0
    and 255 for two classes, and the classes' own numbers for more.
    """

    def __init__(self, cfg: Config, checkpoint: Path | None, *, device: str = "cpu") -> None:
        super().__init__(cfg, checkpoint, device=device)
        self.classes = tuple(self.meta.get("classes") or cfg.get("classes") or ("background", "found"))
        default = (0, 255) if len(self.classes) == 2 else tuple(range(len(self.classes)))
        self.label_values = np.array(cfg.get("label_values", default), np.uint8)
        self.channels = int(cfg.get("channels", 1))
        self.dicom_seg = bool(cfg.get("dicom_seg", False))

    def sources(self, inputs: Sequence[Path]) -> list[Source]:
        """What to segment: the pictures, volumes and DICOM series that `inputs` name."""
        return list(find_cases(inputs))

    def _predict_image(self, source: Source, out: Path) -> dict[str, Any]:
        assert isinstance(source, Case)
        done = self._picture(source, out) if source.kind == "picture" else self._volume(source, out)
        return {"file": str(source.path), **done}

    def _picture(self, case: Case, out: Path) -> dict[str, Any]:
        image = read_image(case.files[0])
        pixels = image.transpose(2, 0, 1).astype(np.float32)
        if self.channels == 1:
            pixels = (image.astype(np.float32) @ LUMA)[None]
        labels = self._picture_labels(pixels, case)
        write_image(out / case.name.with_name(case.name.name + ".png"), self.label_values[labels])
        write_image(_picture_path(out, case), tinted(image, labels))
        shares = {name: float((labels == i).mean()) for i, name in enumerate(self.classes) if i}
        return {"size": [image.shape[1], image.shape[0]], "share": shares}

    def _picture_labels(self, pixels: NDArray[np.float32], case: Case) -> NDArray[np.uint8]:
        """Classes (H, W) of a picture (C, H, W), whatever size the pipeline gives the network."""
        inputs = self._inputs(pixels, case)
        if inputs.ndim - 1 < self.model.spatial_dims:
            return np.asarray(self.model.labels(inputs).numpy())  # which says what is wrong
        with torch.inference_mode():
            probabilities = self.model.probabilities(inputs[None])[0].cpu().numpy()
        size = pixels.shape[2], pixels.shape[1]
        scaled = np.stack([cv2.resize(p, size, interpolation=cv2.INTER_LINEAR) for p in probabilities])
        if len(scaled) == 1:
            return (scaled[0] >= self.model.threshold).astype(np.uint8)
        return scaled.argmax(0).astype(np.uint8)

    def _volume(self, case: Case, out: Path) -> dict[str, Any]:
        volume = read_series(case.files) if case.kind == "series" else read_volume(case.files[0])
        slices = axial_slices(volume.values)[None]
        inputs = self._inputs(slices, case)
        with torch.inference_mode():
            found = self.model.labels(inputs).numpy()
        if found.shape != slices.shape[1:]:
            raise UserError(
                f"the config's pipeline makes a volume of {slices.shape[1:]} one of {found.shape}",
                "resize in the model, by slice_size",
            )
        labels = from_axial_slices(found)
        write_labels(out / case.name.with_name(case.name.name + ".nii.gz"), labels, volume)
        if self.dicom_seg and volume.files:
            write_segmentation(
                out / case.name.with_name(f"{case.name.name}.seg.dcm"), labels, volume, self.classes
            )
        write_image(_picture_path(out, case), three_planes(volume.values, labels, volume.spacing))
        return {
            "shape": list(volume.shape),
            "spacing_mm": [round(s, 4) for s in volume.spacing],
            "volume_ml": self._millilitres(labels, volume),
        }

    def _millilitres(self, labels: NDArray[np.uint8], volume: Volume) -> dict[str, float]:
        counts = np.bincount(labels.ravel(), minlength=len(self.classes))
        return {
            name: round(float(counts[i]) * volume.voxel_ml, 4) for i, name in enumerate(self.classes) if i
        }

    def _inputs(self, pixels: NDArray[np.float32], case: Case) -> torch.Tensor:
        """What the test pipeline makes of a picture or volume."""
        packed = self.pipeline({"img": pixels, "img_path": str(case.path)})
        return packed["inputs"].to(next(self.model.parameters()).device)

    def finish(self, records: list[dict[str, Any]], out: Path) -> None:
        """Writes `predictions.json`, and `volumes.csv` if there were volumes."""
        super().finish(records, out)
        rows = [[r["file"], *r["volume_ml"].values()] for r in records if "volume_ml" in r]
        if rows:
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([["file", *(f"{name} (ml)" for name in self.classes[1:])], *rows])
            write_atomically(out / "volumes.csv", text.getvalue().encode())


def _picture_path(out: Path, case: Case) -> Path:
    return out / "pictures" / case.name.with_name(case.name.name + ".png")
