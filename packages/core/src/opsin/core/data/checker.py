"""What is missing or broken in the data that a config names, found by reading all of it without training.

Every data set of a config is built as it stands, and every sample read by the pipeline's loading steps alone
(those whose names begin with `Load`); augmentation and packing are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from opsin.core.errors import UserError, as_user_error
from opsin.registry import DATASETS

PARTS = ("train", "val", "test")

Settings = Mapping[str, Any]


@dataclass
class DataCheck:
    """What was found in one data set.

    Args:
        part: `train`, `val` or `test`; the first that has it.
        dataset: its class, and the file or folder that it was read from.
        samples: how many were read.
        faults: one line each.
    """

    part: str
    dataset: str
    samples: int = 0
    faults: list[str] = field(default_factory=list)


def check_data(cfg: Config) -> list[DataCheck]:
    """Checks every data set of a config once.

    Args:
        cfg: as `load_config` gives it.

    Raises:
        UserError: if the config names no data.
    """
    init_default_scope(cfg.get("default_scope", "opsin"))
    checks: list[DataCheck] = []
    seen: list[Settings] = []
    for part in PARTS:
        for settings in _leaves((cfg.get(f"{part}_dataloader") or {}).get("dataset")):
            place = {key: value for key, value in settings.items() if key not in ("pipeline", "test_mode")}
            if place not in seen:
                seen.append(place)
                checks.append(_check(part, settings))
    if not checks:
        raise UserError(f"config {cfg.filename} names no data")
    return checks


def _leaves(settings: Any) -> Iterator[Settings]:
    """The data sets inside wrappers that join or repeat them."""
    if isinstance(settings, Mapping) and ("dataset" in settings or "datasets" in settings):
        for inner in [settings["dataset"]] if "dataset" in settings else settings["datasets"]:
            yield from _leaves(inner)
    elif isinstance(settings, Mapping):
        yield settings


def _check(part: str, settings: Settings) -> DataCheck:
    loading = [step for step in settings.get("pipeline", ()) if _name(step).startswith("Load")]
    changes: dict[str, Any] = {"pipeline": loading, "test_mode": True}  # mmdet's filters leave all in
    if "on_error" in settings:
        changes["on_error"] = "raise"
    found = DataCheck(part, _name(settings))
    try:
        dataset = DATASETS.build({**settings, **changes})
        count = len(dataset)
    except Exception as error:
        found.faults.append(_line(error))
        return found
    places = (getattr(dataset, name, "") for name in ("ann_file", "data_root"))
    found.dataset = " ".join([found.dataset, *[str(place) for place in places if place][:1]])
    for index in range(count):
        found.samples += 1
        try:
            dataset.prepare_data(index)
        except Exception as error:
            found.faults.append(f"sample {index}: {_line(error)}")
    return found


def _line(error: Exception) -> str:
    """A person's mistake in its own words; whatever else a reader says of a file, with the kind of error."""
    text = str(as_user_error(error) or f"{type(error).__name__}: {error}")
    return " ".join(text.split())


def _name(settings: Settings) -> str:
    kind = settings["type"]
    return str(kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]
