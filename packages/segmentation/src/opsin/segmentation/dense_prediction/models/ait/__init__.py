"""AiT: All in Tokens: Unifying Output Space of Visual Tasks via Soft Token (arXiv 2301.02229, ICCV 2023).

Code SwinTransformer/AiT (no licence). One encoder-decoder writes the answers of different tasks as words:
coordinates, classes, and codes of small tokenizers for masks and depth. What the decoder is fed, and what is
decoded to pixels, is the mean of the codes under their probabilities (soft tokens), so errors of pixels train
the decoder too.

`tokenizer` is the first stage (VQ-VAE), `task_solver` the second; `heads` holds what is a task's own, and
`model.AiT` builds a model of any of them from one config.
"""

from typing import Any

from opsin.core.models import register_models
from opsin.segmentation.dense_prediction.models.ait import published
from opsin.segmentation.dense_prediction.models.ait.model import AiT, AiTTokenizer
from opsin.segmentation.dense_prediction.models.ait.swin_v2 import AiTSwinV2
from opsin.segmentation.dense_prediction.models.ait.task_solver import TaskSolver
from opsin.segmentation.dense_prediction.models.ait.tokenizer import VQVAE

DEPTH_TOKENIZER: dict[str, Any] = {"token_length": 225, "mask_size": 480, "hidden_dim": 256, "tau": 0.8}
MASK_TOKENIZER: dict[str, Any] = {"token_length": 16, "mask_size": 64}


def _variant(size: str, tasks: dict[str, Any], *, windows_shift: bool, **solver: Any) -> dict[str, Any]:
    shift = (True, True, windows_shift, windows_shift)
    return {
        "backbone": {"type": "opsin.AiTSwinV2", "arch": size, "use_shift": shift},
        "solver": solver,
        **tasks,
    }


_DEPTH = {"depth": {"tokenizer": DEPTH_TOKENIZER}}
_JOINT = {
    "depth": {"tokenizer": {**DEPTH_TOKENIZER, "tau": 1.0}, "weight": 0.2},
    "instances": {"tokenizer": MASK_TOKENIZER},
}
register_models(
    "ait",
    AiT,
    {
        "ait_swinv2_base_depth": _variant("base", _DEPTH, windows_shift=False),
        "ait_swinv2_base_depth_parallel": _variant("base", _DEPTH, windows_shift=False, parallel=True),
        "ait_swinv2_large_depth": _variant("large", _DEPTH, windows_shift=False),
        "ait_swinv2_large_depth_parallel": _variant("large", _DEPTH, windows_shift=False, parallel=True),
        "ait_swinv2_base_detection": _variant("base", {"detection": {}}, windows_shift=True, top_p=0.4),
        "ait_swinv2_base_instances": _variant(
            "base", {"instances": {"tokenizer": MASK_TOKENIZER}}, windows_shift=True, top_p=0.4
        ),
        "ait_swinv2_base_joint": _variant("base", _JOINT, windows_shift=True, top_p=0.4, num_vocal=2467),
    },
)
register_models("ait", VQVAE, {"ait_tokenizer_depth": {**DEPTH_TOKENIZER, "use_norm": False}})
register_models("ait", VQVAE, {"ait_tokenizer_masks": MASK_TOKENIZER})

__all__ = ["VQVAE", "AiT", "AiTSwinV2", "AiTTokenizer", "TaskSolver", "published"]
