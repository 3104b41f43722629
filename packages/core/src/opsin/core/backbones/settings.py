"""Variants whose settings are a dataclass: fields without a default must be given, the others may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, TypeVar

from opsin.core.errors import UserError, unknown

Settings = TypeVar("Settings")


def resolve_settings(
    family: str, archs: Mapping[str, Settings], arch: str | Mapping[str, Any], changes: Mapping[str, Any]
) -> Settings:
    """The settings of a named variant, or those that a mapping gives, with some of them changed.

    Args:
        family: what errors call the family.
        archs: the named variants, all of one dataclass.
        arch: one of the names, or a mapping from the dataclass's fields.
        changes: fields that replace those of `arch`.

    Raises:
        UserError: for an unknown name or field, or a mapping without a field that has no default.
    """
    kind = type(next(iter(archs.values())))
    assert is_dataclass(kind)
    if isinstance(arch, str) and arch not in archs:
        raise unknown(f"{family} arch", arch, archs)
    given = dict(changes) if isinstance(arch, str) else {**arch, **changes}
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            raise unknown(f"setting of {family}", name, known)
    if isinstance(arch, str):
        named: Any = archs[arch]
        return replace(named, **given)
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in given]
    if missing:
        raise UserError(f"{family} arch {dict(arch)} lacks {', '.join(missing)}")
    return kind(**given)


def one_a_stage(name: str, value: Any, stages: int) -> tuple[Any, ...]:
    """A sequence with an entry a stage as a tuple; a single value, which holds for all stages, repeated.

    Raises:
        UserError: if there are not as many entries as stages.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * stages
    if len(values) != stages:
        raise UserError(f"{name} {value} must be one value or one for each of {stages} stages")
    return values
