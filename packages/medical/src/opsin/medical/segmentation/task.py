"""The task `medical_segmentation` of opsin."""

from opsin.core.task import Task

MEDICAL_SEGMENTATION = Task(
    name="medical_segmentation",
    summary="segment medical pictures and volumes",
    package="opsin.medical.segmentation",
    modules=(
        "opsin.medical.segmentation.models",
        "opsin.medical.segmentation.datasets",
        "opsin.medical.segmentation.metrics",
        "opsin.medical.segmentation.halving",
    ),
    predictor="opsin.medical.segmentation.predictor:MedicalSegmentationPredictor",
    samples="opsin.medical.segmentation.samples:write_samples",
    metric="seg/dice",
    commands=("opsin.medical.segmentation.commands",),
    checks=("opsin.medical.privacy:check",),
)
