import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from opsin.core import create_backbone, create_model
from opsin.core.errors import UserError
from opsin.core.ops.neighborhood_attention import neighborhood_attention
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.medical.classification.models.medvitv2 import FasterKAN, MedViTV2, MedViTV2Classifier
from opsin.medical.classification.models.medvitv2.global_block import (
    ConvAttention,
    GlobalBlock,
    PooledKeyAttention,
    nearest_multiple,
)
from opsin.medical.classification.models.medvitv2.kan import KANLayer, RadialBasis
from opsin.medical.classification.models.medvitv2.layers import LocalityFeedForward, PatchEmbed
from opsin.medical.classification.models.medvitv2.local_block import LocalBlock, NeighborhoodAttention

SMALL = {"depths": (1, 1, 3, 1), "dims": (32, 128, 128, 128), "stem": (8, 8, 16), "mix_ratio": 0.5}


def small(**changes) -> MedViTV2Classifier:
    torch.manual_seed(0)
    return MedViTV2Classifier(SMALL, **{"num_classes": 5, "drop_path_rate": 0.0, **changes})


@pytest.mark.parametrize(
    ("name", "of_1000_classes", "of_8_classes"),
    [
        ("tiny", 11_719_845, 11_337_925),
        ("small", 30_087_295, 29_578_399),
        ("base", 66_995_571, 66_232_723),
        ("large", 118_291_477, 117_274_677),
    ],
)
def test_variants_have_the_published_counts(name, of_1000_classes, of_8_classes):
    with torch.device("meta"):
        for classes, count in ((1000, of_1000_classes), (8, of_8_classes)):
            model = create_model(f"medvitv2_{name}", num_classes=classes)
            assert sum(p.numel() for p in model.parameters()) == count
        maps = create_backbone(f"medvitv2_{name}").eval()(torch.empty(1, 3, 224, 224))
    assert [m.shape[-1] for m in maps] == [56, 28, 14, 7]


# Neighborhood attention, as the network uses it


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("dilation", [1, 2])
def test_each_query_attends_to_as_many_distinct_keys_as_its_window_has(kernel_size, dilation):
    side = kernel_size * dilation + 1  # not divisible by the dilation
    keys = torch.arange(side * side, dtype=torch.float64)
    marks = torch.nn.functional.one_hot(keys.long()).double().view(1, 1, side, side, -1)
    q = torch.zeros(1, 1, side, side, side * side, dtype=torch.float64)
    seen = neighborhood_attention(q, q, marks, kernel_size=kernel_size, dilation=dilation)
    assert ((seen > 0).sum(-1) == kernel_size**2).all()


def test_a_window_as_large_as_the_map_is_full_attention_with_relative_bias():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 5, 5, 4, dtype=torch.float64)
    bias = torch.randn(2, 9, 9, dtype=torch.float64)
    places = torch.tensor(list(itertools.product(range(5), range(5))))
    apart = places[None] - places[:, None] + 4  # of key and query
    scores = q.flatten(2, 3) @ k.flatten(2, 3).mT / 2 + bias[:, apart[..., 0], apart[..., 1]]
    full = (scores.softmax(-1) @ v.flatten(2, 3)).view_as(v)
    torch.testing.assert_close(neighborhood_attention(q, k, v, kernel_size=5, rpb=bias), full)


def heard(module: nn.Module, tokens: Tensor, of: tuple[int, ...]) -> Tensor:
    """Which tokens of `tokens` (1, …, C) the output at `of` depends on."""
    tokens.requires_grad_()
    module(tokens)[(0, *of)].square().sum().backward()
    return tokens.grad[0].abs().amax(-1) > 0


@pytest.mark.parametrize(("query", "rows", "columns"), [((4, 4), (3, 6), (3, 6)), ((0, 8), (0, 3), (6, 9))])
def test_neighborhood_attention_mixes_its_window_and_nothing_else(query, rows, columns):
    found = heard(NeighborhoodAttention(8, 2, kernel_size=3), torch.randn(1, 9, 9, 8), query)
    window = torch.zeros(9, 9, dtype=torch.bool)
    window[slice(*rows), slice(*columns)] = True
    assert torch.equal(found, window)


def test_pooled_attention_mixes_all_tokens_but_the_remainder_of_the_pooling():
    module = PooledKeyAttention(8, 4, 2).eval()
    found = heard(module, torch.randn(1, 15, 8), (14,))
    assert found[:12].all() and found.tolist()[12:] == [False, False, True]  # 15 = 3 keys of 4, and the query


# The Kolmogorov-Arnold network


def test_basis_is_one_at_its_point_and_vanishes_beyond_one():
    basis = RadialBasis()
    values = basis(basis.grid.detach())
    torch.testing.assert_close(values.diagonal(), torch.ones(8))
    assert basis(basis.grid.detach() + 1.2).diagonal().max() < 3e-3


def test_weights_of_the_network_get_gradients_and_its_grid_none():
    network = FasterKAN([4, 6, 3])
    network(torch.randn(5, 4)).sum().backward()
    for layer in network.layers:
        assert layer.spline_linear.weight.grad.abs().sum() > 0
        assert layer.rbf.grid.grad is None


# The whole network


def test_small_maps_are_refused_with_the_size_that_is_needed():
    model = small().eval()
    with pytest.raises(UserError, match=r"needs 7 x 7 tokens, here 6 x 6.*97 x 97"):
        model(torch.zeros(1, 3, 96, 96))
    for side in (97, 112, 128):
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 5)


@pytest.mark.parametrize("layout", ["published", "clean"])
@pytest.mark.parametrize("size", [(101, 131), (97, 160)])
def test_odd_and_oblong_pictures_work(layout, size):
    logits = small(layout=layout).eval()(torch.randn(1, 3, *size))
    assert logits.isfinite().all()


def test_clean_layout_follows_a_shift_and_the_published_one_does_not():
    torch.manual_seed(0)
    x = torch.zeros(1, 32, 24, 24)
    x[..., 10:13, 10:13] = torch.randn(1, 32, 3, 3)
    shifted = x.roll((2, 2), (2, 3))
    apart = {}
    for layout in ("clean", "published"):
        torch.manual_seed(1)
        block = LocalBlock(32, 32, layout=layout).eval()
        with torch.no_grad():
            one, two = block(x), block(shifted)
        apart[layout] = (one[..., 6:16, 6:16] - two[..., 8:18, 8:18]).abs().max().item()
    assert apart["clean"] < 1e-5
    assert apart["published"] > 1e-3


def test_gradients_reach_every_parameter_that_is_used_and_dropped_paths_are_drawn():
    model = small(drop_path_rate=0.5, layout="clean").train()
    images = torch.randn(2, 3, 112, 112)
    for _ in range(6):  # a branch may be dropped for both pictures
        model(images).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    unused = {n.split(".conv.conv")[0] for n, p in model.named_parameters() if not p.requires_grad}
    assert all("rbf.grid" in name or name.startswith("features.") for name in unused)


def test_half_precision_stays_near_single():
    model = small().eval()
    x = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        whole = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x)
    assert (half.float() - whole).abs().max() < 0.05 * whole.abs().max() + 0.02


def test_it_exports():
    model = small().eval()
    x = torch.randn(1, 3, 112, 112)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def test_backbone_gives_the_last_blocks_of_its_stages_and_takes_a_classifiers_file(tmp_path):
    classifier = small().eval()
    torch.save({"model": classifier.to_published(classifier.state_dict()), "epoch": 3}, tmp_path / "own.pth")
    again = load_published(small(num_classes=5), tmp_path / "own.pth").eval()
    x = torch.randn(1, 3, 112, 112)
    torch.testing.assert_close(again(x), classifier(x))
    backbone = load_published(MedViTV2(SMALL, drop_path_rate=0.0), tmp_path / "own.pth").eval()
    maps = backbone(x)
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 28, 28), (128, 14, 14), (128, 7, 7), (128, 4, 4)]
    torch.testing.assert_close(maps[-1].mean((2, 3)), classifier.forward_features(x))
    fewer = MedViTV2(SMALL, out_indices=(0, 1), frozen_stages=1)
    assert len(fewer.features) == 2 and not fewer.features[0].training


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("huge", "huge"),
        ({"depths": (1, 1, 2, 1), "dims": (32, 128, 128, 128)}, "multiple of 3"),
        ({"depths": (1, 1, 3), "dims": (32, 128, 128, 128)}, "four in all"),
        ({"depths": (1, 1, 3, 1), "dims": (32, 96, 128, 128)}, "give it 128 or more"),
    ],
)
def test_wrong_settings_are_named(arch, message):
    with pytest.raises(UserError, match=message):
        MedViTV2Classifier(arch)


def test_nearest_multiple_rounds_halves_up_and_never_loses_a_tenth():
    assert [nearest_multiple(width, 32) for width in (1, 48, 96, 144, 36)] == [32, 64, 96, 160, 64]


# Other runs of the authors' code


def case_of(source: str, model: nn.Module, inputs: dict[str, tuple[int, ...]], **built_with) -> Case:
    convert = getattr(model, "to_published", dict)
    meta = {
        "system": "medvitv2",
        "case": "other",
        "source": f"Omid-Nejati/MedViTV2@8d54f66 {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in convert(model.state_dict()).items()],
        "inputs": {name: {"seed": 1, "shape": shape} for name, shape in inputs.items()},
        "outputs": {},
    }
    return Case(meta, {})


@pytest.mark.parametrize(
    ("source", "model", "shape", "built_with"),
    [
        (
            "MedViT.py LFP",
            LocalBlock(64, 64, kernel_size=7, head_dim=16),
            (1, 64, 9, 11),
            {"in_channels": 64, "out_channels": 64, "kernel_size": 7, "stride": 1, "head_dim": 16},
        ),
        (
            "MedViT.py GFP",
            GlobalBlock(128, 192, mlp_ratio=3, pooling=1, mix_ratio=0.5),
            (1, 128, 6, 6),
            {"in_channels": 128, "out_channels": 192, "mlp_ratio": 3, "mix_block_ratio": 0.5},
        ),
        (
            "fasterkan.py FasterKAN",
            FasterKAN([5, 4], low=-1.0, high=1.5, points=5, width=0.5),
            (3, 5),
            {
                "layers_hidden": [5, 4],
                "grid_min": -1.0,
                "grid_max": 1.5,
                "num_grids": 5,
                "denominator": 0.5,
            },
        ),
        ("fasterkan.py FasterKANLayer", KANLayer(5, 4), (3, 5), {"input_dim": 5, "output_dim": 4}),
        ("MedViT.py E_MHSA", PooledKeyAttention(64, 32, 2), (1, 18, 64), {"dim": 64, "sr_ratio": 2}),
        ("MedViT.py MHCA", ConvAttention(64, 32), (1, 64, 5, 6), {"out_channels": 64, "head_dim": 32}),
        (
            "MedViT.py PatchEmbed",
            PatchEmbed(8, 16, 2),
            (1, 8, 7, 9),
            {"in_channels": 8, "out_channels": 16, "stride": 2},
        ),
        (
            "MedViT.py LocalityFeedForward",
            LocalityFeedForward(8, 3, 3),
            (1, 8, 7, 9),
            {"in_dim": 8, "out_dim": 8, "kernel_size": 3, "expand_ratio": 3, "reduction": 8},
        ),
        (
            "MedViT.py LocalityFeedForward",
            LocalityFeedForward(8, 3, 4, squeezed=8),
            (1, 8, 7, 9),
            {"in_dim": 8, "out_dim": 8},
        ),
        (
            "MedViT.py LFP",
            LocalBlock(32, 64, mlp_ratio=2),
            (1, 32, 8, 7),
            {"in_channels": 32, "out_channels": 64, "mlp_ratio": 2},
        ),
        ("MedViT.py E_MHSA", PooledKeyAttention(64, 32, 1, 48), (1, 9, 64), {"dim": 64, "out_dim": 48}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cases_of_other_parts_and_settings_run(source, model, shape, built_with):
    case = case_of(source, model, {"x": shape}, **built_with)
    adapted = find_adapter(case)
    assert adapted is not None
    (out,) = adapted(case).values()
    assert out.isfinite().all()


def test_cases_of_a_reduced_network_run():
    model = small(num_classes=3)
    built_with = {
        "stem_chs": SMALL["stem"],
        "depths": SMALL["depths"],
        "dims": SMALL["dims"],
        "mix_block_ratio": 0.5,
        "num_classes": 3,
        "path_dropout": 0.2,
    }
    case = case_of("MedViT.py MedViT", model, {"x": (1, 3, 97, 97)}, **built_with)
    found = find_adapter(case)(case)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "logits": (1, 3),
        "pooled": (1, 128),
    }


def test_attention_module_scales_by_the_width_of_a_head():
    module = NeighborhoodAttention(8, 2, kernel_size=3)
    x = torch.randn(1, 3, 3, 8)

    def attend(tokens: Tensor) -> Tensor:
        q, k, v = module.qkv(tokens.flatten(1, 2)).view(1, 9, 3, 2, 4).permute(2, 0, 3, 1, 4)
        rows, columns = torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
        at = torch.stack([rows.flatten(), columns.flatten()], 1)
        apart = at[None] - at[:, None] + 2
        scores = q @ k.mT / math.sqrt(4) + module.rpb[:, apart[..., 0], apart[..., 1]]
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(1, 3, 3, 8)
        return module.proj(mixed)

    torch.testing.assert_close(module(x), attend(x), rtol=1e-4, atol=1e-5)
