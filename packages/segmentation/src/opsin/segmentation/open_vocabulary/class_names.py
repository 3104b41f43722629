"""The hook that tells an open-vocabulary model what the data's classes are called."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from opsin.registry import HOOKS
from opsin.segmentation.open_vocabulary.vocabulary import Names


@HOOKS.register_module()
class ClassNames(Hook):
    """Names the classes of the training data for training, and those of validation and test data for these.

    A checkpoint remembers the names of the training, so that a test knows which classes are new. Tests on
    another number of classes than the training's, which other models refuse, are what this one is for.
    """

    def __init__(self) -> None:
        self.training: dict[str, Any] | None = None

    def before_train(self, runner: Any) -> None:
        """The training data's names."""
        self.training = runner.train_dataloader.dataset.metainfo
        model = _bare(runner)
        model.name_classes(self.training)
        model.trained = list(model.classes)

    def before_val(self, runner: Any) -> None:
        """The validation data's names."""
        _bare(runner).name_classes(runner.val_dataloader.dataset.metainfo)

    def after_val(self, runner: Any) -> None:
        """The training data's names again."""
        if self.training is not None:
            _bare(runner).name_classes(self.training)

    def before_test(self, runner: Any) -> None:
        """The test data's names."""
        _bare(runner).name_classes(runner.test_dataloader.dataset.metainfo)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Adds the names of the training, synonyms too."""
        about = checkpoint["meta"].setdefault("dataset_meta", {})
        about["vocabulary"] = [list(names) for names in _bare(runner).trained]

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Takes the names of the training from the checkpoint."""
        about = dict(checkpoint["meta"].get("dataset_meta") or {})
        trained = trained_vocabulary(about)
        if trained:
            _bare(runner).trained = trained
        about.pop("classes", None)  # the runner would compare their number with the data's
        checkpoint["meta"]["dataset_meta"] = about


def trained_vocabulary(metainfo: dict[str, Any]) -> list[Names]:
    """The classes of a checkpoint's training, empty if it does not say them."""
    vocabulary = metainfo.get("vocabulary") or [[name] for name in metainfo.get("classes") or ()]
    return [tuple(str(name) for name in names) for names in vocabulary]


def _bare(runner: Any) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
