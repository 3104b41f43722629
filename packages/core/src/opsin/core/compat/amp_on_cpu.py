"""Mixed precision of mmengine on a machine without an accelerator.

Needed by: mmengine up to 0.10.7. `AmpOptimWrapper` refuses to be built on a CPU, though torch (1.10 and
newer) and mmengine's own `autocast` run bfloat16 there. Its gradient scaler comes from `torch.cuda.amp`,
deprecated since torch 2.4, which warns on a CPU and does nothing; bfloat16 has the exponents of float32 and
needs no scaling.
"""

from __future__ import annotations

from importlib.metadata import version
from types import ModuleType
from typing import Any

from packaging.version import Version

from opsin.core.compat.import_hook import after_import


def needed() -> bool:
    """Whether this mmengine asks for a GPU before it builds an `AmpOptimWrapper`."""
    return Version(version("mmengine")) <= Version("0.10.7")


def apply() -> None:
    """Lets `AmpOptimWrapper` be built on a CPU as soon as its module is imported."""
    after_import("mmengine.optim.optimizer.amp_optimizer_wrapper", _allow_cpu)


def _allow_cpu(module: ModuleType) -> None:
    import torch

    if torch.cuda.is_available() or module.is_npu_available() or module.is_mlu_available():
        return

    def scaler(**arguments: Any) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", **{**arguments, "enabled": False})

    # The module asks `is_cuda_available` in one place: the refusal.
    module.is_cuda_available = lambda: True  # type: ignore[attr-defined]  # a module's global
    module.GradScaler = scaler  # type: ignore[attr-defined]  # a module's global
