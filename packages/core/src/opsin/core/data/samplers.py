"""The order of samples where it is not simply shuffled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from opsin.core.errors import UserError
from opsin.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RepeatedAugmentation(Sampler[int]):
    """Every picture several times, each time augmented anew (Batch Augmentation, arXiv 1901.09335).

    As DeiT trains: an epoch has as many samples as the data set, so it sees a part of the pictures only. The
    copies of a picture go to different processes where there are several.

    Args:
        dataset: what is sampled.
        num_repeats: copies of a picture.
        seed: the run's seed; the order is a function of it and the epoch.

    Raises:
        UserError: if `num_repeats` is below 1.
    """

    epoch = 0

    def __init__(self, dataset: Any, *, num_repeats: int = 3, seed: int | None = None) -> None:
        if num_repeats < 1:
            raise UserError(f"num_repeats={num_repeats} of RepeatedAugmentation", "give 1 or more")
        self.dataset, self.num_repeats, self.seed = dataset, num_repeats, seed or 0
        self.rank, self.world_size = get_dist_info()

    def __len__(self) -> int:
        """Samples of this process in an epoch; processes have equally many."""
        return -(-len(self.dataset) // self.world_size)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.dataset), generator=generator)
        repeated = order.repeat_interleave(self.num_repeats)
        wanted = len(self) * self.world_size  # less than the repeated order but for num_repeats=1
        repeated = torch.cat((repeated, repeated[: max(0, wanted - len(repeated))]))[:wanted]
        yield from repeated[self.rank :: self.world_size].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Tells the epoch that the next iteration is."""
        self.epoch = epoch
