"""Compression from folders of pictures to trained models, files, tables and curves."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d
from typer.testing import CliRunner

from opsin.core.cli import app
from opsin.core.data.image import read_image, write_image
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.core.systems import get_system
from opsin.core.task import get_task
from opsin.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from opsin.restoration.compression.compressor import ImageCompressor, load_codec
from opsin.restoration.compression.datasets import (
    CompressionSample,
    LoadRegions,
    PackCompression,
    RegionPictureDataset,
    StretchShortSides,
)
from opsin.restoration.compression.metrics import RateDistortionMetric, bd_rate
from opsin.restoration.compression.ms_ssim import ms_ssim
from opsin.restoration.compression.samples import write_samples
from opsin.restoration.compression.visualization import comparison, plot_curves

pytestmark = pytest.mark.xdist_group("compression")  # the training that they share is done once

CONFIG = "segpic_tiny_samples"
WORKERS = [
    f"{loader}_dataloader.{setting}"
    for loader in ("train", "val", "test")
    for setting in ("num_workers=0", "persistent_workers=False")
]
ITERS = 60


def overrides(iters):
    return [
        *WORKERS,
        f"train_cfg.max_iters={iters}",
        "train_cfg.val_interval=1000",
        f"param_scheduler.main.0.end={ITERS}",
        "default_hooks.checkpoint.interval=30",
        "train_dataloader.batch_size=4",
        "val_dataloader.dataset.indices=2",
        "test_dataloader.dataset.indices=2",
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compression")
    write_samples(folder)
    return folder


@pytest.fixture(scope="module")
def work_dir(data, tmp_path_factory):
    """Trained for half of a short training, and then resumed to its end."""
    folder = tmp_path_factory.mktemp("work")
    train(load_config(CONFIG, data=data, overrides=overrides(ITERS // 2)), folder)
    train(load_config(CONFIG, data=data, overrides=overrides(ITERS)), folder, resume=True)
    return folder


@pytest.fixture(scope="module")
def metrics(work_dir, data, tmp_path_factory):
    cfg = load_config(CONFIG, data=data, overrides=overrides(ITERS))
    return evaluate(cfg, work_dir / f"iter_{ITERS}.pth", work_dir=tmp_path_factory.mktemp("test"))


@pytest.fixture
def environment(work_dir, monkeypatch):
    monkeypatch.setenv("OPSIN_CODEC_MODEL", CONFIG)
    monkeypatch.setenv("OPSIN_CODEC_WEIGHTS", str(work_dir / f"iter_{ITERS}.pth"))


def opsin(*arguments):
    """Runs the command line; what it raises goes up."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


# Training and measuring.


def test_a_short_training_improves_rate_and_distortion(work_dir, metrics, data, tmp_path):
    cfg = load_config(CONFIG, data=data, overrides=overrides(ITERS))
    torch.manual_seed(0)
    untrained = MODELS.build(cfg.model)
    torch.save({"state_dict": untrained.state_dict(), "meta": {}}, tmp_path / "untrained.pth")
    before = evaluate(cfg, tmp_path / "untrained.pth", work_dir=tmp_path)
    assert metrics["compression/loss"] < 0.7 * before["compression/loss"]
    assert metrics["compression/psnr"] > before["compression/psnr"] + 2
    state = torch.load(work_dir / f"iter_{ITERS}.pth", weights_only=True)["state_dict"]
    quantiles = state["network.entropy_bottleneck.quantiles"]
    assert (quantiles[:, 0, 2] - quantiles[:, 0, 0]).mean() != 20  # the second optimizer moved them


def test_the_table_counts_real_bytes(metrics):
    real, estimated = metrics["compression/bpp"], metrics["compression/estimated_bpp"]
    overhead = 64 * 8 / 192**2
    assert 0.98 * estimated <= real <= 1.02 * estimated + overhead
    assert 0 < metrics["compression/ms_ssim"] < 1


def test_prediction_writes_files_pictures_and_records(work_dir, data, tmp_path):
    predictor = get_task("compression").load_predictor()
    cfg = load_config(CONFIG, data=data)
    records = predictor(cfg, work_dir / f"iter_{ITERS}.pth").predict(
        [data / "val2017" / "coffee_01.png"], tmp_path, quiet=True
    )
    file = tmp_path / "coffee_01.opc"
    assert records[0]["bytes"] == file.stat().st_size and records[0]["size"] == [192, 192]
    assert read_image(tmp_path / "coffee_01.png").shape == (192, 192, 3)
    assert read_image(tmp_path / "pictures" / "coffee_01.png").shape == (192 + 24, 3 * 192 + 8, 3)


def test_a_larger_trade_off_buys_quality_with_bits():
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x = (
        torch.nn.functional.interpolate(x[..., ::16, ::16], size=64, mode="bicubic").clamp(0, 1) * 255
    ).byte()
    reached = []
    for trade_off in (1e-4, 0.05):
        torch.manual_seed(0)
        network = {**load_config(CONFIG).model.network, "num_slices": 2, "width": 16}
        model = ImageCompressor(network, trade_off=trade_off)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(40):
            out = model(list(x), mode="loss")
            optimizer.zero_grad()
            (out["loss_rate"] + out["loss_distortion"]).backward()
            optimizer.step()
        reached.append((out["loss_rate"].item(), out["distortion"].item()))
    (low_rate, high_error), (high_rate, low_error) = reached
    assert high_rate > low_rate and low_error < high_error


def test_masks_train_and_mixed_batches_are_refused(data):
    model = ImageCompressor(load_config(CONFIG).model.network, trade_off=0.01)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    regions = torch.zeros(64, 64, dtype=torch.long)
    regions[:, 40:] = 1
    masked, bare = CompressionSample(regions=regions), CompressionSample()
    with_mask = model([image, image], [masked, masked], mode="loss")
    without = model([image, image], [bare, bare], mode="loss")
    assert with_mask["loss_rate"].isfinite() and not torch.equal(
        with_mask["distortion"], without["distortion"]
    )
    with pytest.raises(UserError, match="some pictures of a batch have masks"):
        model([image, image], [masked, bare], mode="loss")


def test_quantiles_have_an_optimizer_of_their_own():
    cfg = load_config(CONFIG)
    model = MODELS.build(cfg.model)
    wrapper = dict(cfg.optim_wrapper)
    build = OPTIM_WRAPPER_CONSTRUCTORS.build
    optimizers = build(dict(type=wrapper.pop("constructor"), optim_wrapper_cfg=wrapper, paramwise_cfg=None))(
        model
    )
    quantiles = {id(p) for n, p in model.named_parameters() if n.endswith("quantiles")}
    main, aux = (
        {id(p) for group in optimizers[name].optimizer.param_groups for p in group["params"]}
        for name in ("main", "aux")
    )
    assert aux == quantiles and not main & quantiles
    assert len(main) + len(aux) == len(list(model.parameters()))
    with pytest.raises(UserError, match="takes main and aux"):
        build(dict(type="opsin.QuantilesApart", optim_wrapper_cfg=dict(main={}), paramwise_cfg=None))


# The command line.


def test_compress_and_decompress_a_picture(environment, tmp_path):
    picture = np.zeros((70, 90, 3), np.uint8)
    picture[20:50, 30:60] = (200, 40, 90)
    write_image(tmp_path / "in.png", picture)
    opsin("compress", tmp_path / "in.png", "--out", tmp_path / "a.opc", "--verify")
    opsin("decompress", tmp_path / "a.opc", "--out", tmp_path / "a.png")
    assert (tmp_path / "a.opc").read_bytes()[:4] == b"\x89OPC"
    assert read_image(tmp_path / "a.png").shape == (70, 90, 3)


def test_folders_go_to_folders(environment, data, tmp_path):
    sources = sorted((data / "val2017").glob("*.png"))[:2]
    rows = json.loads(opsin("compress", *sources, "--out", tmp_path / "files", "--json"))
    assert [row["bytes"] for row in rows] == [
        (tmp_path / "files" / f"{s.stem}.opc").stat().st_size for s in sources
    ]
    opsin("decompress", tmp_path / "files", "--out", tmp_path / "pictures")
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2


def test_mistakes_on_the_command_line_are_told(environment, data, tmp_path):
    picture = data / "val2017" / "coffee_01.png"
    (tmp_path / "bad.opc").write_bytes(b"\x89OPC\x01 nothing")
    (tmp_path / "empty").mkdir()
    for arguments, told in (
        (("compress", picture, "--out", tmp_path / "a.png"), "is no .opc file"),
        (("compress", picture, picture, "--out", tmp_path / "a.opc"), "names one file for 2 inputs"),
        (("compress", picture, picture, "--out", tmp_path / "b"), "two inputs are called coffee_01"),
        (
            ("decompress", tmp_path / "bad.opc", "--out", tmp_path / "a.png"),
            "bad.opc: this OPC file is damaged",
        ),
        (("decompress", tmp_path / "no.opc", "--out", tmp_path / "a.png"), "cannot be read"),
        (("decompress", tmp_path / "empty", "--out", tmp_path / "a"), "no .opc file in"),
    ):
        with pytest.raises(UserError, match=told):
            opsin(*arguments)


def test_a_config_of_another_task_is_no_codec(tmp_path, data):
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="config of a SuperResolver, not of a codec"):
        load_codec("hat_tiny_x2_samples", tmp_path / "x.pth")


def test_curves_are_drawn_and_compared(tmp_path):
    rows = {"a": [(0.1, 28.0), (0.2, 30.0), (0.4, 32.0)], "b": [(0.05, 28.0), (0.1, 30.0), (0.2, 32.0)]}
    given = []
    for name, points in rows.items():
        files = []
        for index, (bpp, psnr) in enumerate(points):
            file = tmp_path / f"{name}{index}.json"
            file.write_text(json.dumps({"compression/bpp": bpp, "compression/psnr": psnr}))
            files.append(str(file))
        given.append(f"{name}={','.join(files)}")
    output = opsin("rd-curves", *given, "--out", tmp_path / "curves.png", "--json")
    assert json.loads(output)["bd_rate"]["b"] == pytest.approx(-50)
    assert Image.open(tmp_path / "curves.png").size[0] > 500
    with pytest.raises(UserError, match="holds no rate"):
        opsin("rd-curves", f"a={tmp_path / 'none.json'}", "--out", tmp_path / "curves.png")


# Data.


def test_samples_are_the_same_for_a_seed_and_have_masks(data, tmp_path):
    write_samples(tmp_path)
    files = sorted(p.relative_to(data) for p in data.rglob("*.png"))
    assert len(files) == 108
    assert all((data / f).read_bytes() == (tmp_path / f).read_bytes() for f in files[::17])
    item = RegionPictureDataset(
        data_root=str(data),
        img_dir="train2017",
        mask_dir="annotations/panoptic_train2017",
        pipeline=[
            dict(type="opsin.LoadImage"),
            dict(type="opsin.LoadRegions"),
            dict(type="opsin.PackCompression"),
        ],
    )[0]
    regions = item["data_samples"].regions
    assert regions.shape == (192, 192) and regions.unique().tolist() == list(range(int(regions.max()) + 1))


def test_a_folder_of_pictures_needs_no_masks(data):
    dataset = RegionPictureDataset(data_root=str(data / "val2017"), pipeline=[])
    assert len(dataset) == 6 and "mask_path" not in dataset[0]


def test_pictures_in_memory_are_read_once(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_image(tmp_path / "one.png", picture)
    pipeline = [dict(type="opsin.LoadImage"), dict(type="opsin.PackCompression")]
    dataset = RegionPictureDataset(data_root=str(tmp_path), pipeline=pipeline, in_memory=True)
    (tmp_path / "one.png").unlink()
    assert np.array_equal(dataset[0]["inputs"].permute(1, 2, 0).numpy(), picture)


def test_the_loss_may_have_a_grid_of_its_own():
    network, x = load_config(CONFIG).model.network, torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    model = ImageCompressor(network, trade_off=0.01, grid=4, train_grid=1).eval()
    same = ImageCompressor(network, trade_off=0.01, grid=1).eval()
    same.load_state_dict(model.state_dict())
    assert torch.equal(model([x], mode="loss")["loss_rate"], same([x], mode="loss")["loss_rate"])
    assert not torch.equal(model([x])["x_hat"], same([x])["x_hat"])


def test_missing_masks_and_folders_are_named(data, tmp_path):
    write_image(tmp_path / "img" / "a.png", np.zeros((4, 4, 3), np.uint8))
    write_image(tmp_path / "img" / "b.png", np.zeros((4, 4, 3), np.uint8))
    write_image(tmp_path / "mask" / "b.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match=r"a\.png and 0 more pictures have no mask"):
        RegionPictureDataset(data_root=str(tmp_path), img_dir="img", mask_dir="mask", pipeline=[])
    with pytest.raises(UserError, match="lacks nothing"):
        RegionPictureDataset(data_root=str(tmp_path), img_dir="nothing", pipeline=[])


def test_regions_are_unique_colours_and_crops_are_numbered_anew(tmp_path):
    mask = np.zeros((4, 6, 3), np.uint8)
    mask[:, 2:], mask[:, 4:] = (0, 0, 9), (7, 0, 0)
    write_image(tmp_path / "mask.png", mask)
    loaded = LoadRegions()(dict(img=np.zeros((4, 6, 3), np.uint8), mask_path=str(tmp_path / "mask.png")))
    assert loaded["gt_seg_map"][0].tolist() == [0, 0, 1, 1, 2, 2]
    loaded |= dict(img=loaded["img"][:, 3:], gt_seg_map=loaded["gt_seg_map"][:, 3:])
    assert PackCompression()(loaded)["data_samples"].regions[0].tolist() == [0, 1, 1]


def test_sixteen_bit_grey_masks_keep_all_regions(tmp_path):
    ids = np.array([[1, 2], [257, 65535]], np.uint16)
    write_image(tmp_path / "mask.png", ids)
    loaded = LoadRegions()(dict(img=np.zeros((2, 2, 3), np.uint8), mask_path=str(tmp_path / "mask.png")))
    assert loaded["gt_seg_map"].tolist() == [[0, 1], [2, 3]]


def test_a_mask_of_another_size_is_named(tmp_path):
    write_image(tmp_path / "mask.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(UserError, match=r"mask\.png is 3x2 pixels, its picture 2x2"):
        LoadRegions()(dict(img=np.zeros((2, 2, 3), np.uint8), mask_path=str(tmp_path / "mask.png")))


def test_only_short_sides_are_stretched():
    results = dict(img=np.zeros((100, 300, 3), np.uint8), gt_seg_map=np.eye(100, 300, dtype=np.int32))
    stretched = StretchShortSides(256)(results)
    assert stretched["img"].shape == (256, 300, 3) and stretched["gt_seg_map"].shape == (256, 300)
    assert set(np.unique(stretched["gt_seg_map"])) == {0, 1}
    assert StretchShortSides(64)(results)["img"].shape == (100, 300, 3)


# Measures.


def ms_ssim_by_definition(x, y):
    """MS-SSIM of one channel (H, W) in NumPy, its window a square that is convolved at once."""
    row = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(row, row) / row.sum() ** 2
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            x, y = ((a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4 for a in (x, y))
        mx, my, xx, yy, xy = (convolve2d(a, window, "valid") for a in (x, y, x * x, y * y, x * y))
        contrast = (2 * (xy - mx * my) + 0.03**2) / (xx - mx**2 + yy - my**2 + 0.03**2)
        luminance = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        product *= np.mean(contrast * luminance if scale == 4 else contrast) ** weight
    return product


def test_ms_ssim_follows_its_definition_and_trains():
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.avg_pool2d(torch.rand(1, 2, 192, 208, generator=generator), 5, 1, 2)
    noisy = (image + 0.05 * torch.randn(image.shape, generator=generator)).clamp(0, 1).requires_grad_()
    own = ms_ssim(noisy, image)
    pairs = zip(noisy[0].detach().double().numpy(), image[0].double().numpy(), strict=True)
    assert own.item() == pytest.approx(np.mean([ms_ssim_by_definition(*pair) for pair in pairs]), abs=1e-5)
    own.backward()
    assert noisy.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="161"):
        ms_ssim(torch.rand(1, 3, 160, 200), torch.rand(1, 3, 160, 200))


def test_metric_counts_own_pixels_and_unrounded_pictures():
    metric = RateDistortionMetric(with_ms_ssim=False, trade_off=dict(mse=0.01))
    gt_img = torch.full((3, 10, 20), 100, dtype=torch.uint8)
    sample = dict(gt_img=gt_img, reconstruction=gt_img / 255 + 0.1, bits=400, estimated_bits=390.0)
    metric.process(None, [sample])
    row = metric.compute_metrics(metric.results)
    assert row["bpp"] == 2 and row["estimated_bpp"] == 1.95
    assert row["psnr"] == pytest.approx(20, abs=1e-4)
    assert row["loss"] == pytest.approx(2 + 0.01 * 255**2 * 0.01, rel=1e-4)
    with pytest.raises(UserError, match="too small for MS-SSIM"):
        RateDistortionMetric().process(None, [sample])


@pytest.mark.parametrize("fit", ["pchip", "cubic"])
def test_bd_rate_of_a_scaled_curve_is_its_factor(fit):
    anchor = [(0.1, 28.0), (0.2, 30.5), (0.4, 33.0), (0.9, 36.0)]
    halved = [(rate / 2, quality) for rate, quality in anchor]
    assert bd_rate(anchor, halved, fit=fit) == pytest.approx(-50)
    assert bd_rate(halved, anchor, fit=fit) == pytest.approx(100)
    assert bd_rate(anchor, anchor, fit=fit) == pytest.approx(0)


def test_bd_rate_by_hand_over_the_common_range():
    """Two straight lines in log rate: log r = q/10 and log r = q/5 - 3; q from 30 to 32 in common."""
    anchor = [(np.exp(q / 10), q) for q in (28.0, 30.0, 32.0)]
    test = [(np.exp(q / 5 - 3), q) for q in (30.0, 32.0, 34.0)]
    expected = 100 * (np.exp(np.mean([30 / 5 - 3 - 3, 32 / 5 - 3 - 3.2])) - 1)
    assert bd_rate(anchor, test) == pytest.approx(expected)


def test_curves_that_cannot_be_compared_are_named():
    anchor = [(0.1, 28.0), (0.2, 30.0)]
    with pytest.raises(UserError, match="no quality in common"):
        bd_rate(anchor, [(0.1, 31.0), (0.2, 33.0)])
    with pytest.raises(UserError, match="test curve does not rise"):
        bd_rate(anchor, [(0.2, 28.0), (0.1, 30.0)])
    with pytest.raises(UserError, match="anchor curve has 2 points; cubic needs 4"):
        bd_rate(anchor, anchor, fit="cubic")


def test_pictures_show_input_output_and_error(tmp_path):
    picture = np.full((20, 30, 3), 100, np.uint8)
    drawn = comparison(picture, picture + 5, "5 bytes")
    assert drawn.shape == (44, 98, 3) and (drawn[:20, 68:] == 20).all()
    plot_curves({"one": [(0.1, 30.0)]}, tmp_path / "curve.svg", quality="PSNR")
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")


# Configs.


@pytest.mark.parametrize("name", get_system("segpic").configs)
def test_every_config_builds(name):
    cfg = load_config(name)
    assert cfg.task == "compression"
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    if "val_evaluator" in cfg:
        assert list(cfg.val_evaluator.trade_off.values()) == [model.trade_off]


def test_listed_configs_are_those_on_disk():
    assert sorted(get_task("compression").configs()) == sorted(get_system("segpic").configs)
