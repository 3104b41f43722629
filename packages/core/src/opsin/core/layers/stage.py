"""A stage of a hierarchical network whose downsampling belongs to its end, as Swin Transformer names it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class Stage(nn.Module):
    """The blocks of one width, `blocks`, and the way to the next one, `downsample` (None in the last stage).

    It holds them under their published names and runs nothing: the network may need the map between them.

    Args:
        blocks: the blocks.
        downsample: what halves the map after them.
    """

    blocks: nn.ModuleList
    downsample: nn.Module | None

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
