"""How text detection announces itself to opsin; imports nothing heavy."""

from opsin.core.task import Task

TEXT_DETECTION = Task(
    name="text_detection",
    summary="words and lines of text of any shape in pictures of scenes: polygons",
    package="opsin.ocr.text_detection",
    modules=(
        "opsin.ocr.text_detection.datasets",
        "opsin.ocr.text_detection.metrics",
        "opsin.ocr.text_detection.models.mayor",
    ),
    predictor="opsin.ocr.text_detection.predictor:TextPredictor",
    samples="opsin.ocr.text_detection.samples:write",
    metric="text/hmean",
    commands=("opsin.ocr.text_detection.commands",),
    checks=("opsin.ocr.text_detection.datasets.checker:check",),
)
