"""The frame that SHViT and EfficientViT share: a stem of stride 16, then stages at strides 16, 32 and 64.

Every strided convolution rounds up: an image (N, 3, H, W) gives maps of ceil(H / 16), ceil(H / 32) and
ceil(H / 64) rows. What lies between two stages opens the list of the later one: `blocks2` has three modules
before its first block (see `layers.squeezed_merging`), and the map of stage 1 is the one before them.

Maps travel in the channels-last memory format: on one CPU core a forward of SHViT-S4 at 416x288 takes 0.7 of
the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Classifier, FeatureInfo, Trunk
from opsin.core.backbones.norm_eval import NormEvalBackbone
from opsin.core.layers.conv_stem import conv_stem
from opsin.core.layers.norm_linear import NormLinear
from opsin.core.layers.squeezed_merging import sandwiched_merging
from opsin.core.parity import Case
from opsin.core.published import Tensors, backbone_of, fit, place

STRIDES = (16, 32, 64)
Blocks = Sequence[Sequence[nn.Module]]  # of every stage


class ThreeStages(Trunk):
    """Stem `patch_embed` and stages `blocks1` to `blocks3`; mix it in before `Backbone` or `Classifier`."""

    depths: tuple[int, ...]  # blocks of every stage of the whole network
    built: int  # stages that there are; the rest are not needed

    def add_stages(self, in_channels: int, dims: Sequence[int], blocks: Blocks, built: int) -> None:
        """Adds the stem and the first `built` stages.

        Args:
            in_channels: channels of the image.
            dims: channels of the three maps.
            blocks: the blocks of the three stages.
            built: number of stages.
        """
        self.depths = tuple(len(stage) for stage in blocks)
        self.built = built
        self.patch_embed = conv_stem(in_channels, dims[0])
        for index, stage in enumerate(blocks[:built]):
            merging = sandwiched_merging(dims[index - 1], dims[index]) if index else []
            self.add_module(f"blocks{index + 1}", nn.Sequential(*merging, *stage))

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Image (N, 3, H, W) to the map (N, C_i, H_i, W_i) of every stage."""
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        for number in range(1, self.built + 1):
            for block in self.get_submodule(f"blocks{number}").children():
                x = self.run(block, x)
            yield x

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` with the patch merging before it."""
        if stage == 0:
            return [self.patch_embed]
        return [self.get_submodule(f"blocks{stage}")] if stage <= self.built else []

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the stem, each block, the heads.

        Patch merging goes with the block after it. The authors decay no rates by layer; this is the grouping
        of other hierarchical networks.
        """
        name, last = name.removeprefix(prefix), sum(self.depths) + 1
        if name.startswith("patch_embed."):
            return 0, last + 1
        part = re.match(r"blocks(\d)\.(\d+)\.", name)
        if part is None:
            return last, last + 1
        stage, position = int(part[1]), int(part[2])
        block = position if stage == 1 else max(0, position - 3)
        return 1 + sum(self.depths[: stage - 1]) + block, last + 1


class ThreeStageBackbone(ThreeStages, NormEvalBackbone):
    """The feature extractor: maps of strides 16, 32 and 64 as they leave the stages, without a norm.

    Args:
        dims: channels of the three maps.
        blocks: the blocks of the three stages.
        in_channels: channels of the image.
        out_indices: stages (0 to 2) that give a map; later ones are not built.
        norm_eval: BatchNorms keep their running statistics while training, as in the authors' detectors.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for `out_indices` outside 0..2.
    """

    def __init__(
        self,
        dims: Sequence[int],
        blocks: Blocks,
        *,
        in_channels: int,
        out_indices: Sequence[int],
        norm_eval: bool,
        frozen_stages: int,
        with_cp: bool,
        init_cfg: dict[str, Any] | None,
    ) -> None:
        super().__init__(
            norm_eval=norm_eval,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(len(STRIDES))
        self.add_stages(in_channels, dims, blocks, built=self.out_indices[-1] + 1)
        self.feature_info = tuple(FeatureInfo(dims[index], STRIDES[index]) for index in self.out_indices)
        self.train()  # frozen stages and norms from the beginning

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`."""
        return tuple(m for index, m in enumerate(self.maps(x)) if index in self.out_indices)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' or timm's file of a classifier or detector to those of this backbone."""
        later = "".join(f"|blocks{number}" for number in range(self.built + 1, len(STRIDES) + 1))
        return fit(self.state_dict(), authors_names(tensors), unused=rf"^(head|head_dist{later})\.")


class ThreeStageClassifier(ThreeStages, Classifier):
    """The published classifier: three stages, global mean, BatchNorm, linear head.

    Args:
        dims: channels of the three maps.
        blocks: the blocks of the three stages.
        num_classes: logits; 0 for no head, its norm included.
        in_channels: channels of the image.
        distillation: a second head `head_dist`, for a teacher's labels. Training then gives the pair of
            logits, evaluation their mean.
        with_cp, init_cfg: see `Trunk`.
    """

    def __init__(
        self,
        dims: Sequence[int],
        blocks: Blocks,
        *,
        num_classes: int,
        in_channels: int,
        distillation: bool,
        with_cp: bool,
        init_cfg: dict[str, Any] | None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.num_features = dims[-1]
        self.distillation = distillation
        self.add_stages(in_channels, dims, blocks, built=len(STRIDES))
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean vector (N, num_features)."""
        *_, x = self.maps(x)
        return x.mean((2, 3))

    def forward_head(self, features: Tensor) -> Any:
        """(N, num_features) to logits (N, num_classes), or a pair of them (see `distillation`)."""
        logits = self.head(features)
        if not self.distillation:
            return logits
        distilled = self.head_dist(features)
        return (logits, distilled) if self.training else (logits + distilled) / 2

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the heads by freshly initialised ones for `num_classes` classes (0: none)."""
        self.num_classes = num_classes
        for name in ("head", "head_dist") if self.distillation else ("head",):
            head = NormLinear(self.num_features, num_classes) if num_classes else nn.Identity()
            self.add_module(name, head)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file of the authors or timm to those of this network."""
        return authors_names(tensors)


# Where timm's modules between two stages, in EfficientViT and in SHViT, lie in the authors' lists.
_MERGING = {
    **{"res1.0": "0.0", "res1.1": "0.1", "patchmerge": "1", "res2.0": "2.0", "res2.1": "2.1"},
    **{"0": "0.0", "1": "0.1", "2": "1", "3": "2.0", "4": "2.1"},
}


def authors_names(tensors: Tensors) -> Tensors:
    """Tensors under the authors' names, also out of timm's layouts or a whole OpenMMLab model."""
    return {_authors_name(name): tensor for name, tensor in backbone_of(tensors).items()}


def _authors_name(name: str) -> str:
    name = re.sub(r"^patch_embed\.conv(\d)\.", lambda part: f"patch_embed.{2 * int(part[1]) - 2}.", name)
    name = re.sub(r"^(head|head_dist)\.linear\.", r"\1.l.", name)
    name = re.sub(r"\.conv\.weight$", ".c.weight", name)
    part = re.match(r"stages\.(\d)\.(?:blocks\.(\d+)|downsample\.(res\d\.\d|patchmerge|\d))\.(.*)", name)
    if part is None:
        return name
    stage, block, merging, rest = part.groups()
    position = _MERGING[merging] if block is None else int(block) + (0 if stage == "0" else 3)
    return f"blocks{int(stage) + 1}.{position}.{rest}"


@torch.no_grad()
def run_network(model: ThreeStageBackbone | ThreeStageClassifier, case: Case) -> dict[str, Tensor]:
    """A parity case of a network: `stage1` to `stage3`, `features`, `logits`, or the case's own names."""
    place(model.eval(), case.state_dict())
    (image,) = case.inputs().values()
    maps = list(model.maps(image))
    found = {f"stage{number}": m for number, m in enumerate(maps, 1)}
    if isinstance(model, ThreeStageClassifier):
        found["features"] = maps[-1].mean((2, 3))
        found["logits"] = model.forward_head(found["features"])
    names = list(case.meta["outputs"])
    if found.keys() >= set(names):
        return found
    return dict(zip(names, maps if len(names) > 1 else [list(found.values())[-1]], strict=True))
