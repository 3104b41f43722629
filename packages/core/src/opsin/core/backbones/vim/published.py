"""How the parity cases of system `vim` are run: one function a published class.

The published names of tensors are this package's own; what differs is how the authors' constructors are
called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from opsin.core.backbones.cases import only_input, run_classifier
from opsin.core.backbones.vim.mixer import BiMamba
from opsin.core.backbones.vim.model import VisionMamba, VisionMambaClassifier
from opsin.core.backbones.vim.settings import ARCHS
from opsin.core.layers.simple_feature_pyramid import SimpleFeaturePyramid
from opsin.core.ops.selective_scan import selective_scan
from opsin.core.parity import Case, adapter
from opsin.core.published import place

# Arguments of the authors' constructors and what they are called here.
_SETTINGS = {
    "img_size": "img_size",
    "patch_size": "patch_size",
    "stride": "stride",
    "embed_dim": "embed_dim",
    "depth": "depth",
    "d_state": "d_state",
    "channels": "in_channels",
    "drop_rate": "drop_rate",
    "drop_path_rate": "drop_path_rate",
    "rms_norm": "rms_norm",
    "norm_epsilon": "norm_eps",
    "if_abs_pos_embed": "abs_pos_embed",
    "if_rope": "rope",
    "if_rope_residual": "rope_residual",
    "pt_hw_seq_len": "rope_side",
    "if_bidirectional": "paired_layers",
    "flip_img_sequences_ratio": "flip_ratio",
    "bimamba_type": "bimamba_type",
    "if_divide_out": "if_divide_out",
    "init_layer_scale": "init_layer_scale",
}
_MIXER = ("d_conv", "expand", "dt_rank", "conv_bias", "bias")


def vim_settings(published: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings for the arguments of the authors' VisionMamba, their defaults included."""
    defaults = {"stride": 16, "embed_dim": 192, "depth": 24}
    settings = {
        ours: published[theirs] for theirs, ours in _SETTINGS.items() if published.get(theirs) is not None
    }
    if isinstance(settings.get("img_size"), list):
        settings["img_size"] = tuple(settings["img_size"])
    if published.get("if_bimamba"):
        settings["bimamba_type"] = "v1"
    mixer = {name: value for name, value in (published.get("ssm_cfg") or {}).items() if name in _MIXER}
    return {**defaults, **settings, "mixer": mixer}


def _class_token(published: Mapping[str, Any]) -> str:
    if not published.get("if_cls_token", True):
        return "none"
    if published.get("use_double_cls_token"):
        return "both"
    if published.get("use_middle_cls_token", True):
        return "middle"
    return "random" if published.get("if_random_cls_token_position") else "first"


def _classify(case: Case, published: Mapping[str, Any]) -> dict[str, Tensor]:
    network = VisionMambaClassifier(
        {},
        num_classes=published.get("num_classes", 1000),
        class_token=_class_token(published),  # type: ignore[arg-type]  # one of the names
        pool=published.get("final_pool_type", "none"),
        shuffle_tokens=bool(published.get("if_random_token_rank")),
        **vim_settings(published),
    )
    return run_classifier(network, case)


@adapter("vim", r"models_mamba\.py VisionMamba\b")
def _vision_mamba(case: Case) -> dict[str, Tensor]:
    return _classify(case, case.built_with)


@adapter("vim", r"models_mamba\.py vim_")
def _factory(case: Case) -> dict[str, Tensor]:
    """A factory function: its name holds what its arguments do not."""
    name = case.source.rpartition(" ")[2]
    arch = next((ARCHS[arch] for arch in ARCHS if f"vim_{arch}_" in name), {})
    stride = re.search(r"_stride(\d+)_", name)
    named = {"stride": int(stride[1]) if stride else 16, "final_pool_type": "mean", "patch_size": 16}
    return _classify(case, {**arch, **named, **case.built_with})


@adapter("vim", r"modules/mamba_simple\.py Mamba\b")
def _mixer(case: Case) -> dict[str, Tensor]:
    built, tensors = case.built_with, case.state_dict()
    sizes = {name: built[name] for name in ("d_state", "init_layer_scale", *_MIXER) if name in built}
    kind = built.get("bimamba_type", "none")
    if not built.get("use_fast_path", True):  # their slow path goes one way, whatever the type
        kind = "none"
        tensors = {name: tensor for name, tensor in tensors.items() if not re.search(r"_b(_log|$|\.)", name)}
    mixer = BiMamba(
        built["d_model"], bimamba_type=kind, if_divide_out=built.get("if_divide_out", False), **sizes
    )
    place(mixer, tensors)
    return {"out": mixer.eval()(only_input(case))}


@adapter("vim", r"seg/backbone/vim\.py VisionMambaSeg")
def _segmentation(case: Case) -> dict[str, Tensor]:
    """Their call hands `in_chans` on as the states and `num_classes` as the image's channels."""
    built = case.built_with
    swapped = {"d_state": built.get("in_chans", 3), "channels": built.get("num_classes", 80)}
    backbone = _dense(
        {**built, **swapped}, built.get("out_indices", (3, 5, 7, 11)), built.get("if_fpn", True)
    )
    place(backbone, case.state_dict())
    return _named(case, backbone.eval()(only_input(case)))


def _dense(published: Mapping[str, Any], out_indices: Any, fpn: bool) -> VisionMamba:
    return VisionMamba(
        {},
        out_indices=out_indices,
        fpn=fpn,
        use_residual_as_feature=published.get("use_residual_as_feature", False),
        last_layer_process=published.get("last_layer_process", "none"),
        **vim_settings(published),
    )


def _named(case: Case, maps: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Maps under the names of the case's outputs, which are in their order."""
    return dict(zip(case.meta["outputs"], maps, strict=False))


def _detection_backbone(published: Mapping[str, Any]) -> VisionMamba:
    """Their detector's backbone: the last block's map alone, at the grid's own stride."""
    kept = {**published, "channels": published.get("in_chans", 3), "use_residual_as_feature": True}
    return _dense(kept, (kept.get("depth", 24) - 1,), fpn=False)


@adapter("vim", r"backbone/vim\.py VisionMambaDet")
def _detection(case: Case) -> dict[str, Tensor]:
    backbone = _detection_backbone(case.built_with)
    place(backbone, case.state_dict())
    return _named(case, backbone.eval()(only_input(case)))


@adapter("vim", r"SimpleFeaturePyramid")
def _pyramid(case: Case) -> dict[str, Tensor]:
    built = case.built_with
    net = built.get("net", {key: value for key, value in built.items() if key in _SETTINGS})
    backbone = _detection_backbone(net)
    neck = SimpleFeaturePyramid(
        net.get("embed_dim", 192),
        built.get("out_channels", 256),
        scales=built.get("scale_factors", (4.0, 2.0, 1.0, 0.5)),
        extra_levels=int(bool(built.get("top_block", True))),
        stride=net.get("patch_size", 16),
    )
    tensors = case.state_dict()
    place(backbone, {name: tensor for name, tensor in tensors.items() if name.startswith("net.")})
    place(neck, {name: tensor for name, tensor in tensors.items() if name.startswith("simfp_")})
    detector = nn.Sequential(backbone, neck).eval()
    return _named(case, detector(only_input(case)))


@adapter("vim", r"selective_scan_(ref|fn)")
def _selective_scan(case: Case) -> dict[str, Tensor]:
    """The scan and its gradients of sum(out * dout)."""
    inputs = case.inputs()
    dout = inputs.pop("dout", None)
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    soft = bool(case.built_with.get("delta_softplus", False))
    out, state = selective_scan(**tensors, delta_softplus=soft, return_last_state=True)
    results = {"out": out, "last_state": state}
    if dout is not None:
        (out * dout).sum().backward()
        results |= {f"d{name}": tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
    return results
