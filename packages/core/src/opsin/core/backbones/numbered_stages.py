"""The frame of hierarchical networks whose parts are named patch_embed<i>, block<i> and norm<i>, i from 1.

PVT v2 brought the names; VAN and SMT keep them. Every stage reads the normed map of the one before, so the
norms belong to the network and not to its outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from opsin.core.backbones.backbone import Trunk, resolve_arch
from opsin.core.errors import UserError
from opsin.core.published import Tensors, fit

STRIDES = (4, 8, 16, 32)


def stage_settings(
    family: str, archs: Mapping[str, Mapping[str, Any]], arch: str | Mapping[str, Any]
) -> dict[str, Any]:
    """`resolve_arch`, and every sequence in the settings has one entry a stage.

    Raises:
        UserError: for an unknown name or key, a missing key, or another number of entries than four.
    """
    settings = resolve_arch(family, archs, arch)
    for key, value in settings.items():
        if isinstance(value, Sequence) and len(value) != len(STRIDES):
            raise UserError(f"{key} {tuple(value)} of {family}'s arch must have {len(STRIDES)} entries")
    return settings


class NumberedStages(Trunk):
    """Stages of a patch embedding, blocks and a norm; mix it in before `Backbone` or `Classifier`."""

    depths: tuple[int, ...]  # blocks of every stage of the whole network
    built: int  # stages that there are; the rest are not needed

    def add_stages(self, stages: Iterable[tuple[nn.Module, Sequence[nn.Module], nn.Module]]) -> None:
        """Adds each stage's patch embedding, blocks and norm; maps (N, C, H, W) go through all of them."""
        self.built = 0
        for number, (patch_embed, blocks, norm) in enumerate(stages, 1):
            self.add_module(f"patch_embed{number}", patch_embed)
            self.add_module(f"block{number}", nn.ModuleList(blocks))
            self.add_module(f"norm{number}", norm)
            self.built = number

    def normed_maps(self, x: Tensor) -> Iterator[Tensor]:
        """Image (N, 3, H, W) to the normed map (N, C_i, H_i, W_i) of every stage."""
        for number in range(1, self.built + 1):
            x = self.get_submodule(f"patch_embed{number}")(x)
            for block in self.get_submodule(f"block{number}").children():
                x = self.run(block, x)
            x = self.get_submodule(f"norm{number}")(x)
            yield x

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The first patch embedding (0), or blocks and norm of stage `stage` with the embedding before."""
        if stage == 0:
            return [self.get_submodule("patch_embed1")]
        if stage > self.built:
            return []
        return [self.get_submodule(f"{part}{stage}") for part in ("patch_embed", "block", "norm")]

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the first embedding, every block, the head.

        Later embeddings go with the block after them, norms with the block before. The authors of these
        networks decay no rates by layer; this is the grouping of other hierarchical networks.
        """
        last = sum(self.depths) + 1
        part = re.match(r"(patch_embed|block|norm)(\d)\.(\d*)", name.removeprefix(prefix))
        if part is None:
            return last, last + 1
        before = sum(self.depths[: int(part[2]) - 1])
        inside = {"patch_embed": int(part[2] != "1"), "norm": self.depths[int(part[2]) - 1]}
        return before + inside.get(part[1], int(part[3] or 0) + 1), last + 1

    def of_classifier(self, tensors: Tensors) -> Tensors:
        """Of a classifier's tensors those of the stages that are built."""
        later = "|".join(str(number) for number in range(self.built + 1, len(self.depths) + 1))
        return fit(self.state_dict(), tensors, unused=rf"^(head|(patch_embed|block|norm)({later}))\.")
