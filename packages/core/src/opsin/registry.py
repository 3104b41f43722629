"""The registries of the scope `opsin`: what mmengine imports when a config says `type='opsin.X'`.

Each one is a child of mmengine's registry of the same name, so opsin, mmdet and mmseg types mix in one
config. Nothing heavy is imported here: a registry loads core's modules at its first look-up, and the
installed task packages (entry points `opsin.tasks`) only when core does not know the name.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmengine import registry as root
from mmengine.registry import Registry

from opsin.core import compat

compat.apply()

CORE_MODULES = ("opsin.core.backbones", "opsin.core.layers", "opsin.core.data", "opsin.core.engine")


class OpsinRegistry(Registry):
    """A registry that imports core first and the task packages only for names that core lacks."""

    _loaded_core = False

    def import_from_location(self) -> None:
        """Imports the modules of core that register classes (once)."""
        if not self._loaded_core:
            self._loaded_core = True
            for module in CORE_MODULES:
                import_module(module)

    def get(self, key: str) -> Any:
        """The class registered as `key` (`Name` or `opsin.Name`), or mmengine's class of that name."""
        self.import_from_location()
        scope, name = self.split_scope_key(key)
        if scope in (None, self.scope) and name not in self._module_dict and not self._ancestor_knows(name):
            from opsin.core.task import import_tasks

            import_tasks()
        return super().get(key)

    def _ancestor_knows(self, name: str) -> bool:
        ancestor = self.parent
        while ancestor is not None:
            if name in ancestor.module_dict:
                return True
            ancestor = ancestor.parent
        return False


def _child(parent: Registry) -> OpsinRegistry:
    return OpsinRegistry(parent.name, parent=parent, scope="opsin")


RUNNERS = _child(root.RUNNERS)
LOOPS = _child(root.LOOPS)
HOOKS = _child(root.HOOKS)
DATASETS = _child(root.DATASETS)
DATA_SAMPLERS = _child(root.DATA_SAMPLERS)
TRANSFORMS = _child(root.TRANSFORMS)
MODELS = _child(root.MODELS)
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS)
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS)
OPTIMIZERS = _child(root.OPTIMIZERS)
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS)
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS)
METRICS = _child(root.METRICS)
TASK_UTILS = _child(root.TASK_UTILS)
VISUALIZERS = _child(root.VISUALIZERS)
VISBACKENDS = _child(root.VISBACKENDS)
LOG_PROCESSORS = _child(root.LOG_PROCESSORS)
FUNCTIONS = _child(root.FUNCTIONS)
