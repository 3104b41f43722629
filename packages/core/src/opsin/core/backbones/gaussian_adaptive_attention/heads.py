"""Light heads on the layers of a frozen encoder: the Gaussian adaptive transformer (GAT) and its rivals.

Features (B, L, F) of L layers, or (B, L, T, F) over time, whose mean is taken first, to logits. Layers are
weighed or mixed, each becomes a map, and two 3x3 convolutions and a linear layer classify (arXiv 2401.11143).

What a naive reading gets wrong: `MHAHead` attends between the samples of a batch, layer by layer, because its
attention expects the sequence first, so that a prediction depends on its batch (published; `batch_first` is
the sane way). Two of the published heads can't run as they stand. Chosen: the batch norm of `MHAHead` stands
after the reshape to maps, and `GroupedQueryHead` makes maps of 8x64.
"""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor, nn

from opsin.core.backbones.gaussian_adaptive_attention.grouped_query import GroupedQueryAttention
from opsin.core.backbones.gaussian_adaptive_attention.layer_attention import DensityAdaptiveHeads
from opsin.core.errors import UserError
from opsin.core.models import register_models
from opsin.core.published import Tensors
from opsin.registry import MODELS

Grid = tuple[int, int]
SYSTEM = "gaussian-adaptive-attention"


def _square(features: int) -> Grid:
    """The grid of a map of so many features if none is given.

    Raises:
        UserError: if they make no square.
    """
    side = math.isqrt(features)
    if side * side != features:
        raise UserError(f"{features} features make no square map", "set map_size")
    return side, side


class LayerHead(nn.Module):
    """Two convolutions over maps of the layers and a linear layer: `conv1`, `conv2`, `fc`.

    Args:
        num_layers: maps L.
        feature_size: features F of each.
        num_classes: logits; 0 for none.
        map_size: rows and columns of a map, F in all; None for a square.
        hidden_dim: channels between the convolutions.

    Raises:
        UserError: if F is no map of `map_size`.
    """

    fc: nn.Module

    def __init__(
        self,
        num_layers: int,
        feature_size: int,
        *,
        num_classes: int,
        map_size: Grid | None,
        hidden_dim: int,
    ) -> None:
        super().__init__()
        self.map_size = _square(feature_size) if map_size is None else (map_size[0], map_size[1])
        if math.prod(self.map_size) != feature_size:
            raise UserError(f"{feature_size} features are no map of {self.map_size[0]} x {self.map_size[1]}")
        self.num_features = num_layers * feature_size
        self.conv1 = nn.Conv2d(num_layers, hidden_dim, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden_dim, num_layers, 3, padding=1)
        self.act = nn.ReLU()
        for conv in (self.conv1, self.conv2):
            nn.init.xavier_uniform_(conv.weight)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces `fc` by a freshly initialised one for `num_classes` classes (0: none)."""
        self.num_classes = num_classes
        if not num_classes:
            self.fc = nn.Identity()
            return
        fc = nn.Linear(self.num_features, num_classes)
        nn.init.xavier_uniform_(fc.weight)
        self.fc = fc

    def mix(self, x: Tensor) -> Tensor:
        """The encoder's features (B, L, F) to those that become maps."""
        raise NotImplementedError

    def embed(self, x: Tensor) -> Tensor:
        """(B, L, F) or (B, L, T, F) to the vector (B, num_features) that `fc` reads."""
        maps = self.mix(x.mean(2) if x.ndim == 4 else x).unflatten(2, self.map_size)
        return self.act(self.conv2(self.act(self.conv1(self._norm(maps))))).flatten(1)

    def _norm(self, maps: Tensor) -> Tensor:
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, F) or (B, L, T, F) to logits (B, num_classes)."""
        return self.fc(self.embed(x))


def _daams(name: str) -> str:
    """A published name of heads under the one that most of the authors' files use."""
    return re.sub(r"^(daam|gct)\.(gcts|daams)\.", "daam.daams.", name)


@MODELS.register_module()
class GATHead(LayerHead):
    """The Gaussian adaptive transformer: layers weighed by `daam`.

    Args:
        num_layers: the encoder's layers L.
        feature_size: features F of a layer.
        num_classes: logits; 0 for none.
        num_heads: groups of layers with a density of their own; divides L.
        map_size: rows and columns of the map that F features become; None for a square.
        hidden_dim: channels between the convolutions.

    Raises:
        UserError: if heads or map don't fit.
    """

    def __init__(
        self,
        num_layers: int = 24,
        feature_size: int = 1024,
        *,
        num_classes: int = 100,
        num_heads: int = 8,
        map_size: Grid | None = None,
        hidden_dim: int = 512,
    ) -> None:
        super().__init__(
            num_layers, feature_size, num_classes=num_classes, map_size=map_size, hidden_dim=hidden_dim
        )
        self.daam = DensityAdaptiveHeads(num_layers, feature_size, num_heads)

    def mix(self, x: Tensor) -> Tensor:
        """(B, L, F) to the weighed features of the same shape."""
        return self.daam(x)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of any of the authors' files of this head to those of this one."""
        return {_daams(name): tensor for name, tensor in tensors.items()}


@MODELS.register_module()
class GroupedQueryHead(LayerHead):
    """GQ-DAAM: layers weighed by `daam`, narrowed by `embed_transform`, mixed by `gqa`.

    Args:
        num_layers, feature_size, num_classes, num_heads, hidden_dim: as for `GATHead`.
        embed_dim: width after narrowing.
        query_heads, kv_heads: see `GroupedQueryAttention`.
        map_size: rows and columns of the map that `embed_dim` features become.

    Raises:
        UserError: if heads or map don't fit.
    """

    def __init__(
        self,
        num_layers: int = 24,
        feature_size: int = 1024,
        *,
        num_classes: int = 100,
        num_heads: int = 8,
        embed_dim: int = 512,
        query_heads: int = 8,
        kv_heads: int = 2,
        map_size: Grid = (8, 64),
        hidden_dim: int = 512,
    ) -> None:
        super().__init__(
            num_layers, embed_dim, num_classes=num_classes, map_size=map_size, hidden_dim=hidden_dim
        )
        self.daam = DensityAdaptiveHeads(num_layers, feature_size, num_heads)
        self.embed_transform = nn.Linear(feature_size, embed_dim)
        self.gqa = GroupedQueryAttention(embed_dim, query_heads, kv_heads)

    def mix(self, x: Tensor) -> Tensor:
        """(B, L, F) to (B, L, embed_dim)."""
        return self.gqa(self.embed_transform(self.daam(x)))

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of any of the authors' files of this head to those of this one."""
        return {_daams(name): tensor for name, tensor in tensors.items()}


@MODELS.register_module()
class MHAHead(LayerHead):
    """The multi-head attention that the paper compares with, `mha`.

    Args:
        num_layers, feature_size, num_classes, map_size, hidden_dim: as for `GATHead`.
        num_heads: heads; divides `feature_size`.
        layer: the one layer that is read, counted from 0 (22 in the speech experiment); None for all.
        batch_norm: whether a batch norm of the maps comes before the convolutions, `batch_norm`.
        batch_first: whether layers attend to each other; as published, samples of the batch do.

    Raises:
        UserError: if heads, map or layer don't fit.
    """

    def __init__(
        self,
        num_layers: int = 24,
        feature_size: int = 1024,
        *,
        num_classes: int = 100,
        num_heads: int = 8,
        layer: int | None = None,
        batch_norm: bool = False,
        batch_first: bool = False,
        map_size: Grid | None = None,
        hidden_dim: int = 512,
    ) -> None:
        if layer is not None and not 0 <= layer < num_layers:
            raise UserError(f"layer {layer} of MHAHead must be in 0..{num_layers - 1}")
        if num_heads < 1 or feature_size % num_heads:
            raise UserError(f"{num_heads} heads do not divide {feature_size} features")
        maps = num_layers if layer is None else 1
        super().__init__(
            maps, feature_size, num_classes=num_classes, map_size=map_size, hidden_dim=hidden_dim
        )
        self.layer = layer
        self.mha = nn.MultiheadAttention(feature_size, num_heads, batch_first=batch_first)
        self.has_norm = batch_norm
        if batch_norm:
            self.batch_norm = nn.BatchNorm2d(maps)

    def mix(self, x: Tensor) -> Tensor:
        """(B, L, F) to the same shape, or (B, 1, F) of one layer."""
        x = x if self.layer is None else x[:, self.layer : self.layer + 1]
        mixed: Tensor = self.mha(x, x, x, need_weights=False)[0]
        return mixed

    def _norm(self, maps: Tensor) -> Tensor:
        return self.batch_norm(maps) if self.has_norm else maps

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of any of the authors' files of this head to those of this one."""
        return {re.sub(r"^gct\.", "mha.", name): tensor for name, tensor in tensors.items()}


_EXPERIMENTS: dict[str, dict[str, Any]] = {
    "images": {"num_layers": 24, "feature_size": 1024, "num_classes": 100},
    "speech": {"num_layers": 24, "feature_size": 1024, "num_classes": 4},
    "text": {"num_layers": 40, "feature_size": 5120, "num_classes": 4, "map_size": (64, 80)},
}
register_models(
    SYSTEM,
    GATHead,
    {
        f"gat_{name}_{version}": {**settings, "num_heads": heads}
        for name, settings in _EXPERIMENTS.items()
        for version, heads in (("v1", 8), ("v2", 1))
    },
)
register_models(
    SYSTEM,
    MHAHead,
    {
        f"mha_{kind}{name}": {**settings, **changes}
        for name, settings in _EXPERIMENTS.items()
        for kind, changes in (
            ("", {"layer": 22} if name == "speech" else {}),
            ("bn_", {"batch_norm": True}),
        )
    },
)
register_models(
    SYSTEM,
    GroupedQueryHead,
    {
        f"gq_daam_{name}": {
            **settings,
            "num_heads": 1 if name == "images" else 8,
            "map_size": (64, 8) if name == "text" else (8, 64),
        }
        for name, settings in _EXPERIMENTS.items()
    },
)
