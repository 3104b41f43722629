"""The model that mmengine's Runner trains: a forecaster and its squared error."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor

from opsin.registry import MODELS


@MODELS.register_module()
class Forecaster(BaseModel):
    """A network from windows (B, T, V) to forecasts (B, H, V), trained by the mean squared error.

    Args:
        network: config of the network; it is called with the windows, and with `future` covariates where the
            data have them.
        kwargs: mmengine's `data_preprocessor` and `init_cfg`.
    """

    def __init__(self, network: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = MODELS.build(network)

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        future: Tensor | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Forecasts (B, H, V); the loss for 'loss'; a sample's forecast, target and last value for 'predict'.

        Args:
            inputs: windows (B, T, V).
            targets: what came after (B, H, V).
            future: covariates (B, H, F).
            mode: which of the three.
        """
        forecast = self.network(inputs) if future is None else self.network(inputs, future)
        if mode == "tensor" or targets is None:
            return forecast
        if mode == "loss":
            return {"loss_mse": F.mse_loss(forecast, targets)}
        samples = zip(forecast, targets, inputs[:, -1], strict=True)
        return [{"forecast": f, "target": t, "last": last} for f, t, last in samples]
