"""Classifiers of medical images."""

from opsin.medical.classification.models.medvitv2 import FasterKAN, MedViTV2, MedViTV2Classifier
from opsin.medical.classification.models.multi_label import MultiLabelClassifier

__all__ = ["FasterKAN", "MedViTV2", "MedViTV2Classifier", "MultiLabelClassifier"]
