import csv
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core import create_model
from opsin.core.backbones.gaussian_adaptive_attention import (
    DensityAdaptiveAttention,
    DensityAdaptiveHeads,
    FrozenEncoder,
    FrozenEncoderClassifier,
    GATHead,
    GaussianAdaptiveAttention,
    GaussianBlock,
    GaussianPlugin,
    GroupedQueryAttention,
    GroupedQueryHead,
    ImportanceFactors,
    MHAHead,
    MultiHeadGaussianAdaptiveAttention,
    SoftmaxFocalLoss,
    importance_factors,
)
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.registry import MODELS

ENCODER = {"type": "opsin.ConvNeXt", "arch": {"depths": (1, 1, 1, 1), "dims": (16, 16, 16, 16)}}
HEAD = {"type": "opsin.GATHead", "num_heads": 2, "hidden_dim": 8}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(module: nn.Module) -> nn.Module:
    """The module with its densities away from where they begin."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("c"):
                parameter.uniform_(0.8, 2.0)
            elif "mean_offset" in name:
                parameter.normal_(std=0.4)
    return module


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gat_images_v1", 2_695_804),
        ("gat_images_v2", 2_681_468),
        ("gat_speech_v1", 336_412),
        ("gat_speech_v2", 322_076),
        ("gat_text_v1", 1_270_316),
        ("gat_text_v2", 1_198_636),
    ],
)
def test_heads_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        assert count(create_model(name)) == parameters


@torch.no_grad()
@pytest.mark.parametrize("name", ["mha_speech", "mha_bn_speech", "gq_daam_images", "gq_daam_speech"])
def test_rival_heads_classify(name):
    head = create_model(name, hidden_dim=4).eval()
    assert head(drawn(2, 24, 1024)).shape == (2, head.num_classes)


def test_rivals_for_text_have_maps_of_its_width():
    with torch.device("meta"):
        shapes = [create_model(name).map_size for name in ("gat_text_v1", "mha_text", "gq_daam_text")]
    assert shapes == [(64, 80), (64, 80), (64, 8)]


def test_the_block_of_the_library_s_example_has_120_parameters():
    assert count(GaussianBlock([1] * 3, [4] * 3, [5] * 3)) == 120


# The library's module


def by_formula(x: Tensor, axis: int, offsets: Tensor, c: Tensor) -> Tensor:
    """The weights as they are defined: a product of Gaussians, divided by its sum."""
    mean, var = x.mean(axis, keepdim=True), x.var(axis, keepdim=True) + 1e-8
    weights = torch.ones_like(x)
    for offset, width in zip(offsets, c, strict=True):
        y = (x - mean - offset) / var.sqrt()
        weights = weights * (-(y**2) / (2 * width**2)).exp() / (2 * math.pi * width**2).sqrt()
    return weights / weights.sum(axis, keepdim=True).clamp(min=1e-8)


@torch.no_grad()
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("gaussians", [1, 3, 7])
def test_weights_are_the_product_of_gaussians(axis, gaussians):
    attn = shaken(GaussianAdaptiveAttention(axis, gaussians))
    x = drawn(5, 6, 9)
    wanted = by_formula(x, axis, attn.mean_offsets, attn.c)
    assert torch.allclose(attn.weights(x), wanted, rtol=1e-4, atol=1e-7)
    assert torch.allclose(attn(x), x * wanted, rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("axis", [1, -2])
def test_weights_of_each_head_sum_to_one_along_the_axis(axis):
    heads = shaken(MultiHeadGaussianAdaptiveAttention(axis, 3, 2))
    _, weights = heads.attend(drawn(2, 20, 4))
    for chunk in weights.split([6, 6, 8], 1):
        assert torch.allclose(chunk.sum(1), torch.ones(2, 4), atol=1e-5)


@torch.no_grad()
def test_many_wide_gaussians_no_longer_sum_to_one():
    attn = GaussianAdaptiveAttention(1, 8)
    attn.c.fill_(100.0)
    assert attn.weights(drawn(2, 10)).sum() < 1e-6


@torch.no_grad()
def test_one_more_very_wide_gaussian_changes_next_to_nothing():
    few, many = shaken(GaussianAdaptiveAttention(1, 2)), GaussianAdaptiveAttention(1, 3)
    many.mean_offsets.copy_(torch.cat((few.mean_offsets, torch.tensor([0.3]))))
    many.c.copy_(torch.cat((few.c, torch.tensor([100.0]))))
    x = drawn(4, 30)
    assert (few.weights(x) - many.weights(x)).abs().max() < 1e-3


@torch.no_grad()
def test_heads_see_only_their_chunk():
    heads, x = shaken(MultiHeadGaussianAdaptiveAttention(2, 3, 2)), drawn(2, 5, 10)
    before = heads(x)
    x[:, :, 3:6] += 1.0
    after = heads(x)
    same = (before == after).all(0).all(0)
    assert same.tolist() == [True] * 3 + [False] * 3 + [True] * 4


@torch.no_grad()
def test_padding_passes_through_and_counts_as_zero():
    attn = shaken(GaussianAdaptiveAttention(1, 2, padding_value=-1.0))
    plain = GaussianAdaptiveAttention(1, 2)
    plain.load_state_dict(attn.state_dict())
    x = drawn(2, 8, 3)
    x[:, 6:] = -1.0
    out, weights = attn.attend(x)
    assert torch.equal(out[:, 6:], x[:, 6:])
    # the weights of places that are known go by statistics in which padding is zero
    zeros = plain.weights(x.masked_fill(x == -1.0, 0.0))
    ratio = weights[:, :6] / zeros[:, :6]
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4)
    assert torch.allclose(weights.sum(1), torch.ones(2, 3), atol=1e-5)  # padded places have some too


def test_gradients_reach_widths_and_offsets_of_every_head():
    block = shaken(GaussianBlock([1, 2], [2, 2], [3, 1]))
    (block(drawn(2, 6, 8)) * drawn(2, 6, 8, seed=2)).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad.abs().sum() > 0 and parameter.grad.isfinite().all(), name


def test_training_keeps_widths_finite():
    torch.manual_seed(0)
    block = GaussianBlock([1, 1], [2, 2], [3, 3])
    optimizer = torch.optim.Adam(block.parameters(), lr=0.05)
    x, target = drawn(16, 12), drawn(16, 12, seed=2)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(block(x) * 4, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.isfinite().all() for p in block.parameters())


def test_a_config_names_block_and_plugin():
    block = MODELS.build(
        {"type": "opsin.GaussianBlock", "norm_axes": [1], "num_heads": [2], "num_gaussians": [3]}
    )
    assert block(drawn(2, 8, 5, 5)).shape == (2, 8, 5, 5)
    plugin = MODELS.build({"type": "opsin.GaussianPlugin", "in_channels": 8, "norm_axis": 3})
    assert plugin(drawn(2, 8, 5, 8)).isfinite().all()
    assert count(plugin) == 2 * 4 * 5


def test_the_block_exports():
    block, x = shaken(GaussianBlock([1, 1], [3, 3], [2, 2])), drawn(2, 10, 4)
    exported = torch.export.export(block, (x,)).module()
    assert torch.allclose(exported(x), block(x), atol=1e-6)


# The experiments' module and its heads


@torch.no_grad()
def test_gates_lie_between_zero_and_one_and_are_one_at_the_moved_mean():
    attn, x = shaken(DensityAdaptiveAttention(6)), drawn(3, 8, 6)
    gates = attn.gates(x)
    assert (gates > 0).all() and (gates <= 1).all()
    layers = torch.tensor([-1.0, 1.0, 0.0]).view(1, 3, 1).expand(1, 3, 6)  # of mean 0
    for offset, met in ((0.0, 2), (1.0, 1)):
        attn.mean_offset.fill_(offset)
        ones = (attn.gates(layers) == 1).all(2)[0]
        assert ones.nonzero().flatten().tolist() == [met]


@torch.no_grad()
def test_groups_of_layers_have_densities_of_their_own():
    heads, x = shaken(DensityAdaptiveHeads(8, 5, 4)), drawn(2, 8, 5)
    before = heads(x)
    x[:, 2:4] += 1.0
    after = heads(x)
    same = (before == after).all(2).all(0)
    assert same.tolist() == [True] * 2 + [False] * 2 + [True] * 4


@torch.no_grad()
def test_time_is_averaged_before_layers_are_weighed():
    head, x = shaken(GATHead(4, 16, num_classes=3, num_heads=2, hidden_dim=8)), drawn(2, 4, 7, 16)
    assert torch.equal(head(x), head(x.mean(2)))


@torch.no_grad()
def test_published_attention_mixes_samples_and_the_sane_one_layers():
    for batch_first in (False, True):
        head = MHAHead(4, 16, num_classes=3, num_heads=2, hidden_dim=8, batch_first=batch_first).eval()
        x = drawn(3, 4, 16)
        alone = torch.allclose(head(x)[:1], head(x[:1]), atol=1e-5)
        assert alone is batch_first


@torch.no_grad()
def test_queries_of_a_group_sum_their_logits():
    attn, x = GroupedQueryAttention(16, 4, 2), drawn(2, 5, 16)
    q = attn.q_proj(x).unflatten(2, (2, 2, 4))  # key head, member, width
    k, v = (layer(x).unflatten(2, (2, 4)) for layer in (attn.k_proj, attn.v_proj))
    logits = torch.einsum("bnhgd,bmhd->bhnm", q, k) / 4**0.5 / 4**0.5
    mixed = torch.einsum("bhnm,bmhd->bnhd", logits.softmax(-1), v).flatten(2)
    assert torch.allclose(attn(x), attn.out_proj(attn.norm(mixed)), atol=1e-5)


def test_focal_loss_takes_labels_and_probabilities():
    logits, labels = drawn(5, 4), torch.tensor([0, 3, 1, 2, 2])
    each = SoftmaxFocalLoss(reduction="none")(logits, labels)
    assert torch.allclose(SoftmaxFocalLoss()(logits, F.one_hot(labels, 4).float()), each.mean())
    assert torch.allclose(SoftmaxFocalLoss(reduction="sum")(logits, labels), each.sum())


# On a frozen encoder


def classifier(**settings) -> FrozenEncoderClassifier:
    torch.manual_seed(0)
    return FrozenEncoderClassifier(ENCODER, **{"head": HEAD, "num_classes": 3, **settings})


def test_only_the_head_trains():
    model = classifier().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    F.cross_entropy(model(drawn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    assert not model.encoder.backbone.training
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) is name.startswith("encoder."), name
    changed = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed == {"head"}
    assert {model.get_layer_depth(name) for name in before} == {(0, 2), (1, 2)}


def test_features_are_computed_once_a_picture(tmp_path):
    encoder, images = FrozenEncoder(ENCODER, cache=str(tmp_path)), drawn(4, 3, 32, 32)
    calls = []
    encoder.backbone.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    first = encoder(images)
    assert torch.equal(first, encoder(images))
    mixed = encoder(torch.cat((images[2:], images[:1] + 1)))
    assert torch.equal(mixed[:2], first[2:])
    assert calls == [4, 1]
    assert torch.equal(first, FrozenEncoder.forward(_without_cache(encoder), images))


def _without_cache(encoder: FrozenEncoder) -> FrozenEncoder:
    other = FrozenEncoder(ENCODER)
    other.load_state_dict(encoder.state_dict())
    return other


@torch.no_grad()
def test_features_of_other_weights_are_not_taken_from_the_cache(tmp_path):
    torch.manual_seed(0)
    one, other = (FrozenEncoder(ENCODER, cache=str(tmp_path)) for _ in range(2))
    image = drawn(1, 3, 32, 32)
    features = one(image)
    assert not torch.allclose(features, other(image), atol=1e-3)
    other.load_state_dict(one.state_dict())
    assert torch.equal(features, other(image))


def test_a_head_overfits_64_cached_samples(tmp_path):
    torch.manual_seed(0)
    model = classifier(num_classes=4, cache=str(tmp_path))
    images, labels = drawn(64, 3, 32, 32), torch.arange(64) % 4
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-2)
    for _ in range(35):
        for batch in torch.randperm(64).split(16):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (model(images).argmax(1) == labels).float().mean() > 0.95


def test_classes_can_be_changed():
    model = classifier()
    model.reset_classifier(5)
    assert model(drawn(2, 3, 32, 32)).shape == (2, 5)
    model.reset_classifier(0)
    assert model(drawn(2, 3, 32, 32)).shape == (2, model.num_features)


def test_importance_is_scaled_to_its_range():
    assert importance_factors(torch.tensor([0.2, 0.6, 0.4])).tolist() == pytest.approx([0.0, 1.0, 0.5])
    assert importance_factors(torch.full((3,), 0.7)).tolist() == [0.0, 0.0, 0.0]


@torch.no_grad()
def test_importance_of_layers_becomes_a_table(tmp_path):
    model, hook = classifier().eval(), ImportanceFactors()
    runner = SimpleNamespace(model=model, work_dir=str(tmp_path))
    hook.before_val_epoch(runner)
    images = [drawn(3, 3, 32, 32), drawn(1, 3, 32, 32, seed=2)]
    for batch in images:
        model(batch)
    hook.after_val_epoch(runner)
    model(images[0])  # no longer watched
    rows = list(csv.DictReader((tmp_path / "importance_factors.csv").open()))
    gates = torch.cat([model.head.daam.gates(model.encoder(batch)) for batch in images]).mean((0, 2))
    assert [float(row["mean_gate"]) for row in rows] == pytest.approx(gates.tolist(), abs=1e-5)
    factors = [float(row["importance_factor"]) for row in rows]
    assert (min(factors), max(factors)) == (0.0, 1.0) and len(factors) == 4


# Cases of other sources


def case_of(
    source: str, module: nn.Module, outputs: dict[str, list[int]], x: list[int], **built_with
) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "gaussian-adaptive-attention",
        "case": "other",
        "source": source,
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in module.state_dict().items()],
        "inputs": {"x": {"seed": 1, "shape": x}},
        "outputs": {name: {"shape": shape} for name, shape in outputs.items()},
        "overrides": [{"match": "c$", "mean": 2.0, "std": 0.1}],
    }
    return Case(meta, {})


def shapes(case: Case) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in find_adapter(case)(case).items()}


PEFT = "gioannides/DAAM-PEFT-paper-code@093212b"


def test_other_single_heads_run():
    source = "gioannides/Gaussian-Adaptive-Attention@145d1bc gaussian_adaptive_attention/GaussianBlock.py"
    outputs = {"out": [3, 8], "attention": [3, 8]}
    head = GaussianAdaptiveAttention(1, 3)
    given = {"norm_axis": 1, "num_heads": 4, "num_gaussians": 3, "padding_value": 0.5, "eps": 1e-6}
    assert shapes(case_of(f"{source} GaussianAdaptiveAttention", head, outputs, [3, 8], **given)) == outputs


@pytest.mark.parametrize("keys", ["daams", "gcts"])
@pytest.mark.parametrize("heads", [1, 2])
def test_other_density_modules_run(keys, heads):
    module = DensityAdaptiveHeads(4, 6, heads)
    source, outputs = (
        f"{PEFT} IEMOCAP/DAAMv1.py MultiHeadDAAM",
        {"out": [2, 4, 6], "attention_weights": [2, 4, 6]},
    )
    case = case_of(source, module, outputs, [2, 4, 6])
    case.meta["tensors"] = [[name.replace("daams", keys), shape] for name, shape in case.meta["tensors"]]
    assert shapes(case) == outputs
    single = case_of(f"{PEFT} IEMOCAP/DAAMv1.py DAAM", module.daams[0], {"out": [2, 3, 1, 6]}, [2, 3, 1, 6])
    assert shapes(single) == {"out": [2, 3, 1, 6]}


@pytest.mark.parametrize("keys", ["daam.daams.", "daam.gcts.", "gct.gcts."])
def test_other_gat_heads_run_whatever_the_file_calls_its_parts(keys):
    outputs = {"gated": [2, 4, 16], "logits": [2, 3]}
    head = GATHead(4, 16, num_classes=3, num_heads=2, hidden_dim=8)
    case = case_of(f"{PEFT} IEMOCAP/DAAMv2.py DAAMModel", head, outputs, [2, 4, 16], num_heads=2)
    case.meta["tensors"] = [
        [name.replace("daam.daams.", keys), shape] for name, shape in case.meta["tensors"]
    ]
    assert shapes(case) == outputs


def test_other_heads_for_text_run():
    head = GATHead(2, 5120, num_classes=4, num_heads=1, hidden_dim=2, map_size=(64, 80))
    case = case_of(f"{PEFT} AGNews/DAAMv1.py DAAMModel", head, {"logits": [2, 4]}, [2, 2, 5120])
    assert shapes(case) == {"logits": [2, 4]}


@pytest.mark.parametrize("folder", ["IEMOCAP", "AGNews"])
def test_other_grouped_query_heads_run(folder):
    map_size = (64, 8) if folder == "AGNews" else (8, 64)
    head = GroupedQueryHead(4, 16, num_classes=3, num_heads=2, hidden_dim=8, map_size=map_size)
    case = case_of(f"{PEFT} {folder}/GQ_DAAM.py GQModel", head, {"logits": [2, 3]}, [2, 4, 16])
    assert shapes(case) == {"logits": [2, 3]}
    gqa = case_of(f"{PEFT} {folder}/GQ_DAAM.py MultiheadGQA", head.gqa, {"out": [2, 4, 512]}, [2, 4, 512])
    assert shapes(gqa) == {"out": [2, 4, 512]}


@pytest.mark.parametrize("settings", [{}, {"layer": 1}, {"batch_norm": True}])
def test_other_rival_heads_run(settings):
    head = MHAHead(4, 16, num_classes=3, num_heads=2, hidden_dim=8, **settings)
    case = case_of(f"{PEFT} CIFAR100/MHA.py MHAModel", head, {"logits": [2, 3]}, [2, 4, 16], num_heads=2)
    assert shapes(case) == {"logits": [2, 3]}
    case.meta["tensors"] = [[name.replace("mha.", "gct."), shape] for name, shape in case.meta["tensors"]]
    assert shapes(case) == {"logits": [2, 3]}


def test_files_of_the_authors_training_load(tmp_path):
    source = shaken(GATHead(4, 16, num_classes=3, num_heads=2, hidden_dim=8))
    tensors = {name.replace("daam.daams", "daam.gcts"): t for name, t in source.state_dict().items()}
    content = {"epoch": 3, "state_dict": tensors, "optimizer": {}, "attention_weights": torch.zeros(2)}
    torch.save(content, tmp_path / "best.pth")
    target = load_published(GATHead(4, 16, num_classes=3, num_heads=2, hidden_dim=8), tmp_path / "best.pth")
    x = drawn(2, 4, 16)
    assert torch.equal(target(x), source(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianAdaptiveAttention(1, 0), "num_gaussians 0"),
        (lambda: MultiHeadGaussianAdaptiveAttention(1, 0, 2), "num_heads 0"),
        (lambda: MultiHeadGaussianAdaptiveAttention(1, 9, 2)(drawn(2, 8)), "too short for 9"),
        (lambda: GaussianBlock([1, 1], [2], [3, 3]), "number of layers"),
        (lambda: GaussianAdaptiveAttention(1, 2)(drawn(2, 1)), "variance"),
        (lambda: GaussianPlugin(7), "4 heads"),
        (lambda: GaussianPlugin(8, norm_axis=0), "norm_axis 0"),
        (lambda: GATHead(24, 1024, num_heads=5), "5 heads.*24"),
        (lambda: GATHead(24, 512), "512.*square"),
        (lambda: GATHead(24, 512, map_size=(8, 8)), "512.*8 x 8"),
        (lambda: GroupedQueryAttention(16, 3, 1), "3 query heads"),
        (lambda: MHAHead(4, 16, layer=4), "layer 4"),
        (lambda: MHAHead(4, 16, num_heads=5), "5 heads"),
        (lambda: SoftmaxFocalLoss(reduction="men"), "men.*mean"),
        (lambda: FrozenEncoder({"type": "opsin.ConvNeXt"}), "96, 192, 384, 768"),
        (lambda: classifier(head={"num_heads": 3}), "3 heads.*4 layers"),
        (lambda: ImportanceFactors().before_val_epoch(SimpleNamespace(model=nn.Identity())), "0 parts"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
