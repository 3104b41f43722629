"""How this package announces itself to opsin; imports nothing heavy."""

from opsin.core.task import Task

CLASSIFICATION = Task(
    name="classification",
    summary="one label for an image",
    package="opsin.classification",
    modules=(
        "opsin.classification.datasets",
        "opsin.classification.models",
        "opsin.classification.metrics",
    ),
    predictor="opsin.classification.predictor:ClassificationPredictor",
    samples="opsin.classification.samples:write",
    metric="accuracy/top1",
)
