import re
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_backbone, create_model
from opsin.core.backbones.poolformer import (
    ARCHS,
    AttentionMixer,
    MetaFormer,
    MetaFormerBlock,
    MetaFormerClassifier,
    Pooling,
    PositionTable,
    SpatialFc,
)
from opsin.core.backbones.poolformer.arch import Arch
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published, place
from opsin.registry import MODELS

SMALL = {"layers": (1, 1, 2, 1), "embed_dims": (8, 12, 16, 24), "layer_scale_init_value": 1.0}
SPATIAL = {"type": "spatial_fc", "spatial_shape": (2, 3)}
# every mixer, and a table before stage 3, for images of 64x96
MIXED = {
    **SMALL,
    "token_mixers": ("pooling", "identity", {"type": "attention", "head_dim": 8}, SPATIAL),
    "norm": "channel",
    "pos_grids": (None, None, (4, 6), None),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(module: nn.Module) -> nn.Module:
    """The module in evaluation, every parameter moved a little from where it begins."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return module.eval()


# Other runs of the authors' code


def run_other(source, model, outputs, shape=(1, 3, 64, 96), **built_with):
    """What the adapter gives for a case of `source` with the tensors of `model`, without numbers."""
    meta = {
        "system": "poolformer",
        "case": "other",
        "source": f"sail-sg/poolformer@a075575b8 models/{source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()],
        "inputs": {"x": {"seed": 1, "shape": list(shape)}},
        "outputs": dict.fromkeys(outputs),
    }
    case = Case(meta, {})
    return find_adapter(case)(case)


def shapes(outputs):
    return [tuple(tensor.shape) for tensor in outputs.values()]


def test_other_hybrid_cases_run():
    published = {
        "layers": [1, 1, 2, 1],
        "embed_dims": [8, 12, 32, 24],
        "token_mixers": ["Pooling", "nn.Identity", "Attention", "SpatialFc(2,3)"],
        "add_pos_embs": [None, None, "AddPositionEmb(4,6)", None],
        "mlp_ratios": [4, 2, 4, 2],
        "norm_layer": "LayerNormChannel eps 1e-5",
    }
    arch = {
        **MIXED,
        "token_mixers": ("pooling", "identity", "attention", SPATIAL),
        "mlp_ratios": (4, 2, 4, 2),
    }
    model = MetaFormerClassifier(arch, embed_dims=(8, 12, 32, 24), num_classes=5)
    names = ["tokens", "features", "logits"]
    got = run_other("metaformer.py MetaFormer", model, names, num_classes=5, **published)
    assert shapes(got) == [(1, 24, 2, 3), (1, 24), (1, 5)]


@pytest.mark.parametrize("name", [name for name in ARCHS if name.endswith("_224")])
def test_hybrids_run_by_the_name_of_their_factory(name):
    small = {"layers": (1, 1, 1, 1), "embed_dims": (8, 8, 32, 32)}
    model = MetaFormerClassifier(name, num_classes=3, **small)
    source = f"metaformer.py {name}"
    got = run_other(source, model, ["logits"], (1, 3, 224, 224), num_classes=3, **small)
    assert shapes(got) == [(1, 3)]


@pytest.mark.parametrize("use_layer_scale", [True, False])
def test_other_classifier_cases_run(use_layer_scale):
    changes = {"layers": [1, 2], "embed_dims": [8, 8], "downsamples": [False, True], "mlp_ratios": [4, 4]}
    model = MetaFormerClassifier({**changes, "use_layer_scale": use_layer_scale}, num_classes=0)
    changes.update(use_layer_scale=use_layer_scale, num_classes=0, pool_size=5, norm_layer="GroupNorm(1)")
    got = run_other("poolformer.py PoolFormer (poolformer_s24)", model, ["tokens", "logits"], **changes)
    assert shapes(got) == [(1, 8, 16, 24), (1, 8)]


@pytest.mark.parametrize("forked", [{"fork_feat": True}, {}])
@pytest.mark.parametrize("names", [["stage1", "stage3"], ["a", "b", "c", "d"]])
def test_other_dense_cases_run(names, forked):
    source = "poolformer.py PoolFormer" if forked else "poolformer.py poolformer_m36_feat"
    changes = {"layers": [1, 1, 2, 1], "embed_dims": [8, 12, 16, 24]}
    got = run_other(source, MetaFormer(changes), names, **changes, **forked)
    assert [got[name].shape[1] for name in names] == ([8, 16] if len(names) == 2 else [8, 12, 16, 24])


@torch.no_grad()
def test_dense_cases_may_lack_the_first_norm():
    model = MetaFormer(SMALL)
    model.norm0 = nn.Identity()  # what FORK_LAST3 does in the authors' environment
    names = ["stage1", "stage2", "stage3", "stage4"]
    changes = {"layers": [1, 1, 2, 1], "embed_dims": [8, 12, 16, 24], "fork_feat": True}
    maps = run_other("poolformer.py PoolFormer", model, names, **changes)
    fresh = nn.functional.group_norm(maps["stage1"], 1)
    assert not torch.allclose(fresh, maps["stage1"], atol=1e-2)


@pytest.mark.parametrize(
    ("source", "mixer", "norm"),
    [
        ("poolformer.py PoolFormerBlock", "pooling", "group"),
        ("metaformer.py MetaFormerBlock", "identity", "channel"),
        ("metaformer.py MetaFormerBlock", "attention", "group"),
        ("metaformer.py MetaFormerBlock", {"type": "spatial_fc", "spatial_shape": (5, 6)}, "channel"),
    ],
)
def test_other_block_cases_run(source, mixer, norm):
    published = {"attention": {"token_mixer": "Attention"}, "pooling": {}, "identity": {}}
    built_with = {"token_mixer": "SpatialFc(5, 6)"} if isinstance(mixer, dict) else published[mixer]
    if norm == "group":
        built_with = {**built_with, "norm_layer": "GroupNorm"}
    block = MetaFormerBlock(32, mixer, 2.0, Arch((1,), (32,), norm=norm))
    got = run_other(source, block, ["out", "mixed"], (2, 32, 5, 6), dim=32, mlp_ratio=2, **built_with)
    assert shapes(got) == [(2, 32, 5, 6)] * 2


@pytest.mark.parametrize(
    ("source", "mixer", "built_with"),
    [
        ("poolformer.py Pooling", Pooling(8, 5), {"pool_size": 5}),
        (
            "metaformer.py Attention",
            AttentionMixer(8, 4, qkv_bias=True),
            {"dim": 8, "head_dim": 4, "qkv_bias": True},
        ),
        ("metaformer.py SpatialFc", SpatialFc(8, (5, 6)), {"spatial_shape": [5, 6]}),
    ],
)
def test_other_mixer_cases_run(source, mixer, built_with):
    assert shapes(run_other(source, mixer, ["y"], (2, 8, 5, 6), **built_with)) == [(2, 8, 5, 6)]


# Sizes


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("poolformer_s12", 11_915_176),
        ("poolformer_s24", 21_388_968),
        ("poolformer_s36", 30_862_760),
        ("poolformer_m36", 56_172_520),
        ("poolformer_m48", 73_473_448),
        ("metaformer_id_s12", 11_915_176),
        ("metaformer_pppa_s12_224", 14_038_440),
        ("metaformer_ppaa_s12_224", 16_535_592),
        ("metaformer_pppf_s12_224", 11_919_978),
        ("metaformer_ppff_s12_224", 12_150_474),
    ],
)
def test_classifiers_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("poolformer_s12", 11_403_200),
        ("poolformer_s24", 20_876_992),
        ("poolformer_s36", 30_350_784),
        ("poolformer_m36", 55_404_864),
        ("poolformer_m48", 72_705_792),
    ],
)
def test_backbones_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_backbone(name)) == parameters


@pytest.mark.parametrize(("name", "scale"), [("poolformer_s24", 1e-5), ("poolformer_m48", 1e-6)])
def test_first_layer_scale_is_the_variants(name, scale):
    assert ARCHS[name].layer_scale_init_value == scale
    block = MetaFormerBlock(4, "pooling", 4.0, ARCHS[name])
    assert block.layer_scale_1.tolist() == block.layer_scale_2.tolist() == pytest.approx([scale] * 4)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((160, 232), [(40, 58), (20, 29), (10, 15), (5, 8)]),
        ((150, 203), [(37, 51), (19, 26), (10, 13), (5, 7)]),
    ],
)
def test_dense_maps_have_the_published_sizes(size, sizes):
    backbone = MetaFormer(SMALL)
    assert [tuple(m.shape[2:]) for m in backbone(torch.randn(1, 3, *size))] == sizes
    assert [info.stride for info in backbone.feature_info] == [4, 8, 16, 32]


def test_stages_without_downsampling_keep_the_stride():
    backbone = MetaFormer(
        layers=(1, 1, 1), embed_dims=(8, 8, 12), downsamples=(False, False, True), arch=SMALL
    )
    assert [info.stride for info in backbone.feature_info] == [4, 4, 8]
    assert [tuple(m.shape[1:]) for m in backbone(torch.randn(1, 3, 64, 64))] == [
        (8, 16, 16),
        (8, 16, 16),
        (12, 8, 8),
    ]
    assert [name for name, _ in backbone.named_children()][2:] == ["norm0", "norm1", "norm3"]


# Mixers


def test_pooling_has_no_parameters_and_maps_a_constant_to_zero():
    assert count(Pooling(8)) == 0
    # the mean of nine sevens may be one rounding beside seven
    assert Pooling(8)(torch.full((1, 8, 5, 7), 7.0)).abs().max() < 1e-6


def test_pooling_of_an_impulse_divides_by_the_pixels_that_there_are():
    impulse = torch.zeros(1, 1, 7, 7)
    impulse[0, 0, 3, 3] = 1
    mixed = Pooling(1)(impulse)[0, 0]
    want = torch.zeros(7, 7)
    want[2:5, 2:5] = 1 / 9
    want[3, 3] = -8 / 9
    assert torch.allclose(mixed, want)
    corner = torch.zeros(1, 1, 7, 7)
    corner[0, 0, 0, 0] = 1
    mixed = Pooling(1)(corner)[0, 0, :2, :2]
    assert torch.allclose(mixed, torch.tensor([[1 / 4 - 1, 1 / 6], [1 / 6, 1 / 9]]))


@torch.no_grad()
def test_features_depend_on_the_whole_picture_through_the_norm_alone():
    image = torch.randn(1, 3, 96, 96)
    other = image.clone()
    other[..., 80:, 80:] += 3.0
    for norm, local in (("group", False), ("channel", True)):
        backbone = shaken(MetaFormer(SMALL, norm=norm, out_indices=(0,)))
        same = torch.allclose(backbone(image)[0][..., :12, :12], backbone(other)[0][..., :12, :12], atol=1e-6)
        assert same is local


@torch.no_grad()
def test_identity_mixers_mix_no_pixels_but_in_the_patch_embeddings():
    block = shaken(MetaFormerBlock(8, "identity", 4.0, Arch((1,), (8,), norm="channel")))
    x = torch.randn(1, 8, 6, 6)
    shuffled = torch.randperm(36, generator=torch.Generator().manual_seed(0))
    moved = block(x.flatten(2)[..., shuffled].unflatten(2, (6, 6)))
    assert torch.allclose(moved.flatten(2), block(x).flatten(2)[..., shuffled], atol=1e-6)
    # it still adds its scaled norm
    y = x + block.layer_scale_1[:, None, None] * block.norm1(x)
    assert torch.allclose(
        block(x), y + block.layer_scale_2[:, None, None] * block.mlp(block.norm2(y)), atol=1e-6
    )


def test_cost_is_linear_in_the_pixels():
    model = MetaFormerClassifier(SMALL, num_classes=0)
    costs = []
    for side in (64, 128, 256):
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(1, 3, side, side))
        costs.append(counter.get_total_flops())
    assert costs[1] == 4 * costs[0] and costs[2] == 16 * costs[0]


@torch.no_grad()
def test_attention_mixer_is_softmax_attention_over_pixels():
    mixer, x = shaken(AttentionMixer(16, 8)), torch.randn(2, 16, 3, 4)
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = mixer.qkv(tokens).reshape(2, 12, 3, 2, 8).permute(2, 0, 3, 1, 4)
    y = ((q * 8**-0.5) @ k.transpose(2, 3)).softmax(-1) @ v
    y = mixer.proj(y.transpose(1, 2).reshape(2, 12, 16)).transpose(1, 2).reshape(x.shape)
    assert torch.allclose(mixer(x), y, atol=1e-6)


@MODELS.register_module(force=True)
class RollForTest(nn.Module):
    """A token mixer of somebody else's."""

    def __init__(self, dim: int, shift: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, 1, 1))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.roll(self.shift, 3)


def test_any_registered_mixer_can_be_put_into_a_stage():
    roll = {"type": "opsin.RollForTest", "shift": 2}
    model = MetaFormer(SMALL, token_mixers=("pooling", roll, "pooling", "identity"))
    mixers = [model.network[index][0].token_mixer for index in (0, 2, 4, 6)]
    assert [type(mixer) for mixer in mixers] == [Pooling, RollForTest, Pooling, nn.Identity]
    assert mixers[1].weight.shape == (12, 1, 1)
    assert len(model(torch.randn(1, 3, 64, 64))) == 4


@torch.no_grad()
def test_hybrids_take_the_size_they_were_built_for_and_name_it_otherwise():
    model = shaken(MetaFormerClassifier(MIXED, num_classes=3))
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, 3)
    with pytest.raises(UserError, match=r"position table is for maps of 4x6, not 4x4.*size it was built for"):
        model(torch.randn(1, 3, 64, 64))
    with pytest.raises(UserError, match=r"spatial perceptron is for maps of 2x3, not 3x2"):
        SpatialFc(8, (2, 3))(torch.randn(1, 8, 3, 2))


def test_position_table_is_an_entry_of_network():
    with torch.device("meta"):
        pppa, ppaa = (create_model(f"metaformer_{name}_s12_224") for name in ("pppa", "ppaa"))
    assert pppa.positions == (0, 2, 4, 7) and isinstance(pppa.network[6], PositionTable)
    assert ppaa.positions == (0, 2, 5, 7) and ppaa.network[4].pos_embed.shape == (1, 320, 14, 14)
    assert pppa.get_layer_depth("network.6.pos_embed") == pppa.get_layer_depth("network.7.0.norm1.weight")


# Published files


def to_timm(name):
    name = re.sub(r"^patch_embed\.proj", "stem.conv", name)
    name = re.sub(r"^network\.(\d)\.proj", lambda m: f"stages.{(int(m[1]) + 1) // 2}.downsample.conv", name)
    name = re.sub(r"^network\.(\d)\.", lambda m: f"stages.{int(m[1]) // 2}.blocks.", name)
    name = re.sub(r"layer_scale_(\d)$", r"layer_scale\1.scale", name)
    return re.sub(r"^norm\.", "head.norm.", re.sub(r"^head\.", "head.fc.", name))


def to_mmpretrain(name):
    if name.startswith("head."):
        return name.replace("head.", "head.fc.")
    return "backbone." + re.sub(r"^norm\.", "norm6.", name)


@pytest.mark.parametrize("rename", [str, to_timm, to_mmpretrain], ids=["authors", "timm", "mmpretrain"])
@pytest.mark.filterwarnings("ignore:this file has timm's names")
def test_classifier_files_load_into_classifier_and_backbone(tmp_path, rename):
    source = shaken(MetaFormerClassifier(SMALL, num_classes=4))
    # the authors' file is the bare state dict
    tensors = {rename(name): tensor for name, tensor in source.state_dict().items()}
    torch.save(tensors, tmp_path / "published.pth.tar")
    image = torch.randn(1, 3, 40, 52)
    target = load_published(MetaFormerClassifier(SMALL, num_classes=4), tmp_path / "published.pth.tar")
    assert torch.equal(target.eval()(image), source(image))
    backbone = load_published(MetaFormer(SMALL, out_indices=(0, 2)), tmp_path / "published.pth.tar")
    assert torch.equal(backbone.network[4][1].layer_scale_2, source.network[4][1].layer_scale_2)
    assert torch.equal(backbone.network[3].proj.weight, source.network[3].proj.weight)
    assert backbone.norm0.weight.tolist() == [1.0] * 8


def test_a_classifier_file_of_timm_comes_with_a_warning():
    source = MetaFormerClassifier(SMALL, num_classes=4).state_dict()
    renamed = {to_timm(name): tensor for name, tensor in source.items()}
    with pytest.warns(UserWarning, match="the logits will be those of the authors' network, not of timm's"):
        place(MetaFormerClassifier(SMALL, num_classes=4), renamed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        place(MetaFormerClassifier(SMALL, num_classes=4), source)
        place(MetaFormer(SMALL), renamed)  # the maps are the same in both


def test_files_of_metaformer_baselines_are_refused():
    tensors = {
        to_timm(name): t for name, t in MetaFormerClassifier(SMALL, num_classes=4).state_dict().items()
    }
    tensors["stages.2.blocks.0.mlp.act.scale"] = torch.ones(1)
    for model in (MetaFormer(SMALL), MetaFormerClassifier(SMALL, num_classes=4)):
        with pytest.raises(UserError, match=r"MetaFormer Baselines \(PoolFormerV2"):
            place(model, tensors)


def test_a_whole_detector_loads_into_the_backbone():
    source, target = shaken(MetaFormer(SMALL)), MetaFormer(SMALL)
    tensors = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}
    place(target, {**tensors, "neck.convs.0.weight": torch.zeros(1)})
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def test_a_hybrids_file_loads_into_its_backbone():
    classifier, backbone = (
        shaken(MetaFormerClassifier(MIXED, num_classes=4)),
        MetaFormer(MIXED, out_indices=(1, 2)),
    )
    place(backbone, classifier.state_dict())
    assert torch.equal(backbone.network[4].pos_embed, classifier.network[4].pos_embed)
    assert [name for name, _ in backbone.named_children()][2:] == ["norm2", "norm5"]


def test_another_models_file_is_refused():
    with pytest.raises(UserError, match=r"network\.4\.1\.\w+.* is left over"):
        place(MetaFormer({**SMALL, "layers": (1, 1, 1, 1)}), MetaFormer(SMALL).state_dict())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MetaFormer("poolformer_s13"), "poolformer_s13.*poolformer_s12"),
        (lambda: MetaFormer({"layers": (1, 1)}), "lacks embed_dims"),
        (lambda: MetaFormer(SMALL, token_mixer="pooling"), "token_mixer'.*token_mixers"),
        (lambda: MetaFormer(SMALL, token_mixers="poolin"), "token mixer 'poolin'.*pooling"),
        (lambda: MetaFormer(SMALL, token_mixers=("pooling",) * 3), "for each of 4 stages"),
        (lambda: MetaFormer(SMALL, token_mixers="attention"), "32 channels do not divide a width of 8"),
        (lambda: MetaFormer(SMALL, norm="batch"), "norm of MetaFormer 'batch'"),
        (lambda: MetaFormer(SMALL, out_indices=(0, 4)), "out_indices"),
        (lambda: create_backbone("metaformer_pppa_s12_224"), "has no feature extractor"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
