"""IRN: where the borders between classes lie, and maps that spread up to them.

Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations, arXiv 1904.05044 (CVPR 2019);
the authors' code, jiwoon-ahn/irn, is MIT. Of its two uses this is semantic segmentation: from the maps of
classes (seeds) to pseudo masks, on which any network trains.

A network with a frozen ResNet, images (B, 3, H, W), gives boundaries and displacements at stride 4,
(B, 1, h, w) and (B, 2, h, w). It learns from pairs of places not farther apart than a radius, whose labels
are known from confident seeds: pairs of one class shall have no boundary on the path between them, pairs of
two classes one; displacements of a pair within an object shall differ by its offset, so that both point to
one centre. A random walk, whose steps avoid boundaries, then spreads each class's map.

What a naive reading gets wrong: a path is all cells less than one cell off the line, not a line; the walk
begins from maps that are cleared on boundaries. The published walk multiplies a dense matrix of all pairs of
cells by itself, 1 GiB for a picture of 512 x 512; step by step the same product takes 10 MiB.
"""

from __future__ import annotations

from functools import cache
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.models import register_models
from opsin.core.published import Tensors
from opsin.registry import MODELS
from opsin.segmentation.datasets.mask_pairs import IGNORE
from opsin.segmentation.weakly_supervised.models.bas.backbones import Depth, ResNetStem, expansion

STRIDE = 4
STEM = 64  # channels, whatever the width of the stages
EPSILON = 1e-5
BACKBONE = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
# of the authors' files: what they hold under a second name, and their indices of pairs
REPEATED = ("stage", "backbone.", "edge_layers.", "dp_layers.", "mean_shift.", "path_indices", "disp_target")

Offset = tuple[int, int]  # rows down, columns to the right


@cache
def paths(radius: int) -> dict[Offset, tuple[Offset, ...]]:
    """Offsets less than `radius` long, one of each two opposite ones, and the cells of the path to each.

    A path begins and ends with the pair itself and has the cells between whose distance from the line is less
    than 1.
    """
    offsets = [(0, x) for x in range(1, radius)]
    offsets += [
        (y, x) for y in range(1, radius) for x in range(1 - radius, radius) if y * y + x * x < radius**2
    ]
    return {offset: _path(*offset) for offset in offsets}


def _path(rows: int, columns: int) -> tuple[Offset, ...]:
    across = range(min(columns, 0), max(columns, 0) + 1)
    cells = ((y, x) for y in range(rows + 1) for x in across)
    return tuple((y, x) for y, x in cells if (rows * x - columns * y) ** 2 < rows**2 + columns**2)


def shifted(x: Tensor, offset: Offset, radius: int, fill: float) -> Tensor:
    """(…, H, W) to what lies `offset` away from each cell, `fill` outside."""
    (down, right), reach = offset, radius - 1
    padded = F.pad(x, (reach, reach, 0, reach), value=fill)
    return padded[..., down : down + x.shape[-2], reach + right : reach + right + x.shape[-1]]


def neighbours(x: Tensor, radius: int, fill: float) -> Tensor:
    """(…, H, W) to what lies at each of the D offsets from a cell, (…, D, H, W)."""
    return torch.stack([shifted(x, offset, radius, fill) for offset in paths(radius)], -3)


def affinities(boundary: Tensor, radius: int) -> Tensor:
    """Boundaries (…, H, W) in 0 … 1 to affinities of each cell with those at the D offsets, (…, D, H, W).

    One less the greatest boundary on the path; with places outside it is 0.
    """
    found = []
    for path in paths(radius).values():
        on_path = torch.stack([shifted(boundary, cell, radius, 1.0) for cell in path])
        found.append(1 - on_path.max(0).values)
    return torch.stack(found, -3)


def relation_losses(
    boundary: Tensor, displacement: Tensor, labels: Tensor, radius: int = 10
) -> dict[str, Tensor]:
    """The losses of pairs of cells, each a mean over the pairs of its kind.

    Args:
        boundary: (B, h, w), in 0 … 1.
        displacement: (B, 2, h, w), rows and columns.
        labels: (B, h, w), 0 for background, from 1 for classes, 255 where no label is confident.
        radius: of the pairs, in cells.
    """
    here, there = labels[:, None], neighbours(labels, radius, IGNORE)
    known = (here != IGNORE) & (there != IGNORE)
    background, foreground = (known & (here == there) & is_object for is_object in (here == 0, here > 0))
    affinity = affinities(boundary, radius)
    alike = -(affinity + EPSILON).log()
    apart = -(1 + EPSILON - affinity).log()
    offsets = torch.tensor(list(paths(radius)), device=labels.device).T[None, :, :, None, None]
    pairs = displacement[:, :, None] - neighbours(displacement, radius, 0.0)
    return {
        "loss_alike": (_mean(alike, background) + _mean(alike, foreground)) / 4,
        "loss_apart": _mean(apart, known & (here != there)) / 2,
        "loss_centre": _mean((pairs - offsets).abs().mean(1), foreground) / 2,
        "loss_still": _mean(pairs.abs().mean(1), background) / 2,
    }


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / (where.sum() + EPSILON)


def step_probabilities(boundary: Tensor, radius: int = 5, beta: float = 10.0) -> Tensor:
    """Boundaries (h, w) to the probabilities of a step to each cell of a window, (2 radius - 1 twice, h, w).

    A step goes with the affinity to the power of `beta`, with 1 nowhere, and never outside; the probabilities
    of a cell sum to 1.
    """
    (height, width), reach = boundary.shape, radius - 1
    weights = boundary.new_zeros(2 * radius - 1, 2 * radius - 1, height, width)
    weights[reach, reach] = 1
    for (down, right), affinity in zip(paths(radius), affinities(boundary, radius) ** beta, strict=True):
        weights[reach + down, reach + right] = affinity
        # the same pairs from their other ends
        ends = slice(down, None), slice(max(right, 0), width + min(right, 0))
        begins = slice(height - down), slice(max(-right, 0), width - max(right, 0))
        weights[reach - down, reach - right][ends] = affinity[begins]
    return weights / weights.sum((0, 1))


def random_walk(
    maps: Tensor, boundary: Tensor, radius: int = 5, beta: float = 10.0, steps: int = 256
) -> Tensor:
    """Spreads maps (K, h, w), cleared on the boundaries (h, w), by `steps` steps; (K, h, w)."""
    probabilities = step_probabilities(boundary, radius, beta).flatten(2).flatten(0, 1)
    spread = (maps * (1 - boundary))[:, None]
    for _ in range(steps):
        window = F.unfold(spread, 2 * radius - 1, padding=radius - 1)
        spread = (window * probabilities).sum(1).view_as(spread)
    return spread[:, 0]


class MeanShift(nn.Module):
    """Keeps a running mean of what passes in training; else takes it away."""

    running_mean: Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        if self.training:
            self.running_mean.lerp_(x.detach().mean((0, 2, 3)).float(), self.momentum)
            return x
        return x - self.running_mean[:, None, None]


def branch(in_channels: int, channels: int, groups: int, upsample: int = 1) -> nn.Sequential:
    """A 1x1 convolution with GroupNorm, enlarged, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, 1, bias=False),
        nn.GroupNorm(groups, channels),
    ]
    if upsample > 1:
        layers.append(nn.Upsample(scale_factor=upsample, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, nn.ReLU())


@MODELS.register_module()
class IRN(ResNetStem):
    """Boundaries and displacements on a frozen ResNet of stride 16.

    Args:
        depth: as for `BASResNet`.
        base_channels: width of the backbone's first stage; 64 as published.
        boundary_width: channels of each stage in the boundary branch, a multiple of 4.
        displacement_width: greatest channels of the displacement branch, a multiple of 32.
    """

    def __init__(
        self,
        *,
        depth: Depth = 50,
        base_channels: int = 64,
        boundary_width: int = 32,
        displacement_width: int = 256,
    ) -> None:
        super().__init__()
        self.add_resnet(depth, (1, 2, 2, 1), base_channels)
        for name in BACKBONE:
            getattr(self, name).requires_grad_(False)
        first = base_channels * expansion(depth)
        stages = (STEM, first, 2 * first, 4 * first, 8 * first)
        for number, (channels, factor) in enumerate(zip(stages, (1, 1, 2, 4, 4), strict=True), start=1):
            self.add_module(f"fc_edge{number}", branch(channels, boundary_width, 4, factor))
        self.fc_edge6 = nn.Conv2d(5 * boundary_width, 1, 1)
        width = displacement_width
        self.fc_dp1 = branch(stages[0], width // 4, 8)
        self.fc_dp2 = branch(stages[1], width // 2, 16)
        self.fc_dp3 = branch(stages[2], width, 16)
        self.fc_dp4 = branch(stages[3], width, 16, 2)
        self.fc_dp5 = branch(stages[4], width, 16, 2)
        self.fc_dp6 = branch(3 * width, width, 16, 2)
        self.fc_dp7 = nn.Sequential(
            *branch(width // 4 + width // 2 + width, width, 16),
            nn.Conv2d(width, 2, 1, bias=False),
            MeanShift(2),
        )

    def train(self, mode: bool = True) -> Self:
        """Sets the branches' mode; the backbone stays as it is in evaluation."""
        super().train(mode)
        for name in BACKBONE:
            getattr(self, name).eval()
        return self

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' files, which hold each layer under several names."""
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(REPEATED)}
        return {name.removeprefix("resnet50."): tensor for name, tensor in kept.items()}

    def stages(self, x: Tensor) -> list[Tensor]:
        """Images to the maps of the stem and the four stages, without gradient."""
        with torch.no_grad():
            maps = [F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, stride=2, padding=1)]
            for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
                maps.append(layer(maps[-1]))
        return maps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) to logits of boundaries (B, 1, h, w) and displacements (B, 2, h, w)."""
        stages = self.stages(x)
        edges = [getattr(self, f"fc_edge{number}")(stage) for number, stage in enumerate(stages, start=1)]
        boundary = self.fc_edge6(_joined(edges, stages[0]))
        coarse = [self.fc_dp3(stages[2]), self.fc_dp4(stages[3]), self.fc_dp5(stages[4])]
        middle = self.fc_dp6(_joined(coarse, stages[2]))
        fine = [self.fc_dp1(stages[0]), self.fc_dp2(stages[1]), middle]
        return boundary, self.fc_dp7(_joined(fine, stages[0]))


def _joined(maps: list[Tensor], like: Tensor) -> Tensor:
    """Maps along their channels, cut to the size of one: an odd size is exceeded by enlarging."""
    height, width = like.shape[2:]
    return torch.cat([part[..., :height, :width] for part in maps], 1)


register_models("bas", IRN, {"irn_resnet50_voc": {}})
