"""RelationNet++'s modules against the published numbers and the paper's claims."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.structures import InstanceData
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_model
from opsin.core.engine.checkpoint import load_exactly, read_run
from opsin.core.errors import UserError
from opsin.core.parity import run_case
from opsin.core.published import load_published
from opsin.core.systems import get_system
from opsin.detection.models.relationnet2 import (
    BVRHead,
    KeyPointHead,
    KeyPoints,
    Place,
    PointRelation,
    PositionTable,
    gaussian_radius,
    point_targets,
)
from opsin.detection.models.relationnet2.keypoints import (
    KINDS,
    PointMaps,
    grid_place,
    grid_points,
    local_maxima,
)
from opsin.detection.models.relationnet2.roi_head import bin_centres
from opsin.registry import MODELS

CASES = Path(__file__).parent / "parity" / "relationnet2"
COUNTS = {
    "retinanet_r50_bvr": 46_417_466,
    "retinanet_x101_dcn_bvr": 112_023_140,
    "fcos_x101_dcn_bvr": 102_931_712,
}
STRIDES = (8, 16, 32)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def stock_head(kind="RetinaHead", **changes):
    """A thin stock head on strides 8, 16, 32 with three classes."""
    head = {
        "type": kind,
        "num_classes": 3,
        "in_channels": 16,
        "feat_channels": 16,
        "stacked_convs": 1,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "ratios": [1.0],
            "octave_base_scale": 4,
            "scales_per_octave": 1,
            "strides": list(STRIDES),
        },
        "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
    }
    if kind == "FCOSHead":
        del head["anchor_generator"], head["bbox_coder"]
        head |= {
            "strides": STRIDES,
            "regress_ranges": ((-1, 64), (64, 128), (128, 1e8)),
            "norm_cfg": None,
            "loss_bbox": {"type": "IoULoss", "loss_weight": 1.0},
        }
    if kind == "ATSSHead":
        head |= {"norm_cfg": None, "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0}}
    return {**head, **changes}


def bvr(kind="RetinaHead", *, head=None, points=None, **changes):
    train_cfg = {
        "assigner": {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0},
        "sampler": {"type": "PseudoSampler"},
        "allowed_border": -1,
        "pos_weight": -1,
        "debug": False,
    }
    if kind == "ATSSHead":
        train_cfg["assigner"] = {"type": "ATSSAssigner", "topk": 9}
    return BVRHead(
        stock_head(kind, **(head or {})),
        {
            "num_classes": 3,
            "in_channels": 16,
            "feat_channels": 16,
            "stacked_convs": 1,
            "strides": STRIDES,
            **(points or {}),
        },
        train_cfg=train_cfg,
        **{"relation": {"num_heads": 4, "base_size": (40, 40)}, **changes},
    )


def pyramid(batch=2, size=(64, 88), channels=16):
    return [torch.randn(batch, channels, -(-size[0] // s), -(-size[1] // s)) for s in STRIDES]


def data_samples(boxes=((8, 8, 40, 48), (30, 10, 80, 60)), labels=(0, 2), batch=2, size=(64, 88)):
    from mmdet.structures import DetDataSample

    samples = []
    for _ in range(batch):
        sample = DetDataSample(
            metainfo={"img_shape": size, "pad_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)}
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.tensor(labels).long()
        )
        samples.append(sample)
    return samples


def total(losses):
    return sum(sum(v) if isinstance(v, list) else v for v in losses.values())


# Published numbers.


@pytest.mark.parametrize("case", get_system("relationnet2").cases)
def test_published_numbers(case):
    result = run_case(CASES / f"{case}.json")
    assert not result.error
    assert result.ok


@pytest.mark.parametrize("name", COUNTS)
def test_published_size(name):
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


def test_parts_of_the_head_have_the_published_size():
    with torch.device("meta"):
        head = create_model("retinanet_r50_bvr").bbox_head
    parts = (head, head.bbox_head, head.keypoint_head, head.cls_transformer, head.reg_transformer)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [14_909_946, 6_465_268, 7_651_062, 265_224, 528_392]


def test_models_take_another_number_of_classes():
    with torch.device("meta"):
        head = create_model("retinanet_r50_bvr", num_classes=3).bbox_head
    assert head.num_classes == head.keypoint_head.num_classes == 3


def small_detector():
    return MODELS.build(
        {
            "type": "opsin.RelationNet2",
            "backbone": {
                "type": "mmdet.ResNet",
                "depth": 18,
                "base_channels": 8,
                "stem_channels": 8,
                "out_indices": (1, 2, 3),
            },
            "neck": {"type": "mmdet.FPN", "in_channels": [16, 32, 64], "out_channels": 16, "num_outs": 3},
            "bbox_head": {
                "type": "opsin.BVRHead",
                "bbox_head": stock_head(),
                "keypoint_head": {
                    "num_classes": 3,
                    "in_channels": 16,
                    "feat_channels": 16,
                    "strides": STRIDES,
                    "norm_cfg": {"type": "GN", "num_groups": 4},
                },
                "relation": {"num_heads": 4, "base_size": (40, 30)},
            },
        }
    )


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "bare"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_checkpoints_load_with_their_sine_embedding(tmp_path, wrapper, prefix):
    torch.manual_seed(1)
    source, target = small_detector(), small_detector()
    tensors = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
    place = f"{prefix}bbox_head.cls_transformer.relative_positional_encoding.base_embedding"
    tensors[place] = torch.zeros(1, 31, 41, 16)
    torch.save(tensors if wrapper == "bare" else {"meta": {}, wrapper: tensors}, tmp_path / "bvr.pth")
    load_published(target, tmp_path / "bvr.pth")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())
    other = small_detector()  # as `opsin test` and `opsin predict` read it
    load_exactly(other, read_run(tmp_path / "bvr.pth")["state_dict"], source="bvr.pth")
    assert torch.equal(
        other.bbox_head.bbox_head.retina_cls.weight, source.bbox_head.bbox_head.retina_cls.weight
    )


# The relation.


def keys_of(count=7, batch=2, channels=16, span=100.0):
    return KeyPoints(torch.randn(batch, count, channels), torch.rand(batch, count, 2) * span)


def test_order_of_the_keys_does_not_matter():
    relation = PointRelation(16, 4, 2, base_size=(40, 40))
    query, place = torch.randn(2, 5, 6, 16), grid_place((5, 6), 8, torch.zeros(1))
    kinds = [keys_of(50), keys_of(50)]
    order = torch.randperm(50)
    shuffled = [KeyPoints(k.features[:, order], k.positions[:, order]) for k in kinds]
    assert torch.allclose(
        relation(query, place, kinds, 8.0), relation(query, place, shuffled, 8.0), atol=1e-5
    )


def test_relation_without_output_leaves_the_stock_head_unchanged():
    """Towers end in a ReLU, so ReLU(features + 0) are the features."""
    head = bvr()
    for relation in (head.cls_transformer, head.reg_transformer):
        for attention in relation.decoder:
            torch.nn.init.zeros_(attention.out_proj.weight)
    levels = pyramid()
    for got, want in zip(head(levels), head.bbox_head(levels), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_query_is_the_residual_and_a_relu_follows():
    relation = PointRelation(16, 4, base_size=(40, 40))
    torch.nn.init.zeros_(relation.decoder[0].out_proj.weight)
    query = torch.randn(1, 3, 3, 16)
    refined = relation(query, grid_place((3, 3), 8, query), [keys_of(batch=1)], 8.0)
    assert torch.equal(refined, query.relu())


def test_cost_is_pixels_times_keys():
    relation = PointRelation(16, 4, base_size=(40, 40)).eval()

    def flops(side, keys):
        query = torch.randn(1, side, side, 16)
        counter = FlopCounterMode(display=False)
        with counter:
            relation(query, grid_place((side, side), 8, query), [keys_of(keys, 1)], 8.0)
        return counter.get_total_flops()

    table, shared = (
        flops(8, 50),
        2 * 41 * 16 // 2 * 4 * 2,
    )  # the tables of both axes cost the same for any map
    per_pixel = 2 * 2 * 16 * 16 + 2 * 2 * 50 * 16  # two projections; logits and weighted sum over 50 keys
    assert table == 64 * per_pixel + 50 * 4 * 16 * 16 + shared
    assert flops(16, 50) - table == (256 - 64) * per_pixel
    assert flops(8, 25) < table


def full_map(table):
    """The published map (1, heads, h + 1, w + 1): a 1x1 convolution on the embedding of every offset."""
    w, h = table.base_size
    y, x = torch.meshgrid(
        torch.arange(-(h // 2), h // 2 + 1.0), torch.arange(-(w // 2), w // 2 + 1.0), indexing="ij"
    )
    conv = table.embedding_transform[0].conv
    dim = conv.in_channels
    t = 1000 ** (4 / dim * torch.arange(dim // 4))
    parts = [wave(p[..., None] / t) for p in (x, y) for wave in (torch.sin, torch.cos)]
    return conv(torch.cat(parts, -1).permute(2, 0, 1)[None])


@pytest.mark.parametrize("base_size", [(40, 40), (60, 30), (31, 45)])
def test_position_table_is_the_bilinear_look_up_in_the_published_map(base_size):
    table = PositionTable(32, 4, base_size=base_size, log_scale=False)
    torch.nn.init.normal_(table.embedding_transform[0].conv.weight)
    offsets = (torch.rand(2, 6, 9, 2) - 0.5) * 100  # some beyond the map
    grid = offsets / (0.5 * torch.tensor(base_size))
    want = F.grid_sample(
        full_map(table).expand(2, -1, -1, -1), grid, padding_mode="border", align_corners=False
    )
    assert torch.allclose(table(offsets[..., 0], offsets[..., 1]), want, atol=1e-4)


def test_positions_beyond_the_table_count_as_its_border():
    table = PositionTable(32, 4, base_size=(40, 30))
    far, border = torch.tensor([[1e4, -1e4]]), torch.tensor([[22.0, -22.0]])
    assert torch.equal(table(far, far), table(border, border))


def test_negative_table_values_shut_a_key_out():
    table = PositionTable(32, 1, base_size=(40, 40))
    torch.nn.init.zeros_(table.embedding_transform[0].conv.weight)
    torch.nn.init.constant_(table.embedding_transform[0].conv.bias, -1.0)
    value = table(torch.zeros(1, 1), torch.zeros(1, 1)).item()
    assert value == pytest.approx(np.log(1e-6), abs=1e-4)


def test_grid_and_list_of_places_give_the_same():
    relation = PointRelation(16, 4, base_size=(40, 40))
    query, kinds = torch.randn(2, 4, 5, 16), [keys_of()]
    grid = grid_place((4, 5), 16, query)
    points = grid_points((4, 5), 16, query)
    listed = Place(points[None, :, 0].expand(2, -1), points[None, :, 1].expand(2, -1))
    assert torch.allclose(
        relation(query, grid, kinds, 8.0).flatten(1, 2),
        relation(query.flatten(1, 2), listed, kinds, 8.0),
        atol=1e-6,
    )


@pytest.mark.parametrize("ablation", ["appearance", "geometry"])
def test_each_term_can_be_left_out(ablation):
    relation = PointRelation(16, 4, base_size=(40, 40), **{ablation: False})
    query, kinds = torch.randn(1, 3, 4, 16), [keys_of(batch=1)]
    first = relation(query, grid_place((3, 4), 8, query), kinds, 8.0)
    assert first.shape == query.shape
    if ablation == "geometry":
        moved = [KeyPoints(kinds[0].features, kinds[0].positions + 30)]
        assert torch.equal(first, relation(query, grid_place((3, 4), 8, query), moved, 8.0))


# Key points.


def test_each_object_has_one_positive_of_each_kind_on_each_level():
    boxes = torch.tensor([[8.0, 8, 40, 48], [60, 30, 120, 90], [5, 70, 30, 88]])
    levels = [grid_points((-(-96 // s), -(-128 // s)), s, boxes) for s in (4, 8)]
    for where in KINDS.values():
        found = point_targets(levels, (4, 8), where(boxes), boxes, torch.tensor([0, 1, 2]), 3)
        split = found.positive.split([len(points) for points in levels])
        assert [int(part.sum()) for part in split] == [3, 3]
        assert torch.equal(found.scores.amax(1) == 1, found.positive)
        assert found.offsets[found.positive].abs().max() <= 0.5 + 1e-6
        assert not found.offsets[~found.positive].any()


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(a, b):
    x = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return x / (area(a) + area(b) - x)


@pytest.mark.parametrize("size", [(60.0, 46.0), (14.0, 90.0)])
def test_boxes_moved_by_the_radius_keep_the_overlap(size):
    w, h = size
    r = gaussian_radius(torch.tensor(size)).item()
    box = (0, 0, w, h)
    moved = [(r, r, w + r, h + r), (r, r, w - r, h - r), (-r, -r, w + r, h + r)]
    ious = [overlap(box, other) for other in moved]
    assert min(ious) == pytest.approx(0.7, abs=1e-5)


def test_local_maxima_keep_plateaus():
    scores = torch.tensor([[[[0.1, 0.9, 0.9], [0.2, 0.3, 0.1], [0.5, 0.1, 0.4]]]])
    assert local_maxima(scores)[0, 0].tolist() == [
        [0, pytest.approx(0.9), pytest.approx(0.9)],
        [0, 0, 0],
        [0.5, 0, pytest.approx(0.4)],
    ]


def test_chosen_keys_are_where_the_heat_map_peaks():
    head = KeyPointHead(2, 16, feat_channels=16, strides=(8, 16), kinds=("center",), num_keys=3)
    logits = [torch.full((1, 2, 6, 7), -9.0), torch.full((1, 2, 3, 4), -9.0)]
    offsets = [torch.zeros(1, 2, 6, 7), torch.zeros(1, 2, 3, 4)]
    logits[0][0, 1, 2, 5], logits[0][0, 0, 4, 1], logits[1][0, 0, 1, 3] = 3.0, 2.0, 1.0
    offsets[0][0, :, 2, 5] = torch.tensor([0.25, -0.5])
    features = [torch.randn(1, 16, 6, 7), torch.randn(1, 16, 3, 4)]
    keys = head.choose(PointMaps(logits, offsets), features)
    assert keys.positions[0].tolist() == [[5 * 8 + 4 + 2, 2 * 8 + 4 - 4], [12, 36], [56, 24]]
    assert torch.equal(keys.features[0, 0], features[0][0, :, 2, 5])
    assert torch.equal(keys.features[0, 2], features[1][0, :, 1, 3])


def test_no_more_keys_than_asked_for():
    head = KeyPointHead(5, 16, feat_channels=16, strides=STRIDES)
    levels = pyramid(1, (160, 192))
    maps = head(levels)
    assert {head.choose(maps[kind], levels).features.shape for kind in KINDS} == {(1, 50, 16)}
    few = [level[:, :, :2, :3] for level in levels]
    assert head.choose(head(few)["center"], few).features.shape == (1, 18, 16)


def test_gradient_of_the_boxes_reaches_the_key_points_through_positions_and_features():
    head = bvr()
    losses = head.loss(pyramid(), data_samples())
    total({name: value for name, value in losses.items() if name.startswith("bbox_")}).backward()
    points = head.keypoint_head
    for branch in points.keypoint_offset_heads.values():
        assert branch[-1].weight.grad.abs().sum() > 0  # through positions
    assert all(b[-1].weight.grad is None for b in points.keypoint_cls_heads.values())  # a choice has none
    maps = points(levels := pyramid())
    for level in levels:
        level.requires_grad_()
    points.choose(maps["center"], levels).features.sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in levels)


# The head.


@pytest.mark.parametrize("kind", ["RetinaHead", "FCOSHead", "ATSSHead"])
def test_losses_fall_and_reach_every_parameter(kind):
    head = bvr(kind)
    for relation in (head.cls_transformer, head.reg_transformer):
        torch.nn.init.constant_(relation.relative_positional_encoding.embedding_transform[0].conv.bias, 0.8)
    levels, samples = pyramid(), data_samples()
    optimizer = torch.optim.Adam(head.parameters(), 5e-3)
    history = []
    for _ in range(15):
        losses = head.loss(levels, samples)
        optimizer.zero_grad()
        total(losses).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
        optimizer.step()
        history.append({name: total({name: v}).item() for name, v in losses.items()})
    assert set(history[0]) >= {"bbox_loss_cls", "bbox_loss_bbox", "kpt_loss_heatmap", "kpt_loss_offset"}
    for name in ("bbox_loss_cls", "bbox_loss_bbox", "kpt_loss_heatmap", "kpt_loss_offset"):
        assert history[-1][name] < history[0][name], name


def test_images_without_objects_have_finite_loss():
    losses = bvr().loss(pyramid(), data_samples(boxes=(), labels=()))
    assert torch.isfinite(total(losses))
    assert losses["kpt_loss_offset"] == 0


@pytest.mark.parametrize("kind", ["RetinaHead", "FCOSHead", "ATSSHead"])
def test_halves_of_a_stock_head_are_the_whole(kind):
    head = bvr(kind, cls_kinds=(), reg_kinds=(), head={"norm_on_bbox": True} if kind == "FCOSHead" else None)
    levels = pyramid(1, (50, 70))
    for mode in (True, False):
        head.train(mode)
        for got, want in zip(head(levels), head.bbox_head(levels), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("source", ["input", "cls", "reg"])
def test_key_points_come_from_the_chosen_features(source):
    head = bvr(keypoint_source=source, scale_position=True)
    assert [level.shape[-1] for level in head(pyramid(1, (33, 41)))[0]] == [6, 3, 2]


def test_position_table_can_be_shared_between_the_relations():
    head = bvr(share_positions=True)
    shared = head.cls_transformer.relative_positional_encoding
    assert head.reg_transformer.relative_positional_encoding is shared


def test_bf16_autocast_stays_near_float32():
    """Of the relation; a whole head may choose other keys where scores are nearly equal."""
    relation = PointRelation(16, 4, 2, base_size=(40, 40))
    query, kinds = torch.randn(2, 5, 6, 16), [keys_of(), keys_of()]
    place = grid_place((5, 6), 8, query)
    want = relation(query, place, kinds, 8.0)
    with torch.autocast("cpu", torch.bfloat16):
        got = relation(query, place, kinds, 8.0)
        outputs = bvr()(pyramid(1))
    assert (got - want).abs().max() < 0.03 * want.abs().max()
    assert all(level.isfinite().all() for part in outputs for level in part)


def test_head_is_exported_with_its_choice_of_keys():
    head, levels = bvr().eval(), pyramid(1)
    program = torch.export.export(head, (levels,))
    for got, want in zip(program.module()(levels), head(levels), strict=True):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, want, strict=True))


# Two stages.


def test_bins_of_a_proposal_lie_inside_it():
    place = bin_centres(torch.tensor([[0, 10.0, 20, 24, 34]]), (7, 7))
    assert place.x.flatten().tolist() == pytest.approx([11, 13, 15, 17, 19, 21, 23])
    assert place.y.flatten().tolist() == pytest.approx([21, 23, 25, 27, 29, 31, 33])


def roi_head():
    return MODELS.build(
        {
            "type": "opsin.BVRRoIHead",
            "bbox_roi_extractor": {
                "type": "mmdet.SingleRoIExtractor",
                "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
                "out_channels": 16,
                "featmap_strides": [8, 16],
            },
            "bbox_head": {
                "type": "mmdet.Shared2FCBBoxHead",
                "in_channels": 16,
                "fc_out_channels": 32,
                "num_classes": 3,
            },
            "keypoint_head": {"num_classes": 3, "in_channels": 16, "feat_channels": 16, "strides": STRIDES},
            "relation": {"num_heads": 4, "base_size": (40, 40)},
        }
    )


def strengthened(head, levels, rois):
    keyed = head._keyed(levels)
    plain = head.bbox_roi_extractor(levels[:2], rois)
    return plain, head.strengthen(plain, rois, keyed.keys)


def test_proposals_attend_to_the_key_points_of_their_own_image():
    head = roi_head()
    levels = pyramid(3)  # none of the proposals is in the last image
    rois = torch.tensor([[0, 4.0, 4, 40, 44], [1, 10, 8, 60, 50], [1, 4, 4, 40, 44]])
    before = strengthened(head, levels, rois)[1]
    changed = [level.clone() for level in levels]
    for level in changed:
        level[1] = torch.randn_like(level[1])
    after = strengthened(head, changed, rois)[1]
    assert torch.allclose(before[0], after[0], atol=1e-6)
    assert not torch.allclose(before[1:], after[1:], atol=1e-2)


def test_proposals_without_relation_output_are_stock_features():
    head = roi_head()
    for attention in head.relation.decoder:
        torch.nn.init.zeros_(attention.out_proj.weight)
    levels = [level.relu() for level in pyramid(1)]
    plain, refined = strengthened(head, levels, torch.tensor([[0, 4.0, 4, 40, 44]]))
    assert torch.equal(plain, refined)


def test_gradient_reaches_every_part_of_the_two_stage_head():
    head = roi_head()
    torch.nn.init.constant_(head.relation.relative_positional_encoding.conv.bias, 0.8)
    levels, rois = pyramid(2), torch.tensor([[0, 4.0, 4, 40, 44], [1, 10, 8, 60, 50]])
    keyed = head._keyed(levels)
    outputs = head._bbox_forward(keyed, rois)
    losses = head.keypoint_head.loss(keyed.maps, [s.gt_instances for s in data_samples()])
    (outputs["cls_score"].square().sum() + outputs["bbox_pred"].square().sum() + total(losses)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert all(attention.in_proj_weight.grad.abs().sum() > 0 for attention in head.relation.decoder)


# A person's mistakes.


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: bvr(head={"type": "GFLHead", "loss_cls": {"type": "QualityFocalLoss"}, "norm_cfg": None}),
            "can't go into GFLHead",
        ),
        (lambda: bvr(cls_kinds=("centre",)), "unknown kind of key point 'centre'; did you mean center"),
        (lambda: bvr(points={"kinds": ("middle",)}), "unknown kind of key point 'middle'"),
        (lambda: bvr(keypoint_source="neck"), "unknown keypoint_source 'neck'"),
        (lambda: bvr(cls_kinds=(), share_positions=True), "no position table to share"),
        (lambda: bvr(points={"strides": (8, 16)})(pyramid()), "2 strides but gets 3 levels"),
        (
            lambda: bvr(share_positions=True, relation={"num_heads": 4, "shared_positions": False}),
            "1 position tables for 2 kinds",
        ),
        (lambda: PointRelation(16, 5), "5 heads do not divide a width of 16"),
        (lambda: PointRelation(18, 3), "position table of width 18"),
        (lambda: PointRelation(16, appearance=False, geometry=False), "has no logits"),
    ],
)
def test_mistake_is_told_in_one_line(build, message):
    with pytest.raises(UserError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_a_head_of_ones_own_can_be_registered():
    from mmdet.models.dense_heads import RetinaHead

    class Inherits(RetinaHead):
        """Runs its layers as RetinaHead does."""

    MMDET_MODELS.register_module(module=Inherits, name="RelationNet2TestHead", force=True)
    assert isinstance(bvr(head={"type": "RelationNet2TestHead"}).bbox_head, Inherits)
