"""Runs the measured comparisons of `benchmarks/`: all of them, or those whose names are given.

    python tools/benchmark.py [NAME …]

Each script there times opsin against what a user would take instead, both in one run, and prints a table.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def main(names: list[str]) -> int:
    scripts = {path.stem: path for path in sorted(BENCHMARKS.glob("*.py"))}
    unknown = [name for name in names if name not in scripts]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(scripts)}", file=sys.stderr)
        return 2
    codes = []
    for name in names or scripts:
        print(f"== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, str(scripts[name])]).returncode)
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
