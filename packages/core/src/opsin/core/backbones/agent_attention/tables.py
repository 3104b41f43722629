"""The learned tables of the hosts: which are not decayed, and how published ones fit another image size."""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.layers.position_table import resize_position_table, square_grid
from opsin.core.layers.relative_bias import resize_bias_table
from opsin.core.published import Tensors

TABLE = re.compile(
    r"(^|\.)((an|na|ah|aw|ha|wa|ac|ca)_bias|relative_position_bias_table|pos_embed\d?|cls_token)$"
)
# where along a table of rows or columns these stand
LINES = {"ah_bias": 3, "aw_bias": 4, "ha_bias": 2, "wa_bias": 3}
# index tables and masks that the authors' files carry
COMPUTED = re.compile(r"\.(relative_position_index|attn_mask)$")


def undecayed(model: nn.Module) -> set[str]:
    """Names of the bias tables, position tables and class tokens of a model."""
    return {name for name, _ in model.named_parameters() if TABLE.search(name)}


def fit_tables(own: Tensors, given: Tensors) -> Tensors:
    """Published tensors without computed ones, tables resized to those of the model's `own`.

    Tables of rows and columns are resized linearly along these; an_bias and na_bias are 7x7 at any size.
    """
    kept = {name: tensor for name, tensor in given.items() if not COMPUTED.search(name)}
    return {
        name: _fit(name, tensor, own[name]) if name in own and tensor.shape != own[name].shape else tensor
        for name, tensor in kept.items()
    }


def _fit(name: str, table: Tensor, like: Tensor) -> Tensor:
    """`table` in the shape of `like` if they are the same table of two image sizes; else as it is."""
    leaf = name.rpartition(".")[2]
    if leaf in LINES and table.ndim == like.ndim:
        return _resize_along(table, LINES[leaf], like.shape[LINES[leaf]])
    if leaf == "relative_position_bias_table" and table.shape[1] == like.shape[1]:
        window, new_window = (tuple((side + 1) // 2 for side in square_grid(len(t))) for t in (table, like))
        return resize_bias_table(table, (window[0], window[1]), (new_window[0], new_window[1]))
    if leaf.startswith("pos_embed") and table.shape[2] == like.shape[2]:
        before = int(leaf == "pos_embed")  # DeiT's class token; the tables of PVT's stages are numbered
        grid, new_grid = square_grid(table.shape[1] - before), square_grid(like.shape[1] - before)
        return resize_position_table(table, grid, new_grid, before=before)
    return table


def _resize_along(table: Tensor, axis: int, length: int) -> Tensor:
    lines = table.movedim(axis, -1)
    resized = F.interpolate(lines.flatten(0, -2)[None], size=length, mode="linear")[0]
    return resized.unflatten(0, lines.shape[:-1]).movedim(-1, axis)
