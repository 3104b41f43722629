import pytest
import torch
from small_backbones import BACKBONES, small_classifier
from torch import nn

from opsin.classification.activation_map import activation_map


class Stripes(nn.Module):
    """A network whose only class is spoken for by bright places alone."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)
        self.layout = {"channels first": nn.Identity(), "channels last": ChannelsLast(), "tokens": Tokens()}[
            layout
        ]
        nn.init.constant_(self.conv.weight, 0.01)

    def forward(self, x):
        y = self.layout(self.conv(x).relu())
        return y.flatten(1).mean(1, keepdim=True)


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


class Tokens(nn.Module):
    """A class token, then the patches."""

    def forward(self, x):
        patches = x.flatten(2).transpose(1, 2)
        return torch.cat((patches.mean(1, keepdim=True), patches), 1)


@pytest.mark.parametrize("layout", ["channels first", "channels last", "tokens"])
def test_bright_part_that_the_class_depends_on_is_found(layout):
    image = torch.zeros(1, 3, 48, 80)
    image[:, :, 8:24, 40:64] = 1.0
    seen = activation_map(Stripes(layout).eval(), image, 0)
    assert seen.shape == (48, 80) and float(seen.max()) == 1.0
    assert float(seen[12:20, 46:58].min()) > 0.9
    assert float(seen[32:].max()) < 0.1 and float(seen[:, :32].max()) < 0.1


def test_network_without_maps_gives_none():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    assert activation_map(network, torch.randn(1, 3, 8, 8), 0) is None


@pytest.mark.parametrize("name", BACKBONES)
def test_every_family_has_a_map(name):
    torch.manual_seed(0)
    network = small_classifier(name).eval()
    image = torch.randn(1, 3, 64, 64)
    found = [activation_map(network, image, label) for label in range(4)]
    assert any(seen is not None and seen.shape == (64, 64) and seen.std() > 0 for seen in found)
    assert all(parameter.grad is None for parameter in network.parameters())
