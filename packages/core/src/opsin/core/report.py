"""A report of one training: curves and pictures as PNG files, and one HTML page that holds them all.

The page refers to nothing outside itself, so that it can be mailed or kept; the PNGs lie beside it.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opsin.core.errors import UserError

Curve = list[tuple[float, float]]  # (step, value), in the order of the steps

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2530; }
body { margin: 2rem auto; max-width: 68rem; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } table { border-collapse: collapse; margin: 1rem 0; }
td, th { border-bottom: 1px solid #d5dae1; padding: .3rem .9rem .3rem 0; text-align: left; }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; vertical-align: top; }
figcaption { color: #5a6675; font-size: .85rem; } img { max-width: 100%; border: 1px solid #d5dae1; }
"""


@dataclass(frozen=True)
class Section:
    """A heading with text, a table of (name, value) rows, and PNG files with their captions."""

    title: str
    text: str = ""
    rows: Sequence[tuple[str, str]] = ()
    pictures: Sequence[tuple[Path, str]] = ()


def read_curves(work_dir: Path) -> dict[str, Curve]:
    """Every scalar that the newest run in `work_dir` logged, by name.

    Raises:
        UserError: if no run has logged there.
    """
    logs = sorted(work_dir.glob("*/vis_data/scalars.json"))
    if not logs:
        raise UserError(f"no log of a run in {work_dir}")
    curves: dict[str, Curve] = {}
    for line in logs[-1].read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        step = float(row.get("step", row.get("iter", 0)))
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in {"step", "iter", "epoch"}:
                curves.setdefault(name, []).append((step, float(value)))
    return curves


def plot_curves(curves: Mapping[str, Curve], path: Path, *, title: str, xlabel: str, ylabel: str) -> Path:
    """Draws curves into one PNG file and returns its path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        steps, values = zip(*curve, strict=True)
        axes.plot(steps, values, label=name, marker="o" if len(curve) < 20 else None, markersize=4)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def write_page(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Writes the page with all pictures inside it and returns its path."""
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        *(part for section in sections for part in _section(section)),
        "</html>",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _section(section: Section) -> list[str]:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{html.escape(section.text)}</p>")
    if section.rows:
        cells = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in section.rows
        )
        parts.append(f"<table>{''.join(cells)}</table>")
    for picture, caption in section.pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        alt = html.escape(caption)
        image = f"<img alt='{alt}' src='data:image/png;base64,{data}'>"
        parts.append(f"<figure>{image}<figcaption>{alt}</figcaption></figure>")
    return parts
