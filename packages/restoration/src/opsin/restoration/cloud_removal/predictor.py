"""Cloud removal of files: for each place the cloud-free picture, and what the network took for clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from opsin.core.data.image import list_images, read_metadata, write_image
from opsin.core.engine.predictor import Predictor, Source
from opsin.core.errors import UserError
from opsin.restoration.cloud_removal.datasets.places import DATES, group_dates, infrared_of
from opsin.restoration.cloud_removal.datasets.sample import CloudRemovalSample
from opsin.restoration.cloud_removal.datasets.transforms import read_dates
from opsin.restoration.cloud_removal.raster import is_tiff, write_bands
from opsin.restoration.cloud_removal.visualization import display_rgb, draw_place, heat_map


@dataclass(frozen=True)
class Place(Source):
    """A place; `path` is its first date."""

    dates: tuple[Path, ...]


class CloudRemovalPredictor(Predictor):
    """Predicts on places: files `NAME_0`, `NAME_1`, `NAME_2`, folders of them, or three files of any names.

    Writes for each place

    * `OUT/NAME.tif`: all bands in the depth of the input, with the georeference of its first date (for inputs
      that are no TIFF files `OUT/NAME.png`);
    * `OUT/rgb/NAME.png`: the same for people, stretched as published;
    * `OUT/masks/NAME_0.png` … : cloud attention in the colours of JET;
    * `OUT/pictures/NAME.png`: dates, result and attention side by side.
    """

    def sources(self, inputs: Sequence[Path]) -> list[Source]:
        """The places that `inputs` name.

        Raises:
            UserError: if an input is not there, a place lacks a date, or nothing is a place.
        """
        given = [Path(path) for path in inputs]
        files = [path for path in given if not path.is_dir()]
        folders = [path for path in given if path.is_dir()]
        for path in files:
            if not path.exists():
                raise UserError(f"no file or folder at {path}")
        places = group_dates(files)
        if files and not places:
            if len(files) != DATES:
                raise UserError(
                    f"{len(files)} files are no place", f"give {DATES} dates, or names that end in _0, _1, _2"
                )
            places = {files[0].with_suffix(""): tuple(files)}
        found = [Place(dates[0], Path(f"{place.name}.tif"), dates) for place, dates in places.items()]
        for folder in folders:
            found += [
                Place(dates[0], place.relative_to(folder).with_name(f"{place.name}.tif"), dates)
                for place, dates in group_dates(list_images(folder)).items()
            ]
        if not found:
            raise UserError(f"no place in {', '.join(map(str, given))}", "files end in _0, _1 and _2")
        self._dates = {place.path: place.dates for place in found}
        return list(found)

    def read(self, path: Path) -> NDArray[Any]:
        """The dates (T, H, W, C) of the place whose first date is `path`."""
        dates = self._dates[path]
        return read_dates(dates, infrared_of(dates) or ())

    def infer(self, image: NDArray[Any], path: Path) -> CloudRemovalSample:
        """The network's result for the dates (T, H, W, C) of one place.

        Raises:
            UserError: if the dates have other bands than the network.
        """
        expected = self.cfg.model.network.get("in_channels", 4)
        if image.shape[3] != expected:
            raise UserError(f"{path} has {image.shape[3]} bands, and the network takes {expected}")
        dates = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
        return self.model.test_step(dict(inputs=[dates], data_samples=[CloudRemovalSample()]))[0]

    def record(self, result: CloudRemovalSample, image: NDArray[Any], path: Path) -> dict[str, Any]:
        """The dates' files, the size in pixels (width, height), and the mean cloud attention of each date."""
        return {
            "dates": [str(date) for date in self._dates[path]],
            "size": [image.shape[2], image.shape[1]],
            "cloudiness": [round(float(mask.mean()), 4) for mask in result.cloud_masks],
        }

    def picture(self, result: CloudRemovalSample, image: NDArray[Any]) -> NDArray[np.uint8]:
        """The dates, the result and the cloud attention, RGB."""
        return draw_place(list(image), result.cloud_masks.numpy(), _bands(result))

    def save(self, result: CloudRemovalSample, image: NDArray[Any], source: Source, out: Path) -> None:
        """Writes the picture with all its bands, the one for people, and the cloud attention."""
        bands, name = _bands(result), source.name
        if is_tiff(source.path):
            write_bands(out / name, bands, like=source.path)
        else:
            write_image(out / name.with_suffix(".png"), bands, metadata=read_metadata(source.path))
        write_image(out / "rgb" / name.with_suffix(".png"), display_rgb(bands))
        for date, mask in enumerate(result.cloud_masks.numpy()):
            write_image(out / "masks" / name.with_name(f"{name.stem}_{date}.png"), heat_map(mask))


def _bands(result: CloudRemovalSample) -> NDArray[Any]:
    return result.pred_img.permute(1, 2, 0).numpy()
