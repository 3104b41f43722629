"""Metalens restoration: one published system a folder, and the model that trains and runs it."""

from opsin.restoration.metalens.models.aberration_corrector import AberrationCorrector
from opsin.restoration.metalens.models.acformer import ACFormer
from opsin.restoration.metalens.models.candidate_init import CandidateInit

__all__ = ["ACFormer", "AberrationCorrector", "CandidateInit"]
