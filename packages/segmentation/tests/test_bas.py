"""BAS: published numbers, sizes, where gradients go, and boxes cut from maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from opsin.core import create_model, list_models
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter, run_case
from opsin.core.published import load_published
from opsin.segmentation.weakly_supervised.models.bas import BASVGG, BASMobileNet, BASResNet, BASSeeder
from opsin.segmentation.weakly_supervised.models.bas.inception import BASInception
from opsin.segmentation.weakly_supervised.models.bas.localizer import BASLocalizer
from opsin.segmentation.weakly_supervised.models.bas.seeder import present_against_absent
from opsin.segmentation.weakly_supervised.models.bas.suppression import Clamp, background_ratio, run_frozen
from opsin.segmentation.weakly_supervised.models.map_to_box import box_iou, enlarged, largest_box, normalized

CASES = sorted((Path(__file__).parent / "parity" / "bas").glob("*.json"))
COUNTS = {
    "bas_inceptionv3_cub": 51_686_768,
    "bas_mobilenet_cub": 23_210_192,
    "bas_resnet50_cub": 53_870_032,
    "bas_resnet50_ilsvrc": 62_063_632,
    "bas_resnet50_voc": 23_733_312,
    "bas_vgg16_cub": 29_999_312,
}
# more classes than the published counts are for: of each 1024 weights and a bias, and 9 weights a channel of
# the features and a bias
WIDER = {
    "bas_inceptionv3_ilsvrc": ("bas_inceptionv3_cub", 800, 768),
    "bas_mobilenet_ilsvrc": ("bas_mobilenet_cub", 800, 512),
    "bas_resnet50_openimages": ("bas_resnet50_cub", -100, 1024),
    "bas_vgg16_ilsvrc": ("bas_vgg16_cub", 800, 512),
}


def thin(kind: str, **changes: Any) -> Any:
    """A thin network of three classes with running statistics that are not the initial ones."""
    torch.manual_seed(0)
    classes: dict[str, Any] = {
        "resnet": lambda: BASResNet(3, depth=18, base_channels=8, classifier_width=16, **changes),
        "mobilenet": lambda: BASMobileNet(3, width_mult=0.125, classifier_width=16, **changes),
        "vgg": lambda: BASVGG(3, classifier_width=16, **changes),
        "seeder": lambda: BASSeeder(3, depth=18, base_channels=8, **changes),
    }
    network = classes[kind]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
    return network.eval()


KINDS = ("resnet", "mobilenet", "vgg", "seeder")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_published_numbers_are_met(path: Path) -> None:
    result = run_case(path)
    assert not result.error
    assert result.ok, result


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameter_counts_are_the_published_ones_without_copies(name: str, count: int) -> None:
    with torch.device("meta"):
        network = create_model(name)
    assert sum(p.numel() for p in network.parameters()) == count


def test_models_are_listed() -> None:
    assert list_models("bas_*") == sorted([*COUNTS, *WIDER])


@pytest.mark.parametrize("name", WIDER)
def test_other_data_sets_change_the_last_layers_alone(name: str) -> None:
    like, more, channels = WIDER[name]
    with torch.device("meta"):
        network = create_model(name)
    count = sum(p.numel() for p in network.parameters())
    assert count - COUNTS[like] == more * (1024 + 1 + 9 * channels + 1)


def altered(tmp_path: Path, name: str, network: nn.Module, **changes: Any) -> Case:
    """A case of this repository with another network's tensors; its numbers are nobody's."""
    path = next(path for path in CASES if path.stem == name)
    shapes = [
        [key, list(tensor.shape)]
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    ]
    inputs = {
        "img": {"seed": 1, "shape": [2, 3, 64, 64]},
        "blocks": {"seed": 2, "shape": [2, 3, 4, 4]},
        "label": {"kind": "literal", "value": [1, 0], "dtype": "int64"},
    }
    meta = {**json.loads(path.read_text()), "tensors": shapes, "inputs": inputs, **changes}
    (tmp_path / "case.json").write_text(json.dumps(meta))
    (tmp_path / "case.npz").write_bytes(path.with_suffix(".npz").read_bytes())
    return Case.load(tmp_path / "case.json")


@pytest.mark.parametrize("first", [False, True])
def test_vgg_adapter_runs_both_versions(tmp_path: Path, first: bool) -> None:
    network = BASVGG(5, first_version=first)
    repository = "wpy1999/BAS@54c395ed" if first else "wpy1999/BAS-Extension@bd1bfa89 WSOL"
    case = altered(
        tmp_path,
        "wsol-mobilenet-cub",
        network,
        built_with={"num_classes": 5},
        source=f"{repository}/Model/vgg.py VGG16",
        what="top-k 2",
    )
    got = find_adapter(case)(case)
    assert got["map_topk"].shape == (2, 1, 8, 8) and got["score1"].shape == (2, 5)
    assert bool((got["score1"] >= 0).all()) or not first
    assert ((got["bas"] >= 0) & (got["bas"] <= 1)).all()


def test_inception_keeps_stride_8_under_torchvisions_names() -> None:
    with torch.device("meta"):
        network = BASInception(5)
        features = network.features(torch.empty(1, 3, 224, 224))
        assert features.shape == (1, 768, 28, 28)
        for module in network.upper_half():
            features = module(features)
        assert features.shape == (1, 2048, 14, 14)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes["Conv2d_4a_3x3.conv.weight"] == (192, 80, 3, 3)
    assert shapes["Mixed_5b.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert shapes["Mixed_6e.branch7x7dbl_5.conv.weight"] == (192, 192, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,)


def test_inception_adapter_measures_the_authors_way(tmp_path: Path) -> None:
    network = BASInception(3)
    case = altered(
        tmp_path,
        "wsol-mobilenet-cub",
        network,
        built_with={"num_classes": 3},
        source="wpy1999/BAS-Extension@bd1bfa89 WSOL/Model/inception.py InceptionV3Cam",
        what="top-k 2",
    )
    got = find_adapter(case)(case)
    assert got["map_topk"].shape == (2, 1, 8, 8) and torch.isfinite(got["score1"]).all()


@pytest.mark.parametrize(
    ("depth", "block", "layers"),
    [(18, "BasicBlock", [2, 2, 2, 2]), ((1, 2, 1, 1), "Bottleneck", [1, 2, 1, 1])],
)
def test_resnet_adapter_takes_other_depths_and_classes(
    tmp_path: Path, depth: Any, block: str, layers: list[int]
) -> None:
    network = BASResNet(4, depth=depth)
    case = altered(
        tmp_path,
        "wsol-resnet50-cub",
        network,
        built_with={"block": block, "layers": layers, "num_classes": 4},
        what="top-k = 3",
    )
    got = find_adapter(case)(case)
    network.load_state_dict(case.state_dict(), strict=False)
    inputs = case.inputs()
    image = 0.5 * inputs["img"] + inputs["blocks"].repeat_interleave(16, 2).repeat_interleave(16, 3)
    scores, maps = network.eval().localize(image, 3)
    torch.testing.assert_close(got["score1"], scores)
    torch.testing.assert_close(got["map_topk"], maps)


def gradients(network: nn.Module, loss: Tensor) -> set[str]:
    """The top-level parts of the network that the loss teaches."""
    network.zero_grad()
    loss.backward(retain_graph=True)
    return {
        n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum()
    }


@pytest.mark.parametrize("kind", ["resnet", "seeder"])
def test_background_and_area_teach_the_generator_and_the_lower_half_alone(kind: str) -> None:
    network = thin(kind, clamp_value=1.0).train()
    lower = {"conv1", "bn1", "layer1", "layer2", "layer3", "classifier_loc"}
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        for weight in network.classifier_cls.parameters():
            weight.abs_()  # more of the object gives more activation: no ratio is clamped
    found = network.suppress(images, labels)
    assert (found.ratio < 1).any()
    assert gradients(network, found.ratio.sum()) == lower
    assert gradients(network, found.area.sum()) == lower
    guidance = nn.functional.cross_entropy(found.foreground_scores, labels)
    upper = {"layer4", "classifier_cls"}
    assert gradients(network, guidance) == (lower if kind == "seeder" else lower | upper)
    assert gradients(network, found.scores.square().sum()) == (lower | upper) - {"classifier_loc"}


def test_second_pass_leaves_the_running_statistics_alone_and_uses_those_of_the_batch() -> None:
    norm = nn.BatchNorm2d(3).train()
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    x = torch.randn(4, 3, 5, 5) * 3 + 2
    out = run_frozen([norm], x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert not torch.allclose(run_frozen([norm.eval()], x), out)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_taken_out_keeps_the_activation_and_all_taken_out_leaves_that_of_nothing(kind: str) -> None:
    network, images, labels = thin(kind), torch.randn(2, 3, 64, 64), torch.tensor([2, 0])
    generator = network.classifier_loc[0]
    with torch.no_grad():
        generator.weight.zero_()
        generator.bias = nn.Parameter(torch.full((3,), -200.0))
        empty = network.suppress(images, labels)
        torch.testing.assert_close(empty.background, empty.whole)
        assert empty.area.tolist() == [0, 0]
        generator.bias.fill_(200.0)
        full = network.suppress(images, labels)
        assert full.area.tolist() == [1, 1]
        nothing = run_of_nothing(network, images)
        torch.testing.assert_close(full.background, nothing[torch.arange(2), labels])


def run_of_nothing(network: Any, images: Tensor) -> Tensor:
    """Scores of features that are zero everywhere."""
    if isinstance(network, BASSeeder):
        return network.classifier_cls(network.layer4(0 * network.lower_stages(images))).mean((2, 3))
    return network._class_maps(0 * network.features(images)).mean((2, 3))


def test_ratios_above_one_are_clamped_without_gradient() -> None:
    background = torch.tensor([2.0, 1.0, -3.0, 0.5, 1.0], requires_grad=True)
    whole = torch.tensor([1.0, 2.0, 1.0, -1.0, 1.0])
    ratio = background_ratio(background, whole, Clamp(1.0))
    assert ratio.tolist() == pytest.approx([1, 0.5, 0, 1, 1])
    ratio.sum().backward()
    assert background.grad.tolist() == pytest.approx([0, 0.5, 0, 0, 1])
    assert background_ratio(background, whole, Clamp(0.0))[[0, 3]].tolist() == [0, 0]
    assert background_ratio(background, whole, Clamp(0.0, equal=True))[4] == 0


def test_defaults_of_the_clamp_are_those_of_the_backbones() -> None:
    with torch.device("meta"):
        networks = [BASResNet(3), BASMobileNet(3), BASVGG(3), BASResNet(3, first_version=True)]
    assert [n.clamp for n in networks] == [Clamp(1.0), Clamp(1.0), Clamp(0.0), Clamp(0.0, equal=True)]
    assert isinstance(networks[3].classifier_cls[-1], nn.ReLU)


@pytest.mark.parametrize("kind", ["resnet", "mobilenet", "vgg"])
def test_maps_of_all_classes_do_not_depend_on_the_label_and_one_map_is_the_labels(kind: str) -> None:
    network: BASLocalizer = thin(kind)
    images, labels = torch.randn(2, 3, 64, 48), torch.tensor([2, 0])
    with torch.no_grad():
        scores, everything = network.localize(images, 3)
        torch.testing.assert_close(network.localize(images, 3, labels)[1], everything)
        foreground = network.suppress(images, labels).foreground
        torch.testing.assert_close(network.localize(images, 1, labels)[1], foreground)
        best = network.suppress(images, scores.argmax(1)).foreground
        torch.testing.assert_close(network.localize(images, 1)[1], best)
    assert everything.shape == (2, 1, 8, 6)
    for wrong in (0, 4):
        with pytest.raises(UserError, match=f"top_k={wrong} of 3 classes"):
            network.localize(images, wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter_at_batch_one_under_bf16(kind: str) -> None:
    network = thin(kind)
    with torch.no_grad():
        for weight in network.classifier_cls.parameters():
            weight.abs_()
    with torch.autocast("cpu", torch.bfloat16):
        found = network.suppress(torch.randn(1, 3, 64, 80), torch.tensor([1]))
        loss = found.scores.float().square().sum() + found.foreground_scores.float().square().sum()
        (loss + found.ratio.float().sum() + found.area.float().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_torch_export_gives_the_same_scores(kind: str) -> None:
    network, images = thin(kind), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(network, (images,)).module()(images), network(images))


def test_authors_files_load_from_their_wrappers(tmp_path: Path) -> None:
    network, other = thin("mobilenet"), BASMobileNet(3, width_mult=0.125, classifier_width=16).eval()
    tensors = network.state_dict()
    torch.save({"model": tensors, "best_thr": 0.1, "epoch": 3}, tmp_path / "epoch_3.pth.tar")
    load_published(other, tmp_path / "epoch_3.pth.tar")
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(other(images), network(images))
    seeder, fresh = thin("seeder"), BASSeeder(3, depth=18, base_channels=8).eval()
    prefixed = {f"module.{name}": tensor for name, tensor in seeder.state_dict().items()}
    torch.save(prefixed, tmp_path / "epoch_10.pth.tar")
    load_published(fresh, tmp_path / "epoch_10.pth.tar")
    torch.testing.assert_close(fresh(images), seeder(images))


def test_copies_in_the_first_versions_files_are_dropped(tmp_path: Path) -> None:
    network = thin("resnet")
    tensors = network.state_dict()
    copies = {
        name.replace("layer4", "layer4_copy").replace("classifier_cls", "classifier_cls_copy"): tensor
        for name, tensor in tensors.items()
        if name.startswith(("layer4", "classifier_cls"))
    }
    torch.save(tensors | copies, tmp_path / "resnet9.pth.tar")
    other = BASResNet(3, depth=18, base_channels=8, classifier_width=16).eval()
    load_published(other, tmp_path / "resnet9.pth.tar")
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(other(images), network(images))


def test_file_of_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    torch.save(thin("seeder").state_dict(), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"classifier_cls.weight .* should be"):
        load_published(BASSeeder(4, depth=18, base_channels=8), tmp_path / "x.pth")


def test_present_classes_compete_with_absent_ones_alone() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])
    present = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    first = -np.log(np.exp(2) / (np.exp(2) + 1)) - np.log(np.exp(1) / (np.exp(1) + 1))
    second = -np.log(np.exp(3) / (np.exp(3) + np.exp(0.5) + np.exp(-1)))
    assert float(present_against_absent(scores, present)) == pytest.approx((first + second) / 2)
    assert float(present_against_absent(scores, torch.ones(2, 3))) == 0  # nothing to compete with


def test_seed_maps_of_an_image_and_its_mirror_mirror_each_other() -> None:
    network, image = thin("seeder"), torch.randn(3, 64, 64)
    with torch.no_grad():
        maps = network.class_foregrounds(image)
        torch.testing.assert_close(network.class_foregrounds(image.flip(-1)), maps.flip(-1))
        assert maps.shape == (3, 4, 4) and (network.class_activations(image) >= 0).all()


def test_box_is_that_of_the_larger_part_and_corners_join() -> None:
    heat = np.zeros((20, 30), np.float32)
    heat[2:5, 3:6] = 1
    heat[10:14, 8:20] = 0.9
    heat[14, 20] = 0.9  # joined by its corner
    assert largest_box(heat, 0.5).tolist() == [8, 10, 21, 15]
    assert largest_box(heat, 0.95).tolist() == [3, 2, 6, 5]
    assert largest_box(np.zeros((20, 30)), 0.5).tolist() == [0, 0, 30, 20]
    assert largest_box(normalized(np.full((20, 30), 0.7)), 0.1).tolist() == [0, 0, 30, 20]


def test_maps_are_stretched_before_they_are_enlarged() -> None:
    heat = normalized(np.array([[2.0, 4.0], [3.0, 2.0]]))
    assert heat.ravel().tolist() == pytest.approx([0, 1, 0.5, 0], abs=1e-4)
    assert enlarged(heat, (8, 12)).shape == (8, 12)


def test_iou_counts_one_pixel_more_on_every_side() -> None:
    assert box_iou(np.array([0, 0, 9, 9]), np.array([5, 0, 14, 9])) == pytest.approx(50 / 150)
    assert box_iou(np.array([0, 0, 9, 9]), np.array([0, 0, 9, 9])) == 1
    assert box_iou(np.array([0, 0, 9, 9]), np.array([10, 10, 12, 12])) == 0


def test_impossible_width_is_refused() -> None:
    with pytest.raises(UserError, match="width_mult=0 of BASMobileNet"):
        BASMobileNet(3, width_mult=0)
