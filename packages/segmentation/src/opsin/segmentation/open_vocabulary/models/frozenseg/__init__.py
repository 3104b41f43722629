"""FrozenSeg: Harmonizing Frozen Foundation Models for Open-Vocabulary Segmentation (arXiv 2409.03525, 2024).

Code chenxi52/FrozenSeg (no licence). Image (B, 3, H, W) and class names to masks with classes. A frozen CLIP
is backbone and judge of unseen classes, a frozen SAM says where things end; a Mask2Former-like head between
them is all that trains (26 million parameters).

What a naive reading gets wrong stands in the modules: SAM's one-map encoder and the authors' kernel
(`pixel_decoder`), the two injectors (`transformer_decoder`), the softmax with and without void (`inference`).
"""

from opsin.core.models import register_models
from opsin.segmentation.open_vocabulary.models.frozenseg import published
from opsin.segmentation.open_vocabulary.models.frozenseg.head import FrozenSegHead
from opsin.segmentation.open_vocabulary.models.frozenseg.model import FrozenSeg
from opsin.segmentation.open_vocabulary.models.frozenseg.text_classifier import TextClassifier

register_models(
    "frozenseg",
    FrozenSeg,
    {
        "frozenseg_convnext_large": {"clip": {"arch": "convnext_large_d_320"}},
        "frozenseg_rn50x64": {"clip": {"arch": "RN50x64"}, "only_valid_masks": True},
    },
)

__all__ = ["FrozenSeg", "FrozenSegHead", "TextClassifier", "published"]
