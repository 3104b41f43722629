"""Image files: every form in which people keep pictures becomes one (H, W, 3) RGB array, or one clear error.

Pillow decodes and checks the file, so that a truncated one is an error instead of a half-grey picture; only
for 16-bit output does OpenCV decode, because Pillow reduces 16-bit colour to 8 bits. What a file says beside
its pixels (`Metadata`) is read and written apart from them.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from opsin.core.data.archives import read_member
from opsin.core.errors import UserError
from opsin.core.files import write_atomically

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes, in lower case, by which a file in a folder counts as an image."""

MAX_PIXELS = 2**27
"""Larger pictures are refused before they are decoded: 134 million pixels are 400 MB as RGB."""

JPEG_QUALITY = 95

METADATA_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
"""Suffixes of the formats in which metadata can be written."""

_LASTING_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_PASSING_TAGS = (  # of the EXIF directory: they are of the file that they stood in
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
)
_EXIF_HEADER = b"Exif\x00\x00"
_ICC_SPACE = slice(16, 20)  # of a profile's header: the colour space that it is for

_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def read_image(path: str | os.PathLike[str], *, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
    """The picture in `path` as an RGB array (H, W, 3), turned upright as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit pictures are converted; an alpha channel is dropped; of an animation the
    first frame is taken.

    Args:
        path: an image file, or one in a tar file (`train.tar/cat/1.jpg`).
        dtype: `uint8`, or `uint16` to keep the precision of 16-bit files (8-bit values are then multiplied
            by 257, so that white is 65535 in either).

    Raises:
        UserError: when the file is missing, empty, truncated, no image, holds floating-point values, or has
            more than `MAX_PIXELS` pixels. The message names the file.
    """
    path = Path(path)
    depth = np.dtype(dtype)
    if depth not in (np.uint8, np.uint16):
        raise ValueError(f"dtype is uint8 or uint16, not {depth}")
    content = read_bytes(path)
    rgb8 = _decode(content, path)
    return rgb8 if depth == np.uint8 else _decode16(content, rgb8)


def read_bytes(path: Path) -> bytes:
    """The content of an image file, or of one in a tar file.

    Raises:
        UserError: when it is missing, empty, or can't be read; the message names it.
    """
    try:
        content = path.read_bytes()
    except NotADirectoryError:  # something above it is a file: an archive?
        content = read_member(path) or b""
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not an image") from None
    except OSError as error:
        raise UserError(f"image {path} cannot be read: {error.strerror}") from None
    if not content:
        raise UserError(f"image {path} is empty (0 bytes)", "replace or remove the file")
    return content


def _decode(content: bytes, path: Path) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            # Pillow warns below our limit and knows nothing of it; the check in _open is the one that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = _open(content, path)
            image.load()
            return _to_rgb8(ImageOps.exif_transpose(image), path)
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image that can be read, or its header is damaged") from None
    except _DECODING_ERRORS as error:
        raise UserError(
            f"image {path} is truncated or damaged ({error})", "replace or remove the file"
        ) from None


def _open(content: bytes, path: Path) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError:
        raise _too_large(path, "") from None
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path, f" ({image.width}x{image.height})")
    return image


def _too_large(path: Path, size: str) -> UserError:
    return UserError(f"image {path} is too large{size}: more than {MAX_PIXELS} pixels", "cut it into tiles")


def _to_rgb8(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise UserError(f"image {path} holds floating-point values", "convert it to 8 or 16 bits first")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255 instead of scaling
        grey = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _decode16(content: bytes, rgb8: NDArray[np.uint8]) -> NDArray[np.uint16]:
    deep = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    if deep is not None and deep.dtype == np.uint16:
        return cv2.cvtColor(deep, cv2.COLOR_BGR2RGB)
    return rgb8.astype(np.uint16) * 257


@dataclass(frozen=True)
class Metadata:
    """What a picture's file says beside its pixels; empty where it says nothing.

    Attributes:
        exif: EXIF as JPEG files hold it, without what holds for one file alone (see `read_metadata`).
        icc: ICC profile.
    """

    exif: bytes = b""
    icc: bytes = b""


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """The metadata of a picture that `read_image` can read; damaged metadata counts as none.

    Of EXIF what was taken when, where, how and by whom is kept. Orientation is not, because `read_image`
    turns pictures upright, nor are sizes and thumbnails, nor the tags that tell how a TIFF file is laid out.
    """
    with Image.open(path) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Pillow, about damage
        try:
            exif = _lasting_exif(image.getexif())
        except (*_DECODING_ERRORS, TypeError, KeyError):
            exif = b""
        return Metadata(exif, image.info.get("icc_profile") or b"")


def _lasting_exif(stored: Image.Exif) -> bytes:
    kept = Image.Exif()
    for tag in _LASTING_TAGS:
        if tag in stored:
            kept[tag] = stored[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        values = {tag: v for tag, v in stored.get_ifd(directory).items() if tag not in _PASSING_TAGS}
        if values:
            kept[directory] = values
    return kept.tobytes() if len(kept) else b""


def write_image(
    path: str | os.PathLike[str], pixels: NDArray[Any], *, metadata: Metadata | None = None
) -> None:
    """Writes `pixels` to `path` in the format of its suffix; the file appears whole or not at all.

    Args:
        path: where to; its folder is made if need be.
        pixels: RGB (H, W, 3), RGBA (H, W, 4) or one channel, e.g. class indices (H, W); uint8, or uint16 for
            PNG and TIFF.
        metadata: what the file says besides, in the formats of `METADATA_SUFFIXES`; a profile for another
            colour space than the pixels' (CMYK, or grey of a picture in colour) is left out.

    Raises:
        UserError: when the suffix is no image format or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UserError(f"cannot write an image to {path}", f"use one of {', '.join(IMAGE_SUFFIXES)}")
    in_colour = pixels.ndim == 3 and pixels.shape[2] > 1
    bgr = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if in_colour else pixels
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    chunks = _chunks(metadata, in_colour) if metadata is not None else {}
    if chunks and suffix not in METADATA_SUFFIXES:
        raise ValueError(f"no metadata can be written to {path}")
    blobs = [np.frombuffer(content, np.uint8) for content in chunks.values()]
    done, encoded = (
        cv2.imencodeWithMetadata(suffix, bgr, list(chunks), blobs, options)
        if chunks
        else cv2.imencode(suffix, bgr, options)
    )
    if not done:
        raise ValueError(f"{pixels.dtype} {pixels.shape} cannot be encoded as {path.suffix}")
    write_atomically(path, encoded.tobytes())


def _chunks(metadata: Metadata, in_colour: bool) -> dict[int, bytes]:
    """OpenCV's kinds of metadata, and what to write as each."""
    chunks = {}
    if metadata.exif:
        chunks[cv2.IMAGE_METADATA_EXIF] = metadata.exif.removeprefix(_EXIF_HEADER)
    if metadata.icc[_ICC_SPACE] == (b"RGB " if in_colour else b"GRAY"):
        chunks[cv2.IMAGE_METADATA_ICCP] = metadata.icc
    return chunks


def list_images(path: str | os.PathLike[str]) -> list[Path]:
    """The images at `path`: itself if it is a file, else those in the folder and its subfolders, sorted.

    A file is taken whatever its suffix; in folders `IMAGE_SUFFIXES` count, and names that begin with a dot
    do not.

    Raises:
        UserError: when `path` does not exist or the folder holds no image.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"no file or folder {path}")
    found = sorted(
        p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "." and p.is_file()
    )
    if not found:
        raise UserError(f"no image in folder {path}", f"images end in {', '.join(IMAGE_SUFFIXES)}")
    return found
