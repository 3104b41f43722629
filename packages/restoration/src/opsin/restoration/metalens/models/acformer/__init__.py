"""ACFormer: Aberration Correcting Vision Transformers for High-Fidelity Metalens Imaging.

arXiv 2412.04591, whose first version was named "MetaFormer: High-fidelity Metalens Imaging via Aberration
Correcting Transformers" (no relation to PoolFormer's MetaFormer). The authors' code,
benhenryL/Metalens-Transformer, has no licence; this is written from the paper and from numbers.

A bank of Wiener filters (`opsin.restoration.metalens.optics`) makes M candidates of a raw picture, from
smooth to sharp and noisy; the network makes one picture of them: (B, M, 3, H, W) in [0, 1] to (B, 3, H, W).

What differs from a naive reading:

* the queries of the attention over filters are those of the middle candidate, M // 2, for all of them;
* keys outside the picture are zeros and take part in every softmax;
* a fusion weight belongs to a channel in encoder and latent, and to a pixel in decoder and refinement;
* in every second block from the latent on, queries are without their local average;
* decoder level 1 runs at twice the width of encoder level 1, with as many heads;
* the result is a correction of the middle candidate.
"""

from opsin.core.models import register_models
from opsin.restoration.metalens.models.acformer import published
from opsin.restoration.metalens.models.acformer.block import STAF, BlockSettings, Fusion
from opsin.restoration.metalens.models.acformer.filter_attention import FilterAttention
from opsin.restoration.metalens.models.acformer.network import VARIANTS, ACFormer

register_models("metalens-metaformer", ACFormer, VARIANTS)

__all__ = ["STAF", "VARIANTS", "ACFormer", "BlockSettings", "FilterAttention", "Fusion", "published"]
