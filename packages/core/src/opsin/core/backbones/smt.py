"""SMT: Scale-Aware Modulation Meet Transformer (arXiv 2307.08579, ICCV 2023; code AFeng-x/SMT, MIT).

A hybrid backbone that goes from local to global with depth: stages 1 and 2 modulate each pixel by depth-wise
convolutions of several sizes, stage 4 attends to all pixels, and the blocks of stage 3 alternate. Image
(N, 3, H, W) to maps of strides 4, 8, 16, 32 and widths `embed_dims`. Any size from 32 on goes through; the
stem floors, the later embeddings round up. Attention is quadratic in the pixels at strides 16 and 32.

What a naive reading gets wrong: the heads of the modulation are interleaved, so that each group of the
convolution after them sees one channel of every head; the perceptron's depth-wise convolution has a
shortcut of its own, `GELU(y + dwconv(y))`; each stage ends in a norm that the next stage reads through;
epsilon is 1e-6 in blocks and stage norms, 1e-5 in embeddings.

Maps travel in the channels-last memory format; (N, H, W, C) inside blocks is a view.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo
from opsin.core.backbones.cases import (
    map_size,
    named_maps,
    only_input,
    only_output,
    run_classifier,
    run_module,
    set_attention_scale,
)
from opsin.core.backbones.numbered_stages import STRIDES, NumberedStages, stage_settings
from opsin.core.errors import UserError
from opsin.core.layers.conv_norm import fold_conv
from opsin.core.layers.depthwise_conv import DepthwiseConv
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.layers.weight_init import init_conv_fan_out, init_linear
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, backbone_of, place
from opsin.registry import MODELS

EPS = 1e-6
EMBEDDING_EPS = 1e-5


def _arch(
    embed_dims: Sequence[int], depths: Sequence[int], mlp_ratios: Sequence[int], stem: int
) -> dict[str, Any]:
    return {
        "embed_dims": embed_dims,
        "depths": depths,
        "mlp_ratios": mlp_ratios,
        "ca_num_heads": (4, 4, 4, -1),
        "sa_num_heads": (-1, -1, 8, 16),
        "ca_attentions": (1, 1, 1, 0),
        "head_conv": stem,
    }


ARCHS: dict[str, dict[str, Any]] = {
    "tiny": _arch((64, 128, 256, 512), (2, 2, 8, 1), (4, 4, 4, 2), stem=3),
    "small": _arch((64, 128, 256, 512), (3, 4, 18, 2), (4, 4, 4, 2), stem=3),
    "base": _arch((64, 128, 256, 512), (4, 6, 28, 2), (8, 6, 4, 2), stem=7),
    "large": _arch((96, 192, 384, 768), (4, 6, 28, 4), (8, 6, 4, 2), stem=7),
}


@MODELS.register_module()
class ScaleAwareModulation(nn.Module):
    """A map modulated by its surroundings at several scales: `proj(modulator(x) * v(x))`.

    Multi-head mixed convolution: the channels of `s(x)` are split into heads, head i passes a depth-wise
    convolution of side 3 + 2i. Scale-aware aggregation: groups of one channel of every head mix in the 1x1
    convolution `proj0`, then `proj1` mixes all of them. The cost is linear in pixels.

    Args:
        dim: channels C.
        num_heads: heads n, which is how many scales there are; divides C.
        expand_ratio: width between `proj0` and `proj1` over C.
        qkv_bias: whether `v` and `s` have a bias.

    Raises:
        UserError: if `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int = 4, *, expand_ratio: int = 2, qkv_bias: bool = True) -> None:
        super().__init__()
        width = _head_width(dim, num_heads)
        self.num_heads = num_heads
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.s = nn.Linear(dim, dim, bias=qkv_bias)
        for head in range(num_heads):
            scale = nn.Conv2d(width, width, 3 + 2 * head, padding=1 + head, groups=width)
            self.add_module(f"local_conv_{head + 1}", scale)
        self.proj0 = nn.Conv2d(dim, expand_ratio * dim, 1, groups=width)
        self.bn = nn.BatchNorm2d(expand_ratio * dim)
        self.act = nn.GELU()
        self.proj1 = nn.Conv2d(expand_ratio * dim, dim, 1)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        return self.proj(self.modulator(x).permute(0, 2, 3, 1) * self.v(x))

    def modulator(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to what the values are multiplied by, (N, C, H, W)."""
        heads = self.s(x).permute(0, 3, 1, 2).chunk(self.num_heads, dim=1)
        scales = [scale(head) for scale, head in zip(self.scales(), heads, strict=True)]
        groups = torch.stack(scales, dim=2).flatten(1, 2)  # channel g of head i becomes g * n + i
        # grouped 1x1 convolutions are slow channels-last
        return self.proj1(self.act(self.bn(self.proj0(groups.contiguous()))))

    def scales(self) -> list[nn.Conv2d]:
        """The depth-wise convolution of every head, the smallest kernel first."""
        return [self.get_submodule(f"local_conv_{head + 1}") for head in range(self.num_heads)]  # type: ignore[misc] # __init__ made them

    def fused(self) -> FusedModulation:
        """The same function in evaluation with fewer, denser operations."""
        return FusedModulation(self)


class FusedModulation(nn.Module):
    """Scale-aware modulation in evaluation: all scales in one convolution, no interleaving.

    Smaller kernels are padded by zeros to the largest. `proj0`, with the batch norm folded in, becomes a full
    matrix whose zeros stand where a group does not see a channel; on a CPU that is faster than the groups.
    """

    @torch.no_grad()
    def __init__(self, module: ScaleAwareModulation) -> None:
        super().__init__()
        self.s, self.v, self.act, self.proj = module.s, module.v, module.act, module.proj
        self.scales = _as_one_convolution(module.scales())
        self.expand = _without_groups(fold_conv(module.proj0, module.bn))
        self.contract = nn.Linear(module.proj1.in_channels, module.proj1.out_channels)
        self.contract.load_state_dict({"weight": module.proj1.weight.flatten(1), "bias": module.proj1.bias})

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        y = self.scales(self.s(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj(self.contract(self.act(self.expand(y))) * self.v(x))


def _as_one_convolution(scales: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """Depth-wise convolutions of parts of the channels as one of all; in evaluation, with gradients off."""
    side = max(scale.kernel_size[0] for scale in scales)
    channels = sum(scale.out_channels for scale in scales)
    whole = nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels).to(scales[0].weight)
    margins = [(side - scale.kernel_size[0]) // 2 for scale in scales]
    padded = [F.pad(scale.weight, [margin] * 4) for scale, margin in zip(scales, margins, strict=True)]
    biases = [scale.bias for scale in scales if scale.bias is not None]
    whole.load_state_dict({"weight": torch.cat(padded), "bias": torch.cat(biases)})
    return whole


def _without_groups(conv: nn.Conv2d) -> nn.Linear:
    """A grouped 1x1 convolution of interleaved heads as a linear layer on heads one after the other."""
    rows = conv.out_channels // conv.groups
    sees = torch.eye(conv.groups).to(conv.weight).repeat_interleave(rows, dim=0)
    linear = nn.Linear(conv.in_channels, conv.out_channels).to(conv.weight)
    # rows, heads, groups: heads of a row are the weights, its group is the only one that it sees
    weight = conv.weight[:, :, 0] * sees[:, None]
    linear.load_state_dict({"weight": weight.flatten(1), "bias": conv.bias})
    return linear


class SelfAttention(nn.Module):
    """Attention to all pixels, plus a depth-wise 3x3 convolution of the values.

    Args:
        dim: channels C.
        num_heads: heads; divides C.
        qkv_bias: whether `q` and `kv` have a bias.

    Raises:
        UserError: if `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.head_width = _head_width(dim, num_heads)
        self.scale: float | None = None  # of the logits; None is head_width ** -0.5
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.local_conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        k, v = self.kv(x).chunk(2, dim=-1)
        q, keys, values = (self._heads(part) for part in (self.q(x), k, v))
        attended = F.scaled_dot_product_attention(q, keys, values, scale=self.scale)
        attended = attended.transpose(1, 2).reshape(x.shape)
        local = self.local_conv(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj(attended + local)

    def _heads(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to (N, heads, H * W, C / heads)."""
        return x.flatten(1, 2).unflatten(2, (-1, self.head_width)).transpose(1, 2)


def _head_width(dim: int, num_heads: int) -> int:
    if num_heads < 1 or dim % num_heads:
        raise UserError(f"{num_heads} heads do not divide a width of {dim}")
    return dim // num_heads


class Mlp(nn.Module):
    """Linear, depth-wise 3x3 added to what it reads, GELU, linear.

    Args:
        dim: channels C.
        hidden_dim: channels between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = DepthwiseConv(hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        y = self.fc1(x).permute(0, 3, 1, 2)
        y = self.act(y + self.dwconv(y))
        return self.fc2(y.permute(0, 2, 3, 1))


class Block(nn.Module):
    """Modulation or attention, then perceptron, each after a norm and added to what came in.

    Args:
        dim: channels C.
        attn: `ScaleAwareModulation` or `SelfAttention` of that width.
        mlp_ratio: the perceptron's width over C.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
        layer_scale_init_value: what `gamma_1` and `gamma_2` (C,) begin with; 0 leaves layer scale out.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp_ratio: float = 4.0,
        *,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        scaled = layer_scale_init_value > 0
        self.gamma_1 = nn.Parameter(torch.full((dim,), layer_scale_init_value)) if scaled else None
        self.gamma_2 = nn.Parameter(torch.full((dim,), layer_scale_init_value)) if scaled else None
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(_scaled(self.attn(self.norm1(x)), self.gamma_1))
        x = x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.gamma_2))
        return x.permute(0, 3, 1, 2)


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else x * gamma


class Stem(nn.Module):
    """A strided convolution, batch norm, ReLU, a 2x2 convolution of stride 2, layer norm: stride 4.

    Args:
        in_channels: channels of the image.
        dim: channels out, C.
        kernel_size: side of the first kernel; padding is half of it.
    """

    def __init__(self, in_channels: int, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, dim, kernel_size, 2, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
            nn.Conv2d(dim, dim, 2, 2),
        )
        self.norm = LayerNorm2d(dim, eps=EMBEDDING_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, ⌊⌈H / 2⌉ / 2⌋, ⌊⌈W / 2⌉ / 2⌋)."""
        return self.norm(self.conv(x))

    def fused(self) -> nn.Sequential:
        """The same without the batch norm, for evaluation."""
        conv, norm, act, second = self.conv
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        return nn.Sequential(fold_conv(conv, norm), act, second, self.norm)


class PatchEmbed(nn.Module):
    """A 3x3 convolution of stride 2 and its layer norm.

    Args:
        in_channels: channels in.
        dim: channels out, C.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, 3, 2, padding=1)
        self.norm = LayerNorm2d(dim, eps=EMBEDDING_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C, ⌈H / 2⌉, ⌈W / 2⌉)."""
        return self.norm(self.proj(x))


def _token_mixer(
    settings: Mapping[str, Any], stage: int, block: int, *, expand_ratio: int, qkv_bias: bool
) -> nn.Module:
    """Modulation where the stage has it, but attention in every second block of the third stage."""
    dim = settings["embed_dims"][stage]
    if settings["ca_attentions"][stage] and not (stage == 2 and block % 2):
        heads = settings["ca_num_heads"][stage]
        return ScaleAwareModulation(dim, heads, expand_ratio=expand_ratio, qkv_bias=qkv_bias)
    return SelfAttention(dim, settings["sa_num_heads"][stage], qkv_bias=qkv_bias)


def _stages(
    settings: Mapping[str, Any],
    *,
    in_channels: int,
    expand_ratio: int,
    qkv_bias: bool,
    drop_path_rate: float,
    layer_scale_init_value: float,
) -> Iterator[tuple[nn.Module, list[Block], LayerNorm2d]]:
    """Embedding, blocks and norm of every stage; the drop path rate grows over all blocks."""
    dims = settings["embed_dims"]
    for stage, rates in enumerate(drop_path_rates(drop_path_rate, settings["depths"])):
        dim = dims[stage]
        blocks = [
            Block(
                dim,
                _token_mixer(settings, stage, block, expand_ratio=expand_ratio, qkv_bias=qkv_bias),
                settings["mlp_ratios"][stage],
                drop_path_rate=rate,
                layer_scale_init_value=layer_scale_init_value,
            )
            for block, rate in enumerate(rates)
        ]
        stem = Stem(in_channels, dim, settings["head_conv"]) if stage == 0 else None
        yield stem or PatchEmbed(dims[stage - 1], dim), blocks, LayerNorm2d(dim, eps=EPS)


def _init_weights(module: nn.Module) -> None:
    init_linear(module)
    init_conv_fan_out(module)


@MODELS.register_module()
class SMT(NumberedStages, Backbone):
    """The feature extractor of the authors' dense code; stages after the last output are not built.

    Other than theirs, it has stochastic depth where they drop single values, and layer scale if asked for.

    Args:
        arch: 'tiny', 'small', 'base', 'large', or dict(embed_dims=…, depths=…, mlp_ratios=…, ca_num_heads=…,
            sa_num_heads=…, ca_attentions=…, head_conv=…): four numbers each, but one kernel size for the
            stem. `ca_attentions` says which stages modulate; where they do, every second block of the third
            attends.
        in_channels: channels of the image.
        expand_ratio: width of the modulation's aggregation over the stage's.
        qkv_bias: whether queries, keys, values and what is modulated have a bias.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value: what every gamma begins with (the large model: 1e-4); 0 for no layer scale.
        out_indices: stages that give a map.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch`, heads that do not divide a width, or `out_indices` outside 0..3.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        in_channels: int = 3,
        expand_ratio: int = 2,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        settings = stage_settings("SMT", ARCHS, arch)
        self.check_out_indices(len(STRIDES))
        self.depths = tuple(settings["depths"])
        stages = _stages(
            settings,
            in_channels=in_channels,
            expand_ratio=expand_ratio,
            qkv_bias=qkv_bias,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value,
        )
        self.add_stages(islice(stages, self.out_indices[-1] + 1))
        dims = settings["embed_dims"]
        self.feature_info = tuple(FeatureInfo(dims[index], STRIDES[index]) for index in self.out_indices)
        self.apply(_init_weights)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        maps = enumerate(self.normed_maps(x.contiguous(memory_format=torch.channels_last)))
        return tuple(m for index, m in maps if index in self.out_indices)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's, detector's or segmentor's file to those of this backbone.

        Heads and stages beyond `out_indices` are dropped. The attention's `local_conv`, which the authors'
        dense code calls `dw_conv` and therefore leaves at random when it reads a classifier's file, is taken
        under either name.
        """
        return self.of_classifier(_classifier_names(tensors))


@MODELS.register_module()
class SMTClassifier(NumberedStages, Classifier):
    """The published classifier: four stages, mean over the last normed map, linear head.

    Args:
        arch, in_channels, expand_ratio, qkv_bias, drop_path_rate, layer_scale_init_value: as for `SMT`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch`, or heads that do not divide a width.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        expand_ratio: int = 2,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        settings = stage_settings("SMT", ARCHS, arch)
        self.depths = tuple(settings["depths"])
        self.num_features = settings["embed_dims"][-1]
        stages = _stages(
            settings,
            in_channels=in_channels,
            expand_ratio=expand_ratio,
            qkv_bias=qkv_bias,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value,
        )
        self.add_stages(stages)
        self.apply(_init_weights)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean (N, num_features) of the last normed map."""
        *_, last = self.normed_maps(x.contiguous(memory_format=torch.channels_last))
        return last.mean((2, 3))

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file to those of this network."""
        return _classifier_names(tensors)


def _classifier_names(tensors: Tensors) -> Tensors:
    """The tensors of a model or its backbone under the names of the authors' classifier."""
    return {
        re.sub(r"(^|\.)dw_conv\.", r"\1local_conv.", name): tensor
        for name, tensor in backbone_of(tensors, "head.").items()
    }


VARIANTS: dict[str, dict[str, Any]] = {f"smt_{arch}": {"arch": arch} for arch in ARCHS}
# the network of the published large files, trained with layer scale
VARIANTS["smt_large_22k"] = {"arch": "large", "layer_scale_init_value": 1e-4}
register_models("smt", SMTClassifier, VARIANTS, backbone=SMT)


def _case_arch(case: Case, mlp_ratios: Sequence[int]) -> dict[str, Any]:
    """The case's architecture: its arguments, those of the named variant, or the class's own defaults.

    Arguments for fewer than four stages are filled up, for stages that are not built then.
    """
    variant = re.search(r"smt_([tsbl])", case.source)
    names = {name[0]: name for name in ARCHS}
    named = ARCHS[names[variant[1]]] if variant else {**ARCHS["tiny"], "mlp_ratios": mlp_ratios}
    given = {key: case.built_with.get(key, default) for key, default in named.items()}
    return {
        key: value if isinstance(value, int) else (*value, *named[key][len(value) :])
        for key, value in given.items()
    }


def _case_settings(case: Case) -> dict[str, Any]:
    """What classifier and backbone share besides the architecture."""
    built_with = case.built_with
    scaled = built_with.get("use_layerscale", False)
    return {
        "expand_ratio": built_with.get("expand_ratio", 2),
        "qkv_bias": built_with.get("qkv_bias", "smt_" in case.source),
        "layer_scale_init_value": built_with.get("layerscale_value", 1e-4) if scaled else 0.0,
    }


def _run_on_map(module: nn.Module, case: Case, *, channels_first: bool = False) -> dict[str, Tensor]:
    """A module of maps on the tokens (N, H * W, C) of a case."""
    place(module.eval(), _classifier_names(case.state_dict()))
    tokens = next(iter(case.inputs().values()))
    x = tokens.unflatten(1, map_size(case, tokens.shape[1]))
    if channels_first:
        return only_output(case, module(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2))
    return only_output(case, module(x).flatten(1, 2))


def _mixer(case: Case) -> nn.Module:
    built_with = case.built_with
    dim, qkv_bias = built_with["dim"], built_with.get("qkv_bias", False)
    if built_with.get("ca_attention", 1):
        heads, expand_ratio = built_with.get("ca_num_heads", 4), built_with.get("expand_ratio", 2)
        return ScaleAwareModulation(dim, heads, expand_ratio=expand_ratio, qkv_bias=qkv_bias)
    attention = SelfAttention(dim, built_with.get("sa_num_heads", 8), qkv_bias=qkv_bias)
    set_attention_scale(attention, case, SelfAttention)
    return attention


@adapter("smt", r"smt\.py Attention\b")
@torch.no_grad()
def _run_attention(case: Case) -> dict[str, Tensor]:
    mixer = _mixer(case)
    outputs = _run_on_map(mixer, case)
    if isinstance(mixer, ScaleAwareModulation):
        tokens = next(iter(case.inputs().values()))
        outputs["modulator"] = mixer.modulator(tokens.unflatten(1, map_size(case, tokens.shape[1])))
    return outputs


@adapter("smt", r"smt\.py Block\b")
@torch.no_grad()
def _run_block(case: Case) -> dict[str, Tensor]:
    block = Block(
        case.built_with["dim"],
        _mixer(case),
        case.built_with.get("mlp_ratio", 4.0),
        layer_scale_init_value=_case_settings(case)["layer_scale_init_value"],
    )
    return _run_on_map(block, case, channels_first=True)


@adapter("smt", r"smt\.py Mlp\b")
@torch.no_grad()
def _run_mlp(case: Case) -> dict[str, Tensor]:
    dim = case.built_with["in_features"]
    return _run_on_map(Mlp(dim, case.built_with.get("hidden_features") or dim), case)


@adapter("smt", r"smt\.py (OverlapPatchEmbed|Head)\b")
@torch.no_grad()
def _run_embedding(case: Case) -> dict[str, Tensor]:
    """What opens a stage, on a map; the authors' give tokens."""
    dim, in_channels, kernel_size, _ = case.shapes.get("proj.weight") or case.shapes["conv.0.weight"]
    embed = (
        PatchEmbed(in_channels, dim) if "proj.weight" in case.shapes else Stem(in_channels, dim, kernel_size)
    )
    return {name: x.flatten(2).transpose(1, 2) for name, x in run_module(embed, case).items()}


@adapter("smt", r"SMT\S* models/smt\.py (SMT|smt_)")
def _run_classifier(case: Case) -> dict[str, Tensor]:
    model = SMTClassifier(
        _case_arch(case, (8, 6, 4, 2)),
        num_classes=case.built_with.get("num_classes", 1000),
        **_case_settings(case),
    )
    set_attention_scale(model, case, SelfAttention)
    return run_classifier(model, case)


@adapter("smt", r"(det|seg)\S*/smt\.py (SMT|smt_)")
@torch.no_grad()
def _run_dense(case: Case) -> dict[str, Tensor]:
    mlp_ratios = (4, 4, 4, 4) if "mmdet" in case.source else (4, 4, 4, 2)
    stages = case.built_with.get("num_stages", len(STRIDES))
    outputs = case.built_with.get("out_indices", range(stages))
    # the authors build every stage, whatever leaves the network
    model = SMT(_case_arch(case, mlp_ratios), out_indices=range(stages), **_case_settings(case)).eval()
    place(model, case.state_dict())
    set_attention_scale(model, case, SelfAttention)
    maps = model(only_input(case))
    return named_maps(case, [maps[index] for index in outputs], outputs)
