import copy

import pytest
import torch
from torch import nn

from opsin.core.errors import UserError
from opsin.core.layers.efficient_channel_attention import ECA
from opsin.core.published import place
from opsin.registry import MODELS

SMALL = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}
CONVNEXT = {"type": "opsin.ConvNeXt", "arch": SMALL}  # LayerNorms of (N, H, W, C)
WIDTHS = {"embed_dims": (8, 8, 16, 16), "mlp_ratios": (2, 2, 2, 2), "depths": (1, 1, 1, 1)}
VAN = {"type": "opsin.VAN", "arch": WIDTHS}  # BatchNorms of maps
SWIN = {
    "type": "mmdet.SwinTransformer",
    "embed_dims": 8,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 2, 2),
}


def plugged(backbone: dict, after: str) -> nn.Module:
    torch.manual_seed(0)
    network = MODELS.build(
        {"type": "opsin.Plugged", "backbone": backbone, "plugin": {"type": "opsin.ECA"}, "after": after}
    )
    network.eval()  # mmdet's Swin gives nothing back
    return network


@torch.no_grad()
@pytest.mark.parametrize(
    ("backbone", "after", "count"),
    [
        (CONVNEXT, r"stages\.\d\.0\.norm", 4),
        (VAN, r"block\d\.0\.norm2", 4),
        (SWIN, r"stages\.\d\.blocks\.0\.norm2", 4),
    ],
    ids=["convnext", "van", "swin"],
)
def test_any_backbone_takes_a_plugin_behind_the_last_norm_of_its_blocks(backbone, after, count):
    network = plugged(backbone, after)
    plugins = [module for module in network.modules() if isinstance(module, ECA)]
    assert len(plugins) == len(network.plugged) == count
    image = torch.randn(1, 3, 64, 96)
    plain = MODELS.build(backbone)
    plain.eval()
    plain.load_state_dict(
        {name: t for name, t in network.state_dict().items() if not name.startswith(network.plugged)}
    )
    norm, calls = plugins[0], []
    norm.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    maps, expected = network(image), plain(image)
    assert [m.shape for m in maps] == [m.shape for m in expected]
    ((seen, given),) = calls
    assert seen.shape[1] == 8
    assert torch.equal(given, seen * norm.gates(seen)[:, :, None, None])
    assert not torch.allclose(copy.deepcopy(network)(image)[0], expected[0])


@torch.no_grad()
def test_a_plain_networks_file_loads_and_a_plugged_ones_keeps_its_filters():
    plain, network = MODELS.build(CONVNEXT), plugged(CONVNEXT, r"stages\.\d\.0\.norm")
    filters = network.stages[0][0].norm.eca.conv.weight.clone()
    place(network, plain.state_dict())
    assert torch.equal(network.stages[3][0].pwconv1.weight, plain.stages[3][0].pwconv1.weight)
    assert torch.equal(network.stages[0][0].norm.eca.conv.weight, filters)
    other = plugged(CONVNEXT, r"stages\.\d\.0\.norm")
    nn.init.ones_(other.stages[0][0].norm.eca.conv.weight)
    place(network, other.state_dict())
    assert network.stages[0][0].norm.eca.conv.weight.eq(1).all()


def test_filters_learn():
    network = plugged(VAN, r"block\d\.0\.norm2").train()
    sum(m.square().mean() for m in network(torch.randn(2, 3, 64, 64))).backward()
    assert all(network.get_submodule(name[:-1]).conv.weight.grad.any() for name in network.plugged)


def test_wrong_places_are_named():
    with pytest.raises(UserError, match=r"matches no part of ConvNeXt.*stages\.0\.0\.norm"):
        plugged(CONVNEXT, r"blocks\..*")
    with pytest.raises(UserError, match=r"stages.0.0.pwconv1, which is a Linear and no norm"):
        plugged(CONVNEXT, r"stages\.0\.0\.pwconv1")
    with pytest.raises(UserError, match="cannot be folded"):
        plugged(
            {
                "type": "opsin.SHViT",
                "arch": {"dims": (16,) * 3, "depths": (1,) * 3, "partial_dims": (8,) * 3},
            },
            r"blocks3\.\d\.ffn\.m\.pw2\.bn",
        ).fuse()
