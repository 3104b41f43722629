"""RWKV-SAM's image encoder: two convolutional stages, then RWKV blocks, linear in pixels.

Mamba or RWKV: Exploring High-Quality and High-Efficiency Segment Anything Model, arXiv 2406.19369. Built from
a description alone: the authors' code is for non-commercial use, and none of it was read.

Image (N, 3, H, W) to maps of strides 4 and 8 as they leave the convolutional stages, and two of stride 16:
the tokens after the block in the middle, without a norm, and those of the end, normed. Sides need not be
multiples of 16: every halving rounds up.

What a naive reading gets wrong: the middle map is taken after block depth // 2, counted from 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, FeatureInfo, resolve_arch
from opsin.core.errors import UserError
from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.position_table import resize_position_table
from opsin.core.layers.weight_init import init_conv_fan_out
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS
from opsin.segmentation.promptable.models.rwkv_sam.convolutions import NormedHalving, Stem, conv_stage
from opsin.segmentation.promptable.models.rwkv_sam.token_layers import HEADS, token_layer

STRIDE = 16  # of the tokens
DEPTHS = (2, 4, 14)
ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"dims": (32, 64, 192), "depths": DEPTHS},
    "small": {"dims": (64, 128, 384), "depths": DEPTHS},
    "base": {"dims": (128, 256, 768), "depths": DEPTHS},
    "large": {"dims": (160, 320, 1024), "depths": DEPTHS},
}


@MODELS.register_module()
class RWKVSAMBackbone(Backbone):
    """The feature extractor.

    Args:
        arch: 'tiny', 'small', 'base', 'large', or dict(dims=…, depths=…): the widths of both convolutional
            stages and of the tokens, and how many blocks each has.
        token_layers: what the blocks are: 'rwkv', as in the released recipe, or for the paper's ablations
            'transformer' or a mix of two, see `token_layers.py`.
        mlp_ratio: hidden channels of the channel mix, or of a transformer's perceptron, in units of the
            width; 2 in the released recipe.
        num_heads: of a transformer's attention.
        position_grid: rows and columns of a learned position table, (H / 16, W / 16) of the training images;
            resized for other images. None, as in the released recipe: there is none.
        additional_final_layers: another halving after the last block, of twice the width: maps are those of
            strides 4, 8, 16 (of the end) and 32, as dense detectors want them.
        drop_path_rate: of the last block; it grows linearly from 0.
        out_indices: which of the four maps are given; what only later ones need is not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`. Stages 1 and 2 are convolutional, 3 are the blocks
            up to the one in the middle, 4 the rest.

    Raises:
        UserError: for an unknown `arch` or `token_layers`, `out_indices` outside 0..3, or heads that do not
            divide the width.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "small",
        *,
        token_layers: str = "rwkv",
        mlp_ratio: float = 2.0,
        num_heads: int = HEADS,
        position_grid: tuple[int, int] | None = None,
        additional_final_layers: bool = False,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        self.check_out_indices(4)
        settings = resolve_arch("RWKV-SAM", ARCHS, arch)
        dims, self.depths = tuple(settings["dims"]), tuple(settings["depths"])
        last = self.out_indices[-1]
        self.middle = self.depths[2] // 2
        self.position_grid = position_grid if last >= 2 else None
        self.stem = Stem(dims[0])
        widths = ((dims[0], dims[0]), (dims[0], dims[1]))[: last + 1]
        self.conv_stages = nn.ModuleList(
            conv_stage(*width, depth) for width, depth in zip(widths, self.depths, strict=False)
        )
        self.apply(init_conv_fan_out)  # the convolutions up to here; the rest begins as PyTorch has it
        if last >= 2:
            ends = last == 3 or additional_final_layers
            self._add_tokens(dims)
            rates = drop_path_rates(drop_path_rate, (self.depths[2],))[0]
            settings = dict(mlp_ratio=mlp_ratio, num_heads=num_heads, layers=self.depths[2])
            self.layers = nn.ModuleList(
                token_layer(token_layers, dims[2], layer=i, drop_path_rate=rates[i], **settings)
                for i in range(self.depths[2] if ends else self.middle + 1)
            )
            self.final_norm = nn.LayerNorm(dims[2], eps=1e-6) if ends else None
        self.additional_final_layers = None
        if additional_final_layers and last == 3:
            self.additional_final_layers = conv_stage(dims[2], 2 * dims[2], 1)
            self.additional_final_layers.apply(init_conv_fan_out)
        channels, strides = (*dims, dims[2]), (4, 8, STRIDE, STRIDE)
        if additional_final_layers:
            channels, strides = (*dims, 2 * dims[2]), (4, 8, STRIDE, 2 * STRIDE)
        self.middle_map = not additional_final_layers
        self.feature_info = tuple(FeatureInfo(channels[i], strides[i]) for i in self.out_indices)

    def _add_tokens(self, dims: tuple[int, ...]) -> None:
        """Adds the halving to stride 16 and the position table."""
        self.conv_final_pool = NormedHalving(dims[1], dims[2])
        if self.position_grid is not None:
            rows, columns = self.position_grid
            self.pos_embed = nn.Parameter(torch.empty(1, rows * columns, dims[2]))
            nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`, as `feature_info` says."""
        return tuple(m for index, m in enumerate(self._maps(x)) if index in self.out_indices)

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        x = self.stem(x)
        for stage in self.conv_stages:
            for block in stage.children():
                x = self.run(block, x)
            yield x
        if self.out_indices[-1] < 2:
            return
        x = self.conv_final_pool(x)
        grid = (x.shape[2], x.shape[3])
        tokens = x.flatten(2).transpose(1, 2)
        if self.position_grid is not None:
            tokens = tokens + resize_position_table(self.pos_embed, self.position_grid, grid)
        for index, layer in enumerate(self.layers):
            tokens = self.run(layer, tokens, grid)
            if index == self.middle and self.middle_map:
                yield _as_map(tokens, grid)
        if self.final_norm is not None:
            x = _as_map(self.final_norm(tokens), grid)
            yield x
        if self.additional_final_layers is not None:
            yield self.additional_final_layers(x)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), a convolutional stage (1, 2), the blocks to the middle (3) or those after it (4)."""
        if stage == 0:
            return [self.stem]
        if stage <= 2:
            return self.conv_stages[stage - 1 : stage]
        if self.out_indices[-1] < 2:
            return []
        if stage == 3:
            return [self.conv_final_pool, *self.layers[: self.middle + 1]]
        end = (self.final_norm, self.additional_final_layers)
        return [*self.layers[self.middle + 1 :], *(module for module in end if module is not None)]

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: stem, blocks, end; halvings go with what follows."""
        parts = name.removeprefix(prefix).split(".")
        convs = sum(self.depths[:2])
        last = convs + self.depths[2] + 1
        if parts[0] == "stem":
            return 0, last + 1
        if parts[0] == "conv_stages":
            return 1 + int(parts[1]) * self.depths[0] + int(parts[2]), last + 1
        if parts[0] in ("conv_final_pool", "pos_embed"):
            return convs + 1, last + 1
        return (convs + 1 + int(parts[1]) if parts[0] == "layers" else last), last + 1

    def no_weight_decay(self) -> set[str]:
        """The position table."""
        return {"pos_embed"}

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a file of the whole model or of the backbone: what this one has not built is left out.

        Raises:
            UserError: if the file has a position table of another grid, which it does not tell.
        """
        own = self.state_dict()
        given = backbone_of(tensors)
        if "pos_embed" in given and "pos_embed" in own and given["pos_embed"].shape != own["pos_embed"].shape:
            raise UserError(
                f"the file's position table has {given['pos_embed'].shape[1]} places,"
                f" position_grid={self.position_grid}",
                "build the backbone with the grid that the file was trained with",
            )
        return fit(
            own,
            given,
            unused=r"^(layers|final_norm|conv_stages|conv_final_pool|pos_embed|additional_final_layers|head)\b",
        )


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, T, C) to (N, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, grid)
