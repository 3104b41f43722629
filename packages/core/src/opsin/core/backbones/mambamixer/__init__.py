"""MambaMixer, whole: selective mixers, weighted averaging, the vision backbone ViM2, the forecaster TSM2."""

from opsin.core.backbones.mambamixer.averaging import MixerStack, average
from opsin.core.backbones.mambamixer.mixer import (
    S6,
    MambaMixer,
    SelectiveChannelMixer,
    SelectiveMixer,
    SelectiveTokenMixer,
)
from opsin.core.backbones.mambamixer.series import TSM2
from opsin.core.backbones.mambamixer.vision import ARCHS, ViM2, ViM2Classifier
from opsin.core.models import register_models

__all__ = [
    "S6",
    "TSM2",
    "MambaMixer",
    "MixerStack",
    "SelectiveChannelMixer",
    "SelectiveMixer",
    "SelectiveTokenMixer",
    "ViM2",
    "ViM2Classifier",
    "average",
]

register_models(
    "mambamixer", ViM2Classifier, {f"vim2_{arch}": {"arch": arch} for arch in ARCHS}, backbone=ViM2
)
