"""The way of the promptable task: picture files to a trained, resumed, measured model, and masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from opsin.core.cli import main
from opsin.core.data import read_image
from opsin.core.engine import runner
from opsin.core.engine.config import build_model, load_config
from opsin.core.errors import UserError
from opsin.registry import DATASETS
from opsin.segmentation.promptable.commands import parse_prompts
from opsin.segmentation.promptable.datasets.run_lengths import decode
from opsin.segmentation.promptable.metrics import mask_iou
from opsin.segmentation.promptable.models.prompt_sampling import box_prompts
from opsin.segmentation.promptable.predictor import PromptablePredictor
from opsin.segmentation.promptable.prompts import Prompts
from opsin.segmentation.promptable.samples import write_samples

pytestmark = pytest.mark.xdist_group("promptable")  # the training that they share is done once

pytest.importorskip("pycocotools")

NO_WORKERS = tuple(
    f"{loader}_dataloader.{setting}"
    for loader in ("train", "val", "test")
    for setting in ("num_workers=0", "persistent_workers=False")
)


def config(data: Path, *overrides: str) -> Config:
    return load_config("rwkv_sam_samples", data=data, overrides=[*NO_WORKERS, *overrides])


def steps(count: int) -> tuple[str, ...]:
    return (
        f"train_cfg.max_iters={count}",
        "train_cfg.val_interval=2",
        "default_hooks.checkpoint.interval=2",
        "train_dataloader.batch_size=2",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures of each layout; tests read them only."""
    folder = tmp_path_factory.mktemp("promptable")
    write_samples(folder, train=4, val=2)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of four iterations, the last two of them resumed."""
    work = tmp_path_factory.mktemp("work")
    runner.train(config(data, *steps(2)), work)
    runner.train(config(data, *steps(4)), work, resume=True)
    return work / "iter_4.pth"


def test_resumed_training_gives_the_weights_of_an_uninterrupted_one(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    whole = runner.train(config(data, *steps(4)), tmp_path)
    resumed = torch.load(trained, weights_only=True)["state_dict"]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.parametrize("kind", ["boxes", "points"])
def test_test_reports_iou_of_masks_and_of_boundaries(
    data: Path, trained: Path, tmp_path: Path, kind: str
) -> None:
    cfg = config(data, f"model.data_preprocessor.measured_with={kind}")
    metrics = runner.test(cfg, trained, work_dir=tmp_path)
    assert {"promptable/mIoU", "promptable/bIoU"} <= metrics.keys()
    assert all(0 <= value <= 100 for value in metrics.values())


@pytest.mark.parametrize(
    "dataset",
    [
        {"type": "opsin.CocoMasks", "data_root": "coco", "ann_file": "annotations/instances_val.json"}
        | {"data_prefix": {"img": "images/val"}},
        {"type": "opsin.SA1B", "data_root": "SA-1B", "folder": "val"},
    ],
)
def test_other_layouts_are_measured_too(data: Path, trained: Path, tmp_path: Path, dataset: Any) -> None:
    cfg = config(data)
    pipeline = cfg.test_dataloader.dataset.pipeline
    root = str(data / dataset["data_root"])
    cfg.test_dataloader.dataset = {**dataset, "data_root": root, "pipeline": pipeline, "test_mode": True}
    assert 0 <= runner.test(cfg, trained, work_dir=tmp_path)["promptable/mIoU"] <= 100


def box_baseline(data: Path) -> float:
    """mIoU in percent of the answer that is the whole box, on the validation pictures."""
    pipeline = [{"type": "opsin.LoadImage"}, {"type": "opsin.LoadMasks"}]
    dataset = {**config(data).val_dataloader.dataset, "pipeline": pipeline}
    ious = []
    for sample in DATASETS.build(dataset):
        masks = sample["gt_masks"].astype(bool)
        boxes = box_prompts(torch.from_numpy(masks)).boxes
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            filled = np.zeros_like(mask)
            filled[y1:y2, x1:x2] = True
            ious.append(mask_iou(filled, mask))
    return 100 * float(np.mean(ious))


@pytest.mark.slow
def test_training_beats_the_filled_box(tmp_path: Path) -> None:
    write_samples(tmp_path / "data", train=48, val=12)
    schedule = ("train_cfg.max_iters=100", "train_cfg.val_interval=100", "param_scheduler.1.end=100")
    trainer = runner.train(config(tmp_path / "data", *schedule), tmp_path / "work")
    reached = float(trainer.message_hub.get_scalar("val/promptable/mIoU").current())
    assert reached > box_baseline(tmp_path / "data") + 2


def test_loss_falls_on_a_picture_of_every_layout(data: Path) -> None:
    torch.manual_seed(0)
    cfg = config(data, "model.data_preprocessor.mode=boxes")
    model = build_model(cfg).train()
    pictures = DATASETS.build(cfg.train_dataloader.dataset)
    samples = [pictures[number] for number in (0, 4, 8)]  # of COCO, DIS5K, SA-1B
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    for _ in range(20):
        batch = {key: [sample[key] for sample in samples] for key in ("inputs", "data_samples")}
        prepared = model.data_preprocessor(batch, training=True)
        loss = sum(model(**prepared, mode="loss").values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_batch_without_a_mask_has_no_loss_and_no_error(data: Path) -> None:
    cfg = config(data)
    model = build_model(cfg).train()
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]
    sample["data_samples"].gt_masks = torch.zeros(0, 64, 64, dtype=torch.bool)
    sample["data_samples"].gt_things = torch.zeros(0, dtype=torch.bool)
    batch = {key: [value] for key, value in sample.items()}
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    total = sum(losses.values())
    total.backward()
    assert float(total.detach()) == 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_prediction_writes_numbered_masks_pictures_and_run_lengths(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 90, 3), np.uint8)).save(odd / "wide.png")
    Image.fromarray(np.full((50, 20), 128, np.uint8)).save(odd / "grey.png")
    cfg = config(data)
    cfg.everything = {"points_per_side": 6, "least_stability": 0.0}
    PromptablePredictor(cfg, trained).predict([odd], tmp_path / "out")
    written = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [Path(record["file"]).name for record in written] == ["grey.png", "wide.png"]
    for record, size in zip(written, ((50, 20), (37, 90)), strict=True):
        name = Path(record["file"]).stem
        assert (record["height"], record["width"]) == size
        numbers = np.asarray(Image.open(tmp_path / f"out/masks/{name}.png"))
        assert numbers.shape == size and numbers.max() <= len(record["masks"])
        masks = decode([mask["segmentation"] for mask in record["masks"]], size, source="out")
        assert [int(mask.sum()) for mask in masks] == [mask["area"] for mask in record["masks"]]
        assert read_image(tmp_path / f"out/pictures/{name}.png").shape == (*size, 3)


@pytest.fixture(scope="module")
def predictor(data: Path, trained: Path) -> PromptablePredictor:
    return PromptablePredictor(config(data), trained)


def test_image_is_encoded_once_for_all_that_is_asked(predictor: PromptablePredictor, data: Path) -> None:
    calls: list[int] = []
    hook = predictor.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    image = predictor.encode(read_image(data / "coco/images/val/0000.jpg"))
    one = image.segment(Prompts(boxes=torch.tensor([[10.0, 10, 60, 60], [30, 30, 128, 128]])))
    image.segment(Prompts(torch.tensor([[[20.0, 30]]]), torch.tensor([[1]])))
    image.everything(4)
    hook.remove()
    assert len(calls) == 1
    assert one.masks.shape == (2, 128, 128) and one.scores.shape == (2,)


@pytest.mark.parametrize(
    ("points", "boxes", "words"),
    [
        (["200,3"], [], "point 200,3 lies outside the picture of 128x128"),
        (["3,4,2"], [], "a point has label 2; use 1"),
        ([], ["30,30,20,60"], "box 30,30,20,60 is empty or leaves the picture"),
        ([], ["-1,0,20,60"], "box -1,0,20,60 is empty or leaves"),
    ],
)
def test_questions_outside_the_picture_are_refused(
    predictor: PromptablePredictor, data: Path, points: list[str], boxes: list[str], words: str
) -> None:
    image = predictor.encode(read_image(data / "coco/images/val/0000.jpg"))
    with pytest.raises(UserError, match=words):
        image.segment(parse_prompts(points, boxes))


@pytest.mark.parametrize(
    ("points", "boxes", "words"),
    [
        ([], [], "nothing is asked for"),
        (["1;2"], [], "'1;2' is not of the form --point X,Y"),
        ([], ["1,2,3"], "is not of the form --box X1,Y1,X2,Y2"),
        (["1,2"], ["1,2,3,4", "5,6,7,8"], "points and 2 boxes"),
    ],
)
def test_questions_that_can_not_be_read_are_refused(points: list[str], boxes: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_prompts(points, boxes)


def test_points_join_to_one_prompt_and_every_box_is_one() -> None:
    joined = parse_prompts(["1,2", "3,4,0"], ["0,0,9,9"])
    assert len(joined) == 1 and joined.labels.tolist() == [[1, 0]]
    assert len(parse_prompts([], ["1,2,3,4", "5,6,7,8"])) == 2


def test_segment_command_writes_a_mask_for_each_box(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = data / "coco/images/val/0001.jpg"
    wanted = ["--box", "10,10,60,60", "--box", "40,40,120,128"]
    arguments = ["segment", "rwkv_sam_samples", str(trained), str(picture), *wanted, "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert not left.value.code
    assert "2 masks" in capsys.readouterr().out
    for number in (1, 2):
        mask = np.asarray(Image.open(tmp_path / f"masks/0001_{number}.png"))
        assert mask.shape == (128, 128) and set(np.unique(mask)) <= {0, 255}
    [record] = json.loads((tmp_path / "predictions.json").read_text())
    assert len(record["masks"]) == 2


def test_segment_command_refuses_a_config_of_another_task(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", "upernet_convnext_samples", str(trained), str(tmp_path), "--point", "1,1"]
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "x.png")
    arguments[3] = str(tmp_path / "x.png")
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--out", str(tmp_path / "out")])
    assert left.value.code == 2
    assert "is of the task segmentation" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rwkv_sam_small_joint"])
def test_published_recipe_builds(name: str) -> None:
    cfg = load_config(name)
    with torch.device("meta"):
        model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) == 24_242_480
    assert cfg.model.image_size == 1024 and cfg.optim_wrapper.optimizer.lr == 2.5e-5
    assert [d.get("times", 1) for d in cfg.train_dataloader.dataset.datasets] == [1, 4, 40, 1]
