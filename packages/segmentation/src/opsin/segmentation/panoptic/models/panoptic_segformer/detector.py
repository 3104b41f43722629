"""The whole detector: backbone, neck, head; published checkpoints under their own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.backbones.pvt import PyramidVisionTransformer, pvt_convert
from mmdet.models.backbones.swin import SwinTransformer, swin_converter
from mmdet.models.detectors import BaseDetector
from torch import Tensor

from opsin.core.errors import UserError
from opsin.registry import MODELS
from opsin.segmentation.least_size import at_least

NECK_NORM = {"type": "GN", "num_groups": 32}
PREPROCESSOR = {
    "type": "mmdet.DetDataPreprocessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": False,
    "pad_mask": True,
    "pad_seg": True,
    "seg_pad_value": 255,
}
BACKBONE = "backbone."
NUM_LEVELS = 4  # published: three maps of the backbone and a coarser one
LEAST_SIDE = 64  # pixels: smaller pictures have no cell at the coarsest stride


@MODELS.register_module()
class PanopticSegFormer(BaseDetector):
    """Panoptic SegFormer with any backbone of three maps or more; the published ones give strides 8, 16, 32.

    Args:
        backbone: config of the backbone, mmdet's or opsin's.
        in_channels: channels of its maps; an opsin backbone says them itself.
        bbox_head: settings of `PanopticSegFormerHead` that differ from the published ones.
        neck: config of a neck that gives the head its levels; the published ChannelMapper by default.
        data_preprocessor: config; RGB with ImageNet's mean and deviation by default.
        test_cfg: see `Inference`.
        init_cfg: OpenMMLab's weight initialisation.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        in_channels: Sequence[int] | None = None,
        bbox_head: Mapping[str, Any] | None = None,
        neck: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor or PREPROCESSOR, init_cfg)
        self.backbone = _build(backbone)
        widths = list(in_channels or _widths(self.backbone))
        head = {
            "type": "opsin.PanopticSegFormerHead",
            "num_levels": max(NUM_LEVELS, len(widths)),
            "test_cfg": test_cfg,
            **(bbox_head or {}),
        }
        mapper = {
            "type": "mmdet.ChannelMapper",
            "in_channels": widths,
            "kernel_size": 1,
            "out_channels": head.get("embed_dims", 256),
            "norm_cfg": NECK_NORM,
            "act_cfg": None,
            "num_outs": head["num_levels"],
        }
        self.neck = MODELS.build(neck or mapper)
        self.bbox_head = MODELS.build(head)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Pictures (B, 3, height, width) to the neck's maps (B, C, H, W), finest first."""
        maps: tuple[Tensor, ...] = self.neck(self.backbone(batch_inputs))
        return maps

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> dict[str, Tensor]:
        """The losses of `PanopticSegFormerHead`."""
        losses: dict[str, Tensor] = self.bbox_head.loss(self.extract_feat(batch_inputs), batch_data_samples)
        return losses

    def predict(self, batch_inputs: Tensor, batch_data_samples: list[Any], rescale: bool = True) -> list[Any]:
        """The samples with `pred_panoptic_seg` and `pred_instances`, or with `pred_sem_seg` (`Inference`).

        Args:
            batch_inputs: (B, 3, height, width), normalised and padded.
            batch_data_samples: mmdet's samples with the pictures' sizes.
            rescale: whether results are in the original size.
        """
        batch_inputs = at_least(batch_inputs, LEAST_SIDE)
        for sample in batch_data_samples:
            sample.set_metainfo({"batch_input_shape": tuple(batch_inputs.shape[-2:])})
        results = self.bbox_head.predict(self.extract_feat(batch_inputs), batch_data_samples, rescale)
        for sample, found in zip(batch_data_samples, results, strict=True):
            for name, values in found.items():
                setattr(sample, name, values)
        return batch_data_samples

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: list[Any] | None = None
    ) -> tuple[Tensor, ...]:
        """The raw values of `PanopticSegFormerHead.raw` for pictures without padding."""
        padding = torch.zeros_like(batch_inputs[:, 0], dtype=torch.bool)
        raw: tuple[Tensor, ...] = self.bbox_head.raw(self.extract_feat(batch_inputs), padding)
        return raw

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The authors' tensors under this model's names: in mmdet, PVTv2 and Swin have others."""
        backbone = {n.removeprefix(BACKBONE): t for n, t in tensors.items() if n.startswith(BACKBONE)}
        others = {n: t for n, t in tensors.items() if not n.startswith(BACKBONE)}
        if isinstance(self.backbone, PyramidVisionTransformer) and "patch_embed1.proj.weight" in backbone:
            backbone = pvt_convert(backbone)
        elif isinstance(self.backbone, SwinTransformer) and "patch_embed.proj.weight" in backbone:
            converted = swin_converter({n: t for n, t in backbone.items() if "attn_mask" not in n})
            backbone = {n.removeprefix(BACKBONE): t for n, t in converted.items()}
        return {**{f"{BACKBONE}{n}": t for n, t in backbone.items()}, **others}

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *torch_arguments: Any
    ) -> None:
        """Takes an authors' file too."""
        own = {n: state_dict.pop(n) for n in list(state_dict) if n.startswith(prefix)}
        converted = self.from_published({n.removeprefix(prefix): t for n, t in own.items()})
        state_dict.update({f"{prefix}{n}": t for n, t in converted.items()})
        super()._load_from_state_dict(state_dict, prefix, *torch_arguments)


def _build(backbone: dict[str, Any]) -> Any:
    """The backbone; for the meta device by way of the CPU, as mmdet's PVT and Swin read tensors' values."""
    device = torch.get_default_device()
    with torch.device("cpu") if device.type == "meta" else device:
        built = MODELS.build(backbone)
    return built.to(device) if device.type == "meta" else built


def _widths(backbone: Any) -> list[int]:
    """The channels of the backbone's maps.

    Raises:
        UserError: if it does not say them.
    """
    maps = getattr(backbone, "feature_info", None)
    if maps is None:
        name = type(backbone).__name__
        raise UserError(f"{name} does not say the channels of its maps", "give in_channels=(…)")
    return [info.channels for info in maps]
