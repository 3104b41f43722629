import re

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_backbone, create_model
from opsin.core.backbones.davit import (
    ChannelGroupAttention,
    DaViT,
    DaViTClassifier,
    PatchEmbed,
    WindowAttention,
    _block,
)
from opsin.core.errors import UserError
from opsin.core.layers.attention import Attention
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {
    "depths": (1, 1, 2, 1),
    "embed_dims": (8, 8, 16, 16),
    "num_heads": (1, 2, 2, 4),
    "window_size": 3,
    "overlapped_patch": False,
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def case_of(
    source: str,
    tensors: dict[str, Tensor],
    outputs: list[str],
    shape: list[int],
    what: str = "",
    **built_with,
) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "davit",
        "case": "other",
        "source": f"dingmyu/davit@fc79470 {source}",
        "built_with": built_with,
        "what": what,
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "inputs": {"x": {"seed": 1, "shape": shape}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_types": ["channel", "spatial"]},
        {"attention_types": ["spatial"], "mlp_ratio": 2.0},
        {"cpe_act": True, "qkv_bias": False},
    ],
)
def test_other_classifier_cases_run(changes):
    model = DaViTClassifier({**SMALL, "overlapped_patch": True}, num_classes=5, **changes)
    built_with = {**SMALL, "overlapped_patch": True, "num_classes": 5, **changes}
    source = "timm/models/davit.py DaViT (DaViT_small)"
    case = case_of(source, model.state_dict(), ["logits"], [1, 3, 50, 70], **built_with)
    assert find_adapter(case)(case)["logits"].shape == (1, 5)


def test_factories_and_networks_without_perceptrons_run():
    model = DaViTClassifier({**SMALL, "num_heads": (1, 1, 1, 1)}, num_classes=0, mlp_ratio=0)
    built_with = {**SMALL, "num_heads": [1, 1, 1, 1], "num_classes": 0, "ffn": False}
    case = case_of(
        "timm/models/davit.py DaViT_base", model.state_dict(), ["features"], [1, 3, 33, 40], **built_with
    )
    assert find_adapter(case)(case)["features"].shape == (1, 16)


@pytest.mark.parametrize("file", ["mmdet/mmdet/models/backbones/davit.py", "mmseg/mmseg/models/davit.py"])
def test_other_dense_cases_run(file):
    model = DaViT(SMALL, cpe_act=True)
    names = ["stage1", "stage2", "stage3", "stage4"]
    case = case_of(f"{file} DaViT", model.state_dict(), names, [1, 3, 41, 70], **SMALL, cpe_act=True)
    got = find_adapter(case)(case)
    assert [tuple(got[name].shape[2:]) for name in names] == [(11, 18), (6, 9), (3, 5), (2, 3)]


@pytest.mark.parametrize("kinds", [["channel"], ["spatial"], ["channel", "spatial"]])
def test_other_block_cases_run(kinds):
    blocks = {kind: _block(kind, 16, 2, 4, qkv_bias=False) for kind in kinds}
    tensors = {
        (f"{kind}." if len(kinds) > 1 else "") + name: tensor
        for kind, block in blocks.items()
        for name, tensor in block.state_dict().items()
    }
    source = "timm/models/davit.py " + " then ".join(f"{kind.title()}Block" for kind in kinds)
    outputs = kinds if len(kinds) > 1 else ["out"]
    case = case_of(source, tensors, outputs, [2, 35, 16], "H=5, W=7", dim=16, num_heads=2, window_size=4)
    assert all(find_adapter(case)(case)[name].shape == (2, 35, 16) for name in outputs)
    lost = case_of(source, tensors, outputs, [2, 35, 16], dim=16, num_heads=2)
    with pytest.raises(UserError, match="H=…"):
        find_adapter(lost)(lost)


def test_other_part_cases_run():
    attention = Attention(16, 2, qkv_bias=False)
    source = "timm/models/davit.py WindowAttention"
    case = case_of(source, attention.state_dict(), ["out"], [2, 9, 16], dim=16, num_heads=2, window_size=3)
    assert find_adapter(case)(case)["out"].shape == (2, 9, 16)

    embed = PatchEmbed(8, 12, 2, overlapped=True)
    settings = {"in_chans": 8, "embed_dim": 12, "patch_size": 2, "overlapped": True}
    source = "timm/models/davit.py PatchEmbed"
    case = case_of(source, embed.state_dict(), ["tokens"], [1, 35, 8], "H=5, W=7", **settings)
    assert find_adapter(case)(case)["tokens"].shape == (1, 12, 12)

    encoding = _block("channel", 8, 2, 0).cpe[0]
    source = "timm/models/davit.py ConvPosEnc"
    case = case_of(source, encoding.state_dict(), ["out"], [1, 36, 8], dim=8, k=3)
    assert find_adapter(case)(case)["out"].shape == (1, 36, 8)


@pytest.mark.parametrize(
    ("arch", "classifier", "backbone"),
    [
        ("tiny", 28_360_168, 27_592_512),
        ("small", 49_745_896, 48_978_240),
        ("base", 87_954_408, 86_931_200),
        ("large", 196_811_752, 195_277_440),
        ("huge", 362_685_416, None),
        ("giant", 1_437_435_880, None),
    ],
)
def test_variants_have_the_published_number_of_parameters(arch, classifier, backbone):
    with torch.device("meta"):
        assert count(create_model(f"davit_{arch}")) == classifier
        assert backbone is None or count(create_backbone(f"davit_{arch}")) == backbone


@torch.no_grad()
def test_channel_attention_follows_any_permutation_of_positions():
    torch.manual_seed(0)
    attention, x, order = ChannelGroupAttention(16, 4), torch.randn(2, 30, 16), torch.randperm(30)
    assert torch.allclose(attention(x[:, order]), attention(x)[:, order], atol=1e-6)


@torch.no_grad()
def test_channel_attention_costs_twice_as_much_for_twice_the_positions():
    attention = ChannelGroupAttention(16, 4)
    flops = []
    for positions in (50, 100):
        with FlopCounterMode(display=False) as counter:
            attention(torch.randn(1, positions, 16))
        flops.append(counter.get_total_flops())
    assert flops[1] == 2 * flops[0]


@torch.no_grad()
def test_channel_matrix_comes_from_keys_and_values_and_acts_on_queries():
    torch.manual_seed(0)
    attention, x = ChannelGroupAttention(12, 3), torch.randn(1, 20, 12)
    q, k, v = attention.qkv(x).unflatten(2, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    by_hand = torch.zeros(1, 20, 3, 4)
    for group in range(3):
        matrix = (k[0, group].T @ v[0, group] / 2).softmax(-1)
        assert matrix.shape == (4, 4)
        for place in range(20):
            by_hand[0, place, group] = matrix @ q[0, group, place]
    assert torch.allclose(attention(x), attention.proj(by_hand.flatten(2)), atol=1e-6)


@torch.no_grad()
def test_padded_zeros_are_keys_through_the_bias():
    torch.manual_seed(0)
    attention, x = WindowAttention(8, 2, 7), torch.randn(1, 5, 6, 8)
    nn.init.normal_(attention.qkv.bias)
    got = attention(x)
    assert got.shape == x.shape
    by_hand = Attention.forward(attention, nn.functional.pad(x, (0, 0, 0, 1, 0, 2)).flatten(1, 2))
    assert torch.allclose(got, by_hand.unflatten(1, (7, 7))[:, :5, :6], atol=1e-6)
    assert not torch.allclose(
        got, Attention.forward(attention, x.flatten(1, 2)).unflatten(1, (5, 6)), atol=1e-3
    )


@torch.no_grad()
def test_without_position_encodings_a_pair_is_blind_to_order_inside_windows():
    torch.manual_seed(0)
    pair = nn.Sequential(_block("spatial", 8, 2, 4), _block("channel", 8, 2, 4))
    x, order = torch.randn(1, 4, 4, 8), torch.randperm(16)
    turned = x.flatten(1, 2)[:, order].view_as(x)
    seen = (pair(turned) - pair(x).flatten(1, 2)[:, order].view_as(x)).abs().max()
    for block in pair:
        for encoding in block.cpe:
            nn.init.zeros_(encoding.proj.weight)
    blind = (pair(turned) - pair(x).flatten(1, 2)[:, order].view_as(x)).abs().max()
    assert blind < 1e-5 < 1e-2 < seen


@torch.no_grad()
def test_sizes_round_up_and_norms_of_outputs_do_not_change_later_stages():
    backbone, image = DaViT(SMALL).eval(), torch.randn(1, 3, 166, 230)
    before = backbone(image)
    assert [tuple(m.shape[2:]) for m in before] == [(42, 58), (21, 29), (11, 15), (6, 8)]
    backbone.norm1.weight.add_(1.0)
    after = backbone(image)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True, True]


def test_every_block_of_a_pair_has_its_own_drop_path_rate():
    backbone = DaViT(SMALL, drop_path_rate=0.9, out_indices=(0, 2))
    rates = [block.drop_path.rate for stage in backbone.main_blocks for pair in stage for block in pair]
    assert rates == pytest.approx([0.1 * index for index in range(8)])


def test_layers_for_learning_rate_decay_are_pairs():
    backbone = DaViT(SMALL)
    for name, layer in {
        "patch_embeds.0.proj.weight": 0,
        "main_blocks.0.0.1.attn.qkv.weight": 1,
        "patch_embeds.2.norm.weight": 3,
        "main_blocks.2.1.0.mlp.fc1.bias": 4,
        "norm0.weight": 6,
    }.items():
        assert backbone.get_layer_depth(f"backbone.{name}", "backbone.") == (layer, 7), name


# Checkpoints in the layouts that people have


def to_timm(name: str) -> str:
    name = re.sub(r"^patch_embeds\.0\.proj\.", "stem.conv.", name)
    name = re.sub(r"^patch_embeds\.0\.norm\.", "stem.norm.", name)
    name = re.sub(r"^patch_embeds\.(\d)\.proj\.", r"stages.\1.downsample.conv.", name)
    name = re.sub(r"^patch_embeds\.(\d)\.norm\.", r"stages.\1.downsample.norm.", name)
    name = re.sub(r"^main_blocks\.(\d)\.", r"stages.\1.blocks.", name)
    name = name.replace(".cpe.0.", ".cpe1.").replace(".cpe.1.", ".cpe2.")
    return re.sub(r"^norms\.", "head.norm.", re.sub(r"^head\.", "head.fc.", name))


def in_parallel(name: str) -> str:
    return f"module.{name}"


def to_mmpretrain(name: str) -> str:
    name = re.sub(r"^patch_embeds\.0\.", "patch_embed.", name)
    name = re.sub(r"^patch_embeds\.(\d)\.", lambda part: f"stages.{int(part[1]) - 1}.downsample.", name)
    if not name.startswith("main_blocks."):
        name = name.replace(".proj.", ".projection.")
    name = re.sub(
        r"^main_blocks\.(\d)\.(\d)\.0\.attn\.", r"stages.\1.blocks.\2.spatial_block.attn.w_msa.", name
    )
    name = re.sub(r"^main_blocks\.(\d)\.(\d)\.0\.", r"stages.\1.blocks.\2.spatial_block.", name)
    name = re.sub(r"^main_blocks\.(\d)\.(\d)\.1\.", r"stages.\1.blocks.\2.channel_block.", name)
    name = name.replace(".cpe.0.", ".cpe1.").replace(".cpe.1.", ".cpe2.")
    name = name.replace(".mlp.fc1.", ".ffn.layers.0.0.").replace(".mlp.fc2.", ".ffn.layers.1.")
    name = re.sub(r"^norms\.", "norm3.", name)
    return name.replace("head.", "head.fc.") if name.startswith("head.") else f"backbone.{name}"


def test_mmpretrains_files_are_placed_as_the_authors_with_a_warning(tmp_path):
    torch.manual_seed(0)
    source = DaViTClassifier(SMALL, num_classes=4).eval()
    tensors = {to_mmpretrain(name): tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "mmpretrain.pth")
    with pytest.warns(UserWarning, match="not mmpretrain's"):
        target = load_published(DaViTClassifier(SMALL, num_classes=4), tmp_path / "mmpretrain.pth")
    image = torch.randn(1, 3, 40, 52)
    assert torch.equal(target.eval()(image), source(image))
    with pytest.warns(UserWarning, match="not mmpretrain's"):
        backbone = load_published(DaViT(SMALL, out_indices=(1, 3)), tmp_path / "mmpretrain.pth")
    assert torch.equal(backbone.norm3.weight, source.norms.weight)  # mmpretrain's final norm is of the map


@pytest.mark.parametrize("rename", [str, in_parallel, to_timm])
def test_classifier_files_load_into_classifier_and_backbone(tmp_path, rename):
    torch.manual_seed(0)
    source = DaViTClassifier(SMALL, num_classes=4).eval()
    tensors = {rename(name): tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": tensors, "epoch": 310}, tmp_path / "published.pth")
    image = torch.randn(1, 3, 40, 52)
    target = load_published(DaViTClassifier(SMALL, num_classes=4), tmp_path / "published.pth")
    assert torch.equal(target.eval()(image), source(image))
    backbone = load_published(DaViT(SMALL, out_indices=(1, 2)), tmp_path / "published.pth")
    own, given = backbone.state_dict(), source.state_dict()
    assert {name for name in own if name not in given} == {
        f"norm{i}.{leaf}" for i in (1, 2) for leaf in ("weight", "bias")
    }
    assert all(torch.equal(tensor, given[name]) for name, tensor in own.items() if name in given)
    assert torch.equal(backbone.norm2.weight, torch.ones(16))


def test_a_whole_detector_loads_into_the_backbone(tmp_path):
    source = DaViT(SMALL)
    nn.init.normal_(source.norm2.weight)
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.convs.0.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    target = load_published(DaViT(SMALL), tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_a_deeper_networks_file_is_refused(tmp_path):
    deeper = DaViTClassifier({**SMALL, "depths": (1, 1, 3, 1)}, num_classes=4)
    torch.save({"state_dict": deeper.state_dict()}, tmp_path / "deeper.pth")
    with pytest.raises(UserError, match=r"deeper\.pth.*main_blocks\.2\.2\..* is left over"):
        load_published(DaViT(SMALL), tmp_path / "deeper.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DaViT("tinny"), "tinny.*tiny"),
        (lambda: DaViT({**SMALL, "depths": (1, 1)}), "number of stages"),
        (lambda: DaViT({**SMALL, "num_heads": (3, 1, 1, 1)}), "num_heads 3"),
        (lambda: DaViT(SMALL, out_indices=(0, 4)), "out_indices"),
        (lambda: DaViTClassifier(SMALL, attention_types=("spatial", "chanel")), "chanel.*channel"),
        (lambda: DaViTClassifier(SMALL, attention_types=()), "attention_types"),
        (lambda: ChannelGroupAttention(10, 4), "4 groups"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
