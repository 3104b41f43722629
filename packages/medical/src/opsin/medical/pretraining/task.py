"""The task `medical_pretraining` of opsin."""

from opsin.core.task import Task

MEDICAL_PRETRAINING = Task(
    name="medical_pretraining",
    summary="learn from medical pictures and volumes without labels",
    package="opsin.medical.pretraining",
    modules=(
        "opsin.medical.pretraining.datasets",
        "opsin.medical.pretraining.models",
        "opsin.medical.pretraining.metrics",
    ),
    predictor="opsin.medical.pretraining.predictor:ReconstructionPredictor",
    samples="opsin.medical.pretraining.samples:write_samples",
    metric="pretraining/explained",
    checks=("opsin.medical.privacy:check",),
)
