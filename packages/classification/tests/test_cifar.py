import pickle
from pathlib import Path

import numpy as np
import pytest

from opsin.classification.datasets import CIFAR
from opsin.classification.predictor import ClassificationPredictor
from opsin.core.data import write_image
from opsin.core.engine.config import load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError

NAMES = [f"thing{number}" for number in range(10)]


def rows(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Pictures of ten shades of red, as rows of three planes, and their classes."""
    labels = [index % 10 for index in range(count)]
    data = np.random.default_rng(seed).integers(0, 30, (count, 3, 1024), dtype=np.uint8)
    data[:, 0] += np.array(labels, np.uint8)[:, None] * 22
    return data.reshape(count, 3072), labels


def dump(path: Path, content: object, protocol: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "data" / "cifar-10-batches-py"
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        data, labels = rows(20, seed)
        files = [f"{name}_{index}.png" for index in range(20)]
        dump(folder / name, {"data": data, "labels": labels, "filenames": files, "batch_label": name})
    dump(folder / "batches.meta", {"label_names": NAMES, "num_vis": 3072})
    return tmp_path / "data"


def test_batches_become_pictures_with_labels_and_names(cifar10):
    train_set, test_set = (CIFAR(data_root=str(cifar10), split=split) for split in ("train", "test"))
    assert (len(train_set), len(test_set)) == (100, 20)
    assert train_set.metainfo["classes"] == tuple(NAMES)
    sample = train_set.get_data_info(43)
    assert sample["gt_label"] == 3
    assert sample["img_path"].endswith("data_batch_3/data_batch_3_3.png")
    row = rows(20, 2)[0][3].reshape(3, 32, 32)
    assert sample["img"].shape == (32, 32, 3)
    assert (sample["img"][5, 7] == row[:, 5, 7]).all()


def test_the_folder_of_the_batches_may_be_given_itself(cifar10):
    assert len(CIFAR(data_root=str(cifar10 / "cifar-10-batches-py"), split="test")) == 20


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar100_has_fine_labels(tmp_path, protocol):
    data, labels = rows(30, 0)
    content = {"data": data, "fine_labels": [label * 9 for label in labels], "coarse_labels": labels}
    dump(tmp_path / "cifar-100-python" / "train", content, protocol)
    dump(
        tmp_path / "cifar-100-python" / "meta", {"fine_label_names": [f"c{i}" for i in range(100)]}, protocol
    )
    found = CIFAR(data_root=str(tmp_path), classes=100)
    assert len(found.metainfo["classes"]) == 100
    assert [found.get_data_info(index)["gt_label"] for index in (1, 9)] == [9, 81]


class Malicious:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_batch_that_would_run_code_is_refused(cifar10, capsys):
    dump(cifar10 / "cifar-10-batches-py" / "test_batch", {"data": Malicious(), "labels": []})
    with pytest.raises(UserError, match=r"test_batch is no CIFAR batch.*names (builtins|__builtin__)\.print"):
        CIFAR(data_root=str(cifar10), split="test")
    assert "this must not run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no CIFAR batch"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({"data": rows(2, 0)[0]}), r"has no labels; it has data"),
        (pickle.dumps({"data": rows(2, 0)[0], "labels": [1]}), "2 pictures and 1 labels"),
        (pickle.dumps({"data": np.zeros((2, 9)), "labels": [1, 2]}), r"shape \(2, 9\), expected \(N, 3072\)"),
    ],
)
def test_a_damaged_batch_is_named(cifar10, content, message):
    (cifar10 / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match=message):
        CIFAR(data_root=str(cifar10), split="test")


def test_missing_batches_and_wrong_settings_are_named(cifar10, tmp_path):
    (cifar10 / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(UserError, match=r"lacks cifar-10-batches-py/data_batch_4;"):
        CIFAR(data_root=str(cifar10))
    with pytest.raises(UserError, match="no data folder"):
        CIFAR(data_root=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="classes=10 and split='val'"):
        CIFAR(data_root=str(cifar10), split="val")


def test_ninformer_trains_tests_and_predicts(cifar10, tmp_path):
    in_process = [
        f"{split}_dataloader.{key}"
        for split in ("train", "val", "test")
        for key in ("num_workers=0", "persistent_workers=False", "batch_size=20")
    ]
    cfg = load_config("ninformer_cifar10", data=cifar10, overrides=[*in_process, "train_cfg.max_epochs=1"])
    cfg.model.network.arch = {"embed_dim": 16, "hidden_dim": 16, "depth": 1}
    runner = train(cfg, tmp_path / "run")
    assert runner.iter == 5
    checkpoint = tmp_path / "run" / "epoch_1.pth"
    assert set(evaluate(cfg, checkpoint)) == {"accuracy/top1", "accuracy/top5", "accuracy/class_mean"}
    write_image(tmp_path / "picture.png", np.full((48, 40, 3), 90, np.uint8))
    (record,) = ClassificationPredictor(cfg, checkpoint).predict(
        [tmp_path / "picture.png"], tmp_path / "out", quiet=True
    )
    assert record["class"] in NAMES


def test_a_masked_swin_learns_in_three_epochs(cifar10, tmp_path):
    overrides = [
        f"{split}_dataloader.{key}"
        for split in ("train", "val", "test")
        for key in ("num_workers=0", "persistent_workers=False", "batch_size=10")
    ]
    cfg = load_config(
        "gmm_vit_cifar10",
        data=cifar10,
        overrides=[*overrides, "train_cfg.max_epochs=3", "param_scheduler=[]"],
    )
    arch = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4, "mlp_ratio": 2}
    cfg.model.network.update(type="MaskedSwinClassifier", arch=arch)
    cfg.model.batch_augmentation = None
    cfg.optim_wrapper.optimizer.lr = 5e-3
    losses = train(cfg, tmp_path).message_hub.get_scalar("train/loss").data[0]
    assert len(losses) == 30 and losses[20:].mean() < losses[:10].mean()
    assert "accuracy/top1" in evaluate(cfg, tmp_path / "epoch_3.pth")


def test_the_published_test_is_augmented_like_the_training():
    plain, published = (load_config(f"ninformer_cifar10{end}") for end in ("", "_augmented_eval"))
    assert published.test_dataloader.dataset.pipeline == plain.train_dataloader.dataset.pipeline
    assert plain.test_dataloader.dataset.pipeline != plain.train_dataloader.dataset.pipeline
