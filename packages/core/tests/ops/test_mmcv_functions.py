"""mmcv-lite's own `mmcv.ops`, running on the functions that opsin gives it."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import opsin.registry  # noqa: F401  # puts the extension in place
from opsin.core.errors import UserError
from opsin.core.ops import mmcv_functions
from opsin.core.ops.bbox_overlaps import bbox_overlaps
from opsin.core.ops.box_iou_rotated import box_iou_rotated
from opsin.core.ops.carafe import carafe
from opsin.core.ops.deform_conv import deform_conv2d
from opsin.core.ops.deform_roi_pool import deform_roi_pool
from opsin.core.ops.focal_loss import sigmoid_focal_loss, softmax_focal_loss
from opsin.core.ops.masked_conv import masked_conv2d
from opsin.core.ops.modulated_deform_conv import modulated_deform_conv2d
from opsin.core.ops.ms_deform_attn import ms_deform_attn
from opsin.core.ops.nms import batched_nms, filtered_nms, nms_match, soft_nms
from opsin.core.ops.psa_mask import TYPES, psa_mask
from opsin.core.ops.roi_align import roi_align
from opsin.core.ops.roi_pool import roi_pool

ROOT = Path(__file__).parents[4]
ROIS = torch.tensor([[0.0, 1, 1, 25, 30], [1, -8, 0, 13, 13], [0, 30, 30, 31, 60]])


@pytest.fixture(scope="module")
def ops() -> ModuleType:
    import mmcv.ops

    return mmcv.ops


@pytest.fixture(scope="module")
def ops_table() -> ModuleType:
    spec = spec_from_file_location("ops_table", ROOT / "tools" / "ops_table.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_same(
    theirs: Tensor, ours: Tensor, leaves: list[Tensor], rtol: float = 1e-4, atol: float = 1e-5
) -> None:
    """Same output and same gradients, for a random gradient of the output."""
    torch.testing.assert_close(theirs, ours, rtol=rtol, atol=atol)
    grad = rand(*ours.shape, seed=9)
    for got, want in zip(
        torch.autograd.grad(theirs, leaves, grad), torch.autograd.grad(ours, leaves, grad), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


def test_every_name_that_mmcv_asks_for_is_found(ops_table: ModuleType) -> None:
    names = [name for names in ops_table.asked_for().values() for name in names]
    assert len(names) > 100
    for name in names:
        assert callable(mmcv_functions.lookup(name))
        assert mmcv_functions.lookup(name).__name__ == name
    assert set(mmcv_functions.PROVIDED) <= set(names)


def test_an_op_that_is_not_provided_names_itself(ops: ModuleType) -> None:
    with pytest.raises(UserError, match="op box_iou_quadri of mmcv is not provided by opsin"):
        ops.box_iou_quadri(torch.zeros(1, 8), torch.zeros(1, 8))


def test_table_describes_what_is_provided_and_the_page_is_up_to_date() -> None:
    data = tomllib.loads(Path(mmcv_functions.__file__).with_suffix(".toml").read_text())
    listed = [name for entry in data.values() for name in entry["functions"]]
    assert sorted(listed) == sorted(mmcv_functions.PROVIDED)
    subprocess.run([sys.executable, ROOT / "tools" / "ops_table.py", "--check"], check=True)


def test_detectors_and_segmentors_import() -> None:
    code = "import opsin.registry, mmcv.ops, mmdet.models, mmseg.models"
    for package in ("mmdet", "mmseg"):
        pytest.importorskip(package)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_environment_report_says_that_nothing_was_compiled() -> None:
    from mmcv.utils.env import collect_env

    assert collect_env()["MMCV Compiler"] == "none (opsin.core.ops)"


def test_suppression(ops: ModuleType) -> None:
    corner = rand(40, 2).abs() * 20
    boxes = torch.cat([corner, corner + rand(40, 2, seed=1).abs() * 20], 1)
    scores, labels = rand(40, seed=2).sigmoid(), torch.arange(40) % 3
    pairs = [
        (
            ops.nms(boxes, scores, 0.4, score_threshold=0.3),
            filtered_nms(boxes, scores, 0.4, score_threshold=0.3),
        ),
        (ops.soft_nms(boxes, scores, method="gaussian"), soft_nms(boxes, scores, method="gaussian")),
    ]
    for cfg in (
        {"type": "nms", "iou_threshold": 0.4},
        {"type": "soft_nms", "iou_threshold": 0.3, "min_score": 0.05},
    ):
        pairs.append((ops.batched_nms(boxes, scores, labels, cfg), batched_nms(boxes, scores, labels, cfg)))
    for theirs, ours in pairs:
        torch.testing.assert_close(theirs[0], ours[0])
        assert torch.equal(theirs[1], ours[1])
    dets = torch.cat([boxes, scores[:, None]], 1)
    assert [list(map(int, group)) for group in ops.nms_match(dets, 0.4)] == nms_match(dets, 0.4)


def test_overlaps(ops: ModuleType) -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 3, 6], [2, 2, 9, 9]])
    for mode in ("iou", "iof"):
        assert torch.equal(
            ops.bbox_overlaps(boxes, boxes[:2], mode, offset=1),
            bbox_overlaps(boxes, boxes[:2], mode, offset=1),
        )
        assert torch.equal(ops.bbox_overlaps(boxes, boxes, mode, aligned=True), torch.ones(3))
    rotated = torch.tensor([[0.0, 0, 4, 2, 0.3], [1, 0, 2, 4, -0.4], [9, 9, 1, 1, 0]])
    assert torch.equal(ops.box_iou_rotated(rotated, rotated), box_iou_rotated(rotated, rotated))
    mirrored = rotated * torch.tensor([1, 1, 1, 1, -1])
    torch.testing.assert_close(
        ops.box_iou_rotated(rotated, rotated, clockwise=False), box_iou_rotated(mirrored, mirrored)
    )
    scores, labels = torch.tensor([0.8, 0.9, 0.1]), torch.tensor([0, 0, 1])
    assert ops.nms_rotated(rotated, scores, 0.2)[1].tolist() == [1, 2]
    assert ops.nms_rotated(rotated, scores, 0.2, labels)[1].tolist() == [1, 2]
    square = torch.tensor([[0.0, 0, 2, 0, 2, 2, 0, 2]])
    assert ops.points_in_polygons(torch.tensor([[1.0, 1], [3, 1]]), square).flatten().tolist() == [1, 0]


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align(ops: ModuleType, mode: str) -> None:
    x = rand(2, 8, 9, 8).requires_grad_()
    layer = ops.RoIAlign((3, 2), 0.25, 2, mode, aligned=False)
    assert_same(layer(x, ROIS), roi_align(x, ROIS, (3, 2), 0.25, 2, mode, aligned=False), [x])
    assert layer(x, ROIS[:0]).shape == (0, 8, 3, 2)


def test_roi_pool_takes_every_cell_that_a_bin_touches(ops: ModuleType) -> None:
    x = rand(2, 3, 9, 8).requires_grad_()
    assert_same(ops.RoIPool(2, 0.25)(x, ROIS), roi_pool(x, ROIS, 2, 0.25, "continuous"), [x])


def test_deform_roi_pool(ops: ModuleType) -> None:
    x, offset = rand(2, 3, 9, 8).requires_grad_(), rand(3, 2, 2, 2, seed=1).requires_grad_()
    assert_same(
        ops.deform_roi_pool(x, ROIS, offset, (2, 2), 0.25, 2),
        deform_roi_pool(x, ROIS, offset, 2, 0.25, 2),
        [x, offset],
    )
    assert_same(
        ops.deform_roi_pool(x, ROIS, None, (2, 2), 0.25, 0), deform_roi_pool(x, ROIS, None, 2, 0.25, 0), [x]
    )


def test_deformable_convolutions(ops: ModuleType) -> None:
    x, weight, bias = (
        t.requires_grad_() for t in (rand(2, 4, 7, 8), rand(6, 2, 3, 3, seed=1), rand(6, seed=2))
    )
    offset, mask = rand(2, 36, 3, 8, seed=3).requires_grad_(), rand(2, 18, 3, 8, seed=4).requires_grad_()
    settings = ((2, 1), (1, 2), (2, 2), 2, 2)
    first = ops.deform_conv2d(x, offset, weight, *settings)
    assert_same(first, deform_conv2d(x, offset, weight, *settings), [x, offset, weight])
    second = ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *settings)
    assert_same(
        second,
        modulated_deform_conv2d(x, offset, mask, weight, bias, *settings),
        [x, offset, mask, weight, bias],
    )


def test_fresh_deformable_layers_are_half_and_whole_convolutions(ops: ModuleType) -> None:
    x = rand(2, 4, 7, 7)
    for layer, share in (
        (ops.DeformConv2dPack(4, 6, 3, padding=1), 1.0),
        (ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1), 0.5),
    ):
        torch.testing.assert_close(
            layer(x), F.conv2d(x, layer.weight * share, padding=1), rtol=1e-4, atol=1e-5
        )


def test_multi_scale_deformable_attention(ops: ModuleType) -> None:
    from mmcv.ops import multi_scale_deform_attn as module

    shapes, starts = torch.tensor([[3, 4], [2, 2]]), torch.tensor([0, 12])
    value, places, weight = (
        t.requires_grad_()
        for t in (rand(2, 16, 2, 4), rand(2, 5, 2, 2, 3, 2, seed=1).sigmoid(), rand(2, 5, 2, 2, 3, seed=2))
    )
    ours = ms_deform_attn(value, shapes, places, weight)
    leaves = [value, places, weight]
    assert_same(
        module.MultiScaleDeformableAttnFunction.apply(value, shapes, starts, places, weight, 64), ours, leaves
    )
    ours = ms_deform_attn(value, shapes, places, weight)
    assert_same(module.multi_scale_deformable_attn_pytorch(value, shapes, places, weight), ours, leaves)


def test_focal_losses(ops: ModuleType) -> None:
    logits, weight = rand(7, 4).requires_grad_(), rand(4, seed=1).abs()
    classes, background = torch.tensor([0, 1, 2, 3, 0, 1, 2]), torch.tensor([0, 4, 2, 4, 0, 1, 4])
    for target, chosen in ((classes, weight), (background, None)):
        theirs = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, chosen, "mean")
        assert_same(theirs, sigmoid_focal_loss(logits, target, 2.0, 0.25, chosen), [logits])
    theirs = ops.softmax_focal_loss(logits, classes, 2.0, 0.25, weight, "sum")
    assert_same(theirs, softmax_focal_loss(logits, classes, 2.0, 0.25, weight, "sum"), [logits])


def test_carafe(ops: ModuleType) -> None:
    x, masks = rand(1, 4, 3, 2).requires_grad_(), rand(1, 18, 6, 4, seed=1).requires_grad_()
    assert_same(ops.carafe(x, masks, 3, 2, 2), carafe(x, masks, 3, 2, 2), [x, masks])
    assert torch.equal(ops.carafe_naive(x, masks, 3, 2, 2), carafe(x, masks, 3, 2, 2))


@pytest.mark.parametrize("psa_type", TYPES)
def test_psa_mask(ops: ModuleType, psa_type: str) -> None:
    x = rand(2, 15, 3, 4).requires_grad_()
    assert_same(ops.PSAMask(psa_type, (3, 5))(x), psa_mask(x, psa_type, (3, 5)), [x])


def test_masked_convolution(ops: ModuleType) -> None:
    layer, x, mask = ops.MaskedConv2d(3, 4, 3, padding=1), rand(1, 3, 5, 6), (rand(1, 5, 6) > 0).float()
    torch.testing.assert_close(layer(x, mask), masked_conv2d(x, mask, layer.weight, layer.bias, 1))
    assert layer(x, torch.zeros_like(mask)).abs().sum() == 0


@pytest.fixture
def process_group() -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_synchronised_batch_norm_of_one_process_is_batch_norm(ops: ModuleType) -> None:
    theirs, ours, x = ops.SyncBatchNorm(3), nn.BatchNorm2d(3), rand(2, 3, 4, 5)
    nn.init.ones_(theirs.weight)  # mmcv draws it at random
    results = []
    for layer in (theirs, ours):
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        out.backward(rand(2, 3, 4, 5, seed=1))
        results.append(
            (out, leaf.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var)
        )
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
