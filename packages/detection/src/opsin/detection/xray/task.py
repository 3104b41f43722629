"""How X-ray inspection announces itself to opsin; imports nothing heavy."""

from opsin.core.task import Task

XRAY_DETECTION = Task(
    name="xray_detection",
    summary="prohibited items in X-ray pictures of baggage: boxes, masks and a report",
    package="opsin.detection.xray",
    modules=(
        "opsin.detection.datasets",
        "opsin.detection.metrics",
        "opsin.detection.xray.datasets",
        "opsin.detection.xray.metrics",
        "opsin.detection.xray.models.sdanet",
    ),
    predictor="opsin.detection.xray.predictor:XrayPredictor",
    samples="opsin.detection.xray.samples:write",
    metric="coco/bbox_mAP",
    commands=("opsin.detection.xray.commands",),
)
