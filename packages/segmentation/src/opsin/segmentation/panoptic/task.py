"""The task `panoptic`, as the entry point `opsin.tasks` names it."""

from importlib.util import find_spec

from opsin.core.task import Task

# The models are mmdet's kind; data and metrics work without it (extra `panoptic`).
MODELS = ("opsin.segmentation.panoptic.models",) if find_spec("mmdet") else ()

PANOPTIC = Task(
    name="panoptic",
    summary="panoptic segmentation: COCO panoptic in; panoptic PNG and json, overlays and instances out",
    package="opsin.segmentation.panoptic",
    modules=(
        "opsin.segmentation.panoptic.datasets",
        "opsin.segmentation.panoptic.metrics",
        "opsin.segmentation.panoptic.class_count",
        *MODELS,
    ),
    predictor="opsin.segmentation.panoptic.predictor:PanopticPredictor",
    samples="opsin.segmentation.samples:write",
    metric="panoptic/PQ",
)
