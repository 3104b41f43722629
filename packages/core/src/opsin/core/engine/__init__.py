"""The engine: mmengine's Runner with exact resume, atomic checkpoints, and errors that a person can read.

Importing this registers its classes: `opsin.Runner`, the train loops, the hooks, `opsin.Published`,
`opsin.LayerDecayConstructor` and the optimizer wrappers that clip adaptively.
"""

from opsin.core.engine import (
    adaptive_clipping,
    checkpoint,
    class_count,
    hooks,
    init,
    loops,
    optim,
    progress,
    runner,
)

__all__ = [
    "adaptive_clipping",
    "checkpoint",
    "class_count",
    "hooks",
    "init",
    "loops",
    "optim",
    "progress",
    "runner",
]
