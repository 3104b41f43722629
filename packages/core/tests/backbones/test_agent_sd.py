"""AgentSD on a toy latent diffusion UNet whose blocks have LDM's names."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.backbones.agent_attention import AgentSD, AgentSDSettings
from opsin.core.backbones.agent_attention.agent_sd import EARLY, LATE, agent_self_attention
from opsin.core.backbones.agent_attention.ldm_block import BasicTransformerBlock, CrossAttention
from opsin.core.backbones.agent_attention.token_merging import match
from opsin.core.errors import UserError

STILL = AgentSDSettings(use_rand=False)


class SpatialTransformer(nn.Module):
    """A map through a transformer block."""

    def __init__(self, dim: int, context_dim: int) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(dim, 2, dim // 2, context_dim)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context=context)
        return x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class ToyUNet(nn.Module):
    """Two blocks at the latent's resolution and one at half of it."""

    def __init__(self, dim: int = 16, context_dim: int = 12) -> None:
        super().__init__()
        self.input_blocks = nn.ModuleList(
            [nn.Conv2d(4, dim, 3, padding=1), SpatialTransformer(dim, context_dim)]
        )
        self.down = nn.Conv2d(dim, dim, 3, 2, 1)
        self.middle_block = SpatialTransformer(dim, context_dim)
        self.output_blocks = nn.ModuleList([SpatialTransformer(dim, context_dim)])
        self.out = nn.Conv2d(dim, 4, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        x = self.input_blocks[0](x) * (1 + timesteps[:, None, None, None] / 1000)
        x = self.input_blocks[1](x, context)
        low = self.middle_block(self.down(x), context)
        x = self.output_blocks[0](x + F.interpolate(low, size=x.shape[2:]), context)
        return self.out(x)


class LatentDiffusion(nn.Module):
    """LDM's wrappers around the UNet."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.diffusion_model = ToyUNet()

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return self.model.diffusion_model(x, timesteps, context=context)


@pytest.fixture
def unet() -> LatentDiffusion:
    torch.manual_seed(0)
    return LatentDiffusion().eval().requires_grad_(False)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 4, 16, 16), torch.tensor([500.0, 500.0]), torch.randn(2, 5, 12)


def test_patching_changes_the_output_and_removing_restores_it_exactly(unet, inputs):
    before = unet(*inputs)
    patch = AgentSD(unet, STILL)
    assert not torch.equal(unet(*inputs), before)
    patch.remove()
    patch.remove()
    assert torch.equal(unet(*inputs), before)
    assert not any("forward" in vars(module) for module in unet.modules())
    assert not any(module._forward_pre_hooks for module in unet.modules())


def test_other_models_of_the_same_classes_are_not_touched(unet, inputs):
    other = LatentDiffusion().eval()
    before = other(*inputs)
    with AgentSD(unet):
        assert torch.equal(other(*inputs), before)


def test_leaving_the_context_by_an_error_removes_the_patch(unet, inputs):
    before = unet(*inputs)
    with pytest.raises(RuntimeError), AgentSD(unet):
        raise RuntimeError
    assert torch.equal(unet(*inputs), before)


def test_ratio_zero_changes_nothing(unet, inputs):
    before = unet(*inputs)
    with AgentSD(unet, AgentSDSettings(ratio=0.0)):
        assert torch.equal(unet(*inputs), before)


def tokens_seen(
    unet: nn.Module, inputs: tuple[Tensor, ...], settings: AgentSDSettings
) -> dict[str, list[int]]:
    """Tokens that the first layer of each attention and of the feed-forward network of blocks gets."""
    seen: dict[str, list[int]] = {"attn1.to_k": [], "attn1.to_q": [], "attn2.to_q": [], "ff": []}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, part=part: seen[part].append(args[0].shape[1]))
        for name, module in unet.named_modules()
        for part in seen
        if name.endswith(f".{part}")
    ]
    with AgentSD(unet, settings):
        unet(*inputs)
    for hook in hooks:
        hook.remove()
    return seen


def test_full_resolution_self_attention_gets_kept_tokens_and_agents(unet, inputs):
    kept = 256 - int(256 * 0.4)
    seen = tokens_seen(unet, inputs, STILL)
    assert seen["attn1.to_k"] == [kept, 64, kept]  # the block at half the resolution stays as it is
    assert sorted(seen["attn1.to_q"]) == [16, 16, 64, kept, kept]
    assert seen["attn2.to_q"] == seen["ff"] == [256, 64, 256]


def test_late_steps_only_merge(unet, inputs):
    kept = 256 - int(256 * 0.4)
    assert tokens_seen(unet, inputs, LATE)["attn1.to_q"] == [kept, 64, kept]


def test_other_parts_and_resolutions_can_be_merged_too(unet, inputs):
    settings = AgentSDSettings(
        use_rand=False, merge_attn=False, merge_crossattn=True, merge_mlp=True, max_downsample=2
    )
    seen = tokens_seen(unet, inputs, settings)
    assert seen["attn1.to_q"] == [256, 64, 256]
    kept = [256 - int(256 * 0.4), 64 - int(64 * 0.4), 256 - int(256 * 0.4)]
    assert seen["attn2.to_q"] == seen["ff"] == kept


def test_fifty_steps_of_two_phases_stay_near_the_unpatched_ones(unet):
    torch.manual_seed(2)
    noise, context = torch.randn(2, 4, 16, 16), torch.randn(2, 5, 12)
    phases = []

    def sample(patch: AgentSD | None) -> Tensor:
        x = noise
        for step in range(50):
            if patch is not None:
                patch.begin_step(step, 50)
                phases.append(patch.settings)
            x = x - 0.02 * unet(x, torch.full((2,), 1000.0 - 20 * step), context)
        return x

    exact = sample(None)
    with AgentSD(unet) as patch:
        fast = sample(patch)
    assert phases == [EARLY] * 20 + [LATE] * 30
    assert 0 < (fast - exact).norm() < 0.2 * (exact - noise).norm()


def test_drawn_destinations_follow_the_generator_and_odd_batches_draw_none(unet, inputs):
    def run(seed: int, *inputs: Tensor) -> Tensor:
        with AgentSD(unet, generator=torch.Generator().manual_seed(seed)):
            return unet(*inputs)

    assert torch.equal(run(1, *inputs), run(1, *inputs))
    assert not torch.equal(run(1, *inputs), run(2, *inputs))
    alone = [t[:1] for t in inputs]
    assert torch.equal(run(1, *alone), run(2, *alone))


def test_blocks_that_attend_to_text_first_keep_doing_so(unet, inputs):
    block = unet.model.diffusion_model.output_blocks[0].transformer_blocks[0]
    block.attn1, block.disable_self_attn = CrossAttention(16, 12, 2, 8), True
    seen = tokens_seen(unet, inputs, STILL)
    assert seen["attn1.to_k"] == [154, 64, 5]


@torch.no_grad()
def test_agent_self_attention_is_the_weakened_second_step_and_a_shortcut():
    attn = CrossAttention(8, None, 2, 4)
    x, agents = torch.randn(1, 20, 8), torch.randn(1, 3, 8)
    q, k, v, a = (
        t.unflatten(2, (2, 4)).transpose(1, 2)
        for t in (attn.to_q(x), attn.to_k(x), attn.to_v(x), attn.to_q(agents))
    )
    gathered = (0.5 * a @ k.transpose(2, 3)).softmax(-1) @ v
    out = (0.5**0.3 * q @ a.transpose(2, 3)).softmax(-1) @ gathered + 0.075 * v
    want = attn.to_out(out.transpose(1, 2).flatten(2))
    torch.testing.assert_close(agent_self_attention(attn, x, agents, 0.3, 0.075), want)


# Merging


@pytest.mark.parametrize("count", [0, 1, 40, 1000])
def test_unmerging_gives_every_token_its_own_or_its_destinations_value(count):
    torch.manual_seed(0)
    x = torch.randn(2, 7 * 9, 5)
    matching = match(x, (7, 9), (2, 3))
    assert len(matching.destinations) == 9 and len(matching.sources) == 54
    merged = matching.merge(x, count)
    assert merged.shape == (2, 63 - min(count, 54), 5)
    back = matching.unmerge(merged, count)
    assert back.shape == x.shape
    gone = min(count, 54)
    for image in range(2):
        sources = matching.sources[matching.order[image]]
        targets = matching.destinations[matching.target[image]]
        assert torch.equal(back[image, sources[gone:]], x[image, sources[gone:]])
        assert torch.equal(back[image, sources[:gone]], back[image, targets[:gone]])
        for destination in matching.destinations:
            group = torch.cat((destination[None], sources[:gone][targets[:gone] == destination]))
            torch.testing.assert_close(back[image, destination], x[image, group].mean(0))


def test_sources_are_sorted_by_cosine_to_their_best_destination():
    torch.manual_seed(0)
    x = torch.randn(1, 36, 5)
    matching = match(x, (6, 6), (3, 3))
    assert matching.destinations.tolist() == [0, 3, 18, 21]
    cosine = F.cosine_similarity(x[0, matching.sources][:, None], x[0, matching.destinations][None], dim=-1)
    best, target = cosine.max(1)
    order = matching.order[0]
    assert torch.equal(order, best.argsort(descending=True))
    assert torch.equal(matching.target[0], target[order])


def test_drawn_destinations_stay_in_their_cells():
    generator = torch.Generator().manual_seed(0)
    places = match(torch.randn(1, 48, 4), (6, 8), (3, 4), use_rand=True, generator=generator).destinations
    cells = [(place // 8 // 3, place % 8 // 4) for place in places.tolist()]
    assert cells == [(0, 0), (0, 1), (1, 0), (1, 1)]


# Mistakes


def test_mistakes_are_named(unet, inputs):
    with pytest.raises(UserError, match="Linear has no transformer block with attn1"):
        AgentSD(nn.Linear(2, 2))
    with AgentSD(unet), pytest.raises(UserError, match="patched already"):
        AgentSD(unet)
    with AgentSD(unet) as patch, pytest.raises(UserError, match="outside its UNet"):
        patch.blocks[0](torch.randn(1, 256, 16))
    for settings in ({"ratio": 1.0}, {"agent_ratio": -0.1}):
        with pytest.raises(UserError, match=r"must be in \[0, 1\)"):
            AgentSDSettings(**settings)
    with pytest.raises(UserError, match="at least 1"):
        AgentSDSettings(sx=0)
