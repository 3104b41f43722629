"""What the hosts with one grid of patches (ViT, CaiT, T2T) share, above all as dense backbones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, FeatureInfo, Trunk
from opsin.core.backbones.gaussian_mixture_mask.mask import Grid
from opsin.core.errors import UserError
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.plain_pyramid import PlainPyramid
from opsin.core.layers.position_table import resize_position_table, square_grid
from opsin.core.published import Tensors, backbone_of, fit

EPS = 1e-5  # of all norms


class PlainTrunk(Trunk):
    """Tokens after every block, and the layers of learning-rate decay; mix in before `Classifier`."""

    blocks: nn.ModuleList
    depth: int  # blocks of the whole network
    stem_names: tuple[str, ...] = ("patch_embed", "pos_embed", "cls_token")

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Image (B, 3, H, W) to tokens (B, N, C) after every block, and the size (h, w) of their map.

        Where there are more than h * w, the map's are the last.
        """
        raise NotImplementedError

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: patches, class token and positions; block i: i + 1; the rest: the last."""
        part, _, rest = name.removeprefix(prefix).partition(".")
        if part in self.stem_names:
            return 0, self.depth + 2
        return (int(rest.split(".")[0]) + 1 if part == "blocks" else self.depth + 1), self.depth + 2


class PlainBackbone(PlainTrunk, Backbone):
    """Maps of chosen blocks, all of the patches' stride or brought to four strides.

    Args:
        depth: blocks of the whole network.
        out_indices: blocks that give a map; None is the ends of the four quarters of the depth.
        fpn: whether maps go to four strides.
        frozen_stages, with_cp, init_cfg: see `Backbone`; a stage is a block.

    Raises:
        UserError: for impossible `out_indices`.
    """

    patch_embed: PatchEmbedding

    def __init__(
        self,
        depth: int,
        *,
        out_indices: Sequence[int] | None,
        fpn: bool,
        frozen_stages: int,
        with_cp: bool,
        init_cfg: dict[str, Any] | None,
    ) -> None:
        quarters = sorted({max(0, depth * k // 4 - 1) for k in (1, 2, 3, 4)})
        super().__init__(
            out_indices=quarters if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(depth)
        if fpn and len(self.out_indices) > 4:
            raise UserError(f"out_indices {self.out_indices} are more than the four levels of fpn")
        self.fpn = fpn

    def add_levels(self, dim: int, stride: int) -> None:
        """Makes the pyramid, if there is one, and `feature_info`."""
        strides = (stride,) * len(self.out_indices)
        if self.fpn:
            levels = 4 if len(self.out_indices) == 1 else len(self.out_indices)
            self.pyramid = PlainPyramid(dim, stride, levels)
            strides = self.pyramid.strides
        self.feature_info = tuple(FeatureInfo(dim, stride) for stride in strides)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to maps as `feature_info` says."""
        maps = [
            tokens[:, tokens.shape[1] - size[0] * size[1] :].transpose(1, 2).unflatten(2, size)
            for index, (tokens, size) in enumerate(self.walk(x))
            if index in self.out_indices
        ]
        return self.pyramid(maps) if self.fpn else tuple(m.contiguous() for m in maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """What makes the tokens (0), or a block (from 1)."""
        if stage == 0:
            return [self.patch_embed]
        return [self.blocks[stage - 1]] if stage <= len(self.blocks) else []

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen stages; positions and class token freeze with the patches."""
        super().train(mode)
        if self.frozen_stages >= 0:
            for name, parameter in self.named_parameters(recurse=False):
                if name in self.stem_names:
                    parameter.requires_grad_(False)
        return self

    def of_classifier(self, tensors: Tensors) -> Tensors:
        """Of a classifier's tensors, under own names, those of this backbone; positions are resized."""
        own = self.state_dict()
        return fit(own, fit_positions(own, backbone_of(tensors)), fresh=r"^pyramid\.", unused=self.unused())

    def unused(self) -> str:
        """Regex of a classifier's tensors that the backbone has no use for."""
        return rf"^(norm|head)\.|{later_blocks(len(self.blocks))}"


def later_blocks(built: int) -> str:
    """Regex of the names of blocks from `built` on."""
    return rf"^blocks\.(?!({'|'.join(str(index) for index in range(built))})\.)"


def fit_positions(own: Tensors, given: Tensors, name: str = "pos_embed") -> Tensors:
    """`given` with its position table in the grid of the model's own, both square.

    Rows that stand before the grid's (a class token's) are told by what is left of the largest square.
    """
    table, like = given.get(name), own.get(name)
    if table is None or like is None or table.shape == like.shape or table.shape[2] != like.shape[2]:
        return given
    before = _rows_before(like.shape[1])
    grids = [square_grid(rows - before) for rows in (table.shape[1], like.shape[1])]
    return given | {name: resize_position_table(table, *grids, before=before)}


def _rows_before(rows: int) -> int:
    return rows - math.isqrt(rows) ** 2


def xavier_linears(module: nn.Module) -> None:
    """Linear layers: normal weights of Xavier's variance, zero bias. For `model.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_side(x: Tensor, patch_size: int) -> None:
    """Refuses an image (B, 3, H, W) without a whole patch.

    Raises:
        UserError: if a side is smaller than a patch.
    """
    if min(x.shape[2:]) < patch_size:
        raise UserError(
            f"an image of {x.shape[2]} x {x.shape[3]} pixels is smaller than a patch of {patch_size}"
        )
