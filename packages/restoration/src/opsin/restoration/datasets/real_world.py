"""Training pairs for photographs as people have them: the two rounds of degradation of Real-ESRGAN.

"Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data" (arXiv 2107.10833), with
the settings of HAT's real-world models. HR picture uint8 (H, W, 3) to LR picture uint8 (H/scale, W/scale, 3):

    blur, resize, noise, JPEG, blur, resize, noise, then in either order
    (resize to LR, ringing filter) and JPEG

The authors degrade batches on the GPU. All pictures of a batch are resized by the same factors there, so they
keep a pool of 180 pairs and draw mixed batches out of it. Here every picture is degraded alone, in the data
loader's workers: each pair of a batch has a degradation of its own, and no pool is needed. What a pair is
follows from seed, epoch and position, so that training resumes exactly. JPEG is OpenCV's: a differentiable
one would serve gradients through the degradation, and none pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import albumentations
import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS
from opsin.restoration.blur_kernels import SIZES, Range, draw_blur_kernel, draw_ringing_kernel
from opsin.restoration.degradation import crop_to_multiple

Image: TypeAlias = NDArray[np.float32]  # (H, W, 3), RGB from 0 to 1
Size: TypeAlias = tuple[int, int]  # height, width

INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
GAUSSIAN_PROB = 0.5  # else Poisson noise
GREY_PROB = 0.4  # that all channels get the same noise
LAST_RINGING_PROB = 0.8

# Published: I + 0.5 (I - B) where |I - B| is above 10 of 255, B the blur by a Gaussian of 51 pixels (sigma 8,
# which OpenCV derives from the size). Both ends of each range are the same: nothing is random.
_UNSHARP_MASK = albumentations.UnsharpMask(
    blur_limit=(51, 51), sigma_limit=(0, 0), alpha=(0.5, 0.5), threshold=10, p=1
)


def sharpened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`image` (H, W, 3) after unsharp masking, as the "sharper" model's targets are."""
    return np.asarray(_UNSHARP_MASK(image=image)["image"], np.uint8)


@dataclass(frozen=True)
class Round:
    """One round of blur, resize and noise; the defaults are the first round's.

    Attributes:
        blur_prob: probability of a blur.
        sigma: least and largest standard deviation of the blur, in pixels.
        resize_probs: of enlarging, reducing and keeping the size.
        resize_range: smallest and largest factor of the resize.
        gaussian_sigma: least and largest standard deviation of Gaussian noise, of 255.
        poisson_scale: least and largest multiple of Poisson noise.
        jpeg_quality: worst and best quality of the JPEG compression after the round.
    """

    blur_prob: float = 1.0
    sigma: Range = (0.2, 3)
    resize_probs: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: Range = (0.15, 1.5)
    gaussian_sigma: Range = (1, 30)
    poisson_scale: Range = (0.05, 3)
    jpeg_quality: Range = (30, 95)

    def __call__(self, image: Image, size: Size, rng: np.random.Generator) -> Image:
        """`image`, whose sides become those of `size` times a random factor."""
        if rng.random() < self.blur_prob:
            image = blurred(image, draw_blur_kernel(self.sigma, rng))
        factor = self.resize_factor(rng)
        image = resized(image, (int(size[0] * factor), int(size[1] * factor)), rng)
        if rng.random() < GAUSSIAN_PROB:
            noise = gaussian_noise(image, rng.uniform(*self.gaussian_sigma), rng.random() < GREY_PROB, rng)
        else:
            noise = poisson_noise(image, rng.uniform(*self.poisson_scale), rng.random() < GREY_PROB, rng)
        return np.clip(image + noise, 0, 1)

    def resize_factor(self, rng: np.random.Generator) -> float:
        """A random factor: above 1, below 1 or 1."""
        smallest, largest = self.resize_range
        ranges = ((1, largest), (smallest, 1), (1, 1))
        return rng.uniform(*ranges[rng.choice(3, p=self.resize_probs)])

    def compressed(self, image: Image, rng: np.random.Generator) -> Image:
        """`image` after JPEG of a random quality."""
        return jpeg(image, int(rng.uniform(*self.jpeg_quality)))


SECOND = Round(
    blur_prob=0.8,
    sigma=(0.2, 1.5),
    resize_probs=(0.3, 0.4, 0.3),
    resize_range=(0.3, 1.2),
    gaussian_sigma=(1, 25),
    poisson_scale=(0.05, 2.5),
)


@TRANSFORMS.register_module()
class RealWorldDegradation(BaseTransform):
    """Makes a pair of `img`: it becomes `gt_img`, and `img` the degraded LR picture, both uint8.

    Randomness comes from NumPy's global generator, which the engine seeds for each sample.

    Args:
        sharpen: adds `sharp_img`, `gt_img` after unsharp masking, and degrades that one ("sharper" model).
        first: what differs from the published first round, arguments of `Round`.
        second: the same for the second round.

    Raises:
        UserError: if the picture is smaller than `scale` pixels, or a round has no such setting.
    """

    def __init__(
        self,
        sharpen: bool = False,
        first: dict[str, Any] | None = None,
        second: dict[str, Any] | None = None,
    ) -> None:
        self.sharpen = sharpen
        try:
            self.first, self.second = replace(Round(), **(first or {})), replace(SECOND, **(second or {}))
        except TypeError as error:
            raise UserError(f"RealWorldDegradation: {error}", "a round has the settings of Round") from error

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds the pair; what `scale` does not divide is cropped on the right and below."""
        scale = results["scale"]
        target = crop_to_multiple(results["img"], scale)
        if not target.size:
            raise UserError(f"{results['img_path']} is smaller than {scale}x{scale}")
        source = sharpened(target) if self.sharpen else target
        rng = np.random.default_rng(np.random.randint(2**31, size=4))
        degraded = self.degraded(source.astype(np.float32) / np.float32(255), scale, rng)
        pair = dict(img=np.rint(degraded * 255).clip(0, 255).astype(np.uint8), gt_img=target)
        return results | pair | (dict(sharp_img=source) if self.sharpen else {})

    def degraded(self, image: Image, scale: int, rng: np.random.Generator) -> Image:
        """The LR picture (H/scale, W/scale, 3) of an HR one (H, W, 3), not clamped."""
        size = image.shape[0] // scale, image.shape[1] // scale
        image = self.first(image, (image.shape[0], image.shape[1]), rng)
        image = self.first.compressed(image, rng)
        image = self.second(image, size, rng)
        steps: list[Callable[[Image], Image]] = [
            lambda x: _ringing(resized(x, size, rng), rng),
            lambda x: self.second.compressed(x, rng),
        ]
        for step in rng.permutation(len(steps)):
            image = steps[step](image)
        return image


def blurred(image: Image, kernel: NDArray[np.float32]) -> Image:
    """`image` filtered; beyond the border it is mirrored, without the border pixel."""
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32)


def resized(image: Image, size: Size, rng: np.random.Generator) -> Image:
    """`image` in a new size (at least one pixel), by area averages, bilinear or bicubic at random."""
    height, width = (max(side, 1) for side in size)
    interpolation = INTERPOLATIONS[rng.integers(len(INTERPOLATIONS))]
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.float32)


def gaussian_noise(image: Image, sigma: float, grey: bool, rng: np.random.Generator) -> Image:
    """Noise for `image`, the same in all channels if `grey`; `sigma` is of 255."""
    shape = (*image.shape[:2], 1) if grey else image.shape
    return rng.standard_normal(shape, np.float32) * np.float32(sigma / 255)


def poisson_noise(image: Image, scale: float, grey: bool, rng: np.random.Generator) -> Image:
    """Shot noise times `scale`: (H, W, 3), or (H, W, 1) from the grey picture if `grey`.

    A pixel is taken for a count of photons: its value times the number of levels that the picture has, which
    is rounded up to a power of 2.
    """
    source = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if grey else image
    levels = np.rint(source * 255).clip(0, 255)
    photons = 2 ** math.ceil(math.log2(len(np.unique(levels))))
    expected = levels / 255
    noise = rng.poisson(expected * photons) / photons - expected
    return (noise * scale).astype(np.float32)


def jpeg(image: Image, quality: int) -> Image:
    """`image` after JPEG of `quality` (1 to 100), with halved chroma as JPEG files mostly have."""
    pixels = np.rint(image * 255).clip(0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.float32)
    return decoded[..., ::-1] / np.float32(255)


def _ringing(image: Image, rng: np.random.Generator) -> Image:
    if rng.random() >= LAST_RINGING_PROB:
        return image
    return blurred(image, draw_ringing_kernel(int(rng.choice(SIZES)), math.pi / 3, rng))
