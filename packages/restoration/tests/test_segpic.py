"""SegPIC's network: parity, counts, regions, likelihoods, gradients."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from opsin.core.errors import UserError
from opsin.core.models import create_model
from opsin.core.parity import Case, find_adapter, run_case
from opsin.core.published import load_published
from opsin.core.systems import get_system
from opsin.restoration.compression.models import SegPIC
from opsin.restoration.compression.models.segpic import (
    EntropyBottleneck,
    GridRegions,
    MaskRegions,
    RegionAdaptiveTransform,
    gaussian_likelihood,
)
from opsin.restoration.compression.models.segpic.gdn import GDN, InverseGDN, lower_bound

CASES = Path(__file__).parent / "parity" / "segpic"
SMALL = dict(
    width=16,
    latent=20,
    num_slices=5,
    max_support_slices=2,
    hyper=(20, 18, 16, 14, 12),
    context=(16, 12),
    code=(10, 8),
    head=6,
    num_heads=2,
)
COUNTS = {
    "basic_E": 4_250_048,
    "basic_D": 4_287_296,
    "h_a": 3_319_040,
    "h_mean_s": 5_882_624,
    "h_scale_s": 5_882_624,
    "cc_mean_transforms": 15_212_640,
    "cc_scale_transforms": 15_212_640,
    "lrp_transforms": 15_857_760,
    "dyn_encoder": 608_448,
    "dyn_enc_hyper": 1_669_440,
    "entropy_bottleneck": 11_712,
    "entropy_bottleneck_b": 5_856,
    "entropy_bottleneck_b2": 5_856,
}


@pytest.fixture
def network():
    return SegPIC(**SMALL).eval()


@pytest.mark.parametrize("name", get_system("segpic").cases)
def test_published_numbers_are_met(name):
    result = run_case(CASES / f"{name}.json")
    assert not result.error
    assert result.ok and result.worst < 1e-4


def test_parameters_are_counted_exactly():
    with torch.device("meta"):
        network = create_model("segpic")
    assert sum(p.numel() for p in network.parameters()) == 83_503_971
    for name, count in COUNTS.items():
        assert sum(p.numel() for p in network.get_submodule(name).parameters()) == count, name


@pytest.mark.parametrize(
    "stated",
    [
        {"what": "grid 2"},
        {"what": "codes of a 2x2 grid"},
        {"what": "grid mode, grid=2"},
        {"what": "in grid mode", "outputs": {"centers": {"shape": [2, 12, 2, 2]}}},
    ],
)
def test_region_transform_runs_in_grid_mode_too(stated):
    case = Case.load(CASES / "rat-mask.json")
    meta = {**case.meta, "inputs": {"feat": case.meta["inputs"]["feat"]}, **stated}
    out = find_adapter(case)(Case(meta, case.outputs))
    assert out["centers"].shape == (2, 12, 2, 2) and out["out"].shape == (2, 12, 16, 24)
    assert torch.equal(out["expanded"][0, :, 7, 11], out["centers"][0, :, 0, 0])


def test_region_transform_takes_codes_that_a_case_gives():
    case = Case.load(CASES / "rat-mask.json")
    inputs = {"feat": {**case.meta["inputs"]["feat"], "shape": [2, 12, 6, 9]}}
    inputs["centers"] = {"kind": "normal", "seed": 5, "shape": [2, 12, 3, 3]}
    out = find_adapter(case)(Case({**case.meta, "inputs": inputs}, {}))
    assert torch.equal(out["expanded"][1, :, 5, 8], out["centers"][1, :, 2, 2])


def test_blocks_run_alone_and_with_other_settings():
    case = Case.load(CASES / "sal-window.json")
    tensors = [[n.removeprefix("up."), s] for n, s in case.meta["tensors"] if n.startswith("up.")]
    built = {**case.built_with["up"], "inverse": True}
    inputs = {"x": {"kind": "normal", "seed": 1, "shape": [1, 16, 6, 8]}}
    meta = {
        **case.meta,
        "tensors": tensors,
        "built_with": built,
        "inputs": inputs,
        "source": "sac.py Upblock_SAL",
    }
    run = find_adapter(case)
    inverse = run(Case(meta, {}))["out"]
    forward = run(Case({**meta, "built_with": case.built_with["up"]}, {}))["out"]
    assert inverse.shape == (1, 8, 12, 16) and not torch.allclose(inverse, forward)


def published(network):
    """The network's tensors as the authors' files have them: shared blocks twice, derived tables."""
    own = network.state_dict()
    tensors = dict(own)
    pairs = [
        ("basic_E.0", "g_a1.0"),
        ("basic_E.2", "g_a2.0"),
        ("basic_D.0", "g_s0.1"),
        ("basic_D.3", "g_s1.2"),
    ]
    for first, second in pairs:
        tensors |= {n.replace(first, second, 1): t for n, t in own.items() if n.startswith(f"{first}.")}
    for name in ("entropy_bottleneck", "entropy_bottleneck_b"):
        tensors[f"{name}._quantized_cdf"] = torch.zeros(3, 4, dtype=torch.int32)
        tensors[f"{name}.likelihood_lower_bound.bound"] = torch.zeros(1)
    tensors["gaussian_conditional.scale_table"] = torch.zeros(64)
    tensors["basic_E.0.conv_groups.1.beta_reparam.pedestal"] = torch.zeros(1)
    tensors["g_a1.2.conv_b.0.attn.relative_position_index"] = torch.zeros(64, 64)
    return tensors


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_checkpoints_load(network, tmp_path, prefix):
    content = {
        "epoch": 3,
        "state_dict": {prefix + n: t for n, t in published(network).items()},
        "optimizer": {},
    }
    torch.save(content, tmp_path / "segpic_0018_best.pth.tar")
    other = SegPIC(**SMALL)
    load_published(other, tmp_path / "segpic_0018_best.pth.tar")
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in network.state_dict().items())


def test_old_names_of_the_bottleneck_load(network, tmp_path):
    old = {}
    for name, tensor in network.state_dict().items():
        for new, was in (("._matrix", "._matrices."), ("._bias", "._biases."), ("._factor", "._factors.")):
            name = name.replace(new, was)
        old[name] = tensor
    assert "entropy_bottleneck._matrices.0" in old
    torch.save({"state_dict": old}, tmp_path / "old.pth.tar")
    load_published(SegPIC(**SMALL), tmp_path / "old.pth.tar")


def test_another_networks_checkpoint_is_refused(network, tmp_path):
    torch.save({"state_dict": SegPIC(**{**SMALL, "width": 24}).state_dict()}, tmp_path / "wide.pth")
    with pytest.raises(UserError, match=r"wide\.pth is not for SegPIC: basic_E\.0"):
        load_published(network, tmp_path / "wide.pth")


def test_equal_codes_in_a_grid_are_one_convolution_for_the_whole_map():
    transform, x, code = RegionAdaptiveTransform(4, 6), torch.randn(1, 4, 8, 8), torch.randn(1, 6, 1, 1)
    many = GridRegions(4).spread(code.expand(-1, -1, 4, 4), (8, 8))
    with torch.no_grad():
        assert torch.equal(transform(x, many), transform(x, code.expand(-1, -1, 8, 8)))


def test_one_region_is_a_grid_of_one(network):
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        masked = network(x, torch.zeros(1, 64, 64, dtype=torch.long))
        gridded = network(x, grid=1)
    feature = torch.rand(2, 5, 8, 8)
    mask = MaskRegions(torch.zeros(2, 8, 8, dtype=torch.long)).pool(feature)
    assert torch.allclose(mask[:, :, 0, 0], GridRegions(1).pool(feature)[:, :, 0, 0], atol=2e-5)
    assert torch.allclose(masked["x_hat"], gridded["x_hat"], atol=1e-3)


def test_codes_change_only_with_pixels_of_their_region():
    ids = torch.zeros(2, 4, 6, dtype=torch.long)
    ids[0, :, 3:], ids[1, 2:] = 1, 1
    regions, x = MaskRegions(ids), torch.rand(2, 3, 4, 6)
    changed = x.clone()
    changed[0, :, 0, 0] += 1
    differs = (regions.pool(x) != regions.pool(changed)).flatten(1).any(1)
    assert differs.tolist() == [True, False, False, False]
    spread = regions.spread(regions.pool(x), (4, 6))
    assert torch.equal(spread[1, :, 3, 5], regions.pool(x)[3, :, 0, 0])


def test_moving_a_boundary_changes_the_map_near_it():
    transform, x = RegionAdaptiveTransform(4, 4).eval(), torch.randn(1, 4, 16, 16)
    ids = torch.zeros(1, 16, 16, dtype=torch.long)
    ids[..., 8:] = 1
    moved = ids.clone()
    moved[..., 8] = 0
    codes = torch.randn(2, 4, 1, 1)
    transform.k_ch_gen = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Identity()
    )  # no global gate
    transform.k_ch_gen[1].forward = torch.ones_like
    with torch.no_grad():
        before, after = (transform(x, MaskRegions(m).spread(codes, (16, 16))) for m in (ids, moved))
    columns = (before != after).any(dim=(0, 1, 2)).nonzero()[:, 0]
    assert columns.min() >= 6 and columns.max() <= 10 and len(columns) >= 3


def test_a_region_that_vanishes_keeps_an_empty_code():
    ids = torch.zeros(1, 8, 8, dtype=torch.long)
    ids[0, 1, 1], ids[0, 4:, 4:] = 1, 2  # region 1 is at no fourth pixel
    reduced = MaskRegions(ids).reduced(4)
    codes = reduced.pool(torch.ones(1, 2, 2, 2))
    assert reduced.counts == [3] and codes[1].abs().max() == 0 and codes[2].min() > 0.99


def test_regions_of_another_size_are_refused():
    with pytest.raises(ValueError, match="regions of"):
        MaskRegions(torch.zeros(1, 8, 8)).spread(torch.zeros(1, 2, 1, 1), (4, 4))


def test_evaluation_is_deterministic_and_training_is_noisy_in_likelihoods_alone(network):
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        first, second = network(x), network(x)
        assert all(torch.equal(first[name], second[name]) for name in first)
        network.train()
        third, fourth = network(x), network(x)
    assert torch.equal(third["x_hat"], fourth["x_hat"]) and torch.equal(third["x_hat"], first["x_hat"])
    assert not torch.equal(third["likelihood_y"], fourth["likelihood_y"])
    assert not torch.equal(third["likelihood_z"], fourth["likelihood_z"])


@pytest.mark.parametrize("size", [(64, 64), (128, 192)])
@pytest.mark.parametrize("training", [False, True])
def test_sizes_batches_and_gradients(network, size, training):
    network.train(training)
    x = torch.rand(2, 3, *size)
    out = network(x)
    assert out["x_hat"].shape == x.shape
    assert out["likelihood_y"].shape == (2, 20, size[0] // 16, size[1] // 16)
    assert out["likelihood_z"].shape == (2, 12, size[0] // 64, size[1] // 64)
    rate = sum(-out[name].log2().sum() for name in out if name != "x_hat")
    (rate / x[:, 0].numel() + 1000 * F.mse_loss(out["x_hat"], x) + network.quantile_loss()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_bf16_autocast_runs_and_counts_bits_in_float32(network):
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(x)
    assert out["likelihood_y"].dtype == out["likelihood_z"].dtype == torch.float32
    assert all(t.isfinite().all() for t in out.values())


def test_an_odd_size_is_refused_with_the_remedy(network):
    with pytest.raises(ValueError, match="multiples of 64, got 70x64: pad first"):
        network(torch.rand(1, 3, 64, 70))


def test_slices_must_divide_the_latent():
    with pytest.raises(ValueError, match="7 slices do not divide 20 channels"):
        SegPIC(**{**SMALL, "num_slices": 7})


def test_the_first_slices_support_later_ones(network):
    means = scales = torch.rand(1, 20, 4, 4)
    decoded = [torch.rand(1, 4, 4, 4) for _ in range(4)]
    with torch.no_grad():
        mean = network.slice_parameters(4, means, scales, decoded)[0]
        decoded[3] = decoded[2] = torch.zeros(1, 4, 4, 4)
        assert torch.equal(network.slice_parameters(4, means, scales, decoded)[0], mean)
        decoded[0] = torch.zeros(1, 4, 4, 4)
        assert not torch.equal(network.slice_parameters(4, means, scales, decoded)[0], mean)


def test_only_quantiles_move_with_the_auxiliary_loss(network):
    network.quantile_loss().backward()
    moved = {n for n, p in network.named_parameters() if p.grad is not None}
    assert moved == {n for n, _ in network.named_parameters() if n.endswith("quantiles")}
    optimizer = torch.optim.Adam([p for n, p in network.named_parameters() if n in moved], 1.0)
    before = network.quantile_loss().item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = network.quantile_loss()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.9 * before


def test_likelihoods_of_all_integers_sum_to_one():
    places = torch.arange(-200.0, 201)[None, None, None]
    bottleneck = EntropyBottleneck(2)
    with torch.no_grad():
        total = bottleneck.likelihood(places.expand(1, 2, -1, -1)).sum((2, 3))
        normal = gaussian_likelihood(places, torch.tensor(0.3), torch.tensor(4.0)).sum()
    assert torch.allclose(total, torch.ones(1, 2), atol=1e-4)
    assert torch.allclose(normal, torch.tensor(1.0), atol=1e-4)


def test_bounds_pass_gradients_that_lead_back():
    x = torch.tensor([0.5, 2.0, 0.5], requires_grad=True)
    (lower_bound(x, 1.0) * torch.tensor([1.0, 1.0, -1.0])).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, -1.0]


def test_inverse_gdn_multiplies_by_what_gdn_divides_by():
    gdn, inverse = GDN(3), InverseGDN(3)
    beta, gamma = gdn.weights()
    assert torch.allclose(beta, torch.ones(3)) and torch.allclose(gamma, 0.1 * torch.eye(3), atol=1e-6)
    x = torch.rand(1, 3, 2, 2)
    energy = 1 + 0.1 * x * x
    assert torch.allclose(gdn(x), x / energy.sqrt()) and torch.allclose(inverse(x), x * energy.sqrt())


def test_exported_network_gives_the_same():
    network, x = SegPIC(**{**SMALL, "num_slices": 2}).eval(), torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        program = torch.export.export(copy.deepcopy(network), (x,))
        exported, own = program.module()(x), network(x)
    assert all(torch.allclose(exported[name], own[name], atol=1e-5) for name in own)
