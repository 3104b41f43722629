"""Metalens restoration of files: raw stacks of a sensor, or scenes that are taken through the lens first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from numpy.typing import NDArray

from opsin.core.data.image import read_image, read_metadata, write_image
from opsin.core.engine.predictor import Predictor, Source, find_sources
from opsin.core.errors import UserError
from opsin.restoration.metalens.datasets import Lens, MetalensSample, PackStack, SimulateMetalens
from opsin.restoration.metalens.metrics import psnr_y
from opsin.restoration.models.tiling import from_unit
from opsin.restoration.predictor import StoredForm
from opsin.restoration.visualization import side_by_side

STACK = ".npy"


class MetalensPredictor(Predictor):
    """Restores what a metalens saw.

    A file `.npy` is a raw stack (1, positions, 3, 3·ph, 3·pw) from 0 to 1: for each position what its patch
    of the sensor saw. Any other picture is a scene, which is brought to the sensor's size and taken through
    the lens.

    Writes for each `OUT/NAME.png`, with 16 bits for stacks and 16-bit pictures, and `OUT/pictures/NAME.png`:
    what the sensor saw, a single Wiener filter's result and the network's, side by side.
    """

    def sources(self, inputs: Sequence[Path]) -> list[Source]:
        """Stacks and pictures that `inputs` name; in folders both count."""
        found: list[Source] = []
        others: list[Path] = []
        for given in map(Path, inputs):
            stacks = sorted(given.rglob(f"*{STACK}")) if given.is_dir() else []
            found += [Source(path, path.relative_to(given)) for path in stacks]
            if given.suffix.lower() == STACK and given.is_file():
                found.append(Source(given, Path(given.name)))
            elif not stacks or any(p.is_file() and p.suffix.lower() != STACK for p in given.rglob("*")):
                others.append(given)
        return found + (find_sources(others) if others else [])

    def read(self, path: Path) -> NDArray[Any]:
        """A stack (1, P, 3, h, w), float32, or RGB (H, W, 3), uint16 if the file is deeper than 8 bits.

        Raises:
            UserError: if the file can't be read, or a stack is not one of the configured lens.
        """
        if path.suffix.lower() == STACK:
            return self._read_stack(path)
        image = read_image(path)
        return read_image(path, dtype=np.uint16) if StoredForm.of(path).deep else image

    def _read_stack(self, path: Path) -> NDArray[np.float32]:
        try:
            stack = np.load(path)
        except (ValueError, OSError, EOFError) as error:
            raise UserError(f"{path} is no array file ({str(error).splitlines()[0]})") from None
        expected = (1, *self.lens.otf.shape)
        if stack.shape != expected:
            raise UserError(f"{path} is {stack.shape}", f"stacks of the lens {self.lens.path} are {expected}")
        if not np.isfinite(stack).all() or stack.min() < 0 or stack.max() > 1:
            raise UserError(f"{path} holds values outside 0 to 1", "divide them by what white is")
        return stack.astype(np.float32)

    @property
    def lens(self) -> Lens:
        """The lens of the config.

        Raises:
            UserError: if the config's pipeline takes nothing through one.
        """
        for transform in self.pipeline.transforms:
            if isinstance(transform, SimulateMetalens):
                return transform.lens
        raise UserError("the config's predict_pipeline has no lens", "add opsin.SimulateMetalens")

    def infer(self, image: NDArray[Any], path: Path) -> MetalensSample:
        """The result for a stack, or for a picture taken through the lens."""
        if image.ndim != 5:
            return super().infer(image, path)
        noisy = torch.from_numpy(image[0])
        pictures = {"candidates": self.lens.candidates(noisy), "raw_img": self.lens.grid.joined(noisy)}
        packed = PackStack().transform({**pictures, "img_path": str(path)})
        with torch.inference_mode():
            return self.model.test_step(pseudo_collate([packed]))[0]

    def record(self, result: MetalensSample, image: NDArray[Any], path: Path) -> dict[str, Any]:
        """The size (width, height), and for scenes, whose truth is known, PSNR on Y before and after."""
        height, width = result.pred_img.shape[-2:]
        record: dict[str, Any] = {"size": [width, height]}
        if "gt_img" in result:
            clean = _floats(result.gt_img)
            record["psnr_y"] = round(psnr_y(_floats(result.pred_img), clean), 3)
            record["wiener_psnr_y"] = round(psnr_y(_floats(result.middle_img), clean), 3)
        return record

    def picture(self, result: MetalensSample, image: NDArray[Any]) -> NDArray[np.uint8]:
        """What the sensor saw, a single Wiener filter's result, and the network's; RGB."""
        shown = (result.raw_img, result.middle_img, result.pred_img)
        return side_by_side([_stored(picture, np.uint8) for picture in shown])

    def save(self, result: MetalensSample, image: NDArray[Any], source: Source, out: Path) -> None:
        """Writes the restored picture."""
        dtype = np.uint8 if image.dtype == np.uint8 else np.uint16
        is_stack = source.path.suffix.lower() == STACK
        metadata = None if is_stack else read_metadata(source.path)
        write_image(out / source.name.with_suffix(".png"), _stored(result.pred_img, dtype), metadata=metadata)


def _stored(picture: torch.Tensor, dtype: Any) -> NDArray[Any]:
    """(3, H, W) from 0 to 1 as (H, W, 3) of an integer type."""
    return from_unit(picture, np.dtype(dtype)).transpose(1, 2, 0)


def _floats(picture: torch.Tensor) -> NDArray[np.float64]:
    return _stored(picture, np.float64)
