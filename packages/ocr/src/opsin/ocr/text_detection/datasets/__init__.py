"""Data sets of text in their published layouts, and the transforms from their annotations to a detector."""

from opsin.ocr.text_detection.datasets.annotated_text import LoadTextAnnotations, PackTextInputs
from opsin.ocr.text_detection.datasets.ctw1500 import CTW1500
from opsin.ocr.text_detection.datasets.dast1500 import DAST1500
from opsin.ocr.text_detection.datasets.geometry import CropText, PolygonAlbumentations
from opsin.ocr.text_detection.datasets.icdar2015 import ICDAR2015
from opsin.ocr.text_detection.datasets.msra_td500 import MSRATD500
from opsin.ocr.text_detection.datasets.synth_text import SynthText
from opsin.ocr.text_detection.datasets.total_text import TotalText

__all__ = [
    "CTW1500",
    "DAST1500",
    "ICDAR2015",
    "MSRATD500",
    "CropText",
    "LoadTextAnnotations",
    "PackTextInputs",
    "PolygonAlbumentations",
    "SynthText",
    "TotalText",
]
