"""Numba kernels of the ops' CPU paths: one module an op, imported at that op's first call, never earlier.

A kernel works on a half-open range of its outermost loop and holds no lock, so `run` spreads it over as many
threads as PyTorch uses. Numba compiles a kernel at its first call (a second or two) and keeps the machine
code on disk beside the module (or in Numba's cache folder where that can't be written). `OPSIN_NUMBA=0` turns
all of them off: every op then takes its PyTorch path.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

Function = Callable[..., Any]


@cache
def _installed() -> bool:
    return find_spec("numba") is not None


def enabled(*tensors: Tensor) -> bool:
    """Whether the kernels may work on `tensors`: all on the CPU, Numba installed and not turned off."""
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    return on_cpu and os.environ.get("OPSIN_NUMBA", "1") != "0" and _installed()


def compiled(function: Function) -> Function:
    """The decorator of a kernel whose arithmetic is IEEE's, operation by operation."""
    return _compile(function)


def compiled_sums(function: Function) -> Function:
    """The decorator of a kernel whose sums may be reordered and fused; NaN and infinity stay as they are."""
    return _compile(function, fastmath={"contract", "reassoc", "nsz"})


def _compile(function: Function, **options: Any) -> Function:
    from numba import njit

    # Python's check for a zero divisor would keep a loop from becoming vector code.
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        kernel: Function = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that Numba could keep the machine code in
        kernel = njit(**options)(function)
    return kernel


def array(tensor: Tensor) -> Array:
    """The tensor's memory as a C-contiguous array (a copy only where the tensor is not contiguous)."""
    numbers: Array = tensor.detach().contiguous().numpy()
    return numbers


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that kernels compute a tensor of `dtype` in: double stays, every other float is single."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Worker threads; a forked process gets its own, since threads don't survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="opsin-ops")


def run(kernel: Function, total: int, *arguments: Any) -> None:
    """Calls `kernel(start, stop, *arguments)` on equal parts of `range(total)`, one a thread of PyTorch's.

    Parts must not write to the same memory; which thread does which part can then not change a result.
    """
    parts = max(1, min(torch.get_num_threads(), total))
    edges = [total * part // parts for part in range(parts + 1)]
    if parts == 1:
        kernel(0, total, *arguments)
        return
    pool = _pool(os.getpid(), parts - 1)
    others = [pool.submit(kernel, edges[i], edges[i + 1], *arguments) for i in range(1, parts)]
    kernel(edges[0], edges[1], *arguments)
    for other in others:
        other.result()
