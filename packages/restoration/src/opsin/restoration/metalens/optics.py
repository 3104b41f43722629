r"""What a metalens does to a picture, and what a Wiener filter undoes of it.

The sensor is a grid of positions, each with its own point spread function (PSF) of the size of a position:
9x9 positions of 135 pixels in the published set-up. Around the sensor lies a ring of one position, black
unless the scene is larger. Each position sees a *patch* of three positions' side with itself in the middle:

    picture  --unfold-->  patches  --blur-->  |F⁻¹(F(patch)·OTF)|  --noise-->  noisy  --Wiener-->  candidates

    D = conj(OTF) / (|OTF|² + K·(1 - mean of the noisy patch))      candidate = Re F⁻¹(F(noisy)·D)

A small K gives a sharp and noisy candidate, a large one a smooth one. Of each patch the middle is kept, and
the middles are laid side by side.

Both directions use one optical transfer function (OTF), the PSF in the middle of a patch, moved by
`fftshift`, transformed. For odd sizes `fftshift` puts the PSF's centre at index -1, so blurred pictures are
displaced by one pixel, and the filter takes that back. Published: the neural nano-optics simulator (arXiv
2102.11579) in its form for grids; its un-padding, which left black borders in some cases, crops all four
sides here.

Letters: B pictures, P positions (row by row), M filters, ph pw rows and columns of a position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opsin.core.errors import UserError

DARKEST = 1e-20  # blurred values are clamped to it; a photon count of exactly 0 has no noise
LARGEST_K, SMALLEST_K = -2.0, -5.0  # powers of ten
SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class Noise:
    """Noise of photons and of the sensor.

    Args:
        photon: brightness of one photon: the variance of a pixel is this times its brightness.
        sensor: standard deviation of the Gaussian part.
    """

    photon: float = 4e-5
    sensor: float = 1e-5

    def __call__(self, blurred: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Brightnesses from 0 to 1, any shape, to noisy ones."""
        noisy = blurred
        if self.photon:
            noisy = torch.poisson(blurred / self.photon, generator) * self.photon
        if self.sensor:
            gauss = torch.randn(blurred.shape, generator=generator, device=blurred.device)
            noisy = noisy + self.sensor * gauss
        return noisy.clamp(0, 1)


@dataclass(frozen=True)
class Grid:
    """The sensor's positions.

    Args:
        rows: positions below one another.
        columns: positions beside one another.
        height: rows of pixels of a position, and of its PSF.
        width: columns of them.
    """

    rows: int
    columns: int
    height: int
    width: int

    @property
    def sensor(self) -> tuple[int, int]:
        """Height and width of the sensor in pixels."""
        return self.rows * self.height, self.columns * self.width

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the scene: the sensor and a ring of one position."""
        return (self.rows + 2) * self.height, (self.columns + 2) * self.width

    def patches(self, canvas: Tensor) -> Tensor:
        """Scenes (B, 3, *canvas) to (B, P, 3, 3·ph, 3·pw).

        Raises:
            UserError: if the scenes have another size.
        """
        if tuple(canvas.shape[-2:]) != self.canvas:
            raise UserError(
                f"a scene is {canvas.shape[-1]}x{canvas.shape[-2]} pixels, and the lens has {self.columns}x"
                f"{self.rows} positions of {self.width}x{self.height} pixels and a ring around them",
                f"make it {self.canvas[1]}x{self.canvas[0]}",
            )
        rows = canvas.unfold(2, 3 * self.height, self.height)
        return rows.unfold(3, 3 * self.width, self.width).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)

    def joined(self, patches: Tensor) -> Tensor:
        """The middles of patches (…, P, 3, 3·ph, 3·pw), side by side: (…, 3, *sensor)."""
        middle = patches[..., self.height : 2 * self.height, self.width : 2 * self.width]
        laid = middle.unflatten(-4, (self.rows, self.columns)).movedim(-5, -3).movedim(-5, -2)
        return laid.flatten(-4, -3).flatten(-2)

    def without_ring(self, canvas: Tensor) -> Tensor:
        """The part of scenes (…, *canvas) that lies on the sensor."""
        return canvas[..., self.height : -self.height, self.width : -self.width]


def read_psf(path: str | Path, rows: int | None = None) -> NDArray[np.float32]:
    """The PSFs of a file `.npy` (P, ph, pw, 3).

    Args:
        path: the file.
        rows: rows of positions; None: as many as columns.

    Raises:
        UserError: if the file is missing or no array of this form, its positions fill no grid, or a PSF does
            not sum to 1 in a channel, which all that follows relies on.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"no point spread functions at {path}", "an array (positions, height, width, 3) is needed"
        )
    try:
        psf = np.load(path)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is no array file ({str(error).splitlines()[0]})") from None
    if psf.ndim != 4 or psf.shape[3] != 3 or not np.isfinite(psf).all():
        raise UserError(f"{path} holds {psf.dtype} {psf.shape}", "(positions, height, width, 3) is needed")
    grid_of(psf.shape, rows)
    worst = float(np.abs(psf.sum((1, 2)) - 1).max())
    if worst > SUM_TOLERANCE:
        raise UserError(
            f"a point spread function in {path} sums to 1 only within {worst:.2g}",
            "divide each by its sum in each channel",
        )
    return psf.astype(np.float32)


def grid_of(shape: Sequence[int], rows: int | None = None) -> Grid:
    """The grid of PSFs of a shape (P, ph, pw, 3).

    Raises:
        UserError: if the positions fill no grid.
    """
    positions, height, width = shape[:3]
    if rows is None:
        rows = math.isqrt(positions)
        if rows**2 != positions:
            raise UserError(f"{positions} positions are no square", "say how many rows of them there are")
    elif positions % rows:
        raise UserError(f"{positions} positions do not fill {rows} rows")
    return Grid(rows, positions // rows, height, width)


def optical_transfer(psf: Tensor) -> Tensor:
    """PSFs (P, ph, pw, 3) to transfer functions of patches (P, 3, 3·ph, 3·pw), complex."""
    height, width = psf.shape[1:3]
    patch = F.pad(psf.permute(0, 3, 1, 2), (width, width, height, height))
    return torch.fft.fft2(torch.fft.fftshift(patch, dim=(-2, -1)))


def blur(patches: Tensor, otf: Tensor) -> Tensor:
    """Patches (B, P, 3, h, w) through their transfer functions (P, 3, h, w), clamped to [1e-20, 1]."""
    return torch.fft.ifft2(torch.fft.fft2(patches) * otf).abs().clamp(DARKEST, 1)


def noise_penalties(count: int) -> Tensor:
    """K of `count` filters (M,), from 1e-2 to 1e-5 in equal ratios."""
    return torch.logspace(LARGEST_K, SMALLEST_K, count)


def wiener(noisy: Tensor, otf: Tensor, penalty: Tensor | float) -> Tensor:
    """One candidate of noisy patches (B, P, 3, h, w), from 0 to 1; `penalty` is K."""
    k = penalty * (1 - noisy.mean((-2, -1), keepdim=True))
    inverse = otf.conj() / (otf.abs().square() + k)
    return torch.fft.ifft2(torch.fft.fft2(noisy) * inverse).real.clamp(0, 1)


def wiener_bank(noisy: Tensor, otf: Tensor, grid: Grid, count: int) -> Tensor:
    """All candidates of noisy patches (B, P, 3, 3·ph, 3·pw), put together: (B, M, 3, *sensor)."""
    spectrum, power = torch.fft.fft2(noisy), otf.abs().square()
    adjoint = spectrum * otf.conj()
    brightness = 1 - noisy.mean((-2, -1), keepdim=True)
    candidates = (
        grid.joined(torch.fft.ifft2(adjoint / (power + k * brightness)).real.clamp(0, 1))
        for k in noise_penalties(count).tolist()
    )
    return torch.stack(list(candidates), dim=1)
