"""Pairs of a small (LR) and a large (HR) picture: on disk, or reduced or degraded while training."""

from opsin.restoration.datasets.pairs import HighResolutionDataset, PairedImageDataset
from opsin.restoration.datasets.real_world import RealWorldDegradation, sharpened
from opsin.restoration.datasets.sample import SuperResolutionSample
from opsin.restoration.datasets.transforms import (
    LoadHighResolution,
    LoadPair,
    PackPair,
    RandomCropPair,
    RandomSymmetry,
)

__all__ = [
    "HighResolutionDataset",
    "LoadHighResolution",
    "LoadPair",
    "PackPair",
    "PairedImageDataset",
    "RandomCropPair",
    "RandomSymmetry",
    "RealWorldDegradation",
    "SuperResolutionSample",
    "sharpened",
]
