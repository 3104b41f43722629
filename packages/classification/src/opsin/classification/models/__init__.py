"""Classifiers: a network with its loss, any dense backbone as a network, and batch augmentation."""

from opsin.classification.models.batch_augmentation import MixupCutmix
from opsin.classification.models.distillation import Distillation
from opsin.classification.models.image_classifier import ImageClassifier
from opsin.classification.models.pooled_classifier import PooledClassifier

__all__ = ["Distillation", "ImageClassifier", "MixupCutmix", "PooledClassifier"]
