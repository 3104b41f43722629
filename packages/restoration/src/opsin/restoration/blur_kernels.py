"""Blur kernels as Real-ESRGAN draws them: Gaussians, their generalised and plateau forms, and ringing ones.

"Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data" (arXiv 2107.10833).

A kernel is float32 (size, size), size odd from 7 to 21, and its values sum to 1. With d the squared distance
from the centre in units of the standard deviations along two rotated axes, kernels are exp(-d^beta / 2), with
beta 1 for the Gaussian, or the plateau 1 / (1 + d^beta). The ringing kernel is a low-pass filter with a round
and sharp cutoff; it leaves the overshoot that sharpening and compression do.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import albumentations
import numpy as np
from numpy.typing import NDArray

Kernel: TypeAlias = NDArray[np.float32]
Range: TypeAlias = tuple[float, float]

SIZES = tuple(range(7, 22, 2))
RINGING_PROB = 0.1  # else one of SHAPES
SHAPES = ("gaussian", "generalised", "plateau")
SHAPE_PROBS = {  # of round kernels, then of oval ones
    True: (0.45, 0.12, 0.12),
    False: (0.25, 0.03, 0.03),
}
BETAS: dict[str, Range] = {"gaussian": (1, 1), "generalised": (0.5, 4), "plateau": (1, 2)}


def bell_kernel(size: int, sigmas: Range, angle: float, beta: float) -> Kernel:
    """exp(-d^beta / 2), the generalised Gaussian.

    Args:
        size: side in pixels, odd.
        sigmas: standard deviations in pixels along the first and the second axis.
        angle: of the first axis to the rows, in radians.
        beta: 1 gives the Gaussian; more gives flatter tops and steeper flanks.
    """
    return _normalised(np.exp(-0.5 * _squared_distance(size, sigmas, angle) ** beta))


def plateau_kernel(size: int, sigmas: Range, angle: float, beta: float) -> Kernel:
    """1 / (1 + d^beta), with the arguments of `bell_kernel`."""
    return _normalised(1 / (1 + _squared_distance(size, sigmas, angle) ** beta))


def ringing_kernel(size: int, cutoff: float) -> Kernel:
    """The low-pass filter that keeps frequencies below `cutoff` radians a pixel in every direction.

    Args:
        size: side in pixels, odd.
        cutoff: above 0, at most pi.
    """
    filters = albumentations.RingingOvershoot(blur_limit=(size, size), cutoff=(cutoff, cutoff))
    return np.asarray(filters.get_params()["kernel"], np.float32)


def draw_blur_kernel(sigma: Range, rng: np.random.Generator) -> Kernel:
    """A random kernel of any kind.

    Args:
        sigma: least and largest standard deviation in pixels.
        rng: where randomness comes from.
    """
    size = int(rng.choice(SIZES))
    if rng.random() < RINGING_PROB:
        return draw_ringing_kernel(size, math.pi / 3 if size < 13 else math.pi / 5, rng)
    probabilities = [*SHAPE_PROBS[True], *SHAPE_PROBS[False]]
    kind = int(rng.choice(len(probabilities), p=probabilities))
    is_round, shape = kind < len(SHAPES), SHAPES[kind % len(SHAPES)]
    first = rng.uniform(*sigma)
    sigmas = (first, first) if is_round else (first, rng.uniform(*sigma))
    angle = rng.uniform(-math.pi, math.pi)
    kernel = plateau_kernel if shape == "plateau" else bell_kernel
    return kernel(size, sigmas, angle, _draw_beta(BETAS[shape], rng))


def draw_ringing_kernel(size: int, least_cutoff: float, rng: np.random.Generator) -> Kernel:
    """A ringing kernel whose cutoff lies between `least_cutoff` and pi."""
    return ringing_kernel(size, rng.uniform(least_cutoff, math.pi))


def _draw_beta(limits: Range, rng: np.random.Generator) -> float:
    """Below 1 as often as above, however wide the two sides are."""
    return rng.uniform(limits[0], 1) if rng.random() < 0.5 else rng.uniform(1, limits[1])


def _squared_distance(size: int, sigmas: Range, angle: float) -> NDArray[np.float64]:
    places = np.arange(size) - (size - 1) / 2
    rows, columns = places[:, None], places[None]
    along = (columns * math.cos(angle) + rows * math.sin(angle)) / sigmas[0]
    across = (rows * math.cos(angle) - columns * math.sin(angle)) / sigmas[1]
    squared: NDArray[np.float64] = along**2 + across**2
    return squared


def _normalised(kernel: NDArray[np.float64]) -> Kernel:
    return (kernel / kernel.sum()).astype(np.float32)
