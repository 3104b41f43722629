"""RandAugment (arXiv 1909.13719), as DeiT and ConvNeXt train with it, from albumentations' operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from opsin.core.data import Albumentations
from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS

Spec = dict[str, Any]
Range = tuple[float, float]
BICUBIC = 2  # cv2.INTER_CUBIC


@TRANSFORMS.register_module()
class RandAugment(Albumentations):
    """`num_ops` of fifteen operations, each done with probability `probability`, at a common strength.

    The recipe `rand-m9-mstd0.5-inc1` is the default. Strengths vary evenly within `magnitude` ±
    `magnitude_std` instead of normally; sharpness is an unsharp mask or a slight blur.

    Args:
        magnitude: 0 (nearly nothing) to 10.
        magnitude_std: by how much the magnitude varies.
        num_ops: operations drawn for a picture, with repetition.
        probability: chance that an operation that was drawn is done.
        fill: RGB of what turning, shearing and shifting uncover.

    Raises:
        UserError: for a magnitude outside 0..10.
    """

    def __init__(
        self,
        magnitude: float = 9.0,
        magnitude_std: float = 0.5,
        num_ops: int = 2,
        probability: float = 0.5,
        fill: tuple[int, int, int] = (124, 116, 104),
    ) -> None:
        if not 0 <= magnitude <= 10:
            raise UserError(f"magnitude={magnitude} of RandAugment", "give a number from 0 to 10")
        low, high = (min(max(magnitude + way * magnitude_std, 0), 10) / 10 for way in (-1, 1))
        chosen = [{"p": probability, **spec} for spec in operations(low, high, fill).values()]
        super().__init__([{"type": "SomeOf", "n": num_ops, "replace": True, "p": 1.0, "transforms": chosen}])


def operations(low: float, high: float, fill: tuple[int, int, int]) -> dict[str, Spec]:
    """The operations by name, without the chance that one is done.

    Args:
        low: the least strength, in [0, 1].
        high: the greatest.
        fill: RGB of what is uncovered.
    """
    return _colour_operations(low, high) | _moves(low, high, fill)


def _colour_operations(low: float, high: float) -> dict[str, Spec]:
    """The operations that leave every pixel at its place."""
    return {
        "AutoContrast": {"type": "AutoContrast", "method": "pil"},
        "Equalize": {"type": "Equalize", "mode": "pil"},
        "Invert": {"type": "InvertImg"},
        "Posterize": {"type": "Posterize", "num_bits": max(4 - int(4 * (low + high) / 2), 1)},
        "Solarize": {"type": "Solarize", "threshold_range": (1 - high, 1 - low)},
        "SolarizeAdd": {"type": "SolarizeAdd", "addition": (110 * low, 110 * high)},
        **{
            name: _either_way(low, high, partial(_jitter, what), lambda s: 1 + 0.9 * s)
            for name, what in (
                ("Brightness", "brightness"),
                ("Contrast", "contrast"),
                ("Color", "saturation"),
            )
        },
        "Sharpness": {
            "type": "OneOf",
            "transforms": [
                {
                    "type": "UnsharpMask",
                    "blur_limit": 3,
                    "alpha": (0.9 * low, 0.9 * high),
                    "threshold": 0,
                    "p": 1.0,
                },
                {"type": "GaussianBlur", "sigma_limit": (0.9 * low, 0.9 * high), "p": 1.0},
            ],
        },
    }


def _moves(low: float, high: float, fill: tuple[int, int, int]) -> dict[str, Spec]:
    """Turning, shearing and shifting."""

    def affine(**change: Any) -> Spec:
        return {"type": "Affine", "interpolation": BICUBIC, "fill": fill, "p": 1.0, **change}

    def shear(strength: float) -> float:
        return math.degrees(math.atan(0.3 * strength))

    def shift(strength: float) -> float:
        return 0.45 * strength

    return {
        "Rotate": _either_way(low, high, lambda between: affine(rotate=between), lambda s: 30 * s),
        "ShearX": _either_way(low, high, lambda between: affine(shear={"x": between, "y": (0, 0)}), shear),
        "ShearY": _either_way(low, high, lambda between: affine(shear={"x": (0, 0), "y": between}), shear),
        "TranslateX": _either_way(
            low, high, lambda between: affine(translate_percent={"x": between, "y": (0, 0)}), shift
        ),
        "TranslateY": _either_way(
            low, high, lambda between: affine(translate_percent={"x": (0, 0), "y": between}), shift
        ),
    }


def _either_way(
    low: float, high: float, make: Callable[[Range], Spec], value: Callable[[float], float]
) -> Spec:
    """One of two operations of equal strength and opposite sign (`value` of -s for a strength s)."""
    return {
        "type": "OneOf",
        "transforms": [make((value(low), value(high))), make((value(-high), value(-low)))],
    }


def _jitter(what: str, between: Range) -> Spec:
    still: Spec = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    return {"type": "ColorJitter", "p": 1.0, **still, what: between}
