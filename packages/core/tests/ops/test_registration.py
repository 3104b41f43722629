"""Every registered op passes PyTorch's own checks and goes through torch.compile and torch.export whole."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opsin.core.ops import focal_loss, modulated_deform_conv, ms_deform_attn, nms, roi_align, roi_pool


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


ROIS = torch.tensor([[0.0, 1, 1, 5, 6], [1, -2, 0, 3, 3]])
BOXES = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3], [6, 6, 8, 8]])
SHAPES = torch.tensor([[3, 4], [2, 2]])
SETTINGS = [1, 1, 1, 1, 1, 1, 1, 1]
TARGET = torch.tensor([0, 3, 1])


def leaf(*shape: int) -> Tensor:
    return rand(*shape).requires_grad_()


REGISTERED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "nms": (nms.nms, (BOXES, rand(3), 0.5)),
    "soft_nms": (nms.soft_nms, (BOXES, rand(3))),
    "roi_align": (roi_align._average, (leaf(2, 3, 6, 7), ROIS, 2, 3, 1.0, 2, True)),
    "roi_align_backward": (
        roi_align._average_backward,
        (rand(2, 3, 2, 3), ROIS, [2, 3, 6, 7], 2, 3, 1.0, 2, True),
    ),
    "roi_align_max": (roi_align._maximum, (leaf(2, 3, 6, 7), ROIS, 2, 3, 1.0, 2, True)),
    "roi_pool": (roi_pool._pool, (leaf(2, 3, 6, 7), ROIS, 2, 3, 1.0, "rounded")),
    "deform_conv": (
        modulated_deform_conv._convolve,
        (leaf(1, 2, 5, 5), leaf(1, 18, 5, 5), None, leaf(3, 2, 3, 3), None, SETTINGS),
    ),
    "modulated_deform_conv": (
        modulated_deform_conv._convolve,
        (leaf(1, 2, 5, 5), leaf(1, 18, 5, 5), leaf(1, 9, 5, 5), leaf(3, 2, 3, 3), leaf(3), SETTINGS),
    ),
    "ms_deform_attn": (
        ms_deform_attn._attend,
        (leaf(1, 16, 2, 4), SHAPES, leaf(1, 5, 2, 2, 3, 2), leaf(1, 5, 2, 2, 3)),
    ),
    "sigmoid_focal_loss": (focal_loss._sigmoid_loss, (leaf(3, 4), TARGET, rand(4), 2.0, 0.25)),
    "softmax_focal_loss": (focal_loss._softmax_loss, (leaf(3, 4), TARGET, rand(4), 2.0, 0.25)),
}


@pytest.mark.parametrize("name", REGISTERED)
def test_op_passes_opcheck(backend: str, name: str) -> None:
    op, inputs = REGISTERED[name]
    results = torch.library.opcheck(op, inputs)
    assert set(results.values()) == {"SUCCESS"}


PUBLIC: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "roi_align": (lambda x, rois: roi_align.roi_align(x, rois, 2, 0.5), (rand(2, 3, 6, 7), ROIS)),
    "roi_pool": (lambda x, rois: roi_pool.roi_pool(x, rois, 2, 0.5), (rand(2, 3, 6, 7), ROIS)),
    "modulated_deform_conv": (
        lambda x, offset, mask, weight: modulated_deform_conv.modulated_deform_conv2d(
            x, offset, mask, weight, None, 1, 1
        ),
        (rand(1, 2, 5, 5), rand(1, 18, 5, 5), rand(1, 9, 5, 5), rand(3, 2, 3, 3)),
    ),
    "ms_deform_attn": (
        lambda v, p, w: ms_deform_attn.ms_deform_attn(v, SHAPES, p, w),
        (rand(1, 16, 2, 4), rand(1, 5, 2, 2, 3, 2), rand(1, 5, 2, 2, 3)),
    ),
    "sigmoid_focal_loss": (lambda x: focal_loss.sigmoid_focal_loss(x, TARGET), (rand(3, 4),)),
    "softmax_focal_loss": (lambda x: focal_loss.softmax_focal_loss(x, TARGET), (rand(3, 4),)),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_op_compiles_whole_with_its_gradient(backend: str, name: str) -> None:
    function, inputs = PUBLIC[name]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    results = []
    for run in (function, compiled):
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = run(*leaves)
        results.append([out, torch.autograd.grad(out.square().sum(), leaves[0])[0]])
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("name", PUBLIC)
def test_op_exports(name: str) -> None:
    function, inputs = PUBLIC[name]

    class Module(nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return function(*inputs)

    program = torch.export.export(Module(), inputs)
    assert any("opsin." in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*inputs), function(*inputs))


def test_nms_compiles_with_a_count_that_depends_on_the_boxes() -> None:
    compiled = torch.compile(lambda b, s: nms.nms(b, s, 0.5) + 0, fullgraph=True, backend="aot_eager")
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert compiled(BOXES, scores).tolist() == [0, 2]
    assert compiled(BOXES + torch.tensor([[0.0], [9], [30]]), scores).tolist() == [0, 1, 2]
