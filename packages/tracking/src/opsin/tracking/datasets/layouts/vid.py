"""ImageNet VID (ILSVRC2015): every track of a video is a sequence.

Annotations/VID/train/<part>/<video>/000000.xml   Data/VID/train/<part>/<video>/000000.JPEG
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from opsin.core.errors import UserError
from opsin.tracking.datasets.sequence import Boxes, VideoSequence, sequence


def read(root: Path, split: str) -> list[VideoSequence]:
    """The tracks of `train` or `val`.

    Raises:
        UserError: if the folder of annotations is missing, or a file is damaged.
    """
    annotations = root / "Annotations" / "VID" / split
    if not annotations.is_dir():
        raise UserError(f"data folder {root} lacks Annotations/VID/{split}/", "give another with --data DIR")
    videos = sorted({path.parent for path in annotations.rglob("*.xml")})
    pictures = root / "Data" / "VID" / split
    return [track for video in videos for track in _tracks(video, pictures / video.relative_to(annotations))]


def _tracks(video: Path, pictures: Path) -> list[VideoSequence]:
    files = sorted(video.glob("*.xml"))
    tracks: dict[str, Boxes] = defaultdict(lambda: np.full((len(files), 4), np.nan))
    hidden: dict[str, list[int]] = defaultdict(list)
    for i, file in enumerate(files):
        for node in _objects(file):
            track = node.findtext("trackid", "0")
            x1, y1, x2, y2 = (
                float(node.findtext(f"bndbox/{k}", "nan")) for k in ("xmin", "ymin", "xmax", "ymax")
            )
            tracks[track][i] = x1, y1, x2 - x1, y2 - y1
            if node.findtext("occluded") == "1":
                hidden[track].append(i)
    frames = [pictures / f"{file.stem}.JPEG" for file in files]
    found = []
    for track, boxes in tracks.items():
        covered = np.zeros(len(files), bool)
        covered[hidden[track]] = True
        found.append(sequence(f"{video.name}-{track}", frames, boxes, covered))
    return found


def _objects(file: Path) -> list[ElementTree.Element]:
    try:
        return ElementTree.parse(file).getroot().findall("object")
    except ElementTree.ParseError as error:
        raise UserError(f"{file} is damaged ({error})", "replace or remove the file") from None
