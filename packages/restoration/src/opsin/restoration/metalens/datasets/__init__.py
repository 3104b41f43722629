"""Photographs, and what a metalens makes of them."""

from opsin.restoration.metalens.datasets.sample import MetalensSample
from opsin.restoration.metalens.datasets.simulation import (
    CleanImages,
    Lens,
    PackStack,
    SimulateMetalens,
)

__all__ = ["CleanImages", "Lens", "MetalensSample", "PackStack", "SimulateMetalens"]
