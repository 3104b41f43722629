"""MSVMamba, whole: multi-scale scan, networks of both releases, names of models, parity."""

from opsin.core.backbones.msvmamba import published
from opsin.core.backbones.msvmamba.model import MSVMamba, MSVMambaClassifier
from opsin.core.backbones.msvmamba.scan import MS2D, MS2DRelease1, MS2DRelease2
from opsin.core.backbones.msvmamba.settings import ARCHS, MSVMambaSettings
from opsin.core.models import register_models

__all__ = [
    "MS2D",
    "MS2DRelease1",
    "MS2DRelease2",
    "MSVMamba",
    "MSVMambaClassifier",
    "MSVMambaSettings",
    "published",
]

register_models(
    "msvmamba",
    MSVMambaClassifier,
    {f"msvmamba{'' if arch.startswith('v3') else '_'}{arch}": {"arch": arch} for arch in ARCHS},
    backbone=MSVMamba,
)
