"""Data sets of medical pictures and what is done to them: MedMNIST files, crops, AugMix, corruptions."""

from opsin.medical.classification.datasets.augmix import AugMix
from opsin.medical.classification.datasets.corruptions import Corrupt
from opsin.medical.classification.datasets.medmnist import MedMNIST
from opsin.medical.classification.datasets.object_crops import CropToBox, ObjectCrops

__all__ = ["AugMix", "Corrupt", "CropToBox", "MedMNIST", "ObjectCrops"]
