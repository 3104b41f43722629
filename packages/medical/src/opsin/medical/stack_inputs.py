"""Batches of equal pictures or volumes."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor

from opsin.core.errors import UserError
from opsin.registry import MODELS


@MODELS.register_module()
class StackInputs(BaseDataPreprocessor):
    """Stacks the inputs of a batch, float32; nothing is padded or normalised."""

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """`inputs`, a list of tensors of one shape, becomes one tensor.

        Raises:
            UserError: if the shapes differ.
        """
        data = self.cast_data(data)
        shapes = {tuple(x.shape) for x in data["inputs"]}
        if len(shapes) > 1:
            raise UserError(
                f"a batch holds inputs of the shapes {sorted(map(list, shapes))}", "make them alike"
            )
        return {**data, "inputs": torch.stack(list(data["inputs"])).float()}
