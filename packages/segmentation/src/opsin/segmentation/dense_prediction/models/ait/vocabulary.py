"""AiT's vocabulary: coordinates, classes, two special words, and the codes of masks and of depth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """Which numbers stand for what, in this order; `range`s.

    Args:
        num_bins: a coordinate is one of num_bins + 1 words.
        num_classes: classes of objects.
        num_embeddings: codes of masks.
        num_embeddings_depth: codes of depth.
    """

    num_bins: int = 2000
    num_classes: int = 80
    num_embeddings: int = 128
    num_embeddings_depth: int = 128

    @property
    def boxes(self) -> range:
        """Coordinates."""
        return range(self.num_bins + 1)

    @property
    def classes(self) -> range:
        """Classes."""
        return range(self.boxes.stop, self.boxes.stop + self.num_classes)

    @property
    def end(self) -> int:
        """The end of a sequence."""
        return self.classes.stop

    @property
    def noise(self) -> int:
        """The class of an object that is none."""
        return self.classes.stop + 1

    @property
    def masks(self) -> range:
        """Codes of masks."""
        return range(self.noise + 1, self.noise + 1 + self.num_embeddings)

    @property
    def depth(self) -> range:
        """Codes of depth."""
        return range(self.masks.stop, self.masks.stop + self.num_embeddings_depth)

    def __len__(self) -> int:
        """How many words there are."""
        return self.depth.stop
