"""SDANet: Towards Real-World Prohibited Item Detection: A Large-Scale X-ray Benchmark.

arXiv 2108.07020, ICCV 2021; authors' code bywang2018/security-dataset (Apache-2.0, on mmdet 1.1). After a
feature pyramid every level gathers all levels at its own size: finer ones by maximum pooling, coarser ones
by nearest neighbours. Two softmaxes over the levels, one for every channel and one for every pixel, weigh
what is summed (selective dense attention), a global-context block refines the sum (dependency refinement),
and the level is added. All blocks read the plain pyramid. The published code sits inside the Cascade R-CNN
class; here it is the neck `opsin.SDAFPN`, so any detector with an FPN takes it by the neck's type alone:

    model = dict(neck=dict(type="opsin.SDAFPN"))

Maps are (N, C, H, W) in and out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import ContextBlock
from mmdet.models.detectors import CascadeRCNN
from mmdet.models.necks import FPN
from mmengine.model import BaseModule
from torch import Tensor, nn

from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, place
from opsin.detection.models.from_config import detector
from opsin.registry import MODELS

REDUCTION = 2
"""Channels of a level over those inside the channel-wise selection."""

CONTEXT_RATIO = 1 / 16
"""Channels inside the global-context block over those of a level."""


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch norm of maps that are pooled to one value an image.

    Training on one image would give it a single value a channel, whose variance is nothing; it is then
    normalised by the running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1) to the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ChannelSelection(nn.Module):
    """Weights of the levels for every channel, from the mean over all pixels of their sum."""

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__()
        inner = channels // REDUCTION
        self.fc = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), PooledBatchNorm(inner), nn.ReLU())
        self.fcs = nn.ModuleList(nn.Conv2d(inner, channels, 1) for _ in range(num_levels))

    def forward(self, total: Tensor) -> Tensor:
        """The sum (N, C, H, W) of the levels to weights (N, levels, C, 1, 1), 1 in all over the levels."""
        z = self.fc(total.mean((2, 3), keepdim=True))
        return torch.stack([fc(z) for fc in self.fcs], 1).softmax(1)


class SpatialSelection(nn.Module):
    """Weights of the levels for every pixel, from the mean and the maximum over the channels of their sum."""

    def __init__(self, num_levels: int) -> None:
        super().__init__()
        self.conv = nn.ModuleList(nn.Conv2d(2, 1, 7, padding=3, bias=False) for _ in range(num_levels))

    def forward(self, total: Tensor) -> Tensor:
        """The sum (N, C, H, W) of the levels to weights (N, levels, 1, H, W), 1 in all over the levels."""
        maps = torch.cat((total.mean(1, keepdim=True), total.amax(1, keepdim=True)), 1)
        return torch.stack([conv(maps) for conv in self.conv], 1).softmax(1)


class SelectiveDenseAttention(BaseModule):
    """The block of one level.

    Args:
        level: which level of the pyramid it refines.
        channels: channels C of every level.
        num_levels: levels of the pyramid.
    """

    def __init__(self, level: int, channels: int = 256, num_levels: int = 5) -> None:
        super().__init__()
        self.level = level
        self.channel_att = ChannelSelection(channels, num_levels)
        self.spatial_att = SpatialSelection(num_levels)
        self.refine = ContextBlock(channels, ratio=CONTEXT_RATIO)

    def init_weights(self) -> None:
        """PyTorch's own initial weights, which an FPN would replace; the context starts as nothing."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
        self.refine.reset_parameters()

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The level after attention, from all levels of the plain pyramid, finest first."""
        gathered = self.gather(levels)
        channel, spatial = self.weights(gathered)
        selected = torch.zeros_like(gathered[0])
        for index, x in enumerate(gathered):
            selected = selected + x * (channel[:, index] + spatial[:, index])
        refined: Tensor = self.refine(selected) + levels[self.level]
        return refined

    def gather(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Every level at this level's size (H, W)."""
        size = levels[self.level].shape[-2:]
        finer = [F.adaptive_max_pool2d(x, size) for x in levels[: self.level]]
        return finer + [F.interpolate(x, size=size, mode="nearest") for x in levels[self.level :]]

    def weights(self, gathered: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What each level counts: a channel (N, levels, C, 1, 1), and a pixel (N, levels, 1, H, W)."""
        total = torch.stack(list(gathered)).sum(0)
        return self.channel_att(total), self.spatial_att(total)


@MODELS.register_module()
class SDAFPN(FPN):
    """mmdet's FPN with selective dense attention on every level it gives; arguments are those of `FPN`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for level in range(self.num_outs):
            self.add_module(
                f"selective_attention_{level}",
                SelectiveDenseAttention(level, self.out_channels, self.num_outs),
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Backbone maps, finest first, to the attended pyramid."""
        levels = super().forward(inputs)
        return tuple(getattr(self, f"selective_attention_{i}")(levels) for i in range(self.num_outs))


@MODELS.register_module()
class SDACascadeRCNN(CascadeRCNN):
    """mmdet's Cascade R-CNN, which also reads the authors' checkpoint file.

    That file is of mmdet 1.x: attention beside the neck, heads beside each other, class 0 the background and
    a mask of it. The file's numbers are for that version's boxes and RoIAlign; see the config
    `cascade_mask_rcnn_r101_sdanet_pidray_authors`.
    """

    @staticmethod
    def from_published(tensors: Tensors) -> Tensors:
        """Names and class order of mmdet 1.x to this model's; others as they are."""
        if not any(name.startswith("bbox_head.") for name in tensors):
            return tensors
        converted = {}
        for name, tensor in tensors.items():
            own = re.sub(r"^(bbox_head|mask_head)\.", r"roi_head.\1.", name)
            own = re.sub(r"^selective_attention_", "neck.selective_attention_", own)
            if ".fc_cls." in own:
                tensor = tensor.roll(-1, 0)  # the background comes last now
            elif ".mask_head." in own and ".conv_logits." in own:
                tensor = tensor[1:]
            converted[own] = tensor
        return converted

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        """`opsin test` and `opsin predict` take the authors' file as it is."""
        if not prefix:
            converted = self.from_published(dict(state_dict))
            state_dict.clear()
            state_dict.update(converted)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@adapter("pidray-sdanet", r"CascadeRCNN\.extract_feat|AttFPN")
def _pyramid(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    neck = SDAFPN(given["in_channels"], given["out_channels"], given.get("num_outs", 5))
    place(neck, {name.removeprefix("neck."): tensor for name, tensor in case.state_dict().items()})
    inputs = case.inputs()
    maps = [inputs[name] for name in sorted(inputs)]
    with torch.no_grad():
        return {f"p{level}": out for level, out in enumerate(neck.eval()(maps), start=2)}


@adapter("pidray-sdanet", r"[Ss]elective_?[Aa]ttention\b")
def _block(case: Case) -> dict[str, Tensor]:
    tensors = case.state_dict()
    channels = tensors["channel_att.fc.0.weight"].shape[1]
    count = sum(bool(re.fullmatch(r"channel_att\.fcs\.\d+\.weight", name)) for name in tensors)
    block = SelectiveDenseAttention(case.built_with["refine_level"], channels, count)
    place(block, tensors)
    inputs = case.inputs()
    levels = [inputs[f"x{level}"] for level in range(count)]
    with torch.no_grad():
        out = block.eval()(levels)
        channel, spatial = block.weights(block.gather(levels))
    return {"out": out, "channel": channel.flatten(2), "spatial": spatial.squeeze(2)}


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    name: {"config": f"{name}_pidray"}
    for name in (
        "cascade_mask_rcnn_r101_sdanet",
        "mask_rcnn_r101_sdanet",
        "faster_rcnn_r101_sdanet",
    )
}
register_models("pidray-sdanet", detector, VARIANTS)
