import pytest
import torch
from torch import Tensor, nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.vsa import SwinVSA, SwinVSAClassifier, ViTAEv2VSA, ViTAEv2VSAClassifier
from opsin.core.backbones.vsa.attention import VSAWindowAttention
from opsin.core.backbones.vsa.cells import NormalCell, PyramidReduction, ReductionCell
from opsin.core.backbones.vsa.network import ARCHS
from opsin.core.errors import UserError
from opsin.core.layers.shifted_windows import attend_in_windows
from opsin.core.layers.window_attention import WindowAttention
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.registry import MODELS

SMALL = {
    "embed_dims": (4, 4),
    "token_dims": (8, 16),
    "nc_depth": (1, 2),
    "nc_heads": (2, 4),
    "rc_heads": (2, 2),
    "nc_group": (2, 4),
    "rc_group": (1, 2),
    "window_size": 4,
    "mlp_ratio": 2,
    "downsample_ratios": (4, 2),
    "kernel_sizes": (7, 3),
    "dilations": ((1, 2), (1, 2, 3)),
}


def dense(**settings) -> ViTAEv2VSA:
    return ViTAEv2VSA(SMALL, **{"out_indices": (0, 1), **settings})


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def attention_with(
    scales: float | list[float], offsets: float | list[float], dim: int = 8, heads: int = 2, **settings
) -> VSAWindowAttention:
    """An attention whose regressors give the same for every window, whatever the features are."""
    torch.manual_seed(0)
    attn = VSAWindowAttention(dim, heads, **{"window_size": 4, **settings})
    nn.init.normal_(attn.relative_position_bias_table)
    with torch.no_grad():
        for regressor, value in ((attn.sampling_scales, scales), (attn.sampling_offsets, offsets)):
            regressor[2].weight.zero_()
            regressor[2].bias.copy_(torch.as_tensor(value))
    return attn.eval()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vitaev2_vsa_small", 19_773_300),
        ("vitaev2_vsa_wide_small", 20_342_442),
        ("vitaev2_vsa_48m", 51_089_119),
        ("vitaev2_vsa_base", 93_711_532),
        ("vitaev2_vsa_base_ws12", 93_833_932),
    ],
)
def test_classifiers_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters


def test_backbone_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert count(create_backbone("vitaev2_vsa_small")) == 19_260_300


@pytest.mark.parametrize(("name", "millions"), [("swin_vsa_tiny", 29), ("swin_vsa_small", 50)])
def test_swin_with_vsa_is_as_large_as_the_paper_says(name, millions):
    with torch.device("meta"):
        assert abs(count(create_model(name)) / 1e6 - millions) < 0.6


# The attention


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 12), (9, 14), (3, 2)])
def test_without_scale_and_offset_it_is_attention_in_plain_windows(size):
    attn = attention_with(0.0, 0.0)
    plain = WindowAttention(8, 2, (4, 4))
    plain.load_state_dict(
        {
            name: tensor.flatten(1) if tensor.ndim == 4 else tensor
            for name, tensor in attn.state_dict().items()
            if not name.startswith("sampling")
        }
    )
    # here a padded pixel is zero before `qkv`, there after it
    attn.qkv.bias.zero_()
    plain.qkv.bias.zero_()
    x = picture(2, 8, *size)
    wanted = attend_in_windows(plain, x.permute(0, 2, 3, 1), (4, 4)).permute(0, 3, 1, 2)
    assert torch.allclose(attn(x), wanted, atol=1e-5)


@torch.no_grad()
def test_scales_of_one_double_the_windows():
    grid = attention_with(1.0, 0.0).sampling_grid(picture(1, 8, 8, 12), (8, 12))
    assert grid.shape == (2, 6, 16, 2)
    x, y = (((grid[0, 0] + 1) / 2) * torch.tensor([11, 7])).unflatten(0, (4, 4)).unbind(-1)
    assert torch.allclose(x[0], torch.tensor([-1.5, 0.5, 2.5, 4.5]), atol=1e-5)
    assert torch.allclose(y[:, 0], torch.tensor([-1.5, 0.5, 2.5, 4.5]), atol=1e-5)
    # the window is about the same centre
    default = attention_with(0.0, 0.0).sampling_grid(picture(1, 8, 8, 12), (8, 12))
    assert torch.allclose(grid.mean(2), default.mean(2), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("axis", "moved"), [(0, -1), (1, -2)])
def test_an_offset_of_a_pixel_moves_keys_and_values_by_one(axis, moved):
    height, width = 8, 12
    pixel = 2 / (width - 1) * 3 if axis == 0 else 2 / (height - 1) * 2  # times the windows of the axis
    offset = [0.0] * 4
    offset[axis::2] = [pixel] * 2
    attn, still = attention_with(0.0, offset), attention_with(0.0, 0.0)
    kv = picture(1, 16, height, width)
    rolled = kv.roll(-1, moved)
    rolled.narrow(moved, -1, 1).zero_()  # what is read from outside
    sizes = (kv, (height, width))
    got = attn._sampled(kv, attn.sampling_grid(picture(1, 8, height, width), sizes[1]))
    wanted = still._sampled(rolled, still.sampling_grid(picture(1, 8, height, width), sizes[1]))
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@torch.no_grad()
def test_heads_sample_independently():
    attn, x = attention_with(0.0, 0.0), picture(1, 8, 8, 8)
    attn.proj.weight.copy_(torch.eye(8)[..., None, None])
    attn.proj.bias.zero_()
    before = attn(x)
    for regressor in (attn.sampling_scales[2], attn.sampling_offsets[2]):
        regressor.bias[:2] += 0.7
    after = attn(x)
    assert torch.equal(after[:, 4:], before[:, 4:])
    assert not torch.allclose(after[:, :4], before[:, :4], atol=1e-2)


def test_gradients_reach_both_regressors():
    attn = VSAWindowAttention(8, 2, window_size=4)
    attn(picture(2, 8, 9, 13)).square().sum().backward()
    for regressor in (attn.sampling_scales[2], attn.sampling_offsets[2]):
        assert (regressor.weight.grad.abs().sum((1, 2, 3)) > 0).all()
        assert (regressor.bias.grad.abs() > 0).all()


@pytest.mark.parametrize("size", [(16, 16), (32, 16), (32, 64)])
def test_cost_is_linear_in_the_number_of_windows(size):
    from torch.utils.flop_counter import FlopCounterMode

    def flops(*size: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            attention_with(0.3, 0.1)(picture(1, 8, *size))
        return counter.get_total_flops()

    windows = size[0] * size[1] // 16
    assert flops(*size) * 16 == flops(16, 16) * windows


@torch.no_grad()
def test_detector_and_classifier_agree_on_square_maps_that_windows_fit():
    ours, theirs = (
        attention_with(0.3, 0.5, centred_padding=flag, swapped_divisors=flag) for flag in (False, True)
    )
    assert torch.equal(ours(picture(1, 8, 8, 8)), theirs(picture(1, 8, 8, 8)))
    for size in ((8, 12), (9, 9)):
        assert not torch.allclose(ours(picture(1, 8, *size)), theirs(picture(1, 8, *size)), atol=1e-3)


@torch.no_grad()
def test_maps_smaller_than_a_window_are_attended():
    attn = attention_with(0.3, 0.1, window_size=7)
    for size in ((1, 1), (1, 9), (3, 5)):
        assert attn(picture(1, 8, *size)).isfinite().all()


@torch.no_grad()
def test_logits_are_scaled_by_the_width_that_comes_in():
    assert VSAWindowAttention(256, 2, out_dim=64).scale == 128**-0.5


@torch.no_grad()
def test_a_config_names_the_attention():
    attn = MODELS.build({"type": "opsin.VSAWindowAttention", "dim": 12, "num_heads": 3, "out_dim": 6})
    assert attn(picture(2, 12, 10, 15)).shape == (2, 6, 10, 15)


# Cells and networks


@torch.no_grad()
@pytest.mark.parametrize("side", [8, 9, 10, 11])
@pytest.mark.parametrize("stride", [2, 4])
def test_reductions_round_up(stride, side):
    prm = PyramidReduction(3, 4, 7 if stride == 4 else 3, stride, (1, 2, 3))
    attn = VSAWindowAttention(12, 2, out_dim=8, window_size=2)
    cell = ReductionCell(3, prm, attn, 1, inner_dim=4).eval()
    assert cell(picture(1, 3, side, 16)).shape == (1, 8, -(-side // stride), 16 // stride)


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 352), (480, 640)])
def test_dense_maps_have_strides_4_to_32(size):
    arch = {
        "embed_dims": (4, 4, 4, 4),
        "token_dims": (8, 8, 8, 8),
        "nc_depth": (1, 1, 1, 1),
        "nc_heads": (2, 2, 2, 2),
        "rc_heads": (2, 2, 2, 2),
        "nc_group": (8, 8, 8, 8),
        "rc_group": (1, 4, 4, 4),
        "mlp_ratio": 1,
        "dilations": ((1,), (1,), (1,), (1,)),
    }
    backbone = ViTAEv2VSA(arch).eval()
    maps = backbone(picture(1, 3, *size))
    assert [info.stride for info in backbone.feature_info] == [4, 8, 16, 32]
    for m, info in zip(maps, backbone.feature_info, strict=True):
        assert m.shape == (1, info.channels, size[0] // info.stride, size[1] // info.stride)


def test_drop_path_rates_are_read_as_published():
    with torch.device("meta"):
        model = create_model("vitaev2_vsa_small", drop_path_rate=0.13)
    rates = [[round(cell.drop_path.rate, 4) for cell in stage.NC] for stage in model.layers]
    assert rates == [
        [0.0, 0.01],
        [0.02, 0.03],
        [0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09],
        [0.08, 0.09],
    ]


def test_tables_of_positions_are_not_decayed():
    names = dense().no_weight_decay()
    assert "layers.1.NC.1.attn.relative_position_bias_table" in names and len(names) == 5


# Cases of other sources


def case_of(source: str, model: nn.Module, outputs: dict[str, list[int]], x: list[int], **extra) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "vsa",
        "case": "other",
        "source": f"ViTAE-Transformer/ViTAE-VSA@75dc986 {source}",
        "tensors": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
        "inputs": {"x": {"seed": 1, "shape": x}},
        "outputs": {name: {"shape": shape} for name, shape in outputs.items()},
        **extra,
    }
    return Case(meta, {})


def shapes(case: Case) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in find_adapter(case)(case).items()}


CELLS = "Image-Classification/vitaev2_vsa"
DENSE_CELLS = "Object-Detection/mmdet/models/backbones/vitaev2_vsa_modules"


@pytest.mark.parametrize("folder", [CELLS, DENSE_CELLS])
@pytest.mark.parametrize("pos_size", [0, 5, 7])
def test_other_normal_cells_run_on_tokens(folder, pos_size):
    attn = VSAWindowAttention(8, 2, window_size=4, qkv_bias=pos_size != 0)
    cell = NormalCell(8, attn, 4, mlp_ratio=3.0, pos_size=pos_size)
    given = {"dim": 8, "num_heads": 2, "group": 4, "window_size": 4, "mlp_ratio": 3.0, "cpe": bool(pos_size)}
    source = f"{folder}/NormalCell.py NormalCell"
    case = case_of(source, cell, {"out": [1, 70, 8]}, [1, 70, 8], built_with=given, call={"H": 7, "W": 10})
    assert shapes(case) == {"out": [1, 70, 8]}


@pytest.mark.parametrize("op", ["cat", "sum"])
def test_other_reduction_cells_run_on_maps_and_tokens(op):
    prm = PyramidReduction(4, 8, 3, 2, (1, 2), op)
    attn = VSAWindowAttention(prm.out_channels, 2, out_dim=16, window_size=3)
    cell = ReductionCell(4, prm, attn, 2, inner_dim=32)
    given = {"downsample_ratios": 2, "dilations": [1, 2], "window_size": 3, "img_size": [8, 6], "RC_op": op}
    for x in ([1, 4, 8, 6], [1, 48, 4]):
        source = f"{CELLS}/ReductionCell.py ReductionCell"
        case = case_of(source, cell, {"out": [1, 12, 16]}, x, built_with=given)
        assert shapes(case) == {"out": [1, 12, 16]}
    case = case_of(f"{CELLS}/ReductionCell.py PRM", prm, {"out": [1, 12, 8]}, [1, 4, 8, 6], built_with=given)
    assert shapes(case) == {"out": [1, 12, prm.out_channels]}


def test_other_stages_run():
    stage = dense().layers[1]
    given = {"downsample_ratios": 2, "dilations": [1, 2, 3], "window_size": 4}
    case = case_of(
        f"{CELLS}/base_model.py BasicLayer", stage, {"out": [1, 16, 5, 7]}, [1, 8, 10, 14], built_with=given
    )
    assert shapes(case) == {"out": [1, 16, 5, 7]}


AUTHORS = {
    "NC_depth": SMALL["nc_depth"],
    "NC_heads": SMALL["nc_heads"],
    "RC_heads": SMALL["rc_heads"],
    "NC_group": SMALL["nc_group"],
    "RC_group": SMALL["rc_group"],
    "kernel_size": SMALL["kernel_sizes"],
    "stages": 2,
    **{key: SMALL[key] for key in ("embed_dims", "token_dims", "downsample_ratios", "dilations")},
    **{key: SMALL[key] for key in ("window_size", "mlp_ratio")},
}


@pytest.mark.parametrize("classes", [0, 5])
def test_other_classifiers_run(classes):
    model = ViTAEv2VSAClassifier(SMALL, num_classes=classes, pos_size=0, wide_pcm=False)
    given = {**AUTHORS, "num_classes": classes, "cpe": False, "wide_pcm": False}
    source = f"{CELLS}/base_model.py ViTAE_VSA_basic"
    outputs = {"logits": [1, classes or 16], "features": [1, 16]}
    case = case_of(source, model, outputs, [1, 3, 32, 32], built_with=given)
    assert shapes(case) == outputs


@pytest.mark.parametrize("names", [["stage2"], ["map"]])
def test_other_dense_networks_run_with_the_kernels_of_their_commit(names):
    model = dense(pos_size=5)
    source = "Object-Detection/mmdet/models/backbones/vitaev2_vsa.py ViTAEv2_VSA"
    given = {**AUTHORS, "wide_pcm": True}
    stages = ["stage1", *names]
    outputs = dict(zip(stages, ([1, 8, 8, 10], [1, 16, 4, 5]), strict=True))
    case = case_of(source, model, outputs, [1, 3, 32, 40], built_with=given)
    assert shapes(case) == outputs


@pytest.mark.parametrize(
    ("factory", "arch"), [("48M", "48m"), ("B", "base"), ("B_ws12", "base_ws12"), ("S", "small")]
)
def test_factories_are_told_by_their_names(factory, arch):
    from opsin.core.backbones.vsa.parity import _network_arguments

    with torch.device("meta"):
        model = ViTAEv2VSAClassifier(arch)
    given = {"window_size": ARCHS[arch].window_size}
    case = case_of(f"{CELLS}/base_model.py ViTAEv2_VSA_{factory}", model, {}, [1], built_with=given)
    assert _network_arguments(case)["arch"] == vars(ARCHS[arch])


# Checkpoints and mistakes


@torch.no_grad()
@pytest.mark.parametrize("wrapper", ["state_dict_ema", "state_dict"])
def test_files_of_the_authors_training_load(tmp_path, wrapper):
    source = ViTAEv2VSAClassifier(SMALL, num_classes=3).eval()
    tensors = {
        f"module.{name}": tensor
        for name, tensor in source.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    for stage, cell in ((0, "RC"), (0, "NC.0"), (1, "RC"), (1, "NC.0"), (1, "NC.1")):
        tensors[f"module.layers.{stage}.{cell}.attn.relative_position_index"] = torch.zeros(16, 16).long()
    torch.save({"arch": "vsa", "epoch": 1, wrapper: tensors, "optimizer": {}}, tmp_path / "a.pth.tar")
    target = load_published(ViTAEv2VSAClassifier(SMALL, num_classes=3), tmp_path / "a.pth.tar").eval()
    image = picture(1, 3, 40, 36)
    assert torch.equal(target(image), source(image))
    backbone = load_published(ViTAEv2VSA(SMALL, out_indices=(0,)), tmp_path / "a.pth.tar")
    assert torch.equal(backbone.layers[0].RC.pos.weight, source.layers[0].RC.pos.weight)


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source = dense()
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.convs.0.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    target = load_published(dense(), tmp_path / "detector.pth")
    assert torch.equal(target.layers[1].RC.attn.qkv.weight, source.layers[1].RC.attn.qkv.weight)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ViTAEv2VSA("smal"), "smal.*small"),
        (lambda: dense(nc_heads=(2, 3)), "3 heads.*16"),
        (lambda: dense(rc_heads=(2,)), "rc_heads"),
        (lambda: dense(nc_group=(3, 4)), "3 groups.*8"),
        (lambda: dense(pos_size=4), "pos_size 4"),
        (lambda: dense(rc_op="mean"), "mean"),
        (lambda: dense(downsample_ratios=(4, 3)), "downsample_ratios"),
        (lambda: dense(window=7), "window"),
        (lambda: dense(out_indices=(0, 2)), "out_indices"),
        (lambda: SwinVSA("tinny"), "tinny.*tiny"),
        (lambda: SwinVSA(out_indices=(1, 4)), "out_indices"),
        (lambda: SwinVSAClassifier({"embed_dim": 8, "depths": (1, 1), "num_heads": (2,)}), "num_heads"),
        (lambda: VSAWindowAttention(8, 3), "3 heads"),
        (lambda: VSAWindowAttention(8, 2, window_size=0), "window_size 0"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
