"""`opsin systems`, `models` and `info`: what is here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from opsin.core.cli.complete import model_names
from opsin.core.cli.show import show_json, show_table
from opsin.core.errors import unknown

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command()(systems)
    app.command()(models)
    app.command()(info)


def systems(
    task: Annotated[str | None, typer.Option(help="Only those of this task or package.")] = None,
    as_json: Json = False,
) -> None:
    """Lists the published systems installed here."""
    from dataclasses import asdict

    from opsin.core.systems import systems as installed
    from opsin.core.task import tasks

    found = list(installed().values())
    if task is not None:
        name = task.replace("-", "_")
        packages = {t.name: t.package for t in tasks().values()} | {
            s.package.split(".")[-1]: s.package for s in found
        }
        if name not in packages:
            raise unknown("task", task, packages)
        found = [system for system in found if system.package == packages[name]]
    if as_json:
        show_json([asdict(system) for system in found])
    else:
        rows = [(s.slug, s.title, str(s.year), s.package, len(s.models), len(s.cases)) for s in found]
        show_table(("system", "title", "year", "package", "models", "parity cases"), rows)


def models(
    pattern: Annotated[str, typer.Argument(help="Shell-style pattern, such as 'vim*'.")] = "*",
    as_json: Json = False,
) -> None:
    """Lists model names."""
    from opsin.core.models import list_models

    names = list_models(pattern)
    if not names:
        raise unknown("model", pattern, list_models())
    if as_json:
        show_json(names)
    else:
        for name in names:
            print(name)


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", autocompletion=model_names)],
    size: Annotated[int, typer.Option(help="Side of the square input, in pixels.")] = 224,
    as_json: Json = False,
) -> None:
    """Shows a model's parameters, FLOPs and stages."""
    facts = describe(model, size)
    if as_json:
        show_json(facts)
        return
    rows = [(key, value) for key, value in facts.items() if key != "stages"]
    show_table(
        ("", model), [(key, f"{value:,}" if isinstance(value, int) else str(value)) for key, value in rows]
    )
    if facts["stages"]:
        show_table(
            ("stage", "channels", "stride", "height", "width"), [tuple(s.values()) for s in facts["stages"]]
        )


def describe(name: str, size: int) -> dict[str, Any]:
    """Parameters, multiply-adds of one forward pass and the backbone's maps; nothing is allocated."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from opsin.core.models import create_backbone, create_model, example_inputs, get_model
    from opsin.core.ops.operation_counts import formulas

    named = get_model(name)
    image = torch.empty(1, 3, size, size, device="meta")
    with torch.device("meta"), torch.no_grad():
        model = create_model(name).eval()
        with FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
            model(*example_inputs(model, image))
        backbone: Any = create_backbone(name).eval() if named.backbone else None
        maps = backbone(image) if backbone else ()
        stages = backbone.feature_info if backbone else ()
    return {
        "system": named.system,
        "class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
        "input": [3, size, size],
        "stages": [
            {
                "stage": index,
                "channels": stage.channels,
                "stride": stage.stride,
                "height": m.shape[2],
                "width": m.shape[3],
            }
            for index, (stage, m) in enumerate(zip(stages, maps, strict=True))
        ],
    }
