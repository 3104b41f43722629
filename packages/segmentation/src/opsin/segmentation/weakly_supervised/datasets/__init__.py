"""Pictures with image labels, in the layouts that people have, and the transforms that read them."""

from opsin.segmentation.datasets.mask_pairs import LoadMask
from opsin.segmentation.weakly_supervised.datasets.cub import CUBLocalization
from opsin.segmentation.weakly_supervised.datasets.sample import WeakSample
from opsin.segmentation.weakly_supervised.datasets.transforms import CenterView, PackWeak
from opsin.segmentation.weakly_supervised.datasets.voc import LoadImageLabels, VOCLabels

__all__ = [
    "CUBLocalization",
    "CenterView",
    "LoadImageLabels",
    "LoadMask",
    "PackWeak",
    "VOCLabels",
    "WeakSample",
]
