import re

import pytest
import torch
from torch import Tensor, nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.shvit import Block, SHViT, SHViTClassifier, SingleHeadAttention
from opsin.core.errors import UserError
from opsin.core.layers.conv_ffn import ConvFFN
from opsin.core.layers.residual import ResidualDepthwise
from opsin.core.layers.squeezed_merging import SqueezedMerging
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {"dims": (16, 24, 32), "depths": (1, 2, 1), "partial_dims": (4, 6, 8)}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(model: nn.Module) -> nn.Module:
    """The model with weights and statistics of its norms away from the zeros and ones they begin with."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1:
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + noise if name.endswith(("var", "weight")) else noise - 0.5)
    return model


# Other runs of the authors' code


def case_of(source: str, model: nn.Module, outputs: list[str], shape: tuple[int, ...], **built_with) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "shvit",
        "case": "other",
        "source": f"ysj9909/SHViT@6a729cc {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
        "inputs": {"x": {"seed": 1, "shape": shape}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


AUTHORS_SMALL = {"embed_dim": (16, 24, 32), "depth": (1, 2, 1), "partial_dim": (4, 6, 8)}


@pytest.mark.parametrize("outputs", [["stage1", "stage2", "stage3", "logits"], ["features"], ["out"]])
@pytest.mark.parametrize("distillation", [False, True])
def test_other_classifier_cases_run(outputs, distillation):
    arch = {**SMALL, "types": ("s", "i", "s"), "qk_dims": (4, 8, 8)}
    model = SHViTClassifier(arch, num_classes=5, in_channels=2, distillation=distillation)
    other = {"types": ["s", "i", "s"], "qk_dim": [4, 8, 8], "num_classes": 5, "in_chans": 2}
    source = "model/shvit.py SHViT"
    built_with = {**AUTHORS_SMALL, **other, "distillation": distillation}
    case = case_of(source, model, outputs, (1, 2, 70, 100), **built_with)
    shapes = {name: tuple(found.shape) for name, found in find_adapter(case)(case).items()}
    known = {"stage1": (1, 16, 5, 7), "stage3": (1, 32, 2, 2), "features": (1, 32), "logits": (1, 5)}
    assert shapes.items() >= (known if outputs != ["out"] else {"out": (1, 5)}).items()


@pytest.mark.parametrize("outputs", [["stage1", "stage2", "stage3"], ["c3", "c4", "c5"]])
def test_other_detector_cases_run(outputs):
    built_with = {**AUTHORS_SMALL, "types": ["i", "s", "s"], "img_size": 64, "frozen_stages": -1}
    case = case_of(
        "downstream/shvit.py Partial_ViT_Exp", SHViT(SMALL), outputs, (1, 3, 70, 100), **built_with
    )
    found = find_adapter(case)(case)
    assert [tuple(found[name].shape) for name in outputs] == [(1, 16, 5, 7), (1, 24, 3, 4), (1, 32, 2, 2)]


def test_other_classifier_cases_run_by_the_name_of_their_factory():
    model = create_model("shvit_s2", num_classes=3)
    case = case_of("model/build.py shvit_s2", model, ["logits"], (1, 3, 64, 64), num_classes=3)
    assert find_adapter(case)(case)["logits"].shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "module", "built_with", "channels"),
    [
        ("SHSA", SingleHeadAttention(16, 6, 4), {"dim": 16, "pdim": 6, "qk_dim": 4}, 16),
        (
            "BasicBlock",
            Block(16, 6, 4, attends=True),
            {"dim": 16, "pdim": 6, "qk_dim": 4, "type": "s"},
            16,
        ),
        (
            "BasicBlock",
            Block(16, 6, 4, attends=False),
            {"dim": 16, "pdim": 6, "qk_dim": 4, "type": "i"},
            16,
        ),
        ("PatchMerging", SqueezedMerging(16, 20), {"dim": 16, "out_dim": 20}, 20),
        ("FFN", ConvFFN(16, 40), {"ed": 16, "h": 40}, 16),
    ],
)
def test_cases_of_single_modules_run(name, module, built_with, channels):
    case = case_of(f"model/shvit.py {name}", module, ["out"], (2, 16, 9, 6), **built_with)
    assert find_adapter(case)(case)["out"].shape[:2] == (2, channels)


# Sizes


@pytest.mark.parametrize(
    ("name", "plain", "distilled", "no_head"),
    [
        ("shvit_s1", 6_330_808, 6_652_448, 6_009_168),
        ("shvit_s2", 11_483_072, 11_932_968, 11_033_176),
        ("shvit_s3", 14_245_273, 14_695_169, 13_795_377),
        ("shvit_s4", 16_588_484, 17_038_380, 16_138_588),
    ],
)
def test_models_have_the_published_number_of_parameters(name, plain, distilled, no_head):
    with torch.device("meta"):
        assert count(create_model(name)) == plain
        assert count(create_model(name, distillation=True)) == distilled
        assert count(create_model(name, num_classes=0)) == no_head
        assert count(create_backbone(name)) == no_head


def test_squeeze_width_is_rounded_to_a_multiple_of_eight():
    widths = {dim: SqueezedMerging(dim, 8).se.fc1.out_channels for dim in (4, 12, 128, 308)}
    assert widths == {4: 8, 12: 16, 128: 128, 308: 312}


@pytest.mark.parametrize(("height", "width"), [(224, 224), (256, 256), (320, 192), (417, 289)])
def test_map_sides_round_up(height, width):
    backbone = SHViT(SMALL).eval()
    maps = backbone(torch.randn(1, 3, height, width))
    strides = [info.stride for info in backbone.feature_info]
    assert strides == [16, 32, 64]
    assert [tuple(m.shape[2:]) for m in maps] == [(-(-height // s), -(-width // s)) for s in strides]
    assert [m.shape[1] for m in maps] == [16, 24, 32]


# Attention


@torch.no_grad()
def test_bypassing_channels_change_the_output_but_not_the_attention():
    attention = shaken(SingleHeadAttention(16, 6, 4)).eval()
    seen = []
    attention.qkv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.randn(2, 16, 5, 7)
    other = x.clone()
    other[:, 6:] += 1
    assert not torch.allclose(attention(x), attention(other))
    assert torch.equal(*seen)


@torch.no_grad()
def test_permuting_places_permutes_the_output():
    attention = shaken(SingleHeadAttention(16, 6, 4)).eval()
    x, order = torch.randn(2, 16, 5, 7), torch.randperm(35)

    def permuted(m: Tensor) -> Tensor:
        return m.flatten(2)[:, :, order].view(m.shape)

    assert torch.allclose(attention(permuted(x)), permuted(attention(x)), atol=1e-5)


@torch.no_grad()
def test_attention_is_written_out_softmax_of_queries_and_keys():
    attention = shaken(SingleHeadAttention(16, 6, 4)).eval()
    x = torch.randn(1, 16, 3, 4)
    mean, variance = x[:, :6].mean(), x[:, :6].var(correction=0)
    normed = (x[:, :6] - mean) / (variance + 1e-5).sqrt()
    normed = normed * attention.pre_norm.weight.view(-1, 1, 1) + attention.pre_norm.bias.view(-1, 1, 1)
    q, k, v = attention.qkv(normed).flatten(2)[0].split([4, 4, 6])
    attended = v @ (q.T @ k / 2).softmax(1).T  # the square root of 4 query channels is 2
    joined = torch.cat([attended.view(1, 6, 3, 4), x[:, 6:]], dim=1)
    assert torch.allclose(attention(x), attention.proj[1](joined.relu()), atol=1e-5)


# Initial values, training


@pytest.mark.parametrize("training", [True, False])
def test_fresh_blocks_return_what_comes_in(training):
    block = Block(16, 6, 4, attends=True).train(training)
    x = torch.randn(2, 16, 5, 7)
    assert torch.equal(block(x), x)


def test_gradients_reach_the_attention_after_the_first_step():
    torch.manual_seed(0)
    model = SHViTClassifier(SMALL, num_classes=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, labels = torch.randn(4, 3, 96, 96), torch.tensor([0, 1, 2, 0])
    gradients = []
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        gradients.append(model.blocks2[3].mixer.m.qkv.c.weight.grad.abs().sum().item())
        optimizer.step()
    assert gradients[0] == 0 and gradients[1] > 0


def test_sixteen_images_are_learned_by_heart():
    torch.manual_seed(0)
    model = SHViTClassifier(SMALL, num_classes=4)
    images, labels = torch.randn(16, 3, 64, 64), torch.arange(16) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_drop_path_grows_with_depth_and_acts_only_while_training():
    torch.manual_seed(0)
    model = shaken(SHViT(SMALL, drop_path_rate=0.5, norm_eval=True))
    assert [block.ffn.drop_path.rate for block in (model.blocks1[0], model.blocks3[3])] == [0.0, 0.5]
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.eval()(image)[2], model.eval()(image)[2])
    assert len({model.train()(image)[2].sum().item() for _ in range(8)}) > 1


def test_norms_keep_their_statistics_with_norm_eval_but_learn():
    backbone = SHViT(SMALL, norm_eval=True)
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    sum(m.square().sum() for m in backbone.train()(torch.randn(2, 3, 64, 64))).backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())
    assert backbone.blocks3[1].conv3.bn.weight.grad.abs().sum() > 0


def test_two_heads_give_a_pair_in_training_and_their_mean_in_evaluation():
    model = SHViTClassifier(SMALL, num_classes=3, distillation=True)
    image = torch.randn(2, 3, 64, 64)
    first, second = model.train()(image)
    assert first.shape == second.shape == (2, 3) and not torch.equal(first, second)
    features = model.eval().forward_features(image)
    mean = (model.head(features) + model.head_dist(features)) / 2
    assert torch.allclose(model(image), mean)
    model.reset_classifier(7)
    assert model(image).shape == (2, 7)


# Folding


@torch.no_grad()
@pytest.mark.parametrize("distillation", [False, True])
def test_folding_leaves_the_logits_and_no_batch_norm(distillation):
    torch.manual_seed(0)
    model = shaken(SHViTClassifier(SMALL, num_classes=5, distillation=distillation)).eval()
    image = torch.randn(2, 3, 96, 64)
    before = model(image)
    after = model.fuse()(image)
    assert (after - before).abs().max() < 1e-4
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert isinstance(model.blocks1[0].conv, nn.Conv2d) and isinstance(model.head, nn.Linear)


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_a_residual_depthwise_convolution_folds_with_its_identity(kernel_size):
    residual = shaken(ResidualDepthwise(6, kernel_size)).eval()
    x = torch.randn(2, 6, 8, 9)
    folded = residual.fused()
    assert isinstance(folded, nn.Conv2d) and folded.groups == 6
    assert torch.allclose(folded(x), residual(x), atol=1e-5)


# Checkpoints in the layouts that people have


def to_timm(name: str) -> str:
    block = re.match(r"blocks(\d)\.(\d+)\.(.*)", name)
    if block is None:
        return name
    stage, position, rest = int(block[1]) - 1, int(block[2]), block[3]
    if stage and position < 3:
        if position == 1:
            return f"stages.{stage}.downsample.2.{rest}"
        part, rest = rest.split(".", 1)
        return f"stages.{stage}.downsample.{int(part) + (3 if position else 0)}.{rest}"
    return f"stages.{stage}.blocks.{position - (3 if stage else 0)}.{rest}"


@pytest.mark.parametrize("rename", [str, to_timm], ids=["authors", "timm"])
def test_classifier_files_load_into_classifier_and_backbone(tmp_path, rename):
    torch.manual_seed(0)
    source = shaken(SHViTClassifier(SMALL, num_classes=4)).eval()
    tensors = {rename(name): tensor for name, tensor in source.state_dict().items()}
    torch.save({"model": tensors, "epoch": 3}, tmp_path / "published.pth")
    image = torch.randn(1, 3, 40, 52)
    target = load_published(SHViTClassifier(SMALL, num_classes=4), tmp_path / "published.pth").eval()
    assert torch.equal(target(image), source(image))
    backbone = load_published(SHViT(SMALL, out_indices=(0, 1)), tmp_path / "published.pth").eval()
    assert not hasattr(backbone, "blocks3")
    for got, want in zip(backbone(image), source.maps(image), strict=False):
        assert torch.equal(got, want)


def test_a_distilled_file_needs_the_second_head(tmp_path):
    source = SHViTClassifier(SMALL, num_classes=4, distillation=True)
    torch.save({"model": source.state_dict()}, tmp_path / "distilled.pth")
    target = SHViTClassifier(SMALL, num_classes=4, distillation=True)
    load_published(target, tmp_path / "distilled.pth")
    assert torch.equal(target.head_dist.l.weight, source.head_dist.l.weight)
    load_published(SHViT(SMALL), tmp_path / "distilled.pth")
    with pytest.raises(UserError, match=r"head_dist\.bn\.weight \[32\] is left over"):
        load_published(SHViTClassifier(SMALL, num_classes=4), tmp_path / "distilled.pth")


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source = shaken(SHViT(SMALL))
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    neck = {"neck.lateral_convs.0.conv.weight": torch.zeros(1)}
    torch.save({"state_dict": {**tensors, **neck}}, tmp_path / "detector.pth")
    target = load_published(SHViT(SMALL), tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_a_deeper_models_file_is_refused_with_the_first_difference(tmp_path):
    deeper = SHViT({**SMALL, "depths": (1, 3, 1)})
    torch.save(deeper.state_dict(), tmp_path / "deeper.pth")
    with pytest.raises(UserError, match=r"deeper\.pth.*blocks2\.5\.conv\.m\.c\.weight .* is left over"):
        load_published(SHViT(SMALL), tmp_path / "deeper.pth")


def test_layers_for_learning_rate_decay_follow_the_depth():
    model = SHViTClassifier(SMALL)
    layers = {
        "patch_embed.6.bn.bias": 0,
        "blocks1.0.conv.m.c.weight": 1,
        "blocks2.0.0.m.c.weight": 2,
        "blocks2.1.se.fc1.bias": 2,
        "blocks2.3.ffn.m.pw1.c.weight": 2,
        "blocks2.4.mixer.m.qkv.c.weight": 3,
        "blocks3.1.conv1.c.weight": 4,
        "blocks3.3.ffn.m.pw1.c.weight": 4,
        "head.l.weight": 5,
    }
    assert layers.keys() <= dict(model.named_parameters()).keys()
    assert {name: model.get_layer_depth(f"network.{name}", "network.") for name in layers} == {
        name: (layer, 6) for name, layer in layers.items()
    }


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SHViT("s5"), "s5.*s4"),
        (lambda: SHViT({**SMALL, "dims": (16, 24)}), "2 dims"),
        (lambda: SHViT({**SMALL, "types": ("i", "s", "x")}), "types.*'x'"),
        (lambda: SHViT({"dims": (16, 24, 32), "depths": (1, 1, 1)}), "partial_dims"),
        (lambda: SHViTClassifier({**SMALL, "width": (1, 1, 1)}), "width"),
        (lambda: SHViT(SMALL, out_indices=(0, 3)), "out_indices"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
