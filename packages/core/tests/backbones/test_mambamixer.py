import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.mambamixer import (
    S6,
    TSM2,
    MambaMixer,
    MixerStack,
    SelectiveChannelMixer,
    SelectiveMixer,
    SelectiveTokenMixer,
    ViM2,
    ViM2Classifier,
    average,
)
from opsin.core.errors import UserError
from opsin.core.ops.selective_scan import selective_scan_reference
from opsin.core.published import load_published
from opsin.registry import MODELS

SMALL = {"dim": 8, "depths": (1, 1, 2, 1), "channel_mixer": "selective"}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def without_convolution(scan: S6) -> S6:
    """The scan with a convolution that passes each step on as it is."""
    with torch.no_grad():
        scan.conv1d.weight.zero_()
        scan.conv1d.weight[:, :, -1] = 1
        scan.conv1d.bias.zero_()
    return scan


def terms(scan: S6, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The arguments of the selective scan for channel-last x (B, L, E), written out."""
    taps = scan.conv1d.weight.shape[2]
    u = F.silu(scan.conv1d(F.pad(x.transpose(1, 2), (taps - 1, 0))))
    low, B, C = scan.x_proj(u.transpose(1, 2)).split(scan.split, -1)
    delta = (low @ scan.dt_proj.weight.T).transpose(1, 2)
    return {
        **{"u": u, "delta": delta, "A": -scan.A_log.exp(), "B": B.transpose(1, 2), "C": C.transpose(1, 2)},
        **{"D": scan.D, "delta_bias": scan.dt_proj.bias},
    }


@torch.no_grad()
def test_scan_is_the_reference_selective_scan():
    torch.manual_seed(0)
    scan, x = S6(6), torch.randn(2, 9, 6)
    want = selective_scan_reference(**terms(scan, x), delta_softplus=True)[0].transpose(1, 2)
    assert torch.allclose(scan(x), want, atol=1e-5)


@torch.no_grad()
def test_a_token_of_zeros_adds_nothing_to_later_states():
    torch.manual_seed(0)
    scan, x = without_convolution(S6(6)), torch.randn(1, 7, 6)
    x[:, 2] = 0
    given = terms(scan, x)
    steps = F.softplus(given["delta"] + given["delta_bias"][:, None])
    state, outputs = torch.zeros(1, 6, 16), []
    for t in range(7):
        state = torch.exp(steps[:, :, t, None] * given["A"]) * state
        if t != 2:
            state = state + (steps[:, :, t] * given["u"][:, :, t])[..., None] * given["B"][:, None, :, t]
        outputs.append((state * given["C"][:, None, :, t]).sum(-1) + scan.D * given["u"][:, :, t])
    assert torch.allclose(scan(x), torch.stack(outputs, 1), atol=1e-5)


@torch.no_grad()
def test_scan_with_vanishing_steps_gives_its_skip_alone():
    torch.manual_seed(0)
    scan, x = without_convolution(S6(6)), torch.randn(1, 7, 6)
    scan.D.normal_()
    scan.dt_proj.bias.fill_(-40)
    assert torch.allclose(scan(x), scan.D * F.silu(x), atol=1e-6)


@torch.no_grad()
def test_every_scan_is_gated_and_has_its_own_parameters():
    torch.manual_seed(0)
    mixer, x = SelectiveMixer(4, routes=(1, 2)), torch.randn(1, 1, 6, 4)
    u, gate = mixer.in_proj(x)[0], F.silu(mixer.gate_proj(x)[0])
    forward, backward = mixer.scans[0](u) * gate, mixer.scans[1](u.flip(1)).flip(1) * gate
    assert torch.allclose(mixer(x)[0], mixer.out_proj(forward + backward), atol=1e-6)
    assert not torch.equal(mixer.scans[0].x_proj.weight, mixer.scans[1].x_proj.weight)


@torch.no_grad()
def test_channel_mixer_is_the_token_mixer_of_the_transposed_matrix():
    torch.manual_seed(0)
    channel_mixer = SelectiveChannelMixer(5, expand=2.0)
    token_mixer = SelectiveTokenMixer(5, expand=2.0)
    token_mixer.load_state_dict(channel_mixer.state_dict())
    x = torch.randn(2, 5, 9)
    assert torch.equal(channel_mixer(x), token_mixer(x.transpose(1, 2)).transpose(1, 2))


def test_channel_mixer_goes_both_ways_and_minds_the_order_of_channels():
    torch.manual_seed(0)
    mixer, x = SelectiveChannelMixer(4), torch.randn(1, 4, 7, requires_grad=True)
    for channel in (0, 3, 6):
        (reached,) = torch.autograd.grad(mixer(x)[..., channel].sum(), x)
        assert (reached.abs().sum(1) > 0).all()
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    assert not torch.allclose(mixer(x[..., order]), mixer(x)[..., order], atol=1e-4)


def seconds(mixer: nn.Module, *shape: int) -> float:
    x = torch.randn(shape)
    runs = []
    for _ in range(4):
        start = time.perf_counter()
        mixer(x)
        runs.append(time.perf_counter() - start)
    return min(runs)


@torch.no_grad()
def test_time_grows_linearly_with_tokens_and_with_channels():
    # eight times as much, where a quadratic law would take 64 times as long
    token_mixer, channel_mixer = SelectiveTokenMixer(16), SelectiveChannelMixer(16)
    assert seconds(token_mixer, 1, 16384, 16) < 20 * seconds(token_mixer, 1, 2048, 16)
    assert seconds(channel_mixer, 1, 16, 16384) < 20 * seconds(channel_mixer, 1, 16, 2048)


# Weighted averages


def stack_of(depth: int) -> MixerStack:
    torch.manual_seed(0)
    return MambaMixer(5, 6, depth).stack


@torch.no_grad()
def test_stack_begins_as_a_plain_residual_stack():
    stack, x = stack_of(3), torch.randn(2, 5, 6)
    plain = x
    for token_mixer, channel_mixer in zip(stack.token_mixers, stack.channel_mixers, strict=True):
        plain = plain + token_mixer(plain)
        plain = plain + channel_mixer(plain)
    assert torch.allclose(stack(x), plain, atol=1e-6)


def test_every_weight_of_the_averages_gets_a_gradient():
    stack = stack_of(3)
    (stack(torch.randn(2, 5, 6)) * torch.randn(2, 5, 6)).sum().backward()
    for name in ("alpha", "beta", "theta", "gamma"):
        weights = list(getattr(stack, name))
        own = 1 if name in ("alpha", "beta") else 0  # the result is an average too
        assert [len(w) for w in weights] == [n + (name == "theta") for n in range(1, 4 + own)]
        assert all((w.grad != 0).all() for w in weights), name


@torch.no_grad()
def test_weights_of_zero_and_one_make_a_chain():
    stack, x = stack_of(3), torch.randn(2, 5, 6)
    for name in ("alpha", "beta", "theta", "gamma"):
        newest = name in ("beta", "theta")  # a token mixer reads the channel mixer before it, and so on
        for weights in getattr(stack, name):
            weights.zero_()
            weights[-1] = float(newest)
    chain = x
    for token_mixer, channel_mixer in zip(stack.token_mixers, stack.channel_mixers, strict=True):
        chain = channel_mixer(token_mixer(chain))
    assert torch.allclose(stack(x), chain, atol=1e-6)


def test_average_weighs_its_sources():
    a, b, c = torch.ones(2, 3), torch.full((2, 3), 10.0), torch.full((2, 3), 100.0)
    assert average([a, b, c], (torch.tensor([1.0, 2.0]), torch.tensor([3.0]))).unique().item() == 321


# ViM2


@pytest.mark.parametrize(
    ("name", "parameters", "of_the_backbone"),
    [
        ("vim2_tiny", 11_681_820, 11_169_716),
        ("vim2_small", 27_216_592, 26_448_936),
        ("vim2_base", 46_670_000, 45_646_792),
        ("vim2_mlp", 49_003_264, 48_235_608),
    ],
)
def test_parameters_are_those_of_the_page(name, parameters, of_the_backbone):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters
        assert count(create_backbone(name)) == of_the_backbone


@pytest.mark.parametrize("size", [(224, 224), (160, 256), (33, 70)])
@torch.no_grad()
def test_maps_have_strides_4_to_32(size):
    backbone = ViM2({**SMALL, "depths": (1, 1, 1, 1)}).eval()
    maps = backbone(torch.randn(1, 3, *size))
    rows, columns = (side // 4 for side in size)
    for m, info in zip(maps, backbone.feature_info, strict=True):
        assert m.shape == (1, info.channels, rows, columns)
        rows, columns = -(-rows // 2), -(-columns // 2)
    assert [info.stride for info in backbone.feature_info] == [4, 8, 16, 32]


def test_vim2_mlp_has_no_scan_over_channels():
    model = ViM2Classifier({**SMALL, "channel_mixer": "mlp"}, num_classes=3).eval()
    assert not any(isinstance(module, SelectiveChannelMixer) for module in model.modules())
    assert model(torch.randn(1, 3, 40, 64)).shape == (1, 3)


def test_full_channel_mixers_scan_all_cells_of_one_image_size():
    model = ViM2(SMALL, channel_length="full", img_size=(32, 64)).eval()
    assert [m.shape[2:] for m in model(torch.randn(1, 3, 32, 64))] == [(8, 16), (4, 8), (2, 4), (1, 2)]
    with pytest.raises(UserError, match="made for 128 tokens was given 64"):
        model(torch.randn(1, 3, 32, 32))


def test_layers_for_learning_rate_decay_follow_the_network():
    layers = {
        **{"patch_embed.0.weight": 0, "stages.0.token_mixers.0.norm.weight": 1, "stages.0.alpha.1": 1},
        **{"downsamples.0.norm.weight": 2, "stages.1.gamma.0": 2, "stages.2.channel_mixers.1.norm.bias": 4},
        **{"stages.2.beta.2": 4, "stages.3.theta.0": 5, "norm0.weight": 6},
    }
    model = ViM2(SMALL)
    assert {name: model.get_layer_depth(name) for name in layers} == {n: (i, 7) for n, i in layers.items()}
    undecayed = model.no_weight_decay()
    assert "stages.2.alpha.1" in undecayed and "stages.0.token_mixers.0.mixer.scans.3.A_log" in undecayed
    assert "stages.0.token_mixers.0.mixer.scans.3.dt_proj.weight" not in undecayed


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source = ViM2(SMALL)
    nn.init.normal_(source.norm2.weight)
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.convs.0.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    target = load_published(ViM2(SMALL), tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


# TSM2


def test_time_mixers_see_no_later_step():
    torch.manual_seed(0)
    time_mixer = TSM2(lookback=12, horizon=4, variates=3).stack.token_mixers[0]
    x = torch.randn(1, 12, 3, requires_grad=True)
    (reached,) = torch.autograd.grad(time_mixer(x)[:, 5].sum(), x)
    assert (reached[:, :6].abs().sum(2) > 0).all() and not reached[:, 6:].any()


@torch.no_grad()
def test_forecasts_depend_on_the_order_of_the_variates():
    torch.manual_seed(0)
    model, x = TSM2(lookback=12, horizon=4, variates=5), torch.randn(2, 12, 5)
    order = torch.tensor([4, 0, 3, 1, 2])
    assert not torch.allclose(model(x[..., order]), model(x)[..., order], atol=1e-4)


@torch.no_grad()
def test_forecasts_follow_the_level_and_the_scale_of_the_window():
    torch.manual_seed(0)
    model, x = TSM2(lookback=12, horizon=4, variates=3), torch.randn(2, 12, 3)
    level, scale = torch.tensor([5.0, -3.0, 0.0]), torch.tensor([2.0, 0.5, 10.0])
    assert torch.allclose(model(x * scale + level), model(x) * scale + level, atol=1e-3)


def test_covariates_reach_the_forecast():
    torch.manual_seed(0)
    model = TSM2(lookback=12, horizon=4, variates=3, future_covariates=2, static_covariates=1)
    future, static = torch.randn(2, 4, 2, requires_grad=True), torch.randn(2, 1, requires_grad=True)
    out = model(torch.randn(2, 12, 3), future, static)
    assert out.shape == (2, 4, 3)
    out.square().sum().backward()
    assert (future.grad.abs().sum(2) > 0).all() and (static.grad != 0).all()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_one_variate_can_be_forecast():
    torch.manual_seed(0)
    model = TSM2(lookback=12, horizon=4, variates=1)
    a, b = model(torch.arange(12.0).view(1, 12, 1)), model(torch.arange(12.0).flip(0).view(1, 12, 1))
    assert not torch.allclose(a, b)


def test_configs_name_mixers():
    mixer = MODELS.build({"type": "opsin.MambaMixer", "length": 4, "width": 6, "bidirectional": False})
    assert mixer(torch.randn(2, 4, 6)).shape == (2, 4, 6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ViM2("tinny"), "tinny.*tiny"),
        (lambda: ViM2({**SMALL, "depths": (1, 1)}), "four stages"),
        (lambda: ViM2({**SMALL, "channel_mixer": "se"}), "channel_mixer.*se.*selective"),
        (lambda: ViM2(SMALL, channel_length=50), "square number"),
        (lambda: ViM2(SMALL, channel_length="whole"), "square number"),
        (lambda: ViM2(SMALL, channel_length="full", img_size=100), "32 divides"),
        (lambda: ViM2(SMALL, out_indices=(3, 1)), "ascend"),
        (lambda: SelectiveTokenMixer(1, expand=0.5), "no channels"),
        (lambda: TSM2(lookback=12, horizon=0, variates=3), "horizon"),
        (lambda: TSM2(lookback=12, horizon=4, variates=3)(torch.zeros(1, 12, 2)), "12 x 2"),
        (
            lambda: TSM2(lookback=2, horizon=4, variates=3)(torch.zeros(1, 2, 3), torch.zeros(1, 4, 1)),
            "1 fut",
        ),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
