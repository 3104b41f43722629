"""Metalens restoration: one published system a folder, and the model that trains and runs it."""

from opsin.restoration.metalens.models.aberration_corrector import AberrationCorrector
from opsin.restoration.metalens.models.acformer import ACFormer

__all__ = ["ACFormer", "AberrationCorrector"]
