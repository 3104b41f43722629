"""PolyMaX: the published frame's numbers, and what its mixture of values promises."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from opsin.core.cli.catalog import describe
from opsin.core.engine.checkpoint import load_exactly, load_what_fits
from opsin.core.errors import UserError
from opsin.core.models import create_model
from opsin.core.parity import run_case
from opsin.core.published import place
from opsin.core.systems import get_system
from opsin.registry import MODELS
from opsin.segmentation.dense_prediction.models import PolyMax
from opsin.segmentation.dense_prediction.models.polymax import KMaxDecoder, PixelDecoder, cluster_sums
from opsin.segmentation.dense_prediction.models.polymax.kmax_decoder import Clusters
from opsin.segmentation.dense_prediction.models.polymax.pixel_decoder import (
    AxisAttention,
    RelativePositions,
    ResizedFuse,
)

CASES = sorted((Path(__file__).parent / "parity" / "polymax").glob("*.json"))
CLASSES = 3
OUTPUTS: dict[str, dict[str, Any]] = {
    "semantic": {"type": "opsin.SemanticOutput", "num_classes": CLASSES},
    "depth": {"type": "opsin.DepthOutput"},
    "normals": {"type": "opsin.NormalOutput"},
}


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_parity_with_the_published_frame(case: Path) -> None:
    result = run_case(case)
    assert not result.error
    assert result.ok


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_decoder_parameter_counts() -> None:
    with torch.device("meta"):
        pixel = PixelDecoder((192, 384, 768, 1536))
        assert count(pixel) == 23_688_640
        assert count(KMaxDecoder(pixel.out_channels, 41, void_classes=40)) == 11_753_741
        for values, parameters in ((1, 11_681_781), (3, 11_685_379), (40, 11_751_942)):
            assert count(KMaxDecoder(pixel.out_channels, values)) == parameters


@pytest.mark.parametrize("name", get_system("polymax").models)
def test_named_models_differ_between_tasks_in_their_last_layers_alone(name: str) -> None:
    with torch.device("meta"):
        model, depth = create_model(name), create_model(f"{name.rsplit('_', 1)[0]}_depth")
    own, other = (
        {n: p.shape for n, p in m.named_parameters() if "_transformer_class_head" not in n}
        for m in (model, depth)
    )
    assert own == other
    assert model.output.channels == {"semantic": 40, "depth": 1, "normals": 3}[name.rsplit("_", 1)[1]]


def test_info_counts_operations_without_building_the_weights() -> None:
    assert describe("polymax_convnext_tiny_depth", 64)["multiply_adds"] > 10**8


def small(output: str, **changes: Any) -> PolyMax:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "type": "opsin.PolyMax",
        "backbone": {"type": "opsin.ConvNeXt", "arch": {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24)}},
        "in_channels": (8, 12, 16, 24),
        "output": OUTPUTS[output],
        "num_centers": 6,
        "dims": (16, 8, 8, 8),
        "layers": (1, 1, 1, 1),
        "kmax_layers": (1, 1, 1),
        **changes,
    }
    model: PolyMax = MODELS.build(config)
    return model


def scene(number: int, size: tuple[int, int] = (64, 96)) -> tuple[Tensor, SegDataSample]:
    """Two halves that differ in colour, class, depth and normal."""
    height, width = size
    border = width // 4 + 8 * number
    left = (torch.arange(width) < border).expand(height, width)
    image = torch.where(left, 1.0, -1.0).expand(3, -1, -1).clone()
    image[number % 3] *= 0.5
    sample = SegDataSample(metainfo={"img_shape": size, "ori_shape": size, "img_path": f"{number}.jpg"})
    sample.gt_sem_seg = PixelData(data=torch.where(left, 0, 1 + number % 2)[None])
    sample.gt_depth_map = PixelData(data=torch.where(left, 1.0 + number, 5.0)[None])
    normal = torch.where(
        left, torch.tensor([1.0, 0, 0])[:, None, None], torch.tensor([0, 0, 1.0])[:, None, None]
    )
    sample.gt_normals = PixelData(data=normal)
    return image, sample


def batch(count: int = 4, size: tuple[int, int] = (64, 96)) -> tuple[Tensor, list[SegDataSample]]:
    images, samples = zip(*(scene(number, size) for number in range(count)), strict=True)
    return torch.stack(images), list(samples)


def test_weights_of_the_centres_sum_to_one_and_answers_lie_between_their_values() -> None:
    model = small("depth").eval()
    with torch.no_grad():
        final, _ = model.clusters(batch(2)[0])
        weights = final.mask_logits.softmax(1)
        answer = model.mixture(final)
        values = model.output.values(final.values)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
    low, high = values.amin((1, 2))[:, None, None], values.amax((1, 2))[:, None, None]
    assert (answer[:, 0] >= low - 1e-5).all()
    assert (answer[:, 0] <= high + 1e-5).all()
    assert answer.min() > 0


def test_order_of_the_centres_does_not_matter() -> None:
    model = small("normals").eval()
    images = batch(2)[0]
    with torch.no_grad():
        before = model(images)
        table = model.predictor._cluster_centers.weight
        table.copy_(table[:, torch.randperm(table.shape[1])])
        after = model(images)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


def test_centre_gains_the_sum_of_its_pixels_and_an_empty_one_nothing() -> None:
    values = torch.tensor([[[[1.0, 2.0, 4.0]], [[10.0, 20.0, 40.0]]]])
    logits = torch.tensor([[[[5.0, 0.0, 5.0]], [[0.0, 5.0, 0.0]], [[-1.0, -1.0, -1.0]]]])
    sums = cluster_sums(values, logits)
    assert sums.tolist() == [[[5.0, 2.0, 0.0], [50.0, 20.0, 0.0]]]
    logits.requires_grad_()
    values.requires_grad_()
    cluster_sums(values, logits).sum().backward()
    assert logits.grad is None
    assert values.grad is not None


def test_relative_positions_are_key_minus_query_whatever_the_length() -> None:
    positions = RelativePositions(2)
    rows = positions._embeddings.weight
    for length in (3, 5):
        table = positions(length)
        assert torch.equal(table[0, 2], rows[254 + 2])
        assert torch.equal(table[2, 0], rows[254 - 2])
    with pytest.raises(UserError, match="256 cells on a side"):
        positions(256)


def test_axis_attention_takes_any_length_and_follows_no_absolute_place() -> None:
    torch.manual_seed(0)
    attention = AxisAttention(16, 8, 16).eval()
    x = torch.randn(2, 16, 7)
    assert attention(x).shape == (2, 16, 7)
    torch.testing.assert_close(attention(x[:, :, :1].expand(-1, -1, 4))[..., 0].shape, torch.Size([2, 16]))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (75, 53), (1, 1)])
def test_answers_have_the_pictures_size(output: str, size: tuple[int, int]) -> None:
    model = small(output).eval()
    with torch.no_grad():
        answer = model(torch.randn(1, 3, *size))
    assert answer.shape == (1, model.output.channels, *size)


def test_results_have_the_original_size_and_their_own_kind() -> None:
    images, samples = batch(2)
    for sample in samples:
        sample.set_metainfo({"ori_shape": (30, 40)})
    with torch.no_grad():
        normals = small("normals").eval()(images, samples, mode="predict")[0].pred_normals.data
        depth = small("depth").eval()(images, samples, mode="predict")[0].pred_depth_map.data
        classes = small("semantic").eval()(images, samples, mode="predict")[0].pred_sem_seg.data
    assert normals.shape == (3, 30, 40)
    torch.testing.assert_close(normals.norm(dim=0), torch.ones(30, 40))
    assert depth.shape == (1, 30, 40)
    assert 0 < depth.min() <= depth.max() <= 10
    assert classes.shape == (1, 30, 40)
    assert set(classes.unique().tolist()) <= set(range(CLASSES))


def test_padding_is_cut_off_before_losses_and_results() -> None:
    model = small("depth").eval()
    images, samples = batch(2)
    alone = model(images[:1], [samples[0]], mode="predict")[0].pred_depth_map.data
    samples[1].set_metainfo({"img_shape": (40, 96), "ori_shape": (40, 96)})
    samples[1].gt_depth_map = PixelData(data=samples[1].gt_depth_map.data[:, :40])
    both = model(images, samples, mode="predict")
    assert both[1].pred_depth_map.data.shape == (1, 40, 96)
    torch.testing.assert_close(both[0].pred_depth_map.data, alone, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(model(images, samples, mode="loss")["loss"])


@pytest.mark.parametrize("output", OUTPUTS)
def test_loss_falls_on_four_scenes(output: str) -> None:
    model = small(output).train()
    images, samples = batch()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    totals = []
    for _ in range(15):
        losses = model(images, samples, mode="loss")
        assert losses.keys() == {"loss", "d0.loss", "d1.loss", "d2.loss"}
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.85 * totals[0]


def test_every_parameter_has_a_gradient_and_the_backbone_gets_it_through_the_mixture() -> None:
    model = small("depth", deep_supervision=False).train()
    images, samples = batch(2)
    model(images, samples, mode="loss")["loss"].backward()
    assert sum(float(p.grad.abs().sum()) for p in model.backbone.parameters() if p.grad is not None) > 0
    supervised = small("depth").train()
    sum(supervised(images, samples, mode="loss").values()).backward()
    assert not [name for name, p in supervised.named_parameters() if p.grad is None]


def test_bfloat16_autocast_trains_and_predicts() -> None:
    model = small("normals").train()
    images, samples = batch(2)
    with torch.autocast("cpu", torch.bfloat16):
        total = sum(model(images, samples, mode="loss").values())
    total.backward()
    assert torch.isfinite(total)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        (result, _) = model.eval()(images, samples, mode="predict")
    torch.testing.assert_close(result.pred_normals.data.norm(dim=0), torch.ones(64, 96))


def test_export_gives_the_same_answer() -> None:
    model = small("depth").eval()
    images = torch.randn(1, 3, 64, 64)
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-5)


def test_published_kmax_checkpoint_is_an_initialisation_for_all_but_its_classes() -> None:
    source, model = small("semantic").state_dict(), small("depth")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    published = {n if n.startswith("backbone.") else f"sem_seg_head.{n}": t for n, t in source.items()}
    keys = [(r"^module\.", "")]  # mmengine's own
    load_what_fits(model, {"state_dict": OrderedDict(published)}, keys, source="kmax.pth")
    own = model.state_dict()
    assert {n for n in own if own[n].shape != source[n].shape} == {
        n for n in own if "_transformer_class_head" in n
    }
    for name, value in own.items():
        if "_transformer_class_head" not in name:
            assert torch.equal(value, source[name]), name


def test_checkpoint_of_another_output_is_refused_as_a_whole_model() -> None:
    with pytest.raises(UserError, match="_transformer_class_head"):
        place(small("depth"), small("semantic").state_dict())
    with pytest.raises(UserError, match="_transformer_class_head"):
        load_exactly(small("depth"), small("semantic").state_dict(), source="semantic.pth")


def test_auxiliary_masks_align_their_corners_where_the_height_is_odd() -> None:
    masks = torch.arange(6.0).view(1, 1, 2, 3)
    clusters = Clusters(masks, torch.zeros(1, 1, 1), masks)
    for size in ((5, 8), (4, 9)):
        wanted = F.interpolate(masks, size, mode="bilinear", align_corners=size[0] == 5)
        assert torch.equal(clusters.resized(size).mask_logits, wanted)


@pytest.mark.parametrize("width", [4, 5])
def test_fuse_aligns_corners_where_the_coarse_width_is_odd(width: int) -> None:
    low, high = torch.randn(1, 8, 5, width), torch.zeros(1, 8, 9, 9)
    aligned = F.interpolate(low, (9, 9), mode="bilinear", align_corners=width == 5)
    torch.testing.assert_close(ResizedFuse(8, 8, 8)(low, high), aligned)
