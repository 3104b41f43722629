import csv
import io
import json
import re
import zipfile

import cv2
import numpy as np
import pytest
import torch

from opsin.core.cli import main
from opsin.core.data.image import read_image, write_image
from opsin.core.engine.config import load_config
from opsin.core.engine.predictor import open_video
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.tracking.following import follow_video
from opsin.tracking.models.mixformer.network import Prediction
from opsin.tracking.online_memory import UpdateRule
from opsin.tracking.predictor import TrackingPredictor
from opsin.tracking.tracker import LOST_AFTER, CropRule, Tracked, Tracker, check_box
from opsin.tracking.trax import serve
from opsin.tracking.video import open_frames
from opsin.tracking.visualization import draw

pytestmark = pytest.mark.xdist_group("tracking_video")  # the training that they share is done once

CROPS = CropRule(template_size=48, search_size=96, search_factor=4.0)
ONLINE = "mixformer_tiny_online_samples"


def square_at(x, y, size=20, height=120, width=160):
    image = np.full((height, width, 3), 40, np.uint8)
    image[y : y + size, x : x + size] = (220, 60, 30)
    return image


class Finder(torch.nn.Module):
    """Stands for a trained network: finds what is as red as the square, by its normalised channels."""

    score_branch = None
    passes = 0
    encodings = 0

    def __init__(self, scores=None):
        super().__init__()
        self.scores, self.weight = scores, torch.nn.Parameter(torch.zeros(1))
        if scores is not None:
            self.score_branch = torch.nn.Identity()

    def remember(self, template, online):
        from opsin.tracking.models.mixformer import TemplateMemory

        self.encodings += 1
        tokens = torch.zeros(1, 1, 1 + online.shape[1], 1)
        return TemplateMemory(((tokens, tokens),), template)

    def look(self, search, memory, boxes=None):
        self.passes += 1
        red = (search[:, 0] - search[:, 1]) > 1.5
        found = []
        for mask in red:
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            y1, y2, x1, x2 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
            found.append(torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)) / mask.shape[1])
        logits = None if self.scores is None else torch.full((len(search),), self.scores.pop(0))
        return Prediction(torch.stack(found), logits)


def path_of(count):
    return [(20 + 3 * t, 30 + 2 * t) for t in range(count)]


def test_boxes_of_a_moving_square_come_back_to_the_picture():
    tracker = Tracker(Finder(), CROPS)
    tracker.start(square_at(20, 30), [(20, 30, 20, 20)])
    for x, y in path_of(25)[1:]:
        (found,) = tracker.track(square_at(x, y))
        np.testing.assert_allclose(found.box, (x, y, 20, 20), atol=1.1)
        assert found.score is None and not found.lost


def test_targets_share_one_pass_and_templates_are_encoded_only_when_they_change():
    network = Finder([5.0] * 6)
    tracker = Tracker(network, CROPS, UpdateRule(size=2, interval=3))
    image = square_at(20, 30)
    image[80:100, 120:140] = (220, 60, 30)
    tracker.start(image, [(20, 30, 20, 20), (120, 80, 20, 20)])
    updates = []
    for _ in range(6):
        both = tracker.track(image)
        updates.append([tracked.updated for tracked in both])
    assert network.passes == 6
    assert network.encodings == 2 + 2 * 2  # at the start and at frames 3 and 6, for each target
    assert updates == [[False] * 2, [False] * 2, [True] * 2] * 2
    np.testing.assert_allclose([t.box for t in both], [(20, 30, 20, 20), (120, 80, 20, 20)], atol=1.1)
    assert [len(target.memory.entries) for target in tracker.targets] == [2, 2]


def test_a_target_is_lost_after_low_scores_in_a_row_and_found_again():
    scores = [3.0] + [-3.0] * LOST_AFTER + [3.0]
    tracker = Tracker(Finder(list(scores)), CROPS)
    tracker.start(square_at(20, 30), [(20, 30, 20, 20)])
    lost = [tracker.track(square_at(20, 30))[0].lost for _ in scores]
    assert lost == [False] * LOST_AFTER + [True, False]


def test_several_targets_are_followed_as_each_would_be_alone(small_mixformer):
    network = small_mixformer()
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (90, 120, 3), dtype=np.uint8) for _ in range(4)]
    boxes = [(20.0, 30.0, 24.0, 18.0), (60.0, 20.0, 15.0, 30.0), (5.0, 5.0, 40.0, 40.0)]

    def follow(some):
        tracker = Tracker(network, CROPS, UpdateRule(size=2, interval=2))
        tracker.start(frames[0], some)
        return [[t.box for t in tracker.track(frame)] for frame in frames[1:]]

    together, alone = follow(boxes), [follow([box]) for box in boxes]
    for t, found in enumerate(together):
        np.testing.assert_allclose(found, [rows[t][0] for rows in alone], atol=0.02)


def test_memory_does_not_grow_with_the_video():
    network = Finder([2.0] * 3000)
    tracker = Tracker(network, CROPS, UpdateRule(size=3, interval=5))
    image = square_at(20, 30)
    tracker.start(image, [(20, 30, 20, 20)])
    import tracemalloc

    for _ in range(50):
        tracker.track(image)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(500):
        tracker.track(image)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000  # one template is 48 * 48 * 3 = 6912 bytes; 100 were cut
    assert len(tracker.targets[0].memory.entries) == 3


# Videos.


def frames_folder(folder, count=5):
    for number, (x, y) in enumerate(path_of(count), 1):
        write_image(folder / f"{number:08d}.png", square_at(x, y))
    return folder


def test_folders_and_video_files_give_the_same_frames(tmp_path):
    folder = frames_folder(tmp_path / "frames")
    writer = cv2.VideoWriter(str(tmp_path / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12, (160, 120))
    for x, y in path_of(5):
        writer.write(square_at(x, y)[..., ::-1])
    writer.release()
    video, pictures = open_frames(str(tmp_path / "walk.avi")), open_frames(str(folder))
    assert (video.name, video.rate, video.count) == ("walk", 12, 5) and pictures.count == 5
    for a, b in zip(video.frames, pictures.frames, strict=True):
        assert np.abs(a.image.astype(int) - b.image).mean() < 4


def follow(source, out, **options):
    video = open_frames(str(source), on_error=options.pop("on_error", "raise"))
    return follow_video(
        Tracker(Finder(options.pop("scores", None)), CROPS), video, [(20, 30, 20, 20)], out, **options
    )


def test_following_writes_video_json_csv_and_plot(tmp_path):
    rows = follow(frames_folder(tmp_path / "walk"), tmp_path / "out", scores=[1.0, -1.0, 2.0, 0.5])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "walk.csv", "walk.json", "walk.mp4", "walk_scores.png",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "walk.json").read_text()) == rows
    with (tmp_path / "out" / "walk.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 5 and table[4]["frame"] == "5" and abs(float(table[4]["x"]) - 32) < 1.2
    assert abs(rows[1]["score"] - 1 / (1 + np.exp(-1))) < 1e-6
    _, drawn = open_video(tmp_path / "out" / "walk.mp4")
    assert sum(1 for _ in drawn) == 5
    assert read_image(tmp_path / "out" / "walk_scores.png").std() > 5


def test_lost_targets_are_drawn_in_red_and_say_so():
    image = np.zeros((240, 320, 3), np.uint8)
    seen = draw(image, [Tracked((50, 80, 60, 40), 0.9)])
    lost = draw(image, [Tracked((50, 80, 60, 40), 0.1, lost=True)])
    assert tuple(seen[120, 80]) == (46, 204, 64) and tuple(lost[120, 80]) == (255, 65, 54)
    assert (lost[:80].any(-1)).sum() > (seen[:80].any(-1)).sum() and not image.any()


def test_a_video_of_one_frame_has_one_row(tmp_path):
    rows = follow(frames_folder(tmp_path / "one", 1), tmp_path / "out")
    assert [(row["frame"], row["x"], row["lost"]) for row in rows] == [(1, 20, False)]


def test_a_broken_frame_in_the_middle_is_named_or_skipped(tmp_path):
    folder = frames_folder(tmp_path / "walk")
    (folder / "00000003.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"00000003\.png"):
        follow(folder, tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "walk.json").read_text())) == 2  # what was done is written
    rows = follow(folder, tmp_path / "out", on_error="skip")
    assert len(rows) == 5 and "00000003.png" in rows[2]["error"] and rows[2]["x"] == rows[1]["x"]
    assert abs(rows[4]["x"] - 32) < 1.2


def test_frames_that_change_size_are_refused_or_skipped(tmp_path):
    folder = frames_folder(tmp_path / "walk")
    write_image(folder / "00000004.png", square_at(29, 36, height=60, width=80))
    with pytest.raises(UserError, match=r"00000004\.png is 80x60, and the frames before are 160x120"):
        follow(folder, tmp_path / "out")
    assert "80x60" in follow(folder, tmp_path / "out", on_error="skip")[3]["error"]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((500, 10, 20, 20), "lies outside the first frame, which is 160x120"),
        ((-30, 10, 20, 20), "lies outside"),
        ((10, 10, 0, 20), "has no area"),
        ((10, 10, 20, float("nan")), "has no area"),
    ],
)
def test_a_box_that_cannot_be_followed_is_refused(box, message):
    with pytest.raises(UserError, match=message):
        check_box(box, (120, 160, 3))


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(UserError, match="no file or folder at"):
        open_frames(str(tmp_path / "missing.mp4"))
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="can't be read as a video"):
        list(open_frames(str(tmp_path / "empty.mp4")).frames)
    with pytest.raises(UserError, match="camera 77 can't be opened"):
        open_frames("camera:77")


@pytest.mark.parametrize("most_frames", [2, 3])
def test_following_ends_after_so_many_frames(tmp_path, most_frames):
    rows = follow(frames_folder(tmp_path / "walk"), tmp_path / "out", most_frames=most_frames, render=False)
    assert len(rows) == most_frames and not (tmp_path / "out" / "walk.mp4").exists()


# The command line.


@pytest.fixture(scope="module")
def checkpoint(samples, tmp_path_factory):
    """Stage 2 for one step: a checkpoint of the online tracker with weights that know little."""
    overrides = [
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        "train_dataloader.dataset.samples_per_epoch=16",
        "train_cfg.max_epochs=1",
        "train_cfg.val_interval=9",
    ]
    work = tmp_path_factory.mktemp("online")
    train(load_config(ONLINE, data=samples, overrides=overrides), work)
    return work / "epoch_1.pth"


def run(*arguments):
    """Runs the command line; its exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return left.value.code


def test_track_follows_several_targets(checkpoint, samples, tmp_path, capsys):
    source = samples / "val" / "GOT-10k_Val_000001"
    model = ["--config", ONLINE, "--checkpoint", checkpoint]
    boxes = ["--init", "80,60,30,30", "--init", "20,20,25,30"]
    assert run("track", source, *boxes, *model, "--out", tmp_path, "--frames", 8) == 0
    assert "2 targets in 8 frames" in capsys.readouterr().out
    rows = json.loads((tmp_path / "GOT-10k_Val_000001.json").read_text())
    assert [row["target"] for row in rows[:3]] == [1, 2, 1] and len(rows) == 16
    assert all(0 <= row["score"] <= 1 for row in rows)
    assert [row["frame"] for row in rows if row["updated"]] == [6, 6]  # tracked frames count from the second


def test_track_takes_the_box_beside_the_frames(checkpoint, samples, tmp_path):
    source = samples / "test" / "GOT-10k_Test_000001"
    truth = [float(v) for v in (source / "groundtruth.txt").read_text().split(",")]
    arguments = [
        "--config",
        ONLINE,
        "--checkpoint",
        checkpoint,
        "--no-video",
        "--frames",
        2,
        "--out",
        tmp_path,
    ]
    assert run("track", source, *arguments) == 0
    first = json.loads((tmp_path / "GOT-10k_Test_000001.json").read_text())[0]
    assert [first[k] for k in "xywh"] == truth


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init", "1,2,3"], "--init '1,2,3' is not a box; give x,y,w,h"),
        (["--init", "10,2,30,30", "--show"], "no window can be opened here"),
        (["--init", "900,2,30,30"], "lies outside the first frame, which is 192x144"),
        (["--init", "1,2,30,30", "--config", "mixformer_tiny_samples"], "is not for this SequenceTracker"),
        (["--init", "1,2,30,30", "--checkpoint", "missing.pth"], "no checkpoint at missing.pth"),
    ],
)
def test_mistakes_end_in_one_line(checkpoint, samples, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    source = samples / "val" / "GOT-10k_Val_000001"
    given = ["--config", ONLINE, "--checkpoint", checkpoint, "--out", tmp_path, *arguments]
    assert run("track", source, *given) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


@pytest.mark.parametrize("verb", ["track", "predict"])
def test_a_folder_that_cannot_be_written_is_said(checkpoint, samples, tmp_path, capsys, verb):
    (tmp_path / "file").write_text("")
    source = samples / "val" / "GOT-10k_Val_000001"
    if verb == "track":
        arguments = [
            source,
            "--config",
            ONLINE,
            "--checkpoint",
            checkpoint,
            "--out",
            tmp_path / "file" / "out",
        ]
    else:
        arguments = [ONLINE, checkpoint, source, "--out", tmp_path / "file" / "out"]
    assert run(verb, *arguments) == 2
    assert "can't write to" in capsys.readouterr().err


def test_an_authors_file_is_taken_as_it_is(checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    bare = {name.removeprefix("network."): tensor for name, tensor in state.items()}
    unused = {"backbone.norm.weight": torch.ones(64), "backbone.head.weight": torch.zeros(1000, 64)}
    torch.save({"epoch": 40, "net": bare | unused}, tmp_path / "authors.pth.tar")
    model = TrackingPredictor(load_config(ONLINE), tmp_path / "authors.pth.tar").model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_predict_walks_folders_and_videos(checkpoint, samples, tmp_path):
    predictor = TrackingPredictor(load_config(ONLINE), checkpoint)
    records = predictor.predict([samples / "test"], tmp_path / "out", quiet=True)
    assert [record["frames"] for record in records] == [12, 12]
    frames_folder(tmp_path / "in" / "bad")
    (tmp_path / "in" / "bad" / "groundtruth.txt").write_text("9000,9000,5,5\n")
    records = predictor.predict([tmp_path / "in"], tmp_path / "out", on_error="skip", quiet=True)
    assert "lies outside" in records[0]["error"]
    with pytest.raises(UserError, match="nothing to track in"):
        predictor.predict([tmp_path], tmp_path / "out", quiet=True)


def test_benchmark_is_resumed_and_packed(checkpoint, samples, tmp_path, capsys):
    out = tmp_path / "got"
    arguments = [samples, "--layout", "got10k", "--split", "val", "--out", out, "--json"]
    arguments += ["--config", ONLINE, "--checkpoint", checkpoint]
    arguments += ["--subsets", samples / "val" / "attributes.json"]
    assert run("track-benchmark", *arguments) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert {"success", "ao", "sr50", "occlusion/ao", "plain/success"} <= set(metrics)
    files = sorted(out.rglob("*_001.txt"))
    assert len(files) == 8
    stamps = [file.stat().st_mtime_ns for file in files]
    files[3].write_text("1,1,1,1\n")  # half-written: tracked again, the others are kept
    assert run("track-benchmark", *arguments) == 0
    assert json.loads(capsys.readouterr().out) == pytest.approx(metrics)
    after = [file.stat().st_mtime_ns for file in files]
    assert [a == b for a, b in zip(stamps, after, strict=True)] == [True] * 3 + [False] + [True] * 4
    with zipfile.ZipFile(tmp_path / "got.zip") as archive:
        assert len(archive.namelist()) == 16


def test_test_sets_give_files_and_no_numbers_and_processes_change_nothing(
    checkpoint, samples, tmp_path, capsys
):
    arguments = ["--layout", "got10k", "--config", ONLINE, "--checkpoint", checkpoint]
    for jobs in (1, 2):
        out = tmp_path / f"jobs{jobs}"
        assert run("track-benchmark", samples, *arguments, "--out", out, "--jobs", jobs) == 0
        assert "the truth is on the benchmark's server" in capsys.readouterr().out
        assert (tmp_path / f"jobs{jobs}.zip").is_file()
    files = sorted((tmp_path / "jobs1").rglob("*_001.txt"))
    assert len(files) == 2
    for file in files:
        other = tmp_path / "jobs2" / file.relative_to(tmp_path / "jobs1")
        np.testing.assert_allclose(np.loadtxt(file, delimiter=","), np.loadtxt(other, delimiter=","), atol=1)


# TraX.


def talk(lines, scores=None):
    """What the tracker answers to a toolkit's lines."""
    answers = io.StringIO()
    frames = serve(Tracker(Finder(scores), CROPS), io.StringIO("\n".join(lines) + "\n"), answers)
    return frames, answers.getvalue().splitlines()


def test_trax_answers_each_frame_with_a_state_for_each_target(tmp_path):
    folder = frames_folder(tmp_path / "a b", 3)
    frames, answers = talk(
        [
            '@@TRAX:initialize "20.0000,30.0000,20.0000,20.0000" ',
            '@@TRAX:initialize "20,30,40,30,40,50,20,50" ',
            f'@@TRAX:frame "file://{folder}/00000001.png" "k=v" ',
            "words that are none of the protocol's",
            f'@@TRAX:frame "file://{folder}/00000002.png" ',
            "@@TRAX:quit ",
            f'@@TRAX:frame "file://{folder}/00000003.png" ',
        ],
        [3.0],
    )
    assert frames == 2 and len(answers) == 5
    assert answers[0].startswith('@@TRAX:hello "trax.version=4"') and '"trax.region=rectangle;"' in answers[0]
    assert answers[1] == answers[2] == '@@TRAX:state "20.0000,30.0000,20.0000,20.0000"'
    state = re.fullmatch(r'@@TRAX:state "([\d.,]+)" "confidence=0\.9526"', answers[4])
    np.testing.assert_allclose([float(v) for v in state[1].split(",")], (23, 32, 20, 20), atol=1.1)


def test_trax_starts_anew_at_the_next_region(tmp_path):
    folder = frames_folder(tmp_path, 2)
    frame = f'@@TRAX:frame "file://{folder}/00000001.png"'
    begins = ('@@TRAX:initialize "20,30,20,20"', '@@TRAX:initialize \n@@TRAX:initialize "25,35,10,10"')
    _, answers = talk([f"{begin}\n{frame}" for begin in begins])
    assert answers[2] == '@@TRAX:state "25.0000,35.0000,10.0000,10.0000"'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('@@TRAX:initialize "one"', "is no rectangle, polygon or mask"),
        ('@@TRAX:frame "file:///missing.png"', "missing.png does not exist"),
        ("@@TRAX:dance", "TraX message 'dance'"),
    ],
)
def test_trax_tells_the_toolkit_why_it_quits(line, message):
    answers = io.StringIO()
    with pytest.raises(UserError, match=message):
        serve(Tracker(Finder(), CROPS), io.StringIO(line + "\n"), answers)
    assert answers.getvalue().splitlines()[-1].startswith('@@TRAX:quit "trax.reason=')
