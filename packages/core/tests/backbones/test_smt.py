import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from opsin.core import create_backbone, create_model
from opsin.core.backbones.smt import (
    ARCHS,
    SMT,
    Block,
    Mlp,
    ScaleAwareModulation,
    SelfAttention,
    SMTClassifier,
)
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {
    "embed_dims": (8, 12, 16, 20),
    "depths": (1, 1, 3, 1),
    "mlp_ratios": (2, 2, 2, 2),
    "ca_num_heads": (4, 4, 4, -1),
    "sa_num_heads": (-1, -1, 2, 4),
    "ca_attentions": (1, 1, 1, 0),
    "head_conv": 3,
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def flops(module: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smt_tiny", 11_506_536),
        ("smt_small", 22_550_952),
        ("smt_base", 32_037_352),
        ("smt_large", 80_589_544),
        ("smt_large_22k", 80_620_264),
    ],
)
def test_classifiers_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters


def test_the_tiny_backbone_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert count(create_backbone("smt_tiny")) == 10_993_536


# Other cases of the authors' classes


def case_of(source: str, model: nn.Module, outputs: list[str], shape, what: str = "", **built_with) -> Case:
    meta = {
        "system": "smt",
        "case": "other",
        "source": f"AFeng-x/SMT@11e954d {source}",
        "built_with": built_with,
        "what": what,
        "tensors": [
            [name, list(tensor.shape)]
            for name, tensor in model.state_dict().items()
            if not name.endswith("num_batches_tracked")
        ],
        "inputs": {"x": {"seed": 1, "shape": list(shape)}},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


@pytest.mark.parametrize(
    ("source", "module", "built_with"),
    [
        ("Attention", ScaleAwareModulation(8, 2, qkv_bias=False), {"dim": 8, "ca_num_heads": 2}),
        (
            "Attention",
            SelfAttention(8, 2),
            {"dim": 8, "sa_num_heads": 2, "qkv_bias": True, "ca_attention": 0},
        ),
        (
            "Block",
            Block(8, SelfAttention(8, 2, qkv_bias=False), 3.0, layer_scale_init_value=1.0),
            {"dim": 8, "sa_num_heads": 2, "ca_attention": 0, "mlp_ratio": 3.0, "use_layerscale": True},
        ),
        ("Mlp", Mlp(8, 12), {"in_features": 8, "hidden_features": 12}),
    ],
)
def test_cases_of_single_modules_run(source, module, built_with):
    what = "Tokens of a map with H=3, W=5."
    case = case_of(f"models/smt.py {source}", module, ["out"], (2, 15, 8), what, **built_with)
    assert find_adapter(case)(case)["out"].shape == (2, 15, 8)


def test_a_case_that_hides_its_map_size_is_refused():
    case = case_of("models/smt.py Mlp", Mlp(8, 12), ["out"], (2, 15, 8), in_features=8, hidden_features=12)
    with pytest.raises(UserError, match="height and width"):
        find_adapter(case)(case)


def test_other_classifier_cases_run():
    model = SMTClassifier(SMALL, num_classes=0, layer_scale_init_value=1.0, qkv_bias=False)
    built_with = {**SMALL, "num_classes": 0, "use_layerscale": True, "num_stages": 4}
    case = case_of("models/smt.py SMT", model, ["logits"], (1, 3, 48, 70), **built_with)
    assert find_adapter(case)(case)["logits"].shape == (1, 20)
    with torch.device("meta"):
        model = SMTClassifier("small", num_classes=5)
    case = case_of("models/smt.py SMT (smt_s)", model, ["logits"], (1, 3, 32, 32), num_classes=5)
    assert find_adapter(case)(case)["logits"].shape == (1, 5)


@pytest.mark.parametrize("folder", ["detection/mmdet", "segmentation/mmseg"])
@pytest.mark.parametrize("names", [["stage2", "stage4"], ["first", "second"]])
def test_other_dense_cases_run_under_their_own_name_of_the_local_convolution(folder, names):
    model = SMT({**SMALL, "head_conv": 7}, qkv_bias=False)
    built_with = {**SMALL, "head_conv": 7, "out_indices": [1, 3]}
    source = f"{folder}/models/backbones/smt.py SMT"
    case = case_of(source, model, names, (1, 3, 48, 70), **built_with)
    case.meta["tensors"] = [[n.replace("local_conv.", "dw_conv."), s] for n, s in case.meta["tensors"]]
    got = find_adapter(case)(case)
    assert [tuple(got[name].shape) for name in names] == [(1, 12, 6, 9), (1, 20, 2, 3)]


# Scale-aware modulation


def test_modulation_takes_any_map_and_its_cost_is_linear_in_pixels():
    module = ScaleAwareModulation(8).eval()
    assert module(torch.randn(2, 5, 3, 8)).shape == (2, 5, 3, 8)
    assert module.modulator(torch.randn(2, 5, 3, 8)).shape == (2, 8, 5, 3)
    assert flops(module, torch.randn(1, 24, 12, 8)) == 4 * flops(module, torch.randn(1, 12, 6, 8))


@torch.no_grad()
def test_each_group_sees_exactly_one_channel_of_every_head():
    module, x = ScaleAwareModulation(12, 4).eval(), torch.randn(1, 6, 6, 12)
    nn.init.ones_(module.proj0.weight)
    seen = []
    module.proj0.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    for head in range(4):
        for channel in range(3):
            seen.clear()
            module(x)
            bias = module.get_submodule(f"local_conv_{head + 1}").bias
            bias[channel] += 1.0
            module(x)
            bias[channel] -= 1.0
            changed = (seen[0] - seen[1]).abs().amax((1, 2)) > 1e-3
            assert changed.nonzero().flatten().tolist() == list(range(8 * channel, 8 * channel + 8))


@torch.no_grad()
def test_every_output_channel_hears_of_every_head():
    module, x = ScaleAwareModulation(8, 4).eval(), torch.randn(1, 6, 6, 8)
    before = module(x)
    module.local_conv_3.weight.mul_(2.0)
    assert ((module(x) - before).abs().amax((0, 1, 2)) > 1e-5).all()


@torch.no_grad()
def test_a_head_reaches_as_far_as_its_kernel():
    for head, scale in enumerate(ScaleAwareModulation(8, 4).scales()):
        nn.init.ones_(scale.weight)
        impulse = torch.zeros(1, 2, 19, 19)
        impulse[..., 9, 9] = 1.0
        reach = (scale(impulse) - scale(torch.zeros_like(impulse)))[0, 0].abs() > 1e-6
        assert reach.sum() == (3 + 2 * head) ** 2


@torch.no_grad()
@pytest.mark.parametrize(("heads", "ratio"), [(1, 2), (2, 3), (4, 2)])
def test_fused_modulation_computes_the_same(heads, ratio):
    module = ScaleAwareModulation(12, heads, expand_ratio=ratio)
    x = torch.randn(2, 7, 9, 12)
    module.train()(x)
    want = module.eval()(x)
    assert torch.allclose(module.fused().eval()(x), want, atol=1e-5)


@torch.no_grad()
def test_the_perceptron_adds_what_its_convolution_reads():
    mlp, x = Mlp(4, 8), torch.randn(1, 3, 3, 4)
    nn.init.zeros_(mlp.dwconv.dwconv.weight)
    nn.init.zeros_(mlp.dwconv.dwconv.bias)
    assert torch.allclose(mlp(x), mlp.fc2(mlp.act(mlp.fc1(x))))


# The network


def test_the_third_stage_alternates_modulation_and_attention():
    kinds = [type(block.attn) for block in SMT(SMALL).block3]
    assert kinds == [ScaleAwareModulation, SelfAttention, ScaleAwareModulation]
    names = set(create_model("smt_tiny").state_dict())
    assert {"block3.1.attn.q.weight", "block3.1.attn.kv.weight", "block3.0.attn.v.weight"} <= names
    assert not {"block3.0.attn.q.weight", "block3.1.attn.s.weight", "block4.0.attn.s.weight"} & names


@torch.no_grad()
def test_maps_have_the_published_sizes_and_are_normed():
    maps = SMT(SMALL).eval()(torch.randn(1, 3, 150, 203))
    assert [tuple(m.shape[2:]) for m in maps] == [(37, 51), (19, 26), (10, 13), (5, 7)]
    assert all(m.mean(1).abs().max() < 1e-5 for m in maps)


@torch.no_grad()
@pytest.mark.parametrize("head_conv", [3, 7])
def test_any_stem_gives_stride_four(head_conv):
    maps = SMT({**SMALL, "head_conv": head_conv}, out_indices=(0,)).eval()(torch.randn(1, 3, 64, 66))
    assert maps[0].shape[2:] == (16, 16)


@torch.no_grad()
def test_the_next_stage_reads_the_normed_map():
    backbone, image = SMT(SMALL).eval(), torch.randn(1, 3, 64, 64)
    before = backbone(image)
    backbone.norm2.weight[0] = 3.0
    after = backbone(image)
    assert [torch.equal(a, b) for a, b in zip(after, before, strict=True)] == [True, False, False, False]


# Checkpoints in the layouts that people have


def test_a_classifiers_file_fills_the_backbone_but_for_the_head(tmp_path):
    source = SMTClassifier(SMALL, num_classes=3)
    source.train()(torch.randn(2, 3, 64, 64))
    torch.save({"model": source.state_dict()}, tmp_path / "smt.pth")
    backbone = load_published(SMT(SMALL), tmp_path / "smt.pth").eval()
    own, given = backbone.state_dict(), source.state_dict()
    assert set(given) - set(own) == {"head.weight", "head.bias"}
    assert all(torch.equal(tensor, given[name]) for name, tensor in own.items())
    image = torch.randn(1, 3, 64, 80)
    features = source.eval().forward_features(image)
    assert torch.allclose(backbone(image)[3].mean((2, 3)), features, atol=1e-6)


def test_a_whole_detectors_file_loads_under_its_own_names(tmp_path):
    source = SMT(SMALL)
    tensors = {f"backbone.{n.replace('local_conv.', 'dw_conv.')}": t for n, t in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.convs.0.bias": torch.zeros(1)}}, tmp_path / "detector.pth")
    target = load_published(SMT(SMALL), tmp_path / "detector.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize(("blocks", "message"), [(1, "block4.1.*missing"), (3, "block4.2.*left over")])
def test_another_number_of_last_blocks_is_named(tmp_path, blocks, message):
    file = SMTClassifier({**SMALL, "depths": (1, 1, 3, blocks)}, num_classes=3)
    torch.save({"model": file.state_dict()}, tmp_path / "smt_small.pth")
    with pytest.raises(UserError, match=rf"smt_small\.pth.*{message}"):
        load_published(
            SMTClassifier({**SMALL, "depths": (1, 1, 3, 2)}, num_classes=3), tmp_path / "smt_small.pth"
        )


def test_a_file_with_layer_scale_asks_for_it(tmp_path):
    file = SMTClassifier(SMALL, num_classes=3, layer_scale_init_value=1e-4)
    torch.save({"model": file.state_dict()}, tmp_path / "smt_large_22k.pth")
    with pytest.raises(UserError, match=r"gamma_1 .*left over"):
        load_published(SMTClassifier(SMALL, num_classes=3), tmp_path / "smt_large_22k.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SMT("smal"), "smal.*small"),
        (lambda: SMT({**SMALL, "depths": (1, 1)}), r"depths \(1, 1\) .* 4 entries"),
        (lambda: SMT({**SMALL, "sa_num_heads": (-1, -1, 3, 4)}), "3 heads .* 16"),
        (lambda: SMT({**SMALL, "ca_num_heads": (-1, 4, 4, 4)}), "-1 heads .* 8"),
        (lambda: SMT({"depths": (1, 1, 1, 1)}), "lacks embed_dims"),
        (lambda: SMTClassifier({**ARCHS["tiny"], "width": 3}), "width"),
        (lambda: SMT(SMALL, out_indices=(3, 0)), "out_indices"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
