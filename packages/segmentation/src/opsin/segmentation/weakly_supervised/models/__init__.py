"""Weakly supervised models; importing this registers them, their names and their parity adapters."""

from opsin.segmentation.weakly_supervised.models import bas, localization, seed_generation

__all__ = ["bas", "localization", "seed_generation"]
