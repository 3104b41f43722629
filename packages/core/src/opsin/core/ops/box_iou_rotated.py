"""Overlap of rotated boxes, and their non-maximum suppression.

Boxes are (N, 5) as centre x, y, width, height, angle in radians, clockwise where y points down (the direction
from x to y). Two rectangles overlap in a convex polygon whose corners are corners of one inside the other and
crossings of their edges: at most 24 candidates, sorted around their centre, give its area. Computed in double
precision for the pairs whose circumscribed circles meet; boxes of no area overlap nothing. No gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS = 1 << 15  # box pairs worked on at once
BLOCK = 64  # ranked boxes whose overlaps with all others are computed together
_NEAR = 1e-9  # how far outside, in shares of an edge, still counts as on it


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, mode: str = "iou", aligned: bool = False) -> Tensor:
    """Overlaps of each box of the first set with each of the second (with its partner, if aligned).

    Args:
        boxes1: (N, 5).
        boxes2: (M, 5); M = N if aligned.
        mode: `iou`, or `iof` to divide by the area of the box of `boxes1`.
        aligned: pair the boxes one to one.

    Returns:
        (N, M), or (N,) if aligned.

    Raises:
        ValueError: if `mode` is neither `iou` nor `iof`.
    """
    if mode not in ("iou", "iof"):
        raise ValueError(f"box_iou_rotated: mode {mode!r} is neither 'iou' nor 'iof'")
    if aligned:
        first = second = torch.arange(len(boxes1), device=boxes1.device)
        return _pair_overlaps(boxes1, boxes2, first, second, mode)
    first = torch.arange(len(boxes1), device=boxes1.device).repeat_interleave(len(boxes2))
    second = torch.arange(len(boxes2), device=boxes1.device).repeat(len(boxes1))
    return _pair_overlaps(boxes1, boxes2, first, second, mode).view(len(boxes1), len(boxes2))


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float, labels: Tensor | None = None) -> Tensor:
    """Greedy suppression of rotated boxes whose IoU with a better one is `iou_threshold` or more.

    Args:
        boxes: (N, 5).
        scores: (N,).
        iou_threshold: see above.
        labels: (N,); boxes of different labels never suppress each other.

    Returns:
        (K,) int64 indices of the boxes that stay, best first.
    """
    rest, keep = scores.argsort(descending=True, stable=True), []
    while len(rest):
        block = rest[:BLOCK]
        hit = box_iou_rotated(boxes[block], boxes[rest]) >= iou_threshold
        if labels is not None:
            hit &= labels[block, None] == labels[rest]
        stays = _first_come(hit.cpu())
        keep.append(block[stays[: len(block)].to(block.device)])
        stays[: len(block)] = False
        rest = rest[stays.to(rest.device)]
    return torch.cat(keep) if keep else scores.new_zeros(0, dtype=torch.long)


def _first_come(hit: Tensor) -> Tensor:
    """Which of M ranked boxes stay, (M,), if the first R of them suppress by `hit` (R, M) whom they may."""
    stays = torch.ones(hit.shape[1], dtype=torch.bool)
    for row, suppressed in enumerate(hit):
        if stays[row]:
            stays[row + 1 :] &= ~suppressed[row + 1 :]
    return stays


def _pair_overlaps(boxes1: Tensor, boxes2: Tensor, first: Tensor, second: Tensor, mode: str) -> Tensor:
    """Overlap of box `first[k]` of one set with box `second[k]` of the other, (K,)."""
    one, two = boxes1.double(), boxes2.double()
    overlaps = torch.zeros(len(first), dtype=torch.float64, device=boxes1.device)
    reach1, reach2 = one[:, 2:4].norm(dim=1) / 2, two[:, 2:4].norm(dim=1) / 2
    for part in torch.arange(len(first), device=first.device).split(PAIRS):
        i, j = first[part], second[part]
        meets = (one[i, :2] - two[j, :2]).norm(dim=1) <= reach1[i] + reach2[j]
        real = (one[i, 2:4].prod(1) > 1e-14) & (two[j, 2:4].prod(1) > 1e-14)
        part = part[meets & real]
        a, b = one[first[part]], two[second[part]]
        inter = _intersection(_corners(a, a[:, :2]), _corners(b, a[:, :2]))
        area1, area2 = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
        overlaps[part] = inter / (area1 + area2 - inter if mode == "iou" else area1)
    return overlaps.to(boxes1.dtype)


def _corners(boxes: Tensor, origin: Tensor) -> Tensor:
    """The corners of boxes (K, 5) in order, seen from `origin` (K, 2): (K, 4, 2)."""
    cos, sin = boxes[:, 4].cos()[:, None], boxes[:, 4].sin()[:, None]
    x = boxes[:, 2:3] / 2 * boxes.new_tensor([-1, 1, 1, -1])
    y = boxes[:, 3:4] / 2 * boxes.new_tensor([-1, -1, 1, 1])
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y], -1)
    return turned + (boxes[:, :2] - origin)[:, None]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _inside(points: Tensor, corners: Tensor) -> Tensor:
    """Which of `points` (K, P, 2) lie in the rectangles `corners` (K, 4, 2), border included."""
    from_corner = points - corners[:, :1]
    sides = torch.stack([corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]], 1)
    share = (from_corner @ sides.mT) / sides.square().sum(-1)[:, None]
    return ((share >= -_NEAR) & (share <= 1 + _NEAR)).all(-1)


def _crossings(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Where the edges of two sets of rectangles cross, (K, 16, 2), and which of these do."""
    along1, along2 = (one.roll(-1, 1) - one)[:, :, None], (two.roll(-1, 1) - two)[:, None]
    between = two[:, None] - one[:, :, None]
    turn = _cross(along1, along2)
    parallel = turn.abs() <= 1e-12 * along1.norm(dim=-1) * along2.norm(dim=-1)
    safe = torch.where(parallel, 1, turn)
    share1, share2 = _cross(between, along2) / safe, _cross(between, along1) / safe
    hit = ~parallel & (share1 >= 0) & (share1 <= 1) & (share2 >= 0) & (share2 <= 1)
    return (one[:, :, None] + along1 * share1[..., None]).flatten(1, 2), hit.flatten(1)


def _intersection(one: Tensor, two: Tensor) -> Tensor:
    """Area that rectangles (K, 4, 2) share with their partners, (K,)."""
    crossings, hit = _crossings(one, two)
    points = torch.cat([one, two, crossings], 1)
    own = torch.cat([_inside(one, two), _inside(two, one), hit], 1)
    count = own.sum(1, keepdim=True).clamp(min=1)
    centre = (points * own[..., None]).sum(1) / count
    points = torch.where(own[..., None], points - centre[:, None], 0)
    angle = torch.atan2(points[..., 1], points[..., 0]).masked_fill(~own, torch.inf)
    order = angle.argsort(1)
    points = points.gather(1, order[..., None].expand_as(points))
    # Places after the polygon's last corner repeat its first, which adds no area.
    filled = torch.arange(points.shape[1], device=points.device) < count
    points = torch.where(filled[..., None], points, points[:, :1])
    return _cross(points, points.roll(-1, 1)).sum(1).abs() / 2
