"""Multi-Scale VMamba: Hierarchy in Hierarchy Visual State Space Model (arXiv 2405.14174, NeurIPS 2024).

The authors' code, YuHengsss/MSVMamba, comes without a licence file; it derives from VMamba (MIT). Image (N,
3, H, W) to four maps at strides 4, 8, 16, 32. A block scans its map by state spaces (`scan.MS2D`) and passes
it through a feed-forward with a depth-wise convolution inside.

There are two releases with the same names of tensors. Release 1 (May 2024) has Nano, Micro and Tiny; release
2 is the NeurIPS version ('MSVMambav3': Tiny, Small, Base), stronger and simpler inside.

What a naive reading gets wrong: `norm2` stands before the feed-forward in release 1 and after it, inside the
branch, in release 2, where the feed-forward reads the residual stream as it is; no shape shows that. Every
epsilon is 1e-5. A dense map is taken before its stage's downsampling and normed on its own, while a
classifier norms the map before it takes the mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk
from opsin.core.backbones.msvmamba.scan import EPS, MS2D, MS2DRelease1, MS2DRelease2
from opsin.core.backbones.msvmamba.settings import MSVMambaSettings
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.layers.swin_merging import SwinMerging
from opsin.core.layers.weight_init import init_linear
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS


class ConvFFN(nn.Module):
    """1x1 expansion, plus a depth-wise 3x3 of it, GELU, 1x1 projection.

    Args:
        dim: channels C.
        hidden_dim: channels between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv2d(dim, hidden_dim, 1)
        self.dwc = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.linear2 = nn.Conv2d(hidden_dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        x = self.linear1(x)
        return self.linear2(F.gelu(x + self.dwc(x)))


class Block(nn.Module):
    """The scan and the feed-forward, each a residual branch; a release says where the norms stand.

    Args:
        dim: channels C.
        settings: see `MSVMambaSettings`.
        drop_path_rate: chance of dropping a branch of a sample.
    """

    mixer: type[MS2D]

    def __init__(self, dim: int, settings: MSVMambaSettings, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.norm = LayerNorm2d(dim, eps=EPS)
        self.op = self.mixer(dim, settings)
        self.norm2 = LayerNorm2d(dim, eps=EPS)
        self.convFFN = ConvFFN(dim, int(settings.ffn_ratio * dim))
        self.drop_path = DropPath(drop_path_rate)


class BlockRelease1(Block):
    """Both branches norm what they read."""

    mixer = MS2DRelease1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.convFFN(self.norm2(x)))


class BlockRelease2(Block):
    """The scan norms what it reads, the feed-forward what it gives."""

    mixer = MS2DRelease2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.norm2(self.convFFN(x)))


BLOCKS: dict[int, type[Block]] = {1: BlockRelease1, 2: BlockRelease2}


class Stage(nn.Module):
    """Blocks of one width, and the downsampling to the next stage's (an identity where none is needed)."""

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


def _stem(settings: MSVMambaSettings) -> nn.Sequential:
    """The patch embedding; identities stand where the authors' code permutes dimensions."""
    width = settings.widths[0]

    def norm(channels: int) -> nn.Module:
        return LayerNorm2d(channels, eps=EPS) if settings.patch_norm else nn.Identity()

    if settings.stem == "v1":
        return nn.Sequential(nn.Conv2d(settings.in_channels, width, 4, stride=4), nn.Identity(), norm(width))
    half = width // 2
    return nn.Sequential(
        nn.Conv2d(settings.in_channels, half, 3, stride=2, padding=1),
        nn.Identity(),
        norm(half),
        nn.Identity(),
        nn.GELU(),
        nn.Conv2d(half, width, 3, stride=2, padding=1),
        nn.Identity(),
        norm(width),
    )


class Merging(SwinMerging):
    """Swin's merging of 2x2 cells, of maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2))."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _downsample(kind: str, dim: int, out_dim: int) -> nn.Module:
    if kind == "v1":
        return Merging(dim, out_dim)
    size, padding = (2, 0) if kind == "v2" else (3, 1)
    conv = nn.Conv2d(dim, out_dim, size, stride=2, padding=padding)
    return nn.Sequential(nn.Identity(), conv, nn.Identity(), LayerNorm2d(out_dim, eps=EPS))


class MSVMambaTrunk(Trunk):
    """Stem and stages; what the backbone and the classifier share."""

    settings: MSVMambaSettings
    patch_embed: nn.Sequential
    layers: nn.ModuleList

    @property
    def stages(self) -> list[Stage]:
        """The stages that are built."""
        return [stage for stage in self.layers if isinstance(stage, Stage)]

    def build(self, settings: MSVMambaSettings, stages: int) -> None:
        """Makes stem and the first `stages` stages; drop path rates are those of the whole network."""
        self.settings = settings
        self.patch_embed = _stem(settings)
        rates = drop_path_rates(settings.drop_path_rate, settings.depths)
        block, widths = BLOCKS[settings.release], settings.widths
        self.layers = nn.ModuleList(
            Stage(
                (block(widths[i], settings, rate) for rate in rates[i]),
                _downsample(settings.downsample, *widths[i : i + 2]) if i + 1 < stages else nn.Identity(),
            )
            for i in range(stages)
        )
        self.apply(init_linear)

    def walk(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to the map of every stage, before its downsampling."""
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.stages:
            for block in stage.blocks:
                x = self.run(block, x)
            maps.append(x)
            x = stage.downsample(x)
        return maps

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: the stem; then one for every block, a downsampling with the block after it; the rest."""
        depths = self.settings.depths
        layers = sum(depths) + 2
        part = re.match(r"layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.", name.removeprefix(prefix))
        if part is not None:
            stage = int(part[1])
            within = depths[stage] if part[2] is None else int(part[2])
            return sum(depths[:stage]) + within + 1, layers
        return (0 if name.removeprefix(prefix).startswith("patch_embed.") else layers - 1), layers

    def no_weight_decay(self) -> set[str]:
        """The logarithms of A and the skip weights D of all scans."""
        return {name for name, _ in self.named_parameters() if name.rpartition(".")[2] in ("A_logs", "Ds")}


@MODELS.register_module()
class MSVMamba(MSVMambaTrunk, Backbone):
    """The feature extractor of the authors' detection and segmentation code.

    Each map has a LayerNorm of its own, `outnorm0` …; stages after the last output are not built.

    Args:
        arch: 'nano', 'micro', 'tiny' (release 1), 'v3_tiny', 'v3_small', 'v3_base' (release 2), or a mapping
            of `MSVMambaSettings`.
        out_indices: stages that give a map.
        frozen_stages, with_cp, init_cfg: see `Backbone`.
        settings: see `MSVMambaSettings`.

    Raises:
        UserError: for an unknown arch or setting, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        chosen = MSVMambaSettings.of(arch, settings)
        self.check_out_indices(len(chosen.depths))
        self.build(chosen, self.out_indices[-1] + 1)
        widths = chosen.widths
        for index in self.out_indices:
            self.add_module(f"outnorm{index}", LayerNorm2d(widths[index], eps=EPS))
        self.feature_info = tuple(FeatureInfo(widths[i], 4 * 2**i) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        maps = self.walk(x)
        return tuple(self.get_submodule(f"outnorm{index}")(maps[index]) for index in self.out_indices)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or the blocks of stage `stage` (from 1), the downsampling before them, the norm."""
        if stage == 0:
            return [self.patch_embed]
        index, stages = stage - 1, self.stages
        if index >= len(stages):
            return []
        parts: list[nn.Module] = [stages[index].blocks]
        if index:
            parts.append(stages[index - 1].downsample)
        if index in self.out_indices:
            parts.append(self.get_submodule(f"outnorm{index}"))
        return parts

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifiers, dense models or whole detectors to those of this backbone.

        Output norms that the file lacks (no classifier has them) stay as they are.
        """
        return fit(
            self.state_dict(),
            authors_names(tensors),
            fresh=r"^outnorm\d+\.",
            unused=r"^(norm|head|outnorm\d+|layers\.\d+)\.",
        )


@MODELS.register_module()
class MSVMambaClassifier(MSVMambaTrunk, Classifier):
    """The published classifier: stages, LayerNorm, global mean, linear head.

    Args:
        arch: as for `MSVMamba`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.
        settings: see `MSVMambaSettings`.

    Raises:
        UserError: for an unknown arch or setting.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        chosen = MSVMambaSettings.of(arch, settings)
        self.num_features = chosen.widths[-1]
        self.build(chosen, len(chosen.depths))
        self.norm = LayerNorm2d(self.num_features, eps=EPS)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean (N, num_features) of the normed last map."""
        return self.norm(self.walk(x)[-1]).mean((2, 3))

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifiers to those of this one."""
        return authors_names(tensors)


# VMamba's first names of the same tensors, and where the authors keep the classifier's.
_RENAMES = (
    (r"^classifier\.", ""),
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"\.ln_1\.", ".norm."),
    (r"\.self_attention\.", ".op."),
)


def authors_names(tensors: Tensors) -> Tensors:
    """Tensors under this network's names; of a whole OpenMMLab model those of its backbone."""
    renamed = {}
    for name, tensor in backbone_of(tensors).items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
