"""Photographs through a metalens, while training: scene, blur, noise, and a Wiener bank's candidates."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray
from torch import Tensor

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import list_images
from opsin.core.errors import UserError
from opsin.registry import DATASETS, TRANSFORMS
from opsin.restoration.metalens.datasets.sample import MetalensSample
from opsin.restoration.metalens.optics import (
    Grid,
    Noise,
    blur,
    grid_of,
    optical_transfer,
    read_psf,
    wiener_bank,
)
from opsin.restoration.models.tiling import to_unit

Results = dict[str, Any]
Block: TypeAlias = tuple[slice, slice]  # rows and columns of positions, or of pixels

SHORTEST = 256  # pictures with a shorter side are extended to it before they are resized


@DATASETS.register_module()
class CleanImages(Dataset):
    """A folder of photographs, which `SimulateMetalens` photographs again; an entry has `img_path`.

    Args:
        image_dir: folder of pictures, relative to `data_root`; subfolders count.
        dataset: `data_root`, `pipeline`, `test_mode`, `on_error`, … of `Dataset`.
    """

    def __init__(self, *, image_dir: str = "", **dataset: Any) -> None:
        self.image_dir = image_dir
        super().__init__(**dataset)

    def load_data_list(self) -> list[Results]:
        """The pictures, in the order of their names."""
        folder = Path(self.data_root or ".") / self.image_dir
        self._require([folder])
        return [dict(img_path=str(path)) for path in list_images(folder)]


class Lens:
    """A metalens: its PSFs, their grid and transfer functions, and its Wiener bank.

    Args:
        psf: file of the PSFs, `.npy` (positions, ph, pw, 3).
        rows: rows of positions; None: as many as columns.
        filters: candidates M.
        noise: of the sensor.
    """

    def __init__(self, psf: str, rows: int | None, filters: int, noise: Noise) -> None:
        self.path, self.rows, self.filters, self.noise = psf, rows, filters, noise

    @cached_property
    def psf(self) -> NDArray[np.float32]:
        """The PSFs, read when first needed."""
        return read_psf(self.path, self.rows)

    @cached_property
    def grid(self) -> Grid:
        """Their positions."""
        return grid_of(self.psf.shape, self.rows)

    @cached_property
    def otf(self) -> Tensor:
        """Transfer functions (P, 3, 3·ph, 3·pw)."""
        return optical_transfer(torch.from_numpy(self.psf))

    def photograph(
        self, scene: Tensor, generator: torch.Generator | None = None, block: Block | None = None
    ) -> Tensor:
        """A scene (3, *canvas) from 0 to 1 to noisy patches (P, 3, 3·ph, 3·pw), of a block of positions."""
        grid, otf = self.grid, self.otf
        if block is not None:
            grid, otf = self.block_grid(block), self._of_block(block)
            top, left = block[0].start * grid.height, block[1].start * grid.width
            scene = scene[:, top : top + grid.canvas[0], left : left + grid.canvas[1]]
        return self.noise(blur(grid.patches(scene[None]), otf)[0], generator)

    def candidates(self, noisy: Tensor, block: Block | None = None) -> Tensor:
        """Noisy patches of a block of positions, or of all, to candidates (M, 3, block's rows, columns)."""
        if block is None:
            return wiener_bank(noisy[None], self.otf, self.grid, self.filters)[0]
        return wiener_bank(noisy[None], self._of_block(block), self.block_grid(block), self.filters)[0]

    def block_grid(self, block: Block) -> Grid:
        """The positions of a block as a grid of their own."""
        rows, columns = (part.stop - part.start for part in block)
        return replace(self.grid, rows=rows, columns=columns)

    def _of_block(self, block: Block) -> Tensor:
        """The transfer functions of a block's positions."""
        return self.otf.unflatten(0, (self.grid.rows, self.grid.columns))[block].flatten(0, 1)


@TRANSFORMS.register_module()
class SimulateMetalens(BaseTransform):
    """Takes `img`, RGB uint8 or uint16, through a metalens.

    The picture is brought to the sensor's size, bilinear and with its aspect (a side below 256 is first
    extended by reflection where the sensor is as large as that), and laid in the middle of a black scene;
    padding that is odd has its extra pixel to the right and below. The padding is cut off again from what
    comes out.

    Gives `candidates` (M, 3, h, w), `raw_img` and `gt_img` (3, h, w), tensors from 0 to 1. Noise is drawn
    from numpy's global generator, or is the same every time.

    Args:
        psf: file of the PSFs, `.npy` (positions, ph, pw, 3); each sums to 1 in each channel.
        rows: rows of positions; None: as many as columns.
        filters: candidates M.
        photon_noise: see `Noise`.
        sensor_noise: see `Noise`.
        crop: side of a random square that is cut out, in pixels; None: the whole picture. Only the positions
            that it touches are computed.
        resize: whether pictures are resized; otherwise their longer side must be the sensor's.
        fixed_noise: draw the noise of a picture from its size alone, for evaluation.

    Raises:
        UserError: if the PSFs can't be used, a picture that is not resized does not fit the sensor, or a
            picture is smaller than a crop.
    """

    def __init__(
        self,
        psf: str,
        rows: int | None = None,
        filters: int = 13,
        photon_noise: float = Noise.photon,
        sensor_noise: float = Noise.sensor,
        crop: int | None = None,
        resize: bool = True,
        fixed_noise: bool = False,
    ) -> None:
        self.lens = Lens(psf, rows, filters, Noise(photon_noise, sensor_noise))
        self.crop, self.resize, self.fixed_noise = crop, resize, fixed_noise

    def transform(self, results: Results) -> Results:
        """Adds candidates, raw picture and truth."""
        seed = 0 if self.fixed_noise else int(np.random.randint(2**31))
        scene, padding = self.scene(results["img"], str(results["img_path"]))
        part = self._part(padding, str(results["img_path"]))
        height, width = self.lens.grid.height, self.lens.grid.width
        block = _positions(part[0], height), _positions(part[1], width)
        noisy = self.lens.photograph(scene, torch.Generator().manual_seed(seed), block)
        inner = (..., _moved(part[0], block[0].start * height), _moved(part[1], block[1].start * width))
        return results | {
            "candidates": self.lens.candidates(noisy, block)[inner],
            "raw_img": self.lens.block_grid(block).joined(noisy)[inner],
            "gt_img": self.lens.grid.without_ring(scene)[(..., *part)],
        }

    def _part(self, padding: tuple[int, int, int, int], name: str) -> Block:
        """Which pixels of the sensor come out: the picture, or a random square of it."""
        top, bottom, left, right = padding
        height, width = self.lens.grid.sensor
        rows, columns = slice(top, height - bottom), slice(left, width - right)
        if self.crop is None:
            return rows, columns
        sides = rows.stop - rows.start, columns.stop - columns.start
        if min(sides) < self.crop:
            raise UserError(
                f"{name} has {sides[1]}x{sides[0]} pixels on the sensor", f"a crop takes {self.crop}"
            )
        starts = [np.random.randint(side - self.crop + 1) for side in sides]
        y, x = rows.start + starts[0], columns.start + starts[1]
        return slice(y, y + self.crop), slice(x, x + self.crop)

    def scene(self, image: NDArray[Any], name: str) -> tuple[Tensor, tuple[int, int, int, int]]:
        """The black canvas (3, *canvas) with the picture in its middle, and the padding on the sensor.

        The padding is that of top, bottom, left and right, beyond the ring.
        """
        height, width = self.lens.grid.sensor
        if self.resize:
            image = fit(image, height, width)
        elif not _fits(image, height, width):
            raise UserError(
                f"{name} is {image.shape[1]}x{image.shape[0]}, and the sensor {width}x{height}",
                "one side must be the sensor's, or set resize=True",
            )
        below, right = height - image.shape[0], width - image.shape[1]
        padding = (below // 2, below - below // 2, right // 2, right - right // 2)
        picture = to_unit(image)[0]
        ring_y, ring_x = self.lens.grid.height, self.lens.grid.width
        top, bottom, left, last = padding
        return F.pad(picture, (left + ring_x, last + ring_x, top + ring_y, bottom + ring_y)), padding


def _positions(pixels: slice, size: int) -> slice:
    """The positions of `size` pixels that a range of pixels touches."""
    return slice(pixels.start // size, -(-pixels.stop // size))


def _moved(part: slice, origin: int) -> slice:
    return slice(part.start - origin, part.stop - origin)


def fit(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """A picture (h, w, 3), as large as it goes on height x width pixels (bilinear, truncated sides)."""
    least = SHORTEST if min(height, width) >= SHORTEST else 0
    below, right = (max(0, least - side) for side in image.shape[:2])
    if below or right:
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(1, int(image.shape[1] * scale + 1e-6)), max(1, int(image.shape[0] * scale + 1e-6))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), image.dtype)


def _fits(image: NDArray[Any], height: int, width: int) -> bool:
    rows, columns = image.shape[:2]
    return rows <= height and columns <= width and (rows == height or columns == width)


@TRANSFORMS.register_module()
class PackStack(BaseTransform):
    """Makes the model's input: `inputs` (M, 3, H, W), and a `MetalensSample`."""

    def transform(self, results: Results) -> Results:
        """Packs candidates, raw picture and truth."""
        candidates = results["candidates"].contiguous()
        sample = MetalensSample(metainfo={"img_path": results["img_path"]})
        sample.set_data({key: results[key].contiguous() for key in ("gt_img", "raw_img") if key in results})
        sample.middle_img = candidates[len(candidates) // 2]
        return dict(inputs=candidates, data_samples=sample)
