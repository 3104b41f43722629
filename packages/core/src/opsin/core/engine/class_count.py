"""Says in one line when a model's heads and the data disagree on how many classes there are."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from opsin.core.errors import UserError
from opsin.registry import HOOKS

# Their num_classes is another thing: an RPN tells objects from background.
CLASS_AGNOSTIC = ("rpn_head",)


@HOOKS.register_module()
class CheckClassCount(Hook):
    """Before training, validation and testing: `num_classes` of every head equals the data's class count.

    Raises:
        UserError: naming the head, both numbers and the classes of the data.
    """

    def before_train(self, runner: Any) -> None:
        """Checks the training data."""
        check(runner.model, runner.train_dataloader.dataset)

    def before_val(self, runner: Any) -> None:
        """Checks the validation data."""
        check(runner.model, runner.val_dataloader.dataset)

    def before_test(self, runner: Any) -> None:
        """Checks the test data."""
        check(runner.model, runner.test_dataloader.dataset)


def check(model: Any, dataset: Any) -> None:
    """Compares the `num_classes` of each part of the model with the dataset's `classes`."""
    classes = dataset.metainfo.get("classes")
    if classes is None:
        return
    for name, module in (model.module if is_model_wrapper(model) else model).named_modules():
        count = getattr(module, "num_classes", None)
        # the whole model repeats a part's number under no name
        told = isinstance(count, int) and name and not name.endswith(CLASS_AGNOSTIC)
        if told and count != len(classes):
            shown = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
            raise UserError(
                f"model.{name} has num_classes={count}, but the data have {len(classes)} classes ({shown})",
                f"set model.{name}.num_classes={len(classes)}",
            )
