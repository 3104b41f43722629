"""The codec: pictures to files and back, and the forward pass that says what a file will decode to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.restoration.compression.bitstream.container import (
    LARGEST_GRID,
    MAX_PIXELS,
    MODEL_BYTES,
    CompressedPicture,
    Streams,
    check_pixels,
    padded_side,
)
from opsin.restoration.compression.bitstream.context import Context, FixedPointContext
from opsin.restoration.compression.bitstream.rans import (
    LARGEST_SYMBOL,
    CodingModels,
    StreamReader,
    StreamWriter,
)
from opsin.restoration.compression.bitstream.tables import bottleneck_tables, gaussian_tables
from opsin.restoration.compression.models.segpic.entropy import EntropyBottleneck, gaussian_likelihood
from opsin.restoration.compression.models.segpic.network import Quantisers, SegPIC
from opsin.restoration.compression.models.segpic.regions import GridRegions

GRID = 4
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Coded:
    """A picture as symbols, and what the decoder will have of it.

    Attributes:
        symbols: int64 symbols of `y` (latent, H/16, W/16), and of `z`, `z_center` and `z_center2`, (C, H, W).
        tables: number of the Gaussian table of each symbol of y.
        y: the quantised y, (1, latent, H/16, W/16).
        center: the quantised codes of regions, (1, C, grid, grid).
        bits: estimated bits of each stream, from the likelihoods of its symbols.
    """

    symbols: dict[str, Tensor]
    tables: Tensor
    y: Tensor
    center: Tensor
    bits: dict[str, float]


def model_id(network: nn.Module) -> bytes:
    """The first eight bytes of the SHA-256 of names, shapes and float32 values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
    return digest.digest()[:MODEL_BYTES]


class Codec:
    """Codes pictures with a trained network, one at a time.

    Whatever number type or device the encoder's analysis runs in, its symbols decode to the same y anywhere.
    The synthesis from y to pixels is floating-point arithmetic: equal bit for bit on one machine in one
    setting, and up to its noise (seldom one level of a pixel) elsewhere.

    Args:
        network: the network; it is put into evaluation mode. Changes of its weights need a new codec.
        context: how y is predicted; fixed point unless given.

    Raises:
        UserError: for weights that are not finite, and where `constriction` is not installed.
    """

    def __init__(self, network: SegPIC, context: Context | None = None) -> None:
        self.network = network.eval()
        self.context: Context = context or FixedPointContext(network)
        self.model = model_id(network)
        self.gaussian = CodingModels(gaussian_tables())
        self.bottlenecks: dict[str, EntropyBottleneck] = {
            "z": network.entropy_bottleneck,
            "z_center": network.entropy_bottleneck_b,
            "z_center2": network.entropy_bottleneck_b2,
        }
        self.learned = {name: CodingModels(bottleneck_tables(b)) for name, b in self.bottlenecks.items()}
        self.medians = {name: self.context.medians(b) for name, b in self.bottlenecks.items()}
        self.device = network.entropy_bottleneck.quantiles.device

    # Pictures and files.

    def encode(self, picture: Picture, grid: int = GRID, *, max_pixels: int = MAX_PIXELS) -> bytes:
        """The file of a picture.

        Args:
            picture: RGB uint8 (H, W, 3).
            grid: regions are the cells of a `grid` x `grid` partition.
            max_pixels: larger pictures are refused.

        Raises:
            UserError: if the picture is too large, the grid not from 1 to 16, or the model gives no usable
                symbols.
        """
        check_pixels(picture.shape[1], picture.shape[0], max_pixels, "the picture")
        return self.to_file(self.code(to_input(picture).to(self.device), grid), picture.shape[:2], grid)

    def decode(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
        """The picture of a file, RGB uint8 (H, W, 3).

        Args:
            data: the whole file.
            max_pixels: larger pictures are refused before anything is computed.

        Raises:
            UserError: if the file is damaged, too large, or of another model.
        """
        found = CompressedPicture.from_bytes(data, max_pixels=max_pixels)
        if found.model != self.model:
            raise UserError(
                f"this file was made with the model {found.model.hex()}, and this one is {self.model.hex()}",
                "give the weights that compressed it",
            )
        if found.context != self.context.identifier:
            raise UserError(
                f"this file's predictions are of kind {found.context}, not {self.context.identifier}",
                "decode it with the context that it was made with",
            )
        size = (found.height, found.width)
        y, center = self.read(found.streams, (padded_side(size[0]), padded_side(size[1])), found.grid)
        return to_picture(cropped(self.synthesise(y, center, found.grid), size))

    def forward(self, picture: Picture, grid: int = GRID) -> tuple[Tensor, Coded]:
        """What `decode(encode(picture))` will be, (3, H, W) in [0, 1], not rounded; no bitstream."""
        coded = self.code(to_input(picture).to(self.device), grid)
        return cropped(self.synthesise(coded.y, coded.center, grid), picture.shape[:2]), coded

    def verify(self, data: bytes, picture: Picture, grid: int = GRID) -> None:
        """Decodes a file that was just made, and compares it with the forward pass, bit for bit.

        Raises:
            UserError: if they differ, as they would if the processor's arithmetic changed in between.
        """
        expected, _ = self.forward(picture, grid)
        decoded = self.decode(data, max_pixels=max(MAX_PIXELS, 2 * picture.size))
        if not np.array_equal(decoded, to_picture(expected)):
            raise UserError("the file does not decode to what was coded", "please report this")

    def to_file(self, coded: Coded, size: tuple[int, ...], grid: int = GRID) -> bytes:
        """The file of a coded picture of `size` (height, width)."""
        streams = self.write(coded)
        height, width = size
        return CompressedPicture(self.context.identifier, grid, self.model, width, height, streams).to_bytes()

    # Padded tensors and streams.

    @torch.inference_mode()
    def code(self, x: Tensor, grid: int = GRID) -> Coded:
        """Symbols of a padded picture (1, 3, H, W) in [0, 1].

        Raises:
            UserError: if the grid is not from 1 to 16, or the latents are not finite.
        """
        if not 1 <= grid <= LARGEST_GRID:
            raise UserError(f"a grid of {grid}", f"it is from 1 to {LARGEST_GRID} cells a side")
        quantisers = Quantisers(*map(self._quantiser, ("z", "z_center", "z_center2")))
        latents = self.network.analyse(x, GridRegions(grid), quantisers)
        symbols = {
            "z": latents.z.extra[0],
            "z_center": latents.center.extra[0],
            "z_center2": latents.center2.extra[0],
        }
        with torch.autocast(x.device.type, enabled=False):
            bits = {name: self._learned_bits(name, symbols[name]) for name in symbols}
            slices = self.context.slices(latents.z.value, latents.center2.value, grid)
            parts, tables, y_bits = [], [], 0.0
            for y in latents.y[0].float().chunk(self.network.num_slices):
                mean, scale, table = slices.predict()
                part = _symbols(y - mean)
                slices.add(part)
                parts.append(part)
                tables.append(table)
                y_bits += _bits(gaussian_likelihood(part.float(), torch.zeros_like(scale), scale))
        symbols["y"], bits["y"] = torch.cat(parts), y_bits
        return Coded(symbols, torch.cat(tables), slices.latent(), latents.center.value, bits)

    def write(self, coded: Coded) -> Streams:
        """The streams of a coded picture."""
        streams = {}
        for name, models in self.learned.items():
            writer = StreamWriter()
            symbols = coded.symbols[name].cpu().numpy()
            writer.put(models, _channel_numbers(symbols.shape), symbols)
            streams[name] = writer.to_bytes()
        writer = StreamWriter()
        count = self.network.num_slices
        for part, table in zip(coded.symbols["y"].chunk(count), coded.tables.chunk(count), strict=True):
            writer.put(self.gaussian, table.cpu().numpy(), part.cpu().numpy())
        return Streams(y=writer.to_bytes(), **streams)

    @torch.inference_mode()
    def read(self, streams: Streams, size: tuple[int, int], grid: int) -> tuple[Tensor, Tensor]:
        """Quantised y and codes of a padded picture of `size` (H, W).

        Raises:
            UserError: if a stream is damaged.
        """
        channels = {name: b.channels for name, b in self.bottlenecks.items()}
        center2 = self._read_learned("z_center2", streams.z_center2, (channels["z_center2"], grid, grid))
        center = self._read_learned("z_center", streams.z_center, (channels["z_center"], grid, grid))
        z = self._read_learned("z", streams.z, (channels["z"], size[0] // 64, size[1] // 64))
        slices = self.context.slices(z, center2, grid)
        reader = StreamReader(streams.y, "y")
        for _ in range(self.network.num_slices):
            table = slices.predict().table
            symbols = reader.take(self.gaussian, table.cpu().numpy())
            slices.add(torch.from_numpy(symbols).to(self.device))
        reader.finish()
        return slices.latent(), center

    @torch.inference_mode()
    def synthesise(self, y: Tensor, center: Tensor, grid: int) -> Tensor:
        """The padded picture (1, 3, H, W) of quantised y and codes, not clamped."""
        return self.network.synthesise(y, center, GridRegions(grid))

    def _quantiser(self, name: str) -> _Quantiser:
        return _Quantiser(self.medians[name][:, None, None])

    def _learned_bits(self, name: str, symbols: Tensor) -> float:
        value = (symbols + self.medians[name][:, None, None])[None]
        return _bits(self.bottlenecks[name].likelihood(value))

    def _read_learned(self, name: str, data: bytes, shape: tuple[int, int, int]) -> Tensor:
        reader = StreamReader(data, name)
        symbols = reader.take(self.learned[name], _channel_numbers(shape))
        reader.finish()
        return (torch.from_numpy(symbols).to(self.device) + self.medians[name][:, None, None])[None]


class _Quantiser:
    """A map (1, C, H, W) to symbols + medians, and the symbols."""

    def __init__(self, medians: Tensor) -> None:
        self.medians = medians

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        symbols = _symbols(x.float() - self.medians)
        return symbols + self.medians, symbols


def _symbols(distance: Tensor) -> Tensor:
    """Distances from the mean, rounded to int64.

    Raises:
        UserError: if one is not finite or beyond all symbols.
    """
    if not (distance.abs() <= LARGEST_SYMBOL - 1).all():
        raise UserError(
            "the model's latents are not finite or larger than any symbol",
            "has it been trained, or has it diverged?",
        )
    return distance.round().long()


def _bits(likelihood: Tensor) -> float:
    return float(-likelihood.double().log2().sum())


def _channel_numbers(shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.broadcast_to(np.arange(shape[0])[:, None, None], shape)


def to_input(picture: Picture) -> Tensor:
    """RGB uint8 (H, W, 3) to (1, 3, H', W') in [0, 1], zero-padded to multiples of 64 around its centre.

    Raises:
        ValueError: for another type or shape, or an empty picture.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"a picture is uint8 (H, W, 3), not {picture.dtype} {picture.shape}")
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    return padded(x)


def padded(x: Tensor) -> Tensor:
    """(N, C, H, W) with zeros around, the smaller half above and on the left, to multiples of 64."""
    (above, below), (left, right) = (_margins(side) for side in x.shape[2:])
    return F.pad(x, (left, right, above, below))


def _margins(side: int) -> tuple[int, int]:
    missing = padded_side(side) - side
    return missing // 2, missing - missing // 2


def cropped(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """The way back from `padded`, of one picture: (1, 3, H', W') to (3, H, W), clamped to [0, 1]."""
    (top, _), (left, _) = (_margins(side) for side in size)
    return x[0, :, top : top + size[0], left : left + size[1]].clamp(0, 1)


def to_picture(x: Tensor) -> Picture:
    """(3, H, W) in [0, 1] to RGB uint8 (H, W, 3)."""
    return (x.float() * 255).round().byte().permute(1, 2, 0).cpu().numpy()
