from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from opsin.core.backbones.moh import MoHDiT
from opsin.core.backbones.moh.diffusion import sample, schedule
from opsin.core.errors import UserError


class Oracle(nn.Module):
    """Tells the noise of latents whose clean form is known: one picture, or Gaussian of unit variance."""

    settings = SimpleNamespace(num_classes=1)

    def __init__(self, clean: Tensor | None, share: float) -> None:
        super().__init__()
        self.clean, self.share, self.kept = clean, share, schedule(1000).kept.float()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        kept = self.kept[t].view(-1, 1, 1, 1)
        noise = (1 - kept).sqrt() * x if self.clean is None else (x - kept.sqrt() * self.clean)
        noise = noise if self.clean is None else noise / (1 - kept).sqrt()
        return torch.cat((noise, torch.full_like(x, self.share)), 1)


def test_all_levels_are_the_linear_schedule_and_fewer_are_evenly_spaced():
    whole, fifty = schedule(1000), schedule(50)
    assert torch.allclose(whole.betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    assert fifty.levels[[0, 1, 49]].tolist() == [0, 20, 999]
    assert torch.equal(fifty.kept, whole.kept[fifty.levels])
    assert torch.allclose((1 - fifty.betas).cumprod(0), fifty.kept)


def test_sampling_ends_at_the_picture_that_the_network_knows():
    clean = torch.randn(1, 4, 6, 6)
    found = sample(Oracle(clean, -1.0), torch.randn(2, 4, 6, 6), torch.zeros(2, dtype=torch.long), steps=50)
    assert torch.allclose(found, clean.expand(2, -1, -1, -1), atol=1e-4)


def test_variance_that_is_told_keeps_unit_variance():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 4, 32, 32, generator=generator)
    classes = torch.zeros(4, dtype=torch.long)
    stds = [
        sample(Oracle(None, share), noise, classes, steps=100, generator=generator).std().item()
        for share in (1.0, -1.0)
    ]
    assert stds[0] == pytest.approx(1.0, abs=0.02)  # the step's own variance is the right one here
    assert stds[1] < stds[0] - 0.01


def test_fifty_guided_steps_of_the_small_network_run_on_small_latents():
    torch.manual_seed(0)
    network = MoHDiT("s_2_75", input_size=16).eval()
    nn.init.normal_(network.final_layer.linear.weight, std=0.01)
    batches: list[int] = []
    network.final_layer.register_forward_hook(lambda _, inputs, output: batches.append(len(output)))
    drawn = [
        sample(
            network,
            torch.randn(1, 4, 16, 16, generator=generator),
            torch.tensor([207]),
            steps=steps,
            guidance=4.0,
            generator=generator,
        )
        for steps in (50, 2, 2)
        for generator in [torch.Generator().manual_seed(1)]
    ]
    assert batches == [2] * 54
    assert drawn[0].shape == (1, 4, 16, 16) and drawn[0].isfinite().all()
    assert torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0], drawn[1])


def test_an_impossible_number_of_steps_is_named():
    with pytest.raises(UserError, match="1 sampling steps; there can be 2 to 1000"):
        schedule(1)
