"""Randomness as a function of (seed, epoch, position), so that nothing depends on who does the work, or when.

Every sample and every training step draws from generators that are seeded for it alone. Data order and
augmentation are then the same for any number of workers and of processes, and a resumed run goes on exactly
as the one that was not interrupted: no generator state needs saving.

* `SeededBatches` numbers the samples that a batch sampler yields: sample k of process r among w has the
  position k * w + r, its place in the order of a single process.
* `SeededDataset` seeds Python's, NumPy's and torch's generators from that number around `__getitem__`.

What this can't see: a transform that keeps results of earlier samples (mmdet's `CachedMosaic`), and random
numbers drawn by a collate function.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler, get_worker_info


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that follows from `parts` alone; unlike `seed + rank`, neighbours share no streams."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_generators(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's global generators, those of GPUs too if any is in use."""
    _seed_cpu(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _seed_cpu(seed: int) -> None:
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators of the CPU run from `seed` inside, and go on afterwards as if nothing had been drawn."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed_cpu(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class SeededIndex(NamedTuple):
    """What a sampler yielded (an index for most datasets), and the seed of that sample's randomness."""

    index: Any
    seed: int


class SeededBatches(Sampler[list[SeededIndex]]):
    """Yields the batches of `batches` with a seed for each sample; can begin in the middle of an epoch.

    Args:
        batches: a batch sampler that has its `sampler`, which may have an `epoch`.
        seed: the run's seed.
        rank: this process.
        world_size: how many processes there are.
    """

    def __init__(self, batches: Any, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.batches = batches
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._skip = 0

    def skip(self, count: int) -> None:
        """The next iteration, that one only, leaves out its first `count` batches and loads none of them."""
        self._skip = count

    @property
    def sampler(self) -> Any:
        """The sampler below the batches: mmengine calls its `set_epoch`."""
        return self.batches.sampler

    @property
    def batch_size(self) -> int:
        """Samples a batch in this process."""
        return int(self.batches.batch_size)

    def __deepcopy__(self, memo: dict[int, Any]) -> SeededBatches:
        return (
            self  # mmengine copies the loader's config, and the generator in an InfiniteSampler has no copy
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        # A generator: torch makes two iterators and starts one, which must find what `skip` was given.
        skip, self._skip = self._skip, 0
        epoch = getattr(self.sampler, "epoch", 0)
        first = 0
        for number, batch in enumerate(self.batches):
            if number >= skip:
                places = (k * self.world_size + self.rank for k in range(first, first + len(batch)))
                yield [
                    SeededIndex(i, seed_of(self.seed, epoch, k)) for i, k in zip(batch, places, strict=True)
                ]
            first += len(batch)


class SeededDataset:
    """A dataset whose samples draw from generators seeded for them; in all else it is the dataset itself.

    Args:
        dataset: a map-style dataset.
        length: its length as samplers see it, if other than its own (mmengine's `num_batch_per_epoch`).
    """

    _dataset: Any
    _length: int | None

    def __init__(self, dataset: Any, length: int | None = None) -> None:
        object.__setattr__(self, "_dataset", dataset)
        object.__setattr__(self, "_length", length)

    def __len__(self) -> int:
        return len(self._dataset) if self._length is None else self._length

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, SeededIndex):
            return self._dataset[index]
        if get_worker_info() is not None:  # a worker's generators serve nothing else
            _seed_cpu(index.seed)
            return self._dataset[index.index]
        with seeded(index.seed):
            return self._dataset[index.index]

    def __getattr__(self, name: str) -> Any:
        # Special methods are not passed on: copy and pickle look for them before `_dataset` is there, and
        # torch would go round `__getitem__` by the dataset's `__getitems__`.
        if name.startswith("__") or name == "_dataset":
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Hooks that change the pipeline in training (mmdet's `PipelineSwitchHook`) must reach the dataset.
        setattr(self._dataset, name, value)
