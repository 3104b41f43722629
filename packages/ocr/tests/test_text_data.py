"""Data sets of text in their published layouts, what is refused of them, and the sample generator."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from opsin.core.cli import app
from opsin.core.data.image import read_image, write_image
from opsin.core.errors import UserError
from opsin.ocr.text_detection.datasets import (
    CTW1500,
    DAST1500,
    ICDAR2015,
    MSRATD500,
    SynthText,
    TotalText,
)
from opsin.ocr.text_detection.datasets.checker import LAYOUTS, check, check_folder
from opsin.ocr.text_detection.lettering import bend
from opsin.ocr.text_detection.polygons import clockwise, polygon_iou, rasterize
from opsin.ocr.text_detection.samples import STYLES, write_layout
from opsin.ocr.text_detection.scenes import scene

PLACES = {
    ICDAR2015: ("ch4_training_images/img_1.jpg", "ch4_training_localization_transcription_gt/gt_img_1.txt"),
    TotalText: ("Images/Train/img1.jpg", "Groundtruth/Polygon/Train/poly_gt_img1.txt"),
    CTW1500: ("train_images/0001.jpg", "ctw1500_train_labels/0001.xml"),
    MSRATD500: ("train/IMG_0030.JPG", "train/IMG_0030.gt"),
    DAST1500: ("train_image_and_gt/image/IMG_1.JPG", "train_image_and_gt/gt/IMG_1.txt"),
}
SQUARE = [[10, 10], [30, 10], [30, 20], [10, 20]]


@pytest.fixture
def read(tmp_path):
    """Writes one 60x40 picture and its annotation for a data set; gives the instances that it reads."""

    def run(dataset, content, *, split="train", **options):
        image, annotation = PLACES[dataset] if split == "train" else options.pop("places")
        write_image(tmp_path / image, np.zeros((40, 60, 3), np.uint8))
        (tmp_path / annotation).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / annotation).write_bytes(content if isinstance(content, bytes) else content.encode())
        read = dataset(split=split, data_root=str(tmp_path), pipeline=[], **options)
        assert len(read) == 1
        return read[0]["instances"]

    return run


def corners(instance):
    return instance["polygon"].tolist()


def test_icdar2015_reads_marks_commas_and_dont_care(read):
    content = "\ufeff10,10,30,10,30,20,10,20,Genaxis, Theatre\r\n1,1,9,1,9,9,1,9,###\r\n"
    first, second = read(ICDAR2015, content)
    assert corners(first) == SQUARE
    assert (first["text"], first["ignore"]) == ("Genaxis, Theatre", False)
    assert second["ignore"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("10,10,30,10,30,20,10,text", "line 2: 8 fields instead of 8 coordinates and a transcription"),
        ("10,10,30,10,30,20,x,20,text", "line 2: '10, 10, 30, 10, 30, 20, x, 20' are not numbers"),
        ("10,10,30,10,20,10,10,10,text", "line 2: broken polygon of 'text': the polygon has no area"),
        ("10,10,30,10,10,10,30,10,a", "line 2: broken polygon of 'a': fewer than three different corners"),
        (
            "70,10,90,10,90,20,70,20,a",
            "line 2: broken polygon of 'a': it lies outside the picture of 60 x",
        ),
        ("nan,10,30,10,30,20,10,20,a", "line 2: broken polygon of 'a': a corner is not finite"),
    ],
)
def test_a_broken_line_is_refused_by_file_and_number(read, line, message):
    with pytest.raises(UserError) as error:
        read(ICDAR2015, f"1,1,9,1,9,9,1,9,ok\n{line}\n")
    assert "gt_img_1.txt " + message in str(error.value)
    assert "\n" not in str(error.value)


def test_broken_texts_are_dropped_on_demand_and_dont_care_ones_always(read):
    found = read(ICDAR2015, "1,1,9,1,5,1,1,1,gone\n10,10,30,10,30,20,10,20,kept\n", drop_broken=True)
    assert [i["text"] for i in found] == ["kept"]
    assert read(ICDAR2015, "1,1,9,1,5,1,1,1,###\n") == []


def test_a_quadrilateral_that_crosses_itself_is_repaired(read):
    (found,) = read(ICDAR2015, "10,10,30,10,10,20,30,20,a\n")
    assert polygon_iou(found["polygon"], np.array(SQUARE)) == pytest.approx(1)
    assert np.array_equal(found["polygon"], clockwise(found["polygon"]))


def test_a_file_that_is_not_utf8_is_named(read):
    with pytest.raises(UserError, match=r"gt_img_1.txt: is not UTF-8 text"):
        read(ICDAR2015, b"1,1,9,1,9,9,1,9,caf\xe9\n")


def test_total_text_reads_both_forms(read):
    line = "x: [[10 30 30 10]], y: [[10 10\t20 20]], ornt: [u'{}'], transcriptions: [u'{}']\n"
    expected = [("it's", False), ("#", True), ("a", True)]
    text = line.format("c", "it's") + line.format("h", "#") + line.format("#", "a")
    found = read(TotalText, text)
    assert [(i["text"], i["ignore"]) for i in found] == expected
    assert corners(found[0]) == SQUARE
    table = np.empty((3, 6), object)
    for row, (word, orientation) in zip(table, [("it's", "c"), ("#", "h"), ("a", "#")], strict=True):
        x, y = np.array(SQUARE, np.int16).T
        row[:] = ["x:", x[None], "y:", y[None], word, orientation]
    content = BytesIO()
    savemat(content, {"polygt": table})
    places = ("Images/Test/img7.jpg", "Groundtruth/Polygon/Test/poly_gt_img7.mat")
    found = read(TotalText, content.getvalue(), split="test", places=places)
    assert [(i["text"], i["ignore"]) for i in found] == expected
    assert corners(found[0]) == SQUARE
    with pytest.raises(UserError, match=r"poly_gt_img7.mat: cannot be read as a .mat file"):
        read(TotalText, b"nonsense", split="test", places=places)
    with pytest.raises(UserError, match=r"poly_gt_img1.txt line 1: 3 x coordinates and 4 y coordinates"):
        read(TotalText, "x: [[10 30 30]], y: [[10 10 20 20]], ornt: [u'c'], transcriptions: [u'a']\n")


def test_ctw1500_reads_xml_its_test_files_and_the_first_release(read):
    outline = [[x, 10] for x in range(10, 24, 2)] + [[x, 20] for x in range(22, 8, -2)]
    numbers = ",".join(str(v) for point in outline for v in point)
    box = "<box height='10'><label>{}</label><segs>{}</segs></box>"
    boxes = box.format("OLATHE", numbers) + box.format("###", numbers)
    found = read(CTW1500, f"<Annotations><image>{boxes}</image></Annotations>")
    assert [(i["text"], i["ignore"], corners(i)) for i in found] == [
        ("OLATHE", False, outline),
        ("###", True, outline),
    ]
    places = ("test_images/1001.jpg", "gt_ctw1500/0001001.txt")
    (first, second) = read(CTW1500, f"{numbers},####a, b\n{numbers},#######\n", split="test", places=places)
    assert (first["text"], first["ignore"], second["ignore"]) == ("a, b", False, True)
    offsets = ",".join(str(v) for x, y in outline for v in (x - 10, y - 10))
    (old,) = read(CTW1500, f"10,10,22,20,{offsets}\n", split="test", places=places)
    assert corners(old) == outline
    with pytest.raises(UserError, match=r"0001001.txt line 1: 27 coordinates instead of 28"):
        read(CTW1500, numbers.rsplit(",", 1)[0], split="test", places=places)
    with pytest.raises(UserError, match=r"0001.xml: cannot be read as xml"):
        read(CTW1500, "<Annotations>")


def test_msra_td500_turns_rectangles_around_their_centre(read):
    upright, turned = read(MSRATD500, f"0 0 10 10 20 10 0\n1 1 20 10 20 10 {np.pi / 2}\n")
    assert corners(upright) == SQUARE
    assert (upright["ignore"], turned["ignore"]) == (False, True)
    # the top left corner goes to the top right
    np.testing.assert_allclose(turned["polygon"], [[35, 5], [35, 25], [25, 25], [25, 5]], atol=1e-4)
    (slanted,) = read(MSRATD500, "0 0 10 10 20 10 0.5\n")
    assert slanted["polygon"][1, 1] > slanted["polygon"][0, 1]  # clockwise: the right end goes down
    with pytest.raises(UserError, match=r"IMG_0030.gt line 2: id 0 is given twice"):
        read(MSRATD500, "0 0 10 10 20 10 0\n0 0 10 10 20 10 0\n")
    with pytest.raises(UserError, match=r"IMG_0030.gt line 1: 6 numbers instead of id, difficulty"):
        read(MSRATD500, "0 0 10 10 20 10\n")


def test_dast1500_reads_polygons_of_any_length_and_xml(read):
    lines = "10,10,30,10,30,20,10,20\n10,10,20,5,30,10,30,20,10,20,3,50 EUR\n1,1,9,1,9,9,###\n"
    found = read(DAST1500, lines)
    assert [len(i["polygon"]) for i in found] == [4, 5, 3]
    assert [(i["text"], i["ignore"]) for i in found] == [("", False), ("3,50 EUR", False), ("###", True)]
    with pytest.raises(UserError, match=r"IMG_1.txt line 1: 7 coordinates instead of x and y of"):
        read(DAST1500, "10,10,30,10,30,20,10\n")
    xml = (
        "<a><object><name>Tea</name><polygon><x1>10</x1><y1>10</y1><x2>30</x2><y2>10</y2>"
        "<x3>30</x3><y3>20</y3><x4>10</x4><y4>20</y4></polygon></object></a>"
    )
    places = ("test_image_and_gt/image/IMG_2.JPG", "test_image_and_gt/xml/IMG_2.xml")
    (found,) = read(DAST1500, xml, split="test", places=places)
    assert (found["text"], corners(found)) == ("Tea", SQUARE)


def test_polygons_turn_with_a_picture_that_exif_turns(tmp_path):
    """A bright patch is inside its polygon in the picture as it is read, for all eight orientations."""
    for orientation in range(1, 9):
        root = tmp_path / str(orientation)
        image, annotation = (root / place for place in PLACES[ICDAR2015])
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[8:16, 32:48] = 255
        image.parent.mkdir(parents=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(image, exif=exif, quality=95)
        annotation.parent.mkdir()
        annotation.write_text("32,8,48,8,48,16,32,16,patch\n")
        entry = ICDAR2015(split="train", data_root=str(root), pipeline=[])[0]
        upright = read_image(image)
        assert upright.shape[:2] == (entry["height"], entry["width"])
        (x1, y1), (x2, y2) = (
            f(entry["instances"][0]["polygon"], axis=0).astype(int) for f in (np.min, np.max)
        )
        assert upright[y1:y2, x1:x2].min() > 200
        assert upright.astype(int).sum() < 1.1 * upright[y1:y2, x1:x2].astype(int).sum()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="lacks Images/Train, Groundtruth/Polygon/Train"):
        TotalText(split="train", data_root=str(tmp_path))
    with pytest.raises(UserError, match=r"unknown split of CTW1500 'val'"):
        CTW1500(split="val", data_root=str(tmp_path))
    for folder in ("train_images", "ctw1500_train_labels"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match="no sample in"):
        CTW1500(split="train", data_root=str(tmp_path))
    write_image(tmp_path / "train_images/0001.jpg", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(UserError, match=r"0001.jpg: has no annotation file .*0001.xml"):
        CTW1500(split="train", data_root=str(tmp_path))
    (tmp_path / "ctw1500_train_labels/0001.xml").write_text("<Annotations/>")
    assert CTW1500(split="train", data_root=str(tmp_path), pipeline=[])[0]["instances"] == []
    (tmp_path / "ctw1500_train_labels/0002.xml").write_text("<Annotations/>")
    with pytest.raises(UserError, match=r"0002.xml: annotates no picture"):
        CTW1500(split="train", data_root=str(tmp_path))
    (tmp_path / "ctw1500_train_labels/0002.xml").unlink()
    write_image(tmp_path / "train_images/0001.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(UserError, match=r"0001.png: another picture has this name"):
        CTW1500(split="train", data_root=str(tmp_path))


def test_folders_may_be_given(tmp_path):
    write_image(tmp_path / "pictures/a.jpg", np.zeros((40, 60, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/gt_a.txt").write_text("10,10,30,10,30,20,10,20,a\n")
    read = ICDAR2015(split="test", folders=("pictures", "labels"), data_root=str(tmp_path), pipeline=[])
    assert corners(read[0]["instances"][0]) == SQUARE


def test_synth_text_reads_one_word_and_many(tmp_path):
    square = np.array(SQUARE, float).T
    boxes, texts = np.empty(2, object), np.empty(2, object)
    boxes[:] = [np.stack([square, square + 5], axis=2), square]
    texts[:] = [np.array(["two\nwords"]), np.array(["one "])]
    table = {"imnames": np.array(["8/a.jpg", "8/b.jpg"], object), "wordBB": boxes, "txt": texts}
    savemat(tmp_path / "gt.mat", table)
    read = SynthText(data_root=str(tmp_path), pipeline=[])
    assert [[i["text"] for i in entry["instances"]] for entry in read] == [["two", "words"], ["one"]]
    assert corners(read[1]["instances"][0]) == SQUARE
    assert read[0]["img_path"] == str(tmp_path / "8/a.jpg")
    texts[1] = np.array(["not one"])
    savemat(tmp_path / "gt.mat", table)
    with pytest.raises(UserError, match=r"gt.mat picture 2 \(8/b.jpg\): 1 quadrilaterals for 2 words"):
        SynthText(data_root=str(tmp_path), pipeline=[])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sample_data_are_read_in_their_layout(layout, tmp_path):
    write_layout(tmp_path, layout, (1, 1), np.random.default_rng(3))
    train, test = check_folder(tmp_path, layout)
    assert (train.pictures, test.pictures) == (1, 1)
    assert train.faults == test.faults == train.repaired == []
    # the same lines are drawn from the same seed; what is read is what was set
    _, lines = scene(STYLES[layout], np.random.default_rng(3))
    first = LAYOUTS[layout](split="train", data_root=str(tmp_path), pipeline=[])[0]["instances"]
    words = layout in ("icdar2015", "totaltext")
    polygons = [p for line in lines for p in (line.word_polygons(30) if words else [line.polygon(30)])]
    assert len(first) == len(polygons) > 1
    assert all(polygon_iou(i["polygon"], p) > 0.8 for i, p in zip(first, polygons, strict=True))


def test_ink_of_a_sample_lies_inside_its_polygons():
    lines = [line for seed in range(3) for line in scene(STYLES["totaltext"], np.random.default_rng(seed))[1]]
    assert {type(line.baseline).__name__ for line in lines} == {"Flat", "Arc", "Wave"}
    for line in lines:
        ink, (x, y) = bend(line.strip, line.baseline, (352, 384))
        height, width = ink.shape
        inside = rasterize(line.polygon(30), (x, y, x + width, y + height), (height, width))
        assert ink[inside].sum() > 0.97 * ink.sum()


def test_the_same_seed_gives_the_same_samples(tmp_path):
    for name in ("a", "b"):
        write_layout(tmp_path / name, "totaltext", (1, 1), np.random.default_rng(5))
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 4
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_the_checker_names_all_faults(tmp_path):
    write_layout(tmp_path, "icdar2015", (2, 1), np.random.default_rng(0))
    labels = tmp_path / "ch4_training_localization_transcription_gt"
    (labels / "gt_img_1.txt").write_text("1,1,9,1\n1,1,9,1,5,1,1,1,flat\n10,10,30,10,10,20,30,20,crossed\n")
    (labels / "gt_img_2.txt").unlink()
    result = CliRunner().invoke(app, ["check-text", str(tmp_path), "--layout", "icdar2015"])
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    for expected in ("line 1: 4 fields", "line 2: broken polygon", "img_2.jpg: has no annotation file"):
        assert expected in text
    train = check_folder(tmp_path, "icdar2015")[0]
    assert (train.texts, len(train.repaired), len(train.faults)) == (1, 1, 3)
    with pytest.raises(UserError, match="unknown layout of text data 'icdar15'; did you mean icdar2015"):
        check_folder(tmp_path, "icdar15")


def test_doctor_recognises_layouts_in_a_folder_and_below(tmp_path):
    write_layout(tmp_path / "mine", "msratd500", (1, 1), np.random.default_rng(0))
    (tmp_path / "other" / "train").mkdir(parents=True)  # a folder of any kind
    train, test = check([tmp_path])
    assert (train.what, train.mend) == (f"msratd500 train in {tmp_path / 'mine'}", "")
    (tmp_path / "mine/test/IMG_0031.gt").write_text("0 0 1\n")
    _, test = check([tmp_path / "mine"])
    assert "IMG_0031.gt line 1: 3 numbers instead of" in test.found
    assert test.mend == f"opsin check-text {tmp_path / 'mine'} --layout msratd500 tells all"
