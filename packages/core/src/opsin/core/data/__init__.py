"""Pictures on disk to training samples: image files, datasets, transforms, and real pictures for samples."""

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import IMAGE_SUFFIXES, MAX_PIXELS, list_images, read_image, write_image
from opsin.core.data.samplers import RepeatedAugmentation
from opsin.core.data.transforms import Albumentations, LoadImage

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Albumentations",
    "Dataset",
    "LoadImage",
    "RepeatedAugmentation",
    "list_images",
    "read_image",
    "write_image",
]
