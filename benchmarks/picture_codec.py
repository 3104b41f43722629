"""Rate, distortion, speed and robustness of the learned codec, against JPEG, WebP and AVIF of Pillow.

    python benchmarks/picture_codec.py rate  CONFIG PICTURES… --checkpoints ONE_A_LAMBDA… [--out CURVES.png]
    python benchmarks/picture_codec.py speed CONFIG [CHECKPOINT] PICTURE
    python benchmarks/picture_codec.py peer  PICTURE        (where CompressAI is installed)
    python benchmarks/picture_codec.py fuzz  [--inputs 100000]

Times are CPU time of one thread. Without a checkpoint `speed` takes random weights, changed so that the file
has the rate of a trained network's; `peer` does the same with CompressAI's mbt2018-mean. `fuzz` decodes
damaged files with a network of a few thousand weights.
"""

from __future__ import annotations

import argparse
import io
import math
import resource
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
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
from opsin.restoration.compression.bitstream.codec import Codec, to_input, to_picture
from opsin.restoration.compression.bitstream.container import CompressedPicture, Streams
from opsin.restoration.compression.bitstream.context import FixedPointContext, FloatContext
from opsin.restoration.compression.compressor import load_codec
from opsin.restoration.compression.metrics import bd_rate
from opsin.restoration.compression.models import SegPIC
from opsin.restoration.compression.visualization import plot_curves
from opsin.restoration.metrics import psnr

Picture = NDArray[np.uint8]
OPTIMISED = "JPEG, optimised"  # progressive, with Huffman tables of its own
QUALITIES: dict[str, tuple[int, ...]] = {
    "JPEG": (1, 2, 3, 5, 8, 12, 20, 35),
    OPTIMISED: (1, 2, 3, 5, 8, 12, 20, 35),
    "WEBP": (0, 2, 5, 10, 20, 40),
    "AVIF": (5, 10, 15, 20, 30, 45),
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
RATE, SCALE = 0.25, 0.3  # bits a pixel, and standard deviation of latents, where weights are random


def stored(picture: Picture, form: str, quality: int) -> tuple[int, Picture, float, float]:
    """Bytes, decoded picture, and seconds of encoding and decoding of Pillow's codecs."""
    content = io.BytesIO()
    start = process_time()
    optimised = form == OPTIMISED
    Image.fromarray(picture).save(
        content, form.split(",")[0], quality=quality, optimize=optimised, progressive=optimised
    )
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


def measured(config: str, checkpoint: Path, paths: list[Path]) -> dict[str, float]:
    """Prints what each picture takes with a trained network, and gives the means."""
    exact = load_codec(config, checkpoint)
    floating = Codec(exact.network, FloatContext(exact.network))
    rows: list[dict[str, float]] = []
    print(f"{config} {checkpoint}")
    for path in paths:
        picture = read_image(path)
        reconstruction, coded = exact.forward(picture)
        _, float_coded = floating.forward(picture)
        size = len(exact.to_file(coded, picture.shape[:2]))
        row = {
            "bytes": size,
            "estimate": sum(coded.bits.values()) / 8,
            "float bytes": len(floating.to_file(float_coded, picture.shape[:2])),
            "psnr": psnr(to_picture(reconstruction), picture),
            "bpp": 8 * size / picture[..., 0].size,
        }
        rows.append(row)
        print(path.name, {name: round(value, 4) for name, value in row.items()})
    total = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    print("mean", {name: round(value, 4) for name, value in total.items()})
    print(f"file over estimate: {100 * (total['bytes'] / total['estimate'] - 1):+.3f} %")
    print(f"exact over float, bytes: {100 * (total['bytes'] / total['float bytes'] - 1):+.3f} %")
    return total


def measure_rate(config: str, checkpoints: list[Path], paths: list[Path], out: Path | None) -> None:
    totals = [measured(config, checkpoint, paths) for checkpoint in checkpoints]
    ours = [(total["bpp"], total["psnr"]) for total in totals]
    curves = pillow_curves([read_image(path) for path in paths])
    for name, curve in curves.items():
        at = [f"{rate:.4f} bpp: {at_rate(curve, rate):.2f} dB" for rate, _ in ours]
        print(f"{name} at {'; '.join(at)} (least: {min(curve)})")
        if len(ours) > 1:
            print(f"BD-rate over {name}: {bd_rate_told(curve, ours)}")
    if out:
        plot_curves({**curves, "opsin": ours}, out, quality="PSNR (dB)")


def bd_rate_told(anchor: list[tuple[float, float]], test: list[tuple[float, float]]) -> str:
    try:
        return f"{bd_rate(anchor, test):+.1f} %"
    except UserError as error:  # curves that do not meet
        return str(error)


def timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    start = process_time()
    result = function(*arguments)
    return result, process_time() - start


def matched(bits: Callable[[float], float], pixels: int) -> None:
    """Finds the gain of a latent for which `bits` of the gain are `RATE` a pixel, by bisection."""
    low, high = 0.0, 12.0  # of its logarithm to the base 2
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if bits(2**middle) < RATE * pixels else (low, middle)


def with_gain(layer: torch.nn.Conv2d) -> Callable[[float], None]:
    """Sets the weights of `layer` to a multiple of what they are now."""
    weight = layer.weight.detach().clone()

    def scale(gain: float) -> None:
        layer.weight.data = weight * gain

    return scale


def plausible(network: SegPIC, x: torch.Tensor) -> SegPIC:
    """Random weights with a trained network's rate: small scales, and latents that are as large as these."""
    last = network.get_submodule("basic_E.3.scales_bias.2")
    assert isinstance(last, torch.nn.Conv2d)
    for net in network.cc_scale_transforms:
        assert isinstance(net, torch.nn.Sequential)
        list(net.parameters())[-1].data.fill_(SCALE)
    scale = with_gain(last)

    def bits(gain: float) -> float:
        scale(gain)
        with torch.inference_mode():
            return float(-network(x)["likelihood_y"].log2().sum())

    matched(bits, x[0, 0].numel())
    return network


def measure_speed(config: str, checkpoint: Path | None, path: Path) -> None:
    picture = read_image(path)
    if checkpoint is None:
        torch.manual_seed(0)
        network = plausible(build_model(load_config(config)).network.eval(), strip(picture))
    else:
        network = load_codec(config, checkpoint).network
    for context in (FixedPointContext, FloatContext):
        codec, making = timed(lambda kind=context: Codec(network, kind(network)))
        codec.decode(codec.encode(picture[:64, :64]))
        data, encoding = timed(codec.encode, picture)
        _, decoding = timed(codec.decode, data)
        print_speed(context.__name__, picture, encoding, decoding, len(data), making)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB in all")
    for form in ("JPEG", "WEBP", "AVIF"):
        made = (stored(picture, form, quality) for quality in QUALITIES[form])
        size, _, encoding, decoding = min(made, key=lambda row: abs(row[0] - len(data)))
        print_speed(form, picture, encoding, decoding, size)


def strip(picture: Picture) -> torch.Tensor:
    """128 rows in the middle, of which weights that suit the whole picture can be told."""
    top = picture.shape[0] // 2 - 64
    return to_input(np.ascontiguousarray(picture[top : top + 128]))


def print_speed(
    name: str, picture: Picture, encoding: float, decoding: float, size: int, making: float = 0
) -> None:
    pixels = picture[..., 0].size
    encoding, decoding = (1e6 * seconds / pixels for seconds in (encoding, decoding))
    times = f"a megapixel: encoding {encoding:.3f} s, decoding {decoding:.3f} s"
    print(f"{name}: {times}; {8 * size / pixels:.3f} bpp; once {making:.2f} s", flush=True)


def measure_peer(path: Path) -> None:
    """CompressAI's mbt2018-mean as its own code runs it, with random weights at the same rate."""
    from compressai.models import MeanScaleHyperprior

    picture = read_image(path)
    torch.manual_seed(0)
    network = MeanScaleHyperprior(128, 192).eval()  # mbt2018-mean at its four lower rates
    network.h_s[-1].bias.data[:192] = SCALE
    scale, x = with_gain(network.g_a[-1]), strip(picture)

    def bits(gain: float) -> float:
        scale(gain)
        with torch.inference_mode():
            return float(-network(x)["likelihoods"]["y"].log2().sum())

    matched(bits, x[0, 0].numel())
    _, making = timed(network.update)
    with torch.inference_mode():
        network.decompress(**network.compress(x))
        coded, encoding = timed(lambda: network.compress(to_input(picture)))
        _, decoding = timed(lambda: network.decompress(**coded))
    size = sum(len(strings[0]) for strings in coded["strings"])
    print_speed("mbt2018-mean", picture, encoding, decoding, size, making)


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
    rate.add_argument("--checkpoints", type=Path, nargs="+", required=True)
    rate.add_argument("pictures", type=Path, nargs="+")
    rate.add_argument("--out", type=Path)
    speed = commands.add_parser("speed")
    speed.add_argument("config")
    speed.add_argument("checkpoint", type=Path, nargs="?")
    speed.add_argument("picture", type=Path)
    peer = commands.add_parser("peer")
    peer.add_argument("picture", type=Path)
    fuzzing = commands.add_parser("fuzz")
    fuzzing.add_argument("--inputs", type=int, default=100_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "rate":
        measure_rate(given.config, given.checkpoints, given.pictures, given.out)
    elif given.command == "speed":
        measure_speed(given.config, given.checkpoint, given.picture)
    elif given.command == "peer":
        measure_peer(given.picture)
    else:
        fuzz(given.inputs)


if __name__ == "__main__":
    main()
