"""The networks of open-vocabulary segmentation."""

from opsin.segmentation.open_vocabulary.models.clip import CLIP
from opsin.segmentation.open_vocabulary.models.frozenseg import FrozenSeg, FrozenSegHead
from opsin.segmentation.open_vocabulary.models.sam_encoder import SamEncoder

__all__ = ["CLIP", "FrozenSeg", "FrozenSegHead", "SamEncoder"]
