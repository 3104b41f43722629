"""The task `promptable`, as the entry point `opsin.tasks` names it."""

from opsin.core.task import Task

PROMPTABLE = Task(
    name="promptable",
    summary="masks of what points or boxes ask for, or of everything in a picture",
    package="opsin.segmentation.promptable",
    modules=(
        "opsin.segmentation.promptable.models",
        "opsin.segmentation.promptable.datasets",
        "opsin.segmentation.promptable.metrics",
    ),
    predictor="opsin.segmentation.promptable.predictor:PromptablePredictor",
    samples="opsin.segmentation.promptable.samples:write_samples",
    metric="promptable/mIoU",
    commands=("opsin.segmentation.promptable.commands",),
)
