"""Pictures and volumes for pretraining: what is read, how they are augmented, how batches are made."""

from opsin.medical.path_lists import PathLists
from opsin.medical.pretraining.datasets.batches import OneKindBatches
from opsin.medical.pretraining.datasets.transforms import (
    AugmentVolume,
    ByKind,
    EdgeTarget,
    FitVolume,
    LoadVolume,
    PackPretraining,
)
from opsin.medical.stack_inputs import StackInputs

__all__ = [
    "AugmentVolume",
    "ByKind",
    "EdgeTarget",
    "FitVolume",
    "LoadVolume",
    "OneKindBatches",
    "PackPretraining",
    "PathLists",
    "StackInputs",
]
