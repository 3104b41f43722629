"""Vision Mamba: the authors' numbers, the card's promises, and every switch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opsin.core import UserError, create_backbone, create_model
from opsin.core.backbones.vim import BiMamba, VisionMamba, VisionMambaClassifier
from opsin.core.backbones.vim.tokens import places, resize_table
from opsin.core.layers.simple_feature_pyramid import SimpleFeaturePyramid
from opsin.core.published import place
from opsin.registry import MODELS

SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 4, "d_state": 4}


def small(**changes: Any) -> VisionMambaClassifier:
    torch.manual_seed(0)
    return VisionMambaClassifier(SMALL, **{"num_classes": 5, "img_size": 64, **changes})


def small_backbone(**changes: Any) -> VisionMamba:
    torch.manual_seed(0)
    return VisionMamba(SMALL, **{"img_size": 64, **changes})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vim_tiny", 7_148_008),
        ("vim_tiny_stride8", 7_250_344),
        ("vim_small", 25_796_584),
        ("vim_small_stride8", 26_001_256),
        ("vim_base", 97_598_440),
    ],
)
def test_named_models_have_the_published_parameter_counts(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(name).parameters()) == parameters


# The mixer.


def test_mixer_has_the_published_parameter_count() -> None:
    assert sum(p.numel() for p in BiMamba(24).parameters()) == 9120


def test_one_way_mixer_sees_the_past_alone() -> None:
    torch.manual_seed(0)
    mixer, x = BiMamba(16, d_state=4, bimamba_type="none"), torch.randn(2, 20, 16)
    changed = x.clone()
    changed[:, 12] += 1
    before, after = mixer(x), mixer(changed)
    assert torch.equal(before[:, :12], after[:, :12])
    assert ((before - after)[:, 12:].abs().amax((0, 2)) > 0).all()


def test_swapping_directions_and_reversing_the_input_reverses_the_output() -> None:
    torch.manual_seed(0)
    mixer, swapped, x = BiMamba(16), BiMamba(16), torch.randn(2, 20, 16)
    for p in mixer.parameters():
        nn.init.normal_(p, std=0.2)
    names = {name: name for name in mixer.state_dict()}
    for name in list(names):
        other = (
            name.replace("A_b_log", "A_log")
            if "A_b_log" in name
            else name.replace("_b.", ".").removesuffix("_b")
        )
        if other != name:
            names[name], names[other] = other, name
    swapped.load_state_dict({new: mixer.state_dict()[old] for new, old in names.items()})
    torch.testing.assert_close(swapped(x.flip(1)), mixer(x).flip(1))


def test_steps_begin_between_a_thousandth_and_a_tenth_on_the_way_forward() -> None:
    torch.manual_seed(0)
    mixer = BiMamba(64)
    steps = nn.functional.softplus(mixer.dt_proj.bias.detach())
    assert 0.0009 < float(steps.min()) < 0.005 < 0.05 < float(steps.max()) < 0.101
    assert float(mixer.dt_proj_b.bias.abs().max()) == 0
    torch.testing.assert_close(mixer.A_log.exp()[0], torch.arange(1.0, 17.0))


# Tokens and positions.


def test_class_token_is_read_in_the_middle_and_depends_on_every_patch() -> None:
    model = small().eval()
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    tokens, at, grid = model.embed(x)
    assert (at, grid) == ((8,), (4, 4))
    torch.testing.assert_close(tokens[0, 8], (model.cls_token + model.pos_embed[:, 8])[0, 0])
    model(x).square().sum().backward()
    by_patch = x.grad.abs().unfold(2, 16, 16).unfold(3, 16, 16).amax((0, 1, 4, 5))
    assert (by_patch > 0).all()


def test_resizing_a_position_table_keeps_the_class_row_in_the_middle() -> None:
    table = torch.zeros(1, 17, 2)
    table[:, 8] = 7
    resized = resize_table(table, "middle", (4, 4), (5, 6))
    assert resized.shape == (1, 31, 2)
    assert torch.equal(resized.abs().amax((0, 2)).nonzero()[:, 0], torch.tensor([15]))


def test_stride_16_checkpoint_becomes_a_stride_8_model() -> None:
    coarse, fine = small().eval(), small(stride=8).eval()
    with torch.no_grad():
        coarse.pos_embed[:, 8] = 9
    place(fine, coarse.state_dict())
    assert fine.pos_embed.shape[1] == 50
    assert torch.equal(fine.pos_embed[:, 24], coarse.pos_embed[:, 8])
    assert float(fine.pos_embed[:, [i for i in range(50) if i != 24]].abs().max()) < 1
    assert fine(torch.randn(1, 3, 64, 64)).isfinite().all()


def test_classifier_checkpoint_loads_into_a_backbone_of_any_grid() -> None:
    classifier = small()
    with torch.no_grad():
        classifier.pos_embed[:, 8] = 9
    same, larger = small_backbone(), small_backbone(img_size=(96, 64))
    place(same, classifier.state_dict())
    place(larger, classifier.state_dict())
    kept = [i for i in range(17) if i != 8]
    assert torch.equal(same.pos_embed, classifier.pos_embed[:, kept])
    assert larger.pos_embed.shape[1] == 24
    assert float(larger.pos_embed.abs().max()) < 1
    assert torch.equal(larger.layers[3].mixer.A_b_log, classifier.layers[3].mixer.A_b_log)


def test_checkpoint_of_another_width_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"pos_embed \[1, 17, 32\]|pos_embed is \[1, 17, 32\] and should be"):
        place(small(embed_dim=48), small().state_dict())


def test_class_tokens_at_both_ends() -> None:
    assert places("both", 9) == (0, 10)


# Shapes and switches.


@pytest.mark.parametrize("size", [(64, 64), (80, 48), (67, 101), (16, 40)])
def test_classifier_takes_any_size(size: tuple[int, int]) -> None:
    assert small().eval()(torch.randn(1, 3, *size)).shape == (1, 5)


SWITCHES: list[dict[str, Any]] = [
    {"class_token": "first"},
    {"class_token": "random"},
    {"class_token": "both"},
    {"class_token": "none", "pool": "none"},
    {"class_token": "none", "pool": "mean"},
    {"class_token": "none", "pool": "max"},
    {"shuffle_tokens": True},
    {"flip_ratio": 1.0},
    {"paired_layers": True, "bimamba_type": "none"},
    {"rope": True, "rope_residual": True},
    {"rms_norm": False},
    {"bimamba_type": "v1"},
    {"if_divide_out": False, "init_layer_scale": 0.1},
    {"patch_size": 8},
    {"stride": 8},
    {"drop_rate": 0.1, "drop_path_rate": 0.1},
    {"abs_pos_embed": False},
    {"with_cp": True},
    {"mixer": {"d_conv": 3, "expand": 1, "dt_rank": 3, "bias": True}},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_switch_trains_every_parameter(switches: dict[str, Any]) -> None:
    model = small(**switches).train()
    model(torch.randn(2, 3, 48, 64)).square().sum().backward()
    untouched = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert untouched == []


def test_all_tokens_can_be_classified() -> None:
    assert small(class_token="none", pool="all").eval()(torch.randn(1, 3, 64, 64)).shape == (1, 16, 5)


def test_random_places_follow_torchs_seed() -> None:
    model, x, seen = small(class_token="random", shuffle_tokens=True).eval(), torch.randn(1, 3, 64, 64), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        seen.append(model(x))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_drop_path_rates_are_shifted_by_one_block() -> None:
    model = small(drop_path_rate=0.3)
    rates = [block.drop_path.rate for block in model.layers]
    assert rates == pytest.approx([0, 0, 0.1, 0.2])
    assert model.drop_path.rate == 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "tinny"}, "unknown Vim arch 'tinny'; did you mean tiny"),
        ({"class_token": "midle"}, "did you mean middle"),
        ({"pool": "meen"}, "did you mean mean"),
        ({"embed_dimm": 3}, "unknown argument of Vim 'embed_dimm'; did you mean embed_dim"),
        ({"bimamba_type": "v3"}, "unknown bimamba_type"),
        ({"paired_layers": True, "depth": 3}, "even depth"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VisionMambaClassifier(**{"arch": {"embed_dim": 16, "depth": 2}, **arguments})


def test_an_image_smaller_than_a_patch_is_named() -> None:
    with pytest.raises(UserError, match="8 x 64 pixels is smaller than a patch of 16"):
        small()(torch.randn(1, 3, 8, 64))


# Precision, graphs, memory.


def test_bf16_autocast_stays_near_float32_and_keeps_the_stream_in_float32() -> None:
    model, x = small().eval(), torch.randn(2, 3, 64, 64)
    want = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        tokens, _, grid = model.embed(x)
        steps = list(model.walk(tokens, grid))
        got = model(x)
    assert {hidden.dtype for _, hidden, _ in steps} == {torch.bfloat16}
    assert {residual.dtype for _, _, residual in steps} == {torch.float32}
    assert float((got.float() - want).abs().max()) < 0.05 * float(want.abs().max())


def test_exports_and_gives_the_same_numbers() -> None:
    model, x = small().eval(), torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


def test_backbone_compiles_to_one_graph() -> None:
    model, x = small_backbone().eval(), torch.randn(1, 3, 64, 64)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for got, want in zip(compiled(x), model(x), strict=True):
            torch.testing.assert_close(got, want)


def test_no_tensor_grows_with_the_square_of_the_tokens() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, Tensor):
                    self.elements = max(self.elements, tensor.numel())
            return result

    model, counts = small().eval(), []
    with torch.no_grad():
        for side in (64, 256):  # 16 and 256 patches
            with Largest() as largest:
                model(torch.randn(1, 3, side, side))
            counts.append(largest.elements)
    assert counts[1] <= 17 * counts[0]
    tokens = 257
    assert counts[1] < tokens**2 * 4


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for with_cp in (False, True):
        model = small(with_cp=with_cp).train()
        torch.manual_seed(1)
        model(torch.randn(1, 3, 64, 64)).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


# Dense use.


def test_backbone_maps_are_what_feature_info_says() -> None:
    for changes, strides in (
        ({}, (4, 8, 16, 32)),
        ({"patch_size": 8}, (4, 8, 16, 32)),
        ({"fpn": False, "out_indices": (1, 3)}, (16, 16)),
        ({"out_indices": (2,)}, (4, 8, 16, 32)),
        ({"out_indices": (0, 1, 3)}, (4, 8, 16)),
        ({"stride": 8, "fpn": False}, (8, 8, 8, 8)),
    ):
        backbone = small_backbone(**changes).eval()
        assert tuple(info.stride for info in backbone.feature_info) == strides
        for m, info in zip(backbone(torch.randn(1, 3, 64, 64)), backbone.feature_info, strict=True):
            overlap = 1 if changes.get("stride") else 0
            assert m.shape == (1, info.channels, 64 // info.stride - overlap, 64 // info.stride - overlap)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("process", ["none", "add", "add & norm"])
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (2,), (3,), (0, 2)])
def test_every_feature_mode_trains_every_parameter(
    residual: bool, process: Any, out_indices: tuple[int, ...]
) -> None:
    backbone = small_backbone(
        use_residual_as_feature=residual, last_layer_process=process, out_indices=out_indices
    ).train()
    maps = backbone(torch.randn(2, 3, 48, 80))
    assert maps[0].shape == (2, 32, 12, 20)
    sum(m.square().sum() for m in maps).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_residual_features_are_sums_of_the_stream_and_hidden_ones_are_not() -> None:
    x = torch.randn(1, 3, 64, 64)
    hidden = small_backbone(fpn=False, out_indices=(0, 1)).eval()
    stream = small_backbone(fpn=False, out_indices=(0, 1), use_residual_as_feature=True).eval()
    (h0, h1), (s0, s1) = hidden(x), stream(x)
    torch.testing.assert_close(s1 - s0, h1)
    embedded = hidden.embed(x)[0].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(s0 - embedded, h0, atol=1e-5, rtol=1e-5)


def test_paired_layers_give_maps_after_each_pair() -> None:
    assert len(small_backbone(paired_layers=True, out_indices=(1, 3))(torch.randn(1, 3, 64, 64))) == 2
    with pytest.raises(UserError, match="must be odd"):
        small_backbone(paired_layers=True, out_indices=(0, 1))


@pytest.mark.parametrize("out_indices", [(), (1, 1), (3, 1), (0, 4), (-1, 2)])
def test_impossible_out_indices_are_named(out_indices: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="out_indices"):
        small_backbone(out_indices=out_indices)


def test_simple_feature_pyramid_gives_strides_4_to_64() -> None:
    backbone = small_backbone(
        fpn=False,
        out_indices=(3,),
        use_residual_as_feature=True,
        last_layer_process="add",
        rope=True,
        rope_residual=True,
    )
    neck = SimpleFeaturePyramid(32, 16)
    sizes = [tuple(m.shape[1:]) for m in neck(backbone(torch.randn(1, 3, 128, 64)))]
    assert sizes == [(16, 128 // s, 64 // s) for s in (4, 8, 16, 32, 64)]


def test_frozen_stages_keep_patches_positions_and_first_blocks() -> None:
    backbone = small_backbone(frozen_stages=2, drop_path_rate=0.2).train()
    frozen = {name.split(".")[0] + name.split(".")[1] if "layers" in name else name.split(".")[0]
              for name, p in backbone.named_parameters() if not p.requires_grad}  # fmt: skip
    assert frozen == {"patch_embed", "pos_embed", "layers0", "layers1"}
    assert not backbone.layers[1].training
    assert backbone.layers[2].training


def test_layer_depths_rise_from_patches_to_head() -> None:
    model = small()
    depths = {
        name: model.get_layer_depth("backbone." + name, "backbone.") for name, _ in model.named_parameters()
    }
    assert depths["patch_embed.proj.weight"] == depths["pos_embed"] == depths["cls_token"] == (0, 6)
    assert depths["layers.0.mixer.A_log"] == (1, 6)
    assert depths["layers.3.norm.weight"] == (4, 6)
    assert depths["head.weight"] == depths["norm_f.weight"] == (5, 6)


def test_positions_tokens_and_rates_are_not_decayed() -> None:
    kept = small().no_weight_decay()
    assert {"pos_embed", "cls_token", "layers.0.mixer.A_log", "layers.3.mixer.A_b_log"} <= kept
    assert not any(name.endswith("weight") for name in kept)


def test_registry_and_names_build_the_same_backbone() -> None:
    by_type = MODELS.build({"type": "opsin.VisionMamba", "arch": "tiny", "depth": 2, "img_size": 32})
    by_name = create_backbone("vim_tiny", depth=2, img_size=32)
    assert by_type.state_dict().keys() == by_name.state_dict().keys()
    assert [info.channels for info in by_type.feature_info] == [192] * len(by_type.feature_info)


def test_reset_classifier_and_features() -> None:
    model = small().eval()
    assert model.forward_features(torch.randn(2, 3, 64, 64)).shape == (2, model.num_features)
    model.reset_classifier(0)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 32)


def test_depth_scales_the_initial_output_projection() -> None:
    torch.manual_seed(0)
    bound = float(BiMamba(64, depth=16).out_proj.weight.abs().max())
    assert bound <= 1 / math.sqrt(128) / 4 + 1e-6
