"""The model that trains and runs a network on the candidates of a Wiener bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.bare_network import BareNetworkLoading
from opsin.core.errors import UserError
from opsin.registry import MODELS, TASK_UTILS
from opsin.restoration.metalens.datasets.sample import MetalensSample
from opsin.restoration.models.blended_tiling import BlendedTiling, Progress, Region

Config = dict[str, Any]


@MODELS.register_module()
class AberrationCorrector(BareNetworkLoading):
    """A network of candidates to one picture, trained by L1.

    Authors' files, which hold the network alone, can be loaded as they are.

    Args:
        network: config of the network, `dict(type='opsin.ACFormer', …)`.
        tile: config of the tiling in prediction; None: whole pictures, as published.
        base: arguments of mmengine's `BaseModel`.

    Attributes:
        progress: called after every tile of a picture in prediction, with the tiles done and all tiles.
    """

    progress: Progress | None = None

    def __init__(self, network: Config, tile: Config | None = None, **base: Any) -> None:
        super().__init__(**base)
        self.network = MODELS.build(network)
        self.tiling: BlendedTiling | None = TASK_UTILS.build(tile) if tile else None

    def forward(
        self,
        inputs: Sequence[Tensor],
        data_samples: list[MetalensSample] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Runs on stacks of candidates (M, 3, H, W), floats from 0 to 1.

        Args:
            inputs: the stacks; of one size, except to predict.
            data_samples: their samples, with `gt_img` for the loss.
            mode: `loss` gives `{"loss_pixel": …}`; `predict` the samples with `pred_img`; `tensor` the
                network's result, not clamped.

        Raises:
            UserError: if a loss is wanted and there are no clean pictures.
        """
        if mode == "predict":
            return self.predict(inputs, data_samples)
        restored = self.network(torch.stack(list(inputs)))
        if mode == "tensor":
            return restored
        if data_samples is None:
            raise UserError("a loss needs clean pictures, and the data set gives none")
        clean = torch.stack([sample.gt_img for sample in data_samples])
        return {"loss_pixel": F.l1_loss(restored, clean)}

    @torch.inference_mode()
    def predict(
        self, inputs: Sequence[Tensor], data_samples: list[MetalensSample] | None
    ) -> list[MetalensSample]:
        """One sample a stack, with `pred_img` (3, H, W), clamped to [0, 1]."""
        samples = data_samples or [MetalensSample() for _ in inputs]
        for candidates, sample in zip(inputs, samples, strict=True):
            sample.pred_img = self._restore(candidates).clamp(0, 1)
        return samples

    def _restore(self, candidates: Tensor) -> Tensor:
        device = next(self.network.parameters()).device
        tiling = self.tiling or BlendedTiling(size=max(candidates.shape[-2:]) + 1, overlap=1)

        def run(region: Region) -> Tensor:
            return self.network(candidates[(..., *region)].to(device)[None])[0]

        height, width = candidates.shape[-2:]
        return torch.from_numpy(tiling.restore(run, height, width, self.progress))
