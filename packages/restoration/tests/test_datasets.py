import shutil

import numpy as np
import pytest

from opsin.core.data.image import read_image, write_image
from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS
from opsin.restoration.datasets import (
    HighResolutionDataset,
    LoadHighResolution,
    LoadPair,
    PackPair,
    PairedImageDataset,
    RandomCropPair,
    RandomSymmetry,
)
from opsin.restoration.degradation import bicubic
from opsin.restoration.samples import VAL_PHOTOGRAPHS, write_samples

PIPELINE = [dict(type="opsin.LoadPair"), dict(type="opsin.PackPair")]


def write_pairs(root, hr_dir, lr_dir, scale=2, ending="", names=("a", "b")):
    rng = np.random.default_rng(0)
    for name in names:
        hr = rng.integers(0, 256, (16 * scale, 20 * scale, 3), dtype=np.uint8)
        write_image(root / hr_dir / f"{name}.png", hr)
        write_image(root / lr_dir / f"{name}{ending}.png", bicubic(hr, 1 / scale))


@pytest.mark.parametrize(
    ("hr_dir", "lr_dir", "ending"),
    [
        ("HR", "LR_bicubic/X2", "x2"),
        ("HR", "LR_x2", ""),
        ("GT", "LQ", ""),
        ("GTmod2", "LRbicx2", ""),
        ("GTmod12", "LRbicx2", "_x2"),
    ],
)
def test_layouts_that_people_have_are_found(tmp_path, hr_dir, lr_dir, ending):
    write_pairs(tmp_path, hr_dir, lr_dir, ending=ending)
    dataset = PairedImageDataset(scale=2, data_root=str(tmp_path), pipeline=PIPELINE)
    assert len(dataset) == 2
    item = dataset[1]
    assert item["inputs"].shape == (3, 16, 20) and item["data_samples"].gt_img.shape == (3, 32, 40)
    assert item["data_samples"].gt_path.endswith(f"{hr_dir}/b.png")


def test_named_folders_and_a_meta_file_choose_the_pictures(tmp_path):
    write_pairs(tmp_path, "large", "small")
    (tmp_path / "meta.txt").write_text("b.png (32,40,3)\n")
    folders = dict(scale=2, hr_dir="large", lr_dir="small", data_root=str(tmp_path), pipeline=PIPELINE)
    dataset = PairedImageDataset(meta_file="meta.txt", **folders)
    assert [dataset[i]["data_samples"].gt_path for i in range(len(dataset))] == [
        str(tmp_path / "large" / "b.png")
    ]
    (tmp_path / "meta.txt").write_text("c.png (32,40,3)\n")
    with pytest.raises(UserError, match=r"lists c\.png, which is not in"):
        PairedImageDataset(meta_file="meta.txt", **folders)


def test_missing_folders_and_partners_are_named(tmp_path):
    with pytest.raises(UserError, match="no data folder"):
        PairedImageDataset(scale=2, data_root=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"has no ×2 pairs; it needs HR/ and LR_bicubic/X2/, HR/ and LR_x2/"):
        PairedImageDataset(scale=2, data_root=str(tmp_path))
    with pytest.raises(UserError, match="needs both hr_dir and lr_dir"):
        PairedImageDataset(scale=2, hr_dir="HR", data_root=str(tmp_path))
    write_pairs(tmp_path, "HR", "LR_x2")
    (tmp_path / "LR_x2" / "b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png has no partner in"):
        PairedImageDataset(scale=2, data_root=str(tmp_path))


def test_a_pair_of_other_sizes_is_named_and_a_few_extra_pixels_are_cropped(tmp_path):
    write_pairs(tmp_path, "HR", "LR_x2")
    write_image(tmp_path / "HR" / "a.png", np.zeros((33, 41, 3), np.uint8))
    dataset = PairedImageDataset(scale=2, data_root=str(tmp_path), pipeline=PIPELINE)
    assert dataset[0]["data_samples"].gt_img.shape == (3, 32, 40)
    write_image(tmp_path / "HR" / "a.png", np.zeros((34, 40, 3), np.uint8))
    with pytest.raises(UserError, match=r"LR_x2/a\.png is 20x16, which is not 1/2 of .*HR/a\.png \(40x34\)"):
        dataset[0]


def test_a_truncated_picture_is_fatal_or_skipped(tmp_path):
    write_pairs(tmp_path, "HR", "LR_x2")
    path = tmp_path / "LR_x2" / "a.png"
    path.write_bytes(path.read_bytes()[:100])
    settings = dict(scale=2, data_root=str(tmp_path), pipeline=PIPELINE)
    with pytest.raises(UserError, match=r"a\.png is truncated"):
        PairedImageDataset(**settings)[0]
    skipping = PairedImageDataset(**settings, on_error="skip")
    assert skipping[0]["data_samples"].gt_path.endswith("b.png")


def test_high_resolution_pictures_are_reduced_whole_then_cropped(tmp_path):
    hr = np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    write_image(tmp_path / "sub" / "a.png", hr)
    pipeline = [dict(type="opsin.LoadHighResolution"), dict(type="opsin.PackPair")]
    item = HighResolutionDataset(scale=3, data_root=str(tmp_path), pipeline=pipeline)[0]
    assert np.array_equal(item["inputs"].permute(1, 2, 0).numpy(), bicubic(hr[:30, :45], 1 / 3))
    assert item["data_samples"].gt_img.shape == (3, 30, 45)
    with pytest.raises(UserError, match="smaller than 64x64"):
        HighResolutionDataset(scale=64, data_root=str(tmp_path), pipeline=pipeline)[0]


def test_small_pictures_are_enlarged_to_the_patch_first(tmp_path):
    write_image(tmp_path / "a.png", np.full((10, 40, 3), 9, np.uint8))
    entry = dict(gt_path=str(tmp_path / "a.png"), scale=2)
    assert LoadHighResolution(min_size=24)(entry)["gt_img"].shape == (24, 40, 3)


def test_cached_pictures_are_read_once(tmp_path):
    write_image(tmp_path / "a.png", np.full((8, 8, 3), 9, np.uint8))
    load = LoadHighResolution(cache=1)
    entry = dict(img_path=str(tmp_path / "a.png"), gt_path=str(tmp_path / "a.png"), scale=2)
    first = load(dict(entry))
    (tmp_path / "a.png").unlink()
    assert np.array_equal(load(dict(entry))["img"], first["img"])


def aligned_pair(scale=3, height=20, width=28):
    """A pair whose HR picture repeats every LR pixel, so that alignment can be seen."""
    img = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return dict(img=img, gt_img=img.repeat(scale, 0).repeat(scale, 1), scale=scale, img_path="a.png")


def test_crops_and_symmetries_keep_pairs_aligned():
    seen = set()
    for _ in range(60):
        out = RandomSymmetry()(RandomCropPair(12)(aligned_pair()))
        assert out["img"].shape == (12, 12, 3) and out["gt_img"].shape == (36, 36, 3)
        assert np.array_equal(out["gt_img"][::3, ::3], out["img"])
        seen.add(out["img"].tobytes())
    assert len(seen) > 40


def test_symmetries_are_all_eight_and_follow_numpys_seed():
    symmetry, pair = RandomSymmetry(), aligned_pair()
    assert len({symmetry(dict(pair))["img"].tobytes() for _ in range(80)}) == 8

    def drawn():
        np.random.seed(3)
        return [symmetry(dict(pair))["img"].tobytes() for _ in range(5)]

    assert drawn() == drawn()


def test_a_picture_smaller_than_the_patch_is_named():
    with pytest.raises(UserError, match=r"a\.png gives 28x20 LR pixels, less than a patch of 24"):
        RandomCropPair(24)(aligned_pair())


def test_transforms_are_registered():
    for cls in (LoadPair, LoadHighResolution, RandomCropPair, RandomSymmetry, PackPair):
        assert TRANSFORMS.get(f"opsin.{cls.__name__}") is cls


def test_samples_are_pairs_of_every_scale_and_depend_on_the_seed_alone(samples, tmp_path):
    for scale in (2, 3, 4):
        for split, count in (("train", 120), ("val", 20 * len(VAL_PHOTOGRAPHS))):
            dataset = PairedImageDataset(scale=scale, data_root=str(samples / split), pipeline=PIPELINE)
            assert len(dataset) == count
            assert dataset[0]["inputs"].shape == (3, 96 // scale, 96 // scale)
    write_samples(tmp_path)
    files = sorted(p.relative_to(samples) for p in samples.rglob("*.png"))
    assert all((tmp_path / f).read_bytes() == (samples / f).read_bytes() for f in files)
    shutil.rmtree(tmp_path / "train")
    write_samples(tmp_path, seed=1)
    assert not np.array_equal(
        read_image(tmp_path / "train/HR/0001.png"), read_image(samples / "train/HR/0001.png")
    )
