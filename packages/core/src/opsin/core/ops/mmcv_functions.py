"""The functions of mmcv's compiled extension, by name, computed by opsin's ops.

`mmcv.ops` (2.x) allocates outputs, passes them in, and expects them written in place; its autograd functions
call a forward and a backward by name. Each function here keeps such a calling convention (argument names
included, since mmcv passes most by keyword) and holds no arithmetic of its own. Names of ops that neither
mmdet 3.3 nor mmsegmentation 1.2 uses (point clouds, sparse convolution, StyleGAN, text) are not provided:
`lookup` gives a function that raises a `UserError` when it is called, because mmcv asks for every name at
import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from opsin.core.errors import UserError
from opsin.core.ops import box_iou_rotated as rotated
from opsin.core.ops import focal_loss as focal
from opsin.core.ops import masked_conv, sync_bn
from opsin.core.ops import nms as suppression
from opsin.core.ops.bbox_overlaps import bbox_overlaps as _bbox_overlaps
from opsin.core.ops.carafe import carafe
from opsin.core.ops.deform_conv import deform_conv2d
from opsin.core.ops.deform_roi_pool import deform_roi_pool
from opsin.core.ops.gradients import gradients
from opsin.core.ops.modulated_deform_conv import modulated_deform_conv2d
from opsin.core.ops.ms_deform_attn import ms_deform_attn
from opsin.core.ops.points_in_polygons import points_in_polygons
from opsin.core.ops.psa_mask import TYPES, psa_mask
from opsin.core.ops.roi_align import roi_align_backward as _roi_align_backward
from opsin.core.ops.roi_align import roi_align_with_argmax
from opsin.core.ops.roi_pool import roi_pool_backward as _roi_pool_backward
from opsin.core.ops.roi_pool import roi_pool_with_argmax

Function = Callable[..., Any]
PROVIDED: dict[str, Function] = {}


def _provide(function: Function) -> Function:
    PROVIDED[function.__name__] = function
    return function


def lookup(name: str) -> Function:
    """The function that mmcv's extension has under `name`; for an op that opsin lacks, one that says so."""
    if name in PROVIDED:
        return PROVIDED[name]

    def not_provided(*_: object, **__: object) -> None:
        raise UserError(
            f"the op {name} of mmcv is not provided by opsin (neither mmdet nor mmsegmentation uses it)",
            "install a full mmcv, built with its extension, to call it",
        )

    not_provided.__name__ = name
    return not_provided


@_provide
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that stay."""
    return suppression.nms(boxes, scores, iou_threshold, offset)


@_provide
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Writes the picked boxes into the first rows of `dets` (N, 5) and gives their indices."""
    picked, order = suppression.soft_nms(
        boxes, scores, iou_threshold, sigma, min_score, suppression.METHODS[method], offset
    )
    dets[: len(picked)] = picked
    return order


@_provide
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of indices, the kept box first."""
    return suppression.nms_match(dets, iou_threshold)


@_provide
def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Writes `ious`."""
    ious.copy_(_bbox_overlaps(bboxes1, bboxes2, ("iou", "iof")[mode], aligned, offset))


@_provide
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Writes `output`, and for pool_mode 0 (maximum) where each maximum lies."""
    size, mode = (aligned_height, aligned_width), ("max", "avg")[pool_mode]
    values, best_y, best_x = roi_align_with_argmax(
        input, rois, size, spatial_scale, sampling_ratio, mode, aligned
    )
    output.copy_(values)
    if best_y is not None and best_x is not None:
        argmax_y.copy_(best_y)
        argmax_x.copy_(best_x)


@_provide
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Adds to `grad_input`."""
    best = None if pool_mode else (argmax_y, argmax_x)
    shape = list(grad_input.shape)
    grad_input += _roi_align_backward(grad_output, rois, shape, spatial_scale, sampling_ratio, aligned, best)


@_provide
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Writes `output` and `argmax`, by mmcv's unrounded bins."""
    size = (pooled_height, pooled_width)
    values, cells = roi_pool_with_argmax(input, rois, size, spatial_scale, edges="continuous")
    output.copy_(values)
    argmax.copy_(cells)


@_provide
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Adds to `grad_input`."""
    grad_input += _roi_pool_backward(grad_output, rois, argmax, list(grad_input.shape))


def _or_none(weight: Tensor) -> Tensor | None:
    return weight if weight.numel() else None


@_provide
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes `output` (N, C)."""
    output.copy_(focal.sigmoid_focal_loss(input, target, gamma, alpha, _or_none(weight), "none"))


@_provide
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss's slope at each logit."""
    grad_input.copy_(focal.sigmoid_focal_loss_slope(input, target, gamma, alpha, _or_none(weight)))


@_provide
def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes `output` (N,); `input` holds probabilities here."""
    output.copy_(focal.softmax_focal_loss(_logarithm(input), target, gamma, alpha, _or_none(weight), "none"))


@_provide
def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Writes the loss's slope at each logit; `input` holds probabilities, `buff` is not needed."""

    def total(logits: Tensor) -> Tensor:
        return focal.softmax_focal_loss(logits, target, gamma, alpha, _or_none(weight), "sum")

    grad_input.copy_(gradients(total, [_logarithm(input)], input.new_ones(()))[0])


def _logarithm(probabilities: Tensor) -> Tensor:
    """Logits whose softmax gives these probabilities."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


@_provide
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """(B, Q, M * D)."""
    return ms_deform_attn(value, value_spatial_shapes, sampling_locations, attention_weights)


@_provide
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Writes the three gradients."""

    def attend(value: Tensor, places: Tensor, weight: Tensor) -> Tensor:
        return ms_deform_attn(value, value_spatial_shapes, places, weight)

    inputs = (value, sampling_locations, attention_weights)
    written = (grad_value, grad_sampling_loc, grad_attn_weight)
    for target, gradient in zip(written, gradients(attend, inputs, grad_output), strict=True):
        target.copy_(gradient)


def _v1_settings(kwargs: dict[str, int]) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups out of the keyword arguments of mmcv's DCNv1 functions."""
    pairs = [(kwargs[f"{name}H"], kwargs[f"{name}W"]) for name in ("d", "pad", "dilation")]
    return *pairs, kwargs["group"], kwargs["deformable_group"]


@_provide
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **settings: int,
) -> None:
    """Writes `output`."""
    output.copy_(deform_conv2d(input, offset, weight, *_v1_settings(settings)))


@_provide
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **settings: int,
) -> None:
    """Writes the gradients of the map and the offsets."""

    def convolve(input: Tensor, offset: Tensor) -> Tensor:
        return deform_conv2d(input, offset, weight, *_v1_settings(settings))

    for target, gradient in zip(
        (gradInput, gradOffset), gradients(convolve, (input, offset), gradOutput), strict=True
    ):
        target.copy_(gradient)


@_provide
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **settings: int,
) -> None:
    """Adds `scale` times the gradient to `gradWeight`."""

    def convolve(weight: Tensor) -> Tensor:
        return deform_conv2d(input, offset, weight, *_v1_settings(settings))

    gradWeight.add_(gradients(convolve, (torch.zeros_like(gradWeight),), gradOutput)[0], alpha=scale)


def _v2_settings(kwargs: dict[str, int]) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups out of the keyword arguments of mmcv's DCNv2 functions."""
    pairs = [(kwargs[f"{name}_h"], kwargs[f"{name}_w"]) for name in ("stride", "pad", "dilation")]
    return *pairs, kwargs["group"], kwargs["deformable_group"]


@_provide
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **settings: int,
) -> None:
    """Writes `output`."""
    output.copy_(
        modulated_deform_conv2d(
            input, offset, mask, weight, bias if with_bias else None, *_v2_settings(settings)
        )
    )


@_provide
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **settings: int,
) -> None:
    """Writes the gradients."""

    def convolve(input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        return modulated_deform_conv2d(input, offset, mask, weight, None, *_v2_settings(settings))

    written = (grad_input, grad_offset, grad_mask, grad_weight)
    for target, gradient in zip(
        written, gradients(convolve, (input, offset, mask, weight), grad_output), strict=True
    ):
        target.copy_(gradient)
    if with_bias:
        grad_bias.copy_(grad_output.sum((0, 2, 3)))


@_provide
def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Writes `output`; an `offset` of no elements moves nothing."""
    size = (pooled_height, pooled_width)
    output.copy_(deform_roi_pool(input, rois, _or_none(offset), size, spatial_scale, sampling_ratio, gamma))


@_provide
def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Writes the gradients."""

    def pool(input: Tensor, *offsets: Tensor) -> Tensor:
        offset = offsets[0] if offsets else None
        size = (pooled_height, pooled_width)
        return deform_roi_pool(input, rois, offset, size, spatial_scale, sampling_ratio, gamma)

    given = (input, offset) if offset.numel() else (input,)
    for target, gradient in zip((grad_input, grad_offset), gradients(pool, given, grad_output), strict=False):
        target.copy_(gradient)


@_provide
def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Writes the windows `col` (C * kernel_h * kernel_w, P)."""
    col.copy_(masked_conv.masked_im2col(im, mask_h_idx, mask_w_idx, (kernel_h, kernel_w), (pad_h, pad_w)))


@_provide
def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Writes the map `im` (1, channels, height, width)."""
    im.copy_(masked_conv.masked_col2im(col, mask_h_idx, mask_w_idx, (height, width)))


@_provide
def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, **settings: int) -> None:
    """Writes `output`."""
    output.copy_(carafe(features, masks, **settings))


@_provide
def carafe_naive_backward(
    top_grad: Tensor, features: Tensor, masks: Tensor, bottom_grad: Tensor, mask_grad: Tensor, **settings: int
) -> None:
    """Writes both gradients."""

    def reassemble(features: Tensor, masks: Tensor) -> Tensor:
        return carafe(features, masks, **settings)

    for target, gradient in zip(
        (bottom_grad, mask_grad), gradients(reassemble, (features, masks), top_grad), strict=True
    ):
        target.copy_(gradient)


@_provide
def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    **settings: int,
) -> None:
    """Writes `output`; `rfeatures`, which mmcv keeps for the backward, becomes a copy of the features."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **settings)


@_provide
def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    **settings: int,
) -> None:
    """Writes both gradients; the work space is not needed."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, **settings)


@_provide
def psamask_forward(
    input: Tensor, output: Tensor, psa_type: int, h_mask: int, w_mask: int, **sizes: int
) -> None:
    """Writes `output`."""
    output.copy_(psa_mask(input, TYPES[psa_type], (h_mask, w_mask)))


@_provide
def psamask_backward(
    grad_output: Tensor, grad_input: Tensor, psa_type: int, h_mask: int, w_mask: int, **sizes: int
) -> None:
    """Writes the gradient."""

    def lay_out(x: Tensor) -> Tensor:
        return psa_mask(x, TYPES[psa_type], (h_mask, w_mask))

    grad_input.copy_(gradients(lay_out, (torch.zeros_like(grad_input),), grad_output)[0])


@_provide
def points_in_polygons_forward(points: Tensor, polygons: Tensor, output: Tensor) -> None:
    """Writes `output`."""
    output.copy_(points_in_polygons(points, polygons))


@_provide
def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Writes `ious`, flat."""
    ious.copy_(rotated.box_iou_rotated(boxes1, boxes2, ("iou", "iof")[mode_flag], aligned).flatten())


@_provide
def nms_rotated(
    dets: Tensor,
    scores: Tensor,
    order: Tensor,
    dets_sorted: Tensor,
    labels: Tensor,
    iou_threshold: float,
    multi_label: bool,
) -> Tensor:
    """Indices of the boxes that stay; `dets` may carry labels in a sixth column, which `labels` repeats."""
    return rotated.nms_rotated(dets[:, :5], scores, iou_threshold, labels if multi_label else None)


@_provide
def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Writes `mean`."""
    mean.copy_(sync_bn.mean(input))


@_provide
def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Writes `var`."""
    var.copy_(sync_bn.variance(input, mean))


@_provide
def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: Tensor,
    group_size: int,
) -> None:
    """Writes `norm`, `std`, `output` and moves the running statistics, each where it has elements."""
    normalised, deviation = sync_bn.normalise(input, mean, var, eps)
    scaled = normalised if not weight.numel() else normalised * weight[:, None] + bias[:, None]
    for target, value in ((norm, normalised), (std, deviation), (output, scaled)):
        if target.numel():
            target.copy_(value)
    if running_mean.numel():
        count = input.shape[0] * input.shape[2] * group_size
        sync_bn.update_running(running_mean, mean, momentum)
        sync_bn.update_running(running_var, sync_bn.unbiased(var, count), momentum)


@_provide
def sync_bn_backward_param(grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Writes both gradients."""
    for target, gradient in zip(
        (grad_weight, grad_bias), sync_bn.parameter_gradients(grad_output, norm), strict=True
    ):
        target.copy_(gradient)


@_provide
def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Writes the gradient."""
    grad_input.copy_(sync_bn.input_gradient(grad_output, weight, grad_weight, grad_bias, norm, std))


@_provide
def get_compiler_version() -> str:
    """What stands in for a compiler in the environment's report."""
    return "none (opsin.core.ops)"


@_provide
def get_compiling_cuda_version() -> str:
    """What stands in for a CUDA compiler in the environment's report."""
    return "none (opsin.core.ops)"
