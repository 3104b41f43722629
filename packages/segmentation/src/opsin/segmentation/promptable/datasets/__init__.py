"""Pictures with masks in the layouts that people have, and the transforms that read them."""

from opsin.segmentation.promptable.datasets.masks import DIS5K, SA1B, CocoMasks, CocoPanopticMasks
from opsin.segmentation.promptable.datasets.sample import PromptSample
from opsin.segmentation.promptable.datasets.transforms import LoadMasks, PackPrompts

__all__ = ["DIS5K", "SA1B", "CocoMasks", "CocoPanopticMasks", "LoadMasks", "PackPrompts", "PromptSample"]
