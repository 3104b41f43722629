"""Labelled pictures on disk to packed samples."""

from opsin.classification.datasets.auto_augment import AutoAugment
from opsin.classification.datasets.cifar import CIFAR
from opsin.classification.datasets.image_folder import ImageFolder
from opsin.classification.datasets.rand_augment import RandAugment
from opsin.classification.datasets.svhn import SVHN
from opsin.classification.datasets.transforms import EvaluationCrop, PackClassification

__all__ = [
    "CIFAR",
    "SVHN",
    "AutoAugment",
    "EvaluationCrop",
    "ImageFolder",
    "PackClassification",
    "RandAugment",
]
