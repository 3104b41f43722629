"""AgentSD: faster Stable Diffusion without training, by token merging and agent attention.

Agent Attention (arXiv 2312.08874), section on generation. A patch of the transformer blocks of a latent
diffusion UNet, whatever class they are of: they need LDM's parts `attn1` (with `to_q`, `to_k`, `to_v`,
`to_out`, `heads`, `scale`), `attn2`, `ff`, `norm1`, `norm2`, `norm3`. The UNet is called with latents (B,
C, h, w) first.

In every patched block like tokens are merged before self-attention and copied back after it. In early steps
self-attention goes through agents besides, which are tokens merged far more strongly:

    A   = W_q(merged normed tokens)
    out = softmax(s^k_scale2 Q A^T) softmax(s A K^T) V + k_shortcut V

What a naive reading gets wrong: likeness is judged on the block's raw input, but what is merged is its
norm; one matching serves both merges; agents are used only where they are fewer than half of the kept
tokens; the second step's scale is the first's to the power 0.3.

    with AgentSD(unet) as agents:
        for step in range(50):
            agents.begin_step(step, 50)
            …
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.agent_attention.token_merging import Grid, Matching, match
from opsin.core.errors import UserError

PARTS = ("attn1", "attn2", "ff", "norm1", "norm2", "norm3")


@dataclass(frozen=True)
class AgentSDSettings:
    """How strongly tokens are merged, and where.

    Attributes:
        sx, sy: columns and rows of a cell, of which one token is a destination.
        ratio: part of the tokens that is merged away, in [0, 1); 0 changes nothing at all.
        agent_ratio: the same for agents.
        use_rand: whether destinations are drawn; not in batches of odd size, where guided and free halves
            would not match.
        merge_attn, merge_crossattn, merge_mlp: which parts of a block see merged tokens.
        max_downsample: blocks up to this factor below the latent's resolution are changed.
        k_scale2: power of the scale in the second step.
        k_shortcut: factor of the values that are added.
    """

    sx: int = 4
    sy: int = 4
    ratio: float = 0.4
    agent_ratio: float = 0.95
    use_rand: bool = True
    merge_attn: bool = True
    merge_crossattn: bool = False
    merge_mlp: bool = False
    max_downsample: int = 1
    k_scale2: float = 0.3
    k_shortcut: float = 0.075

    def __post_init__(self) -> None:
        if not (0 <= self.ratio < 1 and 0 <= self.agent_ratio < 1):
            raise UserError(f"ratio {self.ratio} and agent_ratio {self.agent_ratio} must be in [0, 1)")
        if min(self.sx, self.sy, self.max_downsample) < 1:
            raise UserError("sx, sy and max_downsample of AgentSD must be at least 1")


EARLY = AgentSDSettings()
LATE = AgentSDSettings(sx=2, sy=2, agent_ratio=0.5)  # agents are too many to be used: merging alone
EARLY_PART = 0.4  # steps 0 to 19 of 50


def agent_self_attention(attn: Any, x: Tensor, agents: Tensor, k_scale2: float, k_shortcut: float) -> Tensor:
    """LDM's self-attention `attn` of tokens (B, N, C), through agents (B, n, C)."""
    q, k, v, a = (
        tokens.unflatten(2, (attn.heads, -1)).transpose(1, 2)
        for tokens in (attn.to_q(x), attn.to_k(x), attn.to_v(x), attn.to_q(agents))
    )
    gathered = F.scaled_dot_product_attention(a, k, v, scale=attn.scale)
    out = F.scaled_dot_product_attention(q, a, gathered, scale=attn.scale**k_scale2) + k_shortcut * v
    return attn.to_out(out.transpose(1, 2).flatten(2))


class AgentSD:
    """A UNet's patch: from construction until `remove`; as a context manager it removes itself.

    Args:
        unet: the diffusion model, or a module that holds one as `diffusion_model` or `model`.
        early: settings of the first steps, and before any step has begun.
        late: settings of the others.
        generator: of drawn destinations, on the CPU; torch's global one if None.

    Raises:
        UserError: if the model has no LDM transformer block, or is patched already.
    """

    def __init__(
        self,
        unet: nn.Module,
        early: AgentSDSettings = EARLY,
        late: AgentSDSettings = LATE,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        unet = _diffusion_model(unet)
        self.blocks = list(_blocks(unet))
        if not self.blocks:
            raise UserError(f"{type(unet).__name__} has no transformer block with {', '.join(PARTS)}")
        if any("forward" in vars(block) for block in self.blocks):
            raise UserError(f"the blocks of {type(unet).__name__} are patched already", "remove that first")
        self.early, self.late, self.settings, self.generator = early, late, early, generator
        self.latent: Grid | None = None
        self._watch = unet.register_forward_pre_hook(self._see_latent, with_kwargs=True)
        for block in self.blocks:
            # an attribute of the instance hides the class's forward; the class itself stays as it is
            vars(block)["forward"] = partial(self._run, block)

    def begin_step(self, step: int, steps: int = 50) -> None:
        """Takes the settings of `step` (from 0) of `steps`: early ones for the first 40 %."""
        self.settings = self.early if step < EARLY_PART * steps else self.late

    def remove(self) -> None:
        """Gives the blocks their own forward back; more than once does no harm."""
        self._watch.remove()
        for block in self.blocks:
            vars(block).pop("forward", None)
        self.blocks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _see_latent(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remembers the size of the latents that the UNet is called with."""
        latents = args[0] if args else next(iter(kwargs.values()))
        self.latent = (latents.shape[2], latents.shape[3])

    def _run(self, block: Any, x: Tensor, context: Tensor | None = None) -> Tensor:
        """A block's forward on tokens (B, N, C)."""
        settings = self.settings
        count = int(x.shape[1] * settings.ratio)
        matching = self._match(x) if count else None
        if matching is None:
            return type(block).forward(block, x, context)

        def around(change: Callable[[Tensor], Tensor], x: Tensor, *, merging: bool) -> Tensor:
            return matching.unmerge(change(matching.merge(x, count)), count) if merging else change(x)

        normed = block.norm1(x)
        attend = partial(self._self_attention, block, context, self._agents(matching, normed, count))
        x = x + around(attend, normed, merging=settings.merge_attn)
        attend = partial(block.attn2, context=context)
        x = x + around(attend, block.norm2(x), merging=settings.merge_crossattn)
        return x + around(block.ff, block.norm3(x), merging=settings.merge_mlp)

    def _self_attention(self, block: Any, context: Tensor | None, agents: Tensor | None, x: Tensor) -> Tensor:
        """The block's first attention, of normed tokens (B, N, C); plain without agents."""
        if getattr(block, "disable_self_attn", False):  # LDM's switch: the first one attends to text as well
            return block.attn1(x, context=context)
        if agents is None:
            return block.attn1(x)
        return agent_self_attention(block.attn1, x, agents, self.settings.k_scale2, self.settings.k_shortcut)

    def _match(self, x: Tensor) -> Matching | None:
        """The matching of a block's raw input, or None below the resolution that is changed."""
        if self.latent is None:
            raise UserError("a patched block ran outside its UNet", "call the UNet that AgentSD was given")
        settings, (height, width) = self.settings, self.latent
        downsample = math.ceil(math.sqrt(height * width // x.shape[1]))
        if downsample > settings.max_downsample:
            return None
        size = (math.ceil(height / downsample), math.ceil(width / downsample))
        use_rand = settings.use_rand and len(x) % 2 == 0
        return match(x, size, (settings.sy, settings.sx), use_rand=use_rand, generator=self.generator)

    def _agents(self, matching: Matching, normed: Tensor, count: int) -> Tensor | None:
        """Agents (B, n, C), or None unless they are fewer than half of the tokens that stay."""
        tokens, settings = normed.shape[1], self.settings
        gone = matching.merged(int(tokens * settings.agent_ratio))
        stay = tokens - matching.merged(count)
        if not settings.merge_attn or 2 * (tokens - gone) >= stay:
            return None
        return matching.merge(normed, gone)


def _diffusion_model(model: nn.Module) -> nn.Module:
    """The UNet, which LDM's wrappers hold as `model.diffusion_model`."""
    for path in ("model.diffusion_model", "diffusion_model"):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    return model


def _blocks(unet: nn.Module) -> Iterator[nn.Module]:
    """The transformer blocks of a UNet, known by the names of their parts."""
    for module in unet.modules():
        if all(hasattr(module, part) for part in PARTS):
            yield module
