"""`mmcv._ext` for mmcv-lite: the names that `mmcv.ops` asks for, computed by `opsin.core.ops`.

Needed by: mmcv-lite 2.x, which has no compiled extension, so `import mmcv.ops` (and with it mmdet and
mmsegmentation) fails with `No module named 'mmcv._ext'`. A full mmcv keeps its own extension.

On the CPU mmcv never asks its extension for multi-scale deformable attention but samples level by level,
eight times slower than opsin's kernel and with every sample in memory; the function it calls there is
replaced as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import update_wrapper
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import TYPE_CHECKING, Any

from opsin.core.compat.import_hook import after_import

if TYPE_CHECKING:
    from torch import Tensor

NAME = "mmcv._ext"


class _Extension(ModuleType):
    """Looks a function up in `opsin.core.ops.mmcv_functions` when it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        function = import_module("opsin.core.ops.mmcv_functions").lookup(name)
        setattr(self, name, function)
        return function


class _Finder(MetaPathFinder, Loader):
    """Finds `mmcv._ext` without importing mmcv."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(NAME, self) if fullname == NAME else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Extension(spec.name, __doc__)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: names are looked up lazily."""


def _attend(
    value: Tensor, value_spatial_shapes: Any, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """What mmcv calls `multi_scale_deformable_attn_pytorch`; it takes the levels' sizes as a list too."""
    from torch import as_tensor

    from opsin.core.ops.ms_deform_attn import ms_deform_attn

    shapes = as_tensor(value_spatial_shapes, device=value.device)
    return ms_deform_attn(value, shapes, sampling_locations, attention_weights)


def _replace_attention(module: ModuleType) -> None:
    name = "multi_scale_deformable_attn_pytorch"
    setattr(module, name, update_wrapper(_attend, getattr(module, name)))  # `__wrapped__` is mmcv's own


def needed() -> bool:
    """Whether mmcv is installed without its compiled extension."""
    mmcv = find_spec("mmcv")
    if mmcv is None or not mmcv.submodule_search_locations:
        return False
    from pathlib import Path

    return not any(any(Path(place).glob("_ext*")) for place in mmcv.submodule_search_locations)


def apply() -> None:
    """Puts the finder in place; nothing is imported until mmcv asks for its extension."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
        after_import("mmcv.ops.multi_scale_deform_attn", _replace_attention)
