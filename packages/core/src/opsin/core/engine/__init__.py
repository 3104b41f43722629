"""The engine: mmengine's Runner with exact resume, atomic checkpoints, and errors that a person can read.

Importing this registers its classes: `opsin.Runner`, the train loops, the hooks, `opsin.Published` and
`opsin.LayerDecayConstructor`.
"""

from opsin.core.engine import checkpoint, class_count, hooks, init, loops, optim, progress, runner

__all__ = ["checkpoint", "class_count", "hooks", "init", "loops", "optim", "progress", "runner"]
