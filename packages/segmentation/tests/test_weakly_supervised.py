"""The way of the weakly supervised task: pictures with labels to boxes and seeds, measured and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from PIL import Image

from opsin.core.data import read_image
from opsin.core.engine import runner
from opsin.core.engine.config import build_model, load_config
from opsin.core.errors import UserError
from opsin.registry import DATASETS, TRANSFORMS
from opsin.segmentation.weakly_supervised.datasets import WeakSample
from opsin.segmentation.weakly_supervised.metrics import LocalizationMetric
from opsin.segmentation.weakly_supervised.predictor import (
    WeaklySupervisedPredictor,
    box_in_picture,
    heat_in_picture,
)
from opsin.segmentation.weakly_supervised.samples import CLASSES, SIZE, write_samples

pytestmark = pytest.mark.xdist_group("weakly_supervised")  # the training that they share is done once

THINNER = {
    "bas_samples": ("model.network.classifier_width=8",),
    "bas_seeds_samples": ("model.network.base_channels=4",),
}
METRICS = {"bas_samples": "localization/gt_known", "bas_seeds_samples": "mIoU"}


def config(name: str, data: Path, *overrides: str) -> Config:
    settings = [
        f"{loader}_dataloader.{setting}"
        for loader in ("train", "val", "test")
        for setting in ("num_workers=0", "persistent_workers=False")
    ]
    return load_config(name, data=data, overrides=[*settings, *overrides])


def quick(name: str, data: Path, count: int) -> Config:
    """A config of a few steps of a thin network."""
    return config(
        name,
        data,
        *THINNER[name],
        f"train_cfg.max_iters={count}",
        "train_cfg.val_interval=2",
        "default_hooks.checkpoint.interval=2",
        "train_dataloader.batch_size=4",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures of each layout; tests read them only."""
    folder = tmp_path_factory.mktemp("weak")
    write_samples(folder, train=9, val=6)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The last checkpoint of four iterations of either model, the last two of them resumed."""
    checkpoints = {}
    for name in THINNER:
        work = tmp_path_factory.mktemp(name)
        runner.train(quick(name, data, 2), work)
        runner.train(quick(name, data, 4), work, resume=True)
        checkpoints[name] = work / "iter_4.pth"
    return checkpoints


@pytest.mark.parametrize("name", THINNER)
def test_resumed_training_gives_the_weights_of_an_uninterrupted_one(
    data: Path, trained: dict[str, Path], tmp_path: Path, name: str
) -> None:
    whole = runner.train(quick(name, data, 4), tmp_path)
    resumed = torch.load(trained[name], weights_only=True)["state_dict"]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed[key], value), key


@pytest.mark.parametrize("name", THINNER)
def test_test_reports_the_usual_metric(
    data: Path, trained: dict[str, Path], tmp_path: Path, name: str
) -> None:
    metrics = runner.test(quick(name, data, 4), trained[name], work_dir=tmp_path)
    assert 0 <= metrics[METRICS[name]] <= 100


def test_localiser_predicts_classes_and_a_box_in_the_pictures_pixels(
    data: Path, trained: dict[str, Path], tmp_path: Path
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 130, 3), np.uint8)).save(
        tmp_path / "x.png"
    )
    predictor = WeaklySupervisedPredictor(quick("bas_samples", data, 4), trained["bas_samples"])
    predictor.predict([tmp_path / "x.png"], tmp_path / "out")
    written = json.loads((tmp_path / "out/predictions.json").read_text())
    assert written["classes"] == list(CLASSES)
    [record] = written["images"]
    assert sum(row["score"] for row in record["classes"]) == pytest.approx(1, abs=1e-3)
    left, top, right, bottom = record["box"]
    assert 0 <= left < right <= 130 and 0 <= top < bottom <= 40
    assert read_image(tmp_path / "out/pictures/x.png").shape == (40, 130, 3)


def test_seed_network_predicts_masks_without_labels(
    data: Path, trained: dict[str, Path], tmp_path: Path
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 70, 3), np.uint8)).save(tmp_path / "x.png")
    predictor = WeaklySupervisedPredictor(quick("bas_seeds_samples", data, 4), trained["bas_seeds_samples"])
    predictor.predict([tmp_path / "x.png"], tmp_path / "out")
    mask = np.asarray(Image.open(tmp_path / "out/masks/x.png"))
    assert mask.shape == (40, 70) and mask.max() <= len(CLASSES)
    [record] = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert sum(record["areas"].values()) == 40 * 70


def test_seeds_show_present_classes_alone_and_background_where_maps_are_low(data: Path) -> None:
    cfg = quick("bas_seeds_samples", data, 4)
    model = build_model(cfg).eval()
    image = torch.randn(3, 32, 48)
    present = torch.tensor([False, True, False])
    with torch.no_grad():
        maps = model.seed_maps(image, present, (20, 30))
    assert maps.shape == (3, 20, 30) and maps[1].max() == pytest.approx(1, abs=1e-3)
    assert maps[[0, 2]].abs().sum() == 0
    sample = WeakSample(metainfo={"ori_shape": (20, 30)}, gt_labels=present.float())
    model.background = 0.9
    with torch.no_grad():
        [seed] = model.predict(image[None], [sample])
    labels = seed.pred_sem_seg.data[0]
    assert set(labels.unique().tolist()) <= {0, 2}
    assert torch.equal(labels == 2, maps[1] > 0.9)


def test_cam_of_a_second_network_is_added_and_not_trained(data: Path) -> None:
    cfg = quick("bas_seeds_samples", data, 4)
    cfg.model.cam_network = cfg.model.network
    model = build_model(cfg).eval()
    assert not any(p.requires_grad for p in model.cam_network.parameters())
    image, present = torch.randn(3, 32, 48), torch.ones(3, dtype=torch.bool)
    with torch.no_grad():
        both = model.seed_maps(image, present, (20, 30))
        model.cam_network = None
        alone = model.seed_maps(image, present, (20, 30))
    assert both.amax((1, 2)).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    assert not torch.allclose(both, alone)


def centre_box_baseline(data: Path) -> float:
    """GT-known accuracy in percent of the best box in the middle of the view, of any size."""
    dataset = DATASETS.build(config("bas_samples", data).test_dataloader.dataset)
    boxes = [sample["data_samples"].gt_boxes[0].numpy() for sample in dataset]
    side = dataset[0]["inputs"].shape[-1]
    shares = []
    for margin in range(0, side // 2 - 4, 2):
        metric = LocalizationMetric()
        box = torch.tensor([margin, margin, side - margin, side - margin])
        for truth in boxes:
            metric.process({}, [weak(box, torch.zeros(side, side), truth, 0, [1.0])])
        shares.append(metric.compute_metrics(metric.results)["gt_known"])
    return max(shares)


def weak(box: Any, heat: torch.Tensor, truth: Any, label: int, scores: list[float]) -> dict[str, Any]:
    return {
        "pred_box": torch.as_tensor(box),
        "pred_map": heat,
        "gt_boxes": torch.as_tensor(truth).reshape(-1, 4),
        "gt_label": torch.tensor([label]),
        "pred_scores": torch.tensor(scores),
    }


def test_localisation_counts_are_those_of_a_hand_worked_example() -> None:
    heat = torch.zeros(20, 20)
    heat[:10, :10] = 0.3
    heat[:5, :10] = 0.8
    scores = [0.3, 0.2, 0.15, 0.13, 0.12, 0.1]
    metric = LocalizationMetric()
    rows = [
        weak([0, 0, 9, 9], heat, [0, 0, 9, 9], 0, scores),  # IoU 1, best class
        weak([0, 0, 9, 9], heat, [0, 0, 9, 19], 4, scores),  # 100 / 200, fifth class
        weak([0, 0, 9, 9], heat, [0, 1, 9, 20], 0, scores),  # 90 / 210: the box does not fit
        weak([0, 0, 9, 9], heat, [0, 0, 9, 9], 5, scores),  # the class is the sixth
    ]
    metric.process({}, rows)
    found = metric.compute_metrics(metric.results)
    assert found["gt_known"] == 75
    assert found["top1"] == 50 and found["top5"] == 75
    assert found["top1_loc"] == 25 and found["top5_loc"] == 50
    # at a threshold below 0.3 the map's box is 0 0 10 10 (exclusive): 121 pixels as IoU counts
    by_hand = [np.array([100 / 121, 110 / 211, 100 / 221, 100 / 121]) >= level for level in (0.3, 0.5, 0.7)]
    assert found["max_box_acc"] == pytest.approx(100 * np.mean([share.mean() for share in by_hand]))


def test_box_may_fit_any_object_of_the_picture() -> None:
    metric = LocalizationMetric()
    truths = [[0, 0, 3, 3], [0, 0, 9, 19]]
    metric.process({}, [weak([0, 0, 9, 9], torch.zeros(20, 20), truths, 0, [1.0])])
    assert metric.compute_metrics(metric.results)["gt_known"] == 100


@pytest.mark.slow
def test_training_finds_objects_better_than_any_centre_box(tmp_path: Path) -> None:
    write_samples(tmp_path / "data")
    cfg = config("bas_samples", tmp_path / "data", "train_cfg.val_interval=240")
    trainer = runner.train(cfg, tmp_path / "work")
    history = trainer.message_hub.log_scalars
    assert float(history["val/localization/gt_known"].current()) > centre_box_baseline(tmp_path / "data") + 10
    for part in ("loss_background", "loss_area"):
        losses = history[f"train/{part}"].data[0][cfg.model.classify_first :]
        assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20]), part


@pytest.mark.slow
def test_seeds_are_better_than_background_everywhere(tmp_path: Path) -> None:
    write_samples(tmp_path / "data")
    cfg = config("bas_seeds_samples", tmp_path / "data", "train_cfg.val_interval=150")
    trainer = runner.train(cfg, tmp_path / "work")
    masks = [sample["data_samples"].gt_sem_seg.data for sample in DATASETS.build(cfg.test_dataloader.dataset)]
    labels = torch.cat(masks)
    share = float((labels == 0).sum() / (labels != 255).sum())
    nothing = 100 * share / (len(CLASSES) + 1)  # the IoU of the objects is 0
    assert float(trainer.message_hub.get_scalar("val/mIoU").current()) > nothing + 10


def test_view_is_the_middle_of_the_squeezed_picture_and_boxes_go_along_and_back() -> None:
    view = TRANSFORMS.build({"type": "opsin.CenterView", "resize": 256, "crop": 224})
    image = np.zeros((100, 400, 3), np.uint8)
    results = {
        "img": image,
        "img_path": "x.jpg",
        "gt_bboxes": np.array([[10.0, 20, 200, 90]], np.float32),
        "box_shape": (100, 400),
    }
    out = view(results)
    assert out["img"].shape == (224, 224, 3)
    assert out["gt_bboxes"][0].tolist() == pytest.approx(
        [0, 20 * 2.56 - 16, 200 * 0.64 - 16, 90 * 2.56 - 16], abs=1e-3
    )
    sample = WeakSample(metainfo={"view": out["view"]})
    sample.pred_box = torch.tensor([4, 35, 112, 214])
    back = box_in_picture(sample, image)
    assert back == pytest.approx([20 / 0.64, 51 / 2.56, 200, 230 / 2.56], abs=0.06)
    sample.pred_map = torch.ones(224, 224)
    heat = heat_in_picture(sample, image)
    assert heat.shape == (100, 400) and heat[50, 200] == 1 and heat[0, 0] == 0
    with pytest.raises(UserError, match=r"x.jpg is 50x40, its box is for 400x100"):
        view({**results, "img": np.zeros((40, 50, 3), np.uint8)})
    with pytest.raises(UserError, match="crop=300 of CenterView"):
        TRANSFORMS.build({"type": "opsin.CenterView", "resize": 256, "crop": 300})


def cub(root: Path, split: str = "test") -> Any:
    pipeline = [{"type": "opsin.LoadImage"}]
    return DATASETS.build(
        {"type": "opsin.CUBLocalization", "data_root": str(root), "split": split, "pipeline": pipeline}
    )


def test_cub_layout_gives_classes_labels_and_boxes(data: Path) -> None:
    train, test = cub(data / "CUB_200_2011", "train"), cub(data / "CUB_200_2011")
    assert train.metainfo["classes"] == test.metainfo["classes"] == tuple(CLASSES)
    assert len(train) == 9 and len(test) == 6
    assert {row["gt_label"] for row in train} == {0, 1, 2}
    for row in test:
        assert list(CLASSES)[row["gt_label"]] == Path(row["img_path"]).parent.name
        x0, y0, x1, y1 = row["gt_bboxes"][0].astype(int)
        colour = list(CLASSES.values())[row["gt_label"]][1]
        near = np.abs(row["img"].astype(int) - colour).sum(-1) < 90
        assert near[y0:y1, x0:x1].sum() >= 0.9 * near.sum() > 0


@pytest.fixture
def own_cub(tmp_path: Path) -> Path:
    write_samples(tmp_path, train=3, val=3)
    return tmp_path / "CUB_200_2011"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("test_list.txt", "red_zero/0002.jpg", r"line 1 is 'red_zero/0002.jpg', not `path;label`"),
        ("test_list.txt", "red_zero/0002.jpg;x", r"not `path;label`"),
        ("test_list.txt", "red_zero/9.jpg;2", r"line 1 lists red_zero/9.jpg, which is not there"),
        ("test_list.txt", "red_zero/0002.jpg;3", r"line 1 has label 3 of 3 classes"),
        ("test_list.txt", "a;0\nb;1", r"has 2 lines and test_bounding_box.txt 1"),
        ("test_bounding_box.txt", "1 2 3 4", r"line 1 is '1 2 3 4', not `x0 y0 x1 y1 h w`"),
        ("test_bounding_box.txt", "5 2 5 4 9 9", r"line 1 is an empty box"),
    ],
)
def test_line_of_a_list_that_can_not_be_read_is_named(
    own_cub: Path, file: str, content: str, words: str
) -> None:
    (own_cub / "test_list.txt").write_text("red_zero/0002.jpg;2\n")
    (own_cub / "test_bounding_box.txt").write_text("1 1 9 9 96 96\n")
    (own_cub / file).write_text(content + "\n")
    with pytest.raises(UserError, match=words):
        cub(own_cub)


def test_missing_parts_of_the_layout_are_named(own_cub: Path) -> None:
    (own_cub / "test_list.txt").unlink()
    with pytest.raises(UserError, match=r"lacks test_list\.txt"):
        cub(own_cub)
    with pytest.raises(UserError, match="no data folder"):
        cub(own_cub / "nowhere")
    with pytest.raises(UserError, match="has no class folders"):
        (own_cub / "empty/train").mkdir(parents=True)
        cub(own_cub / "empty", "train")


def voc(root: Path, *steps: str, split: str = "val", **changes: Any) -> Any:
    pipeline = [{"type": f"opsin.{step}"} for step in ("LoadImage", "LoadImageLabels", *steps)]
    settings = {"data_root": str(root), "split": split, "classes": list(CLASSES), "pipeline": pipeline}
    return DATASETS.build({"type": "opsin.VOCLabels", **settings, **changes})


def test_voc_layout_gives_the_classes_that_masks_or_annotations_have(tmp_path: Path) -> None:
    write_samples(tmp_path, train=1, val=3)
    root = tmp_path / "VOC2012"
    for row in voc(root, "LoadMask"):
        present = set(np.unique(row["gt_seg_map"]).tolist()) - {0, 255}
        assert set((row["gt_labels"].nonzero()[0] + 1).tolist()) == present
        assert row["gt_seg_map"].shape == (SIZE, SIZE)
    (root / "Annotations").mkdir()
    objects = "<object><name>red_zero</name></object><object><name>blue_four</name></object>"
    for name in (root / "ImageSets/Segmentation/val.txt").read_text().split():
        (root / f"Annotations/{name}.xml").write_text(f"<annotation>{objects}</annotation>")
        (root / f"SegmentationClass/{name}.png").unlink()
    assert voc(root)[0]["gt_labels"].tolist() == [1, 0, 1]
    assert voc(root).metainfo["classes"] == ("background", *CLASSES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotation><object><name>red_zer</name></object></annotation>", "did you mean red_zero"),
        ("<annotation></annotation>", "has no object of the 3 classes"),
        ("<annotation>", "can't be read as VOC annotations"),
    ],
)
def test_annotation_that_can_not_be_understood_is_named(tmp_path: Path, content: str, words: str) -> None:
    write_samples(tmp_path, train=1, val=1)
    (tmp_path / "VOC2012/Annotations").mkdir()
    (tmp_path / "VOC2012/Annotations/val_0000.xml").write_text(content)
    with pytest.raises(UserError, match=words):
        voc(tmp_path / "VOC2012")[0]


def test_missing_pictures_masks_and_classes_beyond_the_list_are_named(tmp_path: Path) -> None:
    write_samples(tmp_path, train=1, val=2)
    root = tmp_path / "VOC2012"
    Image.fromarray(np.full((SIZE, SIZE), 7, np.uint8)).save(root / "SegmentationClass/val_0000.png")
    with pytest.raises(UserError, match=r"val_0000.png holds class 7 of 3"):
        voc(root)[0]
    (root / "SegmentationClass/val_0000.png").unlink()
    with pytest.raises(UserError, match=r"nothing says what .*val_0000.jpg shows"):
        voc(root)
    (root / "JPEGImages/val_0000.jpg").unlink()
    with pytest.raises(UserError, match=r"lists val_0000, but there is no .*val_0000.jpg"):
        voc(root)
    with pytest.raises(UserError, match=r"lacks ImageSets/Segmentation/test.txt"):
        voc(root, split="test")


def test_label_that_the_network_lacks_is_named(data: Path) -> None:
    model = build_model(quick("bas_samples", data, 4)).train()
    sample = WeakSample(gt_label=torch.tensor([3]))
    with pytest.raises(UserError, match="label 3 with 3 classes"):
        model(torch.randn(1, 3, 64, 64), [sample], mode="loss")


def test_class_count_of_another_data_set_stops_the_training(data: Path, tmp_path: Path) -> None:
    cfg = quick("bas_samples", data, 2)
    cfg.model.network.num_classes = 4
    with pytest.raises(UserError, match="num_classes=4, but the data have 3 classes"):
        runner.train(cfg, tmp_path)


def test_sample_data_are_reproducible(data: Path, tmp_path: Path) -> None:
    write_samples(tmp_path, train=9, val=6)
    files = sorted(path.relative_to(data) for path in data.rglob("*") if path.is_file())
    assert len(files) == 15 + 2 + 30 + 2
    assert all((tmp_path / name).read_bytes() == (data / name).read_bytes() for name in files)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("bas_resnet50_cub", 53_870_032),
        ("bas_resnet50_ilsvrc", 62_063_632),
        ("bas_vgg16_ilsvrc", 34_506_512),
        ("bas_inceptionv3_ilsvrc", 58_037_168),
        ("bas_mobilenet_ilsvrc", 27_717_392),
        ("bas_resnet50_openimages", 52_845_832),
        ("bas_mobilenet_cub", 23_210_192),
        ("bas_inceptionv3_cub", 51_686_768),
        ("bas_vgg16_cub", 29_999_312),
        ("bas_resnet50_voc", 23_733_312),
    ],
)
def test_published_recipes_build(name: str, count: int) -> None:
    cfg = load_config(name)
    with torch.device("meta"):
        model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) == count


def rates(name: str) -> dict[str, float]:
    cfg = load_config(name)
    with torch.device("meta"):
        model = build_model(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    by_parameter = {id(p): group["lr"] for group in groups for p in group["params"]}
    return {n.removeprefix("network."): by_parameter[id(p)] for n, p in model.named_parameters()}


def test_classifiers_and_biases_learn_faster_as_published() -> None:
    found = rates("bas_resnet50_cub")
    assert found["layer1.0.conv1.weight"] == pytest.approx(1e-3)
    assert found["layer1.0.bn1.bias"] == pytest.approx(2e-3)
    assert found["classifier_cls.2.weight"] == pytest.approx(1e-2)
    assert found["classifier_cls.2.bias"] == found["classifier_loc.0.bias"] == pytest.approx(2e-2)
    seeds = rates("bas_resnet50_voc")
    assert seeds["layer4.0.bn1.bias"] == 0 and seeds["layer4.0.bn1.weight"] == pytest.approx(5e-3)
    assert seeds["classifier_loc.0.weight"] == pytest.approx(5e-2)
