"""Deformable convolution (DCNv1, arXiv:1703.06211): taps move by learned offsets; nothing is masked, no bias.

Shapes, borders and the computation are those of `modulated_deform_conv` with a mask of ones.
"""

from __future__ import annotations

from torch import Tensor

from opsin.core.ops.modulated_deform_conv import Pair, modulated_deform_conv2d


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """Deformable convolution, differentiable in its three tensors.

    Args:
        x: (B, C, H, W).
        offset: (B, 2 * deform_groups * K, out_h, out_w), (y, x) pairs tap by tap, in cells.
        weight: (out, C / groups, kernel_h, kernel_w).
        stride: along y and x, as are padding and dilation.
        padding: see stride.
        dilation: see stride.
        groups: of the convolution.
        deform_groups: of the offsets.

    Returns:
        (B, out, out_h, out_w).

    Raises:
        ValueError: as `modulated_deform_conv2d`.
    """
    return modulated_deform_conv2d(
        x, offset, None, weight, None, stride, padding, dilation, groups, deform_groups
    )
