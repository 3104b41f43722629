"""Says in one line when a panoptic model and the data disagree on how many classes there are."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from opsin.core.errors import UserError
from opsin.registry import HOOKS


@HOOKS.register_module()
class CheckThingsAndStuff(Hook):
    """Before training, validation and testing: heads have as many things and stuff classes as the data.

    Raises:
        UserError: naming the head's setting and both numbers.
    """

    def before_train(self, runner: Any) -> None:
        """Checks the training data."""
        check(runner.model, runner.train_dataloader.dataset.metainfo)

    def before_val(self, runner: Any) -> None:
        """Checks the validation data."""
        check(runner.model, runner.val_dataloader.dataset.metainfo)

    def before_test(self, runner: Any) -> None:
        """Checks the test data."""
        check(runner.model, runner.test_dataloader.dataset.metainfo)


def check(model: Any, metainfo: dict[str, Any]) -> None:
    """Compares `num_things_classes` and `num_stuff_classes` of the model's parts with the data's classes."""
    for name, module in (model.module if is_model_wrapper(model) else model).named_modules():
        for kind in ("thing", "stuff"):
            setting = f"num_{kind}s_classes" if kind == "thing" else "num_stuff_classes"
            count, classes = getattr(module, setting, None), metainfo.get(f"{kind}_classes")
            if name and count is not None and classes is not None and count != len(classes):
                key = f"model.{name}.{setting}"
                raise UserError(
                    f"{key} is {count}, but the data have {len(classes)} {kind} classes",
                    f"set {key}={len(classes)}",
                )
