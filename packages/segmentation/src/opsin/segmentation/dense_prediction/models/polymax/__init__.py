"""PolyMaX: General Dense Prediction with Mask Transformer (arXiv 2311.05770).

Mask transformers classify clusters instead of pixels. Here each of K centres gives a map of how likely a
pixel belongs to it, and a value: a class distribution, a depth, a normal. A pixel's answer is the mixture of
the values. Images (B, 3, H, W) go in, (B, D, H, W) come out; the task changes D and the loss alone.

The authors' code is not published; the frame, kMaX-DeepLab's decoders, is, and is what the parity cases pin.
The card of this system says which of the rest is from the paper and which was chosen.
"""

from typing import Any

from opsin.core.models import register_models
from opsin.segmentation.dense_prediction.models.polymax import published
from opsin.segmentation.dense_prediction.models.polymax.kmax_decoder import KMaxDecoder, cluster_sums
from opsin.segmentation.dense_prediction.models.polymax.network import PolyMax
from opsin.segmentation.dense_prediction.models.polymax.pixel_decoder import PixelDecoder

__all__ = ["KMaxDecoder", "PixelDecoder", "PolyMax", "cluster_sums", "published"]

BACKBONES = {
    "convnext_tiny": ({"type": "opsin.ConvNeXt", "arch": "tiny"}, (96, 192, 384, 768)),
    "convnext_small": ({"type": "opsin.ConvNeXt", "arch": "small"}, (96, 192, 384, 768)),
    "convnext_base": ({"type": "opsin.ConvNeXt", "arch": "base"}, (128, 256, 512, 1024)),
    "convnext_large": ({"type": "opsin.ConvNeXt", "arch": "large"}, (192, 384, 768, 1536)),
}
OUTPUTS: dict[str, dict[str, Any]] = {
    "semantic": {"type": "opsin.SemanticOutput", "num_classes": 40},
    "depth": {"type": "opsin.DepthOutput"},
    "normals": {"type": "opsin.NormalOutput"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    f"polymax_{name}_{task}": {"backbone": backbone, "in_channels": channels, "output": output}
    for name, (backbone, channels) in BACKBONES.items()
    for task, output in OUTPUTS.items()
}

register_models("polymax", PolyMax, VARIANTS)
