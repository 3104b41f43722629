"""Super-resolution of files: one PNG a picture, in its depth and colours, with transparency and metadata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from opsin.core.data.image import read_image, read_metadata, write_image
from opsin.core.engine.predictor import Predictor, Source
from opsin.restoration.datasets.sample import SuperResolutionSample
from opsin.restoration.degradation import bicubic
from opsin.restoration.visualization import before_after, to_uint8

TIFF_BITS_PER_SAMPLE = 258
PNG_DEPTH_OFFSET = 24  # after the signature, the header chunk's length and name, width and height


@dataclass(frozen=True)
class StoredForm:
    """How a file keeps its picture."""

    deep: bool
    grey: bool
    alpha: NDArray[np.uint8] | None

    @classmethod
    def of(cls, path: Path) -> StoredForm:
        """Looks at the file, whose picture has been read already."""
        with Image.open(path) as image:
            grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
            alpha = None
            if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
                alpha = np.array(ImageOps.exif_transpose(image).convert("RGBA"))[..., 3]
            return cls(_bits(path, image) > 8, grey, alpha)


def _bits(path: Path, image: Image.Image) -> int:
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(PNG_DEPTH_OFFSET + 1)[PNG_DEPTH_OFFSET]
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (8,)))
    return 16 if image.mode.startswith("I") else 8


class SuperResolutionPredictor(Predictor):
    """Writes `OUT/NAME.png` for each picture, and `OUT/pictures/NAME.png`, before and after side by side.

    Of a video it writes `OUT/NAME.mp4` and `OUT/pictures/NAME.mp4`.
    """

    def read(self, path: Path) -> NDArray[Any]:
        """RGB (H, W, 3), uint16 if the file has more than 8 bits a channel, else uint8."""
        image = read_image(path)
        return read_image(path, dtype=np.uint16) if StoredForm.of(path).deep else image

    def record(self, result: SuperResolutionSample, image: NDArray[Any], path: Path) -> dict[str, Any]:
        """Sizes in pixels (width, height), and bits a channel."""
        height, width = result.pred_img.shape[1:]
        return {
            "size": [image.shape[1], image.shape[0]],
            "restored": [width, height],
            "bits": 8 * image.itemsize,
        }

    def picture(self, result: SuperResolutionSample, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Before and after, RGB uint8."""
        return before_after(image, _pixels(result))

    def frames(self, result: SuperResolutionSample, image: NDArray[Any]) -> dict[str, NDArray[np.uint8]]:
        """The restored frame, and before and after."""
        return {"": to_uint8(_pixels(result)), "pictures": self.picture(result, image)}

    def save(self, result: SuperResolutionSample, image: NDArray[Any], source: Source, out: Path) -> None:
        """Writes the restored picture; its transparency is enlarged by bicubic interpolation."""
        form = StoredForm.of(source.path)
        pixels = _pixels(result)
        if form.grey:
            pixels = pixels.mean(-1).round().astype(pixels.dtype)
        if form.alpha is not None:
            alpha = bicubic(form.alpha, pixels.shape[0] / form.alpha.shape[0])
            alpha = alpha.astype(pixels.dtype) * (257 if form.deep else 1)
            colour = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
            pixels = np.dstack((colour, alpha))
        write_image(out / source.name.with_suffix(".png"), pixels, metadata=read_metadata(source.path))


def _pixels(result: SuperResolutionSample) -> NDArray[Any]:
    return result.pred_img.permute(1, 2, 0).numpy()
