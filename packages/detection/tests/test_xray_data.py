"""PIDray's layout, its checker, the simulated sample data and AP per part."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from opsin.core.cli import app
from opsin.core.data.image import read_image
from opsin.core.errors import UserError
from opsin.detection.datasets.objects import draw_mask
from opsin.detection.xray.classes import CLASSES, PALETTE, PUBLISHED_COUNTS, SUBSETS
from opsin.detection.xray.datasets import PIDray
from opsin.detection.xray.datasets.checker import check_folder, check_part, mask_faults
from opsin.detection.xray.datasets.pidray import JSON_FILES
from opsin.detection.xray.metrics import SubsetAP
from opsin.detection.xray.samples import COUNTS, bag, false_colour, transmission, write
from opsin.detection.xray.silhouettes import ITEMS, MATERIALS, thickness_maps
from opsin.registry import DATA_SAMPLERS, METRICS


@pytest.fixture(scope="module")
def xray(tmp_path_factory):
    """The sample data of seed 0."""
    folder = tmp_path_factory.mktemp("xray")
    write(folder)
    return folder


@pytest.fixture
def small(xray, tmp_path):
    """A copy of the annotations with links to the pictures, to be broken."""
    for part in COUNTS:
        (tmp_path / part).symlink_to(xray / part)
    shutil.copytree(xray / "annotations", tmp_path / "annotations")
    return tmp_path


def change(folder, part, edit):
    path = folder / JSON_FILES[part]
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# The simulated pictures.


def test_same_seed_writes_the_same_bytes(xray, tmp_path):
    write(tmp_path)
    for path in sorted(p for p in xray.rglob("*") if p.is_file()):
        other = tmp_path / path.relative_to(xray)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest(), path


def test_files_say_that_they_are_simulated(xray):
    assert "not real data" in (xray / "README.txt").read_text()
    for file in JSON_FILES.values():
        assert "not real data" in json.loads((xray / file).read_text())["info"]["description"]


def test_parts_differ_as_in_pidray(xray):
    objects = {
        part: [len(e["instances"]) for e in PIDray(data_root=str(xray), parts=[part]).load_data_list()]
        for part in COUNTS
    }
    assert {part: len(counts) for part, counts in objects.items()} == COUNTS
    assert set(objects["easy"]) == {1}
    assert min(objects["hard"]) >= 2
    assert set(objects["hidden"]) == {1, 2}


def test_boxes_bound_their_masks(xray):
    for entry in PIDray(data_root=str(xray), parts=SUBSETS).load_data_list()[::5]:
        for item in entry["instances"]:
            mask = draw_mask(item, (entry["height"], entry["width"]), entry["img_path"])
            y, x = np.nonzero(mask)
            assert item["bbox"] == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_attenuation_of_things_that_overlap_adds_up():
    nothing = {material: np.zeros((64, 64), np.float32) for material in MATERIALS}

    def depth(**centimetres):
        rng = np.random.default_rng(0)
        layers = {m: layer + np.float32(centimetres.get(m, 0)) for m, layer in nothing.items()}
        return np.array([-np.log(share.mean()) for share in transmission(layers, rng)])

    both = depth(organic=4, metal=0.3)
    assert both == pytest.approx(depth(organic=4) + depth(metal=0.3), rel=0.02)
    assert depth(organic=8) == pytest.approx(2 * depth(organic=4), rel=0.02)


@pytest.mark.parametrize(("material", "centimetres"), [("organic", 6), ("light", 1.5), ("metal", 0.5)])
def test_colour_tells_the_material(material, centimetres):
    layers = {m: np.full((32, 32), centimetres if m == material else 0, np.float32) for m in MATERIALS}
    red, green, blue = false_colour(*transmission(layers, np.random.default_rng(0))).mean((0, 1))
    strongest = {"organic": red, "light": green, "metal": blue}[material]
    assert strongest == max(red, green, blue)
    assert max(red, green, blue) - min(red, green, blue) > 20


def test_nothing_is_white_and_thick_things_are_dark():
    nothing = {material: np.zeros((32, 32), np.float32) for material in MATERIALS}
    assert false_colour(*transmission(nothing, np.random.default_rng(0))).mean() > 250
    thick = {**nothing, "metal": np.full((32, 32), 4, np.float32)}
    assert false_colour(*transmission(thick, np.random.default_rng(0))).mean() < 90


def test_hidden_items_have_less_contrast():
    def contrast(kind):
        rng, found = np.random.default_rng(3), []
        for _ in range(15):
            picture, items = bag(kind, rng)
            grey = picture.mean(-1)
            for item in items:
                mask = draw_mask({"mask": item["segmentation"]}, grey.shape, "bag") > 0
                x, y, w, h = item["bbox"]
                around = np.zeros_like(mask)
                around[y : y + h, x : x + w] = True
                if (around & ~mask).any():
                    found.append(abs(grey[mask].mean() - grey[around & ~mask].mean()))
        return np.mean(found)

    assert contrast("hidden") < 0.75 * contrast("easy")


@pytest.mark.parametrize("name", ITEMS)
def test_turning_an_item_keeps_its_amount(name):
    """Nothing is cut off by the square that it is drawn in."""
    amounts = [
        sum(float(layer.sum()) for layer in thickness_maps(ITEMS[name], 90, turn, 1.0).values())
        for turn in (0.0, 45.0, 130.0)
    ]
    assert amounts == pytest.approx([amounts[0]] * 3, rel=0.02)


def test_twelve_classes_have_colours_that_differ():
    assert set(ITEMS) == set(CLASSES)
    colours = np.array(PALETTE, float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1e3 * np.eye(len(CLASSES))
    assert len(PALETTE) == len(CLASSES) == 12
    assert apart.min() > 50


# The data set.


def test_entries_are_counted_over_all_parts(xray):
    data = PIDray(data_root=str(xray), parts=SUBSETS, lazy_init=True)
    entries = data.load_data_list()
    assert [e["img_id"] for e in entries] == list(range(1, 73))
    assert [e["subset"] for e in entries] == [part for part in SUBSETS for _ in range(24)]
    assert data.metainfo["classes"] == CLASSES
    assert data.metainfo["palette"] == PALETTE


def test_rare_classes_are_drawn_as_often_as_frequent_ones(small):
    def only_few_guns(content):
        gun = CLASSES.index("Gun") + 1
        other = [a for a in content["annotations"] if a["category_id"] != gun]
        guns = [a for a in content["annotations"] if a["category_id"] == gun]
        content["annotations"] = other + guns[:1]

    change(small, "train", only_few_guns)
    data = PIDray(data_root=str(small), parts=["train"])
    sampler = DATA_SAMPLERS.build({"type": "mmdet.ClassAwareSampler", "dataset": data, "seed": 0})
    drawn = [label for index in sampler for label in set(data.get_cat_ids(index))]
    plain = [label for index in range(len(data)) for label in set(data.get_cat_ids(index))]
    gun = CLASSES.index("Gun")
    assert plain.count(gun) == 1
    assert drawn.count(gun) >= len(data) // len(CLASSES) - 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["categories"][0].update(name="Club"), "class .*'Baton'"),
        (lambda c: c["annotations"][0].update(image_id=999), "annotation 1 has image_id 999"),
        (lambda c: c["annotations"][0].update(category_id=13), "annotation 1 has category_id 13"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "is not \\[x, y, width, height\\]"),
        (lambda c: c["annotations"][0].update(bbox=[900, 900, 5, 5]), "has no area inside the image"),
        (lambda c: c.update(images=[], annotations=[]), "names no picture"),
        (lambda c: c["images"][1].update(id=c["images"][0]["id"]), "gives image id 1 twice"),
    ],
)
def test_broken_annotations_are_told_with_their_place(small, edit, message):
    change(small, "easy", edit)
    with pytest.raises(UserError, match=message):
        PIDray(data_root=str(small), parts=["easy"])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1, 20, 20]], "a polygon of 4 numbers"),  # COCO's own code would take it for a box
        ([[1, 1, 20, 20, 5]], "a polygon of 5 numbers"),
        ([[1, 1, 20, 20, 5, float("nan")]], "a number that is not finite"),
        ([["a", 1, 20, 20, 5, 6]], "neither polygons nor run lengths"),
        ({"size": [10, 10], "counts": [100]}, "for an image of size"),
    ],
)
def test_masks_that_cannot_be_drawn_are_told(mask, message):
    with pytest.raises(UserError, match=message):
        draw_mask({"mask": mask}, (40, 50), "a.png")


def test_polygons_that_leave_the_picture_or_cross_themselves_are_drawn():
    outside = draw_mask({"mask": [[30, 10, 90, 10, 90, 30, 30, 30]]}, (40, 50), "a.png")
    assert outside.sum() == 20 * 20
    assert draw_mask({"mask": [[10, 10, 30, 30, 30, 10, 10, 30]]}, (40, 50), "a.png").any()


def test_missing_parts_and_unknown_ones_are_told(small):
    (small / JSON_FILES["hidden"]).unlink()
    with pytest.raises(UserError, match=r"lacks annotations/xray_test_hidden\.json"):
        PIDray(data_root=str(small), parts=SUBSETS)
    with pytest.raises(UserError, match="unknown part of PIDray 'hiden'; did you mean hidden"):
        PIDray(data_root=str(small), parts=["hiden"])
    with pytest.raises(UserError, match="PIDray without parts"):
        PIDray(data_root=str(small), parts=[])


# The checker.


def test_a_whole_folder_has_no_fault(xray):
    checks = check_folder(xray)
    assert [c.part for c in checks] == ["train", "easy", "hard", "hidden"]
    assert not any(c.faults for c in checks)
    assert {c.part: c.pictures for c in checks} == COUNTS
    assert {c.part: c.published for c in checks} == PUBLISHED_COUNTS
    assert sum(checks[0].classes.values()) == checks[0].objects


SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda c: c["images"][0].update(file_name="gone.png"), "missing picture"),
        (lambda c: c["images"][1].update(id=c["images"][0]["id"]), "picture id given twice"),
        (lambda c: c["images"][1].update(file_name=c["images"][0]["file_name"]), "picture listed twice"),
        (lambda c: c["annotations"][1].update(id=c["annotations"][0]["id"]), "annotation id given twice"),
        (lambda c: c["annotations"][0].update(image_id=999), "annotation of no picture"),
        (lambda c: c["annotations"][0].update(category_id=77), "category id without a category"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4]), "box that is not four numbers"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]), "box without area"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 4000, 4]), "box outside its picture"),
        (lambda c: c["annotations"][0].update(segmentation=[]), "object without a mask"),
        (lambda c: c["categories"][3].update(name="Power bank"), "unknown category"),
        (lambda c: c["categories"].pop(3), "category that is not there"),
        (lambda c: c.update(images=[], annotations=[]), "no picture"),
    ],
)
def test_each_fault_is_found(small, edit, fault):
    change(small, "easy", edit)
    check = check_part(small, "easy")
    assert fault in check.faults
    assert any(line.startswith(fault) for line in check.lines())


@pytest.mark.parametrize(
    ("mask", "faults"),
    [
        (SQUARE, []),
        ([[10, 10, 30, 10]], ["polygon of fewer than three points"]),
        ([[10, 10, 30, 30, 30, 10, 10, 30]], ["polygon that crosses itself"]),
        ([[10, 10, 300, 10, 300, 30]], ["polygon outside its picture"]),
        ([[10, 10, 30, 10, 30]], ["polygon that is not pairs of numbers"]),
        ({"size": [50, 60], "counts": [5000]}, ["mask of another size than its picture"]),
        ({"size": [50, 100], "counts": [10, 20]}, ["run lengths that do not fill the picture"]),
        ("polygon", ["mask that is neither polygons nor run lengths"]),
    ],
)
def test_broken_masks_are_named(mask, faults):
    assert list(mask_faults(mask, (100, 50))) == faults


def test_check_command_exits_with_one_when_something_is_missing(xray, small):
    (small / JSON_FILES["hard"]).unlink()
    runner = CliRunner()
    assert runner.invoke(app, ["check-pidray", str(xray)]).exit_code == 0
    told = runner.invoke(app, ["check-pidray", str(small)])
    assert told.exit_code == 1
    assert "hard: missing file: annotations/xray_test_hard.json" in told.output
    listed = json.loads(runner.invoke(app, ["check-pidray", str(small), "--json"]).output)
    assert [part["faults"] for part in listed if part["part"] != "hard"] == [{}, {}, {}]


# AP per part.


def sample(subset, image_id, hit):
    box = [10.0, 10, 50, 50]
    return {
        "img_id": image_id,
        "img_path": "a.png",
        "ori_shape": (80, 90),
        "subset": subset,
        "instances": [{"bbox": box, "bbox_label": 2, "ignore_flag": 0}],
        "pred_instances": {
            "bboxes": np.array([box if hit else [60.0, 60, 80, 80]]),
            "scores": np.array([0.9]),
            "labels": np.array([2]),
        },
    }


def test_ap_of_each_part_is_that_of_its_pictures_alone():
    metric = METRICS.build({"type": "opsin.SubsetAP"})
    assert isinstance(metric, SubsetAP)
    metric.dataset_meta = {"classes": CLASSES}
    metric.process(None, [sample("easy", 1, True), sample("hard", 2, False), sample("hard", 3, True)])
    found = metric.evaluate(3)
    assert found["coco/easy/bbox_mAP"] == pytest.approx(1.0)
    # one of two found, a wrong one of equal score: precision 1/2 up to recall 1/2 (51 of 101 recall points),
    # or 1 where the right one comes first
    assert found["coco/hard/bbox_mAP"] in (pytest.approx(51 / 101), pytest.approx(51 / 202))
    assert found["coco/hard/bbox_mAP"] < found["coco/bbox_mAP"] < found["coco/easy/bbox_mAP"]


def test_samples_without_their_part_are_told():
    metric = SubsetAP()
    without = {k: v for k, v in sample("easy", 1, True).items() if k != "subset"}
    with pytest.raises(UserError, match="samples without `subset`"):
        metric.process(None, [without])


def test_pictures_are_read_as_they_were_written(xray):
    picture = read_image(xray / "easy" / "xray_easy00001.png")
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
