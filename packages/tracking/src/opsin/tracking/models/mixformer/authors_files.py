"""Reading the authors' checkpoint files, which carry objects of their training code beside the weights.

Statistics and settings of the training are pickled as classes of the authors' `lib.train`. opsin reads
tensors only; these classes are stood for by one that holds nothing and runs nothing, so that files with them
can be read where an unknown class would be refused.
"""

from __future__ import annotations

from typing import Any

import torch

TRAINING_CLASSES = (
    "lib.train.admin.stats.AverageMeter",
    "lib.train.admin.stats.StatValue",
    "lib.train.admin.settings.Settings",
    "lib.train.admin.local.EnvironmentSettings",
)


class TrainingObject:
    """What is left of such an object: nothing."""

    def __setstate__(self, state: Any) -> None:
        """Forgets the object's content."""


torch.serialization.add_safe_globals([(TrainingObject, name) for name in TRAINING_CLASSES])
