import pytest
import torch
from torch import Tensor, nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.ninformer import (
    GatingUnit,
    Mixer,
    NiNBlock,
    NiNformer,
    NiNformerClassifier,
)
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.registry import MODELS

SMALL = {"embed_dim": 16, "hidden_dim": 24, "depth": 3}
SIZES = {"tokens": 5, "dim": 16, "hidden_dim": 24}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**changes) -> NiNformerClassifier:
    torch.manual_seed(0)
    return NiNformerClassifier(SMALL, **{"num_classes": 4, "img_size": 16, "drop_rate": 0.0, **changes})


AUTHORS_NAMES = {
    "patch_embed.proj.": "patcher.",
    "head.": "classifier.",
    "blocks.": "model.",
    "gate.": "mgu.",
    "mixer.": "Mixer.",
    "norm1.": "token_mix.0.",
    "norm2.": "channel_mix.0.",
    "token_mlp.": "token_mix.2.net.",
    "channel_mlp.": "channel_mix.1.net.",
    "mlp.": "ffn.net.",
    "fc1.": "0.",
    "fc2.": "3.",
}


def authors_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for own, theirs in AUTHORS_NAMES.items():
            name = name.replace(own, theirs)
        renamed[name] = tensor
    return renamed


def case_of(
    source: str, tensors: dict[str, Tensor], shape: list[int], outputs: dict[str, list[int]], built_with: dict
) -> dict[str, Tensor]:
    """What the adapter makes of a case as another run of the authors' code would give it."""
    meta = {
        "system": "ninformer",
        "case": "other",
        "source": f"Abdullah-88/NiNformer@0ec85d4 {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "inputs": {"x": {"seed": 1, "shape": shape}},
        "outputs": dict.fromkeys(outputs),
    }
    case = Case(meta, {})
    got = find_adapter(case)(case)
    assert {name: list(got[name].shape) for name in outputs} == outputs
    return dict(got)


def test_other_classifier_cases_run():
    tensors = authors_names(small(img_size=28, in_channels=1, num_classes=7).state_dict())
    given = {"image_size": 28, "patch_size": 4, "in_channels": 1, "d_model": 16, "d_ffn": 24, "seq_len": 49}
    outputs = {"logits": [2, 7], "tokens": [2, 49, 16]}
    source = "train.py NiNformerImageClassification on ninformer.py NiNformer"
    case_of(source, tensors, [2, 1, 28, 28], outputs, given)


def test_cases_of_parts_run():
    out = {"out": [2, 5, 16]}
    blocks = nn.ModuleDict({"blocks": nn.Sequential(NiNBlock(**SIZES), NiNBlock(**SIZES))})
    for source, module in (
        ("NiNformer", blocks),
        ("NiNBlock", NiNBlock(**SIZES)),
        ("MixerGatingUnit", nn.ModuleDict({"gate": GatingUnit(**SIZES)})),
        ("MixerBlock", nn.ModuleDict({"mixer": Mixer(**SIZES)})),
    ):
        own_prefix = {"MixerGatingUnit": "mgu.", "MixerBlock": "Mixer."}.get(source, "")
        tensors = {name.removeprefix(own_prefix): t for name, t in authors_names(module.state_dict()).items()}
        case_of(f"ninformer.py {source}", tensors, [2, 5, 16], out, {})
    perceptron = {
        "net.0.weight": (24, 16),
        "net.0.bias": (24,),
        "net.3.weight": (16, 24),
        "net.3.bias": (16,),
    }
    tensors = {name: torch.empty(shape) for name, shape in perceptron.items()}
    case_of("ninformer.py FeedForward", tensors, [2, 5, 16], out, {})


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("ninformer_cifar10", 10, 2_652_170),
        ("ninformer_cifar10", 100, 2_675_300),
        ("ninformer_mnist", 10, 2_582_478),
    ],
)
def test_classifiers_have_the_published_number_of_parameters(name, classes, parameters):
    with torch.device("meta"):
        assert count(create_model(name, num_classes=classes)) == parameters


def test_a_block_has_the_published_number_of_parameters():
    block = MODELS.build({"type": "opsin.NiNBlock", "tokens": 64, "dim": 256, "hidden_dim": 512})
    assert count(block) == 659_264


def test_a_block_has_one_norm_beside_the_mixers_two():
    norms = [m for m in NiNBlock(**SIZES).modules() if isinstance(m, nn.LayerNorm)]
    assert [count(norm) for norm in norms] == [32] * 3


@torch.no_grad()
def test_the_shared_norm_acts_before_both_halves():
    torch.manual_seed(0)
    block, x = NiNBlock(**SIZES).eval(), torch.randn(2, 5, 16)
    seen = []
    for half in (block.gate, block.mlp):
        half.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    block.norm.weight.fill_(2.0)
    block.norm.bias.fill_(3.0)
    block(x)
    for given in seen:
        assert torch.allclose(given.mean(-1), torch.full((2, 5), 3.0), atol=1e-4)
        assert torch.allclose(given.std(-1, correction=0), torch.full((2, 5), 2.0), atol=1e-3)


@torch.no_grad()
def test_a_block_knows_the_places_of_tokens_without_a_position_table():
    torch.manual_seed(0)
    block, x = NiNBlock(**SIZES).eval(), torch.randn(1, 5, 16)
    order = torch.tensor([1, 0, 2, 4, 3])
    assert not torch.allclose(block(x[:, order]), block(x)[:, order], atol=1e-3)


@torch.no_grad()
def test_every_token_moves_every_gate():
    torch.manual_seed(0)
    unit, x = GatingUnit(**SIZES).eval(), torch.randn(1, 5, 16)
    gates = []
    unit.mixer.register_forward_hook(lambda module, args, out: gates.append(out))
    for place in (None, 0, 4):
        moved = x.clone()
        if place is not None:
            moved[:, place] += torch.randn(16)
        unit(moved)
    for other in gates[1:]:
        assert ((other - gates[0]).abs().amax(2) > 1e-4).all()


@torch.no_grad()
def test_a_projection_of_zero_leaves_the_perceptron_alone():
    torch.manual_seed(0)
    block, x = NiNBlock(**SIZES).eval(), torch.randn(2, 5, 16)
    nn.init.zeros_(block.gate.proj.weight)
    nn.init.zeros_(block.gate.proj.bias)
    assert torch.equal(block(x), x + block.mlp(block.norm(x)))


@torch.no_grad()
def test_the_gate_has_no_activation():
    torch.manual_seed(0)
    unit, x = GatingUnit(**SIZES).eval(), torch.randn(2, 5, 16)
    assert torch.equal(unit(x), unit.proj(x) * unit.mixer(x))
    assert unit.mixer(x).min() < -0.5 and unit.mixer(x).max() > 1.5


def test_evaluation_is_deterministic_and_training_drops():
    model, image = small(drop_rate=0.5), torch.randn(2, 3, 16, 16)
    assert torch.equal(model.eval()(image), model(image))
    assert not torch.equal(model.train()(image), model(image))


def test_loss_falls_within_fifty_steps():
    model = small(drop_rate=0.1)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(256) % 4
    patterns = torch.randn(4, 3, 16, 16, generator=generator)
    images = patterns[labels] + torch.randn(256, 3, 16, 16, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for step in range(50):
        part = torch.arange(32) + 32 * (step % 8)
        loss = nn.functional.cross_entropy(model(images[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-8:]) < 0.5 * sum(losses[:8])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: small()(torch.randn(1, 3, 20, 16)), "16 x 16 pixels.*given 20 x 16.*img_size"),
        (lambda: NiNformer(SMALL)(torch.randn(1, 3, 16, 16)), "32 x 32 pixels.*given 16 x 16"),
        (lambda: NiNBlock(**SIZES)(torch.randn(1, 6, 16)), "mixer of 5 tokens was given 6"),
        (lambda: NiNformer("cifar"), "cifar.*cifar10"),
        (lambda: NiNformer({"embed_dim": 16, "depth": 3}), "lacks hidden_dim"),
        (lambda: NiNformer(SMALL, out_indices=(0, 3)), r"0\.\.2"),
        (lambda: NiNformer(SMALL, img_size=3), "3 pixels has no patch of 4"),
    ],
)
def test_a_wrong_size_or_setting_is_named(run, message):
    with pytest.raises(UserError, match=message):
        run()


# What test_every_backbone asks of backbones that take any size, for the one size of this


@torch.no_grad()
def test_maps_are_the_classifiers_tokens(tmp_path):
    classifier = small(img_size=20).eval()
    backbone = NiNformer(SMALL, img_size=20, out_indices=(0, 2), drop_rate=0.0).eval()
    torch.save(authors_names(classifier.state_dict()), tmp_path / "ninformer.pth")
    load_published(backbone, tmp_path / "ninformer.pth")
    image = torch.randn(2, 3, 20, 20)
    first, last = backbone(image)
    assert first.shape == last.shape == (2, 16, 5, 5)
    assert [(info.channels, info.stride) for info in backbone.feature_info] == [(16, 4)] * 2
    tokens = classifier.forward_tokens(image)
    assert torch.allclose(last.flatten(2).transpose(1, 2), tokens)
    assert torch.allclose(first.flatten(2).transpose(1, 2), classifier.blocks[0](classifier.embed(image)))


def test_blocks_after_the_last_map_are_not_built(tmp_path):
    classifier = small()
    backbone = NiNformer(SMALL, img_size=16, out_indices=(1,))
    torch.save({"model": classifier.state_dict()}, tmp_path / "ninformer.pth")
    load_published(backbone, tmp_path / "ninformer.pth")
    assert len(backbone.blocks) == 2
    assert torch.equal(backbone.blocks[1].gate.proj.weight, classifier.blocks[1].gate.proj.weight)


def test_the_authors_file_loads_strictly(tmp_path):
    source = small()
    torch.save(authors_names(source.state_dict()), tmp_path / "cifar10.pth")
    target = load_published(small(), tmp_path / "cifar10.pth")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())
    with pytest.raises(UserError, match=r"cifar10\.pth.*blocks\.0\.gate\.mixer\.token_mlp\.fc1\.weight"):
        load_published(small(img_size=20), tmp_path / "cifar10.pth")


def test_gradients_reach_every_parameter_checkpointed_or_not():
    image, gradients = torch.randn(2, 3, 16, 16), []
    for with_cp in (False, True):
        model = small(with_cp=with_cp).train()
        (model(image) * torch.arange(8.0).view(2, 4)).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0].values())
    assert all(torch.allclose(g, gradients[1][name], atol=1e-6) for name, g in gradients[0].items())


def test_frozen_stages_keep_their_weights():
    backbone = NiNformer(SMALL, img_size=16, frozen_stages=1).train()
    frozen = {name.split(".gate")[0] for name, p in backbone.named_parameters() if not p.requires_grad}
    assert {"patch_embed.proj.weight", "blocks.0"} <= frozen
    assert not any(name.startswith(("blocks.1", "blocks.2")) for name in frozen)
    assert not backbone.blocks[0].training and backbone.blocks[1].training


@torch.no_grad()
def test_exports_with_the_same_result():
    for model in (small().eval(), NiNformer(SMALL, img_size=16).eval()):
        image = torch.randn(1, 3, 16, 16)
        got, want = torch.export.export(model, (image,)).module()(image), model(image)
        for a, b in zip(got, want, strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_bfloat16_autocast_stays_near_float32():
    model, image = small(), torch.randn(2, 3, 16, 16)
    exact = model(image)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(image)
    rough.sum().backward()
    assert torch.allclose(rough.float(), exact, atol=0.05 * exact.abs().max().item())


def test_learning_rate_decay_groups_and_heads():
    model = small()
    layers = {name: model.get_layer_depth(name) for name, _ in model.named_parameters()}
    assert {count for _, count in layers.values()} == {5}
    assert layers["patch_embed.proj.weight"][0] == 0
    assert layers["blocks.2.norm.weight"][0] == 3
    assert layers["head.weight"][0] == 4
    model.reset_classifier(7)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 7)
    assert model.head.weight.abs().max() <= 16**-0.5 and model.head.bias.abs().sum() > 0  # PyTorch's own
    model.reset_classifier(0)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, model.num_features)


def test_backbone_by_name():
    backbone = create_backbone("ninformer_mnist", out_indices=(1, 3)).eval()
    assert [m.shape for m in backbone(torch.randn(1, 1, 28, 28))] == [(1, 256, 7, 7)] * 2
