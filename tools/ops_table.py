"""Writes the table in docs/ops.md: each function of mmcv's extension, and what opsin has for it.

python tools/ops_table.py            # writes
python tools/ops_table.py --check    # exit code 1 if the page is out of date
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

from opsin.core.ops import mmcv_functions

PAGE = Path(__file__).parents[1] / "docs" / "ops.md"
BEGIN, END = "<!-- table: tools/ops_table.py -->", "<!-- end of table -->"


def asked_for() -> dict[str, list[str]]:
    """The files of `mmcv/ops`, each with the function names that it asks the extension for."""
    package = find_spec("mmcv")
    assert package is not None and package.submodule_search_locations is not None
    files = {}
    for path in sorted((Path(package.submodule_search_locations[0]) / "ops").glob("*.py")):
        names: list[str] = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "load_ext":
                names += ast.literal_eval(node.args[1])
        if names:
            files[path.name] = names
    return files


def rows() -> list[tuple[str, str, str, str, str, str]]:
    """Op, forward, backward, CPU, CUDA, tested against; the provided ones first."""
    data = tomllib.loads(Path(mmcv_functions.__file__).with_suffix(".toml").read_text())
    provided = []
    for op, entry in data.items():
        backward = [name for name in entry["functions"] if "backward" in name]
        forward = [name for name in entry["functions"] if name not in backward]
        listed = (", ".join(f"`{name}`" for name in names) or "–" for names in (forward, backward))
        provided.append((op, *listed, entry["cpu"], entry["cuda"], entry["tested"]))
    missing = []
    for file, names in asked_for().items():
        lacking = [name for name in names if name not in mmcv_functions.PROVIDED]
        if lacking:
            text = ", ".join(f"`{name}`" for name in lacking)
            missing.append(
                (
                    f"{file.removesuffix('.py')}",
                    text,
                    "–",
                    "not provided",
                    "not provided",
                    "error names the op",
                )
            )
    return provided + missing


def table() -> str:
    """The rows in Markdown."""
    head = ("Op", "Forward", "Backward", "CPU", "CUDA", "Tested against")
    lines = [head, ("---",) * len(head), *rows()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    written = f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"
    if parser.parse_args().check:
        return int(written != page)
    PAGE.write_text(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
