"""Tiles of large pictures: which part belongs to which, and how a predictor goes through them."""

import numpy as np
import pytest

from opsin.core.engine.tiled import Piece, own_parts, tiles


@pytest.mark.parametrize(
    ("size", "tile", "overlap"), [((97, 230), 64, 10), ((40, 300), 64, 63), ((64, 65), 64, 0)]
)
def test_own_parts_cover_every_pixel_once_and_lie_in_their_tiles(
    size: tuple[int, int], tile: int, overlap: int
) -> None:
    counted = np.zeros(size, int)
    for place, own in zip(tiles(size, tile, overlap), own_parts(size, tile, overlap), strict=True):
        counted[own] += 1
        whole = np.arange(size[0] * size[1]).reshape(size)
        piece = Piece(place, own, whole[place])
        assert np.array_equal(piece.result[piece.own_inside], whole[own])
    assert (counted == 1).all()


def test_borders_run_through_the_middle_of_what_neighbours_share() -> None:
    assert [columns for _, columns in own_parts((10, 100), 40, 10)] == [
        slice(0, 35),
        slice(35, 65),
        slice(65, 100),
    ]
