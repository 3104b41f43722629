"""Self-supervised models, and the classifiers that begin with what they learned."""

from opsin.medical.pretraining.models.uni4eye import Uni4Eye, Uni4EyeClassifier, Uni4EyeEncoder

__all__ = ["Uni4Eye", "Uni4EyeClassifier", "Uni4EyeEncoder"]
