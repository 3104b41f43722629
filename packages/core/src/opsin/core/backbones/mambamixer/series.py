"""TSM2, the time-series forecaster of MambaMixer (arXiv 2403.19888).

A look-back window (B, T, V) of V variates to a forecast (B, H, V), with neither attention nor a perceptron
across variates. Token mixers go along time, one way only; channel mixers go across the variates, both ways,
and read each variate's whole window. The variates have an order to the scans: TSM2 is not equivariant to
their permutation. A variate is normalised by its window's own mean and deviation, which the forecast gets
back.
"""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from opsin.core.backbones.mambamixer.averaging import MixerStack
from opsin.core.backbones.mambamixer.mixer import (
    EPS,
    MambaMixer,
    SelectiveChannelMixer,
    SelectiveTokenMixer,
)
from opsin.core.errors import UserError
from opsin.registry import MODELS


class TimeMixer(nn.Module):
    """LayerNorm over the variates of a step, causal selective mixer along time.

    Args:
        variates: number of variates V. One alone is not normed: nothing would be left of it.
        expand, d_state: see `SelectiveMixer`.
    """

    def __init__(self, variates: int, expand: float = 2.0, d_state: int = 16) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(variates, eps=EPS) if variates > 1 else nn.Identity()
        self.mixer = SelectiveTokenMixer(variates, bidirectional=False, expand=expand, d_state=d_state)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, V) to the same shape; step t sees steps up to t."""
        return self.mixer(self.norm(x))


class VariateMixer(nn.Module):
    """LayerNorm over the steps of a variate, selective mixer across the variates both ways.

    Args:
        steps: number of steps T.
        expand, d_state: see `SelectiveMixer`.
    """

    def __init__(self, steps: int, expand: float = 1.0, d_state: int = 16) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(steps, eps=EPS)
        self.mixer = SelectiveChannelMixer(steps, expand=expand, d_state=d_state)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, V) to the same shape."""
        return self.mixer(self.norm(x.transpose(1, 2)).transpose(1, 2))


@MODELS.register_module()
class TSM2(BaseModule):
    """Normalise, mix along time and variates, one linear layer from the window to the horizon, denormalise.

    Args:
        lookback: steps T of the window.
        horizon: steps H of the forecast.
        variates: number of variates V.
        depth: pairs of a time and a variate mixer.
        time_expand: inner width of the time mixers as a multiple of V.
        variate_expand: inner width of the variate mixers as a multiple of T.
        d_state: states a channel.
        future_covariates: number of covariates that are known over the horizon (of the calendar, say).
        static_covariates: number of covariates that are fixed for a whole series. Either kind is mixed into
            the forecast by one more pair of mixers.
        init_cfg: OpenMMLab's weight initialisation.

    Raises:
        UserError: if a size is not positive; in `forward`, if the window or the covariates have other sizes.
    """

    def __init__(
        self,
        *,
        lookback: int,
        horizon: int,
        variates: int,
        depth: int = 2,
        time_expand: float = 2.0,
        variate_expand: float = 1.0,
        d_state: int = 16,
        future_covariates: int = 0,
        static_covariates: int = 0,
        init_cfg: dict[str, object] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        sizes = {"lookback": lookback, "horizon": horizon, "variates": variates, "depth": depth}
        for name, size in sizes.items():
            if size < 1:
                raise UserError(f"{name} of TSM2 is {size}", "give a positive number")
        self.lookback, self.horizon, self.variates = lookback, horizon, variates
        self.covariates = {"future": future_covariates, "static": static_covariates}
        self.stack = MixerStack(
            [TimeMixer(variates, time_expand, d_state) for _ in range(depth)],
            [VariateMixer(lookback, variate_expand, d_state) for _ in range(depth)],
        )
        self.head = nn.Linear(lookback, horizon)
        width = variates + sum(self.covariates.values())
        self.covariate_mixer = MambaMixer(horizon, width, d_state=d_state) if width > variates else None

    def forward(self, x: Tensor, future: Tensor | None = None, static: Tensor | None = None) -> Tensor:
        """Windows (B, T, V), with covariates (B, H, F) and (B, S) if it has them, to forecasts (B, H, V)."""
        self._check(x, future, static)
        mean = x.mean(1, keepdim=True)
        scale = torch.sqrt(x.var(1, keepdim=True, correction=0) + EPS)
        mixed = self.stack((x - mean) / scale)
        forecast = self.head(mixed.transpose(1, 2)).transpose(1, 2)
        if self.covariate_mixer is not None:
            known = [forecast] + ([] if future is None else [future])
            if static is not None:
                known.append(static[:, None].expand(-1, self.horizon, -1))
            forecast = self.covariate_mixer(torch.cat(known, 2))[:, :, : self.variates]
        return forecast * scale + mean

    def _check(self, x: Tensor, future: Tensor | None, static: Tensor | None) -> None:
        if x.shape[1:] != (self.lookback, self.variates):
            raise UserError(
                f"TSM2 for windows of {self.lookback} steps and {self.variates} variates was given "
                f"{' x '.join(map(str, x.shape[1:]))}"
            )
        for name, given in (("future", future), ("static", static)):
            count = 0 if given is None else given.shape[-1]
            if count != self.covariates[name]:
                raise UserError(f"TSM2 was given {count} {name} covariates and has {self.covariates[name]}")
