"""mmengine's own checkpoints through `torch.load(weights_only=True)`.

Needed by: mmengine up to 0.10.7 with torch 2.6 or newer, whose `torch.load` reads weights only. mmengine
saves its message hub with every checkpoint: `HistoryBuffer` objects that hold numpy arrays and a table of
their own methods (pickled as `getattr(HistoryBuffer, "mean")`), so that every resume ends in `Unsupported
global`.

The few classes are put on torch's allow-list; `weights_only` stays on. `getattr` itself must not be on that
list, because any object leads to `__class__`, `__subclasses__` and so to everything: the name stands for a
look-up of HistoryBuffer's public methods only.
"""

from __future__ import annotations

import pickle
from importlib.metadata import version
from types import FunctionType, ModuleType
from typing import Any

from packaging.version import Version

from opsin.core.compat.import_hook import after_import

# numpy 1 called the module numpy.core; checkpoints of both are about.
_NUMPY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")
_NUMBERS = "Bool Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 LongLong ULongLong Float16 Float32 Float64"
_DTYPES = (*_NUMBERS.split(), "Str", "Bytes")


def needed() -> bool:
    """Whether torch reads weights only while mmengine does not yet say which classes it saves."""
    return Version(version("torch")) >= Version("2.6") and Version(version("mmengine")) <= Version("0.10.7")


def apply() -> None:
    """Extends torch's allow-list as soon as torch is imported."""
    after_import("torch.serialization", _allow)


def _allow(serialization: ModuleType) -> None:
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    multiarray: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    dtypes = [getattr(np.dtypes, f"{name}DType") for name in _DTYPES]
    serialization.add_safe_globals([HistoryBuffer, np.ndarray, np.dtype, *dtypes])
    serialization.add_safe_globals([(multiarray, f"{place}._reconstruct") for place in _NUMPY_MODULES])
    serialization.add_safe_globals([(scalar, f"{place}.scalar") for place in _NUMPY_MODULES])
    serialization.add_safe_globals([(_Method(HistoryBuffer), "builtins.getattr")])


class _Method:
    """What `getattr` means in a checkpoint: a public method of one class, nothing else."""

    def __init__(self, owner: type) -> None:
        self.owner = owner

    def __call__(self, owner: Any, name: Any) -> FunctionType:
        """The method `name`; `pickle.UnpicklingError` for another object, a private or an unknown name."""
        method = vars(self.owner).get(name) if owner is self.owner and isinstance(name, str) else None
        if not isinstance(method, FunctionType) or name.startswith("_"):
            raise pickle.UnpicklingError(f"a checkpoint may not ask for getattr({owner!r}, {name!r})")
        return method
