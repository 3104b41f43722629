"""MAYOR: Mask is All You Need: Rethinking Mask R-CNN for Dense and Arbitrary-Shaped Scene Text Detection.

arXiv 2109.03426, ACM MM 2021; no code is published. Three changes to Mask R-CNN, each a part that mmdet's
two-stage detector takes by config, with any backbone:

* the mask decoder is a perceptron over the whole RoI (`opsin.MLPMaskDecoder`) in place of a deconvolution;
* a mask is the whole matched instance, drawn in the instance's own box (`opsin.TextMaskHead`);
* the RPN gives every instance enough anchors however long it is (`opsin.AdaptiveLabelAssigner`).

Out come polygons. What the paper leaves open was chosen here; `docs/systems/mayor.md` says what.
"""

from opsin.core.models import register_models
from opsin.detection.models.from_config import detector
from opsin.ocr.text_detection.models.mayor.assignment import AdaptiveLabelAssigner
from opsin.ocr.text_detection.models.mayor.decoders import DeconvMaskDecoder, MLPMaskDecoder
from opsin.ocr.text_detection.models.mayor.mask_head import TextMaskHead
from opsin.ocr.text_detection.models.mayor.roi_head import TextRoIHead
from opsin.ocr.text_detection.models.mayor.rpn_head import TextRPNHead

__all__ = [
    "AdaptiveLabelAssigner",
    "DeconvMaskDecoder",
    "MLPMaskDecoder",
    "TextMaskHead",
    "TextRPNHead",
    "TextRoIHead",
]

register_models(
    "mayor",
    detector,
    {
        "mayor_r50_fpn": {"config": "mayor_r50_fpn_totaltext"},
        "mask_rcnn_r50_fpn_text": {"config": "mask_rcnn_r50_fpn_totaltext"},
    },
)
