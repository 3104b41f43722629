"""Corruptions like those of MedMNIST-C (arXiv 2406.17536), for evaluating how a classifier bears them.

MedMNIST-C is distributed as files, which `MedMNIST` reads; these are for pictures that have none. The
kinds are those of the paper that apply to pictures of any origin, drawn with albumentations; the five
severities are chosen here, from barely visible to severe.
"""

from __future__ import annotations

from typing import Any

from opsin.core.data import Albumentations
from opsin.core.errors import UserError, unknown
from opsin.registry import TRANSFORMS

Spec = dict[str, Any]


def _fixed(name: str, key: str, values: tuple[float, ...], **more: Any) -> tuple[Spec, ...]:
    return tuple({"type": name, key: (value, value), **more} for value in values)


def _jitter(what: str, values: tuple[float, ...]) -> tuple[Spec, ...]:
    still: Spec = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    return tuple({"type": "ColorJitter", **still, what: (value, value)} for value in values)


CORRUPTIONS: dict[str, tuple[Spec, ...]] = {
    "pixelate": _fixed("Downscale", "scale_range", (0.7, 0.5, 0.4, 0.3, 0.2)),
    "jpeg_compression": _fixed("ImageCompression", "quality_range", (40, 25, 18, 12, 7)),
    "gaussian_noise": _fixed("GaussNoise", "std_range", (0.04, 0.08, 0.12, 0.18, 0.26)),
    "speckle_noise": _fixed("MultiplicativeNoise", "multiplier", (0.9, 1.2, 1.4, 1.6, 1.8), elementwise=True),
    "impulse_noise": _fixed("SaltAndPepper", "amount", (0.01, 0.03, 0.06, 0.1, 0.17)),
    "shot_noise": _fixed("ShotNoise", "scale_range", (0.05, 0.1, 0.2, 0.3, 0.5)),
    "defocus_blur": _fixed("Defocus", "radius", (1, 2, 3, 5, 7), alias_blur=(0.1, 0.1)),
    "motion_blur": _fixed("MotionBlur", "blur_limit", (3, 7, 11, 15, 21)),
    "brightness_up": _jitter("brightness", (1.2, 1.4, 1.6, 1.8, 2.0)),
    "brightness_down": _jitter("brightness", (0.8, 0.65, 0.5, 0.35, 0.2)),
    "contrast_up": _jitter("contrast", (1.3, 1.6, 2.0, 2.5, 3.0)),
    "contrast_down": _jitter("contrast", (0.75, 0.6, 0.45, 0.3, 0.2)),
    "saturate": _jitter("saturation", (0.6, 0.3, 1.5, 2.0, 3.0)),
    "gamma_corr_up": _fixed("RandomGamma", "gamma_limit", (120, 140, 170, 200, 250)),
    "gamma_corr_down": _fixed("RandomGamma", "gamma_limit", (80, 70, 60, 50, 40)),
}


@TRANSFORMS.register_module()
class Corrupt(Albumentations):
    """Corrupts every picture in the same way.

    Args:
        kind: one of `CORRUPTIONS`.
        severity: 1 to 5.

    Raises:
        UserError: for an unknown kind or severity.
    """

    def __init__(self, kind: str, severity: int = 3) -> None:
        if kind not in CORRUPTIONS:
            raise unknown("corruption", kind, CORRUPTIONS)
        if severity not in range(1, 6):
            raise UserError(f"severity={severity} of Corrupt", "give a number from 1 to 5")
        super().__init__([{**CORRUPTIONS[kind][severity - 1], "p": 1.0}])
