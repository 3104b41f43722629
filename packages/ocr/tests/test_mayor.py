"""MAYOR's parts: what the card says of each, its mistakes, and the detector as a whole."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from opsin.core.engine.config import build_model, load_config
from opsin.core.errors import UserError
from opsin.ocr.text_detection.models.mayor import (
    AdaptiveLabelAssigner,
    DeconvMaskDecoder,
    MLPMaskDecoder,
    TextMaskHead,
)
from opsin.ocr.text_detection.models.mayor.mask_head import dice_loss
from opsin.ocr.text_detection.models.mayor.outlines import PastedMask, outlines, paste
from opsin.ocr.text_detection.models.mayor.rpn_head import centred_inside
from opsin.ocr.text_detection.polygons import mask_to_polygon, min_area_rectangle, polygon_iou, rasterize

DECONV = {"type": "opsin.DeconvMaskDecoder"}


def box_polygon(x1, y1, x2, y2):
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def instances(*polygons):
    """Ground truth of given polygons."""
    polygons = [np.asarray(polygon, np.float32) for polygon in polygons]
    boxes = [[*polygon.min(0), *polygon.max(0)] for polygon in polygons]
    found = InstanceData(
        bboxes=torch.tensor(np.array(boxes, np.float32)).reshape(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.long),
    )
    found.polygons = polygons
    return found


# The mask decoder.


@pytest.mark.parametrize(
    ("decoder", "count"), [({}, 9_595_696), (DECONV, 2_622_977), ({"reduce_channels": 256}, None)]
)
def test_mask_head_has_the_parameters_of_the_card(decoder, count):
    if count is None:  # the other reading: all 256 channels are flattened
        count = 9_595_696 + 224 * 257 + 224 * 196 * 1024
    head = TextMaskHead(decoder=decoder)
    assert sum(parameter.numel() for parameter in head.parameters()) == count


def reach(head, channels):
    """Which positions (196) each pixel (784) of a mask depends on."""
    torch.manual_seed(0)
    x = torch.randn(1, channels, 14, 14)
    slope = torch.autograd.functional.jacobian(lambda x: head(x)[0].flatten(), x, vectorize=True)
    return slope.abs().sum((1, 2)).flatten(1) > 0


def test_every_pixel_depends_on_every_position_with_the_perceptron_only():
    options = {"in_channels": 8, "conv_out_channels": 8}
    whole = reach(TextMaskHead(**options, decoder={"reduce_channels": 4, "hidden": 64}), 8)
    assert whole.shape == (784, 196)
    assert whole.all()
    local = reach(TextMaskHead(**options, decoder=DECONV), 8)
    assert local.sum(1).max() <= 81  # four 3x3 convolutions see 9x9 positions
    assert reach(DeconvMaskDecoder(8), 8).sum(1).max() == 1


def adjacent_words(count, generator):
    """Features of windows that hold two words side by side, and which columns each of them takes."""
    edge = torch.tensor([4, 5, 8, 9])[torch.randint(4, (count,), generator=generator)]
    features = torch.randn(count, 4, 14, 14, generator=generator)
    features[torch.arange(count), :, :, edge] = 0  # the gap between the words
    features[:, 0] = (features[:, 1:] != 0).all(1).float()
    left = [box_polygon(0, 0, int(e), 14) for e in edge]
    right = [box_polygon(int(e) + 1, 0, 14, 14) for e in edge]
    return features, left, right, edge > 6  # the window overlaps the longer word most


@pytest.mark.parametrize("decoder", [{"reduce_channels": 8, "hidden": 96}, DECONV], ids=["mlp", "deconv"])
def test_perceptron_separates_adjacent_words_that_deconvolution_merges(decoder):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    head = TextMaskHead(
        4, conv_out_channels=16, num_convs=2, decoder=decoder, target_frame="proposal", loss_dice_weight=1.0
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    window = torch.tensor([[0.0, 0.0, 14.0, 14.0]])

    def targets(left, right, matched):
        return torch.cat(
            [
                head.targets(window, torch.tensor([0 if first else 1]), instances(a, b))
                for a, b, first in zip(left, right, matched.tolist(), strict=True)
            ]
        )

    for _ in range(60):
        features, left, right, matched = adjacent_words(48, generator)
        logits = head(features)
        target = targets(left, right, matched)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        loss = loss + dice_loss(logits.sigmoid(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    features, left, right, matched = adjacent_words(64, generator)
    with torch.no_grad():
        found = head(features) > 0
    own, other = targets(left, right, matched).bool(), targets(left, right, ~matched).bool()
    separated = (found & own).sum((1, 2)) / (found | own).sum((1, 2))
    merged = (found & other).sum((1, 2)) / other.sum((1, 2))
    if "type" in decoder:
        assert separated.mean() < 0.7
        assert merged.mean() > 0.4
    else:
        assert separated.mean() > 0.9
        assert merged.mean() < 0.1


def test_roi_of_another_size_is_told():
    with pytest.raises(UserError, match="takes RoIs of 14x14, not 7x7"):
        MLPMaskDecoder(8)(torch.zeros(1, 8, 7, 7))


def test_decoder_takes_another_roi_size_by_config():
    assert MLPMaskDecoder(8, roi_size=7)(torch.zeros(2, 8, 7, 7)).shape == (2, 28, 28)


# The targets and the losses.


def test_target_is_the_matched_instance_whole_and_in_its_own_box():
    head = TextMaskHead(8, conv_out_channels=8, decoder=DECONV)
    truth = instances(box_polygon(0, 0, 40, 10), [[50, 0], [90, 0], [50, 20]])
    proposals = torch.tensor([[0.0, 0, 20, 10], [40, 0, 90, 20], [5, 0, 95, 20]])
    targets = head.targets(proposals, torch.tensor([0, 1, 1]), truth)
    assert targets[0].all()  # the proposal cuts the word in two, the target does not
    assert torch.equal(targets[1], targets[2])
    triangle = torch.ones(28, 28).tril().flip(0)
    assert (targets[1] != triangle).sum() <= 28  # cells on the slope itself
    assert targets[1].mean() == pytest.approx(0.5, abs=0.03)


def test_target_in_the_proposal_is_what_the_proposal_holds_of_the_matched_instance():
    head = TextMaskHead(8, conv_out_channels=8, decoder=DECONV, target_frame="proposal")
    truth = instances(box_polygon(0, 0, 40, 10), box_polygon(20, 0, 60, 10))
    target = head.targets(torch.tensor([[10.0, 0, 66, 10]]), torch.tensor([0]), truth)[0]
    assert target[:, :15].all()
    assert not target[:, 15:].any()  # the second word is background, though the window holds all of it


def test_losses_are_those_of_the_card():
    head = TextMaskHead(8, conv_out_channels=8, decoder=DECONV)
    truth = instances(box_polygon(0, 0, 28, 28))
    result = SimpleNamespace(
        pos_priors=torch.tensor([[0.0, 0, 28, 28]] * 2), pos_assigned_gt_inds=torch.tensor([0, 0])
    )
    logits = torch.stack([torch.zeros(28, 28), torch.full((28, 28), 30.0)])
    losses = head.loss_and_target(logits, [result], [truth], None)["loss_mask"]
    assert losses["loss_mask"].item() == pytest.approx(np.log(2) / 2)
    assert losses["loss_dice"].item() == pytest.approx((1 - (784 + 1) / (784 * 1.5 + 1)) / 2, rel=1e-5)


def test_no_positive_proposal_costs_nothing_and_keeps_the_graph():
    head = TextMaskHead(8, conv_out_channels=8, decoder={"reduce_channels": 4, "hidden": 16})
    result = SimpleNamespace(
        pos_priors=torch.zeros(0, 4), pos_assigned_gt_inds=torch.zeros(0, dtype=torch.long)
    )
    logits = head(torch.zeros(0, 8, 14, 14))
    losses = head.loss_and_target(logits, [result], [instances()], None)["loss_mask"]
    total = losses["loss_mask"] + losses["loss_dice"]
    assert total.item() == 0
    total.backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_data_without_polygons_and_unknown_frames_are_told():
    with pytest.raises(UserError, match="unknown target_frame 'box'"):
        TextMaskHead(target_frame="box")
    boxes = InstanceData(bboxes=torch.zeros(1, 4), labels=torch.zeros(1))
    head = TextMaskHead(8, conv_out_channels=8, decoder=DECONV)
    with pytest.raises(UserError, match=r"opsin\.PackTextInputs"):
        head.targets(torch.zeros(1, 4), torch.tensor([0]), boxes)


# Assignment.


def anchors_of(height, width):
    """One anchor a position, side 8 x stride, of an image's pyramid."""
    generator = AnchorGenerator(strides=[4, 8, 16, 32, 64], ratios=[1.0], scales=[8])
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32, 64)]
    anchors = torch.cat(generator.grid_priors(sizes, device="cpu"))
    return anchors[centred_inside(anchors, (height, width))]


def tilted(x, y, width, height, degrees):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = box_polygon(-width / 2, -height / 2, width / 2, height / 2)
    return (corners @ turn + (x, y)).astype(np.float32)


def owners(anchors, truth, ignored=None, **options):
    return AdaptiveLabelAssigner(**options).assign(InstanceData(priors=anchors), truth, ignored)


def plainly_assigned(anchors, truth, k=9, n_min=3):
    """The card's rules, one instance and one anchor at a time."""
    anchors = anchors.double().numpy()
    boxes = truth.bboxes.double().numpy()
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    sides = np.round(anchors[:, 2] - anchors[:, 0])

    def iou(box, anchor):
        shared = np.clip(np.minimum(box[2:], anchor[2:]) - np.maximum(box[:2], anchor[:2]), 0, None).prod()
        return shared / ((box[2:] - box[:2]).prod() + (anchor[2:] - anchor[:2]).prod() - shared)

    def candidates(box, k):
        distance = ((centres - (box[:2] + box[2:]) / 2) ** 2).sum(1)
        near = []
        for side in np.unique(sides):
            level = np.flatnonzero(sides == side)
            near += sorted(level, key=lambda a: (distance[a], a))[:k]
        return near, distance

    def inside(polygon, point):
        rectangle = min_area_rectangle(polygon)
        ways = [np.cross(rectangle[(i + 1) % 4] - rectangle[i], point - rectangle[i]) for i in range(4)]
        return min(ways) >= 0 or max(ways) <= 0

    claims = {}
    for g, (box, polygon) in enumerate(zip(boxes, truth.polygons, strict=True)):
        near, _ = candidates(box, k)
        overlaps = np.array([iou(box, anchors[a]) for a in near])
        for a, overlap in zip(near, overlaps, strict=True):
            if overlap >= overlaps.mean() + overlaps.std(ddof=1) and inside(polygon, centres[a]):
                claims.setdefault(a, []).append((overlap, -g))
    owner = {a: -max(claimed)[1] for a, claimed in claims.items()}
    held = [list(owner.values()).count(g) for g in range(len(boxes))]
    for g in sorted(range(len(boxes)), key=lambda g: held[g]):
        own_k = k
        while held[g] < n_min:
            near, distance = candidates(boxes[g], own_k)
            free = [a for a in near if a not in owner]
            for a in sorted(free, key=lambda a: (-iou(boxes[g], anchors[a]), distance[a]))[: n_min - held[g]]:
                owner[a] = g
                held[g] += 1
            own_k *= 2
    return owner


@pytest.mark.parametrize("seed", range(4))
def test_assignment_follows_the_rules_of_the_card(seed):
    random = np.random.default_rng(seed)
    anchors = anchors_of(250, 330)
    truth = instances(
        *(
            tilted(*random.uniform((60, 40), (270, 210)), *random.uniform((20, 6), (160, 40)), angle)
            for angle in random.uniform(-40, 40, 12)
        )
    )
    found = owners(anchors, truth).gt_inds
    wanted = torch.zeros_like(found)
    for anchor, owner in plainly_assigned(anchors, truth).items():
        wanted[anchor] = owner + 1
    assert (found != wanted).sum() <= 1  # float32 may turn one comparison of nearly equal numbers
    assert torch.bincount(found, minlength=13)[1:].min() >= 3


def test_every_instance_has_its_anchors_however_long_or_crowded():
    lines = [tilted(320, 40 + 9 * i, 600, 20, 0) for i in range(30)]  # 30:1, overlapping
    words = [tilted(30 + 8 * i, 420, 7, 4, 30) for i in range(60)]  # smaller than the smallest anchor
    twins = [box_polygon(200, 500, 260, 520)] * 6  # the same place six times
    truth = instances(*lines, *words, *twins, tilted(300, 300, 900, 30, 12))
    result = owners(anchors_of(640, 640), truth)
    held = torch.bincount(result.gt_inds.clamp(min=0), minlength=98)[1:]
    assert len(held) == 97
    assert held.min() >= 3
    assert (result.labels[result.gt_inds > 0] == 0).all()
    without = owners(anchors_of(640, 640), truth, n_min=0)
    assert torch.bincount(without.gt_inds, minlength=98)[1:].min() == 0  # the guarantee is what does it


def test_candidates_run_out_before_the_guarantee_does():
    truth = instances(*[box_polygon(20, 20, 44, 40)] * 30)
    held = torch.bincount(owners(anchors_of(64, 64), truth, k=2).gt_inds, minlength=31)[1:]
    assert held.min() == 3


def test_fewer_anchors_than_instances_ask_for_are_all_taken():
    anchors = anchors_of(64, 64)[-6:]
    found = owners(anchors, instances(*[box_polygon(0, 0, 30, 30)] * 4)).gt_inds
    assert (found > 0).all()


def test_dont_care_regions_and_what_lies_outside_are_neither_text_nor_background():
    anchors = anchors_of(256, 256)
    truth = instances(box_polygon(10, 10, 60, 40))
    region = instances(box_polygon(128, 0, 256, 256))
    found = owners(anchors, truth, region).gt_inds
    share = (anchors[:, 2].clamp(max=256) - anchors[:, 0].clamp(min=128)).clamp(min=0)
    share = share * (anchors[:, 3].clamp(max=256) - anchors[:, 1].clamp(min=0))
    within = share / (anchors[:, 2:] - anchors[:, :2]).prod(1) >= 0.5
    assert (found[within] == -1).all()
    assert (found[~within] >= 0).all()
    assert (found == 0).any()
    assert (found > 0).any()


def test_images_without_text_are_background():
    found = owners(anchors_of(64, 64), instances())
    assert (found.gt_inds == 0).all()
    assert (found.labels == -1).all()


def test_boxes_stand_for_missing_polygons():
    truth = instances(box_polygon(20, 20, 60, 40), box_polygon(70, 70, 120, 90))
    boxes = InstanceData(bboxes=truth.bboxes, labels=truth.labels)
    anchors = anchors_of(128, 128)
    assert torch.equal(owners(anchors, truth).gt_inds, owners(anchors, boxes).gt_inds)


# From masks to polygons.


def curved(width, height, bend=0.3):
    """A bent word that fills its box: a band along a part of a parabola."""
    x = np.linspace(0, width, 15)
    rise = 4 * (x / width) * (1 - x / width)
    top = height * bend * (1 - rise)
    return np.concatenate([np.stack([x, top], 1), np.stack([x, top + height * (1 - bend)], 1)[::-1]])


@pytest.mark.parametrize("size", [(600, 20), (300, 60), (200, 200), (61, 243), (20, 600), (33.3, 91.7)])
@pytest.mark.parametrize("shape", ["word", "bent", "slanted"])
def test_outline_of_a_whole_instance_is_the_instance(size, shape):
    width, height = size
    slant = np.array([[0.2 * width, 0], [width, 0], [0.8 * width, height], [0, height]])
    polygon = {"word": box_polygon(0, 0, *size), "bent": curved(*size), "slanted": slant}[shape]
    polygon = polygon + np.array([37.0, 12.0])
    frame = np.concatenate([polygon.min(0), polygon.max(0)])
    pasted = paste(rasterize(polygon, frame).astype(np.float32), frame, (700, 700))
    outline = mask_to_polygon(pasted.pixels) + np.array([pasted.x, pasted.y])
    assert polygon_iou(outline, polygon) > 0.95


def test_pasting_is_bilinear_between_cell_centres():
    random = np.random.default_rng(0)
    mask = random.random((28, 28)).astype(np.float32)
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None], (56, 84), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    pasted = paste(mask, np.array([10.0, 20.0, 94.0, 76.0]), (100, 100), threshold=0.6)
    assert (pasted.x, pasted.y) == (10, 20)
    clear = abs(whole - 0.6) > 1e-4
    assert np.array_equal(pasted.pixels[clear], (whole > 0.6)[clear])
    cut = paste(mask, np.array([10.0, 20.0, 94.0, 76.0]), (60, 80), threshold=0.6)
    assert np.array_equal(cut.pixels, pasted.pixels[:40, :70])


def test_box_outside_the_picture_leaves_no_mask():
    assert paste(np.ones((28, 28)), np.array([-40.0, -20.0, -5.0, -1.0]), (30, 30)).area == 0
    assert paste(np.ones((28, 28)), np.array([40.0, 20.0, 55.0, 31.0]), (30, 30)).area == 0


def test_masks_overlap_as_pixel_sets():
    first = PastedMask(0, 0, np.ones((4, 6), bool))
    assert first.iou(PastedMask(3, 2, np.ones((4, 6), bool))) == pytest.approx(6 / 42)
    assert first.iou(PastedMask(6, 0, np.ones((4, 6), bool))) == 0


def test_outlines_are_suppressed_by_masks_and_not_by_boxes():
    slope = np.ones((28, 28), np.float32)
    lower = np.tril(slope, -2)
    upper = np.triu(slope, 2)
    boxes = np.array([[10.0, 10.0, 66.0, 66.0]] * 4)
    kept, polygons = outlines(np.stack([lower, upper, lower, slope * 0]), boxes, (100, 100))
    assert kept == [0, 1]  # one box, two instances; a repetition and an empty mask go
    assert polygon_iou(polygons[0], np.array([[10, 12], [64, 66], [10, 66]])) > 0.9
    rectangles = outlines(np.stack([lower]), boxes[:1], (100, 100), rectangles=True)[1]
    assert rectangles[0].shape == (4, 2)
    assert polygon_iou(rectangles[0], min_area_rectangle(polygons[0])) > 0.98


# The detector.


def small(**changes):
    """The detector of the sample config, with changes by dotted names."""
    cfg = load_config("mayor_tiny_samples")
    cfg.merge_from_dict({f"model.{name}": value for name, value in changes.items()})
    torch.manual_seed(0)
    model = build_model(cfg)
    # as after some training: proposals and boxes lie everywhere
    model.test_cfg.rcnn.score_thr = 0.0
    model.roi_head.test_cfg.score_thr = 0.0
    return model


def batch(*pictures):
    """A batch of given (height, width, polygons[, don't-care polygons])."""
    random = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for height, width, polygons, *ignored in pictures:
        size = (height, width)
        inputs.append(torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=random))
        sample = DetDataSample(metainfo={"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)})
        sample.gt_instances = instances(*polygons)
        sample.ignored_instances = instances(*(ignored[0] if ignored else ()))
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


WORDS = [tilted(40, 30, 60, 14, 10), tilted(70, 60, 90, 10, -15), box_polygon(10, 80, 40, 90)]


def losses_of(model, data):
    losses = model.train()(**model.data_preprocessor(data, training=True), mode="loss")
    return {name: sum(v) if isinstance(v, list) else v for name, v in losses.items() if "loss" in name}


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_all_parameters_learn(bf16):
    model = small()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        losses = losses_of(model, batch((97, 131, WORDS), (110, 90, WORDS[:1], WORDS[1:2])))
    assert set(losses) == {
        "loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask", "loss_dice"
    }  # fmt: skip
    assert all(value.isfinite() and value > 0 for value in losses.values())
    sum(losses.values()).backward()
    still = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert not still


@pytest.mark.parametrize("size", [(97, 131), (33, 400), (64, 64)])
def test_one_picture_of_any_size_gives_polygons_and_scores(size):
    model = small().eval()
    with torch.no_grad():
        found = model.test_step(batch((*size, [])))[0].pred_instances
    assert len(found) == len(found.polygons) > 0
    assert all(p.ndim == 2 and p.shape[0] >= 4 and p.shape[1] == 2 for p in found.polygons)
    corners = np.concatenate(found.polygons)
    assert corners.min() >= 0
    assert (corners <= (size[1], size[0])).all()
    assert (found.scores.diff() <= 0).all()


def test_polygons_come_back_in_pixels_of_the_original_picture():
    model = small().eval()
    data = batch((64, 96, []))
    with torch.no_grad():
        plain = model.test_step(data)[0].pred_instances
        data["data_samples"][0].set_metainfo({"ori_shape": (128, 288), "scale_factor": (1 / 3, 1 / 2)})
        scaled = model.test_step(data)[0].pred_instances
    # what is too thin for an outline in small pixels can have one in large ones: the same one is sought
    same = int((scaled.scores - plain.scores[0]).abs().argmin())
    assert torch.allclose(scaled.bboxes[same], plain.bboxes[0] * torch.tensor([3.0, 2, 3, 2]), atol=1e-3)
    assert max(p[:, 0].max() for p in scaled.polygons) > 200


def test_batches_with_and_without_text_and_findings():
    model = small()
    losses = losses_of(model, batch((64, 80, [])))
    assert losses["loss_mask"] == losses["loss_dice"] == losses["loss_bbox"] == 0
    model.roi_head.test_cfg.score_thr = 1.1
    with torch.no_grad():
        found = [
            sample.pred_instances for sample in model.eval().test_step(batch((64, 80, []), (50, 70, [])))
        ]
    assert [len(instances) for instances in found] == [0, 0]
    assert [instances.polygons for instances in found] == [[], []]


def test_anchors_in_the_padding_are_not_trained():
    model = small()
    data = batch((64, 64, WORDS[:1]), (64, 192, []))
    targets = {}
    original = model.rpn_head.get_targets

    def seen(*args, **kwargs):
        targets["weights"] = original(*args, **kwargs)[1]
        return original(*args, **kwargs)

    model.rpn_head.get_targets = seen
    model.rpn_head.train_cfg.sampler.num = 100000
    losses_of(model, data)
    finest = targets["weights"][0].view(2, 16, 48)
    assert not finest[0, :, 16:].any()
    assert finest[1, :, 16:].any()


ABLATION = {
    "roi_head.mask_head.decoder": {"_delete_": True, "type": "opsin.DeconvMaskDecoder"},
    "roi_head.mask_head.target_frame": "proposal",
    "rpn_head.anchor_generator.ratios": [0.25, 0.5, 1.0, 2.0, 4.0],
    "train_cfg.rpn.assigner": {
        "_delete_": True,
        "type": "MaxIoUAssigner",
        "pos_iou_thr": 0.7,
        "neg_iou_thr": 0.3,
        "min_pos_iou": 0.3,
        "ignore_iof_thr": 0.5,
    },
}


@pytest.mark.parametrize(
    "off",
    [
        {"roi_head.mask_head.decoder"},
        {"roi_head.mask_head.target_frame"},
        {"rpn_head.anchor_generator.ratios", "train_cfg.rpn.assigner"},
    ],
    ids=["deconv", "proposal", "iou"],
)
def test_each_idea_can_be_switched_off_alone(off):
    model = small(**{name: ABLATION[name] for name in off})
    losses = losses_of(model, batch((97, 131, WORDS)))
    assert all(value.isfinite() for value in losses.values())
    head = model.roi_head.mask_head
    assert isinstance(head.decoder, DeconvMaskDecoder) == ("roi_head.mask_head.decoder" in off)
    assert isinstance(model.rpn_head.assigner, AdaptiveLabelAssigner) == ("train_cfg.rpn.assigner" not in off)
    assert model.rpn_head.num_base_priors == (5 if "train_cfg.rpn.assigner" in off else 1)
    assert head.target_frame == ("proposal" if "roi_head.mask_head.target_frame" in off else "gt_box")


def test_any_backbone_goes_in_by_config():
    model = small(
        **{
            "backbone": {
                "_delete_": True,
                "type": "opsin.VAN",
                "arch": {"embed_dims": (16, 32, 32, 48), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)},
                "out_indices": (0, 1, 2, 3),
            },
            "neck.in_channels": [16, 32, 32, 48],
        }
    )
    losses = losses_of(model, batch((97, 131, WORDS)))
    assert all(value.isfinite() for value in losses.values())
