r"""Parity cases: numbers that a published implementation gave, and how ours is compared with them.

A case is `<case>.json` and `<case>.npz`. The JSON lists every tensor of the published model (name, shape),
how it is filled from its name, how each input is made from a seed, and what was run; the NPZ holds the
outputs (4096 places of each large one). So a case holds no weights, and any implementation that can place
tensors by their published names can be compared.

A system's module says how its cases are run:

    @parity.adapter("convnext", r"models/convnext\.py Block")
    def _block(case: Case) -> dict[str, Tensor]:
        block = Block(case.built_with["dim"], …)
        place(block, case.state_dict())
        return {"out": block.eval()(case.inputs()["x"])}
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.core.errors import UserError
from opsin.core.systems import systems

SAMPLED_PLACES = 4096
# The adapters of cases that pin an op alone, of the system `ops` or of one that is built on the op.
OPS_MODULES = tuple(f"opsin.core.ops.{op}published" for op in ("", "neighborhood_attention.", "wkv."))


def _generator(key: str) -> np.random.Generator:
    """A stream that depends on `key` alone, on every machine."""
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:8], "little")))


def fill(
    name: str, shape: tuple[int, ...], seed: int, overrides: list[dict[str, Any]]
) -> NDArray[np.float32]:
    """Float32 values of the published tensor `name`: the first override whose regex matches, else by kind.

    With x standard normal: running variances are 1 + 0.1|x| and means 0.1x; vectors 0.1x, plus 1 for
    `…weight` (norm scales); tensors that begin with a dimension of 1 are 0.1x (position tables); all else is
    x / sqrt(fan in).
    """
    x = np.asarray(_generator(f"{seed}:{name}").standard_normal(shape, dtype=np.float32))
    for rule in overrides:
        if re.search(rule["match"], name):
            return np.asarray(rule["mean"] + rule["std"] * x, dtype=np.float32)
    leaf = name.rsplit(".", 1)[-1]
    filled: NDArray[Any]
    if leaf == "running_var":
        filled = 1 + 0.1 * np.abs(x)
    elif leaf == "running_mean":
        filled = 0.1 * x
    elif len(shape) <= 1:
        filled = (1 if leaf == "weight" else 0) + 0.1 * x
    elif shape[0] == 1:
        filled = 0.1 * x
    else:
        filled = x / math.sqrt(math.prod(shape[1:]))
    return np.asarray(filled, dtype=np.float32)


def make_input(spec: Mapping[str, Any]) -> NDArray[Any]:
    """The input that `spec` describes: `kind` is normal, uniform, integers or literal."""
    kind = spec.get("kind", "normal")
    if kind == "literal":
        return np.asarray(spec["value"], dtype=spec.get("dtype", "float32"))
    rng = _generator(f"input:{spec['seed']}")
    if kind == "normal":
        return rng.standard_normal(spec["shape"], dtype=np.float32)
    if kind == "uniform":
        low, high = spec.get("low", 0.0), spec.get("high", 1.0)
        return np.asarray(low + (high - low) * rng.random(spec["shape"], dtype=np.float32), dtype=np.float32)
    if kind == "integers":
        return rng.integers(spec["low"], spec["high"], spec["shape"], dtype=np.int64)
    raise UserError(f"unknown input kind {kind!r} in a parity case")


def sampled_places(name: str, size: int) -> NDArray[np.int64]:
    """The flat indices of output `name` that a case pins."""
    if size <= SAMPLED_PLACES:
        return np.arange(size)
    return np.sort(_generator(f"sample:{name}").choice(size, SAMPLED_PLACES, replace=False))


@dataclass(frozen=True)
class Case:
    """One parity case: what was run (`meta`) and what it gave (`outputs`)."""

    meta: dict[str, Any]
    outputs: dict[str, NDArray[Any]]

    @classmethod
    def load(cls, path: str | Path) -> Case:
        """Reads `<case>.json` and the `.npz` beside it.

        Raises:
            UserError: if either is missing or is not a parity case.
        """
        path = Path(path).with_suffix(".json")
        for part in (path, path.with_suffix(".npz")):
            if not part.is_file():
                raise UserError(f"no parity case at {part}")
        try:
            meta = json.loads(path.read_text())
            with np.load(path.with_suffix(".npz")) as arrays:
                outputs = dict(arrays)
            missing = [
                key
                for key in ("system", "case", "source", "inputs", "outputs", "tolerance")
                if key not in meta
            ]
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not a parity case ({str(error).splitlines()[0]})") from error
        if missing:
            raise UserError(f"{path} is not a parity case: it lacks {', '.join(missing)}")
        return cls(meta, outputs)

    @property
    def system(self) -> str:
        """Slug of the system."""
        return str(self.meta["system"])

    @property
    def name(self) -> str:
        """The case's own name."""
        return str(self.meta["case"])

    @property
    def source(self) -> str:
        """Repository@commit, file and class that gave the numbers."""
        return str(self.meta["source"])

    @property
    def tolerance(self) -> float:
        """The largest allowed `compare`."""
        return float(self.meta["tolerance"])

    @property
    def built_with(self) -> dict[str, Any]:
        """Arguments of the published class."""
        return dict(self.meta.get("built_with", {}))

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Published tensor name to shape."""
        return {name: tuple(shape) for name, shape in self.meta.get("tensors", [])}

    def state_dict(self) -> dict[str, Tensor]:
        """Published name to tensor, for every tensor of the published model."""
        seed, overrides = self.meta.get("weight_seed", 0), self.meta.get("overrides", [])
        return {
            name: torch.from_numpy(fill(name, shape, seed, overrides)) for name, shape in self.shapes.items()
        }

    def inputs(self) -> dict[str, Tensor]:
        """Input name to tensor."""
        return {name: torch.from_numpy(make_input(spec)) for name, spec in self.meta["inputs"].items()}

    def compare(self, outputs: Mapping[str, Any]) -> float:
        """The worst difference over all outputs, each relative to its largest value; inf if not finite.

        Raises:
            ValueError: if an output is missing or has another shape.
        """
        worst = 0.0
        for name, spec in self.meta["outputs"].items():
            if name not in outputs:
                raise ValueError(f"output {name!r} was not computed")
            got = outputs[name]
            got = np.asarray(got.detach().cpu() if isinstance(got, Tensor) else got)
            if list(got.shape) != list(spec["shape"]):
                raise ValueError(f"output {name!r} has shape {list(got.shape)}, expected {spec['shape']}")
            pinned = got.reshape(-1)[sampled_places(name, got.size)].astype(np.float64)
            want = self.outputs[name].astype(np.float64)
            if not np.isfinite(pinned).all():
                return math.inf
            if want.size:
                worst = max(worst, float(np.abs(pinned - want).max() / max(float(np.abs(want).max()), 1e-12)))
        return worst


Run = Callable[[Case], Mapping[str, Any]]
_ADAPTERS: list[tuple[str, re.Pattern[str], Run]] = []


def adapter(system: str, source: str) -> Callable[[Run], Run]:
    """Registers how cases of `system` are run whose source matches the regex `source`."""

    def register(run: Run) -> Run:
        _ADAPTERS.append((system, re.compile(source), run))
        return run

    return register


def find_adapter(case: Case) -> Run:
    """The function that runs `case`.

    Raises:
        UserError: naming the system or the source that no adapter knows.
    """
    if case.system in systems():
        systems()[case.system].register()
    for module in OPS_MODULES:
        import_module(module)
    for system, pattern, run in _ADAPTERS:
        if system == case.system and pattern.search(case.source):
            return run
    if case.system not in {*systems(), "ops"}:
        raise UserError(f"no installed system {case.system!r} for the case {case.name}")
    raise UserError(f"no adapter for the source {case.source!r} of system {case.system!r}")


@dataclass(frozen=True)
class Result:
    """What became of one case; `error` is empty when it ran."""

    system: str
    case: str
    worst: float | None
    tolerance: float | None
    ok: bool
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result as JSON values; a worst that is not finite becomes null with an error that says so."""
        row = asdict(self)
        row["error"] = self.error or None
        return row


def run_case(path: str | Path) -> Result:
    """Runs one case file and reports; a failure becomes the result's `error`, never an exception."""
    system, name, tolerance = "", Path(path).stem, None
    try:
        case = Case.load(path)
        system, name, tolerance = case.system, case.name, case.tolerance
        worst = case.compare(find_adapter(case)(case))
    except Exception as error:  # the next case must run whatever this one did
        return Result(
            system,
            name,
            None,
            tolerance,
            False,
            f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error),
        )
    if not math.isfinite(worst):
        return Result(system, name, None, tolerance, False, "an output is not finite")
    return Result(system, name, worst, tolerance, worst <= tolerance)
