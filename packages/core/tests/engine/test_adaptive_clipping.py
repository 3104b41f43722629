import torch
from torch import nn

from opsin.core.engine.adaptive_clipping import clip_adaptively, unitwise_norm
from opsin.registry import OPTIM_WRAPPERS


def test_each_unit_is_clipped_against_its_own_weights():
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 1.0]]))
    layer.weight.grad = torch.tensor([[0.03, 0.0, 0.04], [0.0, 3.0, 4.0]])
    largest = clip_adaptively([layer.weight], 0.02)
    assert torch.allclose(layer.weight.grad[0], torch.tensor([0.03, 0.0, 0.04]))  # 0.05 of 5 * 0.02 allowed
    assert torch.allclose(layer.weight.grad[1].norm(), torch.tensor(0.02))
    assert torch.allclose(largest, torch.tensor(5.0))


def test_weights_at_zero_count_for_eps_and_vectors_as_a_whole():
    bias = nn.Parameter(torch.zeros(4))
    bias.grad = torch.ones(4)
    clip_adaptively([bias, nn.Parameter(torch.ones(2))], 0.1, eps=0.01)
    assert torch.allclose(bias.grad.norm(), torch.tensor(0.001))
    assert unitwise_norm(torch.ones(5, 2, 2)).shape == (5, 1, 1)


def test_wrapper_clips_before_it_steps():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapper = OPTIM_WRAPPERS.build(
        {"type": "opsin.AdaptiveClipOptimWrapper", "optimizer": optimizer, "clip_grad": {"clip_factor": 0.01}}
    )
    before = model.weight.detach().clone()
    wrapper.update_params((1000 * model(torch.randn(8, 4)) ** 2).sum())
    moved = (model.weight - before).norm(dim=1)
    assert torch.all(moved <= 0.01 * before.norm(dim=1) * 1.001) and torch.all(moved > 0)
