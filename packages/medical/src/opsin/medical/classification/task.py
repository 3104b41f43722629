"""The task `medical_classification` of opsin."""

from opsin.core.task import Task

MEDICAL_CLASSIFICATION = Task(
    name="medical_classification",
    summary="one label, or several, for a medical picture",
    package="opsin.medical.classification",
    modules=(
        "opsin.classification.datasets",
        "opsin.classification.models",
        "opsin.medical.classification.datasets",
        "opsin.medical.classification.models",
        "opsin.medical.classification.metrics",
        "opsin.medical.pretraining.datasets",
        "opsin.medical.pretraining.models",
    ),
    predictor="opsin.medical.classification.predictor:MedicalClassificationPredictor",
    samples="opsin.medical.classification.samples:write_samples",
    metric="medical/auc",
    checks=("opsin.medical.privacy:check",),
)
