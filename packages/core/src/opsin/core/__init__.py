"""opsin's core: registries, ops, backbones, data, engine and command line.

`create_model`, `create_backbone`, `list_models`, `load_published` and `Task` are imported at first use, so
that `import opsin.core` stays light.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Task": "opsin.core.task",
    "UserError": "opsin.core.errors",
    "create_backbone": "opsin.core.models",
    "create_model": "opsin.core.models",
    "list_models": "opsin.core.models",
    "load_published": "opsin.core.published",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
