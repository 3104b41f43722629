"""A hook that compares the model's number of classes with the data's before training or testing begins."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from opsin.core.errors import UserError
from opsin.registry import HOOKS


@HOOKS.register_module()
class CheckClasses(Hook):
    """Stops with a `UserError` where a head has another number of classes than the data set.

    Without it a label outside the head's classes is an index error deep in the loss, and a head with too many
    classes trains silently.
    """

    def before_train(self, runner: Any) -> None:
        """Compares with the training data."""
        check_classes(runner.model, runner.train_dataloader.dataset.metainfo["classes"])

    def before_val(self, runner: Any) -> None:
        """Compares with the validation data."""
        check_classes(runner.model, runner.val_dataloader.dataset.metainfo["classes"])

    def before_test(self, runner: Any) -> None:
        """Compares with the test data."""
        check_classes(runner.model, runner.test_dataloader.dataset.metainfo["classes"])


def check_classes(model: nn.Module, classes: tuple[str, ...]) -> None:
    """Raises a `UserError` unless each head of `model` that has `num_classes` has as many as `classes`."""
    heads = model.get_submodule("module") if is_model_wrapper(model) else model
    for name, head in heads.named_children():
        count = getattr(head, "num_classes", None)
        if count is not None and count != len(classes):
            raise UserError(
                f"model.{name} has {count} classes, the data set {len(classes)}: {', '.join(classes)}",
                f"set model.{name}.num_classes={len(classes)}",
            )
