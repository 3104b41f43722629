"""Fixed-point numbers: 12 bits after the point, magnitudes below 2^21, i.e. below 512.

They are integers in float64 tensors. Below 2^53 its sums, products, roundings and multiplications by powers
of two are exact, and matrix products, which have no integer form, take such tensors as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from opsin.core.errors import UserError

FRACTION = 12
ONE = 1 << FRACTION
LIMIT = (1 << 21) - 1  # largest magnitude of an activation
SUM_BITS = 48  # products are summed up to 2^48, in float64 with its 53 bits
GATE_FRACTION = 16  # bits after the point of a gate, which lies from 0 to 1

_TABLE_REACH = 16  # activation functions are tabulated from -16 to 16
_TABLES_DIGEST = "00320e46da77a64b60813dee877463ab07269346c0b9dc032f00ec66d1e6be8b"


def to_fixed(x: Tensor) -> Tensor:
    """The nearest fixed-point numbers (halves to even), within the limits."""
    return (x.double() * ONE).round().clamp(-LIMIT, LIMIT)


def to_float(x: Tensor) -> Tensor:
    """float32, without an error below 2^24."""
    return (x / ONE).float()


def saturated(x: Tensor) -> Tensor:
    """Clips to the limits of an activation."""
    return x.clamp(-LIMIT, LIMIT)


def shifted(x: Tensor, bits: int) -> Tensor:
    """Divides by 2^bits, to the nearest integer, halves upwards; multiplied for negative `bits`."""
    return (x * 2.0**-bits + 0.5).floor()


def shift_(x: Tensor, bits: int) -> Tensor:
    """`shifted` and `saturated` at once, in the tensor's own memory."""
    return x.mul_(2.0**-bits).add_(0.5).floor_().clamp_(-LIMIT, LIMIT)


def leaky_relu(x: Tensor) -> Tensor:
    """x, or a tenth of it where it is negative; the tenth is 6554 / 65536."""
    return torch.maximum(x, shifted(x * 6554, 16))


def integer_sqrt(x: Tensor) -> Tensor:
    """The largest integers whose squares are at most x, for x from 0 to 2^50.

    The processor's root only has to be right to within 1: comparing the squares decides.
    """
    root = x.sqrt().floor()
    root = root - (root * root > x).double()
    return root + ((root + 1) * (root + 1) <= x).double()


def gelu(x: Tensor) -> Tensor:
    """GELU, x · Phi(x); beyond the table's last entry it grows as x does."""
    return _looked_up("gelu", x).add_((x - (_TABLE_REACH * ONE - 1)).clamp_(min=0))


def half_tanh(x: Tensor) -> Tensor:
    """tanh(x) / 2."""
    return _looked_up("half_tanh", x)


def gate(x: Tensor) -> Tensor:
    """sigmoid(x) with `GATE_FRACTION` bits after the point."""
    return _looked_up("gate", x)


def _looked_up(name: str, x: Tensor) -> Tensor:
    reach = _TABLE_REACH * ONE
    return _table(name, x.device)[x.clamp(-reach, reach - 1).add_(reach).long()]


ACTIVATIONS: dict[str, tuple[Callable[[float], float], int]] = {
    "gelu": (lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2)), ONE),
    "half_tanh": (lambda x: 0.5 * math.tanh(x), ONE),
    "gate": (lambda x: 1 / (1 + math.exp(-x)), 1 << GATE_FRACTION),
}
"""Function of a number, and what a table holds is multiplied by."""


@torch.compiler.disable  # a compiler would trace the making of the tables, entry by entry
def _table(name: str, device: torch.device) -> Tensor:
    return _tables_on(device)[name]


@cache
def _tables_on(device: torch.device) -> dict[str, Tensor]:
    return {name: values.to(device, torch.float64) for name, values in _checked_tables().items()}


@cache
def _checked_tables() -> dict[str, Tensor]:
    """The tables of the activation functions, int64 (2 · 16 · 4096,).

    The C library may err in a function's last digits; none of the exact values lies so near a half that this
    changes an integer. The digest proves it on the machine at hand.

    Raises:
        UserError: if this machine's C library gives other tables.
    """
    places = range(-_TABLE_REACH * ONE, _TABLE_REACH * ONE)
    tables = {
        name: torch.tensor([math.floor(function(i / ONE) * unit + 0.5) for i in places])
        for name, (function, unit) in ACTIVATIONS.items()
    }
    check_digest(
        "activation functions", [t.numpy().astype("<i4").tobytes() for t in tables.values()], _TABLES_DIGEST
    )
    return tables


def check_digest(what: str, contents: list[bytes], expected: str) -> None:
    """Compares the SHA-256 of constant tables with the one that every machine must get.

    Raises:
        UserError: if it differs, for files would then not decode.
    """
    digest = hashlib.sha256(b"".join(contents)).hexdigest()
    if digest != expected:
        raise UserError(
            f"this machine computes other tables of {what} ({digest[:16]}…)",
            "its C library is inaccurate; files could not be exchanged with other machines",
        )
