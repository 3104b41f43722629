"""Multi-temporal satellite pictures on disk, and their way to the model."""

from opsin.restoration.cloud_removal.datasets.places import Sen2MTCNew, Sen2MTCOld, group_dates, infrared_of
from opsin.restoration.cloud_removal.datasets.sample import CloudRemovalSample
from opsin.restoration.cloud_removal.datasets.transforms import (
    LoadPlace,
    PackPlace,
    RandomFlipPlace,
    ResizePlace,
    read_dates,
)

__all__ = [
    "CloudRemovalSample",
    "LoadPlace",
    "PackPlace",
    "RandomFlipPlace",
    "ResizePlace",
    "Sen2MTCNew",
    "Sen2MTCOld",
    "group_dates",
    "infrared_of",
    "read_dates",
]
