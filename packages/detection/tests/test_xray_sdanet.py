"""SDANet's block and pyramid against the published numbers and the paper's definitions."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS as MMDET_MODELS

from opsin.core import create_model
from opsin.core.engine.checkpoint import load_exactly, read_run
from opsin.core.engine.config import build_model, load_config
from opsin.core.parity import run_case
from opsin.core.published import load_published
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.detection.xray.models.sdanet import (
    SDAFPN,
    PooledBatchNorm,
    SDACascadeRCNN,
    SelectiveDenseAttention,
)

CASES = Path(__file__).parent / "parity" / "pidray-sdanet"
SIZES = ((19, 27), (10, 14), (5, 7), (3, 4), (2, 2))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def pyramid(channels=16, batch=2):
    return [torch.randn(batch, channels, *size) for size in SIZES]


def count(model):
    return sum(p.numel() for p in model.parameters())


# Published numbers.


@pytest.mark.parametrize("case", get_system("pidray-sdanet").cases)
def test_published_numbers(case):
    result = run_case(CASES / f"{case}.json")
    assert not result.error
    assert result.ok


def test_blocks_and_detectors_have_the_published_size():
    with torch.device("meta"):
        block = SelectiveDenseAttention(0)
        neck = SDAFPN([256, 512, 1024, 2048], 256, 5)
        detector = create_model("cascade_mask_rcnn_r101_sdanet")
        plain = build_model(
            load_config("cascade_mask_rcnn_r101_sdanet_pidray", overrides=["model.neck.type=FPN"])
        )
    assert count(block) == 207_387
    assert count(neck) == 4_381_319
    assert count(detector) == 97_092_141
    assert count(plain) == 96_055_206


@pytest.mark.parametrize("name", get_task("xray_detection").configs())
def test_every_config_builds_for_twelve_classes(name):
    with torch.device("meta"):
        model = build_model(load_config(name))
    heads = model.roi_head.bbox_head
    assert {head.num_classes for head in (heads if "cascade" in name else [heads])} == {12}
    assert isinstance(model.neck, SDAFPN)


def test_every_config_is_listed():
    assert sorted(get_task("xray_detection").configs()) == sorted(get_system("pidray-sdanet").configs)


# The block.


@pytest.mark.parametrize("level", range(5))
def test_weights_of_the_levels_sum_to_one(level):
    block, levels = SelectiveDenseAttention(level, 16), pyramid()
    channel, spatial = block.weights(block.gather(levels))
    assert channel.shape == (2, 5, 16, 1, 1)
    assert spatial.shape == (2, 5, 1, *SIZES[level])
    assert torch.allclose(channel.sum(1), torch.ones(1))
    assert torch.allclose(spatial.sum(1), torch.ones(1))


def test_finer_levels_are_pooled_and_coarser_ones_repeated():
    block, levels = SelectiveDenseAttention(1, 16), pyramid()
    gathered = block.gather(levels)
    assert torch.equal(gathered[0], F.adaptive_max_pool2d(levels[0], SIZES[1]))
    assert torch.equal(gathered[1], levels[1])
    assert set(gathered[4][0, 0].unique().tolist()) == set(levels[4][0, 0].flatten().tolist())


def test_equal_weights_without_context_add_two_fifths_of_the_sum():
    block, levels = SelectiveDenseAttention(2, 16), pyramid()
    for conv in (*block.channel_att.fcs, *block.spatial_att.conv):
        torch.nn.init.zeros_(conv.weight)
        if conv.bias is not None:
            torch.nn.init.zeros_(conv.bias)
    want = levels[2] + 2 / 5 * sum(block.gather(levels))
    assert torch.allclose(block(levels), want, atol=1e-5)


def test_context_starts_as_nothing_in_training_too():
    neck = SDAFPN([8, 16, 24], 16, 5)
    neck.init_weights()  # an FPN gives every convolution new weights
    block, levels = neck.selective_attention_0, pyramid()
    gathered = block.gather(levels)
    channel, spatial = block.weights(gathered)
    selected = sum(x * (channel[:, i] + spatial[:, i]) for i, x in enumerate(gathered))
    assert torch.allclose(block(levels), levels[0] + selected, atol=1e-5)


# The neck.


def small_neck(**changes):
    return SDAFPN([8, 16, 24], 64, 5, **changes)


def maps(size=(75, 51), batch=2):
    return [torch.randn(batch, c, -(-size[0] // s), -(-size[1] // s)) for c, s in ((8, 4), (16, 8), (24, 16))]


def test_blocks_read_the_plain_pyramid_and_keep_its_sizes():
    neck = small_neck().eval()
    stock = MMDET_MODELS.build({"type": "FPN", "in_channels": [8, 16, 24], "out_channels": 64, "num_outs": 5})
    stock.load_state_dict({k: v for k, v in neck.state_dict().items() if not k.startswith("selective")})
    inputs = maps()
    plain = stock.eval()(inputs)
    for level, out in enumerate(neck(inputs)):
        assert out.shape == plain[level].shape
        assert torch.equal(out, getattr(neck, f"selective_attention_{level}")(plain))


@pytest.mark.parametrize("batch", [1, 2])
def test_gradient_reaches_every_block(batch):
    neck = small_neck().train()
    for level in range(5):  # the last convolution of the context starts at zero
        torch.nn.init.normal_(getattr(neck, f"selective_attention_{level}").refine.channel_add_conv[3].weight)
    sum(out.square().sum() for out in neck(maps(batch=batch))).backward()
    for name, parameter in neck.named_parameters():
        # a softmax over pixels does not see a bias that all of them share
        if not name.endswith("conv_mask.bias"):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_one_image_in_training_is_normalised_by_the_running_statistics():
    norm = PooledBatchNorm(4).train()
    norm.running_mean.fill_(2.0)
    out = norm(torch.full((1, 4, 1, 1), 3.0))
    assert torch.allclose(out, torch.ones(1), atol=1e-4)
    assert torch.equal(norm.running_mean, torch.full((4,), 2.0))
    assert norm(torch.randn(2, 4, 1, 1)).mean().abs() < 1e-6


def test_bf16_autocast_stays_near_float32():
    neck, inputs = small_neck().eval(), maps()
    with torch.no_grad():
        want = neck(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            got = neck(inputs)
    for a, b in zip(got, want, strict=True):
        assert (a.float() - b).abs().max() < 0.05 * b.abs().max()


def test_neck_is_exported():
    neck, inputs = small_neck().eval(), maps()
    program = torch.export.export(neck, (inputs,))
    for a, b in zip(program.module()(inputs), neck(inputs), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "stock",
    [
        "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco",
        "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco",
        "mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco",
        "mmdet::retinanet/retinanet_r50_fpn_1x_coco",
    ],
)
def test_any_detector_with_a_pyramid_takes_the_attention_by_one_line(stock):
    cfg = load_config(stock, overrides=["model.neck.type=opsin.SDAFPN"])
    with torch.device("meta"):
        model = build_model(cfg)
        outputs = model.neck(model.backbone(torch.zeros(1, 3, 64, 96, device="meta")))
    assert len(outputs) == 5
    assert (
        sum(
            "selective_attention" in n and n.endswith("conv_mask.weight") for n, _ in model.named_parameters()
        )
        == 5
    )


# Published checkpoints.


def authors_layout(model):
    """A detector's tensors as mmdet 1.x wrote them: twelve classes after the background, masks of it too."""
    written = {}
    for name, tensor in model.state_dict().items():
        old = name.removeprefix("roi_head.").replace("neck.selective", "selective")
        if ".fc_cls." in name:
            tensor = tensor.roll(1, 0)
        elif ".conv_logits." in name:
            tensor = torch.cat((torch.zeros_like(tensor[:1]), tensor))
        written[old] = tensor
    return written


def small_cascade():
    cfg = load_config("cascade_mask_rcnn_r101_sdanet_pidray_authors")
    model = cfg.model
    model.backbone.update(depth=50, base_channels=8, stem_channels=8, init_cfg=None)
    model.neck.update(in_channels=[32, 64, 128, 256], out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    for extractor in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
        extractor.out_channels = 16
    for head in model.roi_head.bbox_head:
        head.update(in_channels=16, fc_out_channels=32)
    model.roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    return build_model(cfg)


def test_authors_layout_of_mmdet_1_loads(tmp_path):
    source, target = small_cascade(), small_cascade()
    assert isinstance(source, SDACascadeRCNN)
    want = source.state_dict()
    for prefix in ("", "module."):
        tensors = {f"{prefix}{name}": tensor for name, tensor in authors_layout(source).items()}
        assert any(name.startswith(f"{prefix}selective_attention_4.refine") for name in tensors)
        torch.save({"meta": {}, "state_dict": tensors}, tmp_path / "sdanet.pth")
        for parameter in target.parameters():
            torch.nn.init.zeros_(parameter)
        load_published(target, tmp_path / "sdanet.pth")
        assert all(torch.equal(value, want[name]) for name, value in target.state_dict().items())
        for parameter in target.parameters():
            torch.nn.init.zeros_(parameter)
        # as `opsin test` and `opsin predict` read it
        load_exactly(target, read_run(tmp_path / "sdanet.pth")["state_dict"], source="sdanet.pth")
        assert all(torch.equal(value, want[name]) for name, value in target.state_dict().items())
