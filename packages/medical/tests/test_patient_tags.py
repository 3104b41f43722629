"""Who a patient is appears nowhere in what opsin writes or says; `opsin doctor` finds it where it does."""

import json
import logging
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from opsin.core.cli import main
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError
from opsin.medical.checks import check_folder
from opsin.medical.pretraining.predictor import ReconstructionPredictor
from opsin.medical.privacy import check, find_leaks, identities
from opsin.medical.segmentation.datasets import VolumeDataset
from opsin.medical.segmentation.samples import write_dicom
from opsin.medical.volumes import patient_identity, read_volume, write_labels

NAME = "Planted_Erika_19551231"


def plant(folder: Path, **more: object) -> Path:
    """Gives every DICOM file of `folder` a patient."""
    for path in list(folder.iterdir()):
        data = pydicom.dcmread(path)
        data.PatientName, data.PatientID, data.PatientBirthDate = "Planted^Erika", "ZX-4711-Q", "19551231"
        for tag, value in more.items():
            setattr(data, tag, value)
        data.save_as(path)
    return folder


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Volumes with labels: one DICOM series whose folder tells the patient's name and birth date."""
    root = tmp_path / "scans"
    for split in ("train", "val"):
        series = root / split / "images" / NAME
        write_dicom(series, np.random.rand(64, 64, 3), seed=1)
        volume = read_volume(plant(series))
        (root / split / "labels").mkdir()
        labels = (volume.values > volume.values.mean()).astype(np.uint8)
        write_labels(root / split / "labels" / f"{NAME}.nii.gz", labels, volume)
    return root


def test_training_and_testing_on_a_patients_series_write_and_say_nothing_of_them(scans, tmp_path, capfd):
    work = tmp_path / "work"
    quick = ["train_cfg.max_iters=1", "train_cfg.val_interval=1", "train_dataloader.batch_size=1"]
    alone = [
        f"{loader}_dataloader.{setting}"
        for loader in ("train", "val", "test")
        for setting in ("num_workers=0", "persistent_workers=False")
    ]
    config = ["mhs_vm_tiny_volumes_samples"]
    for verb in (["train", *config, "--work-dir", work], ["test", *config, work]):
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in [*verb, "--data", scans, *quick, *alone]])
        assert end.value.code == 0
    identity = identities([scans])
    assert len(list(work.rglob("*.*"))) > 4 and find_leaks(work, identity) == []
    said = " ".join(capfd.readouterr()).lower()
    assert "iter" in said and not any(secret in said for secret in identity)


def test_errors_of_data_sets_and_the_checker_conceal_the_patient(scans, caplog):
    identity = identities([scans])
    said = []
    for report in check_folder(scans, 2):
        said += [str(report.folder), *report.problems, *report.remarks]
    few = dict(data_root=str(scans / "train"), classes=("background", "bright"), pipeline=[])
    label = scans / "train" / "labels" / f"{NAME}.nii.gz"
    wrong = nib.load(label)
    with caplog.at_level(logging.DEBUG):
        for values in (np.full(wrong.shape, 7, np.uint8), np.zeros((2, 2, 2), np.uint8), None):
            if values is None:
                label.unlink()
            else:
                nib.save(nib.Nifti1Image(values, wrong.affine), label)
            with pytest.raises(UserError) as error:
                VolumeDataset(**few)[0]
            said.append(str(error.value))
    assert "values 7" in said[-3] and "their volume" in said[-2] and "no labels" in said[-1]
    text = " ".join([*said, caplog.text]).lower()
    assert not any(secret in text for secret in identity)


def test_series_among_pretraining_volumes_are_one_input_without_a_name(scans, tmp_path, capfd):
    out = tmp_path / "out"
    predictor = ReconstructionPredictor(load_config("uni4eye_mini_samples"), None)
    flat = shutil.copytree(scans / "val" / "images" / NAME, tmp_path / "flat" / NAME)
    plant(flat, PixelData=bytes(2 * 64 * 64))
    inputs = [scans / "train" / "images", tmp_path / "flat"]
    records = predictor.predict(inputs, out, on_error="skip", quiet=True)
    assert [list(record) for record in records] == [["file", "explained"], ["file", "error"]]
    assert [p.name for p in (out / "pictures").iterdir()] == ["patient_patient_patient.png"]
    identity = identities([scans])
    assert find_leaks(out, identity) == []
    said = " ".join([*capfd.readouterr(), json.dumps(records)]).lower()
    assert "is constant" in said and not any(secret in said for secret in identity)


def test_birth_dates_are_known_in_the_ways_that_people_write_them(scans):
    identity = patient_identity(next((scans / "val" / "images" / NAME).iterdir()))
    assert {"1955-12-31", "31.12.1955", "12/31/1955", "19551231"} <= identity
    assert "1955" not in identity


def test_leaks_are_found_in_packed_files(scans, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with zipfile.ZipFile(out / "deflated.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes", "x" * 100 + "Planted^Erika" + "x" * 100)
    (out / "far.bin").write_bytes(b"\0" * ((1 << 22) - 4) + b"ZX-4711-Q")  # across two pieces
    (out / "clean.bin").write_bytes(b"\0" * 100)
    found = {leak.path.name for leak in find_leaks(out, identities([scans]))}
    assert found == {"deflated.zip", "far.bin"}


def test_doctor_names_tags_in_data_names_of_results_and_headers(scans, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    nib.save(image, out / "clean.nii.gz")
    (clean,) = check([out])
    assert not clean.mend and "no DICOM file to compare with" in clean.found
    image.header["db_name"] = b"somebody"
    nib.save(image, out / "header.nii")
    (out / "report.txt").write_text("seen on 31.12.1955")
    found = [finding.found for finding in check([scans / "val" / "images", out])]
    assert found[0] == "in 3 DICOM files"
    assert any(line.startswith("content of") and line.endswith("report.txt") for line in found)
    assert any(line.endswith("header.nii") for line in found) and not any("clean" in line for line in found)
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--json", str(scans / "val" / "images"), str(out)])
    said = capsys.readouterr().out.lower()
    assert end.value.code == 1 and "in 3 dicom files" in said
    assert not any(secret in said for secret in identities([scans]))
