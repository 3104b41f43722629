"""Runs an action right after a module is imported, so that a mend costs nothing until it matters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Action = Callable[[ModuleType], None]


class _Loader(Loader):
    """Loads a module by its own loader, then runs the actions."""

    def __init__(self, own: Loader, actions: Sequence[Action]) -> None:
        self.own = own
        self.actions = actions

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module keeps its own loader: inspect and pickle ask it for its source.
        module.__loader__ = self.own
        if module.__spec__ is not None:
            module.__spec__.loader = self.own
        self.own.exec_module(module)
        for action in self.actions:
            action(module)


class _Finder(MetaPathFinder):
    """Stands before all other finders and lets them find; wraps the loader of a module that has actions."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        actions = self.actions.get(fullname)
        if actions is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, actions)
                return spec
        return None


_FINDER = _Finder()


def after_import(name: str, action: Action) -> None:
    """Runs `action(module)` once the module `name` is imported: at once if it is already.

    Args:
        name: the full dotted name of a module; nothing is imported here.
        action: is given the module after its own code has run, and before whoever imports it goes on.
    """
    if name in sys.modules:
        action(sys.modules[name])
        return
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.actions.setdefault(name, []).append(action)
