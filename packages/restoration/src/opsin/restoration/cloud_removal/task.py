"""The task `cloud_removal` of opsin."""

from opsin.core.task import Task

CLOUD_REMOVAL = Task(
    name="cloud_removal",
    summary="one cloud-free satellite picture from three cloudy dates",
    package="opsin.restoration.cloud_removal",
    modules=(
        "opsin.restoration.cloud_removal.models",
        "opsin.restoration.cloud_removal.datasets",
        "opsin.restoration.cloud_removal.metrics",
        "opsin.restoration.adversarial",
        "opsin.restoration.datasets",
    ),
    predictor="opsin.restoration.cloud_removal.predictor:CloudRemovalPredictor",
    samples="opsin.restoration.cloud_removal.samples:write_samples",
    metric="cloud/psnr",
)
