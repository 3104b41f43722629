"""`opsin segment` and `opsin segment-app`: masks of what one points at."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opsin.core.errors import UserError

if TYPE_CHECKING:
    from opsin.segmentation.promptable.predictor import PromptablePredictor
    from opsin.segmentation.promptable.prompts import Prompts

ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help="A path or a short name.")]
Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a work dir for its newest.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command()(segment)
    app.command("segment-app")(segment_app)


def segment(
    config: ConfigName,
    checkpoint: Checkpoint,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for masks and picture.")],
    points: Annotated[
        list[str] | None,
        typer.Option("--point", metavar="X,Y[,0]", help="A pixel of the object, with ,0 one that is not."),
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X1,Y1,X2,Y2", help="A box around an object; each gives a mask."),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Writes the masks of objects in a picture: one of all points together, or one of each box."""
    from opsin.core.data import read_image, write_image
    from opsin.core.engine.predictor import write_json
    from opsin.segmentation.promptable.predictor import describe
    from opsin.segmentation.promptable.visualization import draw_masks

    prompts = parse_prompts(points or [], boxes or [])
    pixels = read_image(image)
    found = _predictor(config, checkpoint, device).encode(pixels, image).segment(prompts)
    for number, mask in enumerate(found.masks, start=1):
        write_image(out / "masks" / f"{image.stem}_{number}.png", mask.astype("uint8") * 255)
    write_image(out / "pictures" / f"{image.stem}.png", draw_masks(pixels, found.masks))
    rows = [describe(mask, score) for mask, score in zip(found.masks, found.scores, strict=True)]
    write_json(out / "predictions.json", [{"file": str(image), "masks": rows}])
    typer.echo(f"{len(rows)} masks in {out}")


def segment_app(
    config: ConfigName,
    checkpoint: Checkpoint,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8137,
    device: Device = "cpu",
) -> None:
    """Opens a local page where one clicks on a picture and sees the mask; Ctrl+C ends it."""
    if find_spec("gradio") is None:
        raise UserError("the page needs gradio", "pip install 'opsin-segmentation[app]'")
    from opsin.segmentation.promptable.web_page import serve

    serve(_predictor(config, checkpoint, device), port)


def _predictor(config: str, checkpoint: Path, device: str) -> PromptablePredictor:
    from opsin.core.cli.run import checked_device, newest_checkpoint
    from opsin.core.engine.config import load_config, task_of
    from opsin.segmentation.promptable.predictor import PromptablePredictor

    cfg = load_config(config)
    if task_of(cfg).name != "promptable":
        raise UserError(
            f"config {config} is of the task {task_of(cfg).name}", "give one of the task promptable"
        )
    return PromptablePredictor(cfg, newest_checkpoint(checkpoint), device=checked_device(device))


def parse_prompts(points: list[str], boxes: list[str]) -> Prompts:
    """`x,y` or `x,y,label` texts and `x1,y1,x2,y2` texts to prompts: one of all points, or one a box.

    Points may join one box.

    Raises:
        UserError: for texts that are no such numbers, nothing at all, or points with several boxes.
    """
    import torch

    from opsin.segmentation.promptable.prompts import Prompts

    if not points and not boxes:
        raise UserError("nothing is asked for", "give --point X,Y or --box X1,Y1,X2,Y2")
    if points and len(boxes) > 1:
        raise UserError(f"points and {len(boxes)} boxes", "give points with at most one box")
    corners = [_numbers(text, (4,), "--box X1,Y1,X2,Y2") for text in boxes]
    places = [_numbers(text, (2, 3), "--point X,Y or X,Y,0") for text in points]
    return Prompts(
        points=torch.tensor([[place[:2] for place in places]]) if places else None,
        labels=torch.tensor([[int(place[2]) if len(place) == 3 else 1 for place in places]])
        if places
        else None,
        boxes=torch.tensor(corners) if corners else None,
    )


def _numbers(text: str, counts: tuple[int, ...], form: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise UserError(f"{text!r} is not of the form {form}")
    return numbers
