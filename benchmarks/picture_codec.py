"""Rate, distortion, speed and robustness of the learned codec, against JPEG, WebP and AVIF of Pillow.

    python benchmarks/picture_codec.py rate  CONFIG CHECKPOINT PICTURES… [--out CURVES.png]
    python benchmarks/picture_codec.py speed CONFIG [CHECKPOINT] PICTURE
    python benchmarks/picture_codec.py fuzz  [--inputs 100000]

Times are CPU time of one thread. `fuzz` decodes damaged files with a network of a few thousand weights.
"""

from __future__ import annotations

import argparse
import io
import math
import resource
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from opsin.core.data.image import read_image
from opsin.core.engine.config import build_model, load_config
from opsin.core.errors import UserError
from opsin.restoration.compression.bitstream.codec import Codec, to_picture
from opsin.restoration.compression.bitstream.container import CompressedPicture, Streams
from opsin.restoration.compression.bitstream.context import FixedPointContext, FloatContext
from opsin.restoration.compression.compressor import load_codec
from opsin.restoration.compression.models import SegPIC
from opsin.restoration.compression.visualization import plot_curves
from opsin.restoration.metrics import psnr

Picture = NDArray[np.uint8]
QUALITIES: dict[str, tuple[int, ...]] = {
    "JPEG": (1, 3, 5, 8, 12, 20, 35, 60),
    "WEBP": (0, 2, 5, 10, 20, 40, 60),
    "AVIF": (5, 10, 15, 20, 30, 45, 60),
}
FUZZED = dict(
    width=8,
    latent=8,
    num_slices=2,
    hyper=(8, 8, 8, 8, 8),
    context=(8,),
    code=(4, 4),
    head=4,
    num_heads=2,
)
LARGEST_FUZZED = 2**16


def stored(picture: Picture, form: str, quality: int) -> tuple[int, Picture, float, float]:
    """Bytes, decoded picture, and seconds of encoding and decoding of Pillow's codecs."""
    content = io.BytesIO()
    start = process_time()
    Image.fromarray(picture).save(content, form, quality=quality)
    encoded = process_time()
    decoded = np.array(Image.open(io.BytesIO(content.getvalue())).convert("RGB"))
    return len(content.getvalue()), decoded, encoded - start, process_time() - encoded


def pillow_curves(pictures: list[Picture]) -> dict[str, list[tuple[float, float]]]:
    curves = {}
    for form, qualities in QUALITIES.items():
        points = []
        for quality in qualities:
            rows = [(picture, *stored(picture, form, quality)[:2]) for picture in pictures]
            bpp = np.mean([8 * size / picture[..., 0].size for picture, size, _ in rows])
            points.append((float(bpp), float(np.mean([psnr(out, picture) for picture, _, out in rows]))))
        curves[form] = points
    return curves


def at_rate(curve: list[tuple[float, float]], rate: float) -> float:
    """PSNR of a curve at a rate, linear in log rate; nan outside."""
    bpp, quality = np.array(sorted(curve)).T
    return float(np.interp(math.log(rate), np.log(bpp), quality, left=math.nan, right=math.nan))


def measure_rate(config: str, checkpoint: Path, paths: list[Path], out: Path | None) -> None:
    pictures = [read_image(path) for path in paths]
    exact = load_codec(config, checkpoint)
    floating = Codec(exact.network, FloatContext(exact.network))
    rows: list[dict[str, float]] = []
    for picture in pictures:
        reconstruction, coded = exact.forward(picture)
        _, float_coded = floating.forward(picture)
        rows.append(
            {
                "bytes": len(exact.to_file(coded, picture.shape[:2])),
                "estimate": sum(coded.bits.values()) / 8,
                "float bytes": len(floating.to_file(float_coded, picture.shape[:2])),
                "float estimate": sum(float_coded.bits.values()) / 8,
                "psnr": psnr(to_picture(reconstruction), picture),
                "bpp": 8 * len(exact.to_file(coded, picture.shape[:2])) / picture[..., 0].size,
            }
        )
    for path, row in zip(paths, rows, strict=True):
        print(path.name, {name: round(value, 4) for name, value in row.items()})
    total = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    print("mean", {name: round(value, 4) for name, value in total.items()})
    print(f"file over estimate: {100 * (total['bytes'] / total['estimate'] - 1):+.3f} %")
    print(f"exact over float, bytes: {100 * (total['bytes'] / total['float bytes'] - 1):+.3f} %")
    curves = pillow_curves(pictures)
    for name, curve in curves.items():
        least = min(curve)
        print(f"{name} at {total['bpp']:.4f} bpp: {at_rate(curve, total['bpp']):.2f} dB (least: {least})")
    if out:
        plot_curves({**curves, "opsin": [(total["bpp"], total["psnr"])]}, out, quality="PSNR (dB)")


def timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    start = process_time()
    result = function(*arguments)
    return result, process_time() - start


def measure_speed(config: str, checkpoint: Path | None, path: Path) -> None:
    picture = read_image(path)
    megapixels = picture[..., 0].size / 1e6
    if checkpoint is None:
        torch.manual_seed(0)
        network = build_model(load_config(config)).network
    else:
        network = load_codec(config, checkpoint).network
    for context in (FixedPointContext, FloatContext):
        codec, making = timed(lambda kind=context: Codec(network, kind(network)))
        codec.encode(picture[:64, :64])
        data, encoding = timed(codec.encode, picture)
        _, decoding = timed(codec.decode, data)
        print(
            f"{context.__name__}: making {making:.2f} s; a megapixel: encoding {encoding / megapixels:.2f} s,"
            f" decoding {decoding / megapixels:.2f} s; {len(data)} bytes"
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB in all")
    for form in QUALITIES:
        size, _, encoding, decoding = stored(picture, form, 20)
        times = f"encoding {encoding / megapixels:.3f} s, decoding {decoding / megapixels:.3f} s"
        print(f"{form}: {times}, {size} bytes")


def damaged(file: bytes, model: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Hostile inputs without end, each with its kind."""

    def sealed(body: bytes) -> bytes:
        return body + zlib.crc32(body).to_bytes(4, "little")

    def changed(body: bytes) -> bytes:
        places, values = rng.integers(0, len(body), 3), rng.integers(0, 256, 3)
        content = bytearray(body)
        for place, value in zip(places, values, strict=True):
            content[place] = value
        return bytes(content)

    real = CompressedPicture.from_bytes(file)
    while True:
        yield "flipped", changed(file)
        yield "truncated", file[: rng.integers(0, len(file))]
        yield "foreign", rng.bytes(int(rng.integers(0, 300)))
        yield "resealed", sealed(changed(file[:-4]))
        yield "resealed, cut", sealed(file[: rng.integers(0, len(file) - 4)])
        y = rng.bytes(4 * int(rng.integers(0, 400)))
        yield "forged latent", replace(real, streams=replace(real.streams, y=y)).to_bytes()
        width, height = (int(side) for side in rng.integers(1, 2 ** rng.integers(1, 12, 2)))
        streams = Streams(*(rng.bytes(4 * int(rng.integers(0, 40))) for _ in range(4)))
        yield (
            "forged",
            CompressedPicture(1, int(rng.integers(1, 17)), model, width, height, streams).to_bytes(),
        )


def fuzz(inputs: int) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    codec = Codec(SegPIC(**FUZZED))  # type: ignore[arg-type]  # a dictionary's values have no types of their own
    file = codec.encode(rng.integers(0, 256, (100, 130, 3), dtype=np.uint8))
    codec.decode(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest, start = 0.0, process_time()
    for _, (kind, data) in zip(range(inputs), damaged(file, codec.model, rng), strict=False):
        began = process_time()
        try:
            codec.decode(data, max_pixels=LARGEST_FUZZED)
            outcome = "decoded"
        except UserError as error:
            outcome = "refused"
            assert "\n" not in str(error)
        slowest = max(slowest, process_time() - began)
        outcomes[kind, outcome] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind}: {count} {outcome}")
    spent = process_time() - start
    print(f"{inputs} inputs in {spent:.0f} s, the slowest {slowest:.3f} s; memory +{grown:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    rate = commands.add_parser("rate")
    rate.add_argument("config")
    rate.add_argument("checkpoint", type=Path)
    rate.add_argument("pictures", type=Path, nargs="+")
    rate.add_argument("--out", type=Path)
    speed = commands.add_parser("speed")
    speed.add_argument("config")
    speed.add_argument("checkpoint", type=Path, nargs="?")
    speed.add_argument("picture", type=Path)
    fuzzing = commands.add_parser("fuzz")
    fuzzing.add_argument("--inputs", type=int, default=100_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "rate":
        measure_rate(given.config, given.checkpoint, given.pictures, given.out)
    elif given.command == "speed":
        measure_speed(given.config, given.checkpoint, given.picture)
    else:
        fuzz(given.inputs)


if __name__ == "__main__":
    main()
