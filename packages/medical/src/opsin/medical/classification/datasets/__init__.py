"""Data sets of medical pictures and what is done to them: MedMNIST files, AugMix, corruptions."""

from opsin.medical.classification.datasets.augmix import AugMix
from opsin.medical.classification.datasets.corruptions import Corrupt
from opsin.medical.classification.datasets.medmnist import MedMNIST

__all__ = ["AugMix", "Corrupt", "MedMNIST"]
