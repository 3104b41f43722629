"""What a tracker keeps of its templates: one pass over them serves every frame until a template changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one block, each (B, heads, N, d)."""


class TemplateMemory(NamedTuple):
    """The templates as search regions see them.

    Attributes:
        blocks: keys and values of the template tokens in every block.
        first: features (B, C, h, w) of the first frame's template, which the score head looks at.
    """

    blocks: tuple[KeysValues, ...]
    first: Tensor

    @classmethod
    def stack(cls, memories: Sequence[TemplateMemory]) -> TemplateMemory:
        """One batch of the memories of several targets, which have equally many templates."""
        if len(memories) == 1:
            return memories[0]
        blocks = tuple(
            (torch.cat([k for k, _ in same]), torch.cat([v for _, v in same]))
            for same in zip(*(memory.blocks for memory in memories), strict=True)
        )
        return cls(blocks, torch.cat([memory.first for memory in memories]))
