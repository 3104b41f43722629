"""Data order and augmentation follow from seed, epoch and position, whoever loads the data."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine_toy import ToyVectors, loader
from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler, DataLoader

from opsin.core.engine.runner import Runner
from opsin.core.engine.seeding import SeededBatches, SeededDataset, SeededIndex, seed_of, seeded
from opsin.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ByWidth(BatchSampler):
    """Batches of pictures of the same width, as mmdet's AspectRatioBatchSampler makes them."""

    def __iter__(self) -> Iterator[list[int]]:
        groups: dict[int, list[int]] = {}
        for index in self.sampler:
            group = groups.setdefault(self.sampler.dataset.get_data_info(index)["width"], [])
            group.append(index)
            if len(group) == self.batch_size:
                yield group[:]
                group.clear()
        yield from (group for group in groups.values() if group)


def epoch_of(cfg: dict[str, Any], *, seed: int = 0, epoch: int = 0, skip: int = 0) -> torch.Tensor:
    """All inputs of one epoch, (samples, 6), in the order in which they come."""
    data = Runner.build_dataloader(cfg, seed=seed)
    data.batch_sampler.sampler.set_epoch(epoch)
    data.batch_sampler.skip(skip)
    return torch.cat([torch.stack(batch["inputs"]) for batch in data])


@pytest.mark.parametrize("changes", [{}, {"batch_sampler": {"type": "opsin.ByWidth", "drop_last": False}}])
def test_workers_change_neither_order_nor_augmentation(changes: dict[str, Any]) -> None:
    alone = epoch_of(loader() | changes)
    assert torch.equal(epoch_of(loader(workers=2) | changes), alone)
    assert torch.equal(epoch_of(loader(workers=2) | changes, skip=5), alone[20:])


def test_persistent_workers_follow_the_epoch() -> None:
    data = Runner.build_dataloader(loader(workers=1), seed=0)
    for epoch in (0, 1):
        data.batch_sampler.sampler.set_epoch(epoch)
        inputs = torch.cat([torch.stack(batch["inputs"]) for batch in data])
        assert torch.equal(inputs, epoch_of(loader(), epoch=epoch))


def test_seed_and_epoch_change_order_and_augmentation() -> None:
    plain = loader(shuffle=False)
    assert torch.equal(epoch_of(plain), epoch_of(plain))
    assert not torch.equal(epoch_of(plain), epoch_of(plain, seed=1))
    assert not torch.equal(epoch_of(plain), epoch_of(plain, epoch=1))


def test_samples_of_two_processes_are_those_of_one() -> None:
    def stream(rank: int, world_size: int, size: int) -> list[SeededIndex]:
        sampler = DefaultSampler(range(24), seed=3)
        sampler.rank, sampler.world_size, sampler.num_samples = rank, world_size, 24 // world_size
        batches = SeededBatches(BatchSampler(sampler, size, False), seed=3, rank=rank, world_size=world_size)
        return [index for batch in batches for index in batch]

    alone, even, odd = stream(0, 1, 4), stream(0, 2, 2), stream(1, 2, 2)
    assert [index for pair in zip(even, odd, strict=True) for index in pair] == alone


def test_loading_leaves_the_main_process_generators_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(()).item()

    with seeded(1):
        expected = draw()
    with seeded(1):
        SeededDataset(ToyVectors())[SeededIndex(0, 5)]
        assert draw() == expected


def test_one_sample_draws_the_same_in_any_order() -> None:
    data = SeededDataset(ToyVectors())
    first = data[SeededIndex(3, 11)]["inputs"]
    data[SeededIndex(4, 12)]
    assert torch.equal(data[SeededIndex(3, 11)]["inputs"], first)
    assert not torch.equal(data[SeededIndex(3, 12)]["inputs"], first)


def test_seeds_of_neighbours_differ() -> None:
    seeds = {seed_of(seed, epoch, place) for seed in range(5) for epoch in range(5) for place in range(40)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeded_dataset_passes_for_the_dataset() -> None:
    inner = ToyVectors()
    data = SeededDataset(inner)
    data.noise = 0.0
    assert (inner.noise, data.metainfo, len(data)) == (0.0, inner.metainfo, 48)
    assert len(pickle.loads(pickle.dumps(data))) == 48
    assert not hasattr(data, "__getitems__")


def test_samplers_may_yield_more_than_an_index() -> None:
    samples = {(0, 1): torch.zeros(()), (0, 2): torch.ones(())}
    batches = SeededBatches(BatchSampler(list(samples), 2, False), seed=0)
    data: DataLoader[Any] = DataLoader(SeededDataset(samples), batch_sampler=batches)
    assert next(iter(data)).tolist() == [0.0, 1.0]


def test_batches_an_epoch_may_be_given() -> None:
    data = Runner.build_dataloader({**loader(), "num_batch_per_epoch": 3}, seed=0)
    assert (len(data), data.batch_size, len(list(data))) == (3, 4, 3)
