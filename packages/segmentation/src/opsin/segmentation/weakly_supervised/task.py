"""The task `weakly_supervised`, as the entry point `opsin.tasks` names it."""

from opsin.core.task import Task

WEAKLY_SUPERVISED = Task(
    name="weakly_supervised",
    summary="boxes of objects, and seeds of masks, learned from image labels alone",
    package="opsin.segmentation.weakly_supervised",
    modules=(
        "opsin.segmentation.weakly_supervised.models",
        "opsin.segmentation.weakly_supervised.datasets",
        "opsin.segmentation.weakly_supervised.metrics",
    ),
    predictor="opsin.segmentation.weakly_supervised.predictor:WeaklySupervisedPredictor",
    samples="opsin.segmentation.weakly_supervised.samples:write_samples",
    metric="localization/gt_known",
)
