import tarfile

import numpy as np
import pytest
from PIL import Image

from opsin.classification.datasets import (
    AutoAugment,
    EvaluationCrop,
    ImageFolder,
    PackClassification,
    RandAugment,
)
from opsin.classification.datasets.auto_augment import POLICIES
from opsin.classification.samples import write
from opsin.core.data import list_images, read_image
from opsin.core.errors import UserError


def gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=2).astype(np.uint8)


def folder(root, *files: str):
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(gradient(40, 50)).save(path)
    return root


def test_labels_are_the_places_of_the_training_classes_even_where_a_split_lacks_one(tmp_path):
    folder(
        tmp_path,
        "train/ant/a.png",
        "train/bee/a.png",
        "train/cat/deep/a.jpg",
        "val/cat/x.png",
        "val/bee/x.png",
    )
    train = ImageFolder(data_root=str(tmp_path), split="train")
    val = ImageFolder(data_root=str(tmp_path), split="val")
    assert train.metainfo["classes"] == val.metainfo["classes"] == ("ant", "bee", "cat")
    assert [train.get_data_info(i)["gt_label"] for i in range(len(train))] == [0, 1, 2]
    assert [val.get_data_info(i)["gt_label"] for i in range(len(val))] == [1, 2]


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (["train/ant/a.png"], "val", r"lacks val;"),
        (["val/ant/a.png"], "train", r"lacks train;"),
        (["val/ant/a.png"], "val", r"lacks train"),
        (["train/ant/a.png", "val/a.png"], "val", r"val has no class folders.*train/<class>"),
        (["train/ant/a.png", "val/aunt/a.png"], "val", r"val/aunt is a class.*ant"),
    ],
)
def test_a_wrong_layout_is_named(tmp_path, files, split, message):
    with pytest.raises(UserError, match=message):
        ImageFolder(data_root=str(folder(tmp_path, *files)), split=split)


def test_a_missing_data_folder_and_an_empty_class_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no data folder .*nowhere"):
        ImageFolder(data_root=str(tmp_path / "nowhere"))
    (folder(tmp_path, "train/ant/a.png") / "train" / "bee").mkdir()
    with pytest.raises(UserError, match=r"no image in folder .*bee"):
        ImageFolder(data_root=str(tmp_path))


@pytest.mark.parametrize("inside", ["", "val"])
def test_a_split_in_a_tar_file_is_the_split(tmp_path, inside):
    folder(tmp_path, "train/ant/a.png", "train/bee/a.png", "val/bee/x.jpg", "val/ant/deep/y.png")
    unpacked = ImageFolder(data_root=str(tmp_path), split="val", pipeline=[{"type": "opsin.LoadImage"}])
    expected = [(sample["img"], sample["gt_label"]) for sample in unpacked]
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        archive.add(tmp_path / "elsewhere", arcname=inside or ".")
    packed = ImageFolder(data_root=str(tmp_path), split="val", pipeline=[{"type": "opsin.LoadImage"}])
    got = [(sample["img"], sample["gt_label"]) for sample in packed]
    assert [label for _, label in got] == [label for _, label in expected] == [0, 1]
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(got, expected, strict=True))
    with pytest.raises(UserError, match=r"val.tar holds no bee/z.jpg"):
        read_image(tmp_path / "val.tar" / "bee" / "z.jpg")


def test_a_compressed_archive_is_refused(tmp_path):
    folder(tmp_path, "train/ant/a.png")
    with tarfile.open(tmp_path / "val.tar", "w:gz") as archive:
        archive.add(tmp_path / "train", arcname="val")
    with pytest.raises(UserError, match=r"val.tar is not an uncompressed tar file.*unpack it"):
        ImageFolder(data_root=str(tmp_path), split="val")


def test_evaluation_resizes_the_short_side_and_cuts_the_middle():
    image = gradient(300, 450)
    result = EvaluationCrop(size=56, crop_ratio=0.875).transform({"img": image})
    resized = Image.fromarray(image).resize((96, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(result["img"], np.asarray(resized)[4:60, 20:76])
    assert result["img_shape"] == (56, 56)


def test_evaluation_without_a_crop_ratio_warps_the_whole_picture():
    image = gradient(30, 90)
    result = EvaluationCrop(size=48, crop_ratio=None).transform({"img": image})
    assert np.array_equal(
        result["img"], np.asarray(Image.fromarray(image).resize((48, 48), Image.Resampling.BICUBIC))
    )


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (224, 224)])
def test_evaluation_takes_any_size(height, width):
    assert EvaluationCrop(size=32).transform({"img": gradient(height, width)})["img"].shape == (32, 32, 3)


def test_an_impossible_crop_ratio_is_refused():
    with pytest.raises(UserError, match=r"crop_ratio=1\.2"):
        EvaluationCrop(size=32, crop_ratio=1.2)


def test_packing_keeps_pixels_and_label():
    image = gradient(6, 4)
    packed = PackClassification().transform({"img": image, "gt_label": 3, "img_path": "a.png"})
    assert np.array_equal(packed["inputs"].numpy(), image.transpose(2, 0, 1))
    assert int(packed["data_samples"].gt_label) == 3
    assert packed["data_samples"].img_path == "a.png"
    assert "gt_label" not in PackClassification().transform({"img": image})["data_samples"]


def test_rand_augment_follows_numpys_generator_and_changes_most_pictures():
    augment, image = RandAugment(), gradient(64, 64)

    def augmented(seed: int) -> np.ndarray:
        np.random.seed(seed)
        return augment.transform({"img": image.copy()})["img"]

    results = [augmented(seed) for seed in range(60)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    assert np.array_equal(augmented(5), results[5])
    changed = np.mean([not np.array_equal(result, image) for result in results])
    assert 0.5 < changed < 0.95  # two operations at one half each leave a quarter alone
    assert len({result.tobytes() for result in results}) > 20


def test_rand_augment_moves_by_its_magnitude():
    def mean_change(magnitude: float) -> float:
        augment = RandAugment(magnitude=magnitude, magnitude_std=0, probability=1.0)
        image = gradient(64, 64)
        np.random.seed(0)
        return float(
            np.mean(
                [
                    np.abs(augment.transform({"img": image.copy()})["img"] - image.astype(float)).mean()
                    for _ in range(60)
                ]
            )
        )

    assert mean_change(2) < mean_change(10)
    with pytest.raises(UserError, match="magnitude=11"):
        RandAugment(magnitude=11)


@pytest.mark.parametrize("policy", POLICIES)
def test_auto_augment_has_25_pairs_and_follows_numpys_generator(policy):
    augment, image = AutoAugment(policy), gradient(32, 32)

    def augmented(seed: int) -> np.ndarray:
        np.random.seed(seed)
        return augment.transform({"img": image.copy()})["img"]

    (choice,) = augment.compose.transforms
    assert [len(pair.transforms) for pair in choice.transforms] == [2] * 25
    results = [augmented(seed) for seed in range(60)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    assert np.array_equal(augmented(5), results[5])
    assert len({result.tobytes() for result in results}) > 20


def test_auto_augment_does_its_operations_with_their_chances_and_strengths():
    (choice,) = AutoAugment("imagenet").compose.transforms
    posterize, rotate = choice.transforms[0].transforms
    assert (posterize.p, posterize.num_bits, rotate.p) == (0.4, (4, 4), 0.6)
    assert [turn.rotate for turn in rotate.transforms] == [(30, 30), (-30, -30)]
    with pytest.raises(UserError, match=r"imagnet.*imagenet"):
        AutoAugment("imagnet")


def test_samples_are_the_same_for_the_same_seed_and_share_nothing_between_splits(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(tmp_path / name, seed=seed, train=2, val=1)
    first, same, other = ([path.read_bytes() for path in list_images(tmp_path / name)] for name in "abc")
    assert first == same and first != other and len(first) == 12
    assert {path.parent.name for path in list_images(tmp_path / "a")} == {"brick", "grass", "petals", "stars"}
    assert read_image(list_images(tmp_path / "a")[0]).shape == (64, 64, 3)
