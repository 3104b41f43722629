"""Frames per second of MixFormer against the authors' structure, and memory over a long video.

    python benchmarks/tracking.py [--threads 2] [--frames 8] [--models mixformer_cvt …] [--long 10000]

The authors' structure is their joint pass: templates go through the network with every frame, each batch norm
is a step of its own, and attention is written out. Weights are the same, and the features are compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from opsin.core.engine.measure import peak_memory
from opsin.core.models import create_model
from opsin.registry import MODELS
from opsin.tracking.models.mixformer import MixCvT, MixFormer
from opsin.tracking.models.mixformer.backbone import to_maps
from opsin.tracking.models.mixformer.mixed_attention import ConvProjection, MixedAttention, MixedBlock
from opsin.tracking.online_memory import UpdateRule
from opsin.tracking.tracker import CropRule, Tracker

SIZES = {
    "mixvit_base": (128, 288),
    "mixconvmae_base": (128, 288),
    "mixvit_large": (192, 384),
    "mixconvmae_large": (192, 384),
}
TINY = dict(
    type="opsin.MixFormer",
    backbone=dict(type="opsin.MixCvT", dims=(16, 32, 64), depths=(1, 1, 2), num_heads=(1, 2, 4)),
    head=dict(type="opsin.CornerHead", channels=64, freeze_bn=True),
    score=dict(type="opsin.ScoreHead", num_heads=4),
)


def projected(part: ConvProjection, tokens: Tensor, grids: list[tuple[int, int]]) -> Tensor:
    """Each map folded back, convolved, normalised and flattened, as the joint pass does."""
    maps = tokens.split([h * w for h, w in grids], dim=1)
    done = [part.bn(part.conv(to_maps(m, grid).contiguous())) for m, grid in zip(maps, grids, strict=True)]
    return torch.cat([m.flatten(2).transpose(1, 2) for m in done], dim=1)


def attention(attn: MixedAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention written out."""
    scores = torch.einsum("bhlk,bhtk->bhlt", q, k) * attn.scale
    return torch.einsum("bhlt,bhtv->bhlv", scores.softmax(-1), v).transpose(1, 2).flatten(2)


def joint_block(block: MixedBlock, x: Tensor, grids: list[tuple[int, int]]) -> Tensor:
    """One block over the tokens of both templates and the search region."""
    attn, normed = block.attn, block.norm1(x)
    if hasattr(attn, "conv_proj_q"):
        pairs = (
            (attn.conv_proj_q, attn.proj_q),
            (attn.conv_proj_k, attn.proj_k),
            (attn.conv_proj_v, attn.proj_v),
        )
        q, k, v = (attn.heads(linear(projected(conv, normed, grids))) for conv, linear in pairs)
        sides = [-(-h // 2) * -(-w // 2) for h, w in grids[:2]]
    else:
        q, k, v = (attn.heads(part) for part in attn.qkv(normed).chunk(3, dim=2))
        sides = [h * w for h, w in grids[:2]]
    templates = sum(h * w for h, w in grids[:2])
    first = attention(attn, q[:, :, :templates], k[:, :, : sum(sides)], v[:, :, : sum(sides)])
    x = x + attn.proj(torch.cat((first, attention(attn, q[:, :, templates:], k, v)), dim=1))
    return x + block.mlp(block.norm2(x))


def joint(network: MixFormer, template: Tensor, online: Tensor, search: Tensor) -> Tensor:
    """Search features by the authors' structure; box and score are computed too."""
    backbone, maps = network.backbone, [template, online, search]
    if isinstance(backbone, MixCvT):
        for stage in backbone.stages:
            tokens, grids = zip(*(stage.patch_embed(m) for m in maps), strict=True)
            maps = run_blocks(list(stage.mixed_blocks()), list(tokens), list(grids))
    else:
        embedded = [backbone.embed(m) for m in maps]
        grids = [(m.shape[2], m.shape[3]) for m in embedded]
        tables = (backbone.pos_embed_t, backbone.pos_embed_t, backbone.pos_embed_s)
        tokens = [m.flatten(2).transpose(1, 2) + t for m, t in zip(embedded, tables, strict=True)]
        maps = run_blocks(list(backbone.mixed_blocks()), tokens, grids)
    corners = network.box_head(maps[2])
    network.score_branch(maps[2], maps[0], corners)
    return maps[2]


def run_blocks(blocks: list[MixedBlock], tokens: list[Tensor], grids: list[tuple[int, int]]) -> list[Tensor]:
    """Blocks over all tokens at once; maps again."""
    x = torch.cat(tokens, dim=1)
    for block in blocks:
        x = joint_block(block, x, grids)
    parts = x.split([h * w for h, w in grids], dim=1)
    return [to_maps(p, grid).contiguous() for p, grid in zip(parts, grids, strict=True)]


def seconds(runs: dict[str, Callable[[], object]], frames: int) -> dict[str, float]:
    """Least seconds of each call, in turn, after a turn that is not counted; of one thread its CPU time."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    least = dict.fromkeys(runs, float("inf"))
    for turn in range(frames + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if turn:
                least[name] = min(least[name], clock() - start)
    return least


@torch.inference_mode()
def compare(name: str, frames: int) -> None:
    """Prints one row: the authors' structure, ours, and how many times faster."""
    torch.manual_seed(0)
    network = create_model(name).eval()
    template_size, search_size = SIZES.get(name, (128, 320))
    template, online = torch.randn(2, 1, 3, template_size, template_size).unbind(0)
    search = torch.randn(1, 3, search_size, search_size)
    memory = network.remember(template, online)
    wanted = joint(network, template, online, search)
    ours = network.backbone.encode_search(search, memory)
    difference = (wanted - ours).abs().max() / wanted.abs().max()
    least = seconds(
        {
            "authors": lambda: joint(network, template, online, search),
            "opsin": lambda: network.look(search, memory),
            "update": lambda: network.remember(template, online),
        },
        frames,
    )
    slow, fast = least["authors"], least["opsin"]
    row = f"{1 / slow:.2f} | {1 / fast:.2f} | {slow / fast:.2f} | {1000 * least['update']:.0f}"
    print(f"| {name} | {row} | {difference:.1e} |", flush=True)


def long_video(frames: int) -> None:
    """Prints the process's peak memory along a long video, with templates renewed every 10 frames."""
    network = MODELS.build(TINY).eval()
    tracker = Tracker(network, CropRule(64, 2.0, 128, 4.0), UpdateRule(size=3, interval=10, threshold=0.0))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    tracker.start(image, [(100.0, 80.0, 40.0, 40.0)])
    marks = {frames * i // 10 for i in (1, 2, 5, 10)}
    for frame in range(1, frames + 1):
        tracker.track(np.roll(image, frame % 50, axis=1))
        if frame in marks:
            print(f"| {frame} | {peak_memory() / 2**20:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--models", nargs="*", default=["mixformer_cvt", "mixvit_base", "mixconvmae_base"])
    parser.add_argument("--long", type=int, default=10_000)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.models:
        print("| model | authors' structure, frames/s | opsin | times | template update, ms | difference |")
        print("|---|---|---|---|---|---|")
        for name in given.models:
            compare(name, given.frames)
    if given.long:
        print("\n| frame | peak memory, MB |\n|---|---|")
        long_video(given.long)


if __name__ == "__main__":
    main()
