from collections.abc import Callable

import torch
from mmengine.optim import AmpOptimWrapper

BUILD = """
import torch
from mmengine.optim import AmpOptimWrapper
AmpOptimWrapper(dtype="bfloat16", optimizer=torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1))
"""


def test_unmended_mmengine_refuses_a_cpu(unmended: Callable[[str], str]) -> None:
    assert "is only available training on gpu" in unmended(BUILD)


def test_a_step_runs_in_bfloat16_and_keeps_weights_in_float32() -> None:
    model = torch.nn.Linear(4, 4)
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = AmpOptimWrapper(dtype="bfloat16", optimizer=optimizer, clip_grad={"max_norm": 1.0})
    with wrapper.optim_context(model):
        out = model(torch.ones(2, 4))
    wrapper.update_params(out.float().square().mean())
    assert out.dtype == torch.bfloat16
    assert model.weight.dtype == torch.float32 and model.weight.grad is None
    assert not torch.equal(before, model.weight)


def test_its_state_is_saved_and_loaded() -> None:
    model = torch.nn.Linear(4, 4)
    wrapper = AmpOptimWrapper(optimizer=torch.optim.Adam(model.parameters(), lr=0.1))
    with wrapper.optim_context(model):
        loss = model(torch.ones(2, 4)).float().sum()
    wrapper.update_params(loss)
    other = AmpOptimWrapper(optimizer=torch.optim.Adam(model.parameters(), lr=0.5))
    other.load_state_dict(wrapper.state_dict())
    assert other.get_lr() == wrapper.get_lr()
    assert other.optimizer.state_dict()["state"][0]["step"] == 1
