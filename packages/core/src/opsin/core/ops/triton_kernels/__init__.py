"""Triton kernels of the ops' CUDA paths: one module an op, imported at that op's first call on a GPU.

Kernels read contiguous tensors of the working dtype, channels last, and give their host functions' results in
tensors that the op has made. `TRITON_INTERPRET=1` in the environment (before Triton is imported) makes Triton
run them as Python on the CPU; the ops then take them for CPU tensors too, which is how they are tested.

Where several programs add to one number (gradients of maps) they do so by atomics, whose order varies from
run to run; `torch.use_deterministic_algorithms(True)` makes those ops take their PyTorch path.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


def enabled(*tensors: Tensor) -> bool:
    """Whether the kernels may work on `tensors`: Triton installed, all on a GPU (interpreted: anywhere)."""
    anywhere = os.environ.get("TRITON_INTERPRET") == "1"
    return (anywhere or all(tensor.device.type == "cuda" for tensor in tensors)) and _installed()


def may_scatter(*tensors: Tensor) -> bool:
    """Whether kernels that add by atomics may: `enabled`, and PyTorch isn't to be deterministic."""
    return enabled(*tensors) and not torch.are_deterministic_algorithms_enabled()


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs a kernel on the device of its first tensor; a grid of no programs is nothing to do."""
    if 0 in grid:
        return
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants)
