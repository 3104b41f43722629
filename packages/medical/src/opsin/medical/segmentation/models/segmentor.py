"""The model that trains and runs a network for medical segmentation; MONAI's inferers, nets and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import monai.losses
import monai.networks.nets
import numpy as np
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import Tensor, nn

from opsin.core.bare_network import BareNetworkLoading
from opsin.core.errors import UserError, unknown
from opsin.medical.segmentation.datasets.sample import SegmentationSample
from opsin.medical.segmentation.datasets.transforms import zoom
from opsin.registry import MODELS

Config = dict[str, Any]


@MODELS.register_module()
class MedicalSegmentor(BareNetworkLoading):
    """A network from pictures or volumes to logits of the same size, its loss, and its way of predicting.

    Args:
        network: config of the network, `dict(type='opsin.MHSVM', …)`.
        loss: config of the loss, called with the network's output and the labels; gives a dict of losses.
        spatial_dims: 2, or 3 for a network that takes volumes (N, C, D, H, W). A network of two dimensions
            segments a volume (C, D, H, W) slice by slice.
        window: size of the windows in which MONAI's sliding-window inference runs, which bound the memory;
            None: whole pictures.
        overlap: of the windows, in [0, 1).
        slice_size: size to which slices of volumes are brought by cubic splines before the network; the
            classes go back by the nearest value.
        batch_size: windows or slices that run at once.
        threshold: least probability of a yes, where there is one class.
        base: arguments of mmengine's `BaseModel`.

    Raises:
        UserError: for other dimensions than 2 and 3, or a window that does not have as many.
    """

    def __init__(
        self,
        network: Config,
        loss: Config | None = None,
        *,
        spatial_dims: Literal[2, 3] = 2,
        window: Sequence[int] | None = None,
        overlap: float = 0.25,
        slice_size: tuple[int, int] | None = None,
        batch_size: int = 4,
        threshold: float = 0.5,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if spatial_dims not in (2, 3) or (window is not None and len(window) != spatial_dims):
            raise UserError(f"window {window} does not fit a network of {spatial_dims} dimensions")
        self.network = MODELS.build(network)
        self.loss = MODELS.build(loss or dict(type="opsin.CEDiceLoss"))
        self.spatial_dims, self.slice_size = spatial_dims, slice_size
        self.batch_size, self.threshold = batch_size, threshold
        self.inferer = SimpleInferer() if window is None else _sliding(window, batch_size, overlap)

    def forward(
        self,
        inputs: Sequence[Tensor],
        data_samples: list[SegmentationSample] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Runs on pictures (C, H, W) or volumes (C, D, H, W), float32.

        Args:
            inputs: the pictures; of one size, except to predict.
            data_samples: their samples, with `gt_label` for the loss.
            mode: `loss` gives a dict of losses; `predict` the samples with `pred_label`; `tensor` what the
                network gives.
        """
        if mode == "predict":
            samples = data_samples or [SegmentationSample() for _ in inputs]
            for image, sample in zip(inputs, samples, strict=True):
                sample.pred_label = self.labels(image)
            return samples
        output = self.network(torch.stack(list(inputs)))
        return output if mode == "tensor" else self.loss(output, targets(data_samples).to(inputs[0].device))

    def probabilities(self, images: Tensor) -> Tensor:
        """(N, C, *size) to (N, classes, *size); of one class the probability of a yes, (N, 1, *size)."""
        logits = self.inferer(images, self.network)
        assert isinstance(logits, Tensor)  # MONAI's inferers give what the network gives
        logits = logits.float()
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)

    def labels(self, image: Tensor) -> Tensor:
        """A picture (C, H, W) or volume (C, D, H, W) to classes of its size, uint8, on the CPU.

        Raises:
            UserError: for a picture given to a network that takes volumes.
        """
        if image.ndim - 1 < self.spatial_dims:
            raise UserError(
                f"a picture of size {tuple(image.shape[1:])} was given to a network that takes volumes"
            )
        if image.ndim - 1 == self.spatial_dims:
            return self._chosen(self.probabilities(image[None]))[0]
        slices = image.transpose(0, 1)
        parts = [self._slice_labels(chunk) for chunk in slices.split(self.batch_size)]
        return torch.cat(parts)

    def _slice_labels(self, slices: Tensor) -> Tensor:
        """Slices (n, C, H, W) to classes (n, H, W)."""
        if self.slice_size is None:
            return self._chosen(self.probabilities(slices))
        own = slices.shape[2:]
        zoomed = np.stack([[zoom(c, self.slice_size, 3) for c in s] for s in slices.cpu().numpy()])
        labels = self._chosen(self.probabilities(torch.from_numpy(zoomed).to(slices)))
        return torch.from_numpy(np.stack([zoom(label, own, 0) for label in labels.numpy()]))

    def _chosen(self, probabilities: Tensor) -> Tensor:
        if probabilities.shape[1] == 1:
            return (probabilities[:, 0] >= self.threshold).byte().cpu()
        return probabilities.argmax(1).byte().cpu()


def targets(data_samples: Sequence[SegmentationSample] | None) -> Tensor:
    """The labels of a batch, (N, …).

    Raises:
        UserError: if there are none.
    """
    if not data_samples or "gt_label" not in data_samples[0]:
        raise UserError("a loss needs labels, and the data set gives none")
    return torch.stack([sample.gt_label for sample in data_samples])


def _sliding(window: Sequence[int], batch_size: int, overlap: float) -> SlidingWindowInferer:
    """MONAI's inferer, which puts the windows together in the computer's memory, not the GPU's."""
    return SlidingWindowInferer(
        tuple(window), batch_size, overlap=overlap, mode="gaussian", device=torch.device("cpu")
    )


@MODELS.register_module()
def monai_network(name: str, **arguments: Any) -> nn.Module:
    """One of MONAI's networks: `dict(type='opsin.monai_network', name='UNet', spatial_dims=3, …)`.

    Raises:
        UserError: for an unknown name.
    """
    return _of_monai(monai.networks.nets, "MONAI network", name)(**arguments)


@MODELS.register_module()
class MonaiLoss(nn.Module):
    """One of MONAI's losses: `dict(type='opsin.MonaiLoss', name='DiceCELoss', softmax=True, …)`.

    Args:
        name: of the class in `monai.losses`.
        arguments: its arguments.

    Raises:
        UserError: for an unknown name.
    """

    def __init__(self, name: str, **arguments: Any) -> None:
        super().__init__()
        self.loss = _of_monai(monai.losses, "MONAI loss", name)(**arguments)

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Logits (N, K, …) and labels (N, …)."""
        return {"loss": self.loss(logits, target[:, None])}


def _of_monai(module: Any, kind: str, name: str) -> Any:
    known = {n: c for n, c in vars(module).items() if isinstance(c, type)}
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]
