import re

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_backbone, create_model
from opsin.core.backbones.crossvit import (
    CrossAttention,
    CrossBlock,
    CrossViT,
    CrossViTClassifier,
    CrossViTSettings,
    MultiScaleBlock,
    PatchEmbed,
)
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {
    "embed_dim": (8, 16),
    "depth": ((1, 2, 0), (1, 1, 0)),
    "num_heads": (2, 4),
    "mlp_ratio": (2, 3),
    "img_size": (60, 48),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def case_of(
    source: str,
    model: nn.Module,
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
    built_with: dict,
) -> dict[str, torch.Tensor]:
    """What the adapter makes of a case as another run of the authors' code would give it."""
    meta = {
        "system": "crossvit",
        "case": "other",
        "source": f"IBM/CrossViT@3f7ab77 models/crossvit.py {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
        "inputs": {name: {"seed": 1, "shape": shape} for name, shape in inputs.items()},
        "outputs": dict.fromkeys(outputs),
    }
    got = find_adapter(Case(meta, {}))(Case(meta, {}))
    assert {name: list(got[name].shape) for name in outputs} == outputs
    return dict(got)


@pytest.mark.parametrize("cross_depth", [0, 1, 2])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_other_encoder_cases_run(cross_depth, qkv_bias):
    depth = [2, 1, cross_depth]
    settings = CrossViTSettings((8, 16), (depth,), (2, 4), (2, 3), qkv_bias=qkv_bias)
    given = {"dim": [8, 16], "patches": [9, 4], "depth": depth, "num_heads": [2, 4], "mlp_ratio": [2, 3, 1]}
    case_of(
        "MultiScaleBlock",
        MultiScaleBlock(settings, depth, ()),
        {"a": [2, 10, 8], "b": [2, 5, 16]},
        {"first": [2, 10, 8], "second": [2, 5, 16]},
        {**given, "qkv_bias": qkv_bias, "drop_path": [0.0, 0.0]},
    )


@pytest.mark.parametrize("classes", [0, 5])
def test_other_classifier_cases_run(classes):
    changes = {"img_size": [48, 32], "multi_conv": True, "depth": [[1, 1, 2]], "in_channels": 1}
    model = CrossViTClassifier(SMALL, num_classes=classes, **changes)
    given = {name: value for name, value in {**SMALL, **changes}.items() if name != "in_channels"}
    outputs = {"cls_small": [1, 8], "cls_large": [1, 16]}
    case_of(
        "VisionTransformer",
        model,
        {"image": [1, 1, 40, 40]},
        outputs | ({"logits": [1, 5]} if classes else {}),
        {**given, "mlp_ratio": [2, 3, 1], "in_chans": 1, "num_classes": classes, "patch_size": [12, 16]},
    )


def test_classifier_cases_run_by_the_name_of_their_factory():
    model = create_model("crossvit_tiny", num_classes=3)
    case_of("crossvit_tiny_224", model, {"x": [1, 3, 240, 240]}, {"logits": [1, 3]}, {})


def test_cases_of_parts_run():
    given = {"dim": 16, "num_heads": 4}
    attention, block = CrossAttention(16, 4, qkv_bias=False), CrossBlock(16, 4, qkv_bias=True)
    case_of("CrossAttention", attention, {"x": [2, 7, 16]}, {"out": [2, 1, 16]}, given)
    case_of("CrossAttentionBlock", block, {"x": [2, 7, 16]}, {"out": [2, 1, 16]}, given)
    for patch, multi_conv in ((12, True), (16, True), (8, False)):
        settings = CrossViTSettings(
            (8, 8), ((0, 0, 0),), (1, 1), (1, 1), patch_size=(patch, patch), multi_conv=multi_conv
        )
        size = {"x": [1, 3, 2 * patch, 2 * patch]}
        built_with = {"patch_size": patch, "embed_dim": 8, "multi_conv": multi_conv}
        case_of("PatchEmbed", PatchEmbed(settings, 0), size, {"out": [1, 4, 8]}, built_with)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("crossvit_tiny", 7_014_800),
        ("crossvit_small", 26_856_272),
        ("crossvit_base", 105_025_232),
        ("crossvit_9", 8_553_296),
        ("crossvit_9_dagger", 8_776_592),
        ("crossvit_15", 27_528_464),
        ("crossvit_15_dagger", 28_209_008),
        ("crossvit_18", 43_271_408),
        ("crossvit_18_dagger", 44_266_976),
        ("crossvit_15_dagger_384", 28_500_080),
        ("crossvit_18_dagger_384", 44_606_560),
    ],
)
def test_classifiers_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters


@torch.no_grad()
def test_patch_tokens_leave_an_encoder_without_knowing_the_other_branch():
    torch.manual_seed(0)
    encoder = MultiScaleBlock(CrossViTSettings.of(SMALL, {}), (1, 2, 0), ()).eval()
    small, large = torch.randn(1, 10, 8), torch.randn(1, 5, 16)
    before, other = encoder(small, large), encoder(small, torch.randn(1, 5, 16))
    assert torch.equal(before[0][:, 1:], other[0][:, 1:])
    assert not torch.allclose(before[0][:, 0], other[0][:, 0])
    other = encoder(torch.randn(1, 10, 8), large)
    assert torch.equal(before[1][:, 1:], other[1][:, 1:])
    assert not torch.allclose(before[1][:, 0], other[1][:, 0])


@torch.no_grad()
def test_both_class_tokens_ask_the_tokens_from_before_the_exchange():
    torch.manual_seed(0)
    encoder = MultiScaleBlock(CrossViTSettings.of(SMALL, {}), (0, 0, 0), ()).eval()
    small, large = torch.randn(1, 10, 8), torch.randn(1, 5, 16)
    changed = torch.cat((torch.randn(1, 1, 8), small[:, 1:]), 1)
    # only the other branch's patch tokens are asked, so its class token changes nothing
    assert torch.allclose(encoder(small, large)[1], encoder(changed, large)[1])


def operations(tokens: int) -> int:
    layer = CrossAttention(16, 4)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.randn(1, tokens, 16))
    return counter.get_total_flops()


def test_cross_attention_costs_the_same_for_every_further_token():
    counts = [operations(tokens) for tokens in (100, 200, 300)]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0


@torch.no_grad()
def test_a_second_cross_block_sees_the_class_token_alone():
    torch.manual_seed(0)
    encoder = MultiScaleBlock(CrossViTSettings.of(SMALL, {}), (0, 0, 2), ()).eval()
    seen = []
    encoder.fusion[0][1].register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    encoder(torch.randn(1, 10, 8), torch.randn(1, 5, 16))
    assert seen == [(1, 1, 16)]


@pytest.mark.parametrize("size", [(60, 60), (48, 48), (65, 97)])
@torch.no_grad()
def test_a_branch_resizes_the_image_only_if_it_must(size):
    model = CrossViTClassifier(SMALL, num_classes=3).eval()
    seen = []
    for embed in model.patch_embed:
        embed.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    image = torch.randn(1, 3, *size)
    assert model(image).isfinite().all()
    assert [tuple(x.shape[2:]) for x in seen] == [(60, 60), (48, 48)]
    assert [x is image for x in seen] == [size == (60, 60), size == (48, 48)]


@torch.no_grad()
def test_without_the_exchange_the_logits_are_others():
    torch.manual_seed(0)
    model = CrossViTClassifier(SMALL, num_classes=3).eval()
    image = torch.randn(1, 3, 60, 60)
    before = model(image)
    for encoder in model.blocks:
        encoder._exchange = lambda branch, own, other: own
    assert not torch.allclose(model(image), before, atol=1e-4)


@pytest.mark.parametrize("branch", [0, 1])
def test_the_class_token_of_one_branch_learns_from_both_images(branch):
    torch.manual_seed(0)
    model = CrossViTClassifier(SMALL, num_classes=3)
    parts = model.forward_features(torch.randn(2, 3, 60, 60)).split(SMALL["embed_dim"], 1)
    (parts[branch] * torch.randn_like(parts[branch])).sum().backward()
    assert all(embed.proj.weight.grad.abs().sum() > 0 for embed in model.patch_embed)


@torch.no_grad()
def test_logits_are_the_mean_of_both_heads():
    torch.manual_seed(0)
    model = CrossViTClassifier(SMALL, num_classes=3).eval()
    features = model.forward_features(torch.randn(2, 3, 60, 60))
    small, large = (head(part) for head, part in zip(model.head, features.split((8, 16), 1), strict=True))
    assert torch.allclose(model.forward_head(features), (small + large) / 2)


def test_drop_path_grows_over_the_blocks_of_the_large_branch():
    model = CrossViTClassifier({**SMALL, "depth": ((1, 2, 0), (3, 1, 1))}, drop_path_rate=0.3)
    blocks = [
        [[block.drop_path.rate for block in branch] for branch in encoder.blocks] for encoder in model.blocks
    ]
    approx = pytest.approx
    assert blocks[0] == [[approx(0)], [approx(0), approx(0.1)]]
    assert blocks[1] == [[approx(0.2), approx(0.3), approx(0.3)], [approx(0.2)]]
    assert model.blocks[0].fusion[0].drop_path.rate == approx(0.1)
    assert model.blocks[1].fusion[1][0].drop_path.rate == approx(0.3)


def test_position_tables_and_class_tokens_do_not_decay():
    names = {"pos_embed.0", "pos_embed.1", "cls_token.0", "cls_token.1"}
    assert CrossViTClassifier(SMALL).no_weight_decay() == CrossViT(SMALL).no_weight_decay() == names


# The dense form


@torch.no_grad()
def test_branch_maps_are_the_classifiers_patch_tokens():
    torch.manual_seed(0)
    classifier = CrossViTClassifier(SMALL).eval()
    backbone = CrossViT(SMALL, fpn=False).eval()
    backbone.load_state_dict(backbone.from_published(classifier.state_dict()))
    image = torch.randn(1, 3, 60, 60)
    tokens = classifier.tokens(image, [(60, 60), (48, 48)])
    maps = backbone(image)
    assert [tuple(m.shape) for m in maps] == [(1, 8, 5, 5), (1, 16, 3, 3)]
    for m, norm, branch in zip(maps, classifier.norm, tokens, strict=True):
        assert torch.allclose(m.flatten(2).transpose(1, 2), norm(branch[:, 1:]), atol=1e-5)


def test_branch_maps_keep_the_ratio_of_the_published_images():
    with torch.device("meta"):
        backbone = create_backbone("crossvit_9", fpn=False)
        maps = backbone(torch.empty(1, 3, 240, 480))
    assert [tuple(m.shape) for m in maps] == [(1, 128, 20, 40), (1, 256, 14, 28)]
    assert [(info.channels, info.stride) for info in backbone.feature_info] == [(128, 12), (256, 17)]


def test_fine_levels_come_from_small_patches_and_coarse_ones_from_large():
    backbone = CrossViT(SMALL)
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 24), (8, 8, 12), (16, 4, 6), (16, 2, 3)]
    assert [(info.channels, info.stride) for info in backbone.feature_info] == [
        (8, 4),
        (8, 8),
        (16, 16),
        (16, 32),
    ]


@torch.no_grad()
@pytest.mark.parametrize(("fpn", "index"), [(False, 1), (True, 1), (True, 2)])
def test_one_map_is_the_same_as_among_all(fpn, index):
    torch.manual_seed(0)
    whole, part = CrossViT(SMALL, fpn=fpn).eval(), CrossViT(SMALL, fpn=fpn, out_indices=(index,)).eval()
    own, image = part.state_dict(), torch.randn(1, 3, 64, 96)
    part.load_state_dict({name: whole.state_dict()[name] for name in own})
    assert len(own) < len(whole.state_dict())
    (alone,) = part(image)
    assert torch.allclose(alone, whole(image)[index], atol=1e-6)


# Checkpoints in the layouts that people have


def to_timm(name: str) -> str:
    return re.sub(r"^(pos_embed|cls_token)\.", r"\1_", name)


@pytest.mark.parametrize("wrapper", [None, "model"])
@pytest.mark.parametrize("rename", [str, to_timm], ids=["authors", "timm"])
def test_published_files_load_into_classifier_and_backbone(tmp_path, rename, wrapper):
    torch.manual_seed(0)
    source = CrossViTClassifier(SMALL, num_classes=4)
    tensors = {rename(name): tensor for name, tensor in source.state_dict().items()}
    training = {"model": tensors, "optimizer": {}, "epoch": 3, "scaler": {}, "max_accuracy": 70.0}
    torch.save(training if wrapper else tensors, tmp_path / "published.pth")
    image = torch.randn(1, 3, 60, 60)

    target = load_published(CrossViTClassifier(SMALL, num_classes=4), tmp_path / "published.pth")
    assert torch.equal(target.eval()(image), source.eval()(image))
    backbone = load_published(CrossViT(SMALL, out_indices=(2, 3)), tmp_path / "published.pth")
    assert torch.equal(backbone.norm["1"].weight, source.norm[1].weight)
    assert torch.equal(backbone.pos_embed[0], source.pos_embed[0])


def test_position_tables_are_resized_to_larger_images(tmp_path):
    torch.manual_seed(0)
    source = CrossViTClassifier(SMALL, num_classes=4)
    torch.save(source.state_dict(), tmp_path / "small.pth")
    larger = load_published(
        CrossViTClassifier(SMALL, num_classes=4, img_size=(120, 96)), tmp_path / "small.pth"
    )
    for table, own, grid in zip(larger.pos_embed, source.pos_embed, (5, 3), strict=True):
        assert torch.equal(table[:, :1], own[:, :1])
        square = own[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
        resized = nn.functional.interpolate(square, size=(2 * grid, 2 * grid), mode="bicubic")
        assert torch.equal(table[:, 1:], resized.flatten(2).transpose(1, 2))


def test_another_models_file_is_refused_with_the_first_difference(tmp_path):
    torch.save(CrossViTClassifier(SMALL, num_classes=4).state_dict(), tmp_path / "small.pth")
    deeper = {**SMALL, "depth": ((1, 2, 0), (1, 2, 0))}
    with pytest.raises(UserError, match=r"small\.pth.*blocks\.1\.blocks\.1\.1\.norm1\.weight.* is missing"):
        load_published(CrossViTClassifier(deeper, num_classes=4), tmp_path / "small.pth")
    with pytest.raises(UserError, match=r"blocks\.1\.blocks\.1\.0\.norm1\.weight.* is left over"):
        load_published(CrossViT({**SMALL, "depth": ((1, 2, 0), (1, 0, 0))}), tmp_path / "small.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CrossViT("tinny"), "tinny.*tiny"),
        (lambda: CrossViT(SMALL, patch_sizes=(8, 16)), "patch_sizes.*patch_size"),
        (lambda: CrossViT({"embed_dim": (8, 16)}), "lacks depth, num_heads, mlp_ratio"),
        (lambda: CrossViT({**SMALL, "num_heads": (3, 4)}), "3 heads do not divide a width of 8"),
        (lambda: CrossViT({**SMALL, "depth": ((1, 2),)}), "three numbers"),
        (lambda: CrossViT(SMALL, out_indices=(0, 4)), r"0\.\.3"),
        (lambda: CrossViT(SMALL, fpn=False, out_indices=(2,)), r"0\.\.1"),
        (lambda: CrossViT(SMALL, multi_conv=True, patch_size=(8, 16)), "12 or 16 pixels, not of 8"),
        (lambda: CrossViT(SMALL, multi_conv=True, img_size=(64, 48)), "64 is no multiple"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
