"""Prediction with classes given as text: COCO's panoptic files, instances, pictures with a legend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opsin.segmentation.open_vocabulary.class_names import trained_vocabulary
from opsin.segmentation.panoptic.predictor import PanopticPredictor
from opsin.segmentation.visualization import distinct_colours


class OpenVocabularyPredictor(PanopticPredictor):
    """Writes what `PanopticPredictor` writes, for the classes in `model.classes` or else the training's.

    Category ids are counted from 1 in the order of `model.classes`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.model.fixed_classes:
            self.classes = tuple(names[0] for names in self.model.classes)
            self.palette = distinct_colours(len(self.classes)).tolist()
            self.category_ids = range(1, len(self.classes) + 1)

    def _load(self, checkpoint: Path) -> None:
        super()._load(checkpoint)
        trained = trained_vocabulary(self.meta)
        self.model.trained = trained or self.model.trained
        if trained and not self.model.fixed_classes:
            stuff = set(self.meta.get("stuff_classes") or ())
            names = self.meta.get("classes") or [names[0] for names in trained]
            self.model.set_classes(
                trained, [t[0] for t, name in zip(trained, names, strict=True) if name in stuff]
            )

    def _head(self) -> Any:
        self.model.text()  # says so if there is nothing to look for
        return self.model

    def _categories(self) -> list[dict[str, Any]]:
        return [
            {"id": int(number), "name": name, "isthing": int(is_thing)}
            for number, name, is_thing in zip(
                self.category_ids, self.classes, self.model.is_thing.tolist(), strict=True
            )
        ]
