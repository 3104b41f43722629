"""AutoAugment (arXiv 1805.09501): the policies that its authors found, from albumentations' operations."""

from __future__ import annotations

from typing import Any

from opsin.classification.datasets.rand_augment import operations
from opsin.core.data import Albumentations
from opsin.core.errors import unknown
from opsin.registry import TRANSFORMS

LEVELS = 9  # the greatest magnitude

# 25 pairs of operations a data set, each operation with its chance in tenths and its magnitude
POLICIES: dict[str, str] = {
    "cifar10": """
        Invert 1 0 Contrast 2 6; Rotate 7 2 TranslateX 3 9; Sharpness 8 1 Sharpness 9 3;
        ShearY 5 8 TranslateY 7 9; AutoContrast 5 0 Equalize 9 0; ShearY 2 7 Posterize 3 7;
        Color 4 3 Brightness 6 7; Sharpness 3 9 Brightness 7 9; Equalize 6 0 Equalize 5 0;
        Contrast 6 7 Sharpness 6 5; Color 7 7 TranslateX 5 8; Equalize 3 0 AutoContrast 4 0;
        TranslateY 4 3 Sharpness 2 6; Brightness 9 6 Color 2 8; Solarize 5 2 Invert 0 0;
        Equalize 2 0 AutoContrast 6 0; Equalize 2 0 Equalize 6 0; Color 9 9 Equalize 6 0;
        AutoContrast 8 0 Solarize 2 8; Brightness 1 3 Color 7 0; Solarize 4 5 AutoContrast 9 0;
        TranslateY 9 9 TranslateY 7 9; AutoContrast 9 0 Solarize 8 3; Equalize 8 0 Invert 1 0;
        TranslateY 7 9 AutoContrast 9 0
    """,
    "svhn": """
        ShearX 9 4 Invert 2 0; ShearY 9 8 Invert 7 0; Equalize 6 0 Solarize 6 6;
        Invert 9 0 Equalize 6 0; Equalize 6 0 Rotate 9 3; ShearX 9 4 AutoContrast 8 0;
        ShearY 9 8 Invert 4 0; ShearY 9 5 Solarize 2 6; Invert 9 0 AutoContrast 8 0;
        Equalize 6 0 Rotate 9 3; ShearX 9 4 Solarize 3 3; ShearY 8 8 Invert 7 0;
        Equalize 9 0 TranslateY 6 6; Invert 9 0 Equalize 6 0; Contrast 3 3 Rotate 8 4;
        Invert 8 0 TranslateY 0 2; ShearY 7 6 Solarize 4 8; Invert 6 0 Rotate 8 4;
        ShearY 3 7 TranslateX 9 3; ShearX 1 6 Invert 6 0; Solarize 7 2 TranslateY 6 7;
        ShearY 8 4 Invert 8 0; ShearX 7 9 TranslateY 8 3; ShearY 8 5 AutoContrast 7 0;
        ShearX 7 2 Invert 1 0
    """,
    "imagenet": """
        Posterize 4 8 Rotate 6 9; Solarize 6 5 AutoContrast 6 0; Equalize 8 0 Equalize 6 0;
        Posterize 6 7 Posterize 6 6; Equalize 4 0 Solarize 2 4; Equalize 4 0 Rotate 8 8;
        Solarize 6 3 Equalize 6 0; Posterize 8 5 Equalize 10 0; Rotate 2 3 Solarize 6 8;
        Equalize 6 0 Posterize 4 6; Rotate 8 8 Color 4 0; Rotate 4 9 Equalize 6 0;
        Equalize 0 0 Equalize 8 0; Invert 6 0 Equalize 10 0; Color 6 4 Contrast 10 8;
        Rotate 8 8 Color 10 2; Color 8 8 Solarize 8 7; Sharpness 4 7 Invert 6 0;
        ShearX 6 5 Equalize 10 0; Color 4 0 Equalize 6 0; Equalize 4 0 Solarize 2 4;
        Solarize 6 5 AutoContrast 6 0; Invert 6 0 Equalize 10 0; Color 6 4 Contrast 10 8;
        Equalize 8 0 Equalize 6 0
    """,
}


@TRANSFORMS.register_module()
class AutoAugment(Albumentations):
    """One of 25 pairs of operations, each done with its own chance.

    The strengths are the paper's. Operations that have two ways (turning, shearing, shifting, colours) go
    either way; sharpness is an unsharp mask or a slight blur.

    Args:
        policy: 'cifar10' (for CIFAR-100 too), 'svhn' or 'imagenet'.
        fill: RGB of what turning, shearing and shifting uncover.

    Raises:
        UserError: for another policy.
    """

    def __init__(self, policy: str = "imagenet", fill: tuple[int, int, int] = (124, 116, 104)) -> None:
        if policy not in POLICIES:
            raise unknown("policy of AutoAugment", policy, POLICIES)
        pairs = [
            {"type": "Sequential", "p": 1.0, "transforms": _pair(text.split(), fill)}
            for text in POLICIES[policy].split(";")
        ]
        super().__init__([{"type": "OneOf", "p": 1.0, "transforms": pairs}])


def _pair(words: list[str], fill: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Two operations from their names, chances in tenths and magnitudes."""
    return [_operation(*words[at : at + 3], fill=fill) for at in (0, 3)]


def _operation(name: str, tenths: str, magnitude: str, *, fill: tuple[int, int, int]) -> dict[str, Any]:
    """The operation of that magnitude, done with that chance."""
    strength = int(magnitude) / LEVELS
    chosen = operations(strength, strength, fill)
    # unlike RandAugment's, which goes on to a single bit
    chosen["Posterize"] = {"type": "Posterize", "num_bits": 8 - round(4 * strength)}
    return {**chosen[name], "p": int(tenths) / 10}
