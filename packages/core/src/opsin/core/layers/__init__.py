"""Building blocks that several systems share; each file is named after what it holds.

Importing this registers those that configs name.
"""

from opsin.core.layers import (
    efficient_channel_attention,
    efficientvit_fpn,
    layer_norm,
    plugins,
    simple_feature_pyramid,
)

__all__ = [
    "efficient_channel_attention",
    "efficientvit_fpn",
    "layer_norm",
    "plugins",
    "simple_feature_pyramid",
]
