"""PolyMaX: every pixel's answer is a mixture of the values that cluster centres give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from opsin.registry import MODELS
from opsin.segmentation.dense_prediction.models.polymax.kmax_decoder import Clusters, KMaxDecoder
from opsin.segmentation.dense_prediction.models.polymax.layers import BN_MOMENTUM
from opsin.segmentation.dense_prediction.models.polymax.pixel_decoder import PixelDecoder
from opsin.segmentation.dense_prediction.outputs import Output, average_loss, store_all
from opsin.segmentation.least_size import at_least

PREPROCESSOR = {
    "type": "ImgDataPreprocessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
}
LEAST_SIDE = 32  # pixels: smaller pictures have no cell at the coarsest stride
PUBLISHED_PREFIX = "sem_seg_head."  # of kMaX-DeepLab's decoders


@MODELS.register_module()
class PolyMax(BaseModel):
    """A backbone, kMaX-DeepLab's decoders, and one value a centre: D and the loss are the output's.

    Args:
        backbone: config of a backbone of four maps at strides 4, 8, 16, 32.
        in_channels: their channels.
        output: config of what is predicted: `opsin.DepthOutput`, `NormalOutput`, `SemanticOutput`.
        num_centers: K.
        dims: of the pixel decoder's stages, coarsest first.
        layers: blocks of each of its stages.
        axial: which of its stages attend along the axes.
        kmax_layers: k-means layers on each of its three coarser maps.
        deep_supervision: whether every k-means layer has a loss of its own; without it their value heads are
            not trained, and several processes need `find_unused_parameters=True` in the config.
        norm_momentum: of the decoders' batch norms; a short training needs more than the published value.
        data_preprocessor: config; RGB with ImageNet's mean and deviation by default.
        init_cfg: OpenMMLab's weight initialisation.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        in_channels: Sequence[int],
        output: Mapping[str, Any],
        *,
        num_centers: int = 128,
        dims: Sequence[int] = (512, 256, 128, 64),
        layers: Sequence[int] = (1, 5, 1, 1),
        axial: Sequence[bool] = (True, True, False, False),
        kmax_layers: Sequence[int] = (2, 2, 2),
        deep_supervision: bool = True,
        norm_momentum: float = BN_MOMENTUM,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(dict(data_preprocessor or PREPROCESSOR), init_cfg)
        self.backbone = MODELS.build(dict(backbone))
        self.pixel_decoder = PixelDecoder(in_channels, dims, layers, axial)
        self.output: Output = MODELS.build(dict(output))
        self.predictor = KMaxDecoder(
            self.pixel_decoder.out_channels, self.output.channels, num_centers, kmax_layers
        )
        self.deep_supervision = deep_supervision
        for module in (*self.pixel_decoder.modules(), *self.predictor.modules()):
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = norm_momentum

    def clusters(self, images: Tensor) -> tuple[Clusters, list[Clusters]]:
        """The final clusters of pictures (B, 3, H, W), at stride 4, and those of every k-means layer."""
        final, auxiliary, _ = self.predictor(self.pixel_decoder(self.backbone(images)))
        return final, auxiliary

    def mixture(self, clusters: Clusters) -> Tensor:
        """(B, D, h, w): at every pixel the centres' values, weighted by how likely it belongs to each."""
        weights = clusters.mask_logits.softmax(1)
        return torch.einsum("bkhw,bkd->bdhw", weights, self.output.values(clusters.values))

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[Any] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Runs on pictures (B, 3, H, W), normalised and padded.

        Args:
            inputs: the pictures.
            data_samples: their samples, with the truth for a loss.
            mode: `tensor` gives the output's map (B, D, H, W); `loss` the losses; `predict` the samples with
                their results.
        """
        height, width = inputs.shape[-2:]
        inputs = at_least(inputs, LEAST_SIDE)
        final, auxiliary = self.clusters(inputs)
        predicted = enlarged(self.mixture(final), inputs.shape[-2:])[..., :height, :width]
        if mode == "tensor":
            return predicted
        if data_samples is None:
            raise ValueError(f"mode {mode!r} needs data samples")
        if mode == "predict":
            return store_all(self.output, predicted, data_samples)
        losses = {"loss": average_loss(self.output, predicted, data_samples)}
        if self.deep_supervision:
            size = final.mask_logits.shape[-2:]
            for number, clusters in enumerate(auxiliary):
                mixed = enlarged(self.mixture(clusters.resized(size)), inputs.shape[-2:])
                losses[f"d{number}.loss"] = average_loss(self.output, mixed, data_samples)
        return losses

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *torch_arguments: Any
    ) -> None:
        """Takes kMaX-DeepLab's names too; `load_from` such a checkpoint begins with all but its classes."""
        published = f"{prefix}{PUBLISHED_PREFIX}"
        for name in [n for n in state_dict if n.startswith(published)]:
            state_dict[f"{prefix}{name.removeprefix(published)}"] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *torch_arguments)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, D, h, w) to the picture's size; corners are aligned where its width is odd."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=size[1] % 2 == 1)
