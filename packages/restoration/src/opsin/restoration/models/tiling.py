"""Prediction in tiles: pictures of any size in bounded memory.

Two ways, because HAT's channel attention averages over the whole picture, which no tile of a picture can
know:

* `BlockwiseTiling` runs the network block by block over all tiles, so that every average, window and
  neighbour is the whole picture's. The result is the untiled one up to float noise, whatever the tile.
* `ImageTiling` is the authors' way: it restores overlapping tiles as if they were pictures. It is quick and
  works with any network, but averages and attention end at the tile; the authors see 0.1 to 0.2 dB less.

Memory. Intermediate tensors are bounded by the tile in both. What grows with the picture is the picture and
the result as they are stored (8 or 16 bits a value), and for `BlockwiseTiling` three feature maps of 4·C
bytes a pixel of input each (HAT: 2.2 kB a pixel), which lie in temporary files and pass through memory tile
by tile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.registry import TASK_UTILS
from opsin.restoration.models.hat import (
    HAB,
    HAT,
    OCAB,
    RHAG,
    ChannelAttention,
    to_channels_first,
    to_channels_last,
)

Region: TypeAlias = tuple[slice, slice]  # rows, columns
Piece: TypeAlias = tuple[Region, Tensor]  # where in the result, and its pixels (C, h, w), not clamped
Progress: TypeAlias = Callable[[int, int], None]  # called with the tiles done, and all tiles

# Pixels of input that the layers after the last group read beyond a tile: three 3x3 convolutions at the
# input's size, and less than one pixel altogether of those at 2, 4, … times that size.
RECONSTRUCTION_HALO = 4


class Tiling(Protocol):
    """A way to restore a picture piece by piece."""

    def pieces(self, network: Any, image: NDArray[Any], progress: Progress | None = None) -> Iterator[Piece]:
        """The parts of the restored picture, none overlapping, which together cover it."""
        ...


def restore(
    network: HAT, image: NDArray[Any], tiling: Tiling, progress: Progress | None = None
) -> NDArray[Any]:
    """The restored picture (scale·H, scale·W, C) in the type of `image`; integers are clamped and rounded.

    Args:
        network: in evaluation mode.
        image: (H, W, C), uint8, uint16, or floating point where 1 is white.
        tiling: how.
        progress: called after every tile.
    """
    height, width, channels = image.shape
    scale = network.upscale
    restored = np.empty((height * scale, width * scale, channels), image.dtype)
    for (rows, cols), pixels in tiling.pieces(network, image, progress):
        restored[rows, cols] = from_unit(pixels, image.dtype).transpose(1, 2, 0)
    return restored


def white_of(dtype: Any) -> int:
    """The value of white in pictures of a numpy or torch type: the largest integer, or 1 for floats."""
    name = str(dtype).removeprefix("torch.")
    return {"uint8": 255, "uint16": 65535}.get(name, 1)


def to_unit(image: NDArray[Any]) -> Tensor:
    """Pixels (H, W, C) of uint8, uint16 or float to a float tensor (1, C, H, W) where 1 is white."""
    unit = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32))
    return unit.div_(white_of(image.dtype))[None]


def from_unit(pixels: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A float tensor where 1 is white to an array of `dtype`; integers are clamped and rounded."""
    values = pixels.float().cpu()
    if dtype.kind == "u":
        values = values.clamp(0, 1).mul(white_of(dtype)).round()
    return values.numpy().astype(dtype)


def tiles(height: int, width: int, size: int) -> list[Region]:
    """Regions of `size` (smaller at the right and below) that cover a map."""
    return [
        (slice(r, min(r + size, height)), slice(c, min(c + size, width)))
        for r in range(0, height, size)
        for c in range(0, width, size)
    ]


def grown(region: Region, halo: int, height: int, width: int) -> tuple[Region, Region]:
    """`region` with `halo` more on every side where the map has it, and where `region` lies in that."""
    outer, inner = [], []
    for part, size in zip(region, (height, width), strict=True):
        start = max(part.start - halo, 0)
        outer.append(slice(start, min(part.stop + halo, size)))
        inner.append(slice(part.start - start, part.stop - start))
    return (outer[0], outer[1]), (inner[0], inner[1])


class ReflectedImage:
    """A picture seen as if it had been extended by reflection to multiples of the window (not copied)."""

    def __init__(self, image: NDArray[Any], multiple: int, device: torch.device) -> None:
        self.image = image
        self.device = device
        self.places = [reflected_places(size, size + -size % multiple) for size in image.shape[:2]]
        self.height, self.width = (len(places) for places in self.places)

    def __getitem__(self, region: Region) -> Tensor:
        """The part `region`, float (1, C, h, w)."""
        rows, cols = (places[part] for places, part in zip(self.places, region, strict=True))
        return to_unit(self.image[np.ix_(rows, cols)]).to(self.device)


def reflected_places(size: int, length: int) -> NDArray[np.int64]:
    """Which of `size` pixels each of `length` is, if the picture goes on by reflection without its border."""
    places = np.arange(length) % max(2 * size - 2, 1)
    return np.where(places < size, places, 2 * size - 2 - places)


class FeatureFile:
    """A float32 map (H, W, C) in a temporary file; only the part in use is in memory."""

    def __init__(self, shape: tuple[int, int, int], folder: Path, device: torch.device) -> None:
        self.shape = shape
        self.device = device
        self.path = folder / f"{id(self)}.map"
        try:
            with self.path.open("wb") as file:
                file.truncate(4 * shape[0] * shape[1] * shape[2])
        except OSError as error:
            raise UserError(
                f"no room for a feature map in {folder}: {error.strerror}", "give another scratch folder"
            ) from error

    def _open(self) -> np.memmap[Any, np.dtype[np.float32]]:
        # Opened for each access: pages stay in the process only as long as the mapping does.
        return np.memmap(self.path, np.float32, "r+", shape=self.shape)

    def read(self, region: Region, shift: int = 0) -> Tensor:
        """The part (1, h, w, C) of the map after it was rolled by -shift in both axes."""
        mapped = self._open()
        parts = [
            [mapped[r, c] for c in _unrolled(region[1], shift, self.shape[1])]
            for r in _unrolled(region[0], shift, self.shape[0])
        ]
        rows = [np.concatenate(row, axis=1) for row in parts]
        return torch.from_numpy(np.concatenate(rows, axis=0))[None].to(self.device)

    def write(self, region: Region, values: Tensor, shift: int = 0) -> None:
        """Puts (1, h, w, C) where `read` would have taken it from."""
        mapped, source = self._open(), values[0].float().cpu().numpy()
        top = 0
        for r in _unrolled(region[0], shift, self.shape[0]):
            left, height = 0, r.stop - r.start
            for c in _unrolled(region[1], shift, self.shape[1]):
                width = c.stop - c.start
                mapped[r, c] = source[top : top + height, left : left + width]
                left += width
            top += height


def _unrolled(part: slice, shift: int, size: int) -> list[slice]:
    """Where `part` of an axis rolled by -shift lies in the axis itself: one slice, or two around its end."""
    start, stop = part.start + shift, part.stop + shift
    if start >= size:
        return [slice(start - size, stop - size)]
    return [slice(start, stop)] if stop <= size else [slice(start, size), slice(0, stop - size)]


class Untiled:
    """The whole picture at once."""

    @torch.inference_mode()
    def pieces(
        self, network: nn.Module, image: NDArray[Any], progress: Progress | None = None
    ) -> Iterator[Piece]:
        """One piece."""
        device = next(network.parameters()).device
        pixels = network(to_unit(image).to(device))[0]
        yield (slice(0, pixels.shape[1]), slice(0, pixels.shape[2])), pixels
        if progress is not None:
            progress(1, 1)


@TASK_UTILS.register_module()
class BlockwiseTiling:
    """HAT block by block over all tiles: equal to the untiled network up to float noise.

    A convolution branch is computed for all tiles, and its average gathered, before any attention of its
    block is; windows of shifted maps wrap around the picture; keys, values and convolutions read past the
    tile.

    Args:
        size: side of a tile in pixels of the input, a multiple of the window.
        scratch: folder for the temporary feature maps; the system's by default. Its disk must hold
            12·C bytes a pixel of input (HAT-S 1.7 kB, HAT 2.2 kB).
    """

    def __init__(self, size: int = 128, scratch: str | None = None) -> None:
        self.size = size
        self.scratch = scratch

    def pieces(self, network: HAT, image: NDArray[Any], progress: Progress | None = None) -> Iterator[Piece]:
        """The tiles of the restored picture (see `Tiling`); one that fits into a tile is run whole.

        Raises:
            UserError: if the tile is no multiple of the window, or the scratch folder cannot be written.
        """
        _require_windows("tile size", self.size, network)
        if network.absolute_pos_embed is not None:
            raise UserError(
                "a network with absolute positions has one image size", "predict it without tiles"
            )
        device = network.conv_first.weight.device
        source = ReflectedImage(image, network.window_size, device)
        if max(source.height, source.width) <= self.size:
            yield from Untiled().pieces(network, image, progress)
            return
        with ExitStack() as stack:
            try:
                folder = Path(
                    stack.enter_context(tempfile.TemporaryDirectory(dir=self.scratch, prefix="opsin-tiles-"))
                )
            except OSError as error:
                raise UserError(f"no scratch folder in {self.scratch}: {error.strerror}") from error
            shape = (source.height, source.width, network.embed_dim)
            maps = [FeatureFile(shape, folder, device) for _ in range(3)]
            run = _BlockwiseRun(
                network, source, tiles(source.height, source.width, self.size), maps, progress
            )
            yield from run.pieces(image.shape[0], image.shape[1])


@dataclass
class _BlockwiseRun:
    """One picture's way through the network; `maps` are three equal files whose roles rotate."""

    network: HAT
    source: ReflectedImage
    regions: list[Region]
    maps: list[FeatureFile]
    progress: Progress | None
    done: int = 0

    @torch.inference_mode()
    def pieces(self, height: int, width: int) -> Iterator[Piece]:
        group_input, x, spare = self.maps
        for region in self._each():
            group_input.write(region, self._shallow(region, embed=True))
        for group in self._groups():
            last = self._blocks(group, group_input, x, spare)
            unused = spare if last is x else x
            self._close_group(group, last, group_input, unused)
            group_input, x, spare = unused, last, group_input
        yield from self._reconstruct(group_input, height, width)

    def _groups(self) -> Iterable[RHAG]:
        return cast("Iterable[RHAG]", self.network.layers)

    def _each(self) -> Iterator[Region]:
        blocks = [block for group in self._groups() for block in group.residual_group]
        passes = 2 + len(self.network.layers) + sum(2 if isinstance(block, HAB) else 1 for block in blocks)
        for region in self.regions:
            yield region
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, passes * len(self.regions))

    def _grown(self, region: Region, halo: int) -> tuple[Region, Region]:
        return grown(region, halo, self.source.height, self.source.width)

    def _shallow(self, region: Region, *, embed: bool) -> Tensor:
        outer, inner = self._grown(region, 1)
        shallow = self.network.shallow(self.source[outer])[..., inner[0], inner[1]]
        return self.network.embed(shallow) if embed else shallow

    def _blocks(
        self, group: RHAG, group_input: FeatureFile, x: FeatureFile, spare: FeatureFile
    ) -> FeatureFile:
        """All blocks of a group; gives the file (`x` or `spare`) with the last one's output."""
        current = group_input
        for block in group.residual_group:
            if isinstance(block, HAB):
                self._hybrid(block, current, spare, x)
                current = x
            else:
                self._overlapping(block, current, spare)
                current, x, spare = spare, spare, x
        return current

    def _hybrid(self, block: HAB, x: FeatureFile, branch: FeatureFile, out: FeatureFile) -> None:
        """HAB: the convolution branch into `branch`, then everything into `out`, which may be `x`."""
        gate = self._convolve(block, x, branch)
        height, width = self.source.height, self.source.width
        s = block.shift_size
        for region in self._each():
            y = x.read(region, s)
            last = region[0].stop == height, region[1].stop == width
            y = y + block.attend_shifted(block.norm1(y), last)
            if gate is not None:
                y = y + block.conv_scale * (branch.read(region, s) * gate)
            out.write(region, y + block.mlp(block.norm2(y)), s)

    def _convolve(self, block: HAB, x: FeatureFile, branch: FeatureFile) -> Tensor | None:
        """Writes the convolution branch before its gate, and gives the gate (1, 1, 1, C)."""
        if not block.conv_scale:
            return None
        *convolutions, attention = block.conv_block.cab
        total = torch.zeros(self.network.embed_dim, dtype=torch.float64)
        for region in self._each():
            outer, inner = self._grown(region, 2)
            y = to_channels_first(block.norm1(x.read(outer)))
            for layer in convolutions:
                y = layer(y)
            y = y[..., inner[0], inner[1]]
            total += y.double().sum((0, 2, 3)).cpu()
            branch.write(region, to_channels_last(y))
        mean = total / (self.source.height * self.source.width)
        gate = cast("ChannelAttention", attention).gate
        return to_channels_last(gate(mean.to(y.device, y.dtype).view(1, -1, 1, 1)))

    def _overlapping(self, block: OCAB, x: FeatureFile, out: FeatureFile) -> None:
        c = x.shape[2]
        for region in self._each():
            outer, inner = self._grown(region, block.halo)
            y = x.read(outer)
            q, kv = block.qkv(block.norm1(y)).split((c, 2 * c), -1)
            missing = []
            for wide, part in zip(outer, region, strict=True):
                missing.append((wide.start - part.start + block.halo, part.stop + block.halo - wide.stop))
            kv = nn.functional.pad(kv, (0, 0, *missing[1], *missing[0]))
            out.write(region, block.finish(y[:, inner[0], inner[1]], q[:, inner[0], inner[1]], kv))

    def _close_group(self, group: RHAG, x: FeatureFile, group_input: FeatureFile, out: FeatureFile) -> None:
        for region in self._each():
            outer, inner = self._grown(region, 1)
            y = to_channels_last(group.conv(to_channels_first(x.read(outer))))[:, inner[0], inner[1]]
            out.write(region, group_input.read(region) + y)

    def _reconstruct(self, x: FeatureFile, height: int, width: int) -> Iterator[Piece]:
        network, scale = self.network, self.network.upscale
        for region in self._each():
            outer, inner = self._grown(region, RECONSTRUCTION_HALO)
            deep = network.conv_after_body(to_channels_first(network.norm(x.read(outer))))
            pixels = network.reconstruct(deep + self._shallow(outer, embed=False))
            if scale == 1:
                pixels = pixels + self.source[outer]
            piece = pixels[0][(slice(None), *_scaled(inner, scale))]
            rows, cols = (
                slice(region[0].start, min(region[0].stop, height)),
                slice(region[1].start, min(region[1].stop, width)),
            )
            kept = (rows.stop - rows.start) * scale, (cols.stop - cols.start) * scale
            if min(kept) > 0:
                yield _scaled((rows, cols), scale), piece[:, : kept[0], : kept[1]]


def _scaled(region: Region, scale: int) -> Region:
    return slice(region[0].start * scale, region[0].stop * scale), slice(
        region[1].start * scale, region[1].stop * scale
    )


def _require_windows(what: str, value: int, network: HAT) -> None:
    if value < 1 or value % network.window_size:
        raise UserError(f"{what} {value} is not a multiple of the window, {network.window_size}")


@TASK_UTILS.register_module()
class ImageTiling:
    """The authors' tiles: each is restored with a margin around it as if it were a picture of its own.

    Not equal to the untiled result: channel attention averages over the tile, and attention ends at its
    margin.

    Args:
        size: side of a tile in pixels of the input, a multiple of the window.
        pad: margin on every side, a multiple of the window.
    """

    def __init__(self, size: int = 512, pad: int = 32) -> None:
        self.size = size
        self.pad = pad

    @torch.inference_mode()
    def pieces(self, network: HAT, image: NDArray[Any], progress: Progress | None = None) -> Iterator[Piece]:
        """The tiles of the restored picture (see `Tiling`).

        Raises:
            UserError: if the tile or its margin is no multiple of the window.
        """
        _require_windows("tile size", self.size, network)
        if self.pad:
            _require_windows("tile pad", self.pad, network)
        source = ReflectedImage(image, network.window_size, network.conv_first.weight.device)
        scale = network.upscale
        regions = tiles(image.shape[0], image.shape[1], self.size)
        for done, region in enumerate(regions, 1):
            outer, inner = grown(region, self.pad, source.height, source.width)
            rows, cols = (slice(part.start, part.stop + -part.stop % network.window_size) for part in outer)
            pixels = network(source[rows, cols])
            yield _scaled(region, scale), pixels[0][(slice(None), *_scaled(inner, scale))]
            if progress is not None:
                progress(done, len(regions))
