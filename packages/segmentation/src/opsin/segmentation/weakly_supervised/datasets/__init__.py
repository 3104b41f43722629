"""Pictures with image labels, in the layouts that people have, and the transforms that read them."""

from opsin.segmentation.datasets.mask_pairs import LoadMask
from opsin.segmentation.weakly_supervised.datasets.cub import CUBLocalization
from opsin.segmentation.weakly_supervised.datasets.ilsvrc import ILSVRCLocalization
from opsin.segmentation.weakly_supervised.datasets.sample import WeakSample
from opsin.segmentation.weakly_supervised.datasets.seed_files import ConfidentLabels, FindSeeds
from opsin.segmentation.weakly_supervised.datasets.transforms import CenterView, LoadObjectMask, PackWeak
from opsin.segmentation.weakly_supervised.datasets.voc import FindImageLabels, LoadImageLabels, VOCLabels
from opsin.segmentation.weakly_supervised.datasets.wsol_lists import WSOLLists

__all__ = [
    "CUBLocalization",
    "CenterView",
    "ConfidentLabels",
    "FindImageLabels",
    "FindSeeds",
    "ILSVRCLocalization",
    "LoadImageLabels",
    "LoadMask",
    "LoadObjectMask",
    "PackWeak",
    "VOCLabels",
    "WSOLLists",
    "WeakSample",
]
