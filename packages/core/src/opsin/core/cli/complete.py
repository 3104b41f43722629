"""What the shell's completion offers for names (`opsin --install-completion` sets it up)."""

from __future__ import annotations


def config_names(incomplete: str) -> list[str]:
    """Short names of configs that begin with `incomplete`."""
    from opsin.core.task import tasks

    names = {name for task in tasks().values() for name in task.configs()}
    return sorted(name for name in names if name.startswith(incomplete))


def task_names(incomplete: str) -> list[str]:
    """Names of the installed tasks that begin with `incomplete`."""
    from opsin.core.task import tasks

    return [name for name in tasks() if name.startswith(incomplete)]


def model_names(incomplete: str) -> list[str]:
    """Names of models that begin with `incomplete`."""
    from opsin.core.models import list_models

    return list_models(f"{incomplete}*")
