"""Data, losses and metrics of dense prediction, whatever model is behind them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from opsin.core.data import read_image, write_image
from opsin.core.errors import UserError
from opsin.registry import DATASETS, MODELS, TRANSFORMS
from opsin.segmentation.dense_prediction.datasets.nyuv2 import encode_normals, read_depth, read_normals
from opsin.segmentation.dense_prediction.metrics import DepthQuality, NormalQuality, angles, depth_errors
from opsin.segmentation.dense_prediction.outputs import average_loss
from opsin.segmentation.dense_prediction.samples import CLASSES, FOCAL, HEIGHT, HORIZON, WIDTH, write
from opsin.segmentation.dense_prediction.visualization import coloured, draw_depth

PIPELINE = [
    {"type": "opsin.LoadImage"},
    {"type": "opsin.LoadDepth"},
    {"type": "opsin.LoadNormals"},
    {"type": "opsin.LoadMask"},
]
PREFIX = {"rgb": "train/rgb", "depth": "train/depth", "normals": "train/normals", "labels": "train/labels"}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rooms")
    write(folder, train=6, val=2)
    return folder


@pytest.fixture
def broken(rooms: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    root = tmp_path / "data"
    shutil.copytree(rooms, root)
    return root


def read(root: Path, **changes: Any) -> Any:
    settings = {"data_root": str(root), "data_prefix": dict(PREFIX), "pipeline": PIPELINE, **changes}
    return DATASETS.build({"type": "opsin.NYUv2", **settings})


def test_depth_and_normals_follow_from_the_scene(rooms: Path) -> None:
    """The slope of depth over a surface gives its normal back, in camera geometry."""
    checked = 0
    for sample in read(rooms):
        depth, normals, labels = sample["gt_depth"], sample["gt_normals"], sample["gt_seg_map"]
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        x, y = (columns + 0.5 - WIDTH / 2) / FOCAL, -(rows + 0.5 - HORIZON * HEIGHT) / FOCAL
        points = np.stack([x, y, np.ones_like(x)], -1) * depth[..., None]
        down, right = points[2:, 1:-1] - points[:-2, 1:-1], points[1:-1, 2:] - points[1:-1, :-2]
        found = np.cross(down, right)
        found /= np.linalg.norm(found, axis=-1, keepdims=True).clip(1e-9)
        found *= -np.sign((found * points[1:-1, 1:-1]).sum(-1, keepdims=True))  # towards the camera
        inner = labels[1:-1, 1:-1]
        flat = inner == CLASSES.index("floor")
        for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):  # neighbours on the floor too, all with depth
            flat &= labels[dy : dy + HEIGHT - 2, dx : dx + WIDTH - 2] == CLASSES.index("floor")
            flat &= depth[dy : dy + HEIGHT - 2, dx : dx + WIDTH - 2] > 0
        cosine = (found * normals[1:-1, 1:-1] * [1, 1, -1]).sum(-1)[flat]
        assert (cosine > 0.99).mean() > 0.95  # millimetres and colours are rounded
        checked += int(flat.sum())
    assert checked > 1000


def test_samples_are_the_same_for_the_same_seed_and_the_splits_share_no_picture(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, seed=3, train=1, val=1)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    first, second = (read_image(tmp_path / "a" / split / "rgb/0000.jpg") for split in ("train", "val"))
    assert not np.array_equal(first, second)


def test_sample_has_the_kinds_that_the_folders_give(rooms: Path) -> None:
    sample = read(rooms)[0]
    assert sample["gt_depth"].dtype == np.float32
    assert 0.5 < sample["gt_depth"].max() < 8
    lengths = np.linalg.norm(sample["gt_normals"], axis=-1)
    assert np.allclose(lengths[lengths > 0], 1, atol=1e-5)
    assert set(np.unique(sample["gt_seg_map"])) <= {*range(len(CLASSES)), 255}
    only_depth = read(rooms, data_prefix={k: PREFIX[k] for k in ("rgb", "depth")}, pipeline=PIPELINE[:2])
    assert "gt_normals" not in only_depth[0]
    packed = read(rooms, pipeline=[*PIPELINE, {"type": "opsin.PackDense"}])[0]
    assert packed["inputs"].shape == (3, HEIGHT, WIDTH)
    assert packed["data_samples"].gt_depth_map.shape == (HEIGHT, WIDTH)
    assert packed["data_samples"].gt_normals.data.shape == (3, HEIGHT, WIDTH)


def test_list_of_pictures_and_depths_is_read_in_its_order(rooms: Path, tmp_path: Path) -> None:
    lines = "".join(f"/train/rgb/{n}.jpg train/depth/{n}.png 518.8\n" for n in ("0003", "0001"))
    (tmp_path / "list.txt").write_text(lines + "\n")
    settings = {"data_prefix": {}, "pipeline": PIPELINE[:2], "ann_file": str(tmp_path / "list.txt")}
    dataset = read(rooms, **settings)
    assert [Path(sample["img_path"]).stem for sample in dataset] == ["0003", "0001"]
    (tmp_path / "list.txt").write_text("only_one_column.jpg\n")
    with pytest.raises(UserError, match=r"list.txt line 1 is 'only_one_column.jpg'"):
        read(rooms, **settings).full_init()


def test_eight_bit_depth_is_refused(broken: Path) -> None:
    path = broken / "train/depth/0000.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 200, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"0000.png has 8 bits \(L\) where 16 are expected"):
        read(broken)[0]


def test_damaged_and_missing_files_are_named(broken: Path) -> None:
    depth = broken / "train/depth/0000.png"
    depth.write_bytes(depth.read_bytes()[:200])
    with pytest.raises(UserError, match=r"0000.png is truncated or damaged"):
        read(broken)[0]
    (broken / "train/normals/0001.png").unlink()
    with pytest.raises(UserError, match=r"0001.jpg has no normals .*0001.png or .npy"):
        read(broken).full_init()
    assert len(read(broken, on_error="skip", test_mode=True)) == 4
    shutil.rmtree(broken / "train/labels")
    with pytest.raises(UserError, match=r"lacks train/labels"):
        read(broken).full_init()


@pytest.mark.parametrize(("kind", "what"), [("depth", "depth map"), ("normals", "normals")])
def test_truth_of_another_size_is_named(broken: Path, kind: str, what: str) -> None:
    pixels = np.ones((4, 5), np.uint16) if kind == "depth" else np.ones((4, 5, 3), np.uint8)
    write_image(broken / f"train/{kind}/0000.png", pixels)
    with pytest.raises(UserError, match=rf"{what} .*0000.png and image .* differ in size: 5x4 and 128x96"):
        read(broken)[0]


def test_label_outside_the_classes_is_named(broken: Path) -> None:
    write_image(broken / "train/labels/0000.png", np.full((HEIGHT, WIDTH), 9, np.uint8))
    with pytest.raises(UserError, match=r"0000.png holds label 9, outside the 6 classes"):
        read(broken)[0]


def test_normals_in_arrays_are_read_and_wrong_shapes_named(tmp_path: Path) -> None:
    vectors = np.zeros((2, 3, 3), np.float32)
    vectors[0, 0] = [0, 3, 4]
    np.save(tmp_path / "n.npy", vectors)
    assert read_normals(tmp_path / "n.npy")[0, 0].tolist() == pytest.approx([0, 0.6, 0.8])
    assert not read_normals(tmp_path / "n.npy")[1].any()
    np.save(tmp_path / "n.npy", vectors[..., 0])
    with pytest.raises(UserError, match=r"n.npy have shape \(2, 3\), expected"):
        read_normals(tmp_path / "n.npy")


def test_encoded_normals_are_read_back_and_the_unknown_stays_unknown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(8, 9, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[0] = 0
    write_image(tmp_path / "n.png", encode_normals(vectors))
    back = read_normals(tmp_path / "n.png")
    assert np.abs(back[1:] - vectors[1:]).max() < 0.01
    assert not back[0].any()


def sample_arrays() -> dict[str, Any]:
    depth = np.arange(1, 25, dtype=np.float32).reshape(4, 6)
    normals = np.zeros((4, 6, 3), np.float32)
    normals[..., 0], normals[..., 2] = 0.6, 0.8
    image = np.repeat(depth[..., None], 3, -1).astype(np.uint8)
    return {
        "img": image,
        "gt_depth": depth,
        "gt_normals": normals,
        "gt_seg_map": depth.astype(np.uint8),
        "ori_shape": (4, 6),
    }


def test_enlarging_brings_depth_nearer_and_leaves_normals(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = TRANSFORMS.build({"type": "opsin.RandomScaleDense", "low": 2.0, "high": 2.0})
    out = scale(sample_arrays())
    assert out["img"].shape == (8, 12, 3)
    assert out["img_shape"] == (8, 12)
    assert out["gt_depth"].max() == 12
    assert np.allclose(out["gt_normals"], [0.6, 0, 0.8])


def test_mirror_turns_normals_round() -> None:
    flip = TRANSFORMS.build({"type": "opsin.RandomFlipDense", "p": 1.0})
    out = flip(sample_arrays())
    assert out["gt_depth"][0].tolist() == [6, 5, 4, 3, 2, 1]
    assert np.allclose(out["gt_normals"], [-0.6, 0, 0.8])


def test_crop_cuts_all_alike_and_pads_with_the_unknown() -> None:
    crop = TRANSFORMS.build({"type": "opsin.RandomCropDense", "size": (3, 8)})
    np.random.seed(0)
    out = crop(sample_arrays())
    assert out["img"].shape == (3, 8, 3)
    assert (out["gt_depth"][:, :6] == out["gt_seg_map"][:, :6]).all()
    assert (out["gt_depth"][:, 6:] == 0).all()
    assert (out["gt_seg_map"][:, 6:] == 255).all()
    assert not out["gt_normals"][:, 6:].any()


def test_depth_errors_by_hand() -> None:
    errors = depth_errors(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert errors["rmse"] == 1.0
    assert errors["abs_rel"] == 0.5
    assert errors["log10"] == pytest.approx((math.log10(2) + math.log10(1.5)) / 2)
    assert [errors[f"d{i}"] for i in (1, 2, 3)] == [0.0, 0.5, 0.5]  # ratios 2 and 1.5; limits 1.25 1.56 1.95


def depth_sample(predicted: Any, truth: Any) -> dict[str, Any]:
    maps = {"pred_depth_map": predicted, "gt_depth_map": truth}
    return {"img_path": "a.png"} | {k: {"data": torch.as_tensor(v)[None].float()} for k, v in maps.items()}


def test_depth_without_truth_or_beyond_the_range_does_not_count() -> None:
    metric = DepthQuality(max_depth=10)
    metric.process(None, [depth_sample([[2.0, 7.0, 30.0]], [[2.0, 0.0, 50.0]])])
    metric.process(None, [depth_sample([[1.0]], [[0.0]])])
    metric.process(None, [depth_sample([[20.0, 0.0]], [[10.0, 1e-3]])])  # clipped to the range
    assert metric.compute_metrics(metric.results)["rmse"] == 0.0
    with pytest.raises(UserError, match="no picture has depth"):
        metric.compute_metrics([None])


def test_eigens_crop_is_that_of_nyuv2() -> None:
    metric = DepthQuality(eigen_crop=True)
    truth = np.ones((480, 640), np.float32)
    wrong = np.full_like(truth, 5.0)
    wrong[45:471, 41:601] = 1.0
    metric.process(None, [depth_sample(wrong, truth)])
    assert metric.compute_metrics(metric.results)["rmse"] == 0.0
    with pytest.raises(UserError, match=r"eigen_crop is for pictures of 640x480, a.png has 3x2"):
        metric.process(None, [depth_sample(np.ones((2, 3)), np.ones((2, 3)))])
    with pytest.raises(UserError, match="differ in size"):
        metric.process(None, [depth_sample(np.ones((2, 3)), np.ones((2, 4)))])


def turned(degrees: list[float]) -> np.ndarray:
    radians = np.radians(degrees)
    return np.stack([np.sin(radians), np.zeros_like(radians), np.cos(radians)])[:, None]


def test_angles_by_hand_and_their_summary() -> None:
    truth = turned([0.0] * 6)
    truth[:, 0, 5] = 0  # unknown
    predicted = turned([0.0, 10.0, 20.0, 29.0, 90.0, 45.0])
    assert angles(predicted, truth).tolist() == pytest.approx([0, 10, 20, 29, 90])
    metric = NormalQuality()
    sample = {
        "pred_normals": {"data": torch.from_numpy(predicted)},
        "gt_normals": {"data": torch.from_numpy(truth)},
    }
    metric.process(None, [sample])
    values = metric.compute_metrics(metric.results)
    assert values["mean"] == pytest.approx(149 / 5)
    assert values["median"] == pytest.approx(20, abs=0.011)
    assert values["rmse"] == pytest.approx(math.sqrt((100 + 400 + 841 + 8100) / 5))
    assert [values[name] for name in ("11.25", "22.5", "30")] == [40, 60, 80]


def test_nearly_equal_vectors_have_an_exact_angle() -> None:
    assert angles(turned([0.001]), turned([0.0]))[0] == pytest.approx(0.001)


def test_normals_without_truth_or_of_another_size_are_named() -> None:
    metric = NormalQuality()
    nothing = {"pred_normals": {"data": torch.ones(3, 1, 2)}, "gt_normals": {"data": torch.zeros(3, 1, 2)}}
    metric.process(None, [nothing])
    with pytest.raises(UserError, match="no picture has a pixel whose normal is known"):
        metric.compute_metrics(metric.results)
    nothing["gt_normals"]["data"] = torch.zeros(3, 1, 3)
    with pytest.raises(UserError, match="differ in size: 2x1 and 3x1"):
        metric.process(None, [nothing])


def dense_sample(**truth: Any) -> SegDataSample:
    sample = SegDataSample(metainfo={"img_shape": (1, 2), "img_path": "a.jpg"})
    for key, values in truth.items():
        setattr(sample, key, PixelData(data=torch.tensor(values)))
    return sample


def test_depth_loss_by_hand() -> None:
    output = MODELS.build({"type": "opsin.DepthOutput"})
    sample = dense_sample(gt_depth_map=[[[1.0, 4.0]]])
    got = float(output.loss(torch.tensor([[[2.0, 2.0]]]), sample))
    logs = [math.log(1 / 2), math.log(4 / 2)]
    variance = sum(e * e for e in logs) / 2 - (sum(logs) / 2) ** 2
    assert got == pytest.approx(variance + math.sqrt((1 + 0.25) / 2))


def test_loss_ignores_pixels_without_truth() -> None:
    depth, normals, classes = (
        MODELS.build({"type": f"opsin.{name}Output", **settings})
        for name, settings in (("Depth", {}), ("Normal", {}), ("Semantic", {"num_classes": 2}))
    )
    unknown = dense_sample(
        gt_depth_map=[[[0.0, 0.0]]], gt_normals=[[[0.0, 0.0]]] * 3, gt_sem_seg=[[[255, 255]]]
    )
    for output in (depth, normals, classes):
        predicted = torch.rand(output.channels, 1, 2, requires_grad=True)
        loss = output.loss(predicted, unknown)
        assert loss == 0
        loss.backward()
    known = dense_sample(gt_sem_seg=[[[1, 255]]])
    got = classes.loss(torch.tensor([[[0.75, 0.1]], [[0.25, 0.9]]]), known)
    assert float(got) == pytest.approx(-math.log(0.25), abs=1e-5)


def test_normal_loss_by_hand() -> None:
    output = MODELS.build({"type": "opsin.NormalOutput"})
    sample = dense_sample(gt_normals=[[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]])
    got = output.loss(torch.tensor([[[0.0, 5.0]], [[3.0, 5.0]], [[0.0, 5.0]]]), sample)
    assert float(got) == pytest.approx(1 + 2)  # a right angle: cosine 0, distance sqrt(2)


def test_perfect_depth_has_a_finite_gradient() -> None:
    output = MODELS.build({"type": "opsin.DepthOutput"})
    predicted = torch.tensor([[[1.0, 4.0]]], requires_grad=True)
    output.loss(predicted, dense_sample(gt_depth_map=[[[1.0, 4.0]]])).backward()
    assert torch.isfinite(predicted.grad).all()


def test_sample_without_the_truth_of_a_loss_is_named() -> None:
    output = MODELS.build({"type": "opsin.DepthOutput"})
    with pytest.raises(UserError, match=r"a.jpg comes without gt_depth_map"):
        average_loss(output, torch.ones(1, 1, 1, 2), [dense_sample()])


def test_depth_picture_has_a_scale_and_unknown_pixels_are_black() -> None:
    depth = np.linspace(1, 4, 100 * 20).reshape(100, 20)
    depth[0] = 0
    drawn = coloured(depth, 1.0, 4.0)
    assert not drawn[0].any()
    assert drawn[1, 0, 0] > drawn[1, 0, 2]  # near is red
    assert drawn[-1, -1, 2] > drawn[-1, -1, 0]  # far is blue
    picture = draw_depth(np.zeros((100, 20, 3), np.uint8), depth)
    assert picture.shape[0] == 100 and picture.shape[1] > 40 + 14
    assert draw_depth(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1))).shape[0] == 90


def test_sixteen_bit_depth_is_read_as_it_was_written(tmp_path: Path) -> None:
    values = np.array([[0, 1, 65535]], np.uint16)
    write_image(tmp_path / "d.png", values)
    assert read_depth(tmp_path / "d.png").tolist() == [[0.0, 1.0, 65535.0]]
