"""Large pictures by tiles: maps as the whole picture's, and things in one piece over the seams."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from opsin.core.data import write_image
from opsin.core.engine.config import load_config
from opsin.core.engine.predictor import Predictor
from opsin.core.engine.tiled import Piece, own_parts, tiles
from opsin.core.errors import UserError
from opsin.core.task import get_task
from opsin.segmentation.panoptic.tiling import joined
from opsin.segmentation.tiling import blended, stitched

SIZE, TILE, OVERLAP = (150, 200), 64, 16
THINGS, NOTHING = 2, 4  # of four classes, two are things


def pieces(whole: NDArray[Any], look: Callable[[NDArray[Any]], NDArray[Any]]) -> Iterator[Piece]:
    """What `look` makes of each tile of (…, H, W)."""
    places = zip(tiles(SIZE, TILE, OVERLAP), own_parts(SIZE, TILE, OVERLAP), strict=True)
    for place, own in places:
        yield Piece(place, own, look(whole[..., place[0], place[1]]))


def scene() -> NDArray[np.int32]:
    """A panoptic map: two sorts of stuff, discs as things over seams and corners, a gap without a segment."""
    panoptic = np.full(SIZE, 2, np.int32)
    panoptic[:, 120:] = 3
    discs = [(60, 55, 30, 0), (100, 60, 9, 0), (30, 150, 12, 1), (110, 150, 40, 1), (20, 20, 6, 0)]
    for number, (y, x, radius, label) in enumerate(discs, start=1):
        inside = np.hypot(*np.ogrid[-y : SIZE[0] - y, -x : SIZE[1] - x]) < radius
        panoptic[inside] = label + 1000 * number
    panoptic[140:, :30] = NOTHING
    return panoptic


def seen_alone(panoptic: NDArray[Any]) -> NDArray[np.int32]:
    """A tile as a network sees it: its things are numbered anew, each that is parted gets two numbers."""
    found = panoptic.copy()
    count = 0
    for value in np.unique(panoptic[panoptic % 1000 < THINGS]):
        parts, numbered = cv2.connectedComponents((panoptic == value).astype(np.uint8))
        for part in range(1, parts):
            count += 1
            found[numbered == part] = value % 1000 + 1000 * count
    return found


def test_things_that_tiles_cut_are_one_again_and_neighbours_stay_two() -> None:
    whole = scene()
    found = joined(pieces(whole, seen_alone), SIZE, THINGS)
    assert np.array_equal(found % 1000, whole % 1000)
    pairs = {(a, b) for a, b in zip(found.ravel().tolist(), whole.ravel().tolist(), strict=True)}
    assert (
        len(pairs) == len(np.unique(whole)) == len(np.unique(found))
    )  # the same segments under other numbers
    assert sorted({value // 1000 for value in np.unique(found) if value % 1000 < THINGS}) == [1, 2, 3, 4, 5]


def test_touching_things_of_one_class_are_not_joined() -> None:
    whole = np.full(SIZE, 2, np.int32)
    whole[20:60, 10:100], whole[60:100, 10:100] = 1000, 2000
    assert len(np.unique(joined(pieces(whole, seen_alone), SIZE, THINGS))) == 3


def test_thing_that_one_tile_alone_sees_in_the_overlap_is_not_joined_to_another() -> None:
    left, right = np.full((10, 20), 2, np.int32), np.full((10, 20), 2, np.int32)
    left[2:8, 10:14] = 1000  # ends where the right tile's thing begins
    right[2:8, 5:9] = 1000
    own = [(slice(0, 10), slice(0, 15)), (slice(0, 10), slice(15, 30))]
    places = [(slice(0, 10), slice(0, 20)), (slice(0, 10), slice(10, 30))]
    parts = [Piece(*cut, found) for *cut, found in zip(places, own, (left, right), strict=True)]
    assert len(np.unique(joined(parts, (10, 30), THINGS))) == 3


def test_label_maps_are_stitched_and_values_blended_to_the_whole() -> None:
    labels = (scene() % 1000).astype(np.uint8)
    assert np.array_equal(stitched(pieces(labels, np.copy), SIZE), labels)
    values = np.random.default_rng(0).normal(size=(3, *SIZE)).astype(np.float32)
    np.testing.assert_allclose(blended(pieces(values, np.copy), SIZE, 3), values, atol=1e-5)


def test_blend_passes_from_one_tile_to_the_next_without_a_step() -> None:
    levels = iter(range(100))
    ramp = blended(pieces(np.zeros((1, *SIZE)), lambda tile: np.full_like(tile, next(levels))), SIZE, 1)
    assert np.abs(np.diff(ramp[0, 0])).max() < 0.2  # a seam would be a step of 1


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        ("upernet_convnext_samples", "masks"),
        ("panoptic_segformer_convnext_samples", "panoptic"),
        ("panoptic_segformer_convnext_camvid", "masks"),
        ("polymax_depth_samples", "depth"),
        ("polymax_normals_samples", "normals"),
        ("polymax_semantic_samples", "labels"),
    ],
)
def test_predict_takes_a_large_picture_by_tiles(config: str, folder: str, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    write_image(tmp_path / "a.png", picture)
    predictor = predictor_of(config, "tiles.size=96", "tiles.overlap=32")
    seen: list[tuple[int, ...]] = []
    predictor.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["inputs"].shape[-2:])), with_kwargs=True
    )
    predictor.predict([tmp_path / "a.png"], tmp_path / "out", quiet=True)
    written = cv2.imread(str(tmp_path / "out" / folder / "a.png"), cv2.IMREAD_UNCHANGED)
    assert written.shape[:2] == (100, 150)
    assert cv2.imread(str(tmp_path / "out/pictures/a.png")) is not None
    assert len(seen) == 4 and max(max(size) for size in seen) <= 128


def predictor_of(config: str, *overrides: str) -> Predictor:
    """With random weights."""
    torch.manual_seed(0)
    cfg = load_config(config, overrides=overrides)
    predictor: Predictor = get_task(cfg.task).load_predictor()(cfg, None)
    return predictor


def test_objects_of_a_dense_model_are_refused_by_tiles() -> None:
    from mmengine.structures import BaseDataElement, InstanceData

    from opsin.segmentation.dense_prediction.predictor import DensePredictor

    result = BaseDataElement(pred_instances=InstanceData())
    piece = Piece((slice(0, 4),) * 2, (slice(0, 4),) * 2, result)
    with pytest.raises(UserError, match="can't be joined over tiles"):
        DensePredictor.joined(object.__new__(DensePredictor), [piece], (4, 4))


def test_instances_of_a_tiled_picture_are_left_to_its_segments(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((100, 150, 3), np.uint8))
    predictor = predictor_of("panoptic_segformer_convnext_samples", "tiles.size=96", "tiles.overlap=8")
    [record] = predictor.predict([tmp_path / "a.png"], tmp_path / "out", quiet=True)
    assert record["instances"] == json.loads((tmp_path / "out/instances.json").read_text()) == []
