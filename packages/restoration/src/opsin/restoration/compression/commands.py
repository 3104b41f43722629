"""`opsin compress`, `opsin decompress` and `opsin rd-curves`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opsin.core.cli.complete import config_names
from opsin.core.cli.show import show_json, show_line, show_table
from opsin.core.errors import UserError

if TYPE_CHECKING:
    from opsin.restoration.compression.bitstream.codec import Codec

Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="CONFIG",
        envvar="OPSIN_CODEC_MODEL",
        autocompletion=config_names,
        help="The config that the codec was trained with.",
    ),
]
Weights = Annotated[
    Path,
    typer.Option(
        "--weights",
        metavar="CHECKPOINT",
        envvar="OPSIN_CODEC_WEIGHTS",
        help="Its checkpoint, or a work dir for its newest.",
    ),
]
MaxPixels = Annotated[
    int | None, typer.Option(help="Refuse larger pictures (default 8.4 million, with padding).")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SUFFIX = ".opc"


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command()(compress)
    app.command()(decompress)
    app.command(name="rd-curves")(rd_curves)


def compress(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Images, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", help="FILE.opc for one image, else a folder.")],
    model: Model,
    weights: Weights,
    grid: Annotated[int, typer.Option(help="Regions are the cells of a GRID×GRID partition, 1 to 16.")] = 4,
    verify: Annotated[
        bool, typer.Option("--verify", help="Decode each file, and compare with what it should give.")
    ] = False,
    max_pixels: MaxPixels = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Compresses images into files that decode to the same symbols on every machine."""
    from opsin.core.data.image import list_images, read_image
    from opsin.core.files import write_atomically
    from opsin.restoration.compression.bitstream.container import MAX_PIXELS

    sources = [path for given in images for path in list_images(given)]
    targets = _targets(sources, out, SUFFIX)
    codec = _codec(model, weights, device)
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    rows = []
    for source, target in _shown("compress", sources, targets):
        picture = read_image(source)
        with _naming(source):
            data = codec.encode(picture, grid, max_pixels=limit)
            if verify:
                codec.verify(data, picture, grid)
        write_atomically(target, data)
        bpp = 8 * len(data) / (picture.shape[0] * picture.shape[1])
        rows.append({"image": str(source), "file": str(target), "bytes": len(data), "bpp": bpp})
    if as_json:
        show_json(rows)
    else:
        show_table(("file", "bytes", "bpp"), [(r["file"], r["bytes"], f"{r['bpp']:.4f}") for r in rows])


def decompress(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.opc…", help="Compressed files, or folders of them.")
    ],
    out: Annotated[Path, typer.Option("--out", help="An image for one file, else a folder for PNGs.")],
    model: Model,
    weights: Weights,
    max_pixels: MaxPixels = None,
    device: Device = "cpu",
) -> None:
    """Decodes files that `opsin compress` made with the same model."""
    from opsin.core.data.image import write_image
    from opsin.restoration.compression.bitstream.container import MAX_PIXELS, read_file

    sources = [path for given in files for path in _compressed(given)]
    targets = _targets(sources, out, ".png")
    codec = _codec(model, weights, device)
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    for source, target in _shown("decompress", sources, targets):
        data = read_file(source, max_pixels=limit)
        with _naming(source):
            picture = codec.decode(data, max_pixels=limit)
        write_image(target, picture)
    show_line(f"{len(sources)} pictures in {out}")


def rd_curves(
    curves: Annotated[
        list[str],
        typer.Argument(metavar="NAME=FILE,FILE…", help="A codec, and the metrics.json of its tests."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Picture of the curves: .png, .svg or .pdf.")],
    measure: Annotated[str, typer.Option(help="psnr or ms_ssim.")] = "psnr",
    as_json: Json = False,
) -> None:
    """Draws rate-distortion curves, and prints each codec's BD-rate against the first."""
    from opsin.restoration.compression.metrics import bd_rate
    from opsin.restoration.compression.visualization import plot_curves

    if out.suffix not in {".png", ".svg", ".pdf"}:
        raise UserError(f"curves can't be drawn into {out}", "use .png, .svg or .pdf")
    points = dict(_curve(text, measure) for text in curves)
    plot_curves(points, out, quality="PSNR (dB)" if measure == "psnr" else measure)
    anchor = next(iter(points))
    saved = {name: bd_rate(points[anchor], points[name]) for name in points if name != anchor}
    if as_json:
        show_json({"anchor": anchor, "bd_rate": saved})
        return
    if saved:
        title = f"BD-rate against {anchor}"
        show_table(("codec", "%"), [(n, f"{value:+.2f}") for n, value in saved.items()], title=title)
    show_line(f"curves in {out}")


def _codec(model: str, weights: Path, device: str) -> Codec:
    from opsin.core.cli.run import checked_device, newest_checkpoint
    from opsin.restoration.compression.compressor import load_codec

    return load_codec(model, newest_checkpoint(weights), checked_device(device))


@contextmanager
def _naming(source: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def _shown(what: str, sources: list[Path], targets: list[Path]) -> Iterable[tuple[Path, Path]]:
    """Each source with its target, under a progress bar where a person looks on."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    pairs = list(zip(sources, targets, strict=True))
    return track(pairs, what, console=console, disable=not console.is_terminal)


def _compressed(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    found = sorted(given.rglob(f"*{SUFFIX}"))
    if not found:
        raise UserError(f"no {SUFFIX} file in {given}")
    return found


def _targets(sources: list[Path], out: Path, suffix: str) -> list[Path]:
    """Where each source's result goes: `out` itself for one source and a file name, else a folder `out`.

    Raises:
        UserError: if several sources would go into one file.
    """
    if len(sources) == 1 and out.suffix and not out.is_dir():
        if suffix == SUFFIX and out.suffix != SUFFIX:
            raise UserError(f"--out {out} is no {SUFFIX} file", f"name it {out.with_suffix(SUFFIX)}")
        return [out]
    if out.suffix and not out.is_dir():
        raise UserError(f"--out {out} names one file for {len(sources)} inputs", "name a folder")
    targets = [out / f"{source.stem}{suffix}" for source in sources]
    taken: set[Path] = set()
    for source, target in zip(sources, targets, strict=True):
        if target in taken:
            raise UserError(f"two inputs are called {source.stem}", "compress their folders one by one")
        taken.add(target)
    return targets


def _curve(text: str, measure: str) -> tuple[str, list[tuple[float, float]]]:
    import json

    name, separator, files = text.partition("=")
    if not separator or not files:
        raise UserError(f"{text!r} is not of the form NAME=FILE,FILE")
    points = []
    for file in files.split(","):
        try:
            row: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
            points.append((float(row["compression/bpp"]), float(row[f"compression/{measure}"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} holds no rate and {measure} ({type(error).__name__}: {error})",
                "give the metrics.json that `opsin test` writes",
            ) from error
    return name, points
