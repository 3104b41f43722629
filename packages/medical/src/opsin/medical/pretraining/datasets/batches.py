"""Batches of pictures alone and of volumes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from opsin.core.errors import UserError
from opsin.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class OneKindBatches(Sampler[list[int]]):
    """All volumes of an epoch, then all pictures; a batch never mixes them.

    The authors alternate epochs of either kind; an epoch here is one of theirs of each. Every process gets as
    many batches of each kind; what does not fill a batch is filled up from the beginning of the order.

    Args:
        sampler: mmengine's `DefaultSampler`, which says data set, epoch, seed, and whether to shuffle.
        batch_size: pictures a batch.
        volume_batch_size: volumes a batch; an eighth of the pictures if None, as published.

    Raises:
        UserError: if the data set does not tell its kinds apart.
    """

    def __init__(self, sampler: Any, batch_size: int, volume_batch_size: int | None = None) -> None:
        kinds = getattr(sampler.dataset, "kinds", None)
        if kinds is None:
            raise UserError("OneKindBatches needs a data set of type PathLists")
        self.sampler = sampler
        volumes = [i for i, volume in enumerate(kinds) if volume]
        pictures = [i for i, volume in enumerate(kinds) if not volume]
        sizes = (volume_batch_size or max(1, batch_size // 8), batch_size)
        self.groups = [(group, size) for group, size in zip((volumes, pictures), sizes, strict=True) if group]

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        return sum(-(-len(group) // (size * self.sampler.world_size)) for group, size in self.groups)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.sampler.seed + self.sampler.epoch)
        for group, size in self.groups:
            order = torch.tensor(group)
            if self.sampler.shuffle:
                order = order[torch.randperm(len(order), generator=generator)]
            step = size * self.sampler.world_size
            order = order.repeat(-(-step // len(order)) + 1)[: -(-len(group) // step) * step]
            for batch in order.view(-1, self.sampler.world_size, size)[:, self.sampler.rank]:
                yield batch.tolist()
