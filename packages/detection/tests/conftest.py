import json

import numpy as np
import pytest

from opsin.core.data.image import write_image
from opsin.detection.samples import write


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """The sample data set of seed 0."""
    directory = tmp_path_factory.mktemp("detection-samples")
    write(directory)
    return directory


@pytest.fixture(scope="session")
def one_class(samples, tmp_path_factory):
    """The sample data with all digits as one class, so that little training shows: json files by split."""
    written = {}
    folder = tmp_path_factory.mktemp("one_class")
    for split in ("train", "val"):
        content = json.loads((samples / f"annotations/instances_{split}.json").read_text())
        content["categories"] = [{"id": 1, "name": "digit"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        written[split] = folder / f"{split}.json"
        written[split].write_text(json.dumps(content))
    return written


@pytest.fixture
def coco_folder(tmp_path):
    """Writes a COCO data set of two 40x30 images with the given annotations; gives its folder."""

    def build(annotations, categories=({"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}), **changes):
        for name in ("a.png", "b.png"):
            write_image(tmp_path / "images" / name, np.full((30, 40, 3), 90, np.uint8))
        sized = [
            {"id": i, "file_name": n, "width": 40, "height": 30} for i, n in ((1, "a.png"), (2, "b.png"))
        ]
        content = {"images": sized, "annotations": annotations, "categories": list(categories), **changes}
        (tmp_path / "instances.json").write_text(json.dumps(content))
        return tmp_path

    return build


@pytest.fixture
def voc_folder(tmp_path):
    """Writes a VOC data set of two 40x30 images, the first with the given objects; gives its folder."""

    def build(*objects, size=(40, 30)):
        for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
            (tmp_path / folder).mkdir(parents=True)
        (tmp_path / "ImageSets/Main/train.txt").write_text("one\ntwo\n")
        for name in ("one", "two"):
            write_image(tmp_path / "JPEGImages" / f"{name}.jpg", np.full((30, 40, 3), 90, np.uint8))
        body = "".join(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin>"
            f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for name, (x1, y1, x2, y2), difficult in objects
        )
        head = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
        (tmp_path / "Annotations/one.xml").write_text(f"<annotation>{head}{body}</annotation>")
        (tmp_path / "Annotations/two.xml").write_text(f"<annotation>{head}</annotation>")
        return tmp_path

    return build
