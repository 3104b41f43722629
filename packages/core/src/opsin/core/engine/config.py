"""Configs: finding one by path or short name, its overrides, its data folder and its task.

A name is a path, the file stem of a config of an installed task (`retinanet_convnext_samples`), or a
config that an OpenMMLab wheel carries (`mmdet::retinanet/retinanet_r50_fpn_1x_coco`). In `_base_`,
`opsin::runtime.py` is a file in core's `configs/_base_/`, and `opsin.detection::schedule.py`
one in that package's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import MODELS, Registry, init_default_scope

from opsin import registry
from opsin.core import compat
from opsin.core.errors import UserError, unknown
from opsin.core.task import Task, get_task, tasks

SCOPE_TASKS = {"mmdet": "detection", "mmseg": "segmentation"}
WHEELS = {"mmdet": "opsin-detection", "mmseg": "opsin-segmentation"}


def short_names() -> dict[str, Path]:
    """The configs of the installed tasks by short name."""
    return {name: path for task in tasks().values() for name, path in task.configs().items()}


def find_config(name: str) -> Path:
    """The file of a config given by path, short name or `wheel::path`.

    Raises:
        UserError: if there is none, with the nearest short names.
    """
    if "::" in name:
        return _wheel_config(name)
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in {".py", ".json", ".yaml", ".yml"} or len(path.parts) > 1:
        raise UserError(f"no config at {path}")
    if name not in short_names():
        raise unknown("config", name, short_names())
    return short_names()[name]


def _wheel_config(name: str) -> Path:
    wheel, _, relative = name.partition("::")
    spec = find_spec(wheel) if wheel in WHEELS else None
    if wheel not in WHEELS:
        raise unknown("config source", wheel, WHEELS)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{name} needs {wheel}, which is not installed", f"pip install {WHEELS[wheel]}")
    root = Path(spec.submodule_search_locations[0]) / ".mim" / "configs"
    path = (root / relative).with_suffix(".py")
    if not path.is_file():
        known = [
            f"{wheel}::{p.relative_to(root).with_suffix('')}"
            for p in root.rglob("*.py")
            if "_base_" not in p.parts
        ]
        raise unknown("config", name, known)
    return path


def load_config(name: str, *, overrides: Sequence[str] = (), data: Path | None = None) -> Config:
    """Reads a config and makes it ready to build from: its task's classes registered, its data folder set.

    Args:
        name: path, short name, or `mmdet::…` / `mmseg::…`.
        overrides: `key.path=value` strings; values are parsed like Python literals and comma lists.
        data: replaces the config's `data_root` wherever the config uses it.

    Raises:
        UserError: unknown config, a config that can't be parsed, an override of a key that is not there, a
            task whose package is not installed, or `data` for a config without `data_root`.
    """
    compat.apply()
    path = find_config(name)
    try:
        with _opsin_bases():
            cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is code: whatever is wrong in it is the writer's to mend
        raise UserError(f"config {path} can't be read: {type(error).__name__}: {str(error)[:300]}") from error
    task_of(cfg).register()
    if data is not None:
        set_data_root(cfg, data)
    apply_overrides(cfg, overrides)
    return cfg


def task_of(cfg: Config) -> Task:
    """The installed task of a config: its `task`, or the one that its `default_scope` belongs to.

    Raises:
        UserError: if the config names none, or one whose package is not installed.
    """
    name = cfg.get("task") or SCOPE_TASKS.get(cfg.get("default_scope", ""))
    if not name:
        raise UserError(f"config {cfg.filename} does not say its task", 'add for example task = "detection"')
    return get_task(name)


def set_data_root(cfg: Config, data: Path) -> None:
    """Replaces `cfg.data_root` by `data` in every string of the config that begins with it."""
    old = cfg.get("data_root")
    if not old:
        raise UserError(f"config {cfg.filename} has no data_root that --data could replace")
    if not Path(data).is_dir():
        raise UserError(f"no data folder at {data}")
    new = f"{Path(data)}/"

    def moved(value: str) -> str:
        if value == old or value == old.rstrip("/"):
            return new
        return new + value[len(old) :].lstrip("/") if value.startswith(old.rstrip("/") + "/") else value

    _map_strings(cfg._cfg_dict, moved)


def _map_strings(node: Any, change: Callable[[str], str]) -> None:
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
    for key, value in items:
        if isinstance(value, str):
            node[key] = change(value)
        elif isinstance(value, tuple):
            as_list = list(value)
            _map_strings(as_list, change)
            node[key] = tuple(as_list)
        elif isinstance(value, (dict, list)):
            _map_strings(value, change)


def apply_overrides(cfg: Config, overrides: Sequence[str]) -> None:
    """Applies `key.path=value` strings to `cfg`."""
    changes = {}
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UserError(f"override {text!r} is not of the form key=value")
        first = key.split(".")[0]
        if first not in cfg:
            raise unknown("config key", first, cfg.keys())
        changes[key] = DictAction._parse_iterable(value)
    try:
        cfg.merge_from_dict(changes)
    except (KeyError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(f"override {', '.join(overrides)} does not fit the config: {error}") from error


@contextmanager
def _opsin_bases() -> Iterator[None]:
    """Lets `_base_` name files of opsin's packages; mmengine resolves only the packages of a fixed table."""
    original = Config._get_cfg_path

    def resolve(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, separator, relative = cfg_path.partition("::")
        if separator and package.split(".")[0] == "opsin":
            root = resources.files("opsin.core" if package == "opsin" else package)
            return str(Path(str(root)) / "configs" / "_base_" / relative.removeprefix("_base_/")), None
        found: tuple[str, str | None] = original(cfg_path, filename)
        return found

    Config._get_cfg_path = staticmethod(resolve)
    try:
        yield
    finally:
        Config._get_cfg_path = staticmethod(original)


def build_model(cfg: Config) -> Any:
    """The config's model with random weights, its parts looked up in the config's own scope.

    Raises:
        UserError: for a type that no registry has, and for what the model itself refuses.
    """
    init_default_scope(cfg.get("default_scope", "opsin"))
    with unknown_types_named():
        return MODELS.build(cfg.model)


@contextmanager
def unknown_types_named() -> Iterator[None]:
    """Turns mmengine's error for a `type` that no registry has into one line with the nearest names.

    Raises:
        UserError: in its place.
    """
    try:
        yield
    except KeyError as error:
        found = re.search(r"'?([\w.]+) is not in the \S+::(\S.*?) registry", str(error))
        if found is None:
            raise
        name, kind = found.groups()
        registries = [r for r in vars(registry).values() if isinstance(r, Registry) and r.name == kind]
        known = {
            n for child in registries for part in (child, child.parent) if part for n in part.module_dict
        }
        raise unknown(kind, name, known) from error


def pipeline_of(cfg: Config) -> list[ConfigDict]:
    """The transforms that a picture passes at test time: `predict_pipeline`, else the test set's."""
    if "predict_pipeline" in cfg:
        return list(cfg.predict_pipeline)
    dataset = cfg.test_dataloader.dataset
    while "pipeline" not in dataset and "dataset" in dataset:
        dataset = dataset.dataset
    return list(dataset.pipeline)
