"""Small data sets of real anatomy that wheels carry, in the layouts that the task reads.

    isic/{train,val}/{images,masks}/*.png           parts of scikit-image's retina, and its vessels
    slices/{train,val,test}/{Img,GT}/*.png          axial slices of nilearn's MNI152 brain
    synapse/{train_npz,test_vol_h5,lists}/…         the same brain as Synapse's slices and volumes
    volumes/{train,val}/{images,labels}/*.nii.gz    … as NIfTI of several orientations and spacings
    dicom/brain/*.dcm                               … as a DICOM series, its files in no order

There is one retina and one brain. Subjects are random deformations of the brain, brightened and blurred
differently, and training and validation see different parts of the retina: they show that learning works, not
how a network would do on other people. The vessels are what a ridge filter finds, not what a person drew.
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from opsin.core.data.image import read_image, write_image
from opsin.core.files import write_atomically
from opsin.medical.segmentation.datasets.mni152 import mni152
from opsin.medical.segmentation.datasets.pictures import GREY_STEP
from opsin.medical.volumes import axial_slices

Array = NDArray[Any]

CROP = 64  # side of a part of the retina
RETINA_SHARE = 4  # the retina is reduced by this
VESSEL_SHARE = 0.1  # of the pixels inside the eye that the strongest ridges are taken for
SPACING = 3.0  # millimetres of the brain's voxels
SLICE_SIZE = (64, 64)
SUBJECTS = {"train": (1, 2, 3, 4), "val": (5, 6), "test": (7, 8)}
SLICES = slice(12, 48, 4)  # of a subject's axial slices: those that show most
ORIENTATIONS = ("RAS", "LPS", "RAS", "LAS", "PSR", "RAS")  # how the volumes of the subjects are stored
CLASSES = 3  # background, grey matter, white matter


def write_samples(directory: Path, seed: int = 0) -> None:
    """Writes the five data sets, about 4 MB.

    Args:
        directory: where to; made if it is not there.
        seed: decides deformations and crops.

    Raises:
        UserError: if a wheel lacks its pictures, or `directory` cannot be written.
    """
    write_retina(directory / "isic", seed)
    subjects = {n: subject(n, seed) for numbers in SUBJECTS.values() for n in numbers}
    write_slices(directory / "slices", subjects)
    write_synapse(directory / "synapse", subjects)
    write_volumes(directory / "volumes", subjects)
    write_dicom(directory / "dicom" / "brain", subjects[8][0], seed)


def write_retina(directory: Path, seed: int) -> None:
    """Crops of the retina's left half to train, of its right half to validate."""
    picture, vessels, inside = retina()
    half = picture.shape[1] // 2
    for split, columns, count in (("train", slice(None, half), 40), ("val", slice(half, None), 12)):
        rng = np.random.default_rng([seed, count])
        eye = ndimage.minimum_filter(inside[:, columns], CROP, origin=-(CROP // 2), mode="constant")
        corners = np.argwhere(eye)
        for number, (y, x) in enumerate(corners[rng.choice(len(corners), count, replace=False)]):
            part = slice(y, y + CROP), slice(x, x + CROP)
            name = f"retina_{number:03d}.png"
            write_image(directory / split / "images" / name, np.ascontiguousarray(picture[:, columns][part]))
            mask = vessels[:, columns][part].astype(np.uint8) * 255
            write_image(directory / split / "masks" / name, mask)


@cache
def retina() -> tuple[Array, Array, Array]:
    """scikit-image's retina, RGB (H, W, 3) uint8, its vessels (H, W) bool, and what lies inside the eye."""
    import skimage
    from skimage.filters import sato

    full = read_image(Path(skimage.__file__).parent / "data" / "retina.jpg")
    height, width = (side // RETINA_SHARE for side in full.shape[:2])
    tiles = full[: height * RETINA_SHARE, : width * RETINA_SHARE]
    tiles = tiles.reshape(height, RETINA_SHARE, width, RETINA_SHARE, 3)
    picture = tiles.mean((1, 3)).round().astype(np.uint8)
    inside = ndimage.binary_erosion(picture.sum(-1) > 60, iterations=8)
    ridges = sato(picture[..., 1].astype(float), sigmas=(1, 2, 3), black_ridges=True)
    return picture, inside & (ridges > np.quantile(ridges[inside], 1 - VESSEL_SHARE)), inside


def subject(number: int, seed: int) -> tuple[Array, Array]:
    """A deformed brain (X, Y, Z), float32 from 0 on, and its classes, uint8."""
    rng = np.random.default_rng([seed, number])
    image, classes = mni152(SPACING)
    centre = (np.array(image.shape) - 1) / 2
    matrix = np.eye(3) + rng.normal(0, 0.05, (3, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij")).astype(np.float32)
    shift = np.stack([_smooth(rng, image.shape) * 2 for _ in range(3)])
    where = np.einsum("ij,jxyz->ixyz", matrix, grid - centre[:, None, None, None])
    where += centre[:, None, None, None] + shift
    moved = ndimage.map_coordinates(image, where, order=1)
    labels = ndimage.map_coordinates(classes, where, order=0)
    bias = 1 + 0.1 * _smooth(rng, image.shape)
    noisy = moved ** rng.uniform(0.8, 1.25) * bias + rng.normal(0, 0.02, image.shape)
    return np.clip(noisy, 0, None).astype(np.float32), labels


def _smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A smooth field with values of the order of 1."""
    coarse = rng.normal(size=(4, 4, 4))
    return ndimage.zoom(coarse, np.array(shape) / 4, order=3)


def write_slices(directory: Path, subjects: dict[int, tuple[Array, Array]]) -> None:
    """Slices of the subjects as grey pictures, and their classes as grey 0, 63, 126."""
    for split, numbers in SUBJECTS.items():
        for number in numbers:
            for index, (image, labels) in enumerate(_slices(*subjects[number]), 1):
                name = f"Subj_{number}slice_{index}.png"
                grey = (image.clip(0, 1) * 255).round().astype(np.uint8)
                write_image(directory / split / "Img" / name, grey)
                write_image(directory / split / "GT" / name, labels * np.uint8(GREY_STEP))


def _slices(image: Array, labels: Array) -> list[tuple[Array, Array]]:
    """The axial slices that `SLICES` chooses, centred in `SLICE_SIZE`."""
    pairs = zip(axial_slices(image)[SLICES], axial_slices(labels)[SLICES], strict=True)
    return [(_centred(a), _centred(b)) for a, b in pairs]


def _centred(picture: Array) -> Array:
    """A picture (H, W) in `SLICE_SIZE`: padded with zeros where it is smaller, cut where it is larger."""
    for axis, size in enumerate(SLICE_SIZE):
        missing = size - picture.shape[axis]
        before = abs(missing) // 2
        if missing < 0:
            picture = picture.take(range(before, before + size), axis)
        else:
            widths = [(before, missing - before) if a == axis else (0, 0) for a in (0, 1)]
            picture = np.pad(picture, widths)
    return np.ascontiguousarray(picture)


def write_synapse(directory: Path, subjects: dict[int, tuple[Array, Array]]) -> None:
    """Slices as npz to train, volumes as h5 to evaluate, and their lists."""
    import h5py

    names = []
    (directory / "train_npz").mkdir(parents=True, exist_ok=True)
    (directory / "test_vol_h5").mkdir(parents=True, exist_ok=True)
    for number in SUBJECTS["train"]:
        for index, (image, label) in enumerate(_slices(*subjects[number])):
            names.append(f"case{number:04d}_slice{index:03d}")
            np.savez_compressed(
                directory / "train_npz" / f"{names[-1]}.npz", image=image.clip(0, 1), label=label
            )
    for number in SUBJECTS["val"]:
        image, label = (np.stack(part) for part in zip(*_slices(*subjects[number]), strict=True))
        with h5py.File(directory / "test_vol_h5" / f"case{number:04d}.npy.h5", "w") as file:
            file.create_dataset("image", data=image.clip(0, 1), compression="gzip")
            file.create_dataset("label", data=label, compression="gzip")
    lists = directory / "lists" / "lists_Synapse"
    write_atomically(lists / "train.txt", "\n".join([*names, ""]).encode())
    volumes = [f"case{number:04d}" for number in SUBJECTS["val"]]
    write_atomically(lists / "test_vol.txt", "\n".join([*volumes, ""]).encode())


def write_volumes(directory: Path, subjects: dict[int, tuple[Array, Array]]) -> None:
    """The subjects as NIfTI, in several orientations; the fourth has slices twice as thick."""
    for split in ("train", "val"):
        for number in SUBJECTS[split]:
            image, labels = subjects[number]
            affine = np.diag((SPACING, SPACING, SPACING, 1.0))
            affine[:3, 3] = (-98.0, -134.0, -72.0)
            if number == 4:
                image, labels = image[..., ::2], labels[..., ::2]
                affine[2, 2] *= 2
            for part, values in (("images", image * 1000), ("labels", labels)):
                kind = np.int16 if part == "images" else np.uint8
                stored = nib.Nifti1Image(values.round().astype(kind), affine)
                turned = stored.as_reoriented(_turn(ORIENTATIONS[number - 1]))
                path = directory / split / part / f"subject_{number:02d}.nii.gz"
                write_atomically(path, gzip.compress(turned.to_bytes(), mtime=0))


def _turn(codes: str) -> Array:
    start = nib.orientations.axcodes2ornt("RAS")
    return nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes))


def write_dicom(directory: Path, image: Array, seed: int) -> None:
    """A brain as a series of 16-bit slices with a rescale slope, its files in no order."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    directory.mkdir(parents=True, exist_ok=True)
    uid = generate_uid(entropy_srcs=["opsin", str(seed)])
    order = np.random.default_rng(seed).permutation(image.shape[2])
    for index, name in enumerate(order):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
        own = generate_uid(entropy_srcs=["opsin", str(seed), str(index)])
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = own
        data.SeriesInstanceUID = data.StudyInstanceUID = data.FrameOfReferenceUID = uid
        data.Modality, data.PatientName, data.PatientID = "MR", "Nobody", "no-patient"
        data.Rows, data.Columns, data.SamplesPerPixel = image.shape[1], image.shape[0], 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.PixelSpacing, data.SliceThickness = [SPACING, SPACING], SPACING
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [-97.0, -98.0, -72.0 + SPACING * index]
        data.RescaleSlope, data.RescaleIntercept = 0.5, -100
        # rows run to the back and columns to the left: both against RAS+
        pixels = (image[::-1, ::-1, index].T * 1000 + 100) * 2
        data.PixelData = pixels.clip(0, 65535).round().astype("<u2").tobytes()
        data.save_as(directory / f"slice_{name:03d}.dcm", enforce_file_format=True)
