"""Which blocks of a hierarchical network attend through agents: the authors' plan, as "AAMB2"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from opsin.core.errors import UserError


def agent_blocks(plan: str, depths: Sequence[int]) -> list[list[bool]]:
    """For every block of every stage, whether it attends through agents.

    Args:
        plan: a letter a stage: A agents, B the host's own attention, M agents in as many first blocks as the
            number at the end says ("AAMB2": two).
        depths: blocks of every stage.

    Raises:
        UserError: if the plan has another form or another number of stages.
    """
    parts = re.fullmatch(r"([ABM]+)(\d*)", plan)
    if parts is None or len(parts[1]) != len(depths) or ("M" in parts[1] and not parts[2]):
        raise UserError(
            f"attn_type {plan!r} is no plan for {len(depths)} stages",
            "give A, B or M for each, then for M the number of its agent blocks: AAMB2",
        )
    first = int(parts[2] or 0)
    return [
        [letter == "A" or (letter == "M" and block < first) for block in range(depth)]
        for letter, depth in zip(parts[1], depths, strict=True)
    ]
