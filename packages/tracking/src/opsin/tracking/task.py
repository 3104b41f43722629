"""The task `tracking` of opsin."""

from opsin.core.task import Task

TRACKING = Task(
    name="tracking",
    summary="follow one object, or several, through a video from its box in the first frame",
    package="opsin.tracking",
    modules=(
        "opsin.tracking.models.mixformer",
        "opsin.tracking.models.sequence_tracker",
        "opsin.tracking.datasets",
        "opsin.tracking.metrics",
    ),
    predictor="opsin.tracking.predictor:TrackingPredictor",
    samples="opsin.tracking.samples:write_samples",
    metric="track/success",
    commands=("opsin.tracking.commands",),
)
