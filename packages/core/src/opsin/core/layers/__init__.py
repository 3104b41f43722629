"""Building blocks that several systems share; each file is named after what it holds.

Importing this registers those that configs name.
"""

from opsin.core.layers import layer_norm, simple_feature_pyramid

__all__ = ["layer_norm", "simple_feature_pyramid"]
