import gzip
import logging
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from opsin.core.errors import UserError
from opsin.medical.privacy import find_leaks, identities
from opsin.medical.segmentation.samples import write_dicom
from opsin.medical.volumes import (
    Volume,
    axial_slices,
    conceal,
    find_series,
    from_axial_slices,
    patient_identity,
    read_labels,
    read_volume,
    stem,
    write_labels,
)

AFFINE = np.array([[2.0, 0, 0, -10], [0, 3, 0, -20], [0, 0, 4, 5], [0, 0, 0, 1]])


def stored(path, values, codes="RAS", affine=AFFINE):
    """Writes `values`, given in RAS+, in another orientation."""
    image = nib.Nifti1Image(values, affine)
    start, end = (nib.orientations.axcodes2ornt(c) for c in ("RAS", codes))
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(start, end)), path)
    return path


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "SAL", "LAS"])
def test_every_orientation_is_seen_as_one_and_written_as_it_was(tmp_path, values, codes):
    path = stored(tmp_path / "a.nii.gz", values, codes)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values, values)
    assert volume.spacing == (2, 3, 4) and volume.voxel_ml == pytest.approx(0.024)
    labels = (values > 0).astype(np.uint8)
    write_labels(tmp_path / "out.nii.gz", labels, volume)
    original, written = nib.load(path), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(written.affine, original.affine)
    assert written.shape == original.shape and nib.aff2axcodes(written.affine) == tuple(codes)
    np.testing.assert_array_equal(np.asarray(written.dataobj) > 0, np.asarray(original.dataobj) > 0)
    np.testing.assert_array_equal(read_labels(tmp_path / "out.nii.gz", 2, volume), labels)


def test_axial_slices_show_the_front_above_and_come_back(values):
    slices = axial_slices(values)
    assert slices.shape == (7, 6, 5) and slices[2, 0, 4] == values[4, 5, 2]
    np.testing.assert_array_equal(from_axial_slices(slices), values)


def test_written_labels_keep_nothing_of_the_header_but_the_place(tmp_path, values):
    image = nib.Nifti1Image(values, AFFINE)
    image.header["descrip"], image.header["db_name"] = b"Jane Doe", b"Doe"
    nib.save(image, tmp_path / "a.nii")
    write_labels(tmp_path / "b.nii.gz", np.zeros(values.shape, np.uint8), read_volume(tmp_path / "a.nii"))
    packed = (tmp_path / "b.nii.gz").read_bytes()
    assert b"doe" not in gzip.decompress(packed).lower()
    assert packed[3] == 0 and packed[4:8] == b"\0\0\0\0"  # gzip keeps neither a name nor a time


def test_files_of_nibabel_are_read():
    folder = nib.__path__[0] + "/tests/data/"
    assert read_volume(folder + "anatomical.nii").values.shape == (33, 41, 25)
    with pytest.raises(UserError, match="4 dimensions"):
        read_volume(folder + "example4d.nii.gz")


def test_a_flat_volume_is_one_slice(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((4, 5), np.float32), np.eye(4)), tmp_path / "flat.nii")
    assert read_volume(tmp_path / "flat.nii").values.shape == (4, 5, 1)


def test_damaged_files_are_named(tmp_path, values):
    whole = stored(tmp_path / "whole.nii.gz", values).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.nii").write_text("no volume")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    for name in ("cut.nii.gz", "text.nii", "empty.nii.gz"):
        with pytest.raises(UserError, match=f"{name} is truncated, damaged or no volume"):
            read_volume(tmp_path / name)
    with pytest.raises(UserError, match="no volume at"):
        read_volume(tmp_path / "absent.nii")


def test_values_that_are_no_numbers_become_the_least_or_are_refused(tmp_path, values):
    values[0, 0, 0] = np.nan
    assert read_volume(stored(tmp_path / "a.nii", values)).values.min() == np.nanmin(values)
    with pytest.raises(UserError, match="holds no numbers"):
        read_volume(stored(tmp_path / "b.nii", np.full((2, 2, 2), np.nan, np.float32)))


def test_an_affine_without_size_is_refused(tmp_path, values):
    image = nib.Nifti1Image(values, None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = image.header["srow_y"] = (1, 0, 0, 0)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(UserError, match="gives its voxels no size"):
        read_volume(tmp_path / "a.nii")


def test_labels_beyond_the_classes_or_elsewhere_are_refused(tmp_path, values):
    volume = read_volume(stored(tmp_path / "a.nii", values))
    labels = np.zeros(values.shape, np.uint8)
    labels[0, 0, :2] = 3, 7
    with pytest.raises(UserError, match=r"has the values 3, 7, and classes are 0 to 2"):
        read_labels(stored(tmp_path / "l.nii", labels), 3, volume)
    with pytest.raises(UserError, match=r"the values 0\.5"):
        read_labels(stored(tmp_path / "h.nii", np.full(values.shape, 0.5, np.float32)), 3)
    with pytest.raises(UserError, match="5x6x6, their volume is 5x6x7"):
        read_labels(stored(tmp_path / "s.nii", labels[..., 1:] * 0), 3, volume)
    with pytest.raises(UserError, match="the affines differ"):
        read_labels(stored(tmp_path / "m.nii", labels * 0, affine=2 * AFFINE), 3, volume)


def test_stem_drops_both_suffixes(tmp_path):
    assert stem(tmp_path / "a.b.nii.gz") == "a.b" and stem(tmp_path / "x.mgz") == "x"


# DICOM.


@pytest.fixture
def series(tmp_path, values):
    folder = tmp_path / "scan"
    write_dicom(folder, np.abs(values), seed=3)
    return folder


def edit(path, **tags):
    data = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path)


def test_a_series_is_sorted_by_position_placed_and_rescaled(series, values):
    volume = read_volume(series)
    np.testing.assert_allclose(volume.values, np.abs(values) * 1000, atol=0.3)
    assert volume.spacing == (3, 3, 3) and len(volume.files) == volume.shape[2]
    np.testing.assert_allclose(volume.affine @ (0, 0, 0, 1), (97, 98, -72, 1))  # the first voxel, in RAS+
    assert nib.aff2axcodes(volume.affine) == ("L", "P", "S")


def test_a_single_slice_of_pydicom_is_read_in_its_unit():
    path = get_testdata_file("CT_small.dcm")
    volume, own = read_volume(path), pydicom.dcmread(path)
    assert volume.shape == (128, 128, 1)
    expected = own.pixel_array.astype(float).T * float(own.RescaleSlope) + float(own.RescaleIntercept)
    np.testing.assert_allclose(volume.as_stored(volume.values)[..., 0], expected)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (dict(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "mixes orientations"),
        (dict(PixelSpacing=[1, 1]), "mixes pixel spacings"),
        (dict(ImagePositionPatient=None), "no ImagePositionPatient"),
        (dict(NumberOfFrames=3), "several frames"),
        (dict(ImagePositionPatient=[-97, -98, -72.0]), "two slices in one place"),
        (dict(SeriesInstanceUID="1.2.3"), r"2 DICOM series \(\d, \d files\)"),
    ],
)
def test_series_that_are_no_volume_are_told(series, tags, message):
    edit(max(series.iterdir()), **tags)
    if "two slices" in message:
        edit(min(series.iterdir()), **tags)
    with pytest.raises(UserError, match=message):
        read_volume(series)


def test_a_missing_slice_is_told_with_its_place(series):
    by_place = sorted(series.iterdir(), key=lambda p: float(pydicom.dcmread(p).ImagePositionPatient[2]))
    by_place[3].unlink()
    with pytest.raises(
        UserError, match=r"lacks slices: between -66\.0 and -60\.0 mm are 6\.00 mm, elsewhere 3\.00"
    ):
        read_volume(series)


def test_damaged_dicom_files_are_told(series, tmp_path):
    path = max(series.iterdir())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"can't be decoded|truncated"):
        read_volume(series)
    (tmp_path / "none.dcm").write_text("no DICOM")
    with pytest.raises(UserError, match="no DICOM file"):
        read_volume(tmp_path / "none.dcm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no DICOM file"):
        read_volume(tmp_path / "empty")


# Privacy.

SECRETS = dict(PatientName="Planted^Erika", PatientID="ZX-4711-Q", PatientBirthDate="19551231")


def plant(folder):
    for path in folder.iterdir():
        edit(path, **SECRETS)


def test_identity_is_whole_values_and_parts_of_names(series):
    plant(series)
    identity = patient_identity(next(series.iterdir()))
    assert {"planted^erika", "planted", "erika", "zx-4711-q", "19551231"} <= identity
    assert conceal("/data/PLANTED_erika/19551231", identity) == "/data/patient_patient/patient"


def test_reading_and_failing_say_nothing_of_the_patient(series, tmp_path, caplog, recwarn, capfd):
    plant(series)
    folder = shutil.move(series, tmp_path / "Planted_Erika")
    for path in folder.iterdir():  # a date that breaks DICOM's rules, which pydicom would quote
        edit(path, PatientBirthDate="1955-PLANTED")
    broken = shutil.copytree(folder, tmp_path / "Erika_broken")
    edit(max(broken.iterdir()), Rows=3)
    caplog.clear()
    recwarn.clear()
    with caplog.at_level(logging.DEBUG):
        assert "planted" not in repr(read_volume(folder)).lower()
        with pytest.raises(UserError, match="mixes sizes") as error:
            read_volume(broken)
    said = [str(error.value), caplog.text, *(str(w.message) for w in recwarn.list), *capfd.readouterr()]
    text = " ".join(said).lower()
    assert not any(secret in text for secret in ("planted", "erika", "4711", "1955"))


def test_leaks_are_found_in_names_text_and_packed_headers(series, tmp_path):
    plant(series)
    identity, out = identities([series]), tmp_path / "out"
    out.mkdir()
    (out / "clean.json").write_text("{}")
    assert find_leaks(out, identity) == []
    (out / "ERIKA.png").write_bytes(b"")
    (out / "log.txt").write_text("read patient zx-4711-q")
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    image.header["descrip"] = b"Planted"
    nib.save(image, out / "a.nii.gz")
    found = {(leak.path.name, leak.where) for leak in find_leaks(out, identity)}
    assert found == {("ERIKA.png", "name"), ("log.txt", "content"), ("a.nii.gz", "content")}
    with pytest.raises(UserError, match="no DICOM file"):
        identities([out])


def test_series_of_a_folder_are_told_apart(series):
    edit(max(series.iterdir()), SeriesInstanceUID="1.2.3")
    assert sorted(len(files) for files in find_series(series)) == [1, 6]


def test_of_keeps_the_values_of_an_oblique_volume(values):
    turn = np.eye(4)
    angle = np.deg2rad(20)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    volume = Volume.of(values, turn @ AFFINE)
    np.testing.assert_array_equal(volume.as_stored(volume.values), values)
    assert volume.spacing == pytest.approx((2, 3, 4))
