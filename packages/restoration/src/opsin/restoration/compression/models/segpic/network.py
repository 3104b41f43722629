"""The network of SegPIC: image to latents, their distributions, and latents back to the image.

Letters: N pictures, C channels, H and W of the picture (multiples of 64).

    x (N, 3, H, W) → y1 at H/4 → y (N, latent, H/16, W/16) → z (N, hyper[-1], H/64, W/64)
    codes of regions: `center` from y1 at H/4, `center2` from y at H/16
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from opsin.core.models import register_models
from opsin.core.published import Tensors
from opsin.registry import MODELS
from opsin.restoration.compression.models.segpic.blocks import AttentionGate, DownBlock, UpBlock
from opsin.restoration.compression.models.segpic.entropy import (
    EntropyBottleneck,
    gaussian_likelihood,
    noisy,
    rounded,
)
from opsin.restoration.compression.models.segpic.gdn import GDN, InverseGDN
from opsin.restoration.compression.models.segpic.regions import (
    GridRegions,
    MaskRegions,
    RegionAdaptiveTransform,
    Regions,
)

STRIDE = 64  # sides of pictures are multiples of it
STREAMS = ("y", "z", "z_center", "z_center2")

# Published tensors that follow from others: blocks under a second name, tables of the coder, constants.
DERIVED = re.compile(
    r"^(g_a[12]\.[01]|g_s[01]\.[12])\."
    r"|(_offset|_quantized_cdf|_cdf_length|scale_table|scale_bound|\.bound|\.pedestal|\.target)$"
    r"|(relative_position_index|attn_mask)$"
)
OLD_BOTTLENECK = re.compile(r"\._(matri|bia|factor)(?:ces|ses|s)\.(\d)$")

Quantiser = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A map to what the decoder will have of it, and what comes with that (likelihoods, or symbols)."""


class Quantisers(NamedTuple):
    """How the analysis quantises what the decoder needs."""

    z: Quantiser
    center: Quantiser
    center2: Quantiser


class Coded(NamedTuple):
    """A quantised map and what its quantiser gave with it."""

    value: Tensor
    extra: Tensor


class Latents(NamedTuple):
    """What the analysis of pictures gives; `y` is not quantised yet."""

    y: Tensor
    z: Coded
    center: Coded
    center2: Coded


@MODELS.register_module()
class SegPIC(nn.Module):
    """A learned image codec with region-adaptive transforms; the defaults are the published network.

    Args:
        width: channels at H/4.
        latent: channels of y, a multiple of `num_slices`.
        num_slices: parts of y that are coded one after the other.
        max_support_slices: how many decoded slices, the first ones, help to predict the next.
        hyper: channels of the hyper-analysis, from the first layer to z.
        context: hidden channels of the nets that predict a slice.
        code: channels in the nets of region codes: hidden, and the code itself.
        head: channels before the last layer.
        num_heads: heads of window attention.
        window_sizes: windows at H/4 and at H/16.

    Raises:
        ValueError: if `num_slices` does not divide `latent`.
    """

    def __init__(
        self,
        *,
        width: int = 192,
        latent: int = 320,
        num_slices: int = 10,
        max_support_slices: int = 5,
        hyper: Sequence[int] = (320, 288, 256, 224, 192),
        context: Sequence[int] = (224, 176, 128, 64),
        code: Sequence[int] = (128, 96),
        head: int = 32,
        num_heads: int = 8,
        window_sizes: Sequence[int] = (8, 4),
    ) -> None:
        super().__init__()
        if latent % num_slices:
            raise ValueError(f"{num_slices} slices do not divide {latent} channels")
        self.latent, self.num_slices, self.max_support_slices = latent, num_slices, max_support_slices
        near, far = window_sizes

        def gate(channels: int, window: int) -> AttentionGate:
            return AttentionGate(channels, window, num_heads)

        # The published network registers these blocks a second time inside g_a* and g_s*.
        self.basic_E = nn.ModuleList(DownBlock(i, o) for i, o in pairwise((3, width, width, width, latent)))
        self.basic_D = nn.ModuleList(UpBlock(i, o) for i, o in pairwise((latent, width, width, width, head)))
        self.g_a1 = nn.ModuleDict({"2": gate(width, near)})
        self.g_a2 = nn.ModuleDict({"2": gate(latent, far)})
        self.g_s0 = nn.ModuleDict({"0": gate(latent, far)})
        self.g_s1 = nn.ModuleDict({"0": gate(width, near), "3": nn.Conv2d(head, 3, 1)})

        self.h_a = hyper_analysis(latent, hyper)
        self.h_mean_s = hyper_synthesis(latent, hyper)
        self.h_scale_s = hyper_synthesis(latent, hyper)

        hidden, code_channels = code
        self.g_ab = code_transform(GDN, (width, hidden, code_channels, code_channels))
        self.g_sb = code_transform(InverseGDN, (code_channels, hidden, width, width))
        self.g_ab2 = code_transform(GDN, (latent, width, hidden, code_channels))
        self.g_sb2 = code_transform(InverseGDN, (code_channels, hidden, width, latent))

        part = latent // num_slices
        supports = [latent + part * min(s, max_support_slices) for s in range(num_slices)]
        self.cc_mean_transforms = nn.ModuleList(context_net(s, context, part) for s in supports)
        self.cc_scale_transforms = nn.ModuleList(context_net(s, context, part) for s in supports)
        self.lrp_transforms = nn.ModuleList(context_net(s + part, context, part) for s in supports)

        self.entropy_bottleneck = EntropyBottleneck(hyper[-1])
        self.entropy_bottleneck_b = EntropyBottleneck(code_channels)
        self.entropy_bottleneck_b2 = EntropyBottleneck(code_channels)

        self.dyn_encoder = RegionAdaptiveTransform(width, width)
        self.dyn_decoder = RegionAdaptiveTransform(width, width)
        self.dyn_enc_hyper = RegionAdaptiveTransform(latent, latent)
        self.dyn_dec_hyper_means = RegionAdaptiveTransform(latent, latent)
        self.dyn_dec_hyper_scales = RegionAdaptiveTransform(latent, latent)

    # The transforms, which the coder calls one by one.

    def analyse(self, x: Tensor, regions: Regions, quantise: Quantisers) -> Latents:
        """Latents of pictures x (N, 3, H, W); `regions` are those at H/4.

        Raises:
            ValueError: if a side is no multiple of 64.
        """
        if x.shape[2] % STRIDE or x.shape[3] % STRIDE:
            raise ValueError(f"sides are multiples of {STRIDE}, got {x.shape[3]}x{x.shape[2]}: pad first")
        y1 = self.g_a1["2"](self.basic_E[1](self.basic_E[0](x)))
        center = Coded(*quantise.center(self.g_ab(regions.pool(y1))))
        y1 = self.dyn_encoder(y1, self._spread(self.g_sb, center.value, regions, y1))
        y = self.g_a2["2"](self.basic_E[3](self.basic_E[2](y1)))
        far = regions.reduced(4)
        center2 = Coded(*quantise.center2(self.g_ab2(far.pool(y))))
        z = self.h_a(self.dyn_enc_hyper(y, self._spread(self.g_sb2, center2.value, far, y)))
        return Latents(y, Coded(*quantise.z(z)), center, center2)

    def predict(self, z: Tensor, center2: Tensor, regions: Regions) -> tuple[Tensor, Tensor]:
        """What z says about means and scales of y, each (N, latent, H/16, W/16); `regions` at H/4."""
        means, scales = self.h_mean_s(z), self.h_scale_s(z)
        codes = self._spread(self.g_sb2, center2, regions.reduced(4), means)
        return self.dyn_dec_hyper_means(means, codes), self.dyn_dec_hyper_scales(scales, codes)

    def slice_parameters(
        self, index: int, means: Tensor, scales: Tensor, decoded: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and scale of slice `index`, and the mean's support, which `refine` takes."""
        support = decoded[: self.max_support_slices]
        mean_support = torch.cat((means, *support), 1)
        scale_support = torch.cat((scales, *support), 1)
        mean = self.cc_mean_transforms[index](mean_support)
        return mean, self.cc_scale_transforms[index](scale_support), mean_support

    def refine(self, index: int, mean_support: Tensor, value: Tensor) -> Tensor:
        """The quantised slice with the predicted residual of its rounding."""
        residual = self.lrp_transforms[index](torch.cat((mean_support, value), 1))
        return value + 0.5 * residual.tanh()

    def synthesise(self, y: Tensor, center: Tensor, regions: Regions) -> Tensor:
        """Pictures (N, 3, H, W), not clamped, from quantised y and codes; `regions` at H/4."""
        y1 = self.basic_D[1](self.basic_D[0](self.g_s0["0"](y)))
        y1 = self.dyn_decoder(y1, self._spread(self.g_sb, center, regions, y1))
        x = self.basic_D[3](self.basic_D[2](self.g_s1["0"](y1)))
        out: Tensor = self.g_s1["3"](x)
        return out

    @staticmethod
    def _spread(transform: nn.Module, codes: Tensor, regions: Regions, like: Tensor) -> Tensor:
        return regions.spread(transform(codes), (like.shape[2], like.shape[3]))

    # The whole, with likelihoods in place of a bitstream.

    def forward(self, x: Tensor, mask: Tensor | None = None, grid: int = 4) -> dict[str, Tensor]:
        """Reconstruction and the likelihood of every symbol.

        Args:
            x: pictures (N, 3, H, W) in [0, 1], sides multiples of 64.
            mask: region ids (N, H, W), integers from 0; None takes a grid.
            grid: cells a side of the grid.

        Returns:
            `x_hat` (N, 3, H, W), not clamped, and `likelihood_y` (N, latent, H/16, W/16), `likelihood_z`,
            `likelihood_z_center`, `likelihood_z_center2`.
        """
        regions: Regions = GridRegions(grid) if mask is None else MaskRegions(mask).reduced(4)
        bottlenecks = self.entropy_bottleneck, self.entropy_bottleneck_b, self.entropy_bottleneck_b2
        latents = self.analyse(x, regions, Quantisers(*bottlenecks))
        y_hat, likelihood = self._quantise_y(latents, regions)
        return {
            "x_hat": self.synthesise(y_hat, latents.center.value, regions),
            "likelihood_y": likelihood,
            "likelihood_z": latents.z.extra,
            "likelihood_z_center": latents.center.extra,
            "likelihood_z_center2": latents.center2.extra,
        }

    def _quantise_y(self, latents: Latents, regions: Regions) -> tuple[Tensor, Tensor]:
        means, scales = self.predict(latents.z.value, latents.center2.value, regions)
        decoded: list[Tensor] = []
        likelihoods = []
        for index, y in enumerate(latents.y.chunk(self.num_slices, 1)):
            mean, scale, support = self.slice_parameters(index, means, scales, decoded)
            value = rounded(y - mean) + mean
            likelihoods.append(gaussian_likelihood(noisy(y) if self.training else value, mean, scale))
            decoded.append(self.refine(index, support, value))
        return torch.cat(decoded, 1), torch.cat(likelihoods, 1)

    def quantile_loss(self) -> Tensor:
        """The auxiliary loss, which moves the quantiles of the three bottlenecks and nothing else."""
        bottlenecks = (self.entropy_bottleneck, self.entropy_bottleneck_b, self.entropy_bottleneck_b2)
        return torch.stack([bottleneck.quantile_loss() for bottleneck in bottlenecks]).sum()

    @staticmethod
    def from_published(tensors: Tensors) -> Tensors:
        """Published names to ours: second names of shared blocks and derived tables go, old names change."""
        kept = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        renamed = {OLD_BOTTLENECK.sub(_bottleneck_name, name): tensor for name, tensor in kept.items()}
        return {name: tensor for name, tensor in renamed.items() if not DERIVED.search(name)}


def _bottleneck_name(match: re.Match[str]) -> str:
    kind = {"matri": "matrix", "bia": "bias", "factor": "factor"}[match[1]]
    return f"._{kind}{match[2]}"


def conv3x3(into: int, out: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution with a bias that keeps the size, or halves it with stride 2."""
    return nn.Conv2d(into, out, 3, stride, 1)


def hyper_analysis(latent: int, widths: Sequence[int]) -> nn.Sequential:
    """From y (H/16) to z (H/64)."""
    layers: list[nn.Module] = []
    for (into, out), stride in zip(pairwise((latent, *widths)), (1, 1, 2, 1, 2), strict=True):
        layers += [conv3x3(into, out, stride), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def hyper_synthesis(latent: int, widths: Sequence[int]) -> nn.Sequential:
    """From z (H/64) to a prediction for y (H/16)."""
    _, second, third, fourth, last = widths

    def doubled(into: int, out: int) -> nn.Sequential:
        return nn.Sequential(conv3x3(into, 4 * out), nn.PixelShuffle(2))

    return nn.Sequential(
        conv3x3(last, last),
        nn.GELU(),
        doubled(last, fourth),
        nn.GELU(),
        conv3x3(fourth, third),
        nn.GELU(),
        doubled(third, second),
        nn.GELU(),
        conv3x3(second, latent),
    )


def code_transform(norm: type[GDN], widths: Sequence[int]) -> nn.Sequential:
    """1x1 convolutions between `widths`, normalised after all but the last."""
    layers: list[nn.Module] = []
    for into, out in pairwise(widths):
        layers += [nn.Conv2d(into, out, 1), norm(out)]
    return nn.Sequential(*layers[:-1])


def context_net(into: int, hidden: Sequence[int], out: int) -> nn.Sequential:
    """3x3 convolutions with GELU between."""
    layers: list[nn.Module] = []
    for source, target in pairwise((into, *hidden, out)):
        layers += [conv3x3(source, target), nn.GELU()]
    return nn.Sequential(*layers[:-1])


register_models("segpic", SegPIC, {"segpic": {}})
