"""Detection in tiles: every pixel is seen, and what tiles see twice is found once."""

from itertools import pairwise

import pytest
import torch
from mmengine.structures import InstanceData

from opsin.core.engine.tiled import tile_corners, tiles
from opsin.core.errors import UserError
from opsin.detection.tiling import merge


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(100, 40, 10), (101, 40, 0), (41, 40, 39), (30, 40, 5)]
)
def test_tiles_cover_an_axis_and_share_at_least_the_overlap(length, tile, overlap):
    corners = tile_corners(length, tile, overlap)
    assert corners[0] == 0
    assert corners[-1] + tile >= length
    assert all(second - first <= tile - overlap for first, second in pairwise(corners))


def test_as_few_tiles_as_cover():
    assert tile_corners(100, 40, 10) == [0, 30, 60]
    assert len(list(tiles((100, 70), 40, 10))) == 3 * 2


@pytest.mark.parametrize("overlap", [-1, 40])
def test_impossible_overlap_is_told(overlap):
    with pytest.raises(UserError, match="give 0 <= overlap < size"):
        tile_corners(100, 40, overlap)


def instances(*rows, masks=None):
    found = InstanceData(
        bboxes=torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([row[1] for row in rows], dtype=torch.float32),
        labels=torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )
    if masks is not None:
        found.masks = masks
    return found


LEFT, RIGHT = (slice(0, 40), slice(0, 40)), (slice(0, 40), slice(30, 70))


def test_an_object_that_two_tiles_see_is_found_once():
    seen = instances(((31, 5, 39, 15), 0.9, 0))
    same = instances(((1, 5, 9, 15), 0.8, 0), ((20, 20, 38, 38), 0.7, 0))
    merged = merge([(LEFT, seen), (RIGHT, same)], (40, 70))
    assert merged.bboxes.tolist() == [[31, 5, 39, 15], [50, 20, 68, 38]]


def test_a_piece_cut_off_by_a_tile_is_dropped_but_another_class_stays():
    whole = instances(((10, 10, 60, 30), 0.9, 0))
    pieces = instances(((0, 10, 10, 30), 0.6, 0), ((0, 10, 10, 30), 0.6, 1))
    merged = merge([((slice(0, 40), slice(0, 70)), whole), (RIGHT, pieces)], (40, 70))
    assert merged.labels.tolist() == [0, 1]


def test_masks_move_with_their_tile():
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 5:9, 30:34] = True
    merged = merge(
        [(LEFT, instances(masks=mask[:0])), (RIGHT, instances(((30, 5, 34, 9), 0.9, 0), masks=mask))],
        (40, 70),
    )
    y, x = merged.masks[0].nonzero(as_tuple=True)
    assert (y.min(), y.max(), x.min(), x.max()) == (5, 8, 60, 63)


def test_nothing_found_in_any_tile_is_nothing():
    assert len(merge([(LEFT, instances()), (RIGHT, instances())], (40, 70))) == 0
