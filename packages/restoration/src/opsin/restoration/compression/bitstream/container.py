"""The file of a compressed picture (`.opc`).

Numbers are unsigned; a varint has 7 bits a byte, low bits first, and the high bit on all bytes but the last.

    magic       4 bytes   89 4F 50 43 (0x89 "OPC": no text file begins with it)
    version     1 byte    2
    context     1 byte    how means and scales are predicted: 1 fixed point, 2 floating point
    grid        1 byte    cells a side of the regions, 1 to 16
    model       8 bytes   the first of the SHA-256 of the model's weights
    width       varint    pixels
    height      varint    pixels
    lengths     4 varints bytes of the four streams
    streams               z_center2, z, y, z_center: each little-endian 32-bit words (`rans`)
    checksum    4 bytes   CRC-32 of all bytes before, little-endian
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from pathlib import Path

from opsin.core.errors import UserError
from opsin.restoration.compression.models.segpic.network import STRIDE

MAGIC = b"\x89OPC"
VERSION = 2
MODEL_BYTES = 8
CHECKSUM_BYTES = 4
VARINT_BYTES = 5
LARGEST_GRID = 16
MAX_PIXELS = 1 << 23
"""Larger pictures (padded) are refused unless a caller allows them: 8.4 million pixels, a 4K frame."""

BYTES_A_PIXEL = 16  # no picture that is worth a file needs as many
LEAST_ALLOWANCE = 1 << 20


@dataclass(frozen=True)
class Streams:
    """The four streams of a picture, in the order in which a decoder needs them."""

    z_center2: bytes
    z: bytes
    y: bytes
    z_center: bytes

    def parts(self) -> tuple[bytes, ...]:
        """All four, in the order of the file."""
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class CompressedPicture:
    """What a file holds; `width` and `height` are the picture's own, without padding."""

    context: int
    grid: int
    model: bytes
    width: int
    height: int
    streams: Streams

    def to_bytes(self) -> bytes:
        """The file."""
        parts = self.streams.parts()
        numbers = (self.width, self.height, *map(len, parts))
        head = MAGIC + bytes((VERSION, self.context, self.grid)) + self.model
        body = head + b"".join(map(_varint, numbers)) + b"".join(parts)
        return body + zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "little")

    @classmethod
    def from_bytes(cls, data: bytes, *, max_pixels: int = MAX_PIXELS) -> CompressedPicture:
        """Reads a file, and checks all of it but the contents of the streams.

        Args:
            data: the whole file.
            max_pixels: larger pictures are refused.

        Raises:
            UserError: if it is no such file, of another version, truncated, damaged, or too large.
        """
        if not data.startswith(MAGIC):
            raise UserError("this is not an OPC file", "opsin compress makes them")
        fixed = len(MAGIC) + 3 + MODEL_BYTES
        if len(data) < fixed + CHECKSUM_BYTES:
            raise _damaged("it is truncated")
        version, context, grid = data[len(MAGIC) : len(MAGIC) + 3]
        if version != VERSION:
            raise UserError(f"this OPC file has version {version}", f"this opsin reads version {VERSION}")
        body, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
        if zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "little") != checksum:
            raise _damaged("its checksum is wrong")
        numbers, start = _varints(body, fixed, 6)
        width, height, lengths = numbers[0], numbers[1], numbers[2:]
        _check_size(width, height, grid, max_pixels)
        if start + sum(lengths) != len(body):
            raise _damaged("its lengths do not add up")
        ends = [start + sum(lengths[: index + 1]) for index in range(4)]
        streams = Streams(*(body[end - length : end] for end, length in zip(ends, lengths, strict=True)))
        return cls(context, grid, body[fixed - MODEL_BYTES : fixed], width, height, streams)


def check_pixels(width: int, height: int, max_pixels: int, what: str) -> None:
    """Checks a picture's size with its padding.

    Raises:
        UserError: if it has more pixels than are allowed.
    """
    if padded_side(width) * padded_side(height) > max_pixels:
        raise UserError(
            f"{what} has {width}x{height} pixels, with padding more than {max_pixels}",
            "allow more with --max-pixels; a million takes about 2 GB of memory",
        )


def read_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of a file, which is not read if it is larger than any file of `max_pixels` pixels.

    Raises:
        UserError: if it cannot be read, or is too large.
    """
    try:
        size = path.stat().st_size
        if size > most_bytes(max_pixels):
            raise UserError(f"{path} has {size} bytes, more than a picture of {max_pixels} pixels")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def padded_side(side: int) -> int:
    """The next multiple of 64."""
    return side + -side % STRIDE


def most_bytes(max_pixels: int) -> int:
    """The largest file that is looked at."""
    return max_pixels * BYTES_A_PIXEL + LEAST_ALLOWANCE


def _check_size(width: int, height: int, grid: int, max_pixels: int) -> None:
    if not (width and height and 1 <= grid <= LARGEST_GRID):
        raise _damaged(f"it claims {width}x{height} pixels and a grid of {grid}")
    check_pixels(width, height, max_pixels, "this OPC file")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varints(data: bytes, start: int, count: int) -> tuple[list[int], int]:
    numbers = []
    for _ in range(count):
        number = 0
        for place in range(VARINT_BYTES):
            if start >= len(data):
                raise _damaged("it is truncated")
            byte = data[start]
            start += 1
            number |= (byte & 127) << (7 * place)
            if byte < 128:
                break
        else:
            raise _damaged("a number in its head does not end")
        numbers.append(number)
    return numbers, start


def _damaged(why: str) -> UserError:
    return UserError(f"this OPC file is damaged: {why}", "get it again from its source")
