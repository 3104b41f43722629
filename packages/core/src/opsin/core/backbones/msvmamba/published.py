"""MSVMamba's parity cases: how the authors' classes of both releases are built here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.msvmamba.model import BLOCKS, MSVMamba, MSVMambaClassifier
from opsin.core.backbones.msvmamba.settings import MSVMambaSettings
from opsin.core.parity import Case, adapter
from opsin.core.published import place

# Arguments of the authors' classes and what they are called here.
_SETTINGS = {
    "dims": "dims",
    "depths": "depths",
    "in_chans": "in_channels",
    "ssm_ratio": "ssm_ratio",
    "d_state": "d_state",
    "ssm_d_state": "d_state",
    "dt_rank": "dt_rank",
    "ssm_dt_rank": "dt_rank",
    "d_conv": "d_conv",
    "ssm_conv": "d_conv",
    "conv_bias": "conv_bias",
    "ssm_conv_bias": "conv_bias",
    "conv_ffn_ratio": "ffn_ratio",
    "full_res_index": "full_resolution_route",
    "patch_norm": "patch_norm",
    "patchembed_version": "stem",
    "downsample_version": "downsample",
}


def msvmamba_settings(case: Case) -> dict[str, Any]:
    """Our settings for the arguments of the authors' classes; the release is that of the branch."""
    built = case.built_with
    forward_type = str(built.get("forward_type", ""))
    release = 2 if forward_type.startswith("vms") or "branch v2" in case.source else 1
    settings = {ours: built[theirs] for theirs, ours in _SETTINGS.items() if built.get(theirs) is not None}
    settings["squeeze_excite"] = any(".fc.0." in name for name in case.shapes)
    if release == 2:
        settings["gate"] = forward_type == "vms"
    return {"release": release, **settings}


def _module_settings(case: Case, dim: int) -> MSVMambaSettings:
    return MSVMambaSettings.of({"dims": dim, "depths": (1,), **msvmamba_settings(case)}, {})


def _run(case: Case, module: nn.Module, channels_first: bool) -> dict[str, Tensor]:
    """The module on the case's map, which release 1 keeps channels-last."""
    place(module, case.state_dict())
    (x,) = case.inputs().values()
    out = module.eval()(x if channels_first else x.permute(0, 3, 1, 2))
    return dict.fromkeys(case.meta["outputs"], out if channels_first else out.permute(0, 2, 3, 1))


def _channels_first(case: Case, settings: MSVMambaSettings) -> bool:
    return bool(case.built_with.get("channel_first", settings.release == 2))


@adapter("msvmamba", r"vmamba\.py SS2D\b")
@torch.no_grad()
def _mixer(case: Case) -> dict[str, Tensor]:
    settings = _module_settings(case, case.built_with["d_model"])
    mixer = BLOCKS[settings.release].mixer(case.built_with["d_model"], settings)
    return _run(case, mixer, _channels_first(case, settings))


@adapter("msvmamba", r"vmamba\.py VSSBlock\b")
@torch.no_grad()
def _block(case: Case) -> dict[str, Tensor]:
    dim = case.built_with["hidden_dim"]
    settings = _module_settings(case, dim)
    return _run(case, BLOCKS[settings.release](dim, settings), _channels_first(case, settings))


@adapter("msvmamba", r"\.py (Backbone_|MM_)VSSM\b")
@torch.no_grad()
def _dense(case: Case) -> dict[str, Tensor]:
    settings = msvmamba_settings(case)
    backbone = MSVMamba(settings, out_indices=case.built_with.get("out_indices", (0, 1, 2, 3)))
    place(backbone.eval(), case.state_dict())
    (image,) = case.inputs().values()
    return dict(zip(case.meta["outputs"], backbone(image), strict=False))


@adapter("msvmamba", r"vmamba\.py VSSM\b")
@torch.no_grad()
def _classifier(case: Case) -> dict[str, Tensor]:
    classes = case.built_with.get("num_classes", 1000)
    network = MSVMambaClassifier(msvmamba_settings(case), num_classes=classes)
    place(network.eval(), case.state_dict())
    (image,) = case.inputs().values()
    maps = network.walk(image)
    features = network.norm(maps[-1]).mean((2, 3))
    stages = {f"stage{index}": m for index, m in enumerate(maps, 1)}
    logits = network.forward_head(features)
    return {"last": maps[-1], "features": features, "logits": logits, **stages}
