"""A small network that has learned squares on noise: what a trained tracker must do."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from opsin.core.task import get_task
from opsin.registry import MODELS
from opsin.tracking.boxes import ciou, to_corners
from opsin.tracking.crops import box_in_crop, crop_square
from opsin.tracking.metrics import iou
from opsin.tracking.online_memory import UpdateRule
from opsin.tracking.tracker import CropRule, Tracker, normalise

CROPS = CropRule(template_size=32, search_size=96, search_factor=4.0)
COLOUR = (230, 60, 40)


def scene(rng, box, height=120, width=160):
    """A square of `COLOUR` on grey noise."""
    image = rng.integers(60, 140, (height, width, 1), dtype=np.uint8).repeat(3, axis=2)
    x, y, w, h = (round(value) for value in box)
    image[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)] = COLOUR
    return image


def batch(rng, count):
    """Templates, search regions (count, 3, …) and truth (count, 4) x, y, w, h over the side."""
    templates, regions, truths = [], [], []
    for _ in range(count):
        side = rng.uniform(18, 34)
        box = (rng.uniform(10, 110), rng.uniform(10, 80), side, side)
        image = scene(rng, box)
        shift, grown = rng.uniform(-0.8, 0.8, 2) * side, side * np.exp(rng.normal() * 0.15)
        around = (box[0] + shift[0], box[1] + shift[1], grown, grown)
        region = crop_square(image, around, CROPS.search_factor, CROPS.search_size)
        templates.append(crop_square(image, box, CROPS.template_factor, CROPS.template_size).pixels)
        regions.append(region.pixels)
        truths.append(box_in_crop(box, around, region.resize_factor, CROPS.search_size))
    crops = (torch.from_numpy(np.stack(c)).permute(0, 3, 1, 2) for c in (templates, regions))
    return *(normalise(c) for c in crops), torch.tensor(truths)


@pytest.fixture(scope="module")
def network():
    """Trained for 150 steps of 8 squares."""
    get_task("tracking").register()
    torch.manual_seed(0)
    backbone = dict(type="opsin.MixCvT", dims=(8, 16, 32), depths=(1, 1, 1), num_heads=(1, 1, 2))
    head = dict(type="opsin.CornerHead", channels=32)
    network = MODELS.build(dict(type="opsin.MixFormer", backbone=backbone, head=head)).train()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=150)
    rng = np.random.default_rng(0)
    for _ in range(150):
        template, search, truth = batch(rng, 8)
        corners = torch.cat((truth[:, :2], truth[:, :2] + truth[:, 2:]), dim=1).clamp(0, 1)
        boxes = to_corners(network(template, template, search).boxes)
        loss = 2 * (1 - ciou(boxes, corners)[0]).mean() + 5 * F.l1_loss(boxes, corners)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def test_the_box_moves_with_the_target(network):
    rng = np.random.default_rng(1)
    box = (60.0, 50.0, 24.0, 24.0)
    image = scene(rng, box)
    template = crop_square(image, box, CROPS.template_factor, CROPS.template_size).pixels
    region = crop_square(image, box, CROPS.search_factor, CROPS.search_size).pixels
    shifted = np.roll(region, (0, 16), axis=(0, 1))  # one cell of the features
    template, both = (
        normalise(torch.from_numpy(np.stack(c)).permute(0, 3, 1, 2)) for c in ([template], [region, shifted])
    )
    with torch.inference_mode():
        before, after = (
            network(template.expand(2, -1, -1, -1), template.expand(2, -1, -1, -1), both).boxes * 96
        )
    moved = (after - before).tolist()
    assert moved[0] == pytest.approx(16, abs=3) and moved[1] == pytest.approx(0, abs=3)


def test_a_moving_square_is_followed(network):
    rng = np.random.default_rng(2)
    path = [(40 + 30 * np.sin(0.15 * t) + t, 45 + 20 * np.sin(0.1 * t), 24.0, 24.0) for t in range(40)]
    tracker = Tracker(network, CROPS, UpdateRule(interval=0))
    tracker.start(scene(rng, path[0]), [path[0]])
    boxes = [tracker.track(scene(rng, box))[0].box for box in path[1:]]
    overlaps = iou(np.array(boxes), np.array(path[1:]))
    assert overlaps.min() > 0.5, overlaps
