"""How this package announces itself to opsin; imports nothing heavy."""

from opsin.core.task import Task

DETECTION = Task(
    name="detection",
    summary="boxes, and masks, of the objects in an image",
    package="opsin.detection",
    modules=(
        "opsin.detection.datasets",
        "opsin.detection.metrics",
        "opsin.detection.models.relationnet2",
    ),
    predictor="opsin.detection.predictor:DetectionPredictor",
    samples="opsin.detection.samples:write",
    metric="coco/bbox_mAP",
)
