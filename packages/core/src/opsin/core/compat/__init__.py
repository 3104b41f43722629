"""Where OpenMMLab and today's libraries disagree: one module per disagreement.

A mend says in its docstring which versions need it, has `needed() -> bool` and `apply() -> None`, and a test
that fails once it is no longer needed. `apply` here runs them all, once; `opsin.registry` calls it.
"""

from functools import cache
from importlib import import_module

MENDS = ("mmcv_ext", "package_paths", "safe_checkpoints", "amp_on_cpu", "panopticapi")


@cache
def apply() -> None:
    """Applies every mend that the installed versions need (once; cheap, imports no OpenMMLab package)."""
    for name in MENDS:
        mend = import_module(f"{__name__}.{name}")
        if mend.needed():
            mend.apply()
