"""From sample data to predictions, through the ordinary commands."""

import csv
import json
import logging
import shutil
from dataclasses import replace

import cv2
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from highdicom.seg import segread

from opsin.core.cli import main
from opsin.core.data.image import read_image, write_image
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError
from opsin.medical.cases import find_cases
from opsin.medical.privacy import find_leaks, identities
from opsin.medical.segmentation.datasets import SynapseDataset
from opsin.medical.segmentation.dicom_seg import write_segmentation
from opsin.medical.segmentation.predictor import MedicalSegmentationPredictor
from opsin.medical.segmentation.samples import write_dicom
from opsin.medical.volumes import read_volume

SETTINGS = [
    f"{loader}_dataloader.{setting}"
    for loader in ("train", "val", "test")
    for setting in ("num_workers=0", "persistent_workers=False")
]


def opsin(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 0


def test_training_resumes_learns_tissue_and_predicts_volumes_and_pictures(segmentation_samples, tmp_path):
    data, work, config = segmentation_samples / "synapse", tmp_path / "work", "mhs_vm_tiny_synapse_samples"
    short = [*SETTINGS, "train_cfg.val_interval=60", "default_hooks.checkpoint.interval=30"]
    options = ["--data", data, "--work-dir", work, *short, "param_scheduler.0.end=60"]
    opsin("train", config, *options, "train_cfg.max_iters=30")
    opsin("train", config, *options, "train_cfg.max_iters=60", "--resume")
    opsin("test", config, work / "iter_60.pth", "--data", data, *SETTINGS[-2:])
    metrics = json.loads((work / "test" / "metrics.json").read_text())
    dataset = SynapseDataset(split="test", data_root=str(data), classes=("b", "grey", "white"), pipeline=[])
    labels = np.stack([dataset[i]["gt_label"] for i in range(2)])
    all_grey = 2 * (labels == 1).mean() / (1 + (labels == 1).mean())
    assert metrics["seg/dice"] > 2 * all_grey / 2  # twice the mean of its Dice and white matter's 0
    picture = cv2.resize(read_image(segmentation_samples / "slices/val/Img/Subj_5slice_4.png"), (150, 101))
    write_image(tmp_path / "in" / "wide.png", picture)
    head = nib.load(segmentation_samples / "volumes" / "val" / "images" / "subject_05.nii.gz")
    (tmp_path / "in" / "deep").mkdir()
    nib.save(head.slicer[:, 30:33], tmp_path / "in" / "deep" / "head.nii.gz")  # its second axis runs upwards
    opsin("predict", config, work, tmp_path / "in", "--out", tmp_path / "out")
    found = read_image(tmp_path / "out" / "wide.png")[..., 0]
    assert found.shape == (101, 150) and set(np.unique(found)) == {0, 1, 2}
    assert nib.load(tmp_path / "out" / "deep" / "head.nii.gz").shape == (78, 3, 66)
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert records[1]["share"]["white matter"] == pytest.approx((found == 2).mean())


def test_multi_scale_attention_learns_slices_and_writes_volumes(segmentation_samples, tmp_path):
    data, work = segmentation_samples / "slices", tmp_path / "work"
    config = "multi_scale_attention_tiny_samples"
    short = ["train_cfg.max_iters=24", "param_scheduler.0.end=24", "val_dataloader.dataset.indices=9",
             "default_hooks.checkpoint.interval=24"]  # fmt: skip
    opsin("train", config, "--data", data, "--work-dir", work, *SETTINGS, *short)
    results = tmp_path / "results"
    opsin("test", config, work, "--data", data, *SETTINGS, f"test_evaluator.out_dir={results}")
    metrics = json.loads((work / "test" / "metrics.json").read_text())
    assert metrics["seg/dice"] > 0.35  # all grey matter: 0.5 * its Dice of 0.3
    assert len(list((results / "slices").iterdir())) == 18
    assert nib.load(results / "volumes" / "Subj_7.nii").shape == (64, 64, 9)
    assert set(json.loads((results / "subjects.json").read_text())) == {"Subj_7", "Subj_8"}
    opsin("predict", config, work, data / "test" / "Img", "--out", tmp_path / "out")
    labels = read_image(tmp_path / "out" / "Subj_7slice_4.png")[..., 0]
    assert labels.shape == (64, 64) and set(np.unique(labels)) <= {0, 63, 126}


# Prediction on volumes, with an untrained network.


@pytest.fixture
def predictor():
    cfg = load_config("mhs_vm_tiny_volumes_samples")
    return MedicalSegmentationPredictor(cfg, None)


@pytest.fixture
def head(segmentation_samples):
    return segmentation_samples / "volumes" / "val" / "images" / "subject_05.nii.gz"


def test_volumes_come_back_in_their_own_space_with_a_table(predictor, head, tmp_path):
    original = nib.load(head)
    small = nib.Nifti1Image(original.get_fdata()[::2, ::2, ::6].astype(np.float32), original.affine)
    nib.save(small, tmp_path / "small.nii.gz")
    (record,) = predictor.predict([tmp_path / "small.nii.gz"], tmp_path / "out", quiet=True)
    written = nib.load(tmp_path / "out" / "small.nii.gz")
    assert written.shape == small.shape and nib.aff2axcodes(written.affine) == nib.aff2axcodes(small.affine)
    np.testing.assert_allclose(written.affine, small.affine)
    counts = np.bincount(np.asarray(written.dataobj).ravel().astype(int), minlength=3)
    assert record["volume_ml"]["white matter"] == pytest.approx(counts[2] * 0.027, abs=1e-3)
    with (tmp_path / "out" / "volumes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["grey matter (ml)"]) == record["volume_ml"]["grey matter"]
    assert read_image(tmp_path / "out" / "pictures" / "small.png").shape[0] >= 256


def test_volumes_of_one_value_and_one_slice_are_segmented(predictor, tmp_path):
    for name, shape in (("constant", (20, 24, 3)), ("flat", (20, 24))):
        nib.save(nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), tmp_path / f"{name}.nii")
    records = predictor.predict(
        [tmp_path / "constant.nii", tmp_path / "flat.nii"], tmp_path / "out", quiet=True
    )
    assert [record["shape"] for record in records] == [[20, 24, 3], [20, 24, 1]]


def test_nothing_tells_who_the_patient_is(predictor, tmp_path, caplog, capfd):
    folder = tmp_path / "in" / "Planted_Erika_19551231"
    write_dicom(folder, np.random.rand(32, 32, 3), seed=1)
    for path in list(folder.iterdir()):
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID, data.PatientBirthDate = "Planted^Erika", "ZX-4711-Q", "19551231"
        data.save_as(path)
    broken = tmp_path / "in" / "ZX-4711-Q"
    shutil.copytree(folder, broken)
    for path in list(broken.iterdir()):
        data = pydicom.dcmread(path)
        if float(data.ImagePositionPatient[2]) > -70:
            data.Rows = 16
            data.save_as(path)
    with caplog.at_level(logging.DEBUG):
        records = predictor.predict([tmp_path / "in"], tmp_path / "out", on_error="skip", quiet=True)
    assert sorted("error" in record for record in records) == [False, True]
    assert (tmp_path / "out" / "patient_patient_patient.nii.gz").is_file()
    identity = identities([tmp_path / "in"])
    assert find_leaks(tmp_path / "out", identity) == []
    said = " ".join([caplog.text, *capfd.readouterr(), json.dumps(records)]).lower()
    said = said.replace(str(tmp_path).lower(), "")
    assert not any(secret in said for secret in identity)
    assert main_code("medical", "privacy", tmp_path / "out", tmp_path / "in") == 0
    assert main_code("medical", "privacy", tmp_path / "in", tmp_path / "in") == 1


def main_code(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def test_check_tells_what_is_wrong_by_its_exit_code(tmp_path, capsys):
    write_image(tmp_path / "images" / "a.png", np.zeros((4, 4, 3), np.uint8))
    write_image(tmp_path / "masks" / "a.png", np.zeros((4, 4), np.uint8))
    assert main_code("medical", "check", tmp_path) == 0
    write_image(tmp_path / "masks" / "b.png", np.zeros((4, 4), np.uint8))
    assert main_code("medical", "check", tmp_path) == 1
    assert "pair by their sorted names" in " ".join(capsys.readouterr().out.split())


def test_folders_are_walked_and_names_are_unique(head, tmp_path):
    write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    shutil.copy(head, tmp_path / "a.nii.gz")
    write_dicom(tmp_path / "deep" / "scan", np.random.rand(4, 4, 2), seed=0)
    cases = find_cases([tmp_path])
    assert sorted((case.kind, case.name.as_posix()) for case in cases) == [
        ("picture", "a_2"),
        ("series", "deep/scan"),
        ("volume", "a"),
    ]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no picture, volume or DICOM series"):
        find_cases([tmp_path / "none"])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="neither a picture nor a volume"):
        find_cases([tmp_path / "notes.txt"])


def test_a_series_becomes_a_segmentation_object_in_its_place(tmp_path):
    folder = tmp_path / "Planted"
    write_dicom(folder, np.random.rand(32, 36, 4), seed=1)
    for path in list(folder.iterdir()):
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID = "Planted^Erika", "ZX-4711-Q"
        data.save_as(path)
    cfg = load_config("mhs_vm_tiny_volumes_samples", overrides=["dicom_seg=True"])
    MedicalSegmentationPredictor(cfg, None).predict([folder], tmp_path / "out", quiet=True)
    found, labels = tmp_path / "out" / "patient.seg.dcm", nib.load(tmp_path / "out" / "patient.nii.gz")
    segmentation = segread(found)
    assert [s.SegmentLabel for s in segmentation.SegmentSequence] == ["grey matter", "white matter"]
    back = segmentation.get_volume(
        combine_segments=True
    )  # slices, rows, columns; x to the left, y to the back
    affine = np.diag((-1.0, -1.0, 1.0, 1.0)) @ back.affine[:, [2, 1, 0, 3]]
    read = nib.as_closest_canonical(nib.Nifti1Image(back.array.transpose(2, 1, 0), affine))
    written = nib.as_closest_canonical(labels)
    assert len(np.unique(read.dataobj)) > 1
    np.testing.assert_array_equal(read.dataobj, written.dataobj)
    np.testing.assert_allclose(read.affine, written.affine, atol=1e-5)
    own = {pydicom.dcmread(path).SOPInstanceUID for path in folder.iterdir()}
    (series,) = segmentation.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == own
    assert find_leaks(tmp_path / "out", identities([folder])) == []


def test_a_series_without_a_frame_of_reference_has_no_segmentation_object(tmp_path):
    write_dicom(tmp_path / "scan", np.random.rand(8, 8, 2), seed=1)
    for path in list((tmp_path / "scan").iterdir()):
        data = pydicom.dcmread(path)
        del data.FrameOfReferenceUID
        data.save_as(path)
    volume = read_volume(tmp_path / "scan")
    labels = np.zeros(volume.shape, np.uint8)
    with pytest.raises(UserError, match="no FrameOfReferenceUID"):
        write_segmentation(tmp_path / "a.dcm", labels, volume, ("background", "brain"))
    with pytest.raises(UserError, match="needs a DICOM series"):
        write_segmentation(tmp_path / "a.dcm", labels, replace(volume, files=()), ("background", "brain"))


def test_a_picture_for_a_network_of_volumes_is_told(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    predictor = MedicalSegmentationPredictor(load_config("unet_volumes_samples"), None)
    with pytest.raises(UserError, match="given to a network that takes volumes"):
        predictor.predict([tmp_path / "a.png"], tmp_path / "out", quiet=True)


def test_a_volume_network_runs_in_windows(head, tmp_path):
    predictor = MedicalSegmentationPredictor(load_config("unet_volumes_samples"), None)
    with torch.inference_mode():
        (record,) = predictor.predict([head], tmp_path / "out", quiet=True)
    assert nib.load(tmp_path / "out" / "subject_05.nii.gz").shape == tuple(record["shape"]) == (78, 63, 66)
