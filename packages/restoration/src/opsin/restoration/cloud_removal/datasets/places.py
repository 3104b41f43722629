"""Folders of places, each seen on three cloudy dates and once without clouds, in the two published layouts.

train.txt val.txt test.txt              names of tiles, one a line
Sen2_MTC/TILE/cloud/NAME_0.tif          uint16, red, green, blue, near infrared; NAME_1.tif, NAME_2.tif
Sen2_MTC/TILE/cloudless/NAME.tif                                                       Sen2_MTC_New

cloudy/NAME_0.jpg  cloudy/NAME_0_ir.jpg     three dates, near infrared in files of its own
clear/NAME.jpg                                                                         Sen2_MTC_Old
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch.utils.data import random_split

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import list_images
from opsin.core.errors import UserError, unknown
from opsin.registry import DATASETS

DATES = 3
SPLITS = {"train": 0, "val": 1, "test": 2}
SPLIT_SHARES = (0.8, 0.1, 0.1)  # of 3130 places 2504, 313 and 313, as published
SPLIT_SEED = 2022
DATED = re.compile(r"(?P<name>.+)_(?P<date>[0-2])$")


def group_dates(paths: Iterable[Path]) -> dict[Path, tuple[Path, ...]]:
    """Files `NAME_0`, `NAME_1`, `NAME_2` by `NAME` (with its folder); files of other names are left out.

    Raises:
        UserError: if a place lacks a date, which it names, or has one twice.
    """
    found: dict[Path, dict[int, Path]] = {}
    for path in paths:
        match = DATED.fullmatch(path.stem)
        if match is None:
            continue
        dates = found.setdefault(path.parent / match["name"], {})
        other = dates.setdefault(int(match["date"]), path)
        if other != path:
            raise UserError(f"{other} and {path.name} are one date of one place", "remove one of them")
    for place, dates in found.items():
        missing = sorted(set(range(DATES)) - set(dates))
        if missing:
            names = ", ".join(f"{place.name}_{date}" for date in missing)
            raise UserError(f"{place.parent} lacks {names}", f"a place has {DATES} dates, _0 to _2")
    return {place: tuple(dates[t] for t in range(DATES)) for place, dates in sorted(found.items())}


def infrared_of(dates: Iterable[Path]) -> tuple[Path, ...] | None:
    """The files `NAME_0_ir`, … beside the dates, or None if there are none.

    Raises:
        UserError: if some dates have one and others have not.
    """
    pairs = [(date, date.with_name(f"{date.stem}_ir{date.suffix}")) for date in dates]
    there = [ir for _, ir in pairs if ir.is_file()]
    if there and len(there) < len(pairs):
        lacking = next(ir for _, ir in pairs if not ir.is_file())
        raise UserError(f"{lacking} is missing", "every date has a near infrared file, or none has")
    return tuple(there) or None


class PlacesDataset(Dataset):
    """Base of the layouts; an entry has `img_path` (the first date), `date_paths`, `ir_paths`, `gt_path`."""

    def _entry(self, dates: tuple[Path, ...], truth: Path) -> dict[str, Any]:
        infrared = infrared_of(dates)
        return dict(
            img_path=str(dates[0]),
            date_paths=[str(path) for path in dates],
            ir_paths=[str(path) for path in infrared or ()],
            gt_path=str(truth),
        )

    def _entries(self, cloudy: Path, clear: Path) -> list[dict[str, Any]]:
        """The places of a folder of dates and a folder of truths, in the order of their names."""
        self._require([cloudy, clear])
        truths = {path.stem: path for path in list_images(clear)}
        places = group_dates(list_images(cloudy))
        entries = []
        for place, dates in places.items():
            if place.name not in truths:
                raise UserError(
                    f"{clear} lacks {place.name}", f"every place in {cloudy} needs its truth there"
                )
            entries.append(self._entry(dates, truths[place.name]))
        without = sorted(set(truths) - {place.name for place in places})
        if without:
            raise UserError(f"{cloudy} lacks {without[0]}_0 to _2", f"{clear} has {without[0]}")
        return entries


@DATASETS.register_module()
class Sen2MTCNew(PlacesDataset):
    """Sen2_MTC_New: reflectances of four bands, split by tiles.

    Args:
        ann_file: a list of tiles in `data_root`; '': all tiles.
        dataset: `data_root`, `pipeline`, `test_mode`, `on_error`, … of `Dataset`.

    Raises:
        UserError: if files, folders or dates are missing (names them).
    """

    def __init__(self, *, ann_file: str = "", **dataset: Any) -> None:
        super().__init__(ann_file=ann_file, **dataset)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The places of all tiles of the list."""
        root = Path(self.data_root or ".") / "Sen2_MTC"
        self._require([root])
        if self.ann_file:
            tiles = Path(self.ann_file).read_text(encoding="utf-8").split()
        else:
            tiles = sorted(path.name for path in root.iterdir() if path.is_dir())
        self._require([root / tile for tile in tiles])
        return [
            entry
            for tile in tiles
            for entry in self._entries(root / tile / "cloud", root / tile / "cloudless")
        ]


@DATASETS.register_module()
class Sen2MTCOld(PlacesDataset):
    """Sen2_MTC_Old: 8-bit pictures, split at random with the authors' seed.

    Args:
        split: which part.
        dataset: `data_root`, `pipeline`, `test_mode`, `on_error`, … of `Dataset`.

    Raises:
        UserError: if files, folders or dates are missing (names them), or for an unknown split.
    """

    def __init__(self, *, split: Literal["train", "val", "test"], **dataset: Any) -> None:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        self.split = split
        super().__init__(**dataset)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The places of the split, in the order that the authors' split has."""
        root = Path(self.data_root or ".")
        places = self._entries(root / "cloudy", root / "clear")
        generator = torch.Generator().manual_seed(SPLIT_SEED)
        parts: list[Any] = random_split(cast("Any", places), SPLIT_SHARES, generator)
        return [places[index] for index in parts[SPLITS[self.split]].indices]
