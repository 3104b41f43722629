"""Which crops an online tracker keeps as templates beside the first frame's.

Between updates the best-scored crop is the candidate. At every `interval`-th frame it goes into the memory:
in place of the one entry where there is room for one; else it is appended while there is room, and after that
it overwrites the oldest entry, of which the copy of the first frame is the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Template = TypeVar("Template")
NONE_YET = -1.0  # best score while there is no candidate


@dataclass(frozen=True)
class UpdateRule:
    """When and how templates are renewed.

    Args:
        size: most templates beside the first frame's.
        interval: frames between updates; 0 never updates.
        decay: factor on the best score at each frame.
        threshold: scores up to this make no candidate.
    """

    size: int = 1
    interval: int = 200
    decay: float = 1.0
    threshold: float = 0.5


class OnlineMemory(Generic[Template]):
    """The templates of one target.

    Args:
        first: the first frame's template.
        rule: when and how they are renewed.

    Attributes:
        entries: the templates beside the first; at the beginning one copy of the first.
        best_score: of the candidate; -1, decaying too, without one.
        frame: frames seen.
    """

    def __init__(self, first: Template, rule: UpdateRule) -> None:
        self.first, self.rule = first, rule
        self.entries: list[Template] = [first]
        self.best_score = NONE_YET
        self.frame = 0
        self._candidate = first
        self._oldest = 0

    def observe(self, score: float, template: Callable[[], Template]) -> bool:
        """Takes one tracked frame; true if the entries changed or were renewed.

        Args:
            score: how sure the tracker is of its box, 0 to 1.
            template: cuts the template at that box; called only if it becomes the candidate.
        """
        self.frame += 1
        self.best_score *= self.rule.decay
        if score > self.rule.threshold and score > self.best_score:
            self._candidate, self.best_score = template(), score
        if not self.rule.interval or self.frame % self.rule.interval:
            return False
        self._renew()
        self._candidate, self.best_score = self.first, NONE_YET
        return True

    def _renew(self) -> None:
        if self.rule.size == 1:
            self.entries[0] = self._candidate
        elif len(self.entries) < self.rule.size:
            self.entries.append(self._candidate)
        else:
            self.entries[self._oldest] = self._candidate
            self._oldest = (self._oldest + 1) % self.rule.size
