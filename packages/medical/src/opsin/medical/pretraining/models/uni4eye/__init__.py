"""Uni4Eye: Unified 2D and 3D Self-supervised Pre-training via Masked Image Modeling Transformer.

arXiv 2203.04614, MICCAI 2022. One vision transformer is pretrained by masked autoencoding on ophthalmic
pictures (B, 3, s, s) and volumes (B, 1, s, s / 2, s) in turn: a projection of either kind makes tokens of
16 x 16 pixels or 16 x 16 x 16 voxels, everything after is shared. Two decoders reconstruct the hidden patches
and the map of their edges. Built from the paper and its numbers: the authors' repository has no licence.

What a naive reading gets wrong: the middle axis of a volume is the short one; the edges' target is never
normalised and holds whole numbers up to 48; a batch's loss is divided by all its hidden patches together; in
the released code the initialisation of the positions is switched off, so they are zero throughout
(`positions='zeros'`; here fixed sines and cosines are the default, as the paper means them).
"""

from opsin.medical.pretraining.models.uni4eye import published
from opsin.medical.pretraining.models.uni4eye.classifier import Uni4EyeClassifier
from opsin.medical.pretraining.models.uni4eye.encoder import Uni4EyeEncoder
from opsin.medical.pretraining.models.uni4eye.pretraining import Uni4Eye

__all__ = ["Uni4Eye", "Uni4EyeClassifier", "Uni4EyeEncoder", "published"]
