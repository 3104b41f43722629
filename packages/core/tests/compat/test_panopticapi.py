from collections.abc import Callable
from importlib import import_module

import numpy as np

from opsin.core.compat import panopticapi

CATEGORIES = {1: {"isthing": 1}, 2: {"isthing": 0}, 3: {"isthing": 1}}


def counted() -> panopticapi.PQStat:
    """One match (IoU 0.8), one false positive and one missed thing of class 1; one match (0.6) of stuff 2."""
    stat = panopticapi.PQStat()
    stat[1].iou, stat[1].tp, stat[1].fp, stat[1].fn = 0.8, 1, 1, 1
    stat[2].iou, stat[2].tp = 0.6, 1
    return stat


def test_unmended_panopticapi_is_missing(unmended: Callable[[str], str]) -> None:
    assert "No module named 'panopticapi'" in unmended("import panopticapi.evaluation")


def test_its_names_are_where_mmdet_looks() -> None:
    assert import_module("panopticapi").__name__ == "panopticapi"
    assert import_module("panopticapi.evaluation").PQStat is panopticapi.PQStat
    assert import_module("panopticapi.utils").rgb2id is panopticapi.rgb2id


def test_ids_and_colours_are_inverse() -> None:
    ids = np.array([[0, 1, 255], [256, 65536, 256**3 - 1]])
    picture = panopticapi.id2rgb(ids)
    assert picture.shape == (2, 3, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[1, 1], [0, 0, 1])
    np.testing.assert_array_equal(panopticapi.rgb2id(picture), ids)
    assert panopticapi.id2rgb(65536 + 2) == [2, 0, 1] and panopticapi.rgb2id([2, 0, 1]) == 65538


def test_quality_is_iou_of_matches_over_half_of_the_mistakes() -> None:
    mean, per_class = counted().pq_average(CATEGORIES, isthing=None)
    assert per_class[1] == {"pq": 0.4, "sq": 0.8, "rq": 0.5}
    assert per_class[3] == {"pq": 0.0, "sq": 0.0, "rq": 0.0}
    # class 3 does not occur and does not count
    assert mean == {"pq": 0.5, "sq": 0.7, "rq": 0.75, "n": 2}


def test_things_and_stuff_are_averaged_apart() -> None:
    assert counted().pq_average(CATEGORIES, isthing=True)[0]["pq"] == 0.4
    assert counted().pq_average(CATEGORIES, isthing=False)[0]["pq"] == 0.6


def test_counts_of_two_processes_add_up() -> None:
    stat = counted()
    stat += counted()
    assert (stat[1].tp, stat[1].fp, stat[1].fn, stat[1].iou) == (2, 2, 2, 1.6)
