"""BAS on InceptionV3 (Rethinking the Inception Architecture for Computer Vision, arXiv 1512.00567).

Names and widths are torchvision's, without its auxiliary classifier. What differs from that network: the
first convolution pads, both pools of the stem pad and count the last, incomplete window, the blocks that
halve the size pad, and the first of them does not halve (`Mixed_6a`): 224 pixels give maps of 28x28.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.registry import MODELS
from opsin.segmentation.weakly_supervised.models.bas.localizer import (
    CLASSIFIER_WIDTH,
    BASLocalizer,
    init_heads,
    version_settings,
)

Side = int | tuple[int, int]
BN_EPS = 1e-3
ROW, COLUMN = (1, 7), (7, 1)
stem_pool = partial(F.max_pool2d, kernel_size=3, stride=2, padding=1, ceil_mode=True)
mean_pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1)


class Conv(nn.Module):
    """Convolution `conv`, BatchNorm `bn`, ReLU."""

    def __init__(
        self, inner: int, outer: int, kernel: Side = 1, stride: int = 1, padding: Side | None = None
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (sides[0] // 2, sides[1] // 2) if padding is None else padding
        self.conv = nn.Conv2d(inner, outer, kernel, stride, around, bias=False)
        self.bn = nn.BatchNorm2d(outer, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, H, W) to (B, outer, h, w)."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


Widths = Mapping[str, tuple[int, Side]]
"""Of each convolution its channels and its kernel."""


class Mixed(nn.Module):
    """Convolutions along several routes, whose results are joined.

    Args:
        inner: channels in.
        widths: the convolutions.
        routes: their names in the order in which each route passes them; routes may begin alike.
        stride: of the last convolution of each route, and of the pool, where there is no `branch_pool`.
    """

    def __init__(self, inner: int, widths: Widths, routes: Sequence[Sequence[str]], stride: int = 0) -> None:
        super().__init__()
        self.routes, self.stride = [tuple(route) for route in routes], stride
        for route in self.routes:
            before = inner
            for name in route:
                outer, kernel = widths[name]
                last = max(1, stride) if name == route[-1] else 1
                self.add_module(name, Conv(before, outer, kernel, last))
                before = outer
        if "branch_pool" in widths:
            self.branch_pool = Conv(inner, *widths["branch_pool"])
        self.channels = sum(widths[route[-1]][0] for route in self.routes)
        self.channels += inner if stride else widths["branch_pool"][0]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, H, W) to (B, channels, h, w)."""
        found: dict[tuple[str, ...], Tensor] = {(): x}
        for route in self.routes:
            for end in range(1, len(route) + 1):
                if route[:end] not in found:
                    found[route[:end]] = self.get_submodule(route[end - 1])(found[route[: end - 1]])
        pooled = F.max_pool2d(x, 3, self.stride, padding=1) if self.stride else self.branch_pool(mean_pool(x))
        return torch.cat([*(found[route] for route in self.routes), pooled], 1)


def mixed_5(inner: int, pooled: int) -> Mixed:
    """Kernels of 1, 5 and twice 3."""
    widths: Widths = {
        "branch1x1": (64, 1),
        "branch5x5_1": (48, 1),
        "branch5x5_2": (64, 5),
        "branch3x3dbl_1": (64, 1),
        "branch3x3dbl_2": (96, 3),
        "branch3x3dbl_3": (96, 3),
        "branch_pool": (pooled, 1),
    }
    doubled = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    return Mixed(inner, widths, [("branch1x1",), ("branch5x5_1", "branch5x5_2"), doubled])


def mixed_6a(inner: int) -> Mixed:
    """Kernels of 3; halves elsewhere, not here."""
    widths: Widths = {
        "branch3x3": (384, 3),
        "branch3x3dbl_1": (64, 1),
        "branch3x3dbl_2": (96, 3),
        "branch3x3dbl_3": (96, 3),
    }
    doubled = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    return Mixed(inner, widths, [("branch3x3",), doubled], stride=1)


def mixed_6(inner: int, width: int) -> Mixed:
    """Kernels of 7 in rows and columns."""
    double = {2: COLUMN, 3: ROW, 4: COLUMN}
    widths: Widths = {
        "branch1x1": (192, 1),
        "branch7x7_1": (width, 1),
        "branch7x7_2": (width, ROW),
        "branch7x7_3": (192, COLUMN),
        "branch7x7dbl_1": (width, 1),
        **{f"branch7x7dbl_{number}": (width, kernel) for number, kernel in double.items()},
        "branch7x7dbl_5": (192, ROW),
        "branch_pool": (192, 1),
    }
    single = tuple(f"branch7x7_{number}" for number in range(1, 4))
    return Mixed(inner, widths, [("branch1x1",), single, tuple(f"branch7x7dbl_{n}" for n in range(1, 6))])


def mixed_7a(inner: int) -> Mixed:
    """Halves."""
    widths: Widths = {
        "branch3x3_1": (192, 1),
        "branch3x3_2": (320, 3),
        "branch7x7x3_1": (192, 1),
        "branch7x7x3_2": (192, ROW),
        "branch7x7x3_3": (192, COLUMN),
        "branch7x7x3_4": (192, 3),
    }
    long = tuple(f"branch7x7x3_{number}" for number in range(1, 5))
    return Mixed(inner, widths, [("branch3x3_1", "branch3x3_2"), long], stride=2)


def mixed_7(inner: int) -> Mixed:
    """Kernels of 3 that part into a row and a column."""
    widths: Widths = {
        "branch1x1": (320, 1),
        "branch3x3_1": (384, 1),
        "branch3x3_2a": (384, (1, 3)),
        "branch3x3_2b": (384, (3, 1)),
        "branch3x3dbl_1": (448, 1),
        "branch3x3dbl_2": (384, 3),
        "branch3x3dbl_3a": (384, (1, 3)),
        "branch3x3dbl_3b": (384, (3, 1)),
        "branch_pool": (192, 1),
    }
    parted = [
        *(("branch3x3_1", f"branch3x3_2{way}") for way in "ab"),
        *(("branch3x3dbl_1", "branch3x3dbl_2", f"branch3x3dbl_3{way}") for way in "ab"),
    ]
    return Mixed(inner, widths, [("branch1x1",), *parted])


@MODELS.register_module()
class BASInception(BASLocalizer):
    """On InceptionV3, cut after `Mixed_6e`.

    Args:
        num_classes: K.
        classifier_width: hidden channels of the classifier.
        clamp_value: see `Clamp`.
        first_version: as for `BASResNet`.
    """

    LOWER = ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
    UPPER = ("Mixed_7a", "Mixed_7b", "Mixed_7c")

    def __init__(
        self,
        num_classes: int = 200,
        *,
        classifier_width: int = CLASSIFIER_WIDTH,
        clamp_value: float = 1.0,
        first_version: bool = False,
    ) -> None:
        settings = version_settings(clamp_value, first_version)
        super().__init__(768, 2048, num_classes, classifier_width=classifier_width, **settings)
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, padding=0)
        blocks = [mixed_5(192, 32), mixed_5(256, 64), mixed_5(288, 64), mixed_6a(288)]
        blocks += [mixed_6(768, width) for width in (128, 160, 160, 192)]
        blocks += [mixed_7a(768), mixed_7(1280), mixed_7(2048)]
        for name, block in zip((*self.LOWER, *self.UPPER), blocks, strict=True):
            self.add_module(name, block)
        init_heads(self)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 768, h, w) of stride 8."""
        x = stem_pool(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = stem_pool(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name in self.LOWER:
            x = self.get_submodule(name)(x)
        return x

    def upper_half(self) -> Sequence[nn.Module]:
        """The last three blocks, the first of stride 2."""
        return [self.get_submodule(name) for name in self.UPPER]
