import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.efficientvit import (
    ARCHS,
    Block,
    CascadedGroupAttention,
    EfficientViT,
    EfficientViTClassifier,
    WindowAttention,
    absolute_offset_index,
    windows_at,
)
from opsin.core.errors import UserError
from opsin.core.layers.conv_ffn import ConvFFN
from opsin.core.layers.efficientvit_fpn import EfficientViTFPN
from opsin.core.layers.squeezed_merging import SqueezedMerging
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {
    "dims": (16, 24, 32),
    "depths": (1, 1, 2),
    "num_heads": (2, 3, 2),
    "kernels": (5, 3, 3),
    "key_dims": (4, 4, 4),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(model: nn.Module) -> nn.Module:
    """The model with norms and bias tables away from the zeros and ones they begin with."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1 or name.endswith("attention_biases"):
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + noise if name.endswith(("var", "weight")) else noise - 0.5)
    return model


# Other runs of the authors' code


def case_of(
    source: str, model: nn.Module, outputs: list[str], *shapes: tuple[int, ...], **built_with
) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "efficientvit",
        "case": "other",
        "source": f"microsoft/Cream@4a13c40 EfficientViT/{source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
        "inputs": {f"x{i}": {"seed": i, "shape": shape} for i, shape in enumerate(shapes)},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


AUTHORS_SMALL = {
    "embed_dim": (16, 24, 32),
    "depth": (1, 1, 2),
    "num_heads": (2, 3, 2),
    "kernels": (5, 3, 3),
    "key_dim": (4, 4, 4),
}


@pytest.mark.parametrize("distillation", [False, True])
def test_other_classifier_cases_run(distillation):
    built_with = {**AUTHORS_SMALL, "window_size": (3, 7, 7), "img_size": 96, "num_classes": 5}
    model = EfficientViTClassifier(
        {**SMALL, "windows": (3, 7, 7)}, img_size=96, num_classes=5, distillation=distillation
    )
    case = case_of(
        "classification/model/efficientvit.py EfficientViT",
        model,
        ["stage1", "stage2", "stage3", "logits"],
        (1, 3, 96, 96),
        distillation=distillation,
        **built_with,
    )
    assert {name: tuple(found.shape) for name, found in find_adapter(case)(case).items()} == {
        "stage1": (1, 16, 6, 6),
        "stage2": (1, 24, 3, 3),
        "stage3": (1, 32, 2, 2),
        "features": (1, 32),
        "logits": (1, 5),
    }


@pytest.mark.parametrize("number", [0, 5])
def test_other_cases_run_by_the_name_of_their_factory(number):
    model = create_model(f"efficientvit_m{number}", num_classes=3)
    source = f"classification/model/build.py EfficientViT_M{number}"
    case = case_of(source, model, ["logits"], (1, 3, 224, 224), num_classes=3)
    assert find_adapter(case)(case)["logits"].shape == (1, 3)

    arch = {**ARCHS[f"m{number}"], "kernels": (7, 5, 3, 3)}  # the detectors' M0 has M5's
    source, names = f"downstream/efficientvit.py EfficientViT_M{number}", ["c3", "c4", "c5"]
    case = case_of(source, EfficientViT(arch), names, (1, 3, 64, 96), frozen_stages=-1)
    assert list(find_adapter(case)(case)) == names


@pytest.mark.parametrize(
    ("name", "module", "built_with", "channels"),
    [
        (
            "CascadedGroupAttention",
            CascadedGroupAttention(16, 2, key_dim=4, window=6, kernels=(5, 3)),
            {"dim": 16, "key_dim": 4, "num_heads": 2, "attn_ratio": 2, "resolution": 6, "kernels": (5, 3)},
            16,
        ),
        (
            "LocalWindowAttention",
            WindowAttention(16, 2, key_dim=4, window=6, kernels=(5, 3)),
            {"dim": 16, "key_dim": 4, "num_heads": 2, "attn_ratio": 2, "resolution": 6, "kernels": (5, 3)},
            16,
        ),
        (
            "EfficientViTBlock",
            Block(16, 2, 4, 4, (5, 3)),
            {"type": "s", "ed": 16, "kd": 4, "nh": 2, "ar": 2, "resolution": 6, "window_resolution": 4}
            | {"kernels": (5, 3)},
            16,
        ),
        ("PatchMerging", SqueezedMerging(16, 20), {"dim": 16, "out_dim": 20, "input_resolution": 6}, 20),
        ("FFN", ConvFFN(16, 40), {"ed": 16, "h": 40, "resolution": 6}, 16),
    ],
)
def test_cases_of_single_modules_run(name, module, built_with, channels):
    source = f"classification/model/efficientvit.py {name}"
    case = case_of(source, module, ["out"], (2, 16, 6, 6), **built_with)
    assert find_adapter(case)(case)["out"].shape[:2] == (2, channels)


@pytest.mark.parametrize(
    ("settings", "authors"),
    [
        ({"num_extra_trans_convs": 1, "add_extra_convs": "on_input"}, {}),
        ({"num_extra_trans_convs": 0, "add_extra_convs": "on_output"}, {}),
        ({"num_extra_trans_convs": 1, "add_extra_convs": True}, {"extra_convs_on_inputs": True}),
        ({"num_extra_trans_convs": 1, "start_level": 1}, {"conv_cfg": None, "norm_cfg": None}),
    ],
)
def test_other_cases_of_the_neck_run(settings, authors):
    widths = {"in_channels": [8, 12, 16], "out_channels": 6, "num_outs": 5}
    neck, names = EfficientViTFPN(**widths, **settings), ["p0", "p1", "p2", "p3", "p4"]
    shapes = [(1, 8, 9, 8), (1, 12, 5, 4), (1, 16, 3, 2)]
    source = "downstream/efficientvit_fpn.py EfficientViTFPN"
    case = case_of(source, neck, names, *shapes, **widths, **settings, **authors)
    found = find_adapter(case)(case)
    assert list(found) == names and all(level.shape[1] == 6 for level in found.values())


# Sizes


@pytest.mark.parametrize(
    ("number", "plain", "distilled", "dense"),
    [
        (0, 2_349_436, 2_542_820, 2_156_448),
        (1, 2_980_560, 3_173_944, 2_787_473),
        (2, 4_187_554, 4_413_002, 3_962_304),
        (3, 6_900_722, 7_222_362, 6_579_478),
        (4, 8_804_228, 9_189_996, 8_418_856),
        (5, 12_473_772, 12_859_540, 12_088_532),
    ],
)
def test_models_have_the_published_number_of_parameters(number, plain, distilled, dense):
    with torch.device("meta"):
        assert count(create_model(f"efficientvit_m{number}")) == plain
        assert count(create_model(f"efficientvit_m{number}", distillation=True)) == distilled
        assert count(create_backbone(f"efficientvit_m{number}")) == dense


def test_the_detectors_m0_has_the_kernels_of_the_larger_variants():
    with torch.device("meta"):
        assert count(EfficientViT({**ARCHS["m0"], "kernels": (7, 5, 3, 3)})) == 2_155_680


@pytest.mark.parametrize(("height", "width"), [(512, 320), (800, 1344), (97, 33)])
def test_dense_maps_have_the_stated_strides_and_channels(height, width):
    backbone = EfficientViT(SMALL).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, height, width))
    assert [(info.channels, info.stride) for info in backbone.feature_info] == [(16, 16), (24, 32), (32, 64)]
    for info, m in zip(backbone.feature_info, maps, strict=True):
        assert m.shape[1:] == (info.channels, -(-height // info.stride), -(-width // info.stride))


def test_windows_of_a_classifier_are_no_larger_than_its_maps():
    assert windows_at(224, (7, 7, 7)) == [7, 7, 4]
    assert windows_at(256, (7, 7, 7)) == [7, 7, 4]
    assert windows_at(64, (7, 7, 7)) == [4, 2, 1]
    assert windows_at(512, (7, 7, 7)) == [7, 7, 7]


# Attention


def test_bias_entries_are_numbered_by_first_appearance_and_depend_on_absolute_offsets():
    for side in (1, 4, 7):
        points = list(itertools.product(range(side), range(side)))
        offsets: dict[tuple[int, int], int] = {}
        expected = [
            [offsets.setdefault((abs(y - v), abs(x - u)), len(offsets)) for v, u in points] for y, x in points
        ]
        assert absolute_offset_index(side).tolist() == expected
    attention = shaken(CascadedGroupAttention(16, 2, window=4))
    bias = attention.attention_biases[:, attention.attention_bias_idxs]
    assert torch.equal(bias, bias.transpose(1, 2))
    assert bias[0, 0, 6] == bias[0, 3, 5] == bias[0, 9, 15]  # all one row and two columns apart


def heads_of(attention: CascadedGroupAttention, x: Tensor) -> Tensor:
    """What the heads give, before ReLU and projection."""
    seen = []
    hook = attention.proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    attention(x)
    hook.remove()
    return seen[0]


@torch.no_grad()
@pytest.mark.parametrize("head", [0, 1, 2, 3])
def test_a_heads_input_reaches_it_and_later_heads_only(head):
    attention = shaken(CascadedGroupAttention(32, 4, key_dim=4, window=5)).eval()
    x = torch.randn(2, 32, 5, 5)
    other = x.clone()
    other[:, 8 * head : 8 * head + 8] += 1
    changed = [
        not torch.equal(a, b)
        for a, b in zip(
            heads_of(attention, x).split(8, 1), heads_of(attention, other).split(8, 1), strict=True
        )
    ]
    assert changed == [index >= head for index in range(4)]


@torch.no_grad()
def test_cascade_is_written_out_attention_head_by_head():
    attention = shaken(CascadedGroupAttention(12, 2, key_dim=4, window=3, kernels=(5, 3))).eval()
    x = torch.randn(1, 12, 3, 3)
    outputs: list[Tensor] = []
    for head, (qkv, dw) in enumerate(zip(attention.qkvs, attention.dws, strict=True)):
        feature = x[:, 6 * head : 6 * head + 6] + (outputs[-1] if outputs else 0)
        q, k, v = qkv(feature).split([4, 4, 6], dim=1)
        q, k, v = dw(q)[0].flatten(1), k[0].flatten(1), v[0].flatten(1)
        bias = attention.attention_biases[head, absolute_offset_index(3)]
        weights = (q.T @ k / 2 + bias).softmax(1)  # the square root of 4 query channels is 2
        outputs.append((v @ weights.T).view(1, 6, 3, 3))
    assert torch.allclose(heads_of(attention, x), torch.cat(outputs, 1), atol=1e-5)
    assert torch.allclose(attention(x), attention.proj[1](torch.cat(outputs, 1).relu()), atol=1e-5)


@torch.no_grad()
def test_padding_is_below_and_on_the_right_and_takes_part_in_the_softmax():
    windowed = shaken(WindowAttention(16, 2, key_dim=4, window=4, kernels=(3, 3))).eval()
    x = torch.randn(1, 16, 6, 5)
    padded = F.pad(x, (0, 3, 0, 2))
    whole = torch.cat(
        [
            torch.cat([windowed.attn(padded[:, :, y : y + 4, x0 : x0 + 4]) for x0 in (0, 4)], 3)
            for y in (0, 4)
        ],
        2,
    )
    assert torch.allclose(windowed(x), whole[:, :, :6, :5], atol=1e-5)
    alone = windowed.attn(padded[:, :, :4, :4])
    assert torch.allclose(windowed(x)[:, :, :4, :4], alone, atol=1e-5)  # windows don't see each other


@torch.no_grad()
def test_biases_changed_in_evaluation_mode_count_at_once():
    model = shaken(EfficientViT(SMALL)).eval()
    image = torch.randn(1, 3, 64, 64)
    before = model(image)[0]
    model.blocks1[0].mixer.m.attn.attention_biases.mul_(5)
    in_place = model(image)[0]
    fresh = EfficientViT(SMALL).eval()
    fresh.load_state_dict(model.state_dict())
    assert not torch.allclose(in_place, before, atol=1e-3)
    assert torch.equal(in_place, fresh(image)[0])


@pytest.mark.parametrize("training", [True, False])
def test_fresh_blocks_return_what_comes_in(training):
    block = Block(16, 2, 4, 7, (5, 3)).train(training)
    x = torch.randn(2, 16, 9, 7)
    assert torch.equal(block(x), x)


@torch.no_grad()
@pytest.mark.parametrize("distillation", [False, True])
def test_folding_leaves_the_logits_and_no_batch_norm(distillation):
    torch.manual_seed(0)
    model = shaken(EfficientViTClassifier(SMALL, num_classes=5, distillation=distillation)).eval()
    image = torch.randn(2, 3, 96, 64)
    before = model(image)
    assert (model.fuse()(image) - before).abs().max() < 1e-4
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def test_bias_tables_do_not_decay():
    model = EfficientViTClassifier(SMALL)
    assert model.no_weight_decay() == {n for n, _ in model.named_parameters() if "attention_biases" in n}
    assert len(model.no_weight_decay()) == 4


# Checkpoints in the layouts that people have


def with_index_tables(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors and the index tables that the authors' files hold too."""
    tables = {
        name.replace("attention_biases", "attention_bias_idxs"): torch.zeros(tensor.shape[1], tensor.shape[1])
        for name, tensor in tensors.items()
        if name.endswith("attention_biases")
    }
    return {**tensors, **tables}


def to_timm(name: str) -> str:
    name = re.sub(r"^patch_embed\.(\d)\.", lambda m: f"patch_embed.conv{int(m[1]) // 2 + 1}.", name)
    name = re.sub(r"\.c\.weight$", ".conv.weight", name).replace("head.l.", "head.linear.")
    block = re.match(r"blocks(\d)\.(\d+)\.(.*)", name)
    if block is None:
        return name
    stage, position, rest = int(block[1]) - 1, int(block[2]), block[3]
    if stage and position < 3:
        return f"stages.{stage}.downsample.{('res1', 'patchmerge', 'res2')[position]}.{rest}"
    return f"stages.{stage}.blocks.{position - (3 if stage else 0)}.{rest}"


@pytest.mark.parametrize("rename", [str, to_timm], ids=["authors", "timm"])
def test_a_classifiers_file_loads_and_only_smaller_bias_tables_are_resized(tmp_path, rename):
    torch.manual_seed(0)
    source = shaken(EfficientViTClassifier(SMALL, num_classes=4)).eval()
    tensors = source.state_dict()
    renamed = {rename(name): tensor for name, tensor in with_index_tables(tensors).items()}
    torch.save({"model": renamed}, tmp_path / "published.pth")
    image = torch.randn(1, 3, 96, 96)
    target = load_published(EfficientViTClassifier(SMALL, num_classes=4), tmp_path / "published.pth").eval()
    assert torch.equal(target(image), source(image))

    dense = load_published(EfficientViT(SMALL), tmp_path / "published.pth").state_dict()
    resized = {name for name, tensor in dense.items() if not torch.equal(tensor, tensors.get(name, tensor))}
    shapes = {name for name, tensor in dense.items() if tensor.shape != tensors[name].shape}
    assert resized == shapes == {f"blocks3.{i}.mixer.m.attn.attention_biases" for i in (3, 4)}
    name = "blocks3.3.mixer.m.attn.attention_biases"
    expected = F.interpolate(tensors[name].view(1, 2, 4, 4), size=(7, 7), mode="bicubic").view(2, 49)
    assert torch.equal(dense[name], expected)


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source, neck = shaken(EfficientViT(SMALL)), EfficientViTFPN((16, 24, 32), 8, num_extra_trans_convs=2)
    tensors = {f"backbone.{name}": t for name, t in with_index_tables(source.state_dict()).items()}
    tensors |= {f"neck.{name}": tensor for name, tensor in neck.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "detector.pth")
    target = load_published(EfficientViT(SMALL), tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_tables_of_another_number_of_heads_are_refused(tmp_path):
    torch.save(
        EfficientViT({**SMALL, "num_heads": (2, 3, 4), "kernels": (5, 3, 3, 3)}).state_dict(),
        path := tmp_path / "m.pth",
    )
    with pytest.raises(UserError, match=r"attention_biases is \[4, 49\] and should be \[2, 49\]"):
        load_published(EfficientViT(SMALL), path)


# Neck


def neck_and_maps(**settings) -> tuple[EfficientViTFPN, list[Tensor]]:
    torch.manual_seed(0)
    neck = EfficientViTFPN((8, 12, 16), 6, **settings)
    return neck, [torch.randn(1, 8, 12, 10), torch.randn(1, 12, 6, 5), torch.randn(1, 16, 3, 3)]


@pytest.mark.parametrize(
    ("settings", "sides"),
    [
        ({"num_outs": 5, "num_extra_trans_convs": 2}, [(48, 40), (24, 20), (12, 10), (6, 5), (3, 3)]),
        ({"num_outs": 5, "num_extra_trans_convs": 1}, [(24, 20), (12, 10), (6, 5), (3, 3), (2, 2)]),
        ({"num_outs": 5, "add_extra_convs": "on_lateral"}, [(12, 10), (6, 5), (3, 3), (2, 2), (1, 1)]),
        ({"num_outs": 3}, [(12, 10), (6, 5), (3, 3)]),
        ({"num_outs": 3, "start_level": 1, "num_extra_trans_convs": 1}, [(12, 10), (6, 5), (3, 3)]),
        ({"num_outs": 3, "end_level": 2, "num_extra_trans_convs": 1}, [(24, 20), (12, 10), (6, 5)]),
    ],
)
def test_levels_of_the_neck_come_largest_first(settings, sides):
    neck, maps = neck_and_maps(**settings)
    assert [tuple(level.shape[1:]) for level in neck(maps)] == [(6, *side) for side in sides]


@torch.no_grad()
def test_larger_levels_follow_the_finished_lateral_one_after_the_other():
    neck, maps = neck_and_maps(num_extra_trans_convs=2)
    laterals = [conv(m) for conv, m in zip(neck.lateral_convs, maps, strict=True)]
    laterals[1] += F.interpolate(laterals[2], size=(6, 5))
    laterals[0] += F.interpolate(laterals[1], size=(12, 10))
    double = neck.extra_trans_convs[0](laterals[0])
    levels = neck(maps)
    assert torch.allclose(levels[1], neck.extra_fpn_convs[1](double), atol=1e-6)
    assert torch.allclose(levels[0], neck.extra_fpn_convs[0](neck.extra_trans_convs[1](double)), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("relu", [False, True])
def test_coarser_levels_are_convolved_from_what_add_extra_convs_names(relu):
    settings = {"num_outs": 5, "relu_before_extra_convs": relu}
    for source, width in (("on_input", 16), ("on_lateral", 6), ("on_output", 6)):
        neck, maps = neck_and_maps(add_extra_convs=source, **settings)
        start = {"on_input": maps[2], "on_lateral": neck.lateral_convs[2](maps[2])}
        levels = neck(maps)
        first = neck.fpn_convs[3](start.get(source, levels[2]))
        assert neck.fpn_convs[3].conv.in_channels == width
        assert torch.allclose(levels[3], first, atol=1e-6)
        assert torch.allclose(levels[4], neck.fpn_convs[4](first.relu() if relu else first), atol=1e-6)
    plain, maps = neck_and_maps(num_outs=5)
    levels = plain(maps)
    assert torch.equal(levels[3], levels[2][:, :, ::2, ::2])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EfficientViT("m6"), "m6.*m5"),
        (lambda: EfficientViT({**SMALL, "depths": (1, 1)}), "2 depths"),
        (lambda: EfficientViT({**SMALL, "num_heads": (2, 5, 2)}), "5 heads.*24 channels"),
        (lambda: EfficientViT({**SMALL, "kernels": (3, 3)}), "kernels .* 3 heads"),
        (lambda: EfficientViT(SMALL, out_indices=(3,)), "out_indices"),
        (lambda: EfficientViTFPN((8, 8, 8), num_outs=4, num_extra_trans_convs=2), "num_outs=4.*at least 5"),
        (lambda: EfficientViTFPN((8, 8), add_extra_convs="on_inputs"), "on_inputs.*on_input"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
