"""Cloud removal networks, one published system a folder, and the models that train and run them."""

from opsin.restoration.cloud_removal.models.cloud_remover import (
    AdversarialCloudRemover,
    CloudRemover,
    DifferenceTeacher,
    LeastSquaresGANLoss,
)
from opsin.restoration.cloud_removal.models.pmaa import PMAA, CloudFreeDiscriminator, CloudTeacher

__all__ = [
    "PMAA",
    "AdversarialCloudRemover",
    "CloudFreeDiscriminator",
    "CloudRemover",
    "CloudTeacher",
    "DifferenceTeacher",
    "LeastSquaresGANLoss",
]
