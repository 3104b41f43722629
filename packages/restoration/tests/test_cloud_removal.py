import json
import sys

import cv2
import numpy as np
import pytest
import tifffile
import torch
from mmengine.optim import OptimWrapper
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from typer.testing import CliRunner

from opsin.core.cli import app
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.registry import MODELS
from opsin.restoration.adversarial import OptimizerPerModule
from opsin.restoration.cloud_removal.datasets import CloudRemovalSample, Sen2MTCNew, Sen2MTCOld
from opsin.restoration.cloud_removal.metrics import CloudRemovalMetric
from opsin.restoration.cloud_removal.models import AdversarialCloudRemover, CloudRemover
from opsin.restoration.cloud_removal.predictor import CloudRemovalPredictor
from opsin.restoration.cloud_removal.raster import read_bands, write_bands
from opsin.restoration.cloud_removal.samples import write_samples
from opsin.restoration.cloud_removal.visualization import display_rgb, draw_place, heat_map

PIPELINE = [dict(type="opsin.LoadPlace"), dict(type="opsin.PackPlace")]
TINY = dict(type="opsin.PMAA", hidden_channels=4)
HERE = [
    f"{loader}_dataloader.{setting}"
    for loader in ("train", "val", "test")
    for setting in ("num_workers=0", "persistent_workers=False")
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The sample data set."""
    folder = tmp_path_factory.mktemp("cloud_removal")
    write_samples(folder)
    return folder


@pytest.fixture(scope="module")
def old_places(tmp_path_factory):
    """Twenty places in the layout of Sen2_MTC_Old."""
    folder, rng = tmp_path_factory.mktemp("old"), np.random.default_rng(0)
    for part in ("cloudy", "clear"):
        (folder / part).mkdir()
    for index in range(20):
        for name in [f"cloudy/{index:02d}_{t}{ir}" for t in range(3) for ir in ("", "_ir")] + [
            f"clear/{index:02d}"
        ]:
            cv2.imwrite(str(folder / f"{name}.jpg"), rng.integers(0, 256, (40, 48, 3), np.uint8))
    return folder


def batch(size=32, count=2, bands=4):
    """Places of noise and their truths."""
    rng = np.random.default_rng(0)
    dates = [torch.from_numpy(rng.integers(0, 3000, (3, 4, size, size), np.uint16)) for _ in range(count)]
    samples = [CloudRemovalSample(gt_img=place[0, :bands].clone()) for place in dates]
    return {"inputs": dates, "data_samples": samples}


def test_samples_have_the_published_layout_and_no_tile_twice(places):
    splits = {name: (places / f"{name}.txt").read_text().split() for name in ("train", "val", "test")}
    tiles = [tile for split in splits.values() for tile in split]
    assert len(tiles) == len(set(tiles)) == 11
    data = Sen2MTCNew(data_root=str(places), ann_file="train.txt", pipeline=PIPELINE)
    item = data[0]
    assert item["inputs"].shape == (3, 4, 40, 40) and item["inputs"].dtype == torch.uint16
    truth, dates = item["data_samples"].gt_img.float(), item["inputs"].float()
    changed = ((dates - truth).abs() > 300).float().mean((1, 2, 3))
    assert (changed > 0.15).all() and (changed < 0.9).all()
    everything = Sen2MTCNew(data_root=str(places), pipeline=PIPELINE)
    assert len(everything) == 66 and len(data) == 48


def test_a_missing_date_and_a_missing_truth_are_named(places, tmp_path):
    tile = tmp_path / "Sen2_MTC" / "T1"
    for name in ("cloud/a_0", "cloud/a_1", "cloud/a_2", "cloudless/a"):
        write_bands(tile / f"{name}.tif", np.zeros((40, 40, 4), np.uint16), like=tile / "none.png")
    (tmp_path / "train.txt").write_text("T1\n")
    settings = dict(data_root=str(tmp_path), ann_file="train.txt", pipeline=PIPELINE)
    assert len(Sen2MTCNew(**settings)) == 1
    (tile / "cloud" / "a_1.tif").rename(tile / "cloud" / "b_0.tif")
    with pytest.raises(UserError, match="lacks a_1"):
        Sen2MTCNew(**settings)
    (tile / "cloud" / "b_0.tif").rename(tile / "cloud" / "a_1.tif")
    (tile / "cloudless" / "a.tif").rename(tile / "cloudless" / "b.tif")
    with pytest.raises(UserError, match="cloudless lacks a"):
        Sen2MTCNew(**settings)
    (tmp_path / "train.txt").write_text("T9\n")
    with pytest.raises(UserError, match="T9"):
        Sen2MTCNew(**settings)
    with pytest.raises(UserError, match=r"lacks val\.txt"):
        Sen2MTCNew(**{**settings, "ann_file": "val.txt"})


def test_the_old_set_is_split_with_the_authors_seed(old_places):
    parts = {
        s: Sen2MTCOld(split=s, data_root=str(old_places), pipeline=PIPELINE) for s in ("train", "val", "test")
    }
    assert [len(part) for part in parts.values()] == [16, 2, 2]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2022)).tolist()
    stems = [part.get_data_info(0)["gt_path"][-6:-4] for part in parts.values()]
    assert stems == [f"{order[first]:02d}" for first in (0, 16, 18)]
    item = parts["train"][0]
    assert item["inputs"].shape == (3, 4, 40, 48) and item["inputs"].dtype == torch.uint8
    assert item["data_samples"].gt_img.shape == (3, 40, 48)
    with pytest.raises(UserError, match="unknown split 'all'"):
        Sen2MTCOld(split="all", data_root=str(old_places))


def test_published_shares_give_the_published_sizes():
    parts = torch.utils.data.random_split(range(3130), (0.8, 0.1, 0.1))
    assert [len(part) for part in parts] == [2504, 313, 313]


def test_training_transforms_move_all_pictures_of_a_place_alike(old_places):
    np.random.seed(3)
    for path in (old_places / "cloudy").glob("*_0.jpg"):
        truth = old_places / "clear" / f"{path.stem[:-2]}.jpg"
        truth.write_bytes(path.read_bytes())
    pipeline = load_config("pmaa_old").train_pipeline
    item = Sen2MTCOld(split="train", data_root=str(old_places), pipeline=pipeline)[1]
    assert item["inputs"].shape == (3, 4, 256, 256)
    assert torch.equal(item["inputs"][0, :3], item["data_samples"].gt_img)
    assert not torch.equal(item["inputs"][1, :3], item["data_samples"].gt_img)


@pytest.mark.parametrize(
    ("axes", "settings"),
    [
        ((0, 1, 2), dict(planarconfig="contig")),
        ((2, 0, 1), dict(planarconfig="separate")),
        ((2, 0, 1), dict()),  # a page a band
        ((0, 1, 2), dict()),  # a page a row, as tifffile writes arrays that it is told nothing of
    ],
    ids=["pixels", "planes", "band-pages", "row-pages"],
)
def test_bands_are_read_however_they_lie_in_the_file(tmp_path, axes, settings):
    bands = np.arange(5 * 7 * 4, dtype=np.uint16).reshape(5, 7, 4)
    tifffile.imwrite(tmp_path / "a.tif", bands.transpose(axes), photometric="minisblack", **settings)
    assert np.array_equal(read_bands(tmp_path / "a.tif"), bands)


def test_bad_rasters_are_named(tmp_path):
    path = tmp_path / "a.tif"
    with pytest.raises(UserError, match=r"a\.tif does not exist"):
        read_bands(path)
    path.write_bytes(b"II*\0 no tiff")
    with pytest.raises(UserError, match=r"a\.tif is truncated or damaged"):
        read_bands(path)
    tifffile.imwrite(path, np.zeros((4, 4, 4), np.float32))
    with pytest.raises(UserError, match="uint8 or uint16 bands are needed"):
        read_bands(path)


def test_the_published_stretch_of_reflectances():
    bands = np.zeros((1, 4, 4), np.uint16)
    bands[0, :, 0] = (100, 1100, 2100, 9000)
    bands[0, :, 1:3] = 600
    # cut at 2000, minus 100, over 1900
    assert display_rgb(bands)[0, :, 0].tolist() == [0, int(255 * 1000 / 1900), 255, 255]
    assert display_rgb(bands)[0, 0, 1] == int(255 * 500 / 1900)
    assert (display_rgb(np.full((2, 2, 4), 5000, np.uint16)) == 255).all()
    eight = np.random.default_rng(0).integers(0, 256, (3, 3, 4), np.uint8)
    assert np.array_equal(display_rgb(eight), eight[..., :3])


def test_metric_equals_scikit_image_on_stretched_pictures():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3000, (4, 24, 30)).astype(np.uint16)
    made = (truth + rng.integers(0, 300, truth.shape)).astype(np.uint16)
    metric = CloudRemovalMetric()
    metric.process(None, [{"pred_img": torch.from_numpy(made), "gt_img": torch.from_numpy(truth)}])
    found = metric.compute_metrics(metric.results)
    a, b = (display_rgb(picture.transpose(1, 2, 0)) for picture in (truth, made))
    settings = dict(gaussian_weights=True, use_sample_covariance=False, sigma=1.5, channel_axis=-1)
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(a, b))
    assert found["ssim"] == pytest.approx(structural_similarity(a, b, **settings))
    assert found["mae"] == pytest.approx((made.astype(float) - truth).mean())
    with pytest.raises(UserError, match="4 bands, and the network gives 3"):
        metric.process(None, [{"pred_img": torch.from_numpy(made[:3]), "gt_img": torch.from_numpy(truth)}])


def test_losses_are_those_of_the_paper():
    model = CloudRemover(TINY, teacher=dict(type="opsin.CloudTeacher"), aux_weight=50.0).eval()
    data = batch()
    with torch.no_grad():
        losses = model(**data, mode="loss")
        dates = torch.stack(data["inputs"]).float() / 5000 - 1
        truth = torch.stack([s.gt_img for s in data["data_samples"]]).float() / 5000 - 1
        image, masks, aux = model.network(dates)
        teacher = [model.teacher(dates[:, t]).mask for t in range(3)]
        expected = {
            "loss_pixel": 100 * (image - truth).abs().mean(),
            "loss_attention": sum((masks[:, t] - teacher[t]).square().mean() for t in range(3)),
            "loss_aux": 50 * sum((aux[:, t] - truth).abs().mean() for t in range(3)),
        }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="a loss needs cloud-free pictures"):
        model(data["inputs"], mode="loss")


def test_adversarial_training_lowers_l1_and_keeps_the_teacher():
    torch.manual_seed(0)
    model = AdversarialCloudRemover(
        discriminator=dict(type="opsin.CloudFreeDiscriminator", input_nc=16, ndf=4),
        network=TINY,
        teacher=dict(type="opsin.CloudTeacher"),
        aux_weight=50.0,
    ).train()
    adamw = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=5e-3, betas=(0.5, 0.999)))
    optimizers = OptimizerPerModule({"network": adamw, "discriminator": adamw})(model)
    before = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    critic = next(model.discriminator.parameters()).clone()
    data = batch(size=64, count=1)
    logs = [model.train_step(data, optimizers) for _ in range(12)]
    for name in ("loss_pixel", "loss_aux"):
        assert logs[-1][name] < 0.8 * logs[0][name]
    assert all(torch.isfinite(log[name]) for log in logs for name in ("loss_real", "loss_fake", "loss_gan"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.teacher.state_dict().items())
    assert not torch.equal(critic, next(model.discriminator.parameters()))
    with pytest.raises(UserError, match="an optimizer for network and one for discriminator"):
        model.train_step(data, OptimWrapper(torch.optim.SGD(model.network.parameters(), 0.1)))


def test_authors_files_load_into_the_whole_model():
    model = AdversarialCloudRemover(
        discriminator=dict(type="opsin.CloudFreeDiscriminator", ndf=4),
        network=TINY,
        teacher=dict(type="opsin.DifferenceTeacher"),
    )
    published = {name: torch.randn_like(t) for name, t in model.network.state_dict().items()}
    model.load_state_dict(published)
    assert all(torch.equal(tensor, published[name]) for name, tensor in model.network.state_dict().items())


def test_the_truth_makes_masks_where_a_date_differs():
    teacher = MODELS.build(dict(type="opsin.DifferenceTeacher", full=0.5))
    clear = torch.zeros(1, 3, 2, 2)
    dates = torch.zeros(1, 3, 4, 2, 2)
    dates[0, 1, :, 0, 0], dates[0, 1, :, 0, 1] = 0.25, 2.0
    masks = teacher.masks(dates, clear)
    assert masks[0, 1, 0].tolist() == [[0.5, 1.0], [0.0, 0.0]] and not masks[0, 0].any()


def test_whole_and_tiled_predictions_have_the_places_type_and_size():
    data = batch(size=40, count=1)
    for tile in (None, dict(type="opsin.BlendedTiling", size=32, overlap=8)):
        sample = CloudRemover(TINY, tile=tile).eval()(data["inputs"], mode="predict")[0]
        assert sample.pred_img.shape == (4, 40, 40) and sample.pred_img.dtype == torch.uint16
        assert int(sample.pred_img.int().max()) <= 10_000
        assert sample.cloud_masks.shape == (3, 40, 40) and sample.cloud_masks.dtype == torch.float32


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return CloudRemovalPredictor(load_config("pmaa_tiny_samples"), None)


def test_a_folder_of_places_becomes_bands_colours_masks_and_pictures(predictor, places, tmp_path):
    tile = (places / "test.txt").read_text().split()[0]
    records = predictor.predict([places / "Sen2_MTC" / tile / "cloud"], tmp_path, quiet=True)
    assert len(records) == 6 and len(records[0]["cloudiness"]) == 3 and len(records[0]["dates"]) == 3
    name = f"{tile}_000"
    bands = tifffile.imread(tmp_path / f"{name}.tif")
    assert bands.shape == (40, 40, 4) and bands.dtype == np.uint16
    assert cv2.imread(str(tmp_path / "rgb" / f"{name}.png")).shape == (40, 40, 3)
    assert [cv2.imread(str(tmp_path / "masks" / f"{name}_{t}.png")).shape for t in range(3)] == [
        (40, 40, 3)
    ] * 3
    assert cv2.imread(str(tmp_path / "pictures" / f"{name}.png")).shape == (2 * 40 + 4, 4 * 44 - 4, 3)
    assert json.loads((tmp_path / "predictions.json").read_text())[0]["size"] == [40, 40]


def test_three_files_of_any_names_are_one_place(predictor, places, tmp_path):
    source = sorted((places / "Sen2_MTC").rglob("*_0.tif"))[0]
    files = [tmp_path / f"{name}.tif" for name in ("may", "june", "july")]
    for date, file in enumerate(files):
        file.write_bytes(source.with_name(source.name.replace("_0.", f"_{date}.")).read_bytes())
    record = predictor.predict(files, tmp_path / "out", quiet=True)[0]
    assert record["dates"] == [str(file) for file in files] and (tmp_path / "out" / "may.tif").is_file()
    with pytest.raises(UserError, match="2 files are no place"):
        predictor.predict(files[:2], tmp_path / "out", quiet=True)
    with pytest.raises(UserError, match="no place in"):
        predictor.predict([places / "Sen2_MTC" / "T00" / "cloudless"], tmp_path / "out", quiet=True)
    tifffile.imwrite(files[2], np.zeros((40, 48, 4), np.uint16), photometric="minisblack")
    with pytest.raises(UserError, match=r"july\.tif is 48x40 with 4 bands .*may\.tif is 40x40"):
        predictor.predict(files, tmp_path / "out", quiet=True)


def geotiffs(folder):
    """Three dates of a place in UTM zone 32, 10 m a pixel."""
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    place = dict(crs="EPSG:32632", transform=from_origin(500_000, 5_400_000, 10, 10))
    for date in range(3):
        shape = dict(driver="GTiff", height=40, width=48, count=4, dtype="uint16")
        with rasterio.open(folder / f"a_{date}.tif", "w", **shape, **place) as file:
            file.write(rng.integers(0, 3000, (4, 40, 48)).astype(np.uint16))
    return place


def test_the_georeference_is_kept(predictor, tmp_path):
    import rasterio

    place = geotiffs(tmp_path)
    predictor.predict([tmp_path / f"a_{date}.tif" for date in range(3)], tmp_path / "out", quiet=True)
    with rasterio.open(tmp_path / "out" / "a.tif") as result:
        assert result.crs.to_string() == place["crs"] and result.transform == place["transform"]
        assert (result.count, result.height, result.width, result.dtypes[0]) == (4, 40, 48, "uint16")


def test_without_rasterio_the_bands_are_written_all_the_same(predictor, tmp_path, monkeypatch):
    geotiffs(tmp_path)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    predictor.predict([tmp_path / f"a_{date}.tif" for date in range(3)], tmp_path / "out", quiet=True)
    assert read_bands(tmp_path / "out" / "a.tif").shape == (40, 48, 4)


def test_a_place_as_a_picture():
    heat = heat_map(np.array([[0.0, 1.0]], np.float32))
    assert heat[0, 0].argmax() == 2 and heat[0, 1].argmax() == 0  # blue to red
    dates, masks = [np.full((8, 10, 4), 7, np.uint8)] * 3, np.zeros((3, 8, 10), np.float32)
    shown = draw_place(dates, masks, np.full((8, 10, 3), 9, np.uint8))
    assert shown.shape == (20, 4 * 14 - 4, 3)
    assert (shown[:8, :10] == 7).all() and (shown[:8, 42:] == 9).all() and (shown[:8, 10:14] == 255).all()


@pytest.mark.parametrize("name", get_system("pmaa").configs)
def test_every_config_builds(name):
    cfg = load_config(name)
    assert cfg.task == "cloud_removal"
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.network.parameters()) > 100_000


def test_listed_configs_are_those_on_disk():
    assert sorted(get_task("cloud_removal").configs()) == sorted(get_system("pmaa").configs)


def median_composite(root):
    """What people do without a network: of each pixel's three values the middle one; the metric's means."""
    metric = CloudRemovalMetric()
    for item in Sen2MTCNew(data_root=str(root), ann_file="test.txt", pipeline=PIPELINE):
        sample = item["data_samples"]
        sample.pred_img = torch.from_numpy(np.sort(item["inputs"].numpy(), axis=0)[1])
        metric.process(None, [sample.to_dict()])
    return metric.compute_metrics(metric.results)


def test_a_short_training_beats_the_median_composite_and_resumes(places, tmp_path):
    short = ["train_cfg.val_interval=5", "default_hooks.checkpoint.interval=4", "param_scheduler.0.T_max=5"]
    cfg = load_config("pmaa_tiny_samples", data=places, overrides=[*HERE, *short])
    cfg.train_cfg.max_epochs = 4
    train(cfg, tmp_path / "work")
    cfg.train_cfg.max_epochs = 5
    runner = train(cfg, tmp_path / "work", resume=True)
    assert runner.epoch == 5 and runner.iter == 60
    reached = evaluate(cfg, tmp_path / "work" / "epoch_5.pth", work_dir=tmp_path / "test")
    baseline = median_composite(places)
    assert reached["cloud/mae"] < 0.7 * baseline["mae"] and reached["cloud/psnr"] > baseline["psnr"]
    cloudy = sorted((places / "Sen2_MTC").rglob("cloud"))[0]
    arguments = ["predict", "pmaa_tiny_samples", str(tmp_path / "work" / "epoch_5.pth"), str(cloudy)]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out" / "pictures").glob("*.png"))) == 6
