"""Models of dense prediction."""

from opsin.segmentation.dense_prediction.models.ait import VQVAE, AiT, AiTSwinV2, AiTTokenizer, TaskSolver
from opsin.segmentation.dense_prediction.models.polymax import PolyMax
from opsin.segmentation.dense_prediction.outputs import DepthOutput, NormalOutput, SemanticOutput

__all__ = [
    "VQVAE",
    "AiT",
    "AiTSwinV2",
    "AiTTokenizer",
    "DepthOutput",
    "NormalOutput",
    "PolyMax",
    "SemanticOutput",
    "TaskSolver",
]
