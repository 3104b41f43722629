"""Text files with an entry a line."""

from __future__ import annotations

from pathlib import Path

from opsin.core.errors import UserError


def text_lines(path: Path) -> list[str]:
    """The lines of a file that are not blank, stripped.

    Raises:
        UserError: if the file can't be read as text.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as text ({error})") from None
    return [line.strip() for line in content.splitlines() if line.strip()]
