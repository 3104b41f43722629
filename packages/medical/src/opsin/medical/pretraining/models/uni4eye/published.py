"""How the parity cases of Uni4Eye are run."""

from __future__ import annotations

import torch
from torch import Tensor

from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.medical.pretraining.models.uni4eye.encoder import UnifiedPatchEmbed
from opsin.medical.pretraining.models.uni4eye.pretraining import Uni4Eye


@adapter("uni4eye", r"PatchEmbed23D\.py PatchEmbed23D$")
@torch.no_grad()
def _run_patch_embed(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    tensors = case.state_dict()
    volume_channels = tensors["proj3.weight"].shape[1]
    module = UnifiedPatchEmbed(
        given.get("patch_size", 16), given.get("in_chans", 3), volume_channels, given["embed_dim"]
    )
    place(module, tensors)
    kinds = {"image": "tokens_2d", "volume": "tokens_3d"}
    return {kinds.get(name, "out"): module(x) for name, x in case.inputs().items()}


@adapter("uni4eye", r"MaskedAutoencoderViT23D(_2decoder)?$")
@torch.no_grad()
def _run_autoencoder(case: Case) -> dict[str, Tensor]:
    given, tensors = case.built_with, case.state_dict()
    model = Uni4Eye(
        {
            "size": given.get("img_size", 224),
            "patch_size": given.get("patch_size", 16),
            "in_channels": given.get("in_chans", 3),
            "volume_channels": tensors["patch_embed.proj3.weight"].shape[1],
            "dim": given.get("embed_dim", 1024),
            "depth": given.get("depth", 24),
            "heads": given.get("num_heads", 16),
            "mlp_ratio": given.get("mlp_ratio", 4.0),
        },
        decoder_dim=given.get("decoder_embed_dim", 512),
        decoder_depth=given.get("decoder_depth", 8),
        decoder_heads=given.get("decoder_num_heads", 16),
        mask_ratio=given.get("mask_ratio", 0.75),
        norm_pix_loss=given.get("norm_pix_loss", False),
    )
    place(model, tensors)
    model.eval()
    inputs = case.inputs()
    found: dict[str, Tensor] = {}
    for kind in ("2d", "3d"):
        if f"img_{kind}" in inputs:
            found |= _run_kind(model, kind, inputs)
    return found


def _run_kind(model: Uni4Eye, kind: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    x = inputs[f"img_{kind}"]
    latent, image, gradient, mask = model.reconstruct(x, inputs[f"noise_{kind}"])
    found = {
        f"latent_{kind}": latent,
        f"mask_{kind}": mask,
        f"pred_{kind}": image,
        f"grad_pred_{kind}": gradient,
    }
    edges, gain = inputs.get(f"grad_{kind}"), inputs.get(f"gain_{kind}")
    if edges is not None:
        found[f"loss_{kind}"] = _loss(model, x, edges, image, gradient, mask)
        if gain is not None:
            scaled = (image * gain[..., None], gradient * gain[..., None])
            found[f"loss_gained_{kind}"] = _loss(model, x, edges, *scaled, mask)
    return found


def _loss(model: Uni4Eye, *given: Tensor) -> Tensor:
    """Each sample's loss by itself, both branches together."""
    terms = model.losses(*given)
    return (terms["loss_image"] + terms["loss_gradient"]) / given[-1].sum(1)
