"""What every published backbone answers; the small variants stand in small_backbones.py."""

from collections.abc import Iterator

import pytest
import torch
from small_backbones import BACKBONES, small_backbone, small_classifier
from torch import Tensor, nn

from opsin.core.backbones import SYSTEMS
from opsin.core.backbones.backbone import Backbone
from opsin.core.published import load_published

pytestmark = pytest.mark.parametrize("name", BACKBONES)


def shaken(model: nn.Module) -> nn.Module:
    """The model with every parameter moved a little, so that none is at a zero it begins with."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def maps_of(model: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    out = model(image)
    return out if isinstance(out, tuple) else (out,)


def test_system_is_listed(name):
    assert name.partition(".")[0] in SYSTEMS


@pytest.mark.parametrize("size", [(32, 32), (65, 97), (96, 40)])
def test_maps_are_those_of_feature_info_at_any_size(name, size):
    backbone = small_backbone(name).eval()
    maps = backbone(picture(1, 3, *size))
    assert len(maps) == len(backbone.feature_info)
    for info, m in zip(backbone.feature_info, maps, strict=True):
        assert m.shape[:2] == (1, info.channels)
        for got, side in zip(m.shape[2:], size, strict=True):
            # plain backbones leave out what fills no whole patch of 16 pixels
            assert max(1, (side - 15) // info.stride) <= got <= -(-side // info.stride) + 1
        assert m.isfinite().all()


@torch.no_grad()
def test_fewer_maps_are_the_same_maps(name):
    torch.manual_seed(0)
    whole = small_backbone(name).eval()
    chosen = whole.out_indices[1::2]
    torch.manual_seed(0)
    part = small_backbone(name, out_indices=chosen).eval()
    own = whole.state_dict()
    part.load_state_dict({key: own.get(key, tensor) for key, tensor in part.state_dict().items()})
    if len(part.feature_info) != len(chosen):
        pytest.fail(f"{len(part.feature_info)} maps for out_indices {chosen}")
    image = picture(1, 3, 64, 96)
    wanted = [m for index, m in zip(whole.out_indices, whole(image), strict=True) if index in chosen]
    if not getattr(part, "fpn", False):  # levels of a plain backbone's pyramid are counted anew
        for got, want in zip(part(image), wanted, strict=True):
            assert torch.allclose(got, want, atol=1e-5)


@torch.no_grad()
def test_one_image_gives_what_it_gives_in_a_batch(name):
    model = shaken(small_backbone(name)).eval()
    images = picture(3, 3, 64, 64)
    for all_three, alone in zip(model(images), model(images[1:2]), strict=True):
        assert torch.allclose(all_three[1:2], alone, atol=1e-4 * alone.abs().max().item() + 1e-6)


def test_bfloat16_autocast_stays_near_float32(name):
    model = shaken(small_backbone(name)).eval()
    image = picture(2, 3, 64, 96)
    exact = model(image)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(image)
        loss = sum(m.float().square().mean() for m in rough)
    loss.backward()
    for a, b in zip(rough, exact, strict=True):
        assert (a.float() - b).abs().mean() < 0.05 * b.abs().mean() + 1e-3
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("build", [small_backbone, small_classifier])
def test_gradients_reach_every_parameter(name, build):
    model = shaken(build(name)).train()
    out = maps_of(model, picture(2, 3, 64, 96))
    sum((m * picture(*m.shape)).sum() for m in out).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_checkpointing_changes_no_gradient(name):
    plain, thrifty = shaken(small_backbone(name)), shaken(small_backbone(name, with_cp=True))
    thrifty.load_state_dict(plain.state_dict())
    image = picture(2, 3, 64, 64)
    gradients = []
    for model in (plain, thrifty):
        torch.manual_seed(0)
        sum((m * picture(*m.shape)).mean() for m in model.train()(image)).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for key, gradient in gradients[0].items():
        scale = gradient.abs().max().item()
        assert torch.allclose(gradient, gradients[1][key], atol=1e-4 * scale + 1e-7), key


def test_frozen_stages_keep_weights_and_statistics(name):
    free, frozen = small_backbone(name), small_backbone(name, frozen_stages=1).train()
    assert all(p.requires_grad for p in free.parameters())
    kept = [n for n, p in frozen.named_parameters() if not p.requires_grad]
    assert kept and len(kept) < len(list(frozen.named_parameters()))
    before = {key: tensor.clone() for key, tensor in frozen.state_dict().items()}
    stages = [module for stage in (0, 1) for module in frozen.stage_modules(stage)]
    assert not any(module.training for module in stages)
    optimizer = torch.optim.SGD([p for p in frozen.parameters() if p.requires_grad], lr=0.1)
    sum(m.square().mean() for m in frozen(picture(2, 3, 64, 64))).backward()
    optimizer.step()
    after = frozen.state_dict()
    prefixes = {n for n, module in frozen.named_modules() if any(module is stage for stage in stages)}
    inside = [key for key in before if any(key.startswith(f"{prefix}.") for prefix in prefixes)]
    assert inside and all(torch.equal(before[key], after[key]) for key in inside)
    assert all(torch.equal(before[key], after[key]) for key in kept)


@torch.no_grad()
@pytest.mark.parametrize("build", [small_backbone, small_classifier])
def test_fusing_norms_changes_no_output(name, build):
    model = shaken(build(name))
    model.train()(picture(4, 3, 64, 64))  # running statistics away from 0 and 1
    image = picture(2, 3, 64, 96)
    before = maps_of(model.eval(), image)
    after = maps_of(model.fuse(), image)
    for a, b in zip(after, before, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * b.abs().max().item() + 1e-5)


@pytest.mark.parametrize("build", [small_backbone, small_classifier])
def test_exports_with_the_same_result(name, build):
    model, image = build(name).eval(), picture(1, 3, 64, 64)
    exported = torch.export.export(model, (image,)).module()
    with torch.no_grad():
        for got, want in zip(maps_of(exported, image), maps_of(model, image), strict=True):
            assert torch.allclose(got, want, atol=1e-5 * want.abs().max().item() + 1e-6)


@pytest.mark.parametrize("build", [small_backbone, small_classifier])
def test_every_parameter_has_a_layer_for_learning_rate_decay(name, build):
    model = build(name)
    layers = {n: model.get_layer_depth(n) for n, _ in model.named_parameters()}
    assert len({count for _, count in layers.values()}) == 1
    assert all(0 <= layer < count for layer, count in layers.values())
    assert len({layer for layer, _ in layers.values()}) > 2
    assert model.no_weight_decay() <= set(layers)
    if not isinstance(model, Backbone):
        heads = {layer for n, (layer, _) in layers.items() if n.startswith("head.")}
        assert heads == {max(layer for layer, _ in layers.values())}


def test_classifier_takes_another_number_of_classes(name):
    model = small_classifier(name).eval()
    image = picture(2, 3, 64, 64)
    model.reset_classifier(5)
    assert model(image).shape == (2, 5)
    model.reset_classifier(0)
    assert model(image).shape == (2, model.num_features)


def test_classifier_learns_two_classes(name):
    torch.manual_seed(0)
    model = small_classifier(name, num_classes=2).train()
    images, labels = picture(8, 3, 64, 64), torch.tensor([0] * 4 + [1] * 4)
    images[4:] += torch.linspace(-2, 2, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = list(_train(model, optimizer, images, labels, steps=25))
    assert min(losses[-5:]) < 0.6 * losses[0]


def _train(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def test_classifier_file_loads_into_the_backbone(name, tmp_path):
    classifier = shaken(small_classifier(name))
    backbone = small_backbone(name)
    path = tmp_path / "classifier.pth"
    torch.save({"model": classifier.state_dict()}, path)
    load_published(backbone, path)
    own, given = backbone.state_dict(), classifier.state_dict()
    same = [key for key in own if key in given and own[key].shape == given[key].shape]
    assert len(same) > len(own) / 2
    assert all(torch.equal(own[key], given[key]) for key in same)
