"""CLIP models whose image side is a convolutional pyramid: ConvNeXt (open_clip's) and ResNet (OpenAI's).

Learning Transferable Visual Models From Natural Language Supervision (arXiv 2103.00020); the ConvNeXt models
are OpenCLIP's (arXiv 2212.07143). The text side is transformers' `CLIPTextModelWithProjection`.

Both keep their published names on the image side (`visual.…`), so files of open_clip and OpenAI are read as
they are; the text side's are translated.
"""

from opsin.segmentation.open_vocabulary.models.clip.model import CLIP, CLIP_ARCHS
from opsin.segmentation.open_vocabulary.models.clip.tokenizer import load_tokenizer

__all__ = ["CLIP", "CLIP_ARCHS", "load_tokenizer"]
