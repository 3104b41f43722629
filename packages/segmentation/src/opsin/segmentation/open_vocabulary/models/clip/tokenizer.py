"""CLIP's tokeniser from a file that the user has, as transformers' `CLIPTokenizer`.

Read are OpenAI's and open_clip's `bpe_simple_vocab_16e6.txt(.gz)`, and folders or files of Hugging Face
(`tokenizer.json`, or `vocab.json` with `merges.txt`). Without a file the tokens are single bytes, which is
for tests and random models only.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from opsin.core.errors import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 49152 - 256 - 2  # of the file's merges CLIP uses these many


def load_tokenizer(path: str | Path | None = None) -> Any:
    """The tokeniser.

    Args:
        path: a file or folder as the module says; None for single bytes.

    Raises:
        UserError: if transformers is not installed, or the file is missing or of another kind.
    """
    try:
        from transformers import CLIPTokenizer
    except ImportError:
        raise UserError(
            "class names need transformers", "pip install 'opsin-segmentation[open-vocabulary]'"
        ) from None
    if path is None:
        return CLIPTokenizer(vocab=_vocabulary([]), merges=[])
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise UserError(f"no tokeniser at {path}", "CLIP's is bpe_simple_vocab_16e6.txt.gz")
    if path.suffix == ".json":
        return _from_folder(path.parent)
    merges = _read_merges(path)
    return CLIPTokenizer(vocab=_vocabulary(merges), merges=merges)


def _from_folder(path: Path) -> Any:
    from transformers import CLIPTokenizer

    if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        vocabulary = json.loads((path / "vocab.json").read_text(encoding="utf-8"))
        return CLIPTokenizer(vocab=vocabulary, merges=_read_merges(path / "merges.txt"))
    if (path / "tokenizer.json").is_file():
        return CLIPTokenizer.from_pretrained(str(path), local_files_only=True)
    raise UserError(f"{path} has neither tokenizer.json nor vocab.json and merges.txt")


def _read_merges(path: Path) -> list[Any]:
    """The pairs after the head line of a merges file, at most as many as CLIP uses."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as a tokeniser ({error})") from error
    pairs = [tuple(line.split()) for line in text.splitlines()[1 : MERGES + 1] if line]
    if any(len(pair) != 2 for pair in pairs):
        raise UserError(f"{path} is not a list of merges", "CLIP's is bpe_simple_vocab_16e6.txt.gz")
    return pairs


def _vocabulary(merges: list[Any]) -> dict[str, int]:
    """CLIP's numbering: the 256 bytes, the bytes at a word's end, the merges, start and end."""
    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    return {word: number for number, word in enumerate([*words, START, END])}


def _byte_letters() -> list[str]:
    """One printable letter a byte, in the order of GPT-2's table: printable bytes first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
