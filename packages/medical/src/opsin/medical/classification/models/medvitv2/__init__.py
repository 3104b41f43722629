"""MedViTV2: Medical Image Classification with KAN-Integrated Transformers and Dilated Neighborhood Attention.

arXiv 2502.13693, Applied Soft Computing 2025; code Omid-Nejati/MedViTV2, MIT. A hybrid backbone at strides 4,
8, 16 and 32. Local blocks look at the nearest tokens (neighborhood attention) and mix by a convolutional
feed-forward; global blocks attend to pooled tokens, add a convolutional attention on further channels, and
mix by a Kolmogorov-Arnold network.

What a naive reading gets wrong, all pinned by the parity cases:

* The published network re-reads a map (N, C, H, W) as (N, H, W, C) before the neighborhood attention and
  before the Kolmogorov-Arnold network, and back: the numbers stay where they lie in memory, so "positions"
  mix channels and space. `layout="published"` does that, for the released weights; `layout="clean"` permutes.
* A local block adds its feed-forward's own skip: x + u + F(u), u the normalised x.
* Keys are pooled along the raster sequence of tokens, not over squares.
* Squeeze and excitation squeezes to 3 units, the width of the block divided out of the hidden width.
* A global block holds a whole convolutional feed-forward that is never used; it is in the counts.
"""

from opsin.medical.classification.models.medvitv2 import published
from opsin.medical.classification.models.medvitv2.kan import FasterKAN
from opsin.medical.classification.models.medvitv2.network import MedViTV2, MedViTV2Classifier

__all__ = ["FasterKAN", "MedViTV2", "MedViTV2Classifier", "published"]
