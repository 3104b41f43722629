"""Models by name: `create_model("vim_tiny")`, `create_backbone("vim_tiny", out_indices=(5, 11, 17, 23))`.

A system's file registers its variants as data:

    register_models("convnext", ConvNeXtClassifier, VARIANTS, backbone=ConvNeXt)

Names are listed in `systems.toml` too, so that listing them imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.core.systems import systems


@dataclass(frozen=True)
class NamedModel:
    """A named variant: its classes and the arguments that make the variant."""

    name: str
    system: str
    model: Callable[..., nn.Module]
    backbone: Callable[..., nn.Module] | None
    arguments: Mapping[str, Any]


_MODELS: dict[str, NamedModel] = {}


def register_models(
    system: str,
    model: Callable[..., nn.Module],
    variants: Mapping[str, Mapping[str, Any]],
    *,
    backbone: Callable[..., nn.Module] | None = None,
) -> None:
    """Registers named variants of a system.

    Args:
        system: slug of the system, as in `systems.toml`.
        model: class of the whole published network; built as `model(**variant, **changes)`.
        variants: model name to the arguments that make it.
        backbone: class of its feature extractor, built from the same arguments and `out_indices`.
    """
    for name, arguments in variants.items():
        if name in _MODELS and _MODELS[name].system != system:
            raise ValueError(f"model {name!r} is registered by {_MODELS[name].system!r} and {system!r}")
        _MODELS[name] = NamedModel(name, system, model, backbone, dict(arguments))


def list_models(pattern: str = "*") -> list[str]:
    """Names of the installed models that match a shell-style pattern, sorted."""
    names = {name for system in systems().values() for name in system.models}
    return sorted(name for name in names if fnmatchcase(name, pattern))


def get_model(name: str) -> NamedModel:
    """The registered variant `name`; imports the system that carries it.

    Raises:
        UserError: if no installed system has it, with the nearest names.
    """
    if name not in _MODELS:
        owners = [system for system in systems().values() if name in system.models]
        if not owners:
            raise unknown("model", name, list_models())
        owners[0].register()
    return _MODELS[name]


def create_model(name: str, **changes: Any) -> nn.Module:
    """Builds the published network `name` with random weights.

    Args:
        name: a name that `list_models` gives.
        changes: arguments of the network's class that replace the variant's (`num_classes=10`).
    """
    named = get_model(name)
    return named.model(**{**named.arguments, **changes})


def create_backbone(name: str, **changes: Any) -> nn.Module:
    """Builds the feature extractor of `name`: a tuple of N,C,H,W maps, as `feature_info` says.

    Args:
        name: a name that `list_models` gives.
        changes: arguments of the backbone's class, `out_indices` above all.

    Raises:
        UserError: if that model has no feature extractor.
    """
    named = get_model(name)
    if named.backbone is None:
        raise UserError(f"{name} has no feature extractor", "use create_model")
    return named.backbone(**{**named.arguments, **changes})


def example_inputs(model: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """Arguments of the model's `forward` that go with an image (N, 3, H, W).

    A model that takes more than a picture (a tracker takes templates too) says so by a method of this name.
    """
    several = getattr(model, "example_inputs", None)
    return tuple(several(image)) if several else (image,)
