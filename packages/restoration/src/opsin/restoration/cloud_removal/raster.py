"""Satellite pictures as files: all bands, in their depth, with the georeference.

TIFF files are read and written by tifffile, which knows any number of bands; the georeference of GeoTIFF
files is read and written by rasterio, the extra `opsin-restoration[geotiff]`. Other formats are pictures of
three bands.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from mmengine.logging import print_log
from numpy.typing import NDArray

from opsin.core.data.image import MAX_PIXELS, read_image
from opsin.core.errors import UserError
from opsin.core.files import write_atomically

TIFF_SUFFIXES = (".tif", ".tiff")
_DAMAGED = (
    tifffile.TiffFileError,
    OSError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)


def is_tiff(path: Path) -> bool:
    """Whether the name is that of a TIFF file."""
    return path.suffix.lower() in TIFF_SUFFIXES


def read_bands(path: Path) -> NDArray[Any]:
    """All bands of a picture (H, W, C): uint8 or uint16.

    Raises:
        UserError: when the file is missing, damaged, too large, or holds other types or shapes; it names the
            file.
    """
    if not is_tiff(path):
        return read_image(path)
    if not path.is_file():
        raise UserError(f"image {path} does not exist")
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            if series.size > 16 * MAX_PIXELS:
                raise UserError(f"{path} is too large: {series.shape}", "cut it into tiles")
            pixels, axes = series.asarray(), series.axes
    except _DAMAGED as error:
        raise UserError(
            f"image {path} is truncated or damaged ({error})", "replace or remove the file"
        ) from None
    if pixels.ndim == 2:
        pixels, axes = pixels[..., None], axes + "S"
    if pixels.ndim != 3 or pixels.dtype.name not in ("uint8", "uint16"):
        raise UserError(
            f"{path} holds {pixels.dtype} values of shape {pixels.shape}", "uint8 or uint16 bands are needed"
        )
    bands = axes.index("S") if "S" in axes else int(np.argmin(pixels.shape))  # pages may be rows or bands
    return np.moveaxis(pixels, bands, 2)


def write_bands(path: Path, pixels: NDArray[Any], like: Path) -> None:
    """Writes bands (H, W, C) as a TIFF file, with the georeference of the file `like` if that has one.

    Raises:
        UserError: if the file can't be written.
    """
    if is_georeferenced(like):
        if rasterio_is_here():
            write_atomically(path, _as_geotiff(pixels, like))
            return
        print_log(
            f"the georeference of {like} is not kept: pip install 'opsin-restoration[geotiff]'",
            logger="current",
        )
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="minisblack", planarconfig="contig", compression="zlib")
    write_atomically(path, buffer.getvalue())


def is_georeferenced(path: Path) -> bool:
    """Whether the file is a GeoTIFF, which says where on Earth its pixels lie."""
    if not is_tiff(path):
        return False
    with tifffile.TiffFile(path) as file:
        return bool(file.is_geotiff)


def rasterio_is_here() -> bool:
    """Whether rasterio can be imported."""
    try:
        import rasterio
    except ImportError:
        return False
    return bool(rasterio.__version__)


def _as_geotiff(pixels: NDArray[Any], like: Path) -> bytes:
    import rasterio
    from rasterio.io import MemoryFile

    height, width, count = pixels.shape
    with rasterio.open(like) as source:
        place = {"crs": source.crs, "transform": source.transform}
        points, points_crs = source.gcps
    if points:
        place = {"gcps": points, "crs": points_crs}
    size = {"height": height, "width": width, "count": count, "dtype": pixels.dtype.name}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", compress="deflate", predictor=2, **size, **place) as target:
            target.write(pixels.transpose(2, 0, 1))
        return bytes(memory.read())
