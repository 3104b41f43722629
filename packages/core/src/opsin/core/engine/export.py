"""Models for other runtimes: `torch.export` programs and ONNX files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from opsin.core.errors import UserError
from opsin.core.models import example_inputs


def export_model(model: nn.Module, out: Path, shape: tuple[int, int, int, int]) -> None:
    """Writes `model` for inputs of one shape, after checking that the export computes the same.

    Args:
        model: in eval mode.
        out: `.pt2` for `torch.export`, `.onnx` for ONNX (needs the packages onnx and onnxscript).
        shape: of the input, (N, 3, H, W).

    Raises:
        UserError: unknown suffix, missing packages, or a model that can't be exported.
    """
    if out.suffix not in {".pt2", ".onnx"}:
        raise UserError(f"{out} should end in .pt2 or .onnx")
    if out.suffix == ".onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UserError("ONNX export needs onnx and onnxscript", "pip install onnx onnxscript")
    inputs = example_inputs(model, torch.rand(shape))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name("part-" + out.name)
    try:
        program = torch.export.export(model, inputs)
    except Exception as error:  # torch.export fails in many ways; all mean the same to a person
        raise UserError(
            f"{type(model).__name__} can't be exported: {str(error).splitlines()[0][:200]}"
        ) from error
    with torch.no_grad():
        pairs = zip(tree_leaves(program.module()(*inputs)), tree_leaves(model(*inputs)), strict=True)
        worst = max(float((found - wanted).abs().max()) for found, wanted in pairs)
    if worst > 1e-3:
        raise UserError(f"the exported {type(model).__name__} differs from the model by {worst:.1e}")
    if out.suffix == ".pt2":
        torch.export.save(program, part)
    else:
        torch.onnx.export(program, inputs, part, dynamo=True)
    part.replace(out)
