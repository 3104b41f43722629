import json

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from opsin.core.cli import app
from opsin.core.data.image import read_image, write_image
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.registry import MODELS
from opsin.restoration.metalens.datasets import SimulateMetalens
from opsin.restoration.metalens.models import CandidateInit
from opsin.restoration.metalens.predictor import MetalensPredictor
from opsin.restoration.metalens.samples import write_samples

HERE = [
    f"{loader}_dataloader.{setting}"
    for loader in ("train", "val", "test")
    for setting in ("num_workers=0", "persistent_workers=False")
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """The sample data set."""
    folder = tmp_path_factory.mktemp("metalens")
    write_samples(folder)
    return folder


@pytest.fixture(scope="module")
def predictor(photographs):
    """A network that gives back the middle candidate."""
    middle = ["model.network.init_cfg.candidate=2"]
    predictor = MetalensPredictor(
        load_config("acformer_tiny_samples", data=photographs, overrides=middle), None
    )
    predictor.model.init_weights()
    return predictor


def test_samples_are_of_the_sensors_size_and_the_lens_sums_to_one(photographs):
    psf = np.load(photographs / "psf.npy")
    assert psf.shape == (16, 24, 24, 3)
    np.testing.assert_allclose(psf.sum((1, 2)), 1, atol=1e-5)
    assert np.abs(psf[0] - psf[5]).max() > 0.01  # it varies over the field
    sizes = {name: len(list((photographs / name).glob("*.png"))) for name in ("train", "val", "test")}
    assert sizes == {"train": 36, "val": 6, "test": 6}
    assert read_image(photographs / "test" / "0001.png").shape == (96, 96, 3)


def test_scenes_of_any_size_and_depth_are_taken_through_the_lens_and_restored(
    predictor, photographs, tmp_path
):
    picture = read_image(photographs / "test" / "0001.png")
    write_image(tmp_path / "in" / "wide.png", np.repeat(picture[:40], 3, axis=1))
    write_image(tmp_path / "in" / "deep.png", picture.astype(np.uint16) * 257)
    records = predictor.predict([tmp_path / "in"], tmp_path / "out", quiet=True)
    assert [record["size"] for record in records] == [[96, 96], [96, 13]]
    assert all(record["psnr_y"] == record["wiener_psnr_y"] for record in records)
    deep = cv2.imread(str(tmp_path / "out" / "deep.png"), cv2.IMREAD_UNCHANGED)
    wide = cv2.imread(str(tmp_path / "out" / "wide.png"), cv2.IMREAD_UNCHANGED)
    assert deep.dtype == np.uint16 and wide.dtype == np.uint8 and wide.shape == (13, 96, 3)
    assert cv2.imread(str(tmp_path / "out" / "pictures" / "deep.png")).shape == (96, 3 * 96 + 8, 3)


def test_raw_stacks_are_restored_as_the_scene_they_come_from(predictor, photographs, tmp_path):
    simulate = next(t for t in predictor.pipeline.transforms if isinstance(t, SimulateMetalens))
    scene, _ = simulate.scene(read_image(photographs / "test" / "0001.png"), "scene")
    noisy = simulate.lens.photograph(scene, torch.Generator().manual_seed(0))
    np.save(tmp_path / "raw.npy", noisy[None].numpy())
    out = tmp_path / "out"
    records = predictor.predict([tmp_path / "raw.npy", photographs / "test" / "0001.png"], out, quiet=True)
    assert records[0]["size"] == [96, 96] and "psnr_y" not in records[0] and "psnr_y" in records[1]
    stack, direct = (cv2.imread(str(out / f"{name}.png"), cv2.IMREAD_UNCHANGED) for name in ("raw", "0001"))
    assert stack.dtype == np.uint16 and np.abs(stack / 257 - direct).max() <= 1
    everything = predictor.predict([tmp_path], tmp_path / "out2", quiet=True)
    assert len(everything) == 5  # the stack, and the four pictures written above


def test_unusable_stacks_are_told(predictor, tmp_path):
    np.save(tmp_path / "raw.npy", np.zeros((1, 9, 3, 15, 15), np.float32))
    with pytest.raises(
        UserError, match=r"raw\.npy is \(1, 9, 3, 15, 15\); stacks of the lens .* \(1, 16, 3, 72, 72\)"
    ):
        predictor.predict([tmp_path / "raw.npy"], tmp_path / "out", quiet=True)
    np.save(tmp_path / "raw.npy", np.full((1, 16, 3, 72, 72), 255.0))
    with pytest.raises(UserError, match="outside 0 to 1"):
        predictor.predict([tmp_path / "raw.npy"], tmp_path / "out", quiet=True)
    with pytest.raises(UserError, match="no file or folder"):
        predictor.predict([tmp_path / "none.png"], tmp_path / "out", quiet=True)


@pytest.mark.parametrize("name", get_system("metalens-metaformer").configs)
def test_every_config_builds(name):
    cfg = load_config(name)
    assert cfg.task == "metalens"
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    simulate = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == "opsin.SimulateMetalens")
    assert model.network.filters == simulate.filters


def test_listed_configs_are_those_on_disk():
    assert sorted(get_task("metalens").configs()) == sorted(get_system("metalens-metaformer").configs)


@pytest.mark.parametrize("candidate", [0, 1, 4])
def test_an_untrained_network_can_begin_as_any_candidate(candidate):
    network = MODELS.build(load_config("acformer_tiny_samples").model.network)
    CandidateInit(candidate)(network)
    candidates = torch.rand(1, 5, 3, 40, 72)
    torch.testing.assert_close(network(candidates), candidates[:, candidate], atol=1e-5, rtol=0)
    network(candidates).square().mean().backward()
    started = [network.output, network.encoder_level1[0].spatial_attn.project_out, network.patch_embed.proj]
    assert all(layer.weight.grad.abs().max() > 0 for layer in started)


def test_candidates_that_are_not_there_are_told():
    network = MODELS.build(load_config("acformer_tiny_samples").model.network)
    with pytest.raises(UserError, match="no candidate 5 of 5"):
        CandidateInit(5)(network)
    with pytest.raises(TypeError, match="for ACFormer"):
        CandidateInit(0)(torch.nn.Linear(2, 2))


def test_a_short_training_beats_the_middle_wiener_filter_and_resumes(photographs, tmp_path):
    short = [
        "train_cfg.val_interval=30",
        "default_hooks.checkpoint.interval=20",
        "param_scheduler.1.end=30",
        "model.network.init_cfg.candidate=2",  # what is to be beaten; its noise is learned within seconds
    ]
    cfg = load_config("acformer_tiny_samples", data=photographs, overrides=[*HERE, *short])
    cfg.train_cfg.max_iters = 20
    train(cfg, tmp_path / "work")
    cfg.train_cfg.max_iters = 30
    assert train(cfg, tmp_path / "work", resume=True).iter == 30
    checkpoint = tmp_path / "work" / "iter_30.pth"
    reached = evaluate(cfg, checkpoint, work_dir=tmp_path / "test")
    assert reached["metalens/psnr_y"] > reached["metalens/wiener_psnr_y"]
    assert reached["metalens/psnr_rgb"] > reached["metalens/wiener_psnr_rgb"] + 0.1
    arguments = ["predict", "acformer_tiny_samples", str(checkpoint), str(photographs / "test" / "0001.png")]
    arguments += [
        "--out",
        str(tmp_path / "out"),
        "--set",
        f"predict_pipeline.1.psf={photographs / 'psf.npy'}",
    ]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)[0]
    assert record["psnr_y"] != record["wiener_psnr_y"]
