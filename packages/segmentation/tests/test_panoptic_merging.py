"""Mask-wise merging by itself, and inside stock Mask2Former."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from opsin.registry import MODELS
from opsin.segmentation.panoptic.merging import MaskwiseFusionHead, MaskwiseMerging, binarise

THINGS, CLASSES = 2, 4
CAT, DOG, GRASS, SKY = range(CLASSES)


def strip(first: int, last: int, width: int = 10) -> Tensor:
    mask = torch.zeros(1, width, dtype=torch.bool)
    mask[0, first:last] = True
    return mask


def merge(masks: list[Tensor], scores: list[float], labels: list[int], **settings: float) -> list[int]:
    merging = MaskwiseMerging(**settings)
    panoptic = merging(torch.stack(masks), torch.tensor(scores), torch.tensor(labels), THINGS, CLASSES)
    return panoptic[0].tolist()


def test_better_mask_gets_the_overlap_and_no_pixel_is_claimed_twice() -> None:
    got = merge([strip(0, 6), strip(4, 10)], [0.6, 0.9], [CAT, DOG])
    assert got == [CAT + 2000] * 4 + [DOG + 1000] * 6


def test_thing_is_dropped_when_more_than_two_fifths_of_it_are_taken() -> None:
    masks, labels = [strip(0, 5), strip(0, 10)], [DOG, CAT]
    assert merge(masks, [0.9, 0.5], labels)[5:] == [CLASSES] * 5
    assert merge(masks, [0.9, 0.5], labels, max_overlap_things=0.5)[5:] == [CAT + 2000] * 5


def test_taken_pixels_count_whether_thing_or_stuff_took_them() -> None:
    masks = [strip(0, 3), strip(0, 10)]
    assert merge(masks, [0.9, 0.5], [CAT, GRASS])[3:] == [CLASSES] * 7  # stuff may lose a fifth only
    assert merge(masks, [0.9, 0.5], [SKY, CAT])[3:] == [CAT + 1000] * 7


def test_stuff_has_no_instance_and_only_accepted_things_are_counted() -> None:
    got = merge([strip(0, 4), strip(0, 4), strip(4, 7), strip(7, 10)], [0.9, 0.8, 0.7, 0.6], [0, 0, GRASS, 1])
    assert got == [CAT + 1000] * 4 + [GRASS] * 3 + [DOG + 2000] * 3


def test_masks_that_score_too_low_or_are_empty_are_dropped() -> None:
    got = merge([strip(0, 5), strip(5, 5), strip(5, 10)], [0.2, 0.9, 0.2], [CAT, CAT, SKY])
    assert got == [CLASSES] * 10
    assert merge([strip(0, 5)], [0.2], [CAT], min_score_things=0.1)[:5] == [1000] * 5


def test_confidence_is_the_mean_inside_the_mask_over_one_pixel_too_many() -> None:
    soft = torch.tensor([[[0.6, 0.9, 0.2]]]).repeat(20, 1, 1)
    found = binarise(soft, lambda masks: masks)
    assert found.areas.tolist() == [2] * 20
    torch.testing.assert_close(found.confidence, torch.full((20,), 1.5 / 3))


def fusion(**merging: float) -> MaskwiseFusionHead:
    head: MaskwiseFusionHead = MODELS.build(
        {
            "type": "opsin.MaskwiseFusionHead",
            "num_things_classes": THINGS,
            "num_stuff_classes": CLASSES - THINGS,
            "merging": merging,
        }
    )
    return head


def test_mask2formers_queries_are_merged_mask_by_mask() -> None:
    masks = torch.stack([strip(0, 6), strip(4, 10), strip(0, 10)]) * 20.0 - 10.0
    classes = torch.full((3, CLASSES + 1), -9.0)
    classes[0, DOG] = classes[1, SKY] = classes[2, CLASSES] = 9.0  # the third finds no object
    got = fusion(max_overlap_stuff=0.4).panoptic_postprocess(classes, masks).sem_seg[0, 0].tolist()
    assert got == [DOG + 1000] * 6 + [SKY] * 4
    classes[:] = -9.0
    classes[:, CLASSES] = 9.0
    assert (fusion().panoptic_postprocess(classes, masks).sem_seg == CLASSES).all()


@pytest.mark.parametrize("count", [1, 17, 40])
def test_masks_are_cut_the_same_in_few_or_many_steps(count: int) -> None:
    soft = torch.rand(count, 4, 5)
    found = binarise(soft, lambda masks: torch.nn.functional.interpolate(masks[None], size=(8, 10))[0])
    assert found.masks.shape == (count, 8, 10)
    assert torch.equal(found.areas, (soft > 0.5).sum((1, 2)) * 4)
