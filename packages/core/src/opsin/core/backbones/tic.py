"""TiC: Exploring Vision Transformer in Convolution (arXiv 2310.04134).

Self-attention written as a convolution: every position attends to its k x k, perhaps dilated, neighbourhood.
The authors' repository (zs670980918/MSA-Conv) has no licence; it publishes the operator and one block
(`MSAConv2d`), and no network. Everything else here, `TiC` above all, is chosen to fit the abstract, is ours,
and must not be taken for the paper's.

What a naive reading gets wrong: neighbours beyond the image are not masked, they are zero keys with zero
values that take part in the softmax; the published block has one head over all channels, scales by the width
of its input, and adds its input before the output convolution, whose ReLU comes last; stride acts on that
convolution alone and dilation on the attention alone; attention is computed in float32.

How it is computed: blocks of 8 x 8 queries share the keys of the block and its margin, and a constant mask
leaves each query its own neighbours. That is a few times more products than needed, but in a fused attention
which stores no logits, forwards or backwards: four times as fast on a CPU as walking through the neighbours,
and memory grows with the pixels alone. A dilated map is cut into its interleaved lattices first.

Letters: N images, h heads, d channels of a head, K = kernel rows * columns neighbours, row by row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.errors import UserError
from opsin.core.layers.conv_norm import ConvNorm
from opsin.core.layers.drop_path import DropPath, drop_path_rates
from opsin.core.layers.layer_norm import LayerNorm2d
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.neighbourhoods import neighbourhoods
from opsin.core.layers.weight_init import init_linear
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, backbone_of, fit, place
from opsin.registry import MODELS

BLOCK = 8  # queries on a side of a block
STRIDES = (4, 8, 16, 32)
ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {
        "dims": (64, 128, 256, 512),
        "depths": (2, 2, 6, 2),
        "num_heads": (2, 4, 8, 16),
        "kernel_sizes": (7, 7, 5, 5),
    },
}
Size = tuple[int, int]


def pair(kernel_size: int | Sequence[int]) -> Size:
    """Rows and columns of a kernel, given by one number or two.

    Raises:
        UserError: unless both are odd; a neighbourhood has a middle.
    """
    sizes = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(sizes) != 2 or any(size < 1 or size % 2 == 0 for size in sizes):
        raise UserError(f"kernel_size {kernel_size} of MSA-Conv must be odd, one number or two")
    return sizes[0], sizes[1]


# The published operators, by their definition.


def _neighbours(x: Tensor, kernel: Size, dilation: int) -> Iterator[Tensor]:
    """A map (N, C, H, W) as each of the K neighbours sees it, zeros beyond the image."""
    height, width = x.shape[2:]
    rows, columns = (dilation * (size // 2) for size in kernel)
    x = F.pad(x, (columns, columns, rows, rows))
    for row, column in product(range(kernel[0]), range(kernel[1])):
        yield x[:, :, row * dilation :, column * dilation :][:, :, :height, :width]


def neighbour_products(q: Tensor, k: Tensor, kernel_size: int | Sequence[int], dilation: int = 1) -> Tensor:
    """Products of every query with its neighbours' keys: two maps (N, C, H, W) to (N, K, H, W), unscaled."""
    return torch.stack([(q * keys).sum(1) for keys in _neighbours(k, pair(kernel_size), dilation)], 1)


def neighbour_sums(weights: Tensor, v: Tensor, kernel_size: int | Sequence[int], dilation: int = 1) -> Tensor:
    """Neighbours' values by weight: (N, K, H, W) and a map (N, C, H, W) to (N, C, H, W)."""
    values = _neighbours(v, pair(kernel_size), dilation)
    terms = [w[:, None] * value for w, value in zip(weights.unbind(1), values, strict=True)]
    return torch.stack(terms).sum(0)


# The same, fused


def _band(queries: int, starts: Tensor, size: int, keys: int) -> Tensor:
    """(queries, keys): whether key u is one of the `size` from a query's `starts` on."""
    offset = torch.arange(keys) - starts[:queries, None]
    return (offset >= 0) & (offset < size)


def _mask(kernel: Size, block: Size, starts: Sequence[Tensor]) -> Tensor:
    """(queries of a block, keys of its window): the neighbours of each, on both axes."""
    keys = [b + size - 1 for b, size in zip(block, kernel, strict=True)]
    rows, columns = (
        _band(BLOCK, start, size, count) for start, size, count in zip(starts, kernel, keys, strict=True)
    )
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)


class NeighbourAttention(nn.Module):
    """Softmax attention of every position over its neighbourhood, in any number of heads; no parameters.

    Args:
        kernel_size: rows and columns of the neighbourhood, odd; one number for both.
        dilation: pixels from one neighbour to the next.
        inter_pool: keys and values of the map at half the size are K more neighbours, those around
            (y // 2, x // 2), in one softmax with the others.
        mask_padding: neighbours beyond the image are left out, other than published.
        scale: factor on the products; d ** -0.5 if None.
        dropout: rate at which weights are dropped while training.

    Raises:
        UserError: for an even kernel, or a dilation that `inter_pool` is not defined for.
    """

    mask: Tensor

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        *,
        dilation: int = 1,
        inter_pool: bool = False,
        mask_padding: bool = False,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.kernel = pair(kernel_size)
        if dilation < 1 or (inter_pool and dilation > 2):
            raise UserError(f"dilation={dilation} of MSA-Conv", "take 1 or more; 1 or 2 with inter_pool")
        self.dilation, self.inter_pool, self.mask_padding = dilation, inter_pool, mask_padding
        self.scale, self.dropout = scale, dropout
        self.halo = (self.kernel[0] // 2, self.kernel[1] // 2)
        self.pooled_block = BLOCK * dilation // 2
        places = torch.arange(BLOCK)
        masks = [_mask(self.kernel, (BLOCK, BLOCK), (places, places))]
        if inter_pool:
            pooled = places * dilation // 2
            masks.append(_mask(self.kernel, (self.pooled_block,) * 2, (pooled, pooled)))
        self.register_buffer("mask", torch.cat(masks, 1), persistent=False)

    def forward(self, q: Tensor, kv: Tensor) -> Tensor:
        """Queries (N, H, W, h, d), keys and values (N, H, W, 2, h, d) to (N, H, W, h, d)."""
        images, height, width, heads, _ = q.shape
        below, right = (-side % (BLOCK * self.dilation) for side in (height, width))
        size = (height + below, width + right)
        kv = kv.flatten(3)  # k and v, head by head
        windows = self._windows(kv, size)
        if self.inter_pool:
            windows = torch.cat((windows, self._pooled_windows(kv, size)), 1)
        k, v = windows.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
        q = _blocks(_lattices(F.pad(q.flatten(3), (0, 0, 0, right, 0, below)), self.dilation))
        y = F.scaled_dot_product_attention(
            q.unflatten(2, (heads, -1)).transpose(1, 2),
            k,
            v,
            attn_mask=self._mask_of(kv, size),
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        y = y.transpose(1, 2).flatten(2)
        y = _from_lattices(_from_blocks(y, images * self.dilation**2, size, self.dilation), images)
        return y[:, :height, :width].unflatten(3, (heads, -1))

    def _windows(self, x: Tensor, size: Size) -> Tensor:
        """(N, H, W, C), padded to `size`, to (blocks, keys of a window, C)."""
        x = F.pad(x, (0, 0, 0, size[1] - x.shape[2], 0, size[0] - x.shape[1]))
        x = neighbourhoods(_lattices(x, self.dilation), (BLOCK, BLOCK), self.halo)
        return x.flatten(0, 2).flatten(1, 2)

    def _pooled_windows(self, x: Tensor, size: Size) -> Tensor:
        """The same of the map at half the size; all lattices of an image see the same."""
        x = F.avg_pool2d(x.permute(0, 3, 1, 2), 2, ceil_mode=True, count_include_pad=False)
        x = x.permute(0, 2, 3, 1)
        x = F.pad(x, (0, 0, 0, size[1] // 2 - x.shape[2], 0, size[0] // 2 - x.shape[1]))
        windows = neighbourhoods(x, (self.pooled_block,) * 2, self.halo).flatten(1, 2).flatten(2, 3)
        return windows.repeat_interleave(self.dilation**2, 0).flatten(0, 1)

    def _mask_of(self, kv: Tensor, size: Size) -> Tensor:
        """(queries, keys), or one for each block where padding is masked."""
        if not self.mask_padding:
            return self.mask
        image = kv.new_ones((*kv.shape[:3], 1))
        inside = [self._windows(image, size)]
        if self.inter_pool:
            inside.append(self._pooled_windows(image, size))
        # a block that lies beyond the image keeps its mask: its queries are cut off, but need some key
        seen = torch.cat(inside, 1).flatten(1)[:, None] > 0
        return (self.mask & (seen | ~(self.mask & seen).any(-1, keepdim=True)))[:, None]


def _lattices(x: Tensor, step: int) -> Tensor:
    """(N, H, W, C) to its step ** 2 interleaved maps (N * step ** 2, H / step, W / step, C)."""
    if step == 1:
        return x
    x = x.unflatten(2, (-1, step)).unflatten(1, (-1, step))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def _from_lattices(x: Tensor, images: int) -> Tensor:
    """The way back from `_lattices`."""
    step = round((x.shape[0] / images) ** 0.5)
    if step == 1:
        return x
    x = x.unflatten(0, (images, step, step)).permute(0, 3, 1, 4, 2, 5)
    return x.flatten(3, 4).flatten(1, 2)


def _blocks(x: Tensor) -> Tensor:
    """(N, H, W, C) to (blocks, BLOCK ** 2, C)."""
    x = x.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3)
    return x.flatten(0, 2).flatten(1, 2)


def _from_blocks(x: Tensor, maps: int, size: Size, dilation: int) -> Tensor:
    """The way back from `_blocks`."""
    rows, columns = (side // (BLOCK * dilation) for side in size)
    x = x.unflatten(1, (BLOCK, BLOCK)).unflatten(0, (maps, rows, columns)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)


@MODELS.register_module()
class MSAConv2d(nn.Module):
    """The published block: attention over neighbours, its input added, a k x k convolution, ReLU.

    Args:
        in_channels: channels C of the map.
        out_channels: channels of the output.
        kernel_size: of the neighbourhood and of the convolution, odd; one number or two.
        stride: of the convolution.
        dilation: of the neighbourhood.
        dropout: rate at which attention's weights are dropped while training.
        padding: of the convolution.
        bias: whether the convolution has one.
        num_heads: groups of channels with weights of their own; 1 as published.
        mask_padding: see `NeighbourAttention`.

    Raises:
        UserError: for an even kernel, or heads that do not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        stride: int = 1,
        dilation: int = 1,
        dropout: float = 0.1,
        padding: int | Sequence[int] = 1,
        bias: bool = False,
        num_heads: int = 1,
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        _check_heads(in_channels, num_heads)
        kernel = pair(kernel_size)
        self.num_heads = num_heads
        self.qkv_conv = nn.Conv2d(in_channels, 3 * in_channels, 1)
        self.attention = NeighbourAttention(
            kernel, dilation=dilation, mask_padding=mask_padding, dropout=dropout
        )
        padding = padding if isinstance(padding, int) else tuple(padding)
        self.mlp = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=bias)  # type: ignore[arg-type] # a pair

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, H', W'), as the convolution's stride and padding say."""
        qkv = self.qkv_conv(x).permute(0, 2, 3, 1).unflatten(3, (3, self.num_heads, -1))
        with torch.autocast(x.device.type, enabled=False):
            wide = qkv if qkv.dtype == torch.float64 else qkv.float()
            y = self.attention(wide[..., 0, :, :], wide[..., 1:, :, :])
        return F.relu(self.mlp(x + y.flatten(3).permute(0, 3, 1, 2)))


def _check_heads(channels: int, num_heads: int) -> None:
    if channels % num_heads:
        raise UserError(f"{num_heads} heads do not divide the {channels} channels of MSA-Conv")


# The chosen network


def roll_four_ways(x: Tensor, step: int) -> Tensor:
    """A map (N, H, W, C), each quarter of its channels rolled by `step` down, up, right or left."""
    down, up, right, left = x.chunk(4, 3)
    rolled = [torch.roll(down, step, 1), torch.roll(up, -step, 1)]
    return torch.cat([*rolled, torch.roll(right, step, 2), torch.roll(left, -step, 2)], 3)


class MSAConv(nn.Module):
    """Linear layer to queries, keys and values, attention over neighbours, linear layer.

    Args:
        dim: channels C.
        num_heads: heads.
        kernel_size: see `NeighbourAttention`.
        dilation: see `NeighbourAttention`.
        shift: pixels by which quarters of the channels are rolled before and back after; 0 for not.
        inter_pool: see `NeighbourAttention`.
        mask_padding: see `NeighbourAttention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        *,
        dilation: int = 1,
        shift: int = 0,
        inter_pool: bool = False,
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.num_heads, self.shift = num_heads, shift
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attention = NeighbourAttention(
            kernel_size, dilation=dilation, inter_pool=inter_pool, mask_padding=mask_padding
        )
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same shape."""
        x = roll_four_ways(x, self.shift) if self.shift else x
        qkv = self.qkv(x).unflatten(3, (3, self.num_heads, -1))
        x = self.proj(self.attention(qkv[..., 0, :, :], qkv[..., 1:, :, :]).flatten(3))
        return roll_four_ways(x, -self.shift) if self.shift else x


class Block(nn.Module):
    """Norm, MSA-Conv, norm, perceptron, each branch scaled and added.

    Args:
        dim: channels C.
        mixer: the MSA-Conv.
        drop_path_rate: chance of dropping a branch of a sample.
        layer_scale_init_value: what `gamma1` and `gamma2` (C,) begin with.
    """

    def __init__(
        self, dim: int, mixer: MSAConv, drop_path_rate: float, layer_scale_init_value: float
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer, self.mlp = mixer, Mlp(dim, 4 * dim)
        self.gamma1 = nn.Parameter(torch.full((dim,), layer_scale_init_value))
        self.gamma2 = nn.Parameter(torch.full((dim,), layer_scale_init_value))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y = x.permute(0, 2, 3, 1)
        y = y + self.drop_path(self.gamma1 * self.mixer(self.norm1(y)))
        y = y + self.drop_path(self.gamma2 * self.mlp(self.norm2(y)))
        return y.permute(0, 3, 1, 2)


class TiCTrunk(Trunk):
    """Stem, downsampling and stages; mix it in before `Backbone` or `Classifier`."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]

    def add_stages(
        self,
        arch: str | Mapping[str, Any],
        *,
        shift: bool,
        inter_pool: bool,
        mask_padding: bool,
        in_channels: int,
        drop_path_rate: float,
        layer_scale_init_value: float,
        built: int = 4,
    ) -> None:
        """Adds the first `built` stages and what is before them.

        Raises:
            UserError: for an unknown `arch`, or settings that are not one a stage.
        """
        settings = resolve_arch("TiC", ARCHS, arch)
        for key, value in settings.items():
            if len(value) != len(STRIDES):
                raise UserError(f"{key} {tuple(value)} of TiC must have four entries")
        self.dims, self.depths = tuple(settings["dims"]), tuple(settings["depths"])
        if any(dim % 4 for dim in self.dims):
            raise UserError(f"dims {self.dims} of TiC must be multiples of 4", "quarters are shifted")
        rates = drop_path_rates(drop_path_rate, self.depths)
        self.downsample_layers, self.stages = nn.ModuleList(), nn.ModuleList()
        for stage in range(built):
            dim, kernel = self.dims[stage], pair(settings["kernel_sizes"][stage])
            self.downsample_layers.append(_downsample(in_channels, dim) if stage else _stem(in_channels, dim))
            in_channels = dim
            blocks = nn.Sequential()
            for index, rate in enumerate(rates[stage]):
                mixer = MSAConv(
                    dim,
                    settings["num_heads"][stage],
                    kernel,
                    dilation=1 + index % 2,
                    shift=max(kernel) // 2 if shift and index % 2 else 0,
                    inter_pool=inter_pool,
                    mask_padding=mask_padding,
                )
                blocks.append(Block(dim, mixer, rate, layer_scale_init_value))
            self.stages.append(blocks)
        self.apply(init_linear)

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """Image (N, 3, H, W) to the map of every stage."""
        x = x.contiguous(memory_format=torch.channels_last)
        for downsample, blocks in zip(self.downsample_layers, self.stages, strict=True):
            x = downsample(x)
            for block in blocks.children():
                x = self.run(block, x)
            yield x

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """The stem is layer 0, each block one more (a stage's first with the downsampling), the rest last."""
        last = sum(self.depths) + 1
        found = re.match(r"(downsample_layers|stages)\.(\d)\.(\d+)\.", name.removeprefix(prefix))
        if found is None:
            return last, last + 1
        before = sum(self.depths[: int(found[2])])
        if found[1] == "stages":
            return before + 1 + int(found[3]), last + 1
        return (before + 1 if before else 0), last + 1


def _stem(in_channels: int, dim: int) -> nn.Sequential:
    first, second = ConvNorm(in_channels, dim // 2, 3, stride=2), ConvNorm(dim // 2, dim, 3, stride=2)
    return nn.Sequential(first, nn.GELU(), second, nn.GELU())


def _downsample(in_channels: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, dim, 3, 2, 1), LayerNorm2d(dim))


@MODELS.register_module()
class TiC(TiCTrunk, Backbone):
    """The feature extractor, chosen as the module's docstring says; a LayerNorm on every output.

    Blocks alternate between neighbours side by side and, at dilation 2, every other pixel.

    Args:
        arch: 'tiny', or dict(dims=…, depths=…, num_heads=…, kernel_sizes=…) with four entries each; as many
            heads as channels give each channel its own weights.
        shift: every second block rolls quarters of its channels down, up, right and left around the image by
            half a kernel before attention, and back after it.
        inter_pool: see `NeighbourAttention`.
        mask_padding: see `NeighbourAttention`.
        in_channels: channels of the image.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value: what the factors on the branches begin with.
        out_indices: stages that give a map; later stages are not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown `arch` or one of its values, or `out_indices` outside 0..3.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        shift: bool = True,
        inter_pool: bool = True,
        mask_padding: bool = False,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.1,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        self.check_out_indices(len(STRIDES))
        self.add_stages(
            arch,
            shift=shift,
            inter_pool=inter_pool,
            mask_padding=mask_padding,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value,
            built=self.out_indices[-1] + 1,
        )
        for index in self.out_indices:
            self.add_module(f"norm{index}", LayerNorm2d(self.dims[index]))
        self.feature_info = tuple(FeatureInfo(self.dims[index], STRIDES[index]) for index in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        maps = enumerate(self.maps(x))
        return tuple(self.get_submodule(f"norm{i}")(y) for i, y in maps if i in self.out_indices)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The stem (0), or stage `stage` (1 to 4) with the downsampling before it and the norm of its map."""
        if stage == 0:
            return [self.downsample_layers[0]]
        index = stage - 1
        if index >= len(self.stages):
            return []
        parts = [self.stages[index]] + ([self.downsample_layers[index]] if index else [])
        return parts + ([self.get_submodule(f"norm{index}")] if index in self.out_indices else [])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Of a classifier's or an OpenMMLab model's tensors this backbone's; its norms may be missing."""
        later = rf"(downsample_layers|stages)\.[{len(self.stages)}-9]\."
        given = backbone_of(tensors)
        return fit(self.state_dict(), given, fresh=r"^norm\d\.", unused=rf"^(norm\d?|head)\.|^{later}")


@MODELS.register_module()
class TiCClassifier(TiCTrunk, Classifier):
    """The classifier: four stages, global mean, norm, linear head.

    Args:
        arch, shift, inter_pool, mask_padding, in_channels, drop_path_rate, layer_scale_init_value: as for
            `TiC`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch` or one of its values.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        shift: bool = True,
        inter_pool: bool = True,
        mask_padding: bool = False,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.add_stages(
            arch,
            shift=shift,
            inter_pool=inter_pool,
            mask_padding=mask_padding,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value,
        )
        self.num_features = self.dims[-1]
        self.norm = nn.LayerNorm(self.num_features)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the normed mean vector (N, num_features)."""
        *_, x = self.maps(x)
        return self.norm(x.mean((2, 3)))


register_models("tic", TiCClassifier, {f"tic_{arch}": {"arch": arch} for arch in ARCHS}, backbone=TiC)


@adapter("tic", r"MSA_Conv_2d")
@torch.no_grad()
def _block_case(case: Case) -> dict[str, Tensor]:
    built_with = case.built_with
    settings = {
        key: built_with[key] for key in ("stride", "dilation", "padding", "bias") if key in built_with
    }
    channels = built_with["input_channel"], built_with["output_channel"]
    block = MSAConv2d(*channels, built_with["kernel_size"], **settings).eval()
    place(block, case.state_dict())
    (x,) = case.inputs().values()
    return dict.fromkeys(case.meta["outputs"], block(x))


@adapter("tic", r"(?i)msa_conv")
@torch.no_grad()
def _operator_case(case: Case) -> dict[str, Tensor]:
    """The two operators: products of q and k, and values by the softmax of these or by weights given."""
    inputs, built_with = case.inputs(), case.built_with
    settings = built_with["kernel_size"], built_with.get("dilation", 1)
    found = {}
    weights = next((tensor for name, tensor in inputs.items() if name not in ("q", "k", "v")), None)
    if "q" in inputs:
        found["dots"] = neighbour_products(inputs["q"], inputs["k"], *settings)
        weights = (found["dots"] * inputs["q"].shape[1] ** -0.5).softmax(1)
    if "v" in inputs and weights is not None:
        found["out"] = neighbour_sums(weights, inputs["v"], *settings)
    return found
