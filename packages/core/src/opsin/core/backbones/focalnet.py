"""FocalNet: Focal Modulation Networks (arXiv 2203.11926, NeurIPS 2022; code microsoft/FocalNet, MIT).

A hierarchical backbone without attention, windows or heads. A stack of depth-wise convolutions gathers
context from near to far, gates at every position weigh its levels and their global mean, and the sum, after a
1x1 convolution, multiplies the query. Image (N, 3, H, W) to maps of strides 4, 8, 16, 32 with widths
`embed_dim` times 1, 2, 4, 8; any size goes through. The isotropic forms are one stage at stride 16.

What a naive reading gets wrong: level l reads the activated output of level l - 1; the global level is the
mean of the last level, activated once more; gates are plain linear outputs, no softmax; post-norm comes
before layer scale. The two forms embed patches differently: the classifier drops rows and columns that fill
no whole patch, the dense form pads with zeros on the right and below, and with overlapping embedding the
classifier's stem pads its convolution by 2, the dense one by 3 (`stem_padding`). The dense form here takes
every switch of the classifier; the authors' lacks post-norm, `ln` in the modulation, and the division by the
levels.

Tokens travel as (N, H, W, C), of which a channels-last map is a view.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo
from opsin.core.backbones.cases import (
    map_size,
    only_input,
    only_output,
    run_backbone,
    run_classifier,
    run_module,
)
from opsin.core.backbones.settings import one_a_stage, resolve_settings
from opsin.core.errors import UserError
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.stage import Stage
from opsin.core.layers.weight_init import init_linear
from opsin.core.layers.windows import pad_to_multiple
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, backbone_of, fit, place
from opsin.registry import MODELS


@dataclass(frozen=True)
class Arch:
    """What makes a variant; levels and windows are one number for all stages or one a stage.

    Raises:
        UserError: for a window that is even (it would change the size of the map), no level, or a number of
            levels or windows that is not that of the stages.
    """

    depths: Sequence[int]
    embed_dim: int
    patch_size: int = 4
    focal_levels: int | Sequence[int] = 2
    focal_windows: int | Sequence[int] = 3
    mlp_ratio: float = 4.0
    patch_norm: bool = True
    use_conv_embed: bool = False
    use_layerscale: bool = False
    layerscale_value: float = 1e-4
    use_postln: bool = False
    use_postln_in_modulation: bool = False
    normalize_modulator: bool = False

    def __post_init__(self) -> None:
        if any(level < 1 for level in self.levels):
            raise UserError(f"focal_levels {self.focal_levels} must be 1 or more")
        if any(window % 2 == 0 for window in self.windows):
            raise UserError(f"focal_windows {self.focal_windows} must be odd")

    @property
    def levels(self) -> tuple[int, ...]:
        """Focal levels of each stage."""
        return one_a_stage("focal_levels of FocalNet", self.focal_levels, len(self.depths))

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of the first level's kernel in each stage; every further level adds 2."""
        return one_a_stage("focal_windows of FocalNet", self.focal_windows, len(self.depths))

    @property
    def dims(self) -> tuple[int, ...]:
        """Width of each stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each stage; the overlapping stem has stride 4 whatever `patch_size` says."""
        first = 4 if self.use_conv_embed else self.patch_size
        return tuple(first * 2**stage for stage in range(len(self.depths)))


_LARGE = {"use_conv_embed": True, "use_postln": True, "use_layerscale": True}
_HUGE = {**_LARGE, "use_postln_in_modulation": True}
_DEEP = (2, 2, 18, 2)
ARCHS: dict[str, Arch] = {
    "tiny_srf": Arch((2, 2, 6, 2), 96),
    "tiny_lrf": Arch((2, 2, 6, 2), 96, focal_levels=3),
    "small_srf": Arch(_DEEP, 96),
    "small_lrf": Arch(_DEEP, 96, focal_levels=3),
    "base_srf": Arch(_DEEP, 128),
    "base_lrf": Arch(_DEEP, 128, focal_levels=3),
    "large_fl3": Arch(_DEEP, 192, focal_levels=3, focal_windows=5, **_LARGE),
    "large_fl4": Arch(_DEEP, 192, focal_levels=4, normalize_modulator=True, **_LARGE),
    "xlarge_fl3": Arch(_DEEP, 256, focal_levels=3, focal_windows=5, **_LARGE),
    "xlarge_fl4": Arch(_DEEP, 256, focal_levels=4, **_LARGE),
    "huge_fl3": Arch(_DEEP, 352, focal_levels=3, **_HUGE),
    "huge_fl4": Arch(_DEEP, 352, focal_levels=4, **_HUGE),
    "tiny_iso": Arch((12,), 192, patch_size=16, focal_levels=3),
    "small_iso": Arch((12,), 384, patch_size=16, focal_levels=3),
    "base_iso": Arch((12,), 768, patch_size=16, focal_levels=3, use_layerscale=True, use_postln=True),
}


class ContextConv(nn.Conv2d):
    """A depth-wise convolution without bias that keeps the map's size, in the layout that suits it.

    Measured on one CPU core: with up to 32768 weights channels-last is up to three times as fast backwards,
    with more it is several times as slow; forwards it falls behind from 11x11 on.
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), channels-last in memory, to the same."""
        side = self.kernel_size[0]
        if self.weight.numel() <= 2**15 and (side <= 9 or x.requires_grad):
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


@MODELS.register_module()
class FocalModulation(nn.Module):
    """Focal modulation over a map (N, H, W, C): proj(query * modulator).

    Args:
        dim: width C.
        focal_window: side of the first level's kernel, odd.
        focal_level: number L of levels, without the global one.
        focal_factor: what each level's kernel is larger by.
        bias: whether `f` and `h` have a bias.
        use_postln_in_modulation: a LayerNorm `ln` before `proj`.
        normalize_modulator: divide the gathered context by L + 1.
    """

    def __init__(
        self,
        dim: int,
        focal_window: int,
        focal_level: int,
        *,
        focal_factor: int = 2,
        bias: bool = True,
        use_postln_in_modulation: bool = False,
        normalize_modulator: bool = False,
    ) -> None:
        super().__init__()
        self.parts = (dim, dim, focal_level + 1)  # rows of f: query, context, gates
        self.divisor = focal_level + 1 if normalize_modulator else 1
        self.f = nn.Linear(dim, sum(self.parts), bias=bias)
        self.h = nn.Conv2d(dim, dim, 1, bias=bias)
        self.proj = nn.Linear(dim, dim)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(ContextConv(dim, focal_window + focal_factor * level), nn.GELU())
            for level in range(focal_level)
        )
        self.ln = nn.LayerNorm(dim) if use_postln_in_modulation else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        query, context, gates = self.split(x)
        y = query * self.modulator(context, gates)
        return self.proj(y if self.ln is None else self.ln(y))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, H, W, C) to query and context of the same shape and gates (N, H, W, L + 1)."""
        # three products write three dense maps; cutting up the result of one would need copies
        weights = self.f.weight.split(self.parts)
        biases = (None,) * 3 if self.f.bias is None else self.f.bias.split(self.parts)
        query, context, gates = (F.linear(x, w, b) for w, b in zip(weights, biases, strict=True))
        return query, context, gates

    def modulator(self, context: Tensor, gates: Tensor) -> Tensor:
        """What the query (N, H, W, C) is multiplied by, from context (N, H, W, C) and gates."""
        *level_gates, global_gate = gates.split(1, dim=-1)
        gathered: Tensor | None = None
        for layer, gate in zip(self.focal_layers, level_gates, strict=True):
            context = layer(context.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            gathered = context * gate if gathered is None else torch.addcmul(gathered, context, gate)
        mean = F.gelu(context.mean((1, 2), keepdim=True))
        gathered = mean * global_gate if gathered is None else torch.addcmul(gathered, mean, global_gate)
        if self.divisor != 1:
            gathered = gathered / self.divisor
        return F.linear(gathered, self.h.weight.flatten(1), self.h.bias)


class Block(nn.Module):
    """Focal modulation and a perceptron: two residual branches, the norm before each (post-norm: after it).

    Args:
        dim: width C.
        focal_level: levels of the modulation.
        focal_window: side of its first kernel.
        arch: switches and `mlp_ratio`.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
    """

    def __init__(
        self, dim: int, focal_level: int, focal_window: int, arch: Arch, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.use_postln = arch.use_postln
        self.norm1 = nn.LayerNorm(dim)
        self.modulation = FocalModulation(
            dim,
            focal_window,
            focal_level,
            use_postln_in_modulation=arch.use_postln_in_modulation,
            normalize_modulator=arch.normalize_modulator,
        )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * arch.mlp_ratio))
        self.gamma_1 = self.gamma_2 = None
        if arch.use_layerscale:
            self.gamma_1, self.gamma_2 = (
                nn.Parameter(torch.full((dim,), arch.layerscale_value)) for _ in range(2)
            )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        x = x + self._branch(x, self.norm1, self.modulation, self.gamma_1)
        return x + self._branch(x, self.norm2, self.mlp, self.gamma_2)

    def _branch(self, x: Tensor, norm: nn.Module, mix: nn.Module, gamma: Tensor | None) -> Tensor:
        y = norm(mix(x)) if self.use_postln else mix(norm(x))
        return self.drop_path(y if gamma is None else gamma * y)


class PatchEmbed(nn.Module):
    """Strided convolution and LayerNorm over channels: (N, H, W, C_in) to (N, H', W', C_out).

    Args:
        in_channels: C_in.
        dim: C_out.
        patch_size: side of the patches.
        kernel_size, stride, padding: of the convolution; by default it cuts the map into patches.
        pad: pad the map with zeros to a multiple of `patch_size` first; otherwise what fills no whole patch
            is left out.
        norm: whether there is a norm.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        patch_size: int,
        *,
        kernel_size: int | None = None,
        stride: int | None = None,
        padding: int = 0,
        pad: bool = False,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = patch_size, pad
        self.proj = nn.Conv2d(in_channels, dim, kernel_size or patch_size, stride or patch_size, padding)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C_in) to (N, H', W', C_out)."""
        if self.pad:
            x = pad_to_multiple(x, (self.patch_size, self.patch_size))
        return self.norm(self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


def _stem(arch: Arch, in_channels: int, pad: bool, padding: int) -> PatchEmbed:
    overlap: dict[str, Any] = (
        {"kernel_size": 7, "stride": 4, "padding": padding} if arch.use_conv_embed else {}
    )
    return PatchEmbed(in_channels, arch.dims[0], arch.patch_size, pad=pad, norm=arch.patch_norm, **overlap)


def _stages(arch: Arch, drop_path_rate: float, pad: bool, built: int) -> nn.ModuleList:
    """The first `built` stages; drop path rates are those of the whole network."""
    overlap: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1} if arch.use_conv_embed else {}
    stages = []
    for stage, rates in enumerate(drop_path_rates(drop_path_rate, arch.depths)[:built]):
        dim, level, window = arch.dims[stage], arch.levels[stage], arch.windows[stage]
        last = stage == built - 1
        downsample = None if last else PatchEmbed(dim, 2 * dim, 2, pad=pad, **overlap)
        stages.append(Stage((Block(dim, level, window, arch, rate) for rate in rates), downsample))
    return nn.ModuleList(stages)


def _ends_of_stages(layers: nn.ModuleList, run: Callable[..., Tensor], x: Tensor) -> Iterator[Tensor]:
    """Tokens (N, H, W, C) as each stage leaves them, from those of the stem; `run` runs a block."""
    for stage in layers:
        assert isinstance(stage, Stage)
        for block in stage.blocks:
            x = run(block, x)
        yield x
        if stage.downsample is not None:
            x = stage.downsample(x)


def _layer_depth(name: str, depths: Sequence[int]) -> tuple[int, int]:
    """Layer of a parameter and number of layers: stem, every block, then output norms and head.

    A downsampling layer learns with the block after it. The authors give no layer-wise decay; this is the
    grouping that vision transformers use.
    """
    last = sum(depths) + 1
    part, _, rest = name.partition(".")
    if part == "patch_embed":
        return 0, last + 1
    if part != "layers":
        return last, last + 1
    stage, kind, block, *_ = rest.split(".")
    before = 1 + sum(depths[: int(stage)])
    return before + (int(block) if kind == "blocks" else depths[int(stage)]), last + 1


@MODELS.register_module()
class FocalNet(Backbone):
    """The authors' feature extractor for detection and segmentation, with all the classifier's switches.

    Each output has a LayerNorm of its own, `norm0` … `norm3`; stages after the last output are not built.

    Args:
        arch: a name in `ARCHS` ('tiny_srf', …) or a mapping of the fields of `Arch`, depths and embed_dim at
            least. Dense recipes enlarge the windows: `focal_windows=9`.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        out_indices: stages that give a map; all by default.
        stem_padding: padding of the overlapping stem's 7x7 convolution (3 in the authors' dense code, 2 in
            their classifier).
        frozen_stages, with_cp, init_cfg: see `Backbone`.
        changes: fields of `Arch` that replace those of `arch`.

    Raises:
        UserError: for an unknown `arch` or setting, or `out_indices` that are no stages.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny_srf",
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] | None = None,
        stem_padding: int = 3,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        variant = resolve_settings("FocalNet", ARCHS, arch, changes)
        super().__init__(
            out_indices=range(len(variant.depths)) if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(len(variant.depths))
        self.depths = tuple(variant.depths)
        self.patch_embed = _stem(variant, in_channels, pad=True, padding=stem_padding)
        self.layers = _stages(variant, drop_path_rate, pad=True, built=self.out_indices[-1] + 1)
        for index in self.out_indices:
            self.add_module(f"norm{index}", nn.LayerNorm(variant.dims[index]))
        self.feature_info = tuple(FeatureInfo(variant.dims[i], variant.strides[i]) for i in self.out_indices)
        self.apply(init_linear)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        x = self.patch_embed(x.permute(0, 2, 3, 1).contiguous())
        return tuple(
            self.get_submodule(f"norm{index}")(tokens).permute(0, 3, 1, 2)
            for index, tokens in enumerate(_ends_of_stages(self.layers, self.run, x))
            if index in self.out_indices
        )

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (1 to 4) with the downsampling before it and the norm of its map."""
        if stage == 0:
            return [self.patch_embed]
        index = stage - 1
        if index >= len(self.layers):
            return []
        names = [f"layers.{index}.blocks"]
        names += [f"layers.{index - 1}.downsample"] if index else []
        names += [f"norm{index}"] if index in self.out_indices else []
        return [self.get_submodule(name) for name in names]

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter (stem, each block, output norms) and number of layers."""
        return _layer_depth(name.removeprefix(prefix), self.depths)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a published file to those of this backbone.

        Takes classifiers of the authors and timm, dense models, and whole detectors and segmentors. By the
        authors' rule kernels of another size are centred in zeros or cut around the centre, gates of
        levels that the file does not have are zero, and the kernels of those levels, like output norms
        that it does not have, stay as they are. Mind that added levels do change the outputs: the global
        level reads the last of them.

        Raises:
            UserError: if the file has more levels than the backbone.
        """
        own, given = self.state_dict(), _authors_names(tensors)
        _add_levels(own, given)
        for name in given.keys() & own.keys():
            if ".focal_layers." in name:
                given[name] = _centred(given[name], own[name].shape[-1])
        built = len(self.layers)
        beyond = "|".join([rf"{built - 1}\.downsample", *map(str, range(built, len(self.depths)))])
        return fit(own, given, fresh=r"^norm\d\.", unused=rf"^(norm\d?|head|layers\.({beyond}))\.")


@MODELS.register_module()
class FocalNetClassifier(Classifier):
    """The published classifier: stages, LayerNorm on the tokens, their mean, linear head.

    Args:
        arch: as for `FocalNet`.
        num_classes: logits; 0 for no head. The authors' ImageNet-22K models have 21842.
        in_channels, drop_path_rate: as for `FocalNet`.
        stem_padding: padding of the overlapping stem's 7x7 convolution (2 in the authors' classifier).
        with_cp, init_cfg: see `Trunk`.
        changes: fields of `Arch` that replace those of `arch`.

    Raises:
        UserError: for an unknown `arch` or setting.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny_srf",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        stem_padding: int = 2,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        variant = resolve_settings("FocalNet", ARCHS, arch, changes)
        self.depths = tuple(variant.depths)
        self.num_features = variant.dims[-1]
        self.patch_embed = _stem(variant, in_channels, pad=False, padding=stem_padding)
        self.layers = _stages(variant, drop_path_rate, pad=False, built=len(self.depths))
        self.norm = nn.LayerNorm(self.num_features)
        self.apply(init_linear)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean of the normed tokens (N, num_features)."""
        x = self.patch_embed(x.permute(0, 2, 3, 1).contiguous())
        for tokens in _ends_of_stages(self.layers, self.run, x):
            x = tokens
        return self.norm(x).mean((1, 2))

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter (stem, each block, norm and head) and number of layers."""
        return _layer_depth(name.removeprefix(prefix), self.depths)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file of the authors or timm to those of this network."""
        return _authors_names(tensors)


# timm's names of the same tensors; its stages begin with the downsampling that ends the authors'
_TIMM_NAMES = (
    (r"^stem\.", "patch_embed."),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.norm([12])_post\.", r".norm\1."),
    (r"\.modulation\.norm\.", ".modulation.ln."),
    (r"^head\.fc\.", "head."),
)


def _authors_names(tensors: Tensors) -> Tensors:
    """Tensors under the authors' names; of a whole OpenMMLab model or a `visual.` encoder that part alone."""
    tensors = backbone_of(tensors)
    if any(name.startswith("visual.") for name in tensors):
        tensors = {n.removeprefix("visual."): t for n, t in tensors.items() if n.startswith("visual.")}
    return _from_timm(tensors) if "stem.proj.weight" in tensors else dict(tensors)


def _from_timm(tensors: Tensors) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _TIMM_NAMES:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"^layers\.(\d+)\.down", lambda found: f"layers.{int(found[1]) - 1}.down", name)
        is_linear = re.search(r"\.(f|modulation\.proj|fc[12])\.weight$", name) is not None
        renamed[name] = tensor.flatten(1) if is_linear else tensor
    return renamed


def _add_levels(own: Tensors, given: Tensors) -> None:
    """Gives each block of `given` the levels that it has in `own`: zero gates, and kernels as they are there.

    The rows of `f` are those of query and context, of the levels' gates, and last that of the global gate.
    """
    for name in [name for name in own if name.endswith(".modulation.f.weight")]:
        if name not in given or given[name].shape[1:] != own[name].shape[1:]:
            continue
        added = len(own[name]) - len(given[name])
        levels = len(own[name]) - 2 * own[name].shape[1] - 1
        block = name.removesuffix("f.weight")
        if added < 0:
            raise UserError(
                f"the file has {levels - added} focal levels at {block.removesuffix('.modulation.')}, "
                f"the model {levels}",
                "build it with that many (focal_levels); levels are added but not dropped",
            )
        for leaf in ("f.weight", "f.bias"):
            rows = given[block + leaf]
            given[block + leaf] = torch.cat((rows[:-1], rows.new_zeros(added, *rows.shape[1:]), rows[-1:]))
        for level in range(levels - added, levels):
            kernel = f"{block}focal_layers.{level}.0.weight"
            given.setdefault(kernel, own[kernel])


def _centred(kernel: Tensor, side: int) -> Tensor:
    """A kernel (C, 1, k, k) in the middle of zeros, or its middle part, `side` on a side."""
    margin = (side - kernel.shape[-1]) // 2
    return F.pad(kernel, (margin,) * 4) if margin else kernel


register_models(
    "focalnet", FocalNetClassifier, {f"focalnet_{arch}": {"arch": arch} for arch in ARCHS}, backbone=FocalNet
)


def _published_arch(source: str, built_with: Mapping[str, Any], focal_windows: int) -> Arch:
    """The settings of a published class, whose factories fix little more than depths and width."""
    factory = re.search(r"focalnet_(\w+)", source.rsplit(".py", 1)[-1])
    named = ARCHS[factory[1] if factory else "tiny_srf"]
    fixed = named if named == ARCHS["base_iso"] else Arch(named.depths, named.embed_dim, named.patch_size)
    known = {field.name for field in fields(Arch)}
    given: dict[str, Any] = {"focal_windows": focal_windows} if fixed is not named else {}
    given.update({name: value for name, value in built_with.items() if name in known})
    stages = len(given.get("depths", fixed.depths))
    for name in {"focal_levels", "focal_windows"} & set(built_with):
        given[name] = built_with[name][:stages]  # the authors' lists may be longer than the net
    return replace(fixed, **given)


@adapter("focalnet", r"mmcv_custom/checkpoint\.py|backbones/focalnet\.py (FocalNet\b|focalnet_)")
def _run_dense(case: Case) -> dict[str, Tensor]:
    built_with = case.built_with.get("dense", case.built_with)  # a classifier's tensors come with both
    model = FocalNet(
        vars(_published_arch(case.source, built_with, focal_windows=9)),
        in_channels=built_with.get("in_chans", 3),
        out_indices=built_with.get("out_indices"),
    )
    return run_backbone(model, case)


@adapter("focalnet", r"classification/focalnet\.py (FocalNet\b|focalnet_)")
def _run_classifier(case: Case) -> dict[str, Tensor]:
    model = FocalNetClassifier(
        vars(_published_arch(case.source, case.built_with, focal_windows=3)),
        num_classes=case.built_with.get("num_classes", 1000),
        in_channels=case.built_with.get("in_chans", 3),
    )
    return run_classifier(model, case)


@adapter("focalnet", r"focalnet\.py FocalModulation\b")
@torch.no_grad()
def _run_modulation(case: Case) -> dict[str, Tensor]:
    built_with = case.built_with
    dense = "backbones/" in case.source  # its class has defaults and a name of its own for the switch
    module = FocalModulation(
        built_with["dim"],
        built_with.get("focal_window", 7),
        built_with.get("focal_level", 2),
        focal_factor=built_with.get("focal_factor", 2),
        bias=built_with.get("bias", True),
        use_postln_in_modulation=built_with.get("use_postln" if dense else "use_postln_in_modulation", False),
        normalize_modulator=built_with.get("normalize_modulator", False),
    )
    outputs = run_module(module, case)
    _, context, gates = module.split(only_input(case))
    return {**outputs, "modulator": module.modulator(context, gates).permute(0, 3, 1, 2)}


@adapter("focalnet", r"focalnet\.py Focal(Net|Modulation)Block")
@torch.no_grad()
def _run_block(case: Case) -> dict[str, Tensor]:
    dense = "backbones/" in case.source
    level, window = (2, 9) if dense else (1, 3)
    block = Block(
        case.built_with["dim"],
        case.built_with.get("focal_level", level),
        case.built_with.get("focal_window", window),
        _published_arch("", case.built_with, focal_windows=window),
    ).eval()
    place(block, case.state_dict())
    x = next(iter(case.inputs().values()))
    tokens = x if x.ndim == 4 else x.unflatten(1, map_size(case, x.shape[1]))
    return only_output(case, block(tokens).view(x.shape))


@adapter("focalnet", r"focalnet\.py PatchEmbed")
@torch.no_grad()
def _run_patch_embed(case: Case) -> dict[str, Tensor]:
    dense, built_with = "backbones/" in case.source, case.built_with
    overlap: dict[str, Any] = {}
    if built_with.get("use_conv_embed"):
        stem = {"kernel_size": 7, "stride": 4, "padding": 3 if dense else 2}
        overlap = stem if built_with.get("is_stem") else {"kernel_size": 3, "stride": 2, "padding": 1}
    module = PatchEmbed(
        built_with.get("in_chans", 3),
        built_with.get("embed_dim", 96),
        built_with.get("patch_size", 4),
        pad=dense,
        norm="norm.weight" in case.shapes,
        **overlap,
    )
    place(module, case.state_dict())
    x = module(only_input(case).permute(0, 2, 3, 1))
    return only_output(case, x.permute(0, 3, 1, 2) if dense else x.flatten(1, 2))
