"""RWKV-SAM, whole: encoder, neck, prompt encoder and mask decoder, its loss and its way of predicting.

The image is encoded once; every prompt then costs a pass of the small decoder. Pictures are resized to fit
`image_size` and padded to it below and on the right, since the prompt encoder knows that size alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.registry import MODELS
from opsin.segmentation.promptable.datasets.sample import PromptSample
from opsin.segmentation.promptable.models.mask_answers import Size, original_logits, stability
from opsin.segmentation.promptable.models.prompt_sampling import Asked
from opsin.segmentation.promptable.models.rwkv_sam.backbone import STRIDE
from opsin.segmentation.promptable.models.rwkv_sam.mask_decoder import MaskDecoder
from opsin.segmentation.promptable.models.rwkv_sam.prompt_encoder import PromptEncoder
from opsin.segmentation.promptable.prompts import Prompts

Config = dict[str, Any]
FINE_STRIDES = (4, 8)
PROMPTS_AT_ONCE = 64


@dataclass(frozen=True)
class ImageFeatures:
    """What the decoder reads of one image, computed once.

    Args:
        embedding: (1, C, h, w), stride 16.
        fine: the backbone's maps of stride 4 and 8.
        size: of the network's input, rows and columns.
    """

    embedding: Tensor
    fine: tuple[Tensor, Tensor]
    size: Size


class LastMapNeck(nn.Module):
    """The backbone's last map to the image embedding: 1x1 and 3x3 convolution, a LayerNorm after each."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.out_proj = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False),
            LayerNorm2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, h, w) to (N, C, h, w)."""
        return self.out_proj(x)


@MODELS.register_module()
class RWKVSAM(BaseModel):
    """The promptable segmenter, with RWKV-SAM's backbone or any other that has maps of strides 4, 8 and 16.

    Args:
        arch: of `opsin.RWKVSAMBackbone`.
        mlp_ratio: of its blocks.
        backbone: a backbone's config in place of both; the decoder takes its maps of strides 4 and 8, the
            neck that of stride 16.
        image_size: side of the padded input in pixels, a multiple of 16.
        embed_dim: width C of the embedding and of the decoder, a multiple of 64.
        mask_loss: config of the loss.
        train_prompts: whether the prompt encoder learns; the published one is Segment Anything's, frozen.
        data_preprocessor: config, see `opsin.PromptPreprocessor`.
        init_cfg: OpenMMLab's weight initialisation.

    Raises:
        UserError: for another `image_size` or `embed_dim`, or a backbone without the strides.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "small",
        *,
        mlp_ratio: float = 2.0,
        backbone: Config | None = None,
        image_size: int = 1024,
        embed_dim: int = 256,
        mask_loss: Config | None = None,
        train_prompts: bool = False,
        data_preprocessor: Config | None = None,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if image_size % STRIDE or embed_dim % 64:
            raise UserError(
                f"image_size={image_size} and embed_dim={embed_dim} of RWKVSAM",
                f"give multiples of {STRIDE} and 64",
            )
        own = dict(type="opsin.RWKVSAMBackbone", arch=arch, mlp_ratio=mlp_ratio, out_indices=(0, 1, 3))
        self.image_size = image_size
        self.backbone = MODELS.build(backbone or own)
        by_stride = {info.stride: (i, info.channels) for i, info in enumerate(self.backbone.feature_info)}
        missing = [stride for stride in (*FINE_STRIDES, STRIDE) if stride not in by_stride]
        if missing:
            raise UserError(
                f"{type(self.backbone).__name__} gives no map of stride {missing[0]}",
                "choose out_indices whose strides are 4, 8 and 16",
            )
        self.taken = [by_stride[stride][0] for stride in (*FINE_STRIDES, STRIDE)]
        fine = (by_stride[4][1], by_stride[8][1])
        self.neck = LastMapNeck(by_stride[STRIDE][1], embed_dim)
        self.pe = PromptEncoder(embed_dim, image_size=image_size, embedding_size=image_size // STRIDE)
        self.pe.requires_grad_(train_prompts)
        self.mask_decoder = MaskDecoder(embed_dim, fine_channels=fine)
        self.mask_loss = MODELS.build(mask_loss or dict(type="opsin.SampledMaskLoss"))

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[PromptSample] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Runs on normalised pictures (N, 3, H, W).

        Args:
            inputs: of any size for `tensor`, else padded to `image_size`.
            data_samples: their samples, with `asked` for the loss, else with `prompts`.
            mode: `tensor` gives the image embedding (N, C, H / 16, W / 16); `loss` a dictionary of losses;
                `predict` the samples with predicted masks.
        """
        if mode == "tensor":
            return self.neck(self.backbone(inputs)[self.taken[2]])
        images = self.encode(inputs)
        if mode == "loss":
            return self.loss(images, data_samples or [])
        return self.predict(images, data_samples or [])

    def encode(self, inputs: Tensor) -> list[ImageFeatures]:
        """Padded pictures (N, 3, S, S) to what the decoder reads of each.

        Raises:
            ValueError: for a size other than `image_size`.
        """
        size = (inputs.shape[2], inputs.shape[3])
        if size != (self.image_size, self.image_size):
            raise ValueError(f"inputs are {size[0]}x{size[1]}, expected {self.image_size}x{self.image_size}")
        maps = self.backbone(inputs)
        stride4, stride8, last = (maps[index] for index in self.taken)
        parts = zip(self.neck(last).split(1), stride4.split(1), stride8.split(1), strict=True)
        return [ImageFeatures(embedding, (fine4, fine8), size) for embedding, fine4, fine8 in parts]

    def decode(self, image: ImageFeatures, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """N prompts in pixels of the padded picture to logits (N, 1, S / 4, S / 4) and IoUs (N, 1)."""
        sparse, dense = self.pe(prompts)
        return self.mask_decoder(image.embedding, self.pe.dense_pe(), sparse, dense, image.fine)

    def answer(self, image: ImageFeatures, prompts: Prompts, resized: Size, original: Size) -> Tensor:
        """N prompts in pixels of the resized picture to logits (N, H, W) of the original one."""
        answers = []
        for first in range(0, len(prompts), PROMPTS_AT_ONCE):
            logits, _ = self.decode(image, prompts[first : first + PROMPTS_AT_ONCE])
            answers.append(original_logits(logits, image.size, resized, original)[:, 0])
        return torch.cat(answers) if answers else image.embedding.new_zeros(0, *original)

    def loss(self, images: list[ImageFeatures], samples: list[PromptSample]) -> dict[str, Tensor]:
        """Losses of the prompts `asked` of every picture, a mean over all masks of the batch."""
        logits, masks, ious = [], [], []
        for image, sample in zip(images, samples, strict=True):
            asked: Asked = sample.asked
            for prompts, rows in asked:
                answer, iou = self.decode(image, prompts)
                logits.append(answer[:, 0])
                ious.append(iou)
                masks.append(_padded(sample.gt_masks[rows], image.size))
        if not logits:  # no picture of the batch has a mask: all parts stay in the graph
            nothing = sum(p.sum() for p in self.parameters() if p.requires_grad) * 0
            return {"loss_dice": nothing, "loss_mask": nothing}
        kept = torch.cat(ious).sum() * 0  # the head for IoUs is not trained, yet part of the graph
        return self.mask_loss(torch.cat(logits), torch.cat(masks)) | {"loss_iou": kept}

    def predict(self, images: list[ImageFeatures], samples: list[PromptSample]) -> list[PromptSample]:
        """The samples with `pred_masks` and `pred_scores` of their prompts."""
        for image, sample in zip(images, samples, strict=True):
            resized, original = tuple(sample.img_shape[:2]), tuple(sample.ori_shape[:2])
            scale = (resized[1] / original[1], resized[0] / original[0])
            logits = self.answer(image, sample.prompts.scaled(*scale), resized, original)
            sample.pred_masks, sample.pred_scores = logits > 0, stability(logits)
        return samples


def _padded(masks: Tensor, size: Size) -> Tensor:
    """(N, H, W) to `size` with nothing below and on the right."""
    return F.pad(masks, (0, size[1] - masks.shape[2], 0, size[0] - masks.shape[1]))
