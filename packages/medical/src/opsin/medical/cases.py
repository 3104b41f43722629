"""What people give to predict on: pictures, volumes and DICOM series, without who their patients are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from opsin.core.data.image import IMAGE_SUFFIXES
from opsin.core.engine.predictor import Source
from opsin.core.errors import UserError
from opsin.medical.volumes import conceal, find_series, is_volume, patient_identity, stem


@dataclass(frozen=True)
class Case(Source):
    """One picture, volume or DICOM series.

    Its `path` is what records call it, and its `name`, without a suffix, what its outputs are called; neither
    tells who the patient is.

    Attributes:
        files: its file, or a DICOM series' files.
        kind: what it is.
    """

    files: tuple[Path, ...] = ()
    kind: Literal["picture", "volume", "series"] = "picture"

    @property
    def location(self) -> Path:
        """What `read_volume` or `read_image` takes: the file, or the folder of a series of several files."""
        return self.files[0] if len(self.files) == 1 else self.files[0].parent


def find_cases(inputs: Sequence[Path]) -> list[Case]:
    """The pictures, volumes and DICOM series that `inputs` name, folders walked; output names are unique.

    Raises:
        UserError: if an input is not there, is of an unknown kind, or a folder holds nothing to segment.
    """
    cases: list[Case] = []
    for given in map(Path, inputs):
        if given.is_dir():
            found = _walk(given, given)
            if not found:
                raise UserError(f"no picture, volume or DICOM series in {given}")
            cases += found
        elif not given.exists():
            raise UserError(f"no file or folder at {given}")
        elif (case := _file(given, Path(given.name))) is not None:
            cases.append(case)
        else:
            raise UserError(f"{given} is neither a picture nor a volume")
    return _with_unique_names(cases)


def _walk(folder: Path, root: Path) -> list[Case]:
    cases = []
    series = find_series(folder)
    for number, files in enumerate(series, 1):
        name = (folder.relative_to(root) if folder != root else Path(folder.resolve().name)).as_posix()
        identity = patient_identity(files[0])
        ending = f"_{number}" if len(series) > 1 else ""
        shown = Path(conceal(f"{folder}{ending}", identity))
        cases.append(Case(shown, Path(conceal(name + ending, identity)), tuple(files), "series"))
    in_series = {path for files in series for path in files}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            cases += _walk(path, root)
        elif path not in in_series and (case := _file(path, path.relative_to(root))) is not None:
            cases.append(case)
    return cases


def _file(path: Path, name: Path) -> Case | None:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Case(path, name.with_suffix(""), (path,), "picture")
    if path.suffix.lower() == ".dcm":
        identity = patient_identity(path)
        concealed = Path(conceal(name.with_suffix("").as_posix(), identity))
        return Case(Path(conceal(str(path), identity)), concealed, (path,), "series")
    if is_volume(path) and path.suffix != ".img":
        return Case(path, name.with_name(stem(path)), (path,), "volume")
    return None


def _with_unique_names(cases: Sequence[Case]) -> list[Case]:
    taken: dict[Path, int] = {}
    unique = []
    for case in cases:
        count = taken[case.name] = taken.get(case.name, 0) + 1
        name = case.name if count == 1 else case.name.with_name(f"{case.name.name}_{count}")
        unique.append(replace(case, name=name))
    return unique
