import re
import time

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from opsin.core import create_model
from opsin.core.backbones.msvmamba import (
    MS2DRelease1,
    MS2DRelease2,
    MSVMamba,
    MSVMambaClassifier,
    MSVMambaSettings,
)
from opsin.core.backbones.msvmamba.model import BlockRelease1, BlockRelease2
from opsin.core.errors import UserError
from opsin.core.layers.scan_routes import ordered, restored
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {1: {"dims": 16, "depths": (1, 1, 1, 1)}, 2: {"release": 2, "dims": 16, "depths": (1, 1, 1, 1)}}
MIXERS = {1: MS2DRelease1, 2: MS2DRelease2}
BLOCKS = {1: BlockRelease1, 2: BlockRelease2}
both_releases = pytest.mark.parametrize("release", [1, 2])


def settings_of(release: int, **changes) -> MSVMambaSettings:
    return MSVMambaSettings.of({"release": release, "dims": 16, "depths": (1,)}, changes)


def mixer_of(release: int, dim: int = 16, **changes) -> nn.Module:
    torch.manual_seed(0)
    return MIXERS[release](dim, settings_of(release, **changes)).eval()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class ScannedTokens(TorchDispatchMode):
    """Counts the tokens of every selective scan that runs inside."""

    tokens = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.opsin.selective_scan.default:
            self.tokens += args[0].shape[2]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("msvmamba_nano", 6_864_136),
        ("msvmamba_micro", 11_879_272),
        ("msvmamba_tiny", 33_046_312),
        ("msvmambav3_tiny", 32_263_720),
        ("msvmambav3_small", 50_216_296),
        ("msvmambav3_base", 90_591_976),
    ],
)
def test_models_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters


# Cases as other runs of the authors' code would give them, without numbers

MASTER, V2 = "YuHengsss/MSVMamba@c394019", "YuHengsss/MSVMamba@fca4a39 (branch v2)"


def case_of(source: str, tensors, shape: list[int], outputs: list[str], **built_with) -> Case:
    meta = {
        "system": "msvmamba",
        "case": "other",
        "source": source,
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "inputs": {"x": {"seed": 1, "shape": shape}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


def authors_tensors(model: nn.Module):
    return {re.sub(r"^(norm|head)\.", r"classifier.\1.", n): t for n, t in model.state_dict().items()}


@pytest.mark.parametrize("states", [2, 16])
def test_other_modules_of_release_1_run(states):
    source, changes = f"{MASTER} classification/models/vmamba.py", {"d_state": states, "dt_rank": 3}
    mixer = mixer_of(1, dim=24, squeeze_excite=False, **changes)
    built = {"d_model": 24, "ssm_ratio": 2.0, "forward_type": "v2", "add_se": False, **changes}
    case = case_of(f"{source} SS2D", mixer.state_dict(), [1, 5, 8, 24], ["y"], **built)
    assert find_adapter(case)(case)["y"].shape == (1, 5, 8, 24)
    block = BlockRelease1(24, settings_of(1, **changes))
    built = {"hidden_dim": 24, "ssm_d_state": states, "ssm_dt_rank": 3, "mlp_ratio": 0.0, "convFFN": True}
    case = case_of(f"{source} VSSBlock", block.state_dict(), [1, 5, 8, 24], ["out"], **built)
    assert find_adapter(case)(case)["out"].shape == (1, 5, 8, 24)


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("route", [1, 2])
def test_other_modules_of_release_2_run(gate, route):
    source = f"{V2} classification/models/vmamba.py"
    built = {"forward_type": "vms" if gate else "vms_noz", "full_res_index": route, "channel_first": True}
    mixer = mixer_of(2, dim=24, gate=gate, d_state=3)
    case = case_of(
        f"{source} SS2D", mixer.state_dict(), [2, 24, 5, 8], ["out"], d_model=24, d_state=3, **built
    )
    assert find_adapter(case)(case)["out"].shape == (2, 24, 5, 8)
    block = BlockRelease2(24, settings_of(2, gate=gate, ffn_ratio=2))
    built |= {"hidden_dim": 24, "conv_ffn_ratio": 2}
    case = case_of(f"{source} VSSBlock", block.state_dict(), [2, 24, 5, 8], ["out"], **built)
    assert find_adapter(case)(case)["out"].shape == (2, 24, 5, 8)


def test_other_classifier_cases_run():
    model = MSVMambaClassifier(SMALL[2], gate=True, num_classes=5, d_state=2)
    built = {
        **{"dims": 16, "depths": [1, 1, 1, 1], "num_classes": 5, "ssm_d_state": 2, "forward_type": "vms"},
        **{"patchembed_version": "v2", "downsample_version": "v3", "drop_path_rate": 0.3},
    }
    source = f"{V2} classification/models/vmamba.py VSSM"
    case = case_of(source, authors_tensors(model), [2, 3, 47, 81], ["last", "logits"], **built)
    got = find_adapter(case)(case)
    assert got["last"].shape == (2, 128, 2, 3) and got["logits"].shape == (2, 5)
    headless = MSVMambaClassifier(SMALL[1], num_classes=0)
    source, built = f"{MASTER} classification/models/vmamba.py VSSM", {"dims": 16, "depths": [1, 1, 1, 1]}
    case = case_of(source, authors_tensors(headless), [1, 3, 64, 33], ["last"], num_classes=0, **built)
    assert find_adapter(case)(case)["last"].shape == (1, 128, 2, 1)


@pytest.mark.parametrize("name", ["Backbone_VSSM", "MM_VSSM"])
def test_other_dense_cases_run_though_the_authors_build_every_stage(name):
    model = MSVMamba(SMALL[1], stem="v2", downsample="v2")
    built = {"dims": 16, "depths": [1, 1, 1, 1], "patchembed_version": "v2", "downsample_version": "v2"}
    case = case_of(
        f"{MASTER} detection/model.py {name}",
        model.state_dict(),
        [1, 3, 70, 64],
        ["a", "b"],
        out_indices=[0, 2],
        **built,
    )
    got = find_adapter(case)(case)
    assert got["a"].shape == (1, 16, 18, 16) and got["b"].shape == (1, 64, 4, 4)


# What the scan does


@both_releases
@pytest.mark.parametrize(("height", "width"), [(8, 8), (14, 11), (7, 5)])
@torch.no_grad()
def test_one_full_and_three_half_resolution_routes_are_scanned(release, height, width):
    mixer = mixer_of(release)
    with ScannedTokens() as scanned:
        mixer(torch.randn(1, 16, height, width))
    assert scanned.tokens == height * width + 3 * -(-height // 2) * -(-width // 2)


@both_releases
@torch.no_grad()
def test_time_grows_linearly_with_the_map(release):
    mixer = mixer_of(release, dim=32)

    def seconds(side: int) -> float:
        x = torch.randn(1, 32, side, side).contiguous(memory_format=torch.channels_last)
        runs = []
        for _ in range(4):
            start = time.perf_counter()
            mixer(x)
            runs.append(time.perf_counter() - start)
        return min(runs)

    seconds(32)
    assert seconds(128) < 10 * seconds(
        64
    )  # four times the cells; a quadratic law takes sixteen times as long


def reached(mixer: nn.Module, row: int, column: int) -> torch.Tensor:
    """Which cells of a 6x7 map the output at one cell depends on."""
    x = torch.randn(1, 16, 6, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mixer(x)[0, :, row, column].sum().backward()
    return x.grad[0].abs().sum(0) > 0


@both_releases
def test_without_the_half_resolution_only_earlier_cells_are_seen(release):
    mixer = mixer_of(release, squeeze_excite=False)
    with torch.no_grad():
        mixer.conv2d_b1.weight.zero_()
        mixer.conv2d_b1.bias.zero_()
    seen = reached(mixer, 2, 3)
    # the 3x3 convolution sees one row further, up to the cell below and to the right
    assert not seen[4:].any() and not seen[3, 5:].any()
    assert seen[3, 4] and seen[:2].all()


@both_releases
def test_with_the_half_resolution_every_cell_is_seen(release):
    mixer = mixer_of(release, squeeze_excite=False)
    assert reached(mixer, 0, 0).all() and reached(mixer, 5, 6).all() and reached(mixer, 2, 3).all()


@both_releases
@torch.no_grad()
def test_channel_gate_halves_the_map_when_its_last_layer_is_zero(release):
    mixer = mixer_of(release)
    gate = mixer.se
    x = torch.randn(2, 3, 4, mixer.inner)
    ratio = gate(x) / x
    assert (ratio > 0).all() and (ratio < 1).all()
    assert torch.allclose(ratio, ratio[:, :1, :1].expand_as(ratio), atol=1e-5)
    gate.fc[2].weight.zero_()
    assert torch.allclose(gate(x), x / 2)


@both_releases
def test_gradients_reach_both_parameter_sets(release):
    torch.manual_seed(0)
    mixer = MIXERS[release](64, settings_of(release, d_state=2))
    mixer(torch.randn(2, 64, 6, 7)).square().sum().backward()
    for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"):
        halves = mixer.get_parameter(name).grad.chunk(2)
        assert all(half.abs().sum() > 0 for half in halves), name
    assert mixer.se.fc[0].weight.grad.abs().sum() > 0


@torch.no_grad()
def test_the_state_runs_on_from_one_low_resolution_route_to_the_next():
    mixer = mixer_of(1)
    tokens = torch.randn(1, 12, mixer.inner)
    whole = mixer.scan(tokens, 0)
    alone = torch.cat([mixer.scan(part, 0) for part in tokens.chunk(3, 1)], 1)
    assert torch.allclose(whole[:, :4], alone[:, :4])
    assert not torch.allclose(whole[:, 4], alone[:, 4])


@torch.no_grad()
def test_routes_are_undone_one_by_one():
    cells = torch.arange(12.0).view(1, 3, 4, 1)
    assert ordered(cells, (3,)).flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert ordered(cells, (2, 1)).flatten().tolist() == [*range(11, -1, -1), *range(12)]
    assert torch.equal(restored(ordered(cells, (1, 2, 3, 4)), (1, 2, 3, 4), cells), 4 * cells)


@torch.no_grad()
def test_norm_stands_before_the_feed_forward_in_release_1_and_after_it_in_release_2():
    x = 100 * torch.randn(1, 16, 6, 6)
    for release, block_of in BLOCKS.items():
        block = block_of(16, settings_of(release)).eval()
        block.op.out_proj.weight.zero_()
        block.convFFN.linear2.weight.normal_(std=100)
        branch = block(x) - x
        normed = branch.std(1, correction=0)
        assert torch.allclose(normed, torch.ones_like(normed), atol=1e-2) == (release == 2)


# The networks


@pytest.mark.parametrize(
    ("release", "height", "width", "sizes"),
    [
        (1, 66, 90, [(16, 22), (8, 11), (4, 6), (2, 3)]),
        (1, 33, 47, [(8, 11), (4, 6), (2, 3), (1, 2)]),
        (2, 54, 74, [(14, 19), (7, 10), (4, 5), (2, 3)]),
        (2, 33, 47, [(9, 12), (5, 6), (3, 3), (2, 2)]),
    ],
)
@torch.no_grad()
def test_sizes_that_32_does_not_divide(release, height, width, sizes):
    backbone = MSVMamba(SMALL[release]).eval()
    maps = backbone(torch.randn(1, 3, height, width))
    assert [tuple(m.shape[2:]) for m in maps] == sizes
    assert (
        [m.shape[1] for m in maps] == [info.channels for info in backbone.feature_info] == [16, 32, 64, 128]
    )


def test_release_2_learns_exports_and_recomputes():
    torch.manual_seed(0)
    arch = {**SMALL[2], "gate": True, "drop_path_rate": 0.1}
    model = MSVMambaClassifier(arch, num_classes=2, with_cp=True)
    images, labels = torch.randn(8, 3, 33, 47), torch.tensor([0] * 4 + [1] * 4)
    images[4:] += torch.linspace(-1, 1, 47)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    model.eval()
    exported = torch.export.export(model, (images[:1],)).module()
    assert torch.allclose(exported(images[:1]), model(images[:1]), atol=1e-5)


def test_layers_for_learning_rate_decay_follow_the_network():
    with torch.device("meta"):
        model = MSVMamba("nano")
    layers = {
        "patch_embed.0.weight": 0,
        "layers.0.blocks.0.norm.weight": 1,
        "layers.0.downsample.reduction.weight": 2,
        "layers.1.blocks.0.op.A_logs": 2,
        "layers.2.blocks.4.norm2.weight": 8,
        "layers.2.downsample.norm.weight": 9,
        "layers.3.blocks.1.op.Ds": 10,
        "outnorm0.weight": 11,
    }
    assert {name: model.get_layer_depth(name)[0] for name in layers} == layers
    assert {name.rpartition(".")[2] for name in model.no_weight_decay()} == {"A_logs", "Ds"}


# Checkpoints in the layouts that people have


def vmambas_first_names(name: str) -> str:
    name = name.replace("patch_embed.0.", "patch_embed.proj.").replace("patch_embed.2.", "patch_embed.norm.")
    return name.replace(".norm.", ".ln_1.").replace(".op.", ".self_attention.") if "blocks" in name else name


def authors_names(name: str) -> str:
    return re.sub(r"^(norm|head)\.", r"classifier.\1.", name)


@pytest.mark.parametrize(
    ("release", "rename"), [(1, authors_names), (1, vmambas_first_names), (2, authors_names)]
)
@torch.no_grad()
def test_classifier_files_load_into_classifier_and_backbone(tmp_path, release, rename):
    torch.manual_seed(0)
    source = MSVMambaClassifier(SMALL[release], num_classes=4).eval()
    tensors = {rename(name): tensor for name, tensor in source.state_dict().items()}
    torch.save({"model": tensors, "epoch": 299}, tmp_path / "best_ckpt.pth")
    image = torch.randn(1, 3, 40, 52)
    target = load_published(MSVMambaClassifier(SMALL[release], num_classes=4), tmp_path / "best_ckpt.pth")
    assert torch.equal(target.eval()(image), source(image))
    backbone = load_published(MSVMamba(SMALL[release], out_indices=(1, 2)), tmp_path / "best_ckpt.pth")
    own = backbone.eval().walk(image)
    assert torch.equal(own[2], source.walk(image)[2])


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source = MSVMamba(SMALL[1])
    nn.init.normal_(source.outnorm2.weight)
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.convs.0.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    target = load_published(MSVMamba(SMALL[1]), tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_another_releases_file_is_refused(tmp_path):
    torch.save({"model": MSVMambaClassifier(SMALL[2], num_classes=4).state_dict()}, tmp_path / "v3.pth")
    with pytest.raises(UserError, match=r"v3\.pth is not for MSVMambaClassifier"):
        load_published(MSVMambaClassifier(SMALL[1], num_classes=4), tmp_path / "v3.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MSVMamba("tinny"), "tinny.*tiny"),
        (lambda: MSVMamba(SMALL[1], out_indices=(0, 4)), "out_indices"),
        (lambda: MSVMamba(SMALL[1], depth=3), "depth.*depths"),
        (lambda: MSVMamba({"dims": 16}), "lacks depths"),
        (lambda: MSVMamba({"dims": (16, 32), "depths": (1, 1, 1, 1)}), "2 dims and 4 depths"),
        (lambda: MSVMamba(SMALL[1], release=3), "release"),
        (lambda: MSVMamba(SMALL[1], gate=False), "always has a gate"),
        (lambda: MSVMamba(SMALL[1], d_conv=4), "odd"),
        (lambda: MSVMamba(SMALL[2], stem="v3"), "stem"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
