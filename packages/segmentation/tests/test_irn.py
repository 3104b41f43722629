"""IRN: paths, affinities and walks by hand, losses, seeds as files, the way from seeds to pseudo masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from opsin.core import create_model
from opsin.core.engine import runner
from opsin.core.engine.config import build_model, load_config
from opsin.core.errors import UserError
from opsin.registry import DATASETS, TRANSFORMS
from opsin.segmentation.weakly_supervised.datasets.seed_files import read_seeds, write_seeds
from opsin.segmentation.weakly_supervised.models.irn import (
    IRN,
    affinities,
    neighbours,
    paths,
    random_walk,
    relation_losses,
    step_probabilities,
)
from opsin.segmentation.weakly_supervised.predictor import WeaklySupervisedPredictor
from opsin.segmentation.weakly_supervised.samples import CLASSES, SIZE, write_samples

pytestmark = pytest.mark.xdist_group("irn")  # the training that they share is done once


def test_paths_go_to_half_of_the_neighbours_over_cells_near_the_line() -> None:
    assert set(paths(2)) == {(0, 1), (1, -1), (1, 0), (1, 1)}
    assert len(paths(5)) == 34 and len(paths(10)) == 152
    assert paths(5)[0, 3] == ((0, 0), (0, 1), (0, 2), (0, 3))
    # corners beside a diagonal are 1 / sqrt(2) off it, those of the whole square 2 / sqrt(2)
    assert paths(5)[2, 2] == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2))
    assert set(paths(5)[1, -2]) == {(0, 0), (0, -1), (0, -2), (1, 0), (1, -1), (1, -2)}


def test_affinity_is_one_less_the_greatest_boundary_on_the_path() -> None:
    boundary = torch.tensor([[0.1, 0.7, 0.2, 0.0], [0.0, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = dict(zip(paths(4), affinities(boundary, 4), strict=True))
    assert found[0, 3][0, 0] == pytest.approx(0.3)  # past 0.7
    assert found[0, 1][0, 2] == pytest.approx(0.8)  # its ends alone
    assert found[2, 0][0, 2] == pytest.approx(0.8)
    assert found[1, -1][0, 2] == pytest.approx(0.3)  # corner to corner passes both others
    assert found[0, 3][0, 1] == 0 and found[1, 0][2, 0] == 0  # what lies outside


def test_probabilities_of_a_step_sum_to_one_and_none_leads_outside() -> None:
    boundary = torch.rand(6, 7)
    probabilities = step_probabilities(boundary, 3, 2.0)
    torch.testing.assert_close(probabilities.sum((0, 1)), torch.ones(6, 7))
    # before normalising, a pair is weighted alike from both its ends
    weights = probabilities / probabilities[2, 2]
    torch.testing.assert_close(weights[2 + 1, 2 - 1][2, 4], weights[2 - 1, 2 + 1][3, 3])
    assert weights[2, 3][2, 6] == 0 and weights[1, 2][0, 3] == 0
    assert weights[3, 2][2, 4] == pytest.approx(float(1 - boundary[2:4, 4].max()) ** 2)


def test_walk_spreads_freely_and_stops_at_closed_boundaries() -> None:
    maps = torch.zeros(1, 9, 9)
    maps[0, 2, 2] = 1
    free = random_walk(maps, torch.zeros(9, 9), radius=3, steps=200)
    assert free.min() > 0.2 * free.max()
    wall = torch.zeros(9, 9)
    wall[5, :6], wall[:6, 5] = 1, 1
    kept = random_walk(maps, wall, radius=3, steps=200)
    assert kept[0, :5, :5].min() > 0.2 * kept.max()
    assert kept[0, 5:].abs().max() == 0 and kept[0, :, 5:].abs().max() == 0
    wall[5, 2] = 0  # a gap
    assert random_walk(maps, wall, radius=3, steps=200)[0, 6:].min() > 0


def test_walk_begins_without_what_lies_on_boundaries() -> None:
    maps, boundary = torch.ones(1, 4, 4), torch.full((4, 4), 0.25)
    assert random_walk(maps, boundary, steps=0)[0, 0, 0] == 0.75
    torch.testing.assert_close(random_walk(maps, boundary, steps=3), torch.full((1, 4, 4), 0.75))


def test_losses_count_known_pairs_of_each_kind_alone() -> None:
    labels = torch.tensor([[[1, 1, 2, 255, 0, 0]]])
    boundary = torch.tensor([[[0.0, 0.1, 0.6, 0.9, 0.2, 0.0]]])
    displacement = torch.stack((torch.zeros(1, 1, 6), torch.tensor([[[0.5, 0.0, 9, 9, 1, 0.7]]])), 1)
    found = relation_losses(boundary, displacement, labels, radius=2)  # neighbours side by side

    def log(value: float) -> float:
        return -float(np.log(value + 1e-5))

    assert found["loss_alike"] == pytest.approx((log(0.9) + log(0.8)) / 4, rel=1e-4)
    assert found["loss_apart"] == pytest.approx(log(0.6) / 2, rel=1e-4)  # of 1 and 2
    # the pair of ones should differ by a column, and differs by half of one; the mean of rows and columns
    assert found["loss_centre"] == pytest.approx((0 + 0.5) / 2 / 2, rel=1e-4)
    assert found["loss_still"] == pytest.approx(0.3 / 2 / 2, rel=1e-4)
    nothing = relation_losses(boundary, displacement, torch.full_like(labels, 255), radius=2)
    assert all(value == 0 for value in nothing.values())


def test_centre_is_what_displacements_without_loss_point_to() -> None:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    displacement = torch.stack((2.5 - rows, 3.5 - columns))[None]
    labels = torch.ones(1, 6, 6, dtype=torch.int64)
    found = relation_losses(torch.zeros(1, 6, 6), displacement, labels, radius=4)
    assert found["loss_centre"] == pytest.approx(0, abs=1e-6)


def test_neighbours_are_what_lies_at_each_offset() -> None:
    x = torch.arange(12).view(3, 4)
    found = dict(zip(paths(3), neighbours(x, 3, -1), strict=True))
    assert found[1, -1].tolist() == [[-1, 4, 5, 6], [-1, 8, 9, 10], [-1, -1, -1, -1]]


def test_published_network_has_the_authors_count_and_names() -> None:
    with torch.device("meta"):
        network: Any = create_model("irn_resnet50_voc")
        ours = network.state_dict()
        logits, displacement = network(torch.empty(1, 3, 65, 91))
    assert sum(p.numel() for p in network.parameters()) == 24_902_561
    assert logits.shape == (1, 1, 17, 23) and displacement.shape == (1, 2, 17, 23)
    assert ours["fc_edge6.weight"].shape == (1, 160, 1, 1) and ours["fc_dp7.0.weight"].shape == (
        256,
        448,
        1,
        1,
    )
    backbone = {name for name in ours if not name.startswith("fc_")}
    published = {f"resnet50.{name}" if name in backbone else name: tensor for name, tensor in ours.items()}
    twice = {f"stage1.0.{name}": ours[name] for name in ("conv1.weight",)}
    twice |= {"edge_layers.0.0.weight": ours["fc_edge1.0.weight"], "mean_shift.running_mean": torch.zeros(2)}
    assert (
        network.from_published({**published, **twice, "path_indices0": torch.zeros(1)}).keys() == ours.keys()
    )


def thin() -> IRN:
    torch.manual_seed(0)
    return IRN(depth=18, base_channels=4, boundary_width=4, displacement_width=32)


def test_branches_alone_learn_and_the_backbone_stays_in_evaluation() -> None:
    network = thin().train()
    before = network.bn1.running_mean.clone()
    logits, displacement = network(torch.randn(2, 3, 33, 40))
    (logits.square().sum() + displacement.square().sum()).backward()
    learning = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum()}
    assert learning == {name for name, _ in network.named_parameters() if name.startswith("fc_")}
    assert torch.equal(network.bn1.running_mean, before)
    mean = displacement.detach().mean((0, 2, 3))
    torch.testing.assert_close(network.fc_dp7[-1].running_mean, 0.1 * mean)
    network.eval()
    with torch.no_grad():
        images = torch.randn(2, 3, 33, 40)
        shifted = network(images)[1]
        network.fc_dp7[-1].running_mean.zero_()
        torch.testing.assert_close(shifted, network(images)[1] - 0.1 * mean[:, None, None])


def test_seeds_come_back_from_their_files_a_quarter_as_large(tmp_path: Path) -> None:
    maps = np.zeros((3, 30, 41), np.float32)
    maps[2, :, 20:] = 1
    write_seeds(tmp_path / "a/x.npz", maps)
    found = read_seeds(tmp_path / "a/x.npz", 3)
    assert found.shape == (3, 8, 11) and not found[:2].any()
    assert found[2, :, :5].max() == 0 and found[2, :, 6:].min() == 1
    write_seeds(tmp_path / "none.npz", 0 * maps)
    assert not read_seeds(tmp_path / "none.npz", 3).any()
    with pytest.raises(UserError, match=r"x.npz has class 2 of 2, counted from 0"):
        read_seeds(tmp_path / "a/x.npz", 2)
    with pytest.raises(UserError, match=r"no seeds .*y.npz; write them by opsin predict"):
        read_seeds(tmp_path / "y.npz", 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"maps": np.zeros((1, 2, 2))}, "is no file of seeds"),
        ({"maps": np.zeros((2, 2)), "classes": np.zeros(2, int)}, r"has maps \(2, 2\) and classes \(2,\)"),
        ({"maps": np.zeros((2, 2, 2)), "classes": np.zeros(1, int)}, r"not \(P, h, w\) and \(P,\)"),
        (None, "is no file of seeds"),
    ],
)
def test_file_that_holds_no_seeds_is_named(tmp_path: Path, content: Any, words: str) -> None:
    if content is None:
        (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no archive")
    else:
        np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(UserError, match=words):
        read_seeds(tmp_path / "x.npz", 3)


def test_confident_labels_lie_above_one_threshold_and_below_another() -> None:
    maps = np.array([[[0.9, 0.2, 0.01, 0.0]], [[0.5, 0.4, 0.02, 0.8]]], np.float32)
    results = {"img": np.zeros((1, 4, 3), np.uint8), "seed_maps": maps}
    label = TRANSFORMS.build({"type": "opsin.ConfidentLabels", "foreground": 0.3, "background": 0.05})
    assert label(dict(results))["gt_seg_map"].tolist() == [[1, 2, 0, 2]]
    present = {"gt_labels": np.array([1, 0], np.float32)}
    assert label(results | present)["gt_seg_map"].tolist() == [[1, 255, 0, 0]]
    with pytest.raises(UserError, match=r"background=0.5 and foreground=0.3 of ConfidentLabels"):
        TRANSFORMS.build({"type": "opsin.ConfidentLabels", "background": 0.5})


def test_floor_of_the_seeds_is_none_of_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", maps=np.array([[[0.5, 0.8, 0.9, 1.0]]]), classes=np.array([1]))
    find = TRANSFORMS.build(
        {"type": "opsin.FindSeeds", "folder": str(tmp_path), "num_classes": 2, "floor": 0.8}
    )
    found = find({"img_path": "elsewhere/x.jpg"})["seed_maps"]
    np.testing.assert_allclose(found, [[[0, 0, 0, 0]], [[0, 0, 0.5, 1]]], atol=1e-6)
    with pytest.raises(UserError, match="floor=1 of FindSeeds"):
        TRANSFORMS.build({"type": "opsin.FindSeeds", "folder": "", "num_classes": 2, "floor": 1})


def config(data: Path, *overrides: str) -> Config:
    loaders = [
        f"{loader}_dataloader.{setting}"
        for loader in ("train", "val", "test")
        for setting in ("num_workers=0", "persistent_workers=False")
    ]
    thinner = ["base_channels=4", "boundary_width=8", "displacement_width=32"]
    network = [f"model.network.{setting}" for setting in thinner]
    return load_config("irn_samples", data=data, overrides=[*loaders, *network, *overrides])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample pictures, and seeds cut from their masks: too large by eight pixels, with soft ends."""
    import cv2

    folder = tmp_path_factory.mktemp("irn")
    write_samples(folder, train=8, val=4)
    for file in (folder / "VOC2012/SegmentationClass").glob("*.png"):
        mask = np.array(Image.open(file))
        grown = [cv2.dilate((mask == label + 1).astype(np.float32), np.ones((17, 17))) for label in range(3)]
        maps = np.stack([cv2.GaussianBlur(part, (0, 0), 4) for part in grown])
        write_seeds(folder / "seeds/maps" / f"{file.stem}.npz", 0.9 * (maps > 0) + 0.1 * maps)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    cfg = config(data, "train_cfg.max_iters=12", "train_cfg.val_interval=12", "train_dataloader.batch_size=4")
    return runner.train(cfg, tmp_path_factory.mktemp("work"))


def test_training_lowers_its_losses_and_measures_pseudo_masks(trained: Any) -> None:
    history = trained.message_hub.log_scalars
    losses = history["train/loss"].data[0]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert 0 < float(history["val/mIoU"].current()) < 100


def test_prediction_takes_the_known_labels_and_writes_masks_and_boundaries(
    data: Path, trained: Any, tmp_path: Path
) -> None:
    predictor = WeaklySupervisedPredictor(config(data), Path(trained.work_dir) / "iter_12.pth")
    picture = data / "VOC2012/JPEGImages/val_0000.jpg"
    predictor.predict([picture], tmp_path)
    known = set(np.unique(np.array(Image.open(data / "VOC2012/SegmentationClass/val_0000.png")))) - {0, 255}
    mask = np.array(Image.open(tmp_path / "masks/val_0000.png"))
    assert mask.shape == (SIZE, SIZE) and known <= set(np.unique(mask)) <= known | {0}
    boundary = np.array(Image.open(tmp_path / "boundaries/val_0000.png"))
    assert boundary.shape == (48, 48) and boundary.dtype == np.uint8
    assert predictor.classes[1:] == tuple(CLASSES)


def test_classes_that_the_picture_does_not_have_get_no_mask(data: Path) -> None:
    cfg = config(data)
    model = build_model(cfg).eval()
    row = DATASETS.build(cfg.test_dataloader.dataset)[0]
    batch = {"inputs": [row["inputs"]], "data_samples": [row["data_samples"]]}
    row["data_samples"].seed_maps = torch.rand(3, 6, 6)
    present = set((row["data_samples"].gt_labels.nonzero()[:, 0] + 1).tolist())
    with torch.no_grad():
        [sample] = model.test_step(batch)
    assert set(sample.pred_sem_seg.data.unique().tolist()) - {0} <= present
    row["data_samples"].gt_labels.zero_()
    with torch.no_grad():
        [sample] = model.test_step(batch)
    assert not sample.pred_sem_seg.data.any()
    del row["data_samples"].seed_maps
    with pytest.raises(UserError, match=r"has no seeds; add opsin.FindSeeds"):
        model.test_step(batch)


def test_image_is_filled_up_before_boundaries_are_looked_for(data: Path) -> None:
    model = build_model(config(data)).eval()
    image = torch.randn(3, 30, 41)
    with torch.no_grad():
        alone = model.boundaries(image)
        model.fill_to = 64
        filled = model.boundaries(image)
        logits, _ = model.network(torch.nn.functional.pad(image[None], (0, 23, 0, 34)))
        mirror, _ = model.network(torch.nn.functional.pad(image[None].flip(-1), (0, 23, 0, 34)))
    assert alone.shape == filled.shape == (8, 11) and not torch.allclose(alone, filled)
    both = logits[0, 0, :8, :11] + mirror[0, 0, :8, :11].flip(-1)
    torch.testing.assert_close(filled, (both / 2).sigmoid())


def test_labels_are_found_beside_pictures_in_vocs_folders_alone(data: Path) -> None:
    find = TRANSFORMS.build({"type": "opsin.FindImageLabels", "classes": list(CLASSES)})
    mask = np.array(Image.open(data / "VOC2012/SegmentationClass/val_0001.png"))
    found = find({"img_path": str(data / "VOC2012/JPEGImages/val_0001.jpg")})["gt_labels"]
    assert set(found.nonzero()[0] + 1) == set(np.unique(mask)) - {0, 255}
    assert "gt_labels" not in find({"img_path": str(data / "elsewhere/deep/val_0001.jpg")})


def test_published_recipe_builds_and_its_branches_learn_at_their_rates(data: Path) -> None:
    cfg = load_config("irn_resnet50_voc")
    with torch.device("meta"):
        model = build_model(cfg)
    assert model.num_classes == 20 and model.fill_to == 512 and model.steps == 256
    dataset = cfg.train_dataloader.dataset
    dataset.update(data_root=str(data / "VOC2012"), classes=list(CLASSES))
    dataset.pipeline[2].update(folder=str(data / "seeds/maps"), num_classes=3)
    row = DATASETS.build(dataset)[0]
    assert row["inputs"].shape == (3, 512, 512)
    assert row["data_samples"].gt_sem_seg.data.shape == (1, 512, 512)
    assert 255 in row["data_samples"].gt_sem_seg.data.unique()
