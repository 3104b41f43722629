"""The task `compression` of opsin."""

from opsin.core.task import Task

COMPRESSION = Task(
    name="compression",
    summary="compress pictures into files that decode to the same symbols everywhere",
    package="opsin.restoration.compression",
    modules=(
        "opsin.restoration.compression.models",
        "opsin.restoration.compression.compressor",
        "opsin.restoration.compression.datasets",
        "opsin.restoration.compression.metrics",
        "opsin.restoration.compression.quantile_optimizer",
        "opsin.restoration.adversarial",
    ),
    predictor="opsin.restoration.compression.predictor:CompressionPredictor",
    samples="opsin.restoration.compression.samples:write_samples",
    metric="compression/psnr",
    commands=("opsin.restoration.compression.commands",),
)
