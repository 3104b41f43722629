"""NiNformer: A Network in Network Transformer with Token Mixing Generated Gating Function.

arXiv 2403.02411, Neural Computing & Applications 2025; code Abdullah-88/NiNformer, BSD-3-Clause. A classifier
for small pictures whose blocks have, in place of attention, a linear projection of the tokens multiplied by a
gate; the gate is what an MLP-Mixer makes of the same tokens. Letters: B images, N tokens, d width.

N is baked into the weights: a perceptron mixes the tokens of every channel. So an image has one size, and a
place in the sequence its own weights; there is no position table, no class token and no norm at the end.

What a naive reading gets wrong: a block has one norm and uses it twice, with the same scale and shift; both
the projection and the mixer take the normed tokens, so the mixer's residuals are of those; the gate is the
mixer's output as it is, without an activation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.backbones.cases import only_input, only_output
from opsin.core.errors import UserError
from opsin.core.layers.mlp import Mlp
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.models import register_models
from opsin.core.parity import Case, adapter
from opsin.core.published import Tensors, fit, place
from opsin.registry import MODELS

ARCHS: dict[str, dict[str, int]] = {"cifar10": {"embed_dim": 256, "hidden_dim": 512, "depth": 4}}


class Mixer(nn.Module):
    """An MLP-Mixer block: one perceptron over the tokens of every channel, then one over the channels.

    Args:
        tokens: number of tokens N.
        dim: width d.
        hidden_dim: hidden width of both perceptrons.
        drop: dropout rate in both.
    """

    def __init__(self, tokens: int, dim: int, hidden_dim: int, drop: float = 0.0) -> None:
        super().__init__()
        self.tokens = tokens
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token_mlp = Mlp(tokens, hidden_dim, drop=drop)
        self.channel_mlp = Mlp(dim, hidden_dim, drop=drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) to the same shape.

        Raises:
            UserError: for another number of tokens.
        """
        if x.shape[1] != self.tokens:
            raise UserError(f"a mixer of {self.tokens} tokens was given {x.shape[1]}")
        x = x + self.token_mlp(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mlp(self.norm2(x))


class GatingUnit(nn.Module):
    """A linear projection times the mixer's output; the arguments are those of `Mixer`."""

    def __init__(self, tokens: int, dim: int, hidden_dim: int, drop: float = 0.0) -> None:
        super().__init__()
        self.mixer = Mixer(tokens, dim, hidden_dim, drop)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) to the same shape."""
        return self.proj(x) * self.mixer(x)


@MODELS.register_module()
class NiNBlock(nn.Module):
    """A block that takes the place of a transformer's: gating unit, then perceptron, each with a residual.

    Args:
        tokens: number of tokens N.
        dim: width d.
        hidden_dim: hidden width of the block's perceptron and of the mixer's two.
        drop: dropout rate of all three.
    """

    def __init__(self, tokens: int, dim: int, hidden_dim: int, drop: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.gate = GatingUnit(tokens, dim, hidden_dim, drop)
        self.mlp = Mlp(dim, hidden_dim, drop=drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) to the same shape."""
        x = x + self.gate(self.norm(x))
        return x + self.mlp(self.norm(x))


class NiNformerTrunk(Trunk):
    """What the classifier and the backbone share: patches and blocks."""

    def build(
        self, arch: Mapping[str, Any], img_size: int, patch_size: int, in_channels: int, drop_rate: float
    ) -> None:
        """Makes the patch embedding and all blocks."""
        self.img_size, self.side = img_size, img_size // patch_size
        self.embed_dim, self.depth = arch["embed_dim"], arch["depth"]
        if self.side < 1:
            raise UserError(f"an image of {img_size} pixels has no patch of {patch_size}")
        self.patch_embed = PatchEmbedding(in_channels, self.embed_dim, patch_size, norm=False)
        self.blocks = nn.ModuleList(
            NiNBlock(self.side**2, self.embed_dim, arch["hidden_dim"], drop_rate) for _ in range(self.depth)
        )

    def embed(self, x: Tensor) -> Tensor:
        """Image (B, 3, H, W) to tokens (B, N, d), row by row.

        Raises:
            UserError: for an image of another size.
        """
        side, (height, width) = self.img_size, x.shape[2:]
        if (height, width) != (side, side):
            raise UserError(
                f"NiNformer is built for {side} x {side} pixels and was given {height} x {width}",
                "its token mixer has weights for every patch; resize the image or set img_size",
            )
        return self.patch_embed(x).flatten(1, 2)

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer 0: patches; block i: i + 1; the head: the last."""
        part, _, rest = name.removeprefix(prefix).partition(".")
        if part == "blocks":
            return int(rest.split(".")[0]) + 1, self.depth + 2
        return 0 if part == "patch_embed" else self.depth + 1, self.depth + 2


@MODELS.register_module()
class NiNformer(NiNformerTrunk, Backbone):
    """Tokens of some blocks as maps, all of the patches' stride, for images of one size: an extension.

    Args:
        arch: 'cifar10', or dict(embed_dim=…, hidden_dim=…, depth=…).
        img_size: side in pixels of the images, the only one that is taken.
        patch_size: side of a patch in pixels.
        in_channels: channels of the image.
        drop_rate: dropout in all perceptrons.
        out_indices: blocks that give a map, ascending; None is the last. Blocks after it are not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`; a stage is a block.

    Raises:
        UserError: for an unknown `arch`, or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "cifar10",
        *,
        img_size: int = 32,
        patch_size: int = 4,
        in_channels: int = 3,
        drop_rate: float = 0.5,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        chosen = resolve_arch("NiNformer", ARCHS, arch)
        super().__init__(
            out_indices=(chosen["depth"] - 1,) if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.check_out_indices(chosen["depth"])
        self.build(chosen, img_size, patch_size, in_channels, drop_rate)
        self.blocks = self.blocks[: self.out_indices[-1] + 1]
        self.feature_info = (FeatureInfo(self.embed_dim, patch_size),) * len(self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) of `img_size` to maps (B, d, side, side) of the blocks in `out_indices`."""
        x, maps = self.embed(x), []
        for index, block in enumerate(self.blocks):
            x = self.run(block, x)
            if index in self.out_indices:
                maps.append(x.transpose(1, 2).unflatten(2, (self.side, self.side)).contiguous())
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0) or a block (from 1)."""
        if stage == 0:
            return [self.patch_embed]
        return [self.blocks[stage - 1]] if stage <= len(self.blocks) else []

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier's file to those of this backbone; head and later blocks are dropped."""
        beyond = "|".join(str(index) for index in range(len(self.blocks), self.depth)) or "-"
        return fit(self.state_dict(), _own_names(tensors), unused=rf"^(head|blocks\.({beyond}))\.")


@MODELS.register_module()
class NiNformerClassifier(NiNformerTrunk, Classifier):
    """The published classifier: the mean of all tokens and a linear head.

    Args:
        arch, img_size, patch_size, in_channels, drop_rate: as for `NiNformer`.
        num_classes: logits; 0 for no head.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown `arch`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "cifar10",
        *,
        num_classes: int = 10,
        img_size: int = 32,
        patch_size: int = 4,
        in_channels: int = 3,
        drop_rate: float = 0.5,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.build(resolve_arch("NiNformer", ARCHS, arch), img_size, patch_size, in_channels, drop_rate)
        self.num_features = self.embed_dim
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the head by one with PyTorch's initial weights, which all of this network has."""
        super().reset_classifier(num_classes)
        if isinstance(self.head, nn.Linear):
            self.head.reset_parameters()

    def forward_tokens(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) of `img_size` to the tokens (B, N, d) after the last block."""
        x = self.embed(x)
        for block in self.blocks:
            x = self.run(block, x)
        return x

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) of `img_size` to the mean token (B, d)."""
        return self.forward_tokens(x).mean(1)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' classifier to those of this one."""
        return _own_names(tensors)


# The authors' names of the same tensors
_RENAMES = (
    (r"^patcher\.", r"patch_embed.proj."),
    (r"^classifier\.", r"head."),
    (r"^model\.(\d+)\.", r"blocks.\1."),
    (r"\bmgu\.", r"gate."),
    (r"\bMixer\.", r"mixer."),
    (r"\btoken_mix\.0\.", r"norm1."),
    (r"\bchannel_mix\.0\.", r"norm2."),
    (r"\b(token|channel)_mix\.\d\.net\.", r"\1_mlp.net."),
    (r"\bffn\.net\.", r"mlp.net."),
    (r"\bnet\.0\.", r"fc1."),
    (r"\bnet\.3\.", r"fc2."),
)


def _own_names(tensors: Tensors) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


register_models(
    "ninformer",
    NiNformerClassifier,
    {
        "ninformer_cifar10": {"arch": "cifar10"},
        "ninformer_mnist": {"arch": "cifar10", "img_size": 28, "in_channels": 1},
    },
    backbone=NiNformer,
)


# Parity. Numbers of the authors' parts, whatever they are built with, are read off the shapes.


def _sizes(case: Case) -> dict[str, int]:
    """Tokens, width and hidden width of the case's mixers."""
    names = {re.sub(r"^model\.\d+\.", "", name): shape for name, shape in case.shapes.items()}
    (hidden, tokens), (_, dim) = (
        next(shape for name, shape in names.items() if re.search(rf"{kind}_mix\.\d\.net\.0\.weight$", name))
        for kind in ("token", "channel")
    )
    return {"tokens": tokens, "dim": dim, "hidden_dim": hidden}


def _placed(module: nn.Module, case: Case) -> nn.Module:
    place(module.eval(), _own_names(case.state_dict()))
    return module


@adapter("ninformer", r"NiNformerImageClassification")
@torch.no_grad()
def _run_classifier(case: Case) -> dict[str, Tensor]:
    shapes, sizes = case.shapes, _sizes(case)
    dim, in_channels, patch, _ = shapes["patcher.weight"]
    model = NiNformerClassifier(
        {
            "embed_dim": dim,
            "hidden_dim": sizes["hidden_dim"],
            "depth": len({name.split(".")[1] for name in shapes if name.startswith("model.")}),
        },
        num_classes=shapes["classifier.bias"][0],
        img_size=case.built_with.get("image_size", 32),
        patch_size=patch,
        in_channels=in_channels,
    )
    _placed(model, case)
    tokens = model.forward_tokens(only_input(case))
    features = tokens.mean(1)
    return {"tokens": tokens, "features": features, "logits": model.forward_head(features)}


@adapter("ninformer", r"\.py NiNformer\b")
@torch.no_grad()
def _run_blocks(case: Case) -> dict[str, Tensor]:
    depth = len({name.split(".")[1] for name in case.shapes})
    blocks = nn.ModuleDict({"blocks": nn.Sequential(*(NiNBlock(**_sizes(case)) for _ in range(depth)))})
    _placed(blocks, case)
    return only_output(case, blocks["blocks"](only_input(case)))


@adapter("ninformer", r"\.py NiNBlock")
@torch.no_grad()
def _run_block(case: Case) -> dict[str, Tensor]:
    """The block, and what its mixer (`gate`) makes of the input as it is."""
    block, x = NiNBlock(**_sizes(case)), only_input(case)
    _placed(block, case)
    return only_output(case, block(x)) | {"gate": block.gate.mixer(x)}


@adapter("ninformer", r"\.py Mixer(Block|GatingUnit)")
@torch.no_grad()
def _run_mixer(case: Case) -> dict[str, Tensor]:
    sizes = _sizes(case)
    mixer = Mixer(**sizes)
    # the class alone may have another width over the channels than over the tokens
    hidden = next(
        shape[0] for name, shape in case.shapes.items() if name.endswith("channel_mix.1.net.0.weight")
    )
    mixer.channel_mlp = Mlp(sizes["dim"], hidden)
    layer: nn.Module = mixer
    if "GatingUnit" in case.source:
        layer = GatingUnit(**sizes)
        layer.mixer = mixer
    _placed(layer, case)
    return only_output(case, layer(only_input(case)))


@adapter("ninformer", r"\.py FeedForward")
@torch.no_grad()
def _run_perceptron(case: Case) -> dict[str, Tensor]:
    hidden, dim = case.shapes["net.0.weight"]
    layer = _placed(Mlp(dim, hidden), case)
    return only_output(case, layer(only_input(case)))
