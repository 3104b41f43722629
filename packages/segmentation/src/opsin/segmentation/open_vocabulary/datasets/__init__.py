"""What open-vocabulary segmentation reads besides COCO's panoptic format: masks that SAM made beforehand."""

from opsin.segmentation.open_vocabulary.datasets.sam_masks import PackOpenVocabulary, ReadSamMasks

__all__ = ["PackOpenVocabulary", "ReadSamMasks"]
