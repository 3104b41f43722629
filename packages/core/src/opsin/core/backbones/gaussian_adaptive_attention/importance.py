"""Importance factors: which layers of the encoder a trained head listens to.

The mean gate of each layer, scaled so that the weakest has 0 and the strongest 1. The paper (arXiv
2401.11143) describes this, its authors published no code for it.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from opsin.core.backbones.gaussian_adaptive_attention.layer_attention import DensityAdaptiveHeads
from opsin.core.errors import UserError
from opsin.core.files import write_atomically
from opsin.registry import HOOKS

FILE = "importance_factors.csv"


def importance_factors(gates: Tensor) -> Tensor:
    """Mean gates, of any shape, scaled to [0, 1]; all zero where they are all alike."""
    low, high = gates.aminmax()
    return (gates - low) / (high - low) if high > low else torch.zeros_like(gates)


def write_importance(path: Path, gates: Tensor) -> None:
    """Writes a table with the mean gate (L,) and the importance factor of each layer."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["layer", "mean_gate", "importance_factor"])
    for layer, (gate, factor) in enumerate(zip(gates, importance_factors(gates), strict=True)):
        writer.writerow([layer, f"{float(gate):.6f}", f"{float(factor):.6f}"])
    write_atomically(path, text.getvalue().encode())


@HOOKS.register_module()
class ImportanceFactors(Hook):
    """Writes `importance_factors.csv` into the work directory after every validation and test.

    It averages the gates of `DensityAdaptiveHeads` over all samples and features.

    Raises:
        UserError: if the model has no such heads, or several.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.samples = 0
        self.handle: RemovableHandle | None = None

    def before_val_epoch(self, runner: Any) -> None:
        """Begins to watch the heads."""
        found = [module for module in runner.model.modules() if isinstance(module, DensityAdaptiveHeads)]
        if len(found) != 1:
            raise UserError(
                f"the model has {len(found)} parts of type DensityAdaptiveHeads",
                "take the hook ImportanceFactors away, or use opsin.GATHead",
            )
        self.total, self.samples = None, 0
        self.handle = found[0].register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, DensityAdaptiveHeads)
        gates = module.gates(inputs[0]).detach().float().mean(2).sum(0)
        self.total = gates if self.total is None else self.total + gates
        self.samples += len(inputs[0])

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Writes the table of what was seen."""
        if self.handle is not None:
            self.handle.remove()
        if self.total is None:
            return
        sums = torch.cat((self.total, self.total.new_tensor([self.samples])))
        all_reduce(sums)
        if is_main_process():
            write_importance(Path(runner.work_dir) / FILE, (sums[:-1] / sums[-1]).cpu())

    before_test_epoch, after_test_epoch = before_val_epoch, after_val_epoch
