"""Published checkpoints: reading the authors' files and placing their tensors by name.

A model whose own names or shapes differ from the published ones has two static methods next to its layers:

    from_published(tensors) -> tensors    published names and shapes to the model's own
    to_published(tensors) -> tensors      the way back

A model that keeps the published names needs neither. `opsin parity` fills models through the same `place`.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError

# Where authors put the weights inside a file, the one meant for use first.
WRAPPERS = (
    "state_dict_ema",
    "params_ema",
    "model_ema",
    "ema",
    "state_dict",
    "params",
    "model",
    "module",
    "model_state_dict",
    "net",
)
# What torch.load raises for files that are damaged or something else.
UNREADABLE = (RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError, KeyError, AttributeError)
PREFIXES = ("module.", "_orig_mod.")

Tensors = dict[str, Tensor]


def read_checkpoint(path: str | Path, key: str | None = None) -> Tensors:
    """The named tensors of a checkpoint file, out of whatever the authors wrapped them in.

    Args:
        path: `.safetensors`, or a file of `torch.save`, read with `weights_only=True`, so it runs no code.
        key: the entry to take (`"model"`); without it the first of `WRAPPERS` that is there.

    Raises:
        UserError: if the file is missing, truncated, not a checkpoint, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else load_weights_only(path)
    tensors = _unwrap(content, key, path)
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def load_weights_only(path: str | Path) -> Any:
    """`torch.load(weights_only=True)` on the CPU, its failures told in one line.

    Raises:
        UserError: if the file is truncated, is no checkpoint, or holds objects whose loading would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused or "weights_only" in str(error) or "Unsupported" in str(error):
            culprit = refused.group(1) if refused else "an object"
            raise UserError(
                f"{path} holds {culprit}, whose loading could run code",
                "opsin reads tensors only; ask its author for a clean file",
            ) from error
        raise UserError(f"{path} is not a checkpoint") from error
    except UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:100]
        raise UserError(f"{path} is truncated or not a checkpoint ({reason})") from error


def _load_safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is truncated or not a safetensors file ({error})") from error


def _unwrap(content: Any, key: str | None, path: Path) -> Tensors:
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            names = (
                ", ".join(map(str, list(content)[:8]))
                if isinstance(content, Mapping)
                else type(content).__name__
            )
            raise UserError(f"{path} has no entry {key!r}", f"it has {names}")
        content = content[key]
    else:
        for wrapper in WRAPPERS:
            if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
    tensors = (
        {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise UserError(f"{path} holds no named tensors")
    return tensors


def place(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str = "the checkpoint") -> None:
    """Puts published tensors into `model`, none missing and none left over.

    Buffers that follow from the architecture alone (index tables, rotary frequencies) may be absent when the
    model registers them as non-persistent; its `from_published` drops published copies of them.

    Raises:
        UserError: with the first names or shapes that differ.
    """
    convert = getattr(model, "from_published", None)
    converted = convert(dict(tensors)) if convert else dict(tensors)
    own = model.state_dict()
    plugins = getattr(model, "plugged", ())  # see layers.plugins: a plain network's file has none
    for name in list(own):
        optional = name.endswith("num_batches_tracked") or name.startswith(plugins)
        if optional and name not in converted:
            converted[name] = own[name]
    problems = differences(own, converted)
    if problems:
        raise UserError(
            f"{source} is not for {type(model).__name__}: {'; '.join(problems[:3])}"
            + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        )
    model.load_state_dict(converted)


def backbone_of(tensors: Tensors, *also: str) -> Tensors:
    """Of a whole OpenMMLab model's tensors those of its backbone, without the prefix; others as they are.

    Args:
        tensors: published tensors.
        also: prefixes of tensors that are kept besides (a classifier's `head.fc.`).
    """
    if not any(name.startswith("backbone.") for name in tensors):
        return tensors
    kept = ("backbone.", *also)
    return {n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith(kept)}


def fit(own: Tensors, given: Tensors, *, fresh: str = "", unused: str = "") -> Tensors:
    """Tensors of a network's file as a part of that network takes them.

    Args:
        own: the part's `state_dict()`.
        given: the file's tensors, under the part's names.
        fresh: regex of names that the file may lack; they keep their present values.
        unused: regex of names that the file may have beyond the part's own; they are dropped.
    """
    kept = {n: t for n, t in own.items() if fresh and n not in given and re.search(fresh, n)}
    return kept | {n: t for n, t in given.items() if n in own or not (unused and re.search(unused, n))}


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """What keeps `given` from being loaded into a model with the tensors `own`, in the model's order."""
    found = []
    for name, tensor in own.items():
        if name not in given:
            found.append(f"{name} {list(tensor.shape)} is missing")
        elif given[name].shape != tensor.shape:
            found.append(f"{name} is {list(given[name].shape)} and should be {list(tensor.shape)}")
    found += [
        f"{name} {list(tensor.shape)} is left over" for name, tensor in given.items() if name not in own
    ]
    return found


def load_published(model: nn.Module, path: str | Path, key: str | None = None) -> nn.Module:
    """Loads the authors' checkpoint file into `model` and returns the model.

    Args:
        model: built for the same variant and number of classes.
        path: the authors' file.
        key: which of the file's entries to take, when there are several.

    Raises:
        UserError: if the file can't be read or belongs to another model (names the first differing tensors).
    """
    place(model, read_checkpoint(path, key), source=str(path))
    return model
