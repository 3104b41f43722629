"""The task `segmentation`, as the entry point `opsin.tasks` names it."""

from opsin.core.task import Task

SEGMENTATION = Task(
    name="segmentation",
    summary="semantic and panoptic segmentation: images and masks in, index masks and overlays out",
    package="opsin.segmentation",
    modules=("opsin.segmentation.datasets",),
    predictor="opsin.segmentation.predictor:SegmentationPredictor",
    samples="opsin.segmentation.samples:write",
    metric="mIoU",
)
