import json

import cv2
import numpy as np
import pytest

from opsin.core.data.image import list_images, read_image
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.detection.predictor import DetectionPredictor

SHORT = (
    "train_dataloader.dataset.indices=4",
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.dataset.indices=4",
    "test_dataloader.dataset.indices=4",
    "train_cfg.val_interval=1",
    "model.test_cfg.score_thr=0.0",
    "model.test_cfg.rcnn.score_thr=0.0",
)


def config(name, samples, epochs):
    kept = [s for s in SHORT if ("rcnn" in s) == ("mask_rcnn" in name) or "test_cfg" not in s]
    return load_config(name, data=samples, overrides=[*kept, f"train_cfg.max_epochs={epochs}"])


@pytest.fixture(scope="module", params=["retinanet_convnext_samples", "mask_rcnn_convnext_samples"])
def trained(request, samples, tmp_path_factory):
    """A short run: config name, its work dir."""
    work_dir = tmp_path_factory.mktemp(request.param)
    train(config(request.param, samples, 1), work_dir)
    return request.param, work_dir


def test_run_is_evaluated(trained, samples):
    name, work_dir = trained
    metrics = evaluate(config(name, samples, 1), work_dir / "epoch_1.pth")
    kinds = ("bbox", "segm") if "mask" in name else ("bbox",)
    assert all(0 <= metrics[f"coco/{kind}_mAP"] <= 1 for kind in kinds)


def test_run_goes_on_where_it_stopped(trained, samples):
    name, work_dir = trained
    runner = train(config(name, samples, 2), work_dir, resume=True)
    assert (runner.epoch, runner.iter) == (2, 4)
    assert (work_dir / "epoch_2.pth").is_file()


def test_predictions_and_pictures_are_written(trained, samples, tmp_path):
    name, work_dir = trained
    predictor = DetectionPredictor(config(name, samples, 1), work_dir / "epoch_1.pth")
    predictor.shown_above = 0.0
    inputs = list_images(samples / "images" / "val")[:2]
    predictor.predict(inputs, tmp_path, quiet=True)
    about = json.loads((tmp_path / "images.json").read_text())
    assert [image["file_name"] for image in about["images"]] == [str(p) for p in inputs]
    assert [c["name"] for c in about["categories"]][:2] == ["zero", "one"]
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert {f["image_id"] for f in found} == {1, 2}
    assert all(1 <= f["category_id"] <= 10 and 0 <= f["score"] <= 1 and len(f["bbox"]) == 4 for f in found)
    assert all(("segmentation" in f) == ("mask" in name) for f in found)
    picture = read_image(tmp_path / "pictures" / f"{inputs[0].stem}.png")
    plain = read_image(inputs[0])
    assert picture.shape[0] % plain.shape[0] == 0
    enlarged = cv2.resize(plain, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    assert (np.abs(picture.astype(int) - enlarged) > 60).any()


def test_predictions_load_as_coco_results(trained, samples, tmp_path):
    from faster_coco_eval import COCO

    name, work_dir = trained
    predictor = DetectionPredictor(config(name, samples, 1), work_dir / "epoch_1.pth")
    predictor.predict(list_images(samples / "images" / "val")[:1], tmp_path, quiet=True)
    truth = COCO({**json.loads((tmp_path / "images.json").read_text()), "annotations": []})
    results = truth.loadRes(str(tmp_path / "predictions.json"))
    assert len(results.anns) == len(json.loads((tmp_path / "predictions.json").read_text()))


def test_data_of_other_classes_stop_before_training(samples, tmp_path):
    cfg = config("retinanet_convnext_samples", samples, 1)
    cfg.train_dataloader.dataset.metainfo = {"classes": ("one", "two")}
    with pytest.raises(UserError, match=r"model\.bbox_head has num_classes=10, but the data have 2 classes"):
        train(cfg, tmp_path)


def test_training_without_any_object_in_a_batch_has_finite_loss(samples, tmp_path):
    cfg = config("retinanet_convnext_samples", samples, 1)
    path = tmp_path / "empty.json"
    content = json.loads((samples / "annotations/instances_train.json").read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    cfg.train_dataloader.dataset.ann_file = str(path)
    train(cfg, tmp_path / "run")
    lines = [
        json.loads(line) for line in next((tmp_path / "run").rglob("scalars.json")).read_text().splitlines()
    ]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses
    assert np.isfinite(losses).all()
