"""Writes docs/backbones.md: every backbone in every kind of network, as running it shows.

The networks are those of the tests, so their support code must be on the path:

PYTHONPATH=tests/support python tools/matrix_page.py            # runs all and writes the page (minutes)
PYTHONPATH=tests/support python tools/matrix_page.py --check    # exit code 1 if a pair is not on it
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch
from backbone_matrix import HEADS, batch, dense_model, losses_of, predict, total
from small_backbones import BACKBONES, small_backbone, small_classifier

PAGE = Path(__file__).parents[1] / "docs" / "backbones.md"
INTRODUCTION = """# Backbones and networks

Made by `tools/matrix_page.py`, which runs each pair: the network of a stock mmdet or mmsegmentation
config in which only the backbone, and what tells necks and heads its widths and strides, was changed. `yes`
means that a training step's loss is finite, its gradient reaches the backbone, and pictures of 70x101 and
97x66 pixels are predicted. `tests/test_backbone_matrix.py` does the same in CI. Strides are those of the
default maps.
"""


def classifies(backbone: str) -> bool:
    """Whether the family's classifier trains a step."""
    loss = small_classifier(backbone).train()(torch.randn(2, 3, 64, 96)).logsumexp(1).sum()
    loss.backward()
    return bool(loss.isfinite())


def runs(backbone: str, head: str) -> bool:
    """Whether a training step and predictions of the network work on the backbone."""
    model, data = dense_model(head, backbone), batch(head)
    loss = total(losses_of(model.train(), data))
    loss.backward()
    reached = any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    return bool(loss.isfinite()) and reached and len(predict(model, data)) == 2


def row(backbone: str) -> str:
    """A line of the table."""
    page = backbone.split(".")[0].replace("_", "-")
    kind = str(BACKBONES[backbone]["type"])
    strides = " ".join(str(info.stride) for info in small_backbone(backbone).feature_info)
    cells = [classifies(backbone), *(runs(backbone, head) for head in HEADS)]
    shown = [f"[{backbone}](systems/{page}.md)", f"`{kind}`", strides, *("yes" if c else "no" for c in cells)]
    return f"| {' | '.join(shown)} |"


def header() -> list[str]:
    """The head of the table."""
    columns = ["system", "type", "strides", "classification", *HEADS]
    return [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]


def is_complete(page: str) -> bool:
    """Whether the page has these columns and a row for every backbone."""
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    return header()[0] in page and [line.split("]")[0][3:] for line in rows] == list(BACKBONES)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        if PAGE.is_file() and is_complete(PAGE.read_text()):
            return 0
        print(f"{PAGE} is out of date: run tools/matrix_page.py", file=sys.stderr)
        return 1
    logging.disable(logging.WARNING)
    lines = [INTRODUCTION, *header(), *(row(backbone) for backbone in BACKBONES)]
    PAGE.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
