"""Entropy coding of symbols with probability tables: `constriction`'s asymmetric numeral systems.

A stack of 32-bit words: what is pushed last is read first. So `StreamWriter` collects in the reader's order,
and pushes from the end. Symbols go table by table, in the order of the tables' numbers: the reader knows from
the tables' indices how many symbols of each to expect.

A symbol that its table does not list is coded as the table's tail; after all symbols of a call come the
values of those that were not listed, as numbers of 4-bit digits and the digits, lowest first.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opsin.core.errors import UserError
from opsin.restoration.compression.bitstream.tables import TOTAL, Tables

Symbols = NDArray[np.int64]

LARGEST_SYMBOL = 1 << 17
DIGIT_BITS = 4
MOST_DIGITS = 6  # 24 bits hold every value of a symbol up to the largest
WORD = 4  # bytes


@cache
def _constriction() -> Any:
    try:
        import constriction
    except ImportError:
        raise UserError(
            "coding pictures needs constriction, which is not installed",
            "pip install 'opsin-restoration[compression]'",
        ) from None
    return constriction.stream


class CodingModels:
    """`constriction`'s models of the tables of one kind, made when they are first used."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._models: dict[int, Any] = {}

    def __getitem__(self, table: int) -> Any:
        if table not in self._models:
            mass = self.tables.counts[table] / TOTAL
            self._models[table] = _constriction().model.Categorical(mass, perfect=False, lazy=False)
        return self._models[table]


def _uniform(size: int) -> Any:
    return _constriction().model.Uniform(size)


class StreamWriter:
    """Collects symbols in the order in which they will be read."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.int32], Any]] = []

    def put(self, models: CodingModels, table: Symbols, symbols: Symbols) -> None:
        """Adds symbols, each with the number of its table; both of one shape.

        Raises:
            UserError: if a magnitude exceeds 2^17, as only an untrained or broken model's does.
        """
        if symbols.size and np.abs(symbols).max() > LARGEST_SYMBOL:
            raise UserError(
                f"the model gives a symbol of {np.abs(symbols).max()}, and {LARGEST_SYMBOL} is the largest",
                "has it been trained?",
            )
        unlisted: list[Symbols] = []
        for number in np.unique(table):
            places = symbols[table == number] - models.tables.offsets[number]
            tail = len(models.tables.counts[number]) - 1
            outside = (places < 0) | (places >= tail)
            beyond = places[outside]
            unlisted.append(np.where(beyond < 0, -2 * beyond - 1, 2 * (beyond - tail)))
            self._add(np.where(outside, tail, places), models[number])
        self._put_values(np.concatenate(unlisted) if unlisted else np.empty(0, np.int64))

    def _put_values(self, values: Symbols) -> None:
        if not values.size:
            return
        counts = np.array([-(-int(value).bit_length() // DIGIT_BITS) for value in values])
        digits = values[:, None] >> (DIGIT_BITS * np.arange(MOST_DIGITS)) & 15
        written = np.arange(MOST_DIGITS) < counts[:, None]
        self._add(counts, _uniform(MOST_DIGITS + 1))
        self._add(digits[written], _uniform(1 << DIGIT_BITS))

    def _add(self, symbols: Symbols, model: Any) -> None:
        if symbols.size:
            self._parts.append((symbols.astype(np.int32), model))

    def to_bytes(self) -> bytes:
        """The stream, a multiple of 4 bytes."""
        coder = _constriction().stack.AnsCoder()
        for symbols, model in reversed(self._parts):
            coder.encode_reverse(symbols, model)
        return bytes(coder.get_compressed().astype("<u4").tobytes())


class StreamReader:
    """Reads what a `StreamWriter` wrote.

    Any bytes can be read as symbols, so that damage shows only in what is left at the end.

    Args:
        data: the stream.
        name: how errors call it.

    Raises:
        UserError: if it is no stream at all.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        words = np.frombuffer(data, "<u4") if len(data) % WORD == 0 else None
        if words is None or (words.size and words[-1] == 0):
            raise self._damaged("no stream ends like this")
        self._coder = _constriction().stack.AnsCoder(words.astype(np.uint32) if words.size else None)

    def take(self, models: CodingModels, table: Symbols) -> Symbols:
        """The symbols of the given tables, in the shape of `table`.

        Raises:
            UserError: if a value that no writer writes is met.
        """
        symbols = np.empty(table.shape, np.int64)
        flat = symbols.reshape(-1)
        order: list[NDArray[np.intp]] = []
        for number in np.unique(table):
            where = np.flatnonzero(table == number)
            places = np.asarray(self._coder.decode(models[number], len(where)), np.int64)
            tail = len(models.tables.counts[number]) - 1
            flat[where] = places + models.tables.offsets[number]
            order.append(where[places == tail])
        if order:
            self._take_values(flat, np.concatenate(order), models, table.reshape(-1))
        return symbols

    def _take_values(
        self, symbols: Symbols, where: NDArray[np.intp], models: CodingModels, table: Symbols
    ) -> None:
        if not where.size:
            return
        counts = np.asarray(self._coder.decode(_uniform(MOST_DIGITS + 1), len(where)), np.int64)
        written = np.arange(MOST_DIGITS) < counts[:, None]
        digits = np.zeros(written.shape, np.int64)
        digits[written] = self._coder.decode(_uniform(1 << DIGIT_BITS), int(counts.sum()))
        values = (digits << (DIGIT_BITS * np.arange(MOST_DIGITS))).sum(1)
        # symbols[where] are offset + tail: the first symbol above the table
        lengths = np.array([len(models.tables.counts[number]) - 1 for number in table[where]])
        above = symbols[where] + values // 2
        below = symbols[where] - lengths - (values + 1) // 2
        symbols[where] = np.where(values % 2, below, above)
        if np.abs(symbols[where]).max() > LARGEST_SYMBOL:
            raise self._damaged("it holds a symbol that is too large")

    def finish(self) -> None:
        """Checks that everything has been read.

        Raises:
            UserError: if something is left: the stream was made by another model, or is damaged.
        """
        if not self._coder.is_empty():
            raise self._damaged("it holds more than its symbols")

    def _damaged(self, why: str) -> UserError:
        return UserError(f"the stream {self.name} is damaged ({why})", "get the file again from its source")
