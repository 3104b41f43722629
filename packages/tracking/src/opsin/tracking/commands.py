"""`opsin track` follows objects through a video; `track-benchmark` and `track-vot` evaluate trackers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin.core.cli.complete import config_names
from opsin.core.cli.run import checked_device, newest_checkpoint
from opsin.core.cli.show import show_json, show_line, show_table
from opsin.core.errors import UserError

Box = tuple[float, float, float, float]
Checkpoint = Annotated[
    Path, typer.Option("--checkpoint", help="A checkpoint, a work dir for its newest, or the authors' file.")
]
ConfigName = Annotated[str, typer.Option("--config", autocompletion=config_names, help="Its config.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A change to the config.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_CONFIG = "mixformer_cvt_online"


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command()(track)
    app.command("track-benchmark")(track_benchmark)
    app.command("track-vot")(track_vot)


def track(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO", help="A video, a folder of frames, or camera[:N].")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for video, JSON, CSV and plot.")],
    checkpoint: Checkpoint,
    init: Annotated[
        list[str] | None,
        typer.Option("--init", metavar="X,Y,W,H", help="A target in the first frame, pixels; once a target."),
    ] = None,
    config: ConfigName = DEFAULT_CONFIG,
    device: Device = "cpu",
    no_video: Annotated[bool, typer.Option("--no-video", help="Render no video.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Show the frames in a window; q ends.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on after an unreadable frame.")] = False,
    most_frames: Annotated[int | None, typer.Option("--frames", help="End after so many frames.")] = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Follows one or several objects through a video from their boxes in the first frame."""
    from opsin.core.engine.config import load_config
    from opsin.tracking.predictor import TrackingPredictor, first_boxes

    boxes = [parse_box(text) for text in init or []] or first_boxes(Path(video))
    cfg = load_config(config, overrides=changes or ())
    predictor = TrackingPredictor(cfg, newest_checkpoint(checkpoint), device=checked_device(device))
    rows = predictor.follow(
        video,
        boxes,
        out,
        on_error="skip" if skip_bad else "raise",
        render=not no_video,
        show=_show if show else None,
        most_frames=most_frames,
    )
    if as_json:
        show_json(rows)
        return
    frames, lost = rows[-1]["frame"], sorted({row["target"] for row in rows if row["lost"]})
    show_line(f"{len(boxes)} targets in {frames} frames; results in {out}")
    for target in lost:
        first = next(row["frame"] for row in rows if row["target"] == target and row["lost"])
        count = sum(row["lost"] for row in rows if row["target"] == target)
        show_line(f"target {target} was lost in {count} frames, first in frame {first}")


def track_benchmark(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The benchmark's folder.")],
    layout: Annotated[
        str, typer.Option("--layout", help="lasot, got10k, trackingnet, uav123, otb100 or vot.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for result files; whole ones are kept.")],
    checkpoint: Checkpoint,
    config: ConfigName = DEFAULT_CONFIG,
    split: Annotated[str, typer.Option(help="Of the benchmark.")] = "test",
    jobs: Annotated[int, typer.Option(help="Sequences at a time.")] = 1,
    subsets: Annotated[
        Path | None, typer.Option(help="JSON of group name to sequence names, scored apart too.")
    ] = None,
    device: Device = "cpu",
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Evaluates a tracker in one pass; writes result files in the benchmark's format, ready to upload."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from opsin.tracking.benchmark import Evaluation, run

    evaluation = Evaluation(
        config,
        newest_checkpoint(checkpoint),
        layout,
        split,
        data,
        tuple(changes or ()),
        checked_device(device),
    )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(layout, total=None)

        def advance(name: str, done: int, total: int) -> None:
            progress.update(bar, description=name, completed=done, total=total)

        metrics = run(evaluation, out, jobs=jobs, subsets=_groups(subsets), progress=advance)
    if as_json:
        show_json(metrics)
    elif metrics:
        show_table(("metric", "value"), [(name, f"{value:.2f}") for name, value in metrics.items()])
    else:
        show_line(f"results in {out}; the truth is on the benchmark's server")


def track_vot(
    checkpoint: Checkpoint,
    config: ConfigName = DEFAULT_CONFIG,
    device: Device = "cpu",
    changes: Changes = None,
) -> None:
    """Is a tracker for the VOT toolkit, which starts this command and speaks TraX with it."""
    from opsin.tracking.benchmark import load_for
    from opsin.tracking.predictor import TrackingPredictor
    from opsin.tracking.trax import serve

    cfg = load_for("vot", config, changes or ())
    predictor = TrackingPredictor(cfg, newest_checkpoint(checkpoint), device=checked_device(device))
    serve(predictor.tracker(), sys.stdin, sys.stdout)


def parse_box(text: str) -> Box:
    """A box from `x,y,w,h`.

    Raises:
        UserError: if it is none.
    """
    try:
        x, y, w, h = (float(value) for value in text.split(","))
    except ValueError:
        raise UserError(
            f"--init {text!r} is not a box", "give x,y,w,h in pixels, as --init 120,80,40,60"
        ) from None
    return x, y, w, h


def _groups(path: Path | None) -> dict[str, list[str]]:
    if path is None:
        return {}
    try:
        content: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as JSON ({error})") from None
    return content


def _show(image: Any) -> bool:
    """Shows an RGB frame; False when the person pressed q.

    Raises:
        UserError: if there is no display.
    """
    import cv2

    nowhere = UserError("no window can be opened here", "leave --show out")
    if sys.platform.startswith("linux") and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        raise nowhere  # the window's library would end the process
    try:
        cv2.imshow("opsin track", image[..., ::-1])
        return cv2.waitKey(1) & 0xFF != ord("q")
    except cv2.error as error:
        raise nowhere from error
