import logging

import numpy as np
import pytest
from mmengine.logging import MMLogger

from opsin.core.data.dataset import Dataset
from opsin.core.data.image import list_images, write_image
from opsin.core.errors import UserError
from opsin.registry import TRANSFORMS


class Folder(Dataset):
    def load_data_list(self):
        return [{"img_path": str(p)} for p in list_images(self.data_prefix["img_path"])]


@pytest.fixture
def folder(tmp_path):
    """Four pictures of brightness 0 to 3; b is damaged."""
    for value, name in enumerate("abcd"):
        write_image(tmp_path / "images" / f"{name}.png", np.full((4, 4, 3), value, np.uint8))
    (tmp_path / "images" / "b.png").write_bytes(b"no image")
    return tmp_path


def dataset(root, **options):
    pipeline = [TRANSFORMS.build({"type": "opsin.LoadImage"})]
    return Folder(data_root=str(root), data_prefix={"img_path": "images"}, pipeline=pipeline, **options)


def brightness(sample):
    return int(sample["img"][0, 0, 0])


def test_damaged_file_is_fatal_and_named_by_default(folder):
    data = dataset(folder)
    assert brightness(data[0]) == 0
    with pytest.raises(UserError, match=r"b\.png"):
        data[1]


@pytest.fixture
def logged():
    """The messages that mmengine's logger gets during a test."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_damaged_file_is_skipped_and_reported_once(folder, logged):
    data = dataset(folder, on_error="skip")
    assert [brightness(data[i]) for i in (0, 1, 2, 1)] == [0, 2, 2, 2]
    assert sum("b.png" in message for message in logged) == 1


def test_evaluation_leaves_damaged_files_out_instead_of_counting_another_twice(folder):
    data = dataset(folder, on_error="skip", test_mode=True)
    assert [brightness(data[i]) for i in range(len(data))] == [0, 2, 3]


def test_nothing_readable_is_an_error(folder):
    for path in (folder / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="can be read"):
        dataset(folder, on_error="skip")[0]
    with pytest.raises(UserError, match="can be read"):
        dataset(folder, on_error="skip", test_mode=True)


def test_missing_folder_and_missing_parts_are_told_apart(tmp_path):
    with pytest.raises(UserError, match=r"no data folder .*nowhere"):
        dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="lacks images"):
        dataset(tmp_path)


def test_missing_annotation_file_is_named(folder):
    with pytest.raises(UserError, match=r"lacks annotations/train\.json"):
        dataset(folder, ann_file="annotations/train.json")


def test_wrong_policy_is_refused(folder):
    with pytest.raises(UserError, match="on_error='ignore'"):
        dataset(folder, on_error="ignore")
