"""The task `dense_prediction`, as the entry point `opsin.tasks` names it."""

from opsin.core.task import Task

DENSE_PREDICTION = Task(
    name="dense_prediction",
    summary="depth, surface normals and classes of every pixel: NYUv2's layout in, maps and pictures out",
    package="opsin.segmentation.dense_prediction",
    modules=(
        "opsin.segmentation.dense_prediction.datasets",
        "opsin.segmentation.dense_prediction.metrics",
        "opsin.segmentation.dense_prediction.models",
    ),
    predictor="opsin.segmentation.dense_prediction.predictor:DensePredictor",
    samples="opsin.segmentation.dense_prediction.samples:write",
    metric="depth/d1",
)
