"""The model that trains a codec's network, and codes pictures with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opsin.core.bare_network import BareNetworkLoading
from opsin.core.engine.checkpoint import load_exactly, read_run
from opsin.core.engine.config import build_model, load_config
from opsin.core.errors import UserError
from opsin.registry import MODELS
from opsin.restoration.adversarial import update_part
from opsin.restoration.compression.bitstream.codec import GRID, Codec, cropped, padded, to_picture
from opsin.restoration.compression.datasets.sample import CompressionSample
from opsin.restoration.compression.models.segpic.network import STREAMS
from opsin.restoration.compression.ms_ssim import ms_ssim

Config = dict[str, Any]
WHITE = 255


@MODELS.register_module()
class SquaredErrorDistortion(nn.Module):
    """255² times the mean squared error of pictures in [0, 1], not clamped."""

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar."""
        return WHITE**2 * (image - target).square().mean()


@MODELS.register_module()
class MSSSIMDistortion(nn.Module):
    """1 - MS-SSIM; pictures (N, 3, H, W) have sides of at least 161 pixels."""

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to a scalar."""
        return 1 - ms_ssim(image, target)


@MODELS.register_module()
class ImageCompressor(BareNetworkLoading):
    """A network with likelihoods, its rate-distortion loss, and its codec.

    Args:
        network: config of the network, `dict(type='opsin.SegPIC', …)`.
        trade_off: lambda, what distortion weighs against bits per pixel.
        distortion: config of the distortion; squared error unless given.
        grid: cells a side of the regions where there are no masks.
        train_grid: the same for the loss; unless given it is `grid`. Crops that are as large as a cell of a
            whole picture have one.
        base: arguments of mmengine's `BaseModel`.
    """

    def __init__(
        self,
        network: Config,
        trade_off: float,
        distortion: Config | None = None,
        grid: int = GRID,
        train_grid: int | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.network = MODELS.build(network)
        self.trade_off = trade_off
        self.distortion = MODELS.build(distortion or dict(type="opsin.SquaredErrorDistortion"))
        self.grid = grid
        self.train_grid = train_grid or grid
        self._codec: Codec | None = None

    def forward(
        self,
        inputs: Sequence[Tensor],
        data_samples: list[CompressionSample] | None = None,
        mode: Literal["tensor", "loss", "estimate", "predict"] = "tensor",
    ) -> Any:
        """Runs on pictures (3, H, W) of uint8.

        Args:
            inputs: the pictures; for `tensor` and `loss` of one size, with sides that are multiples of 64.
            data_samples: their samples, perhaps with `regions`.
            mode: `loss` gives rate and weighted distortion, whose sum is the loss; `predict` the samples with
                their files and what these decode to; `estimate` the same without files, quickly; `tensor` the
                network's result.
        """
        if mode == "predict":
            return self.predict(inputs, data_samples)
        if mode == "estimate":
            return self.estimate(inputs, data_samples or [])
        x = torch.stack(list(inputs)).float() / WHITE
        grid = self.train_grid if mode == "loss" else self.grid
        out: dict[str, Tensor] = self.network(x, _regions(data_samples), grid)
        if mode == "tensor":
            return out
        pixels = x[:, 0].numel()
        bits = {name: -out[f"likelihood_{name}"].log2().sum() / pixels for name in STREAMS}
        distortion = self.distortion(out["x_hat"], x)
        return {
            "loss_rate": torch.stack(list(bits.values())).sum(),
            "loss_distortion": self.trade_off * distortion,
            "bpp_y": bits["y"].detach(),
            "distortion": distortion.detach(),
        }

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the rate-distortion loss for all but the quantiles, then one of theirs."""
        data = self.data_preprocessor(data, True)
        main, aux = optim_wrapper["main"], optim_wrapper["aux"]
        with main.optim_context(self):
            losses = self._run_forward(data, mode="loss")
        loss, logged = self.parse_losses(losses)
        update_part(self, loss, main)
        quantile_loss = self.network.quantile_loss()
        update_part(self, quantile_loss, aux)
        return {**logged, "quantiles": quantile_loss.detach()}

    def train(self, mode: bool = True) -> ImageCompressor:
        """Also forgets the codec, whose tables are those of the weights before training goes on."""
        if mode:
            self._codec = None
        super().train(mode)
        return self

    def codec(self) -> Codec:
        """The codec of the present weights; it puts the network into evaluation mode."""
        if self._codec is None:
            self._codec = Codec(self.network)
        return self._codec

    def predict(
        self, inputs: Sequence[Tensor], data_samples: list[CompressionSample] | None
    ) -> list[CompressionSample]:
        """Codes each picture into a file; the sample's pictures are what the file decodes to."""
        samples = data_samples or [CompressionSample() for _ in inputs]
        codec = self.codec()
        for image, sample in zip(inputs, samples, strict=True):
            picture = image.cpu().permute(1, 2, 0).numpy()
            sample.reconstruction, coded = codec.forward(picture, self.grid)
            sample.file = codec.to_file(coded, picture.shape[:2], self.grid)
            sample.pred_img = torch.from_numpy(to_picture(sample.reconstruction)).permute(2, 0, 1)
            sample.bits = 8 * len(sample.file)
            sample.estimated_bits = sum(coded.bits.values())
        return samples

    def val_step(self, data: Any) -> list[CompressionSample]:
        """Estimates rates from likelihoods, as validation during training needs no files."""
        data = self.data_preprocessor(data, False)
        samples: list[CompressionSample] = self._run_forward(data, mode="estimate")
        return samples

    def estimate(
        self, inputs: Sequence[Tensor], data_samples: list[CompressionSample]
    ) -> list[CompressionSample]:
        """The network's own reconstruction of each picture, and the estimate of its bits."""
        for image, sample in zip(inputs, data_samples, strict=True):
            out = self.network(padded(image[None].float() / WHITE), None, self.grid)
            sample.reconstruction = cropped(out["x_hat"], image.shape[1:])
            sample.bits = float(sum(-out[f"likelihood_{name}"].log2().sum() for name in STREAMS))
            sample.estimated_bits = sample.bits
        return data_samples

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *torch_arguments: Any
    ) -> None:
        """Also forgets the codec, as the weights change."""
        self._codec = None
        super()._load_from_state_dict(state_dict, prefix, *torch_arguments)


def load_codec(config: str, checkpoint: Path, device: str = "cpu") -> Codec:
    """The codec of a config (a path or short name) and a checkpoint, of a run or the authors'.

    Raises:
        UserError: if the config is no codec's, or the checkpoint is another model's.
    """
    compressor = build_model(load_config(config))
    if not isinstance(compressor, ImageCompressor):
        raise UserError(f"{config} is the config of a {type(compressor).__name__}, not of a codec")
    load_exactly(compressor, read_run(checkpoint)["state_dict"], source=str(checkpoint))
    return compressor.to(device).codec()


def _regions(data_samples: Sequence[CompressionSample] | None) -> Tensor | None:
    """Region ids (N, H, W), or None if no sample has any.

    Raises:
        UserError: if some samples have regions and others have none.
    """
    given = [sample.regions for sample in data_samples or () if "regions" in sample]
    if given and len(given) != len(data_samples or ()):
        raise UserError("some pictures of a batch have masks and others have none")
    return torch.stack(given) if given else None
