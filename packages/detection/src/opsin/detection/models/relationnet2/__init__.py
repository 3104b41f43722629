"""RelationNet++: Bridging Visual Representations for Object Detection via Transformer Decoder.

arXiv 2010.15831, NeurIPS 2020; authors' code microsoft/RelationNet2 (MIT), a patch of mmdet 2.12. A detector
is built on one representation: anchors, centre points, or proposals. Here its features also attend to the
corners and centres that a small head finds: a few key points an image, chosen once for all levels, with
appearance and relative position in the logits. The module adds to the features in place, so the detector
around it stays as it was.

    model = dict(bbox_head=dict(type="opsin.BVRHead", bbox_head=STOCK HEAD, keypoint_head=dict(…)))
    model = dict(roi_head=dict(type="opsin.BVRRoIHead", keypoint_head=dict(…), …))

Files: `relation` the attention and its position table, `keypoints` the head that finds key points, `targets`
what it is trained on, `predictors` stock heads in two halves, `head` and `roi_head` one-stage and two-stage
detectors, `published` names and parity.
"""

from opsin.detection.models.relationnet2.head import BVRHead, RelationNet2
from opsin.detection.models.relationnet2.keypoints import KeyPointHead
from opsin.detection.models.relationnet2.predictors import predictor_of
from opsin.detection.models.relationnet2.published import VARIANTS
from opsin.detection.models.relationnet2.relation import KeyPoints, Place, PointRelation, PositionTable
from opsin.detection.models.relationnet2.roi_head import BVRRoIHead
from opsin.detection.models.relationnet2.targets import gaussian_radius, point_targets

__all__ = [
    "VARIANTS",
    "BVRHead",
    "BVRRoIHead",
    "KeyPointHead",
    "KeyPoints",
    "Place",
    "PointRelation",
    "PositionTable",
    "RelationNet2",
    "gaussian_radius",
    "point_targets",
    "predictor_of",
]
