"""The task `metalens` of opsin."""

from opsin.core.task import Task

METALENS = Task(
    name="metalens",
    summary="restore pictures taken through a metalens",
    package="opsin.restoration.metalens",
    modules=(
        "opsin.restoration.metalens.models",
        "opsin.restoration.metalens.datasets",
        "opsin.restoration.metalens.metrics",
    ),
    predictor="opsin.restoration.metalens.predictor:MetalensPredictor",
    samples="opsin.restoration.metalens.samples:write_samples",
    metric="metalens/psnr_y",
)
