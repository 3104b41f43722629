"""Parity cases of multi-scale guided attention: how the authors' classes are built here."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.medical.segmentation.models.multi_scale_attention.attention import (
    AttentionLayer,
    ChannelAttention,
    PositionAttention,
    SemanticModule,
)
from opsin.medical.segmentation.models.multi_scale_attention.losses import (
    guidance_losses,
    reconstruction_losses,
    segmentation_losses,
)
from opsin.medical.segmentation.models.multi_scale_attention.network import GuidedOutput, MultiScaleAttention

GUIDANCE, RECONSTRUCTION = 0.25, 0.1


def _network(case: Case) -> MultiScaleAttention:
    """The network with the case's weights; sizes follow from the tensors' shapes."""
    shapes = case.shapes
    network = MultiScaleAttention(
        shapes["predict1.weight"][0],
        in_channels=shapes["resnext.layer0.0.weight"][1],
        channels=shapes["predict1.weight"][1],
        unused_layers="conv6_1.1.weight" in shapes,
    )
    place(network, case.state_dict())
    return network.eval()


@adapter("multi-scale-attention", r"DAF_stack; src/main\.py")
@torch.no_grad()
def _losses(case: Case) -> dict[str, Tensor]:
    network, inputs = _network(case), case.inputs()
    network.training = True  # of the top module alone: the batch norms keep their running statistics
    output: GuidedOutput = network(inputs["x"])
    ce, guided = segmentation_losses(output, inputs["target"]), guidance_losses(output).flip(0)
    reconstruction = reconstruction_losses(output)
    total = ce.sum() + GUIDANCE * guided.sum() + RECONSTRUCTION * reconstruction.sum()
    return {
        "losses_ce": ce,
        "losses_guided": guided,
        "losses_reconstruction": reconstruction,
        "total": torch.stack((total, ce.sum())),
        **_named(output),
    }


def _named(output: GuidedOutput) -> dict[str, Tensor]:
    """The output's parts under the authors' names, which count codes and reconstructions from the deepest."""
    named = {}
    for scale in range(1, 5):
        named[f"predict{scale}"] = output.predictions[scale - 1]
        named[f"predict{scale}_2"] = output.predictions[scale + 3]
        for level in (1, 2):
            place_of = 5 - scale
            named[f"semantic_{level}_{place_of}"] = output.codes[scale - 1][level - 1]
            pair = output.reconstructions[4 * (level - 1) + scale - 1]
            named[f"semantic_input_{level}_{place_of}"], named[f"reconstruction_{level}_{place_of}"] = pair
    return named


@adapter("multi-scale-attention", r"DAF_stack")
@torch.no_grad()
def _logits(case: Case) -> dict[str, Tensor]:
    (x,) = case.inputs().values()
    return dict.fromkeys(case.meta["outputs"], _network(case)(x))


@adapter("multi-scale-attention", r"attention\.py (PAM_CAM_Layer|semanticModule)")
@torch.no_grad()
def _modules(case: Case) -> dict[str, Tensor]:
    built, shapes = case.built_with, case.shapes
    channels = built.get("in_ch", 64)
    parts = {
        "pam": lambda: AttentionLayer(channels, PositionAttention(channels)),
        "cam": lambda: AttentionLayer(channels, ChannelAttention()),
        "sem": lambda: SemanticModule(built.get("semantic_in_dim", 2 * channels)),
    }
    modules = nn.ModuleDict({n: make() for n, make in parts.items() if any(s.startswith(n) for s in shapes)})
    place(modules.eval(), case.state_dict())
    (x,) = case.inputs().values()
    results = {name: modules[name](x) for name in ("pam", "cam") if name in modules}
    if "sem" in modules:
        results["code"], results["decoded"] = modules["sem"](x)
    return results
