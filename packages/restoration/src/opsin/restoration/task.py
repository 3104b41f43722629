"""The task `super_resolution` of opsin."""

from opsin.core.task import Task

SUPER_RESOLUTION = Task(
    name="super_resolution",
    summary="enlarge pictures ×2, ×3 or ×4",
    package="opsin.restoration",
    modules=(
        "opsin.restoration.models",
        "opsin.restoration.datasets",
        "opsin.restoration.metrics",
        "opsin.restoration.adversarial",
    ),
    predictor="opsin.restoration.predictor:SuperResolutionPredictor",
    samples="opsin.restoration.samples:write_samples",
    metric="sr/psnr_y",
)
