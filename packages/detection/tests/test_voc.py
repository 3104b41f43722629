import pytest

from opsin.core.errors import UserError
from opsin.registry import DATASETS

PIPELINE = [{"type": "opsin.LoadImage"}, {"type": "opsin.LoadObjects"}, {"type": "opsin.PackDetection"}]


def dataset(folder, **options):
    return DATASETS.build(
        {
            "type": "opsin.PascalVOC",
            "data_root": str(folder),
            "split": "train",
            "pipeline": PIPELINE,
            **options,
        }
    )


def test_boxes_begin_at_pixel_zero_and_classes_are_found(voc_folder):
    data = dataset(voc_folder(("dog", (1, 1, 10, 20), 0), ("cat", (5, 5, 40, 30), 0)))
    assert data.metainfo["classes"] == ("cat", "dog")
    found = data[0]["data_samples"].gt_instances
    assert found.bboxes.tensor.tolist() == [[0, 0, 10, 20], [4, 4, 40, 30]]
    assert found.labels.tolist() == [1, 0]


def test_difficult_objects_are_to_be_ignored(voc_folder):
    sample = dataset(voc_folder(("dog", (1, 1, 10, 20), 1)))[0]["data_samples"]
    assert len(sample.gt_instances) == 0
    assert len(sample.ignored_instances) == 1


def test_image_without_objects_or_without_file_is_background(voc_folder):
    folder = voc_folder(("dog", (1, 1, 10, 20), 0))
    assert len(dataset(folder)[1]["data_samples"].gt_instances) == 0
    (folder / "Annotations/two.xml").unlink()
    assert len(dataset(folder)[1]["data_samples"].gt_instances) == 0


def test_size_zero_in_the_file_is_read_from_the_image(voc_folder):
    entry = dataset(voc_folder(("dog", (1, 1, 99, 20), 0), size=(0, 0))).get_data_info(0)
    assert (entry["width"], entry["height"]) == (40, 30)
    assert entry["instances"][0]["bbox"] == [0, 0, 40, 20]


def test_wrong_class_names_file_and_nearest(voc_folder):
    with pytest.raises(UserError, match=r"class in .*one\.xml 'dgo'; did you mean dog"):
        dataset(voc_folder(("dgo", (1, 1, 10, 20), 0)), metainfo={"classes": ("dog", "cat")})


@pytest.mark.parametrize("corner", ["nan", "inf", "", "wide"])
def test_box_that_is_no_number_names_the_file(voc_folder, corner):
    with pytest.raises(UserError, match=r"one\.xml.* is not four"):
        dataset(voc_folder(("dog", (1, corner, 10, 20), 0)))


def test_box_outside_or_without_area_is_an_error_or_dropped_by_choice(voc_folder):
    folder = voc_folder(("dog", (30, 20, 90, 90), 0), ("dog", (60, 60, 70, 70), 0), ("dog", (9, 9, 8, 20), 0))
    with pytest.raises(UserError, match=r"one\.xml \(dog\): box .* has no area inside the image of 40 x 30"):
        dataset(folder)
    data = dataset(folder, drop_bad_boxes=True)
    assert data[0]["data_samples"].gt_instances.bboxes.tensor.tolist() == [[29, 19, 40, 30]]


def test_broken_xml_is_named(voc_folder):
    folder = voc_folder()
    (folder / "Annotations/two.xml").write_text("<annotation>")
    with pytest.raises(UserError, match=r"two\.xml cannot be read as xml"):
        dataset(folder)


def test_missing_or_empty_split_and_missing_image_are_named(voc_folder):
    folder = voc_folder(("dog", (1, 1, 10, 20), 0))
    with pytest.raises(UserError, match=r"lacks ImageSets/Main/test\.txt"):
        dataset(folder, split="test")
    (folder / "ImageSets/Main/test.txt").write_text("\n")
    with pytest.raises(UserError, match=r"test\.txt names no picture"):
        dataset(folder, split="test")
    (folder / "JPEGImages/two.jpg").unlink()
    with pytest.raises(UserError, match=r"train\.txt names two, but .* has no such image"):
        dataset(folder)
