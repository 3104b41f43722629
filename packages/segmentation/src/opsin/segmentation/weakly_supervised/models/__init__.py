"""Weakly supervised models; importing this registers them, their names and their parity adapters."""

from opsin.segmentation.weakly_supervised.models import (
    bas,
    irn,
    localization,
    seed_generation,
    seed_refinement,
)

__all__ = ["bas", "irn", "localization", "seed_generation", "seed_refinement"]
