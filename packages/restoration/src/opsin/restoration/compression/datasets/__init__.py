"""Pictures for compression, alone or with masks of their regions."""

from opsin.restoration.compression.datasets.pictures import RegionPictureDataset
from opsin.restoration.compression.datasets.sample import CompressionSample
from opsin.restoration.compression.datasets.transforms import (
    LoadRegions,
    PackCompression,
    StretchShortSides,
)

__all__ = [
    "CompressionSample",
    "LoadRegions",
    "PackCompression",
    "RegionPictureDataset",
    "StretchShortSides",
]
