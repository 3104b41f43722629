"""MoH-ViT: TransNeXt (arXiv 2311.17132) whose attention heads are routed (MoH, arXiv 2410.11842, ICML 2025).

Authors' code: SkyworkAI/MoH, Apache-2.0. Image (N, 3, H, W) to maps of strides 4, 8, 16, 32 and widths
`embed_dims`; strided convolutions round up, so any size goes through. Between the parts maps are (N, H, W,
C).

What a naive reading gets wrong: each stage reads the normed map of the one before; a third of the
perceptron's hidden width is left out, so that its two halves, one of which gates the other, cost what one
usual perceptron does; position biases follow the map's size, scaled by that of pretraining, which the
authors' code takes from the image size unless told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo
from opsin.core.backbones.moh.positions import Positions
from opsin.core.backbones.moh.routing import auxiliary_losses
from opsin.core.backbones.moh.settings import MoHViTSettings
from opsin.core.backbones.moh.transnext import AggregatedAttention, CosineAttention
from opsin.core.backbones.numbered_stages import STRIDES, NumberedStages
from opsin.core.layers.depthwise_conv import DepthwiseConv
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.weight_init import init_conv_fan_out, init_linear
from opsin.core.published import Tensors, backbone_of
from opsin.registry import MODELS

# parameters that the authors do not decay
UNDECAYED = re.compile(r"query_embedding|relative_pos_bias_local|cpb_fc|temperature")


class ConvolutionalGLU(nn.Module):
    """Perceptron with a gate: fc2(GELU(depth-wise 3x3 of a) * b), where (a, b) = fc1 x.

    Args:
        dim: width C.
        hidden_dim: hidden width of a usual perceptron of this cost; a and b are two thirds of it wide.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        hidden_dim = int(2 * hidden_dim / 3)
        self.fc1 = nn.Linear(dim, 2 * hidden_dim)
        self.dwconv = DepthwiseConv(hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        x, gate = self.fc1(x).chunk(2, -1)
        x = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(self.act(x) * gate)


class Block(nn.Module):
    """Attention, then perceptron, each after a LayerNorm and added to what came in.

    Args:
        dim: width C.
        attn: takes a map (N, H, W, C) and its `Positions`.
        mlp_ratio: see `MoHViTSettings`.
        drop_path_rate: chance of dropping a branch of a sample, in [0, 1).
        norm_eps: epsilon of the norms.
    """

    def __init__(
        self, dim: int, attn: nn.Module, mlp_ratio: float, *, drop_path_rate: float = 0.0, norm_eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = ConvolutionalGLU(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """(N, H, W, C) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), positions))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """A strided convolution whose patches overlap, and a LayerNorm of epsilon 1e-5.

    Args:
        in_channels: channels in.
        dim: channels out.
        kernel_size: side of the kernel; padding is half of it.
        stride: stride.
    """

    def __init__(self, in_channels: int, dim: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, stride, kernel_size // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, ⌈H / stride⌉, ⌈W / stride⌉, C)."""
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


def make_block(settings: MoHViTSettings, stage: int, drop_path_rate: float = 0.0) -> Block:
    """A block of stage `stage`, from 0."""
    dim = settings.embed_dims[stage]
    heads = settings.num_heads[stage], settings.shared_heads[stage], settings.routed_heads[stage]
    attn: nn.Module
    if settings.sr_ratios[stage] == 1:
        attn = CosineAttention(dim, *heads, qkv_bias=settings.qkv_bias)
    else:
        window = settings.windows[stage]
        attn = AggregatedAttention(dim, *heads, window_size=window, qkv_bias=settings.qkv_bias)
    return Block(
        dim, attn, settings.mlp_ratios[stage], drop_path_rate=drop_path_rate, norm_eps=settings.norm_eps
    )


class MoHViTTrunk(NumberedStages):
    """What backbone and classifier share."""

    settings: MoHViTSettings

    def build(self, settings: MoHViTSettings, stages: int = len(STRIDES)) -> None:
        """Makes the first `stages` stages; drop path rates are those of the whole network."""
        self.settings, self.depths = settings, tuple(settings.depths)
        rates = drop_path_rates(settings.drop_path_rate, self.depths)
        widths = (settings.in_channels, *settings.embed_dims)
        self.add_stages(
            (
                PatchEmbed(widths[stage], widths[stage + 1], *((3, 2) if stage else (7, 4))),
                [make_block(settings, stage, rate) for rate in rates[stage]],
                nn.LayerNorm(widths[stage + 1], eps=settings.norm_eps),
            )
            for stage in range(stages)
        )
        self.apply(init_linear)
        self.apply(init_conv_fan_out)

    def normed_maps(self, x: Tensor) -> Iterator[Tensor]:
        """Image (N, 3, H, W) to the normed map (N, C_i, H_i, W_i) of every stage."""
        self.auxiliary_losses()  # checkpointed blocks leave theirs behind when they are run again
        for number in range(1, self.built + 1):
            x = self.get_submodule(f"patch_embed{number}")(x)
            positions = self._positions(number - 1, (x.shape[1], x.shape[2]), x.device)
            for block in self.get_submodule(f"block{number}").children():
                x = self.run(block, x, positions)
            x = self.get_submodule(f"norm{number}")(x).permute(0, 3, 1, 2)
            yield x

    def _positions(self, stage: int, size: tuple[int, int], device: torch.device) -> Positions:
        settings = self.settings
        side = settings.pretrain_size // STRIDES[stage]
        window = settings.windows[stage]
        return Positions.of(size, settings.pool(stage, size), side, window=window, device=device)

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """Takes the load-balance loss of the last training forward: `loss_balance`, weighted."""
        return auxiliary_losses(self, self.settings.load_balance_weight)

    def no_weight_decay(self) -> set[str]:
        """Query embeddings, temperatures and what position biases are made of."""
        return {name for name, _ in self.named_parameters() if UNDECAYED.search(name)}


@MODELS.register_module()
class MoHViT(MoHViTTrunk, Backbone):
    """The feature extractor: the normed map of every stage; stages after the last output are not built.

    Args:
        arch: 'small_80', 'small_75', 'base_75', 'base_50', or a mapping of `MoHViTSettings`.
        out_indices: stages that give a map.
        frozen_stages, with_cp, init_cfg: see `Backbone`.
        settings: see `MoHViTSettings`.

    Raises:
        UserError: for an unknown arch or setting, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "small_75",
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        chosen = MoHViTSettings.of(arch, settings)
        self.check_out_indices(len(STRIDES))
        self.build(chosen, self.out_indices[-1] + 1)
        self.feature_info = tuple(FeatureInfo(chosen.embed_dims[i], STRIDES[i]) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        return tuple(m for index, m in enumerate(self.normed_maps(x)) if index in self.out_indices)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's or a whole dense model's file to those of this backbone."""
        return self.of_classifier(backbone_of(tensors))


@MODELS.register_module()
class MoHViTClassifier(MoHViTTrunk, Classifier):
    """The published classifier: four stages, mean over the last normed map, linear head.

    Args:
        arch, settings: as for `MoHViT`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown arch or setting.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "small_75",
        *,
        num_classes: int = 1000,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.build(MoHViTSettings.of(arch, settings))
        self.num_features = self.settings.embed_dims[-1]
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean (N, num_features) of the last normed map."""
        *_, last = self.normed_maps(x)
        return last.mean((2, 3))
