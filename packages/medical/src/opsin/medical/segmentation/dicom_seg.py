"""Classes of a DICOM series' voxels as a DICOM segmentation object (DICOM PS3.3 A.51), by highdicom.

The object lies in the series' frame of reference and refers to its study, series and slices by their UIDs,
which is how an archive puts it beside them. Nothing else of the series goes into it: patient, study date and
accession number stay empty.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.core.files import write_atomically
from opsin.medical.volumes import GEOMETRY, Volume, read_tags

REFERENCES = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "Modality")
# what a segmentation object must have and takes from its source: left empty
EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


def write_segmentation(path: Path, labels: NDArray[np.uint8], like: Volume, classes: Sequence[str]) -> None:
    """Writes a binary segmentation object with a segment for every class but the first.

    All segments are coded as tissue, found automatically; their labels are the names of the classes.

    Args:
        path: of the file.
        labels: (X, Y, Z), in the orientation of `like.values`.
        like: the volume of a DICOM series.
        classes: names, the background first.

    Raises:
        UserError: if highdicom is not installed, `like` is no DICOM series, or its files lack a UID.
    """
    if not like.files:
        raise UserError("a DICOM segmentation needs a DICOM series", "leave dicom_seg out for other volumes")
    sources = [_source(file) for file in like.files]
    frames = np.ascontiguousarray(like.as_stored(labels).transpose(2, 1, 0))  # slices, rows, columns
    segmentation = _segmentation(sources, frames.astype(np.uint8), classes)
    content = io.BytesIO()
    segmentation.save_as(content)
    write_atomically(path, content.getvalue())


def _source(file: Path) -> Any:
    header = read_tags(file, (*REFERENCES, *GEOMETRY))
    missing = [tag for tag in REFERENCES if not header.get(tag)]
    if missing:
        raise UserError(f"a file of the DICOM series has no {missing[0]}", "a segmentation must refer to it")
    for tag in EMPTY:
        setattr(header, tag, None)
    return header


def _segmentation(sources: Sequence[Any], frames: NDArray[np.uint8], classes: Sequence[str]) -> Any:
    try:
        from highdicom import AlgorithmIdentificationSequence
        from highdicom.seg import Segmentation, SegmentDescription
    except ImportError as error:
        raise UserError(
            "DICOM segmentation objects need highdicom", "pip install 'opsin-medical[dicom-seg]'"
        ) from error
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    release = version("opsin-medical")
    algorithm = AlgorithmIdentificationSequence(
        name="opsin", family=codes.DCM.ArtificialIntelligence, version=release
    )
    segments = [
        SegmentDescription(
            number, name, codes.SCT.AnatomicalStructure, codes.SCT.Tissue, "AUTOMATIC", algorithm
        )
        for number, name in enumerate(classes[1:], 1)
    ]
    return Segmentation(
        sources,
        frames,
        "BINARY",
        segments,
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="opsin",
        manufacturer_model_name="opsin-medical",
        software_versions=release,
        device_serial_number="0",
        omit_empty_frames=False,  # every slice has its frame: what is read back has the series' shape
    )
