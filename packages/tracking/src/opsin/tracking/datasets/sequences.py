"""Sequences as an evaluation data set: one sample is one video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from opsin.core.data.dataset import Dataset
from opsin.registry import DATASETS
from opsin.tracking.datasets.layouts import read_sequences
from opsin.tracking.datasets.sample import TrackingSample


@DATASETS.register_module()
class SequenceDataset(Dataset):
    """The sequences of a benchmark's split; frames are read as they are tracked.

    Args:
        layout: see `opsin.tracking.datasets.layouts`.
        split: of the benchmark.
        dataset: `data_root`, `indices`, … of `Dataset`.
    """

    def __init__(self, *, layout: str, split: str, **dataset: Any) -> None:
        self.layout, self.split = layout, split
        super().__init__(**dataset)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The sequences, in the benchmark's order."""
        found = read_sequences(self.layout, Path(self.data_root or "."), self.split)
        return [{"img_path": sequence.frames[0], "sequence": sequence} for sequence in found]

    def prepare_data(self, index: int) -> dict[str, Any]:
        """One sequence as `data_samples`; `inputs` is its number."""
        entry = self.get_data_info(index)
        sample = TrackingSample(metainfo={"img_path": entry["img_path"], "sequence": entry["sequence"]})
        return {"inputs": torch.tensor(index), "data_samples": sample}
