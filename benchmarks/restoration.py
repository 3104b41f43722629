"""HAT against bicubic and a plain convolutional network, and against its authors' structure.

    python benchmarks/restoration.py learn DATA [--networks HAT EDSR] [--steps 500]
    python benchmarks/restoration.py speed [--size 96] [--repeats 3]

`learn` trains two small ×4 networks from scratch on 12 of Kodak's photographs, equally: as many steps, of
equal cost on one thread. It measures them on Set5 and on the Kodak photographs that were kept aside. DATA has
`kodak/` and `set5/`. `speed` runs HAT-S ×4 as opsin computes it and as the published code does, alternating
in one process and with the same weights, untiled and in tiles.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_model
from opsin.registry import MODELS
from opsin.restoration.datasets import HighResolutionDataset, PairedImageDataset
from opsin.restoration.degradation import bicubic
from opsin.restoration.metrics import SuperResolutionMetric
from opsin.restoration.models import SuperResolver
from opsin.restoration.models.hat import HAB, HAT, OCAB, to_channels_first, to_channels_last
from opsin.restoration.models.tiling import BlockwiseTiling, ImageTiling, Untiled, restore

SCALE = 4
KODAK_TRAIN = 12  # the first by name; the others are kept aside
BATCH, PATCH, RATE, WARM_UP = 2, 24, 5e-4, 0.05
START = dict(type="opsin.InterpolationInit")


class ResidualBlock(nn.Module):
    """EDSR's block: convolution, ReLU, convolution, and the input added; no norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        return x + to_channels_last(self.body(to_channels_first(x)))


@MODELS.register_module()
class EDSR(HAT):
    """The body of "Enhanced Deep Residual Networks" (arXiv 1707.02921) between HAT's first and last layers.

    Args:
        width: channels.
        blocks: residual blocks.
        network: `upscale` and `init_cfg` of HAT.
    """

    def __init__(self, width: int, blocks: int, **network: Any) -> None:
        super().__init__(embed_dim=width, depths=(), num_heads=(), window_size=1, patch_norm=False, **network)
        self.layers = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.norm = nn.Identity()


NETWORKS: dict[str, dict[str, Any]] = {
    "HAT": dict(
        type="opsin.HAT",
        img_size=32,
        window_size=8,
        embed_dim=60,
        depths=(4, 4, 4),
        num_heads=(6, 6, 6),
        squeeze_factor=15,
        drop_path_rate=0.0,
    ),
    "EDSR": dict(type="EDSR", width=64, blocks=44),
}


def kodak(data: Path, *pipeline: dict[str, Any]) -> HighResolutionDataset:
    """Kodak's photographs, reduced by MATLAB's bicubic."""
    load = dict(type="opsin.LoadHighResolution", cache=32)
    return HighResolutionDataset(
        scale=SCALE, data_root=str(data / "kodak"), pipeline=[load, *pipeline, dict(type="opsin.PackPair")]
    )


def held_out(data: Path) -> dict[str, list[dict[str, Any]]]:
    """The pictures to measure on, by name of the set."""
    pipeline = [dict(type="opsin.LoadPair"), dict(type="opsin.PackPair")]
    set5 = PairedImageDataset(scale=SCALE, data_root=str(data / "set5"), pipeline=pipeline)
    photographs = kodak(data)
    return {
        "Set5": list(set5),
        "Kodak": [photographs[i] for i in range(KODAK_TRAIN, len(photographs))],
    }


def train(model: SuperResolver, data: Path, steps: int) -> float:
    """Trains for `steps`, the rate falling to 0 by a cosine; gives the seconds of CPU time of a step."""
    crops = kodak(data, dict(type="opsin.RandomCropPair", size=PATCH), dict(type="opsin.RandomSymmetry"))
    optimizer = torch.optim.Adam(model.parameters(), RATE, betas=(0.9, 0.99))
    start = time.process_time()
    for step in range(steps):
        done = (step + 1) / steps
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(done / WARM_UP, (1 + np.cos(np.pi * done)) / 2)
        chosen = [crops[int(i)] for i in np.random.randint(KODAK_TRAIN, size=BATCH)]
        pictures, samples = ([item[key] for item in chosen] for key in ("inputs", "data_samples"))
        optimizer.zero_grad()
        model(pictures, samples, mode="loss")["loss_pixel"].backward()
        optimizer.step()
    return (time.process_time() - start) / steps


def measured(items: list[dict[str, Any]], enlarge: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Mean PSNR and SSIM on Y of pictures enlarged by `enlarge`, (3, H, W) uint8 to (3, 4·H, 4·W)."""
    metric = SuperResolutionMetric(crop_border=SCALE, measures=("psnr_y", "ssim_y"))
    for item in items:
        sample = item["data_samples"].to_dict()
        metric.process(None, [sample | dict(pred_img=enlarge(item["inputs"]))])
    return metric.compute_metrics(metric.results)


def by_bicubic(picture: Tensor) -> Tensor:
    """MATLAB's bicubic enlargement."""
    return torch.from_numpy(bicubic(picture.permute(1, 2, 0).numpy(), SCALE)).permute(2, 0, 1)


def giga_multiply_adds(network: nn.Module, size: int) -> float:
    """Of one LR picture of `size` x `size` pixels."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(1, 3, size, size))
    return counter.get_total_flops() / 2e9


def learn(data: Path, names: list[str], steps: int) -> None:
    """Prints the table of PSNR and SSIM."""
    sets = held_out(data)
    print(f"| network | parameters | multiply-adds | CPU s a step | {' | '.join(sets)} |")
    print("| --- | --- | --- | --- |" + " --- |" * len(sets))

    def row(head: str, enlarge: Callable[[Tensor], Tensor]) -> None:
        found = [measured(items, enlarge) for items in sets.values()]
        figures = " | ".join(f"{f['psnr_y']:.2f} / {f['ssim_y']:.4f}" for f in found)
        print(f"| {head} | {figures} |", flush=True)

    row("bicubic | | | ", by_bicubic)
    for name in names:
        torch.manual_seed(0)
        np.random.seed(0)
        model = SuperResolver(dict(NETWORKS[name], upscale=SCALE, init_cfg=START))
        model.init_weights()
        cost = giga_multiply_adds(model.network, PATCH)
        seconds = train(model.train(), data, steps)
        model.eval()

        def enlarge(picture: Tensor, model: SuperResolver = model) -> Tensor:
            return model.predict([picture], None)[0].pred_img

        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        row(f"{name} | {parameters:.2f} M | {cost:.2f} G | {seconds:.2f}", enlarge)


def windows_of(x: Tensor, size: int) -> Tensor:
    """The authors' partition: (B, H, W, C) to (windows, size², C), one copy."""
    b, h, w, c = x.shape
    x = x.view(b, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5)
    return x.contiguous().view(-1, size * size, c)


def map_of(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """The way back, (B, H, W, C)."""
    x = windows.view(-1, height // size, width // size, size, size, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, windows.shape[-1])


def scores_and_values(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """The authors' attention (windows, heads, N, d): every score is stored, softmax is a step of its own."""
    scores = q @ k.transpose(-2, -1) + bias[None]
    if mask is not None:
        windows, heads, n, _ = scores.shape
        scores = scores.view(windows // len(mask), len(mask), heads, n, n) + mask[None, :, None]
        scores = scores.view(windows, heads, n, n)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class AuthorsHAB(HAB):
    """HAB as it is published: tokens, a table index, and a mask for every window of a shifted map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        b, h, w, c = x.shape
        ws, shift = self.window_size, self.shift_size
        tokens = x.reshape(b, h * w, c)
        n = self.norm1(tokens).view(b, h, w, c)
        branch = self.conv_block(n.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous().view(b, h * w, c)
        rolled = torch.roll(n, (-shift, -shift), (1, 2)) if shift else n
        mask = authors_mask(h, w, ws, shift) if shift else None
        attended = map_of(self._attended(windows_of(rolled, ws), mask), ws, h, w)
        if shift:
            attended = torch.roll(attended, (shift, shift), (1, 2))
        tokens = tokens + attended.view(b, h * w, c) + self.conv_scale * branch
        return (tokens + self.mlp(self.norm2(tokens))).view(b, h, w, c)

    def _attended(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        attn, (count, n, c) = self.attn, windows.shape
        qkv = attn.qkv(windows).reshape(count, n, 3, attn.num_heads, c // attn.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        table = attn.relative_position_bias_table
        bias = table[_index(self.window_size, self.window_size, -1)].view(n, n, -1).permute(2, 0, 1)
        return attn.proj(scores_and_values(q * attn.scale, k, v, bias.contiguous(), mask))


class AuthorsOCAB(OCAB):
    """OCAB as it is published: keys and values are unfolded to a copy for every window."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        b, h, w, c = x.shape
        ws, m, heads = self.window_size, self.overlap_win_size, self.num_heads
        tokens = x.reshape(b, h * w, c)
        qkv = self.qkv(self.norm1(tokens)).view(b, h, w, 3, c).permute(3, 0, 4, 1, 2)
        q = windows_of(qkv[0].permute(0, 2, 3, 1), ws)
        unfolded = F.unfold(torch.cat((qkv[1], qkv[2]), 1), m, stride=ws, padding=self.halo)
        k, v = unfolded.view(b, 2, c, m * m, -1).permute(1, 0, 4, 3, 2).reshape(2, -1, m * m, c)
        q, k, v = (part.reshape(len(q), -1, heads, c // heads).permute(0, 2, 1, 3) for part in (q, k, v))
        bias = self.relative_position_bias_table[_index(ws, m, 1)].view(ws * ws, m * m, -1).permute(2, 0, 1)
        attended = map_of(scores_and_values(q * self.scale, k, v, bias.contiguous(), None), ws, h, w)
        tokens = self.proj(attended.view(b, h * w, c)) + tokens
        return (tokens + self.mlp(self.norm2(tokens))).view(b, h, w, c)


@lru_cache
def authors_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """-100 for pairs of different regions, (windows, N, N). Published: made anew for every forward pass."""
    regions, count = torch.zeros(1, height, width, 1), 0
    bands = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for rows in bands:
        for columns in bands:
            regions[:, rows, columns] = count
            count += 1
    windows = windows_of(regions, window).squeeze(-1)
    difference = windows[:, None] - windows[:, :, None]
    return difference.masked_fill(difference != 0, -100.0).masked_fill(difference == 0, 0.0)


@lru_cache
def _index(window: int, keys: int, sign: int) -> Tensor:
    """Rows of the table of relative positions: key minus query (`sign` 1), or query minus key (-1)."""
    cells = [
        torch.stack(torch.meshgrid([torch.arange(n)] * 2, indexing="ij")).flatten(1) for n in (window, keys)
    ]
    relative = sign * (cells[1][:, None] - cells[0][:, :, None]) + window - (keys if sign > 0 else 0)
    relative = relative + (1 if sign > 0 else -1)
    return (relative[0] * (window + keys - 1) + relative[1]).flatten()


@contextmanager
def authors_structure(network: HAT) -> Iterator[None]:
    """Within it the network's blocks compute as the published ones do, with the same weights."""
    blocks = [module for module in network.modules() if type(module) in (HAB, OCAB)]
    for block in blocks:
        block.__class__ = AuthorsHAB if isinstance(block, HAB) else AuthorsOCAB
    try:
        yield
    finally:
        for block in blocks:
            block.__class__ = HAB if isinstance(block, HAB) else OCAB


def peak_megabytes() -> float:
    """The most memory that the process has had since `/proc/self/clear_refs` was told 5."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def run(network: HAT, picture: Any, tiling: Any, authors: bool) -> tuple[Any, float, float]:
    """The restored picture, seconds, and megabytes that the process grew by at its peak."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_megabytes()
    start = time.perf_counter()
    if authors:
        with authors_structure(network):
            restored = restore(network, picture, tiling)
    else:
        restored = restore(network, picture, tiling)
    return restored, time.perf_counter() - start, peak_megabytes() - before


def speed(size: int, repeats: int) -> None:
    """Prints seconds and megabytes, per megapixel of the result."""
    torch.manual_seed(0)
    network = create_model("hat_s_x4").eval()
    picture = np.random.default_rng(0).random((size, size, 3), dtype=np.float32)
    margin_tiles = ImageTiling(size=size // 2, pad=network.window_size)
    ways: dict[str, tuple[Any, bool, str]] = {  # tiling, whose structure, and what it is compared with
        "authors, untiled": (Untiled(), True, "authors, untiled"),
        "opsin, untiled": (Untiled(), False, "authors, untiled"),
        "authors, tiles with a margin": (margin_tiles, True, "authors, tiles with a margin"),
        "opsin, the same tiles": (margin_tiles, False, "authors, tiles with a margin"),
        "opsin, exact tiles": (BlockwiseTiling(size=size // 2), False, "authors, untiled"),
    }
    best = dict.fromkeys(ways, (float("inf"), 0.0))
    pictures = {}
    for _ in range(repeats):
        for name, (tiling, authors, _) in ways.items():
            pictures[name], seconds, memory = run(network, picture, tiling, authors)
            best[name] = min(best[name][0], seconds), max(best[name][1], memory)
    megapixels = (SCALE * size) ** 2 / 1e6
    print("| | s a megapixel | times faster | MB added at the peak | largest difference |")
    print("| --- | --- | --- | --- | --- |")
    for name, (_, _, other) in ways.items():
        seconds, memory = best[name]
        apart = np.abs(pictures[name] - pictures[other]).max()
        ratio = best[other][0] / seconds
        print(f"| {name} | {seconds / megapixels:.1f} | {ratio:.2f} | {memory:.0f} | {apart:.0e} |")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    learning = commands.add_parser("learn")
    learning.add_argument("data", type=Path)
    learning.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    learning.add_argument("--steps", type=int, default=500)
    timing = commands.add_parser("speed")
    timing.add_argument("--size", type=int, default=96)
    timing.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel("WARNING")
    if given.command == "learn":
        learn(given.data, given.networks, given.steps)
    else:
        speed(given.size, given.repeats)


if __name__ == "__main__":
    main()
