"""How the parity cases of ACFormer's published classes and of the simulator are run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from opsin.core import parity
from opsin.core.published import place
from opsin.restoration.metalens import optics
from opsin.restoration.metalens.models.acformer.block import STAF, BlockSettings
from opsin.restoration.metalens.models.acformer.network import ACFormer

SAME = (
    "out_channels",
    "dim",
    "num_blocks",
    "num_refinement_blocks",
    "channel_heads",
    "spatial_heads",
    "overlap_ratio",
    "window_size",
    "spatial_dim_head",
    "ffn_expansion_factor",
    "bias",
)
"""Arguments that have the published names."""


def _arguments(case: parity.Case) -> dict[str, Any]:
    """`built_with` in our names; a case without tensors of `ca` is of the network without it."""
    given = case.built_with
    arguments = {key: given[key] for key in SAME if key in given}
    arguments["filters"] = given.get("M", given.get("inp_channels", 39) // 3)
    if "query_ksize" in given:
        arguments["query_kernels"] = given["query_ksize"]
    if "LayerNorm_type" in given:
        arguments["norm"] = given["LayerNorm_type"]
    with_ca = any(name.startswith("ca.") for name in case.shapes)
    sizes = (given.get("ca_dim", 32), given.get("ca_heads", 2), given.get("window_size_ca", 8))
    return arguments | {"filter_attention": sizes if with_ca else None}


@parity.adapter("metalens-metaformer", r"restormer_arch\.py ACFormer\b")
@torch.no_grad()
def _acformer(case: parity.Case) -> dict[str, Tensor]:
    network = ACFormer(**_arguments(case))
    place(network, case.state_dict(), source=case.name)
    candidates = case.inputs()["x"]
    network.eval()
    return {"out": network(candidates), "mafg": network.refined_filters(candidates)}


@parity.adapter("metalens-metaformer", r"restormer_arch\.py Transformer_STAF\b")
@torch.no_grad()
def _staf(case: parity.Case) -> dict[str, Tensor]:
    given = case.built_with
    settings = BlockSettings(
        given.get("window_size", 8),
        given.get("overlap_ratio", 0.5),
        given.get("spatial_dim_head", 16),
        given.get("ffn_expansion_factor", 2.66),
        given.get("bias", False),
        given.get("LayerNorm_type", "WithBias"),
    )
    tensors = ACFormer.from_published(case.state_dict())
    prefixes = sorted({name.split(".")[0] for name in tensors} & {"enc", "dec"}) or [""]
    outputs = {}
    for prefix in prefixes:
        own = {**given, **given.get(prefix, {})}
        block = STAF(
            own["dim"],
            own["num_channel_heads"],
            own["num_spatial_heads"],
            per_pixel=own.get("channel_fusion", False),
            query_kernel=own.get("query_ksize", 0),
            settings=settings,
        )
        start = f"{prefix}." if prefix else ""
        part = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
        place(block, part, source=case.name)
        outputs[prefix or "out"] = block.eval()(case.inputs()["x"])
    return outputs


@parity.adapter("metalens-metaformer", r"nano\.py\b")
def _simulator(case: parity.Case) -> dict[str, Tensor]:
    inputs = case.inputs()
    psf = inputs["psf"] / inputs["psf"].sum((1, 2), keepdim=True)
    grid, otf = optics.grid_of(psf.shape), optics.optical_transfer(psf)
    blurred = optics.blur(grid.patches(inputs["image"]), otf)
    noisy = (blurred + inputs["noise"]).clamp(0, 1)
    candidates = optics.wiener_bank(noisy, otf, grid, int(inputs["M"]))[0]
    truth = grid.without_ring(inputs["image"])[0]
    padding = inputs["padding"].flatten().tolist() if "padding" in inputs else [0] * 4
    return {
        "blurred": blurred,
        "filters": unpadded(candidates, padding),
        "gt": unpadded(truth, padding),
        "otf_abs": otf.abs()[None],
    }


def unpadded(pictures: Tensor, padding: list[int]) -> Tensor:
    """Pictures (…, H, W) without padding (top, bottom, left, right), by the authors' rule, which cases pin.

    Rows go only where there is padding above and below, else columns where it is left and right; `optics`
    crops all four sides instead.
    """
    top, bottom, left, right = padding
    if top and bottom:
        return pictures[..., top : pictures.shape[-2] - bottom, :]
    if left and right:
        return pictures[..., left : pictures.shape[-1] - right]
    return pictures
