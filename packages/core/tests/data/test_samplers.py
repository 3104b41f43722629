from collections import Counter

import pytest

from opsin.core.data.samplers import RepeatedAugmentation
from opsin.core.errors import UserError


def test_every_seen_picture_comes_three_times_and_an_epoch_keeps_its_length():
    sampler = RepeatedAugmentation(range(30), num_repeats=3, seed=1)
    order = list(sampler)
    assert len(order) == len(sampler) == 30
    assert set(Counter(order).values()) == {3} and len(set(order)) == 10


def test_epochs_differ_and_are_a_function_of_seed_and_epoch():
    sampler, again = (RepeatedAugmentation(range(30), seed=1) for _ in range(2))
    first = list(sampler)
    sampler.set_epoch(1)
    again.set_epoch(1)
    assert list(sampler) == list(again) != first
    assert list(RepeatedAugmentation(range(30), seed=2)) != first


def test_processes_share_the_copies_of_a_picture(monkeypatch):
    from opsin.core.data import samplers

    shares = []
    for rank in range(3):
        monkeypatch.setattr(samplers, "get_dist_info", lambda rank=rank: (rank, 3))
        shares.append(list(RepeatedAugmentation(range(31), num_repeats=3, seed=0)))
    assert {len(share) for share in shares} == {11}
    assert shares[0] == shares[1] == shares[2]  # the same pictures, one copy each


def test_one_repeat_is_a_plain_shuffle():
    assert sorted(RepeatedAugmentation(range(7), num_repeats=1)) == list(range(7))


def test_no_repeat_is_refused():
    with pytest.raises(UserError, match="num_repeats=0"):
        RepeatedAugmentation(range(7), num_repeats=0)
