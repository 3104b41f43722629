"""MedMNIST files, the measures of medical classification, and the whole way from samples to predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from sklearn.linear_model import RidgeClassifier

from opsin.classification.predictor import ClassificationPredictor
from opsin.core.data import Dataset, write_image
from opsin.core.engine.config import build_model, load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.medical.checks import check_folder
from opsin.medical.classification.datasets import AugMix, Corrupt, CropToBox, MedMNIST, ObjectCrops
from opsin.medical.classification.datasets.corruptions import CORRUPTIONS
from opsin.medical.classification.metrics import DiagnosisMetric, relative_balanced_error
from opsin.medical.classification.samples import CLASSES, write_samples
from opsin.registry import DATASETS, MODELS, TRANSFORMS

IN_PROCESS = [
    f"{split}_dataloader.{key}"
    for split in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False")
]
QUICK = ["train_cfg.max_epochs=2", "train_cfg.val_interval=1", "train_dataloader.batch_size=6"]


def config(data: Path, *overrides: str):
    return load_config("medvitv2_mini_samples", data=data, overrides=[*IN_PROCESS, *overrides])


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    write_samples(folder, train=4, val=2, test=2)
    return folder


# MedMNIST files


def write_npz(folder: Path, **arrays) -> str:
    np.savez(folder / "set.npz", **arrays)
    return "set"


def test_grey_and_coloured_files_give_pictures_of_three_channels(tmp_path):
    grey = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    for images in (grey, np.repeat(grey[..., None], 3, -1)):
        file = write_npz(tmp_path, train_images=images, train_labels=np.array([[1], [0]], np.uint8))
        data = MedMNIST(data_root=str(tmp_path), file=file, pipeline=[])
        assert data.metainfo["classes"] == ("0", "1")
        assert [data[i]["gt_label"] for i in range(2)] == [1, 0]
        assert np.array_equal(data[0]["img"], np.repeat(grey[0, ..., None], 3, -1))


def test_several_findings_give_a_vector(tmp_path):
    labels = np.array([[1, 0, 1], [0, 0, 0]], np.uint8)
    file = write_npz(tmp_path, val_images=np.zeros((2, 4, 4), np.uint8), val_labels=labels)
    data = MedMNIST(data_root=str(tmp_path), file=file, split="val", pipeline=[])
    assert data[0]["gt_label"] == [1, 0, 1]
    assert len(data.metainfo["classes"]) == 3


def test_mistakes_in_a_file_are_one_line(tmp_path):
    def reading(message, file="set", **settings):
        with pytest.raises(UserError, match=message) as raised:
            MedMNIST(data_root=str(tmp_path), file=file, pipeline=[], **settings)
        assert "\n" not in str(raised.value)

    reading("none.npz", file="none")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    reading("truncated or no .npz", file="torn")
    images = np.zeros((2, 4, 4), np.uint8)
    write_npz(tmp_path, test_images=images, test_labels=np.zeros((2, 1), int))
    reading("lacks train_images and train_labels", split="train")
    reading("give one of train, val, test", split="all")
    write_npz(tmp_path, train_images=images.astype(np.float32), train_labels=np.zeros((2, 1), int))
    reading("expected uint8")
    write_npz(tmp_path, train_images=images, train_labels=np.zeros((3, 1), int))
    reading("2 pictures and labels")
    write_npz(tmp_path, train_images=images, train_labels=np.array([[-1], [0]]))
    reading("negative labels")
    write_npz(tmp_path, train_images=images, train_labels=np.array([[2], [0]]))
    reading("has 3 classes and the config names 2", classes=("a", "b"))
    np.savez(tmp_path / "code.npz", train_images=np.array([{}], object), train_labels=images)
    reading("truncated or no .npz", file="code")


def test_a_file_with_the_test_split_alone_is_read_as_medmnist_c_has_it(tmp_path):
    images = np.zeros((2, 4, 4, 3), np.uint8)
    file = write_npz(tmp_path, test_images=images, test_labels=np.array([[1], [0]]))
    assert len(MedMNIST(data_root=str(tmp_path), file=file, split="test", pipeline=[])) == 2


def test_checker_looks_medmnist_files_and_path_lists_over(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 4, 4), dtype=np.uint8)
    images[1] = 7
    labels = np.array([[2], [0], [2]])
    write_npz(tmp_path, train_images=images, train_labels=labels, test_images=images, test_labels=labels[:2])
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    write_image(tmp_path / "fundus.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "oct.nii.gz").write_bytes(b"no volume")
    (tmp_path / "list.txt").write_text("fundus.png 1\noct.nii.gz 0\n")
    (tmp_path / "gone.txt").write_text("none.png 1\n")
    (tmp_path / "notes.txt").write_text("not a list\n")
    reports = {report.folder.name: report for report in check_folder(tmp_path, 2)}
    assert set(reports) == {"set.npz", "torn.npz", "list.txt", "gone.txt"}
    whole = reports["set.npz"]
    assert whole.cases == 3 and "3 pictures and labels" in whole.problems[0]
    assert whole.remarks == [
        "set.npz: 1 pictures of train are constant",
        "set.npz: train has no picture of class 1",
    ]
    assert "truncated or no .npz" in reports["torn.npz"].problems[0]
    assert reports["list.txt"].remarks == ["fundus.png is constant"]
    assert "no volume" in reports["list.txt"].problems[0] and reports["list.txt"].cases == 1
    assert "line 1: no file at" in reports["gone.txt"].problems[0]


# What is done to pictures


def test_augmix_mixes_a_picture_with_itself_and_keeps_its_form():
    np.random.seed(0)
    image = np.random.randint(0, 255, (24, 20, 3), np.uint8)
    mixed = AugMix(severity=3)({"img": image.copy()})["img"]
    assert mixed.shape == image.shape and mixed.dtype == np.uint8
    assert 0 < np.abs(mixed.astype(float) - image).mean() < 80
    with pytest.raises(UserError, match="severity from 0 to 10"):
        AugMix(severity=11)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruptions_grow_with_their_severity(kind):
    y, x = np.mgrid[:48, :48]
    image = np.stack([128 + 60 * np.sin(x / 3), 110 + 50 * np.cos(y / 4), 90 + x], -1).astype(np.uint8)
    harm = []
    for severity in (1, 5):
        changed = [Corrupt(kind, severity)({"img": image.copy()})["img"].astype(float) for _ in range(3)]
        harm.append(np.mean([np.abs(c - image).mean() for c in changed]))
    assert harm[1] > harm[0]


def test_unknown_corruptions_are_named():
    with pytest.raises(UserError, match="pixelate"):
        Corrupt("pixelatte")
    with pytest.raises(UserError, match="from 1 to 5"):
        Corrupt("pixelate", 6)


# Measures


def measured(scores, labels, **settings):
    metric = DiagnosisMetric(**settings)
    samples = [
        {"pred_scores": torch.tensor(score), "gt_label": torch.tensor(label)}
        for score, label in zip(scores, labels, strict=True)
    ]
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_measures_of_one_label_are_those_worked_by_hand():
    # class 0: 2 of 3 found; class 1: the one is found; one of class 0 is taken for class 1
    scores = [[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]]
    found = measured(scores, [0, 0, 0, 1])
    assert found["medical/accuracy"] == pytest.approx(3 / 4)
    assert found["medical/auc"] == pytest.approx(1.0)
    assert found["medical/precision"] == pytest.approx((3 * 1 + 1 * 1 / 2) / 4)
    assert found["medical/recall"] == pytest.approx((3 * 2 / 3 + 1) / 4)
    assert found["medical/f1"] == pytest.approx((3 * 0.8 + 2 / 3) / 4)
    assert found["medical/specificity"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["medical/balanced_error"] == pytest.approx(1 - (2 / 3 + 1) / 2)
    macro = measured(scores, [0, 0, 0, 1], average="macro")
    assert macro["medical/precision"] == pytest.approx((1 + 1 / 2) / 2)


def test_measures_of_several_findings_decide_at_one_half():
    found = measured([[0.9, 0.2], [0.4, 0.6]], [[1, 0], [1, 1]])
    assert found["medical/accuracy"] == pytest.approx(3 / 4)
    assert found["medical/auc"] == pytest.approx(1.0)  # of the second finding; the first has no negatives
    assert np.isnan(measured([[0.9, 0.1]], [0])["medical/auc"])


def test_relative_error_compares_what_corruptions_cost():
    own, base = {"a": 0.3, "b": 0.2}, {"a": 0.5, "b": 0.3}
    assert relative_balanced_error(0.1, own, 0.1, base) == pytest.approx((0.2 / 0.4 + 0.1 / 0.2) / 2)
    with pytest.raises(ValueError, match="baseline's"):
        relative_balanced_error(0.1, own, 0.1, {"a": 0.5})


def test_multi_label_classifier_learns_and_refuses_other_labels():
    network = {"type": "opsin.ConvNeXtClassifier", "arch": {"depths": [1] * 4, "dims": [4, 8, 8, 8]}}
    model = MODELS.build({"type": "opsin.MultiLabelClassifier", "network": {**network, "num_classes": 3}})
    images = torch.randn(2, 3, 32, 32)
    samples = [BaseDataElement(gt_label=torch.tensor(label)) for label in ([1, 0, 1], [0, 0, 0])]
    loss = model(images, samples, mode="loss")["loss"]
    loss.backward()
    assert loss.isfinite()
    with torch.no_grad():
        scores = model(images, None, mode="predict")[0].pred_scores
    assert ((scores > 0) & (scores < 1)).all() and abs(scores.sum() - 1) > 1e-4
    with pytest.raises(UserError, match="2 findings, the network 3"):
        model(images, [BaseDataElement(gt_label=torch.tensor([1, 0]))] * 2, mode="loss")


# Crops of objects


@DATASETS.register_module()
class Cells(Dataset):
    """One red picture with green cells, as a detection data set has them."""

    def load_data_list(self):
        self._metainfo["classes"] = ("small", "large")
        boxes = [(2, 2, 6, 6), (10, 4, 14, 8), (20, 20, 30, 40), (5, 30, 9, 34), (40, 2, 44, 6)]
        labels, ignored = (0, 0, 1, 0, 0), (0, 0, 0, 1, 0)
        instances = [
            {"bbox": list(box), "bbox_label": label, "ignore_flag": ignore}
            for box, label, ignore in zip(boxes, labels, ignored, strict=True)
        ]
        return [{"img_path": "smear.png", "instances": instances}]


def test_objects_are_listed_by_class_without_those_to_be_ignored():
    crops = ObjectCrops(source=dict(type="Cells"), pipeline=[])
    assert crops.metainfo["classes"] == ("small", "large")
    assert [crops[i]["gt_label"] for i in range(len(crops))] == [0, 0, 1, 0]
    few = ObjectCrops(source=dict(type="Cells"), most=2, pipeline=[])
    assert [few[i]["box"] for i in range(len(few))] == [[2, 2, 6, 6], [10, 4, 14, 8], [20, 20, 30, 40]]
    with pytest.raises(UserError, match="most=0"):
        ObjectCrops(source=dict(type="Cells"), most=0)


def test_an_object_fills_the_middle_of_its_crop():
    picture = np.zeros((50, 60, 3), np.uint8)
    picture[..., 0] = 200
    picture[20:40, 20:30] = (0, 200, 0)
    crop = CropToBox(40, context=2.0)({"img": picture, "box": (20, 20, 30, 40)})["img"]
    green = crop[..., 1] > 100
    assert green[10:30, 15:25].all() and green.sum() == 200
    corner = CropToBox(8, context=4.0)({"img": picture, "box": (0, 0, 4, 4)})["img"]
    assert (corner == (200, 0, 0)).all()  # the border is repeated outside


# The whole way


@pytest.mark.parametrize(
    "name",
    [
        "medvitv2_tiny_pathmnist",
        "medvitv2_tiny_chestmnist",
        "medvitv2_tiny_image_folder",
        "medvitv2_tiny_bccd",
    ],
)
def test_configs_of_the_published_network_build(name):
    cfg = load_config(name)
    with torch.device("meta"):
        assert sum(p.numel() for p in build_model(cfg).parameters()) > 1e7
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert all(TRANSFORMS.build({**step, "_scope_": "opsin"}) for step in loader.dataset.pipeline)


@pytest.mark.slow
def test_network_learns_the_planes_better_than_a_linear_classifier(tmp_path):
    write_samples(tmp_path / "data")
    with np.load(tmp_path / "data" / "head_112.npz") as data:
        rows = {s: data[f"{s}_images"].reshape(len(data[f"{s}_images"]), -1) / 255 for s in ("train", "test")}
        labels = {s: data[f"{s}_labels"][:, 0] for s in rows}
    linear = RidgeClassifier(100).fit(rows["train"], labels["train"]).score(rows["test"], labels["test"])
    cfg = config(tmp_path / "data", "train_cfg.val_interval=5")
    train(cfg, tmp_path / "run")
    reached = evaluate(cfg, tmp_path / "run" / "epoch_5.pth")["medical/accuracy"]
    assert 1 / 3 < linear < 0.8
    assert reached > linear + 0.05, (reached, linear)


def test_train_resume_test_and_predict(heads, tmp_path):
    cfg = config(heads, *QUICK)
    train(cfg, tmp_path / "whole")
    train(config(heads, *QUICK, "train_cfg.max_epochs=1"), tmp_path / "halves")
    train(cfg, tmp_path / "halves", resume=True)
    whole, resumed = (
        torch.load(tmp_path / run / "epoch_2.pth", weights_only=True)["state_dict"]
        for run in ("whole", "halves")
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    measures = evaluate(cfg, tmp_path / "whole" / "epoch_2.pth")
    assert {"medical/accuracy", "medical/auc", "medical/specificity"} <= measures.keys()
    predictor = ClassificationPredictor(cfg, tmp_path / "whole" / "epoch_2.pth")
    records = predictor.predict([heads / "pictures"], tmp_path / "out", quiet=True)
    assert len(records) == 6 and {record["class"] for record in records} <= set(CLASSES)
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 6
    assert len(list((tmp_path / "out" / "pictures").rglob("*.*"))) == 6


def test_loss_falls_on_twenty_four_pictures(heads):
    torch.manual_seed(0)
    with np.load(heads / "head_112.npz") as data:
        images = torch.from_numpy(data["train_images"][:, None].repeat(3, 1)).float() / 127.5 - 1
        labels = torch.from_numpy(data["train_labels"][:, 0]).long()
    images = torch.cat([images, images.flip(3)])
    labels = torch.cat([labels, labels])
    model = build_model(config(heads)).network
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert len(images) == 24 and losses[-1] < 0.8 * losses[0]
