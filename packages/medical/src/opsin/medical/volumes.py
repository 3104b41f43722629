"""Volumes on disk: NIfTI and its kin through nibabel, DICOM series through pydicom.

A volume is read with its place in the patient and turned to the nearest RAS+ orientation, in which networks
see it: the first axis runs to the patient's right, the second to the front, the third upwards. What a network
finds is turned back and written with the file's own affine.

Nothing here tells who the patient is. Of a DICOM file only the tags of `GEOMETRY` are read, and those of
`PATIENT` to know what must not be shown; of a NIfTI header only the geometry is kept.
"""

from __future__ import annotations

import gzip
import logging
import re
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from mmengine.logging import print_log
from nibabel import orientations
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.core.files import write_atomically

Array = NDArray[Any]

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".hdr", ".img")
GEOMETRY = (
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
)
PIXELS = (
    "PixelData",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "RescaleSlope",
    "RescaleIntercept",
)
PATIENT = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "AccessionNumber",
)
RAS = np.array([[0, 1], [1, 1], [2, 1]])  # the orientation of `Volume.values`, as nibabel writes it
CONCEALED = "patient"
SHORTEST_TELLING = 3  # parts of a name with fewer letters tell nothing, and stand in many words
EVEN_SPACING = 0.05  # of the distance between slices: how much one may differ from the others
SAME_DIRECTION = 1e-3  # of a direction cosine
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    gzip.BadGzipFile,
    nib.filebasedimages.ImageFileError,
)


@dataclass(frozen=True)
class Volume:
    """Values in the nearest RAS+ orientation, and what brings them back to the file's.

    Attributes:
        values: (X, Y, Z) float32.
        affine: of the file's own array: index to millimetres, RAS+.
        shape: of the file's own array.
        turn: nibabel's orientation (3, 2) of the file's own array.
        codes: NIfTI's codes of qform and sform.
        identity: what tells who the patient is; never to be shown.
        files: of a DICOM series, in the order of the slices; none for other volumes.
    """

    values: Array
    affine: Array
    shape: tuple[int, ...]
    turn: Array
    codes: tuple[int, int] = (1, 1)
    identity: frozenset[str] = field(default=frozenset(), repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, own: Array, affine: Array, **more: Any) -> Volume:
        """The volume of a file's own array (X, Y, Z)."""
        turn = orientations.io_orientation(affine)
        values = np.ascontiguousarray(orientations.apply_orientation(own, turn), np.float32)
        return cls(values, np.asarray(affine, np.float64), own.shape, turn, **more)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along the axes of `values`."""
        own = nib.affines.voxel_sizes(self.affine)
        spacing = [0.0] * 3
        for axis, (target, _) in enumerate(self.turn):
            spacing[int(target)] = float(own[axis])
        return spacing[0], spacing[1], spacing[2]

    @property
    def voxel_ml(self) -> float:
        """Millilitres of a voxel."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def as_stored(self, values: Array) -> Array:
        """An array in the orientation of `values` as the file has it."""
        back = orientations.ornt_transform(RAS, self.turn)
        return np.ascontiguousarray(orientations.apply_orientation(values, back))


def axial_slices(values: Array) -> Array:
    """A volume (X, Y, Z) as pictures (Z, Y, X), from below upwards; front above, right at the right."""
    return np.ascontiguousarray(values.transpose(2, 1, 0)[:, ::-1])


def from_axial_slices(slices: Array) -> Array:
    """The way back from `axial_slices`."""
    return np.ascontiguousarray(slices[:, ::-1].transpose(2, 1, 0))


def is_volume(path: Path) -> bool:
    """Whether `path` is a volume's file by its suffix."""
    return path.name.lower().endswith(NIFTI_SUFFIXES) or path.suffix.lower() == ".dcm"


def stem(path: Path) -> str:
    """The name of a volume's file without its suffix, `.nii.gz` counting as one."""
    for suffix in sorted(NIFTI_SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def read_volume(path: str | Path) -> Volume:
    """The volume in a file, or the DICOM series in a folder.

    Values that are no numbers become the least value of the others.

    Raises:
        UserError: if it is missing, truncated, no volume, of more than three dimensions, all NaN; or a series
            that lacks slices, mixes orientations, sizes or series, or has no positions. The message does not
            tell who the patient is.
    """
    path = Path(path)
    if path.is_dir():
        return read_series(only_series(path))
    if not path.is_file():
        raise UserError(f"no volume at {path}")
    return read_series([path]) if path.suffix.lower() == ".dcm" else _read_nifti(path)


def read_labels(path: str | Path, classes: int, like: Volume | None = None) -> Array:
    """Classes of voxels (X, Y, Z), uint8, in RAS+ orientation.

    Args:
        path: a volume's file.
        classes: how many classes there are, the background among them.
        like: the volume that they belong to.

    Raises:
        UserError: as `read_volume` does; if a value is no class, or the labels have another place or shape.
    """
    shown = conceal(str(path), like.identity) if like is not None else str(path)
    volume = read_volume(path)
    check_labels(volume.values, classes, shown)
    if like is not None and volume.values.shape != like.values.shape:
        raise UserError(
            f"labels {shown} are {_by(volume.values.shape)}, their volume is {_by(like.values.shape)}"
        )
    if like is not None and not np.allclose(volume.affine, like.affine, atol=1e-2):
        raise UserError(f"labels {shown} lie elsewhere than their volume: the affines differ")
    return volume.values.astype(np.uint8)


def check_labels(labels: Array, classes: int, where: str) -> None:
    """Checks that all values are whole numbers below `classes`.

    Raises:
        UserError: naming the first values that are not.
    """
    values = np.unique(labels)
    bad = [v for v in values.tolist() if v != int(v) or not 0 <= v < classes]
    if bad:
        shown = ", ".join(f"{v:g}" for v in bad[:5])
        raise UserError(f"{where} has the values {shown}, and classes are 0 to {classes - 1}")


def _read_nifti(path: Path) -> Volume:
    try:
        image: Any = nib.load(path)
        own = np.asarray(image.dataobj, np.float32)
    except _UNREADABLE as error:
        reason = type(error).__name__
        raise UserError(f"volume {path} is truncated, damaged or no volume ({reason})") from None
    if own.ndim > 3 and set(own.shape[3:]) == {1}:
        own = own.reshape(own.shape[:3])
    if own.ndim == 2:
        own = own[..., None]
    if own.ndim != 3:
        raise UserError(
            f"volume {path} has {own.ndim} dimensions ({_by(own.shape)})", "give one volume at a time"
        )
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise UserError(f"volume {path} has an affine that gives its voxels no size", "mend its header")
    header = image.header
    codes = (
        (int(header["qform_code"]), int(header["sform_code"]))
        if isinstance(header, nib.Nifti1Header)
        else (1, 1)
    )
    return Volume.of(finite(own, str(path)), image.affine, codes=codes)


def finite(values: Array, where: str) -> Array:
    """`values` with the least number in place of what is none.

    Raises:
        UserError: if there is no number, or no value at all.
    """
    numbers = np.isfinite(values)
    if not numbers.any():
        raise UserError(f"{where} holds no numbers: all is NaN or infinite, or it is empty")
    if numbers.all():
        return values
    missing = values.size - int(numbers.sum())
    print_log(
        f"{where}: {missing} values are no numbers; the least takes their place", "current", logging.WARNING
    )
    return np.where(numbers, values, values[numbers].min())


# DICOM.


@contextmanager
def _silent_pydicom() -> Iterator[None]:
    """Keeps pydicom quiet: its warnings quote values that break rules, a birth date among them."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read_tags(path: Path, tags: Sequence[str]) -> Any:
    """A DICOM file's dataset with these tags alone.

    Raises:
        UserError: if it is damaged or no DICOM file.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        with _silent_pydicom():
            return dcmread(path, specific_tags=list(tags))
    except (InvalidDicomError, *_UNREADABLE, KeyError, NotImplementedError, AttributeError) as error:
        raise UserError(
            f"{path.name} is truncated, damaged or no DICOM file ({type(error).__name__})"
        ) from None


def find_series(folder: Path) -> list[list[Path]]:
    """The DICOM series directly in `folder`: the files of each, in no order; none is an empty list."""
    from pydicom.misc import is_dicom

    series = defaultdict(list)
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.stat().st_size > 132):
        if is_dicom(path) and path.name != "DICOMDIR":
            series[str(read_tags(path, ("SeriesInstanceUID",)).get("SeriesInstanceUID", ""))].append(path)
    return list(series.values())


def only_series(folder: Path) -> list[Path]:
    """The files of the one DICOM series in `folder`.

    Raises:
        UserError: if there is none, or more than one.
    """
    series = find_series(folder)
    if len(series) != 1:
        sizes = ", ".join(str(len(files)) for files in series)
        found = f"{len(series)} DICOM series ({sizes} files)" if series else "no DICOM file"
        raise UserError(f"{_safe(folder, series)} holds {found}, not one series")
    return series[0]


def _safe(folder: Path, series: Sequence[Sequence[Path]]) -> str:
    identity = frozenset[str]().union(*(patient_identity(files[0]) for files in series))
    return conceal(str(folder), identity)


def patient_identity(path: Path) -> frozenset[str]:
    """What a DICOM file says of who the patient is, in lower case: whole values, and the parts of names."""
    header = read_tags(path, PATIENT)
    with _silent_pydicom():  # a value is parsed when it is asked for
        values = [str(header.get(tag, "") or "").lower() for tag in PATIENT]
        born = str(header.get("PatientBirthDate", "") or "")
    found = {part for value in values for part in (value, *re.split(r"[\^=, _\\\[\]']+", value))}
    found.update(_dates(born))
    return frozenset(text for text in found if len(text) >= SHORTEST_TELLING)


def _dates(date: str) -> list[str]:
    """A birth date (YYYYMMDD) as people and programs write it."""
    if not re.fullmatch(r"\d{8}", date):
        return []
    year, month, day = date[:4], date[4:6], date[6:]
    orders = (year, month, day), (day, month, year), (month, day, year)
    return [mark.join(order) for order in orders for mark in "-./_"]


def conceal(text: str, identity: frozenset[str]) -> str:
    """`text` with all that tells who the patient is replaced."""
    for secret in sorted(identity, key=len, reverse=True):
        text = re.sub(re.escape(secret), CONCEALED, text, flags=re.IGNORECASE)
    return text


def read_series(files: Sequence[Path]) -> Volume:
    """The volume of one DICOM series, its slices sorted by position, values with their rescale slope applied.

    Raises:
        UserError: see `read_volume`.
    """
    identity = patient_identity(files[0])
    where = f"DICOM series {conceal(str(files[0].parent), identity)}"
    headers = [read_tags(path, GEOMETRY) for path in files]
    _check_alike(headers, where)
    rows, columns = (np.array(headers[0].ImageOrientationPatient[i : i + 3], float) for i in (0, 3))
    normal = np.cross(rows, columns)
    places = np.array([np.array(h.ImagePositionPatient, float) for h in headers])
    order = np.argsort(places @ normal, kind="stable")
    places = places[order]
    _check_even(places @ normal, where)
    values = np.stack([_pixels(files[i], conceal(files[i].name, identity)) for i in order], axis=-1)
    step = (
        (places[-1] - places[0]) / (len(places) - 1)
        if len(places) > 1
        else normal * float(headers[0].get("SliceThickness") or 1)
    )
    between_rows, between_columns = (float(v) for v in headers[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.stack((rows * between_columns, columns * between_rows, step, places[0]), axis=1)
    affine[:2] *= -1  # DICOM counts to the left and to the back, RAS+ to the right and to the front
    in_order = tuple(files[i] for i in order)
    return Volume.of(finite(values, where), affine, identity=identity, files=in_order)


def _check_alike(headers: Sequence[Any], where: str) -> None:
    for header in headers:
        missing = [
            tag
            for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
            if header.get(tag) is None
        ]
        if missing:
            raise UserError(f"{where}: a file has no {missing[0]}", "it can't be placed in a volume")
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise UserError(f"{where}: a file has several frames", "convert it to one file a slice, or NIfTI")
        if int(header.get("SamplesPerPixel") or 1) > 1:
            raise UserError(f"{where}: the slices are coloured", "give grey ones")
    first = headers[0]
    for tag, tolerance in (
        ("ImageOrientationPatient", SAME_DIRECTION),
        ("PixelSpacing", 1e-4),
        ("Rows", 0),
        ("Columns", 0),
    ):
        values = np.array([np.atleast_1d(h.get(tag)).astype(float) for h in headers])
        if np.abs(values - np.atleast_1d(first.get(tag)).astype(float)).max() > tolerance:
            kind = {"ImageOrientationPatient": "orientations", "PixelSpacing": "pixel spacings"}.get(
                tag, "sizes"
            )
            raise UserError(f"{where} mixes {kind}", "keep the slices of one acquisition")


def _check_even(heights: Array, where: str) -> None:
    """Raises if slices coincide or one is missing; `heights` (n,) are in millimetres, ascending."""
    if len(heights) < 2:
        return
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if usual <= 0 or gaps.min() < usual * EVEN_SPACING:
        raise UserError(f"{where} has two slices in one place", "keep one of each")
    uneven = np.abs(gaps - usual) > EVEN_SPACING * usual
    if uneven.any():
        at = int(np.argmax(uneven))
        raise UserError(
            f"{where} lacks slices: between {heights[at]:.1f} and {heights[at + 1]:.1f} mm are "
            f"{gaps[at]:.2f} mm, elsewhere {usual:.2f} mm",
            "complete the series",
        )


def _pixels(path: Path, shown: str) -> Array:
    """Values (columns, rows) of one file, float32, in the unit that the rescale slope gives."""
    data = read_tags(path, PIXELS)
    try:
        with _silent_pydicom():
            pixels = data.pixel_array.astype(np.float32)
    except Exception as error:  # a decoder fails in any way, and its message may quote the file
        raise UserError(f"DICOM file {shown}: its pixels can't be decoded ({type(error).__name__})") from None
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    return (pixels * slope + intercept).T


def write_labels(path: Path, labels: Array, like: Volume) -> None:
    """Writes classes of voxels as NIfTI with the affine of the volume they belong to, and nothing else of it.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        labels: (X, Y, Z) uint8, in the orientation of `like.values`.
        like: the volume.

    Raises:
        UserError: if it can't be written.
    """
    image = nib.Nifti1Image(like.as_stored(labels).astype(np.uint8), like.affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(like.affine, code=like.codes[0] or 1)
    image.set_sform(like.affine, code=like.codes[1] or 1)
    content = image.to_bytes()
    # without a time and the original's name, which gzip would keep
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
