"""Sequences of frames with boxes: benchmarks' layouts, training samples, evaluation."""

from opsin.tracking.datasets.layouts import LAYOUTS, read_sequences
from opsin.tracking.datasets.pairs import ScorePairs, TrainingPairs
from opsin.tracking.datasets.sample import TrackingSample
from opsin.tracking.datasets.sequence import VideoSequence
from opsin.tracking.datasets.sequences import SequenceDataset

__all__ = [
    "LAYOUTS",
    "ScorePairs",
    "SequenceDataset",
    "TrackingSample",
    "TrainingPairs",
    "VideoSequence",
    "read_sequences",
]
