"""Initial weights of iLLaMA, selected from a language model's (weight selection, arXiv 2311.18823).

Layer i of LLaMA2-7B gives block i of iLLaMA its norms and the weights of attention and feed-forward layer;
biases, embeddings, last norm and head stay as they are. The weights are Meta's and come under their licence:
opsin reads a person's own files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from opsin.core.backbones.illama.model import ILLaMATrunk
from opsin.core.errors import UserError
from opsin.core.published import Tensors, read_checkpoint

# A block's parameter and the parts of a layer that make it, under transformers' and Meta's names.
_PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "norm1.weight": (("input_layernorm", "attention_norm"),),
    "attn.qkv.weight": tuple((f"self_attn.{part}_proj", f"attention.w{part}") for part in "qkv"),
    "attn.proj.weight": (("self_attn.o_proj", "attention.wo"),),
    "norm2.weight": (("post_attention_layernorm", "ffn_norm"),),
    "mlp.fc1.weight": (("mlp.gate_proj", "feed_forward.w1"),),
    "mlp.fc2.weight": (("mlp.down_proj", "feed_forward.w2"),),
    "mlp.fc3.weight": (("mlp.up_proj", "feed_forward.w3"),),
}
_LAYER = re.compile(r"^(?:model\.)?layers\.(\d+)\.(.+)\.weight$")


def uniform_indices(size: int, new_size: int) -> Tensor:
    """`new_size` indices within 0 … size - 1, evenly spaced: every k-th if it divides, else rounded.

    Raises:
        UserError: if `new_size` is larger than `size`.
    """
    if new_size > size:
        raise UserError(f"{new_size} of {size} channels cannot be selected", "take a smaller iLLaMA")
    if size % new_size == 0:
        return torch.arange(0, size, size // new_size)
    return torch.linspace(0, size - 1, new_size, dtype=torch.float64).round().long()


def select(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of a weight at evenly spaced indices of every dimension, of that `shape`."""
    for axis, size in enumerate(shape):
        weight = weight.index_select(axis, uniform_indices(weight.shape[axis], size))
    return weight


@torch.no_grad()
def load_llama2(model: ILLaMATrunk, paths: Sequence[str | Path]) -> None:
    """Initialises the blocks of `model` from LLaMA2's weights; the first layers serve.

    Args:
        model: an iLLaMA, in place.
        paths: the checkpoint's files, in transformers' names or Meta's; they are read one after the other, so
            no more than one is in memory.

    Raises:
        UserError: if a file can't be read, a layer lacks something, or the model is the larger one.
    """
    found: Tensors = {}
    for path in paths:
        found |= _selected(model, read_checkpoint(path))
    for index, block in enumerate(model.blocks):
        for name, parts in _PARTS.items():
            missing = [own for own, _ in parts if f"{index}.{own}" not in found]
            if missing:
                files = ", ".join(str(path) for path in paths)
                raise UserError(f"{files}: layer {index} lacks {', '.join(missing)}")
            block.get_parameter(name).copy_(torch.cat([found[f"{index}.{own}"] for own, _ in parts]))


def _selected(model: ILLaMATrunk, tensors: Mapping[str, Tensor]) -> Tensors:
    """Of the layers that `model` has blocks for: layer number and transformers' name to the selected part."""
    selected = {}
    for name, tensor in tensors.items():
        layer = _LAYER.match(name)
        if layer is None or int(layer[1]) >= len(model.blocks):
            continue
        for parameter, parts in _PARTS.items():
            for names in parts:
                if layer[2] in names:
                    rows, *columns = model.blocks[0].get_parameter(parameter).shape
                    selected[f"{layer[1]}.{names[0]}"] = select(tensor, (rows // len(parts), *columns))
    return selected
