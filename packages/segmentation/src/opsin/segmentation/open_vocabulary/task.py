"""The task `open_vocabulary`, as the entry point `opsin.tasks` names it."""

from opsin.core.task import Task

OPEN_VOCABULARY = Task(
    name="open_vocabulary",
    summary="segmentation of classes that are given as text: panoptic, semantic, instances",
    package="opsin.segmentation.open_vocabulary",
    modules=(
        "opsin.segmentation.datasets",
        "opsin.segmentation.panoptic.datasets",
        "opsin.segmentation.panoptic.metrics",
        "opsin.segmentation.open_vocabulary.datasets",
        "opsin.segmentation.open_vocabulary.metrics",
        "opsin.segmentation.open_vocabulary.class_names",
        "opsin.segmentation.open_vocabulary.models",
    ),
    predictor="opsin.segmentation.open_vocabulary.predictor:OpenVocabularyPredictor",
    samples="opsin.segmentation.samples:write",
    metric="panoptic/PQ",
)
