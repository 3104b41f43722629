import json

import numpy as np
import pytest

from opsin.core.data.image import write_image
from opsin.core.errors import UserError
from opsin.tracking.datasets import read_sequences
from opsin.tracking.datasets.layouts.vot import mask, region_box

PIXELS = np.zeros((24, 32, 3), np.uint8)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def pictures(folder, names):
    for name in names:
        write_image(folder / name, PIXELS)


def test_lasot_hides_occluded_and_absent_targets(tmp_path):
    folder = tmp_path / "cat" / "cat-3"
    pictures(folder / "img", ["00000001.jpg", "00000002.jpg", "00000003.jpg"])
    put(folder / "groundtruth.txt", "1,2,3,4\n2,2,3,4\n0,0,0,0\n")
    put(folder / "full_occlusion.txt", "0,1,0")
    put(folder / "out_of_view.txt", "0,0,1")
    put(tmp_path / "testing_set.txt", "cat-3\n")
    (sequence,) = read_sequences("lasot", tmp_path, "test")
    assert sequence.name == "cat-3" and sequence.has_truth
    assert sequence.visible.tolist() == [True, False, False]
    assert sequence.frames[2].endswith("cat-3/img/00000003.jpg")


def test_got10k_reads_labels_and_test_sequences_of_one_row(tmp_path):
    for split, truth in (("val", "1,2,3,4\n1,2,3,4\n"), ("test", "1,2,3,4\n")):
        folder = tmp_path / split / "GOT-10k_1"
        pictures(folder, ["00000001.jpg", "00000002.jpg"])
        put(folder / "groundtruth.txt", truth)
        put(tmp_path / split / "list.txt", "GOT-10k_1\n")
    put(tmp_path / "val" / "GOT-10k_1" / "cover.label", "8\n0\n")
    assert read_sequences("got10k", tmp_path, "val")[0].visible.tolist() == [True, False]
    test = read_sequences("got10k", tmp_path, "test")[0]
    assert not test.has_truth and len(test.frames) == 2 and test.boxes.tolist() == [[1, 2, 3, 4]]


def test_trackingnet_orders_frames_by_number(tmp_path):
    pictures(tmp_path / "TEST" / "frames" / "a", [f"{n}.jpg" for n in range(11)])
    put(tmp_path / "TEST" / "anno" / "a.txt", "1,2,3,4\n")
    (sequence,) = read_sequences("trackingnet", tmp_path, "test")
    assert [frame.rsplit("/", 1)[1] for frame in sequence.frames][-2:] == ["9.jpg", "10.jpg"]


def test_uav123_takes_ranges_from_the_benchmark_s_own_table_and_nan_rows(tmp_path):
    pictures(tmp_path / "data_seq" / "UAV123" / "bird1", [f"{n:06d}.jpg" for n in range(1, 6)])
    put(tmp_path / "anno" / "UAV123" / "bird1_2.txt", "1,2,3,4\nNaN,NaN,NaN,NaN\n")
    put(
        tmp_path / "configSeqs.m",
        "struct('name','bird1_2','path','data_seq\\UAV123\\bird1\\','startFrame',4,'endFrame',5,'nz',6,'ext','jpg')",
    )
    (sequence,) = read_sequences("uav123", tmp_path, "test")
    assert sequence.frames[0].endswith("bird1/000004.jpg") and sequence.visible.tolist() == [True, False]
    (tmp_path / "configSeqs.m").unlink()
    with pytest.raises(UserError, match=r"bird1_2.*configSeqs\.m"):
        read_sequences("uav123", tmp_path, "test")


def test_otb100_counts_from_one_and_has_late_starts_and_second_targets(tmp_path):
    pictures(tmp_path / "David" / "img", ["0299.jpg", "0300.jpg", "0301.jpg"])
    put(tmp_path / "David" / "groundtruth_rect.txt", "129 80 64 78\n130\t80\t64\t78\n")
    pictures(tmp_path / "Jogging" / "img", ["0001.jpg"])
    for target in (1, 2):
        put(tmp_path / "Jogging" / f"groundtruth_rect.{target}.txt", "5,5,9,9\n")
    david, first, second = read_sequences("otb100", tmp_path, "test")
    assert david.frames[0].endswith("0300.jpg") and david.boxes[0].tolist() == [128, 79, 64, 78]
    assert (first.name, second.name) == ("Jogging-1", "Jogging-2")


def test_vot_regions_become_boxes(tmp_path):
    assert region_box("1,2,3,4").tolist() == [1, 2, 3, 4]
    assert region_box("0,1,4,0,5,3,1,4").tolist() == [0, 0, 5, 4]
    # in a box of 4 x 3 at (10, 20): ones at pixels 5 and 6, the second row's second and third
    assert region_box("m10,20,4,3,5,2").tolist() == [11, 21, 2, 1]
    assert np.isnan(region_box("m0,0,2,2")).all()
    assert mask("m0,0,2,2,1,3")[0].tolist() == [[False, True], [True, True]]
    folder = tmp_path / "ants"
    pictures(folder / "color", ["00000001.jpg"])
    put(folder / "groundtruth.txt", "one,two\n")
    put(tmp_path / "list.txt", "ants\n")
    with pytest.raises(UserError, match=r"groundtruth\.txt, line 1: 'one,two' is not a region"):
        read_sequences("vot", tmp_path, "test")


def test_coco_objects_are_videos_of_one_frame(tmp_path):
    rows = [
        {"id": 1, "image_id": 7, "bbox": [1, 2, 20, 15], "iscrowd": 0},
        {"id": 2, "image_id": 7, "bbox": [1, 2, 20, 15], "iscrowd": 1},
        {"id": 3, "image_id": 7, "bbox": [1, 2, 3, 3], "iscrowd": 0},
    ]
    content = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": rows}
    put(tmp_path / "annotations" / "instances_train2017.json", json.dumps(content))
    (sequence,) = read_sequences("coco", tmp_path, "train")
    assert sequence.frames == (str(tmp_path / "train2017" / "a.jpg"),) and len(sequence.boxes) == 1
    put(tmp_path / "annotations" / "instances_train2017.json", '{"images": []}')
    with pytest.raises(UserError, match="not a COCO annotation file"):
        read_sequences("coco", tmp_path, "train")


def test_vid_has_a_sequence_for_each_track(tmp_path):
    folder = tmp_path / "Annotations" / "VID" / "train" / "part" / "video"
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox>"
    one = f"<object><trackid>0</trackid><occluded>0</occluded>{box}</object>"
    two = f"<object><trackid>1</trackid><occluded>1</occluded>{box}</object>"
    put(folder / "000000.xml", f"<annotation>{one}{two}</annotation>")
    put(folder / "000001.xml", f"<annotation>{one}</annotation>")
    first, second = read_sequences("vid", tmp_path, "train")
    assert first.visible.tolist() == [True, True] and first.boxes[1].tolist() == [1, 2, 10, 20]
    assert second.visible.tolist() == [False, False] and np.isnan(second.boxes[1]).all()
    assert first.frames[0] == str(tmp_path / "Data" / "VID" / "train" / "part" / "video" / "000000.JPEG")


@pytest.mark.parametrize(
    ("layout", "split", "message"),
    [
        ("lasott", "test", "unknown layout 'lasott'; did you mean lasot"),
        ("lasot", "val", "no split 'val'"),
        ("got10k", "val", r"no file .*list\.txt"),
        ("trackingnet", "test", "lacks TEST/"),
        ("uav123", "test", "lacks anno/UAV123"),
        ("otb100", "test", "groundtruth_rect"),
        ("vid", "train", "lacks Annotations/VID/train"),
        ("lasot", "test", "no sequence in"),
    ],
)
def test_a_wrong_folder_or_name_says_what_is_missing(tmp_path, layout, split, message):
    with pytest.raises(UserError, match=message):
        read_sequences(layout, tmp_path, split)


def test_a_damaged_line_or_a_missing_frame_is_named(tmp_path):
    folder = tmp_path / "cat" / "cat-1"
    pictures(folder / "img", ["00000001.jpg"])
    put(folder / "groundtruth.txt", "1,2,3,4\n1,2,3\n")
    with pytest.raises(UserError, match=r"groundtruth\.txt, line 2: '1,2,3' is not a box"):
        read_sequences("lasot", tmp_path, "test")
    put(folder / "groundtruth.txt", "1,2,3,4\n1,2,3,4\n")
    with pytest.raises(UserError, match=r"lacks 00000002\.jpg; 2 frames are annotated"):
        read_sequences("lasot", tmp_path, "test")
