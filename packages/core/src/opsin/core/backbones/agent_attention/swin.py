"""Agent-Swin: the Swin transformer with agent attention over the whole map in its first stages.

Agent Attention (arXiv 2312.08874) on Swin (arXiv 2103.14030). Image (N, 3, H, W) to maps of strides 4, 8,
16, 32; sides round up. A plan says which blocks have agents: "AAMB2" is agents in stages 1 and 2 and in the
first two blocks of stage 3, windows elsewhere.

What a naive reading gets wrong: an agent block's "window" is the whole map, so it has neither windows nor
shifts nor padding; in the classifier a map that is not larger than a window is one window of the map's
size, without a shift, but the dense form pads and shifts at every size; dense maps have a norm each
(`norm0` …), the classifier one before its mean (`norm`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from opsin.core.backbones.agent_attention.attention import AgentAttention, check_heads
from opsin.core.backbones.agent_attention.block import Block
from opsin.core.backbones.agent_attention.plan import agent_blocks
from opsin.core.backbones.agent_attention.tables import fit_tables, undecayed
from opsin.core.backbones.backbone import Backbone, Classifier, FeatureInfo, Trunk, resolve_arch
from opsin.core.layers.drop_path import drop_path_rates
from opsin.core.layers.patch_embedding import PatchEmbedding
from opsin.core.layers.shifted_windows import attend_in_windows
from opsin.core.layers.stage import Stage
from opsin.core.layers.swin_merging import SwinMerging
from opsin.core.layers.weight_init import init_linear
from opsin.core.layers.window_attention import WindowAttention
from opsin.core.published import Tensors, backbone_of, fit
from opsin.registry import MODELS

Grid = tuple[int, int]
EPS = 1e-5
STAGES = 4


def _arch(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], attn_type: str) -> dict[str, Any]:
    return {
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": num_heads,
        "agent_num": (9, 16, 49, 49),
        "attn_type": attn_type,
    }


ARCHS: dict[str, dict[str, Any]] = {
    "tiny": _arch(96, (2, 2, 6, 2), (3, 6, 12, 24), "AAAB"),
    "small": _arch(96, (2, 2, 18, 2), (3, 6, 12, 24), "AABB"),
    "base": _arch(128, (2, 2, 18, 2), (4, 8, 16, 32), "AAMB2"),
}
# what the authors pool agents to in detection and segmentation, stage by stage
DENSE_AGENTS = ((9, 9), (12, 12), (14, 14), (7, 7))


class ShiftedWindowAttention(WindowAttention):
    """Swin's own attention: softmax inside windows, on tokens of a map.

    Args:
        dim: width C.
        num_heads: heads.
        window_size: side of a window.
        shift_size: by how many rows and columns windows are shifted.
        qkv_bias: whether `qkv` has a bias.
    """

    def __init__(
        self, dim: int, num_heads: int, window_size: int, shift_size: int, *, qkv_bias: bool = True
    ) -> None:
        super().__init__(dim, num_heads, (window_size, window_size), qkv_bias=qkv_bias)
        self.shift = (shift_size, shift_size)

    def attend(self, x: Tensor, size: Grid) -> Tensor:
        """(B, N, C), tokens of a map of `size`, to the same shape."""
        return attend_in_windows(self, x.unflatten(1, size), self.window, self.shift).flatten(1, 2)


class WindowBlock(Block):
    """The block with attention inside windows."""

    attn: ShiftedWindowAttention

    def attend(self, x: Tensor, size: Grid) -> Tensor:
        """The attention of normed tokens (B, N, C)."""
        return self.attn.attend(x, size)


class AgentSwinTrunk(Trunk):
    """What backbone and classifier share: patches and stages."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]

    def build(
        self,
        arch: str | Mapping[str, Any],
        *,
        img_size: int,
        in_channels: int,
        window_size: int | None,
        clamp_windows: bool,
        drop_path_rate: float,
        stages: int = STAGES,
        **block_settings: Any,
    ) -> None:
        """Makes the first `stages` stages; `block_settings` are those of `_block`."""
        settings = resolve_arch("AgentSwin", ARCHS, arch)
        self.depths = tuple(settings["depths"])
        self.dims = tuple(settings["embed_dim"] * 2**stage for stage in range(STAGES))
        plan = agent_blocks(settings["attn_type"], self.depths)
        rates = drop_path_rates(drop_path_rate, self.depths)
        window_size = max(7, img_size // 32) if window_size is None else window_size
        self.patch_embed = PatchEmbedding(in_channels, self.dims[0], 4, pad=True)
        self.layers = nn.ModuleList()
        for stage in range(stages):
            side = img_size // 4 // 2**stage
            is_one_window = clamp_windows and side <= window_size
            window = side if is_one_window else window_size
            blocks = [
                self._block(
                    self.dims[stage],
                    settings["num_heads"][stage],
                    settings["agent_num"][stage] if has_agents else 0,
                    stage=stage,
                    side=side,
                    window_size=window,
                    shift_size=0 if is_one_window or index % 2 == 0 else window // 2,
                    drop_path_rate=rate,
                    **block_settings,
                )
                for index, (has_agents, rate) in enumerate(zip(plan[stage], rates[stage], strict=True))
            ]
            merging = SwinMerging(self.dims[stage]) if stage < stages - 1 else None
            self.layers.append(Stage(blocks, merging))
        self.apply(init_linear)

    @staticmethod
    def _block(
        dim: int,
        num_heads: int,
        agent_num: int,
        *,
        stage: int,
        side: int,
        window_size: int,
        shift_size: int,
        drop_path_rate: float,
        mlp_ratio: float,
        qkv_bias: bool,
        downstream_agent_shapes: Sequence[Grid] | None,
        kernel_size: int,
        scale_exponent: float,
    ) -> Block:
        """A block with agents, or with windows where `agent_num` is 0."""
        check_heads(dim, num_heads)
        if not agent_num:
            windows = ShiftedWindowAttention(dim, num_heads, window_size, shift_size, qkv_bias=qkv_bias)
            return WindowBlock(dim, windows, mlp_ratio=mlp_ratio, drop_path_rate=drop_path_rate, eps=EPS)
        agents = AgentAttention(
            dim,
            num_heads,
            agent_num,
            (side, side),
            qkv_bias=qkv_bias,
            kernel_size=kernel_size,
            agent_shape=downstream_agent_shapes[stage] if downstream_agent_shapes else None,
            scale_exponent=scale_exponent,
        )
        return Block(dim, agents, mlp_ratio=mlp_ratio, drop_path_rate=drop_path_rate, eps=EPS)

    def walk(self, x: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Image (N, 3, H, W) to the tokens (N, h * w, C) of every stage, and the size (h, w) of their map."""
        x = self.patch_embed(x)
        for stage in self.layers.children():
            size = (x.shape[1], x.shape[2])
            tokens = x.flatten(1, 2)
            for block in stage.get_submodule("blocks").children():
                tokens = self.run(block, tokens, size)
            yield tokens, size
            if isinstance(stage, Stage) and stage.downsample is not None:
                x = stage.downsample(tokens.unflatten(1, size))

    def get_layer_depth(self, name: str, prefix: str = "") -> tuple[int, int]:
        """Layer of a parameter and number of layers: the patches, every block, the head.

        A merging goes with the block after it, an output's norm with the block before it.
        """
        name, last = name.removeprefix(prefix), sum(self.depths) + 1
        part = re.match(r"layers\.(\d)\.(blocks\.(\d+)|downsample)", name)
        if part is not None:
            inside = int(part[3]) if part[3] else self.depths[int(part[1])]
            return sum(self.depths[: int(part[1])]) + inside + 1, last + 1
        norm = re.match(r"norm(\d)\.", name)
        if norm is not None:
            return sum(self.depths[: int(norm[1]) + 1]), last + 1
        return 0 if name.startswith("patch_embed.") else last, last + 1

    def no_weight_decay(self) -> set[str]:
        """Bias tables of agents and windows."""
        return undecayed(self)


@MODELS.register_module()
class AgentSwin(AgentSwinTrunk, Backbone):
    """The feature extractor of the authors' detection and segmentation code; each map has a norm of its own.

    Args:
        arch: 'tiny', 'small', 'base', or a mapping with the same keys as an entry of `ARCHS`.
        img_size: side of the images that bias tables are for; they are resized for others.
        in_channels: channels of the image.
        window_size: side of the windows in blocks without agents; None is img_size / 32, at least 7.
        mlp_ratio: hidden width of the perceptrons.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: rate of the last block; it grows linearly from 0 at the first.
        downstream_agent_shapes: rows and columns that every stage pools its agents to, to whose number bias
            tables are resized; None for as many as the tables have.
        kernel_size: side of the convolutions of V.
        scale_exponent: logits are multiplied by the heads' width to this power, in agent attention.
        out_indices: stages that give a map; stages after the last are not built.
        frozen_stages, with_cp, init_cfg: see `Backbone`.

    Raises:
        UserError: for an unknown arch, plan or impossible `out_indices`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        img_size: int = 224,
        in_channels: int = 3,
        window_size: int | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        downstream_agent_shapes: Sequence[Grid] | None = DENSE_AGENTS,
        kernel_size: int = 3,
        scale_exponent: float = -0.5,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            out_indices=out_indices, frozen_stages=frozen_stages, with_cp=with_cp, init_cfg=init_cfg
        )
        self.check_out_indices(STAGES)
        self.build(
            arch,
            img_size=img_size,
            in_channels=in_channels,
            window_size=window_size,
            clamp_windows=False,
            drop_path_rate=drop_path_rate,
            stages=self.out_indices[-1] + 1,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            downstream_agent_shapes=downstream_agent_shapes,
            kernel_size=kernel_size,
            scale_exponent=scale_exponent,
        )
        for index in self.out_indices:
            self.add_module(f"norm{index}", nn.LayerNorm(self.dims[index], eps=EPS))
        self.feature_info = tuple(FeatureInfo(self.dims[i], 4 * 2**i) for i in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the normed maps of `out_indices`."""
        maps = []
        for index, (tokens, size) in enumerate(self.walk(x)):
            if index in self.out_indices:
                tokens = self.get_submodule(f"norm{index}")(tokens)
                maps.append(tokens.transpose(1, 2).unflatten(2, size).contiguous())
        return tuple(maps)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """The patch embedding (0), or stage `stage` with the merging after it and the norm of its map."""
        if stage == 0:
            return [self.patch_embed]
        if stage > len(self.layers):
            return []
        has_norm = stage - 1 in self.out_indices
        return [self.layers[stage - 1]] + ([self.get_submodule(f"norm{stage - 1}")] if has_norm else [])

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a classifier, detector or segmentor to those of this backbone; tables are resized.

        Norms of outputs that the file lacks keep their values.
        """
        own = self.state_dict()
        given = fit_tables(own, backbone_of(tensors))
        built = len(self.layers)
        later = "".join(str(stage) for stage in range(built, STAGES)) or "-"
        unused = rf"^(norm\d?|head)\.|^layers\.([{later}]\.|{built - 1}\.downsample\.)"
        return fit(own, given, fresh=r"^norm\d\.", unused=unused)


@MODELS.register_module()
class AgentSwinClassifier(AgentSwinTrunk, Classifier):
    """The published classifier: four stages, norm, mean of the tokens, linear head.

    Args:
        arch, img_size, in_channels, window_size, mlp_ratio, qkv_bias, drop_path_rate, kernel_size,
            scale_exponent: as for `AgentSwin`; windows that would be larger than the map of an image of
            `img_size` are of the map's size.
        num_classes: logits; 0 for no head.
        downstream_agent_shapes: as for `AgentSwin`; the published classifiers have as many agents as tables.
        with_cp, init_cfg: see `Trunk`.

    Raises:
        UserError: for an unknown arch or plan.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        *,
        num_classes: int = 1000,
        img_size: int = 224,
        in_channels: int = 3,
        window_size: int | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        downstream_agent_shapes: Sequence[Grid] | None = None,
        kernel_size: int = 3,
        scale_exponent: float = -0.5,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(with_cp=with_cp, init_cfg=init_cfg)
        self.build(
            arch,
            img_size=img_size,
            in_channels=in_channels,
            window_size=window_size,
            clamp_windows=True,
            drop_path_rate=drop_path_rate,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            downstream_agent_shapes=downstream_agent_shapes,
            kernel_size=kernel_size,
            scale_exponent=scale_exponent,
        )
        self.num_features = self.dims[-1]
        self.norm = nn.LayerNorm(self.num_features, eps=EPS)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the mean of the last stage's normed tokens (N, num_features)."""
        *_, (tokens, _) = self.walk(x)
        return self.norm(tokens).mean(1)

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file; tables of another image size are resized."""
        return fit_tables(self.state_dict(), tensors)
