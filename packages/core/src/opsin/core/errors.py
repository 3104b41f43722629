"""A person's mistake, said in one line: what is wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that a person can mend; the command line prints it as one line and exits with 2.

    Args:
        what: what is wrong, quoting what was given and what was expected.
        mend: what to do about it.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        text = f"{what}; {mend}" if mend else what
        super().__init__(" ".join(text.split()))


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names in `known` that look most like `name`, best first (at most `count`, perhaps none)."""
    by_folded = {k.lower(): k for k in sorted(set(known))}
    found = difflib.get_close_matches(name.lower(), by_folded, n=count, cutoff=0.4)
    return [by_folded[f] for f in found]


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that nothing carries, with the nearest names."""
    known = list(known)
    close = nearest(name, known) or sorted(known)[:5]
    mend = f"did you mean {', '.join(close)}?" if close else f"no {kind} is installed"
    return UserError(f"unknown {kind} {name!r}", mend)


def as_user_error(error: BaseException | None) -> UserError | None:
    """The `UserError` behind an exception, if a person's mistake is what caused it.

    mmengine's registries raise the error again under a longer text; this finds the first one.
    """
    found = None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, UserError):
            found = error
        error = error.__cause__ or error.__context__
    return found
