"""The tracker's side of TraX, the protocol of the VOT toolkit, over text streams.

"TraX: The visual Tracking eXchange Protocol and Library" (Neurocomputing 2017), version 4. The tracker says
hello; the toolkit sends the targets' regions (`initialize`, one line each) and then frames; each frame is
answered by one `state` a target. A line is `@@TRAX:` with a word and arguments in quotes; other lines do not
belong to the protocol.

    toolkit                                         tracker
                                                    @@TRAX:hello "trax.version=4" "trax.region=rectangle;" …
    @@TRAX:initialize "10,20,30,40"
    @@TRAX:frame "file:///vot/ants/color/1.jpg"     @@TRAX:state "10,20,30,40"
    @@TRAX:frame "file:///vot/ants/color/2.jpg"     @@TRAX:state "11,20,30,40" "confidence=0.91"
    @@TRAX:quit
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from opsin.core.data.image import read_image
from opsin.core.errors import UserError
from opsin.tracking.crops import Box
from opsin.tracking.datasets.layouts.vot import region_box
from opsin.tracking.tracker import Tracked, Tracker

PREFIX = "@@TRAX:"
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
HELLO = {
    "trax.version": "4",
    "trax.name": "opsin",
    "trax.multiobject": "1",
    "trax.image": "path;",
    "trax.region": "rectangle;",
    "trax.channels": "color;",
}


def serve(tracker: Tracker, received: TextIO, sent: TextIO) -> int:
    """Tracks as the toolkit says, until it quits or its stream ends.

    Args:
        tracker: of any network.
        received: the toolkit's lines.
        sent: where answers go.

    Returns:
        How many frames were answered.

    Raises:
        UserError: for a message, region or picture that can't be understood; the toolkit is told before.
    """
    _send(sent, "hello", [f"{key}={value}" for key, value in HELLO.items()])
    boxes: list[Box] = []
    frames = 0
    try:
        for word, arguments in _messages(received):
            if word == "initialize" and not arguments:  # the toolkit begins a further start so
                boxes = []
            elif word == "initialize":
                boxes.append(_box(arguments))
            elif word == "frame":
                image = read_image(_path(arguments))
                if boxes:
                    tracker.start(image, boxes)
                    tracks, boxes = [Tracked(box) for box in boxes], []
                else:
                    tracks = tracker.track(image)
                frames += 1
                for tracked in tracks:
                    _send(sent, "state", _state(tracked))
            elif word == "quit":
                break
            else:
                raise UserError(f"TraX message {word!r} is none that a tracker gets")
    except UserError as error:
        _send(sent, "quit", [f"trax.reason={error}"])
        raise
    return frames


def _messages(received: TextIO) -> Iterator[tuple[str, list[str]]]:
    for line in received:
        if line.startswith(PREFIX):
            word, _, rest = line.removeprefix(PREFIX).strip().partition(" ")
            yield word, [re.sub(r"\\(.)", r"\1", text) for text in QUOTED.findall(rest)]


def _box(arguments: Sequence[str]) -> Box:
    try:
        x, y, w, h = region_box(arguments[0]).tolist()
    except (ValueError, IndexError):
        raise UserError(f"TraX region {' '.join(arguments)!r} is no rectangle, polygon or mask") from None
    return x, y, w, h


def _path(arguments: Sequence[str]) -> Path:
    address = arguments[0] if arguments else ""
    return Path(urlsplit(address).path if address.startswith("file://") else address)


def _state(tracked: Tracked) -> list[str]:
    region = ",".join(f"{value:.4f}" for value in tracked.box)
    return [region] if tracked.score is None else [region, f"confidence={tracked.score:.4f}"]


def _send(sent: TextIO, word: str, arguments: Sequence[str]) -> None:
    quoted = (re.sub(r'(["\\])', r"\\\1", argument).replace("\n", " ") for argument in arguments)
    sent.write(" ".join([f"{PREFIX}{word}", *(f'"{text}"' for text in quoted)]) + "\n")
    sent.flush()
