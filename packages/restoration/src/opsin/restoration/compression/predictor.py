"""Compression of files: one `.opc` and one decoded PNG a picture, and a table of rates and qualities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.core.data.image import write_image
from opsin.core.engine.predictor import Predictor, Source
from opsin.core.files import write_atomically
from opsin.restoration.compression.datasets.sample import CompressionSample
from opsin.restoration.compression.visualization import comparison
from opsin.restoration.metrics import psnr

SUFFIX = ".opc"


class CompressionPredictor(Predictor):
    """Writes `OUT/NAME.opc`, what it decodes to as `OUT/NAME.png`, and a comparison in `OUT/pictures`."""

    def record(self, result: CompressionSample, image: NDArray[np.uint8], path: Path) -> dict[str, Any]:
        """Size of picture and file, and PSNR of the decoded 8-bit picture."""
        height, width = image.shape[:2]
        return {
            "size": [width, height],
            "bytes": len(result.file),
            "bpp": 8 * len(result.file) / (height * width),
            "psnr": psnr(_decoded(result), image),
        }

    def picture(self, result: CompressionSample, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture, what its file decodes to, and their difference."""
        row = self.record(result, image, Path())
        caption = f"{row['bytes']} bytes, {row['bpp']:.3f} bpp, PSNR {row['psnr']:.2f} dB; error x4"
        return comparison(image, _decoded(result), caption)

    def save(self, result: CompressionSample, image: NDArray[np.uint8], source: Source, out: Path) -> None:
        """Writes the file and the picture."""
        write_atomically(out / source.name.with_suffix(SUFFIX), result.file)
        write_image(out / source.name.with_suffix(".png"), _decoded(result))


def _decoded(result: CompressionSample) -> NDArray[np.uint8]:
    return np.ascontiguousarray(result.pred_img.permute(1, 2, 0).numpy())
