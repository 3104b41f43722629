import json
import math

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from opsin.core.cli import main
from opsin.core.engine.config import build_model, load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.engine.seeding import seeded
from opsin.core.errors import UserError
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.registry import DATASETS, MODELS
from opsin.tracking.boxes import ciou, to_corners
from opsin.tracking.datasets import ScorePairs, TrainingPairs, VideoSequence, read_sequences
from opsin.tracking.datasets.pairs import Draw, frame_of

pytestmark = pytest.mark.xdist_group("tracking_training")  # the training that they share is done once

NO_WORKERS = ["train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]
SIZES = dict(template_size=64, search_size=128, search_factor=4.0, centre_jitter=2.5, scale_jitter=0.25)


def run(*arguments):
    """Runs the command line; its exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return left.value.code


def pairs(kind, root, split="train", **settings):
    dataset = kind(data_root=str(root), sources=[dict(layout="got10k", split=split)], **{**SIZES, **settings})
    dataset.full_init()
    return dataset


@pytest.fixture(scope="module")
def trained(samples, tmp_path_factory):
    """Stage 1 for 100 iterations in two goes, by the command line: work dir and checkpoint."""
    work = tmp_path_factory.mktemp("stage1")
    shorter = ["train_dataloader.dataset.samples_per_epoch=800", "val_dataloader.dataset.indices=1"]
    arguments = ["--data", samples, "--work-dir", work, *NO_WORKERS, *shorter, "train_cfg.val_interval=2"]
    assert run("train", "mixformer_tiny_samples", *arguments, "train_cfg.max_epochs=1") == 0
    assert run("train", "mixformer_tiny_samples", *arguments, "train_cfg.max_epochs=2", "--resume") == 0
    return work, work / "epoch_2.pth"


def mean_iou(model, dataset, count=48):
    """Of the model's boxes, and of boxes of the usual size in the middle of the search region."""
    with seeded(5), torch.no_grad():
        batch = pseudo_collate([dataset[i] for i in range(count)])
    gt = torch.stack([sample.gt_box for sample in batch["data_samples"]])
    truth = torch.cat((gt[:, :2], gt[:, :2] + gt[:, 2:]), dim=1).clamp(0, 1)
    with torch.no_grad():
        boxes = to_corners(model(batch["inputs"]).boxes)
    middle = to_corners(torch.tensor([[0.5, 0.5, *gt[:, 2:].mean(0)]])).expand(count, -1)
    return [float(ciou(b, truth)[1].mean()) for b in (boxes, middle)]


def test_a_short_training_finds_targets_that_it_has_never_seen(trained, samples):
    model = build_model(load_config("mixformer_tiny_samples"))
    model.load_state_dict(torch.load(trained[1], weights_only=True)["state_dict"])
    found, middle = mean_iou(model.eval(), pairs(TrainingPairs, samples, "val"))
    assert found > 1.5 * middle


def test_the_trained_tracker_is_tested_and_predicts_from_the_command_line(trained, samples, tmp_path):
    work, checkpoint = trained
    arguments = ["--data", samples, "--work-dir", tmp_path / "test", "test_dataloader.dataset.indices=2"]
    assert run("test", "mixformer_tiny_samples", work, *arguments) == 0
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert 0 < metrics["track/success"] < 100 and metrics["track/fps"] > 0
    source = samples / "test" / "GOT-10k_Test_000001"
    assert run("predict", "mixformer_tiny_samples", checkpoint, source, "--out", tmp_path / "out") == 0
    rows = json.loads((tmp_path / "out" / "GOT-10k_Test_000001.json").read_text())
    assert len(rows) == 12 and rows[0]["score"] is None and rows[11]["frame"] == 12


def test_stage_two_changes_the_score_head_alone(trained, samples, tmp_path):
    shorter = ["train_dataloader.dataset.samples_per_epoch=80", "train_cfg.max_epochs=1"]
    cfg = load_config(
        "mixformer_tiny_online_samples",
        data=samples,
        overrides=[*NO_WORKERS, *shorter, "train_cfg.val_interval=9"],
    )
    cfg.load_from = str(trained[1])
    train(cfg, tmp_path)
    before = torch.load(trained[1], weights_only=True)["state_dict"]
    after = torch.load(tmp_path / "epoch_1.pth", weights_only=True)["state_dict"]
    for name, tensor in before.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(after[name], tensor), name
    fresh = build_model(cfg).state_dict()
    new = {name for name in after if name not in before}
    assert new == {name for name in after if "score_branch" in name}
    assert any(not torch.equal(after[name], fresh[name]) for name in new)


def test_the_score_of_a_tiny_set_is_learned(trained, samples):
    model = build_model(load_config("mixformer_tiny_online_samples"))
    weights = torch.load(trained[1], weights_only=True)["state_dict"]
    model.load_state_dict(weights, strict=False)
    with seeded(3):
        batch = pseudo_collate([pairs(ScorePairs, samples)[i] for i in range(16)])
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, 3e-3)
    model.train()
    for _ in range(30):
        losses = model(batch["inputs"], batch["data_samples"], mode="loss")
        optimizer.zero_grad()
        losses["loss_score"].backward()
        optimizer.step()
    assert losses["loss_score"] < 0.3 and losses["right"] > 0.9  # ln 2 and a half without learning


def test_a_tiny_set_is_learned():
    get_task("tracking").register()
    model = MODELS.build(load_config("mixformer_tiny_samples").model).train()
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "template": torch.randint(0, 255, (2, 3, 64, 64), generator=generator, dtype=torch.uint8),
        "online": torch.randint(0, 255, (2, 3, 64, 64), generator=generator, dtype=torch.uint8),
        "search": torch.randint(0, 255, (2, 3, 128, 128), generator=generator, dtype=torch.uint8),
    }
    inputs["search"][0, :, 20:60, 30:80] = 255
    inputs["search"][1, :, 70:110, 50:100] = 255
    boxes = torch.tensor([[30, 20, 50, 40], [50, 70, 50, 40]]) / 128
    samples = [sample_of(box) for box in boxes]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    history = []
    for _ in range(25):
        losses = model(inputs, samples, mode="loss")
        loss = losses["loss_iou"] + losses["loss_l1"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: float(value) for name, value in losses.items()})
    assert history[-1]["loss_iou"] < 0.6 * history[0]["loss_iou"]
    assert history[-1]["loss_l1"] < 0.6 * history[0]["loss_l1"]


def sample_of(box):
    from opsin.tracking.datasets import TrackingSample

    sample = TrackingSample()
    sample.gt_box, sample.label = box, torch.tensor(1.0)
    return sample


# Training samples.


def sequence(visible, name="s"):
    count = len(visible)
    boxes = np.tile([[5.0, 5, 10, 10]], (count, 1))
    return VideoSequence(name, tuple(f"{i}.jpg" for i in range(count)), boxes, np.array(visible, bool))


def numbers(drawn):
    return [int(frame.path.removesuffix(".jpg")) for frame in (drawn.template, drawn.online, drawn.search)]


def test_templates_come_before_the_search_frame_within_the_gap(samples):
    dataset = pairs(TrainingPairs, samples, max_gap=6)
    video = sequence([i % 3 != 1 for i in range(60)])
    with seeded(0):
        draws = [d for d in (dataset.draw(video, 6) for _ in range(200)) if d]
    assert len(draws) > 100
    for drawn in draws:
        template, online, search = numbers(drawn)
        assert online < template < search and template - online <= 6 and search - template < 6
        assert all(video.visible[i] for i in (template, online, search)) and drawn.label == 1


def test_a_still_picture_is_template_and_search_region(samples):
    assert numbers(pairs(TrainingPairs, samples).draw(sequence([True]), 200)) == [0, 0, 0]


def test_half_of_the_score_samples_do_not_hold_the_target(samples):
    dataset = pairs(ScorePairs, samples)
    video = sequence([True] * 20 + [False] * 20)
    with seeded(1):
        draws = [dataset.draw(video, 5) for _ in range(400)]
    labels = [drawn.label for drawn in draws]
    assert 0.4 < np.mean(labels) < 0.6
    for drawn in draws:
        if drawn.label:
            online, search = numbers(drawn)[1:]
            assert abs(online - search) <= 5 and drawn.search.box is not None
        else:
            assert drawn.search.box is None
            inside = drawn.search.path in video.frames
            assert not inside or not video.visible[int(drawn.search.path.removesuffix(".jpg"))]
    assert any(drawn.search.path in video.frames for drawn in draws if not drawn.label)


def test_sources_are_drawn_by_their_ratios(samples):
    sources = [dict(layout="got10k", split="val", ratio=3), dict(layout="got10k", split="train", ratio=1)]
    dataset = TrainingPairs(data_root=str(samples), sources=sources, **SIZES)
    dataset.full_init()
    with seeded(2):
        names = [dataset.random_sequence().name for _ in range(400)]
    assert 0.65 < np.mean(["Val" in name for name in names]) < 0.85


def test_the_box_of_a_sample_lies_where_the_target_is(samples):
    dataset = pairs(TrainingPairs, samples, brightness=0.0, grey=0.0)
    video = read_sequences("got10k", samples, "train")[0]
    for flip in (0.0, 1.0):
        dataset.flip = flip
        with seeded(4):
            item = dataset._crops(Draw(frame_of(video, 3), frame_of(video, 2), frame_of(video, 8), 1.0))
        x, y, w, h = (item["data_samples"].gt_box * 128).tolist()
        search = item["inputs"]["search"].float()
        # the template is twice the box: its inner half shows the same plate as the box in the search region
        plate = item["inputs"]["template"][:, 16:48, 16:48].float().mean((1, 2))
        seen = search[:, round(y) + 2 : round(y + h) - 2, round(x) + 2 : round(x + w) - 2].mean((1, 2))
        assert (plate - seen).abs().max() < 25
        assert (search.mean((1, 2)) - seen).abs().max() > 25


def test_samples_follow_from_the_seed(samples):
    dataset = pairs(TrainingPairs, samples)
    items = []
    for _ in range(2):
        with seeded(11):
            items.append(dataset[0])
    assert torch.equal(items[0]["inputs"]["search"], items[1]["inputs"]["search"])
    assert items[0]["inputs"]["template"].dtype == torch.uint8


def test_sample_videos_have_the_attributes_that_they_name(samples):
    attributes = json.loads((samples / "val" / "attributes.json").read_text())
    sequences = {s.name: s for s in read_sequences("got10k", samples, "val")}
    assert set(sequences) == {name for group in attributes.values() for name in group}
    for name, video in sequences.items():
        scale = video.boxes[:, 2]
        assert scale.max() > 1.05 * scale.min() and np.ptp(video.boxes[:, 0]) > 10
        covers = np.loadtxt(samples / "val" / name / "cover.label")
        assert (covers.min() <= 1) == (name in attributes["occlusion"])


def test_samples_are_the_same_for_the_same_seed(samples, tmp_path, monkeypatch):
    from opsin.tracking import samples as module

    monkeypatch.setattr(module, "SPLITS", {"test": module.SPLITS["test"]})
    module.write_samples(tmp_path)
    for path in sorted((tmp_path / "test").rglob("*.*")):
        assert path.read_bytes() == (samples / path.relative_to(tmp_path)).read_bytes()


# Configs.


@pytest.mark.parametrize("name", get_system("mixformer").configs)
def test_every_config_builds(name):
    cfg = load_config(name)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    dataset = cfg.train_dataloader.dataset
    assert dataset.get("search_size", 320) == model.crops.search_size
    assert dataset.get("template_size", 128) == model.crops.template_size
    assert (dataset.type == "opsin.ScorePairs") == (cfg.model.type == "opsin.ScoreTracker")
    assert (model.network.score_branch is not None) == (cfg.model.type == "opsin.ScoreTracker")


def test_listed_configs_are_those_on_disk():
    assert sorted(get_task("tracking").configs()) == sorted(get_system("mixformer").configs)


# Mistakes.


def test_a_missing_folder_is_named():
    dataset = DATASETS.build(
        dict(type="opsin.SequenceDataset", layout="got10k", split="val", data_root="/nowhere", lazy_init=True)
    )
    with pytest.raises(UserError, match="no data folder /nowhere"):
        dataset.full_init()


def test_stage_two_without_a_score_head_is_refused():
    cfg = load_config("mixformer_tiny_samples")
    with pytest.raises(UserError, match="this network has none"):
        MODELS.build({**cfg.model, "type": "opsin.ScoreTracker"})


def test_a_loss_without_boxes_is_refused():
    model = build_model(load_config("mixformer_tiny_samples"))
    inputs = {role: torch.zeros(1, 3, size, size, dtype=torch.uint8) for role, size in
              (("template", 64), ("online", 64), ("search", 128))}  # fmt: skip
    with pytest.raises(UserError, match="a loss needs boxes"):
        model(inputs, mode="loss")
    assert math.isfinite(model(inputs).boxes.sum())


def test_a_checkpoint_of_another_network_is_refused(trained, samples, tmp_path):
    cfg = load_config("mixformer_tiny_online_samples", data=samples)
    with pytest.raises(UserError, match="score_branch"):
        evaluate(cfg, trained[1], work_dir=tmp_path)
