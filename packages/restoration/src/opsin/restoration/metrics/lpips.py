"""LPIPS: how far two pictures are apart for people, by the features of an ImageNet classifier.

"The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924), version 0.1 on
AlexNet, which is what the field's figures are. Both pictures go through the classifier; after each of its
five ReLUs the features of a pixel are divided by their norm, the squared differences are weighed by channel,
and averaged over the map; the five averages are added up. 0 is equal.

Two files are needed. The classifier's is torchvision's `alexnet-owt-7be5be79.pth`, which is not
fetched unasked, so it is named by hand. The channels' weights come with torchmetrics, the extra
`opsin-restoration[lpips]`; torchmetrics' own class is not used because it needs torchvision itself.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.published import read_checkpoint

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of values from -1 to 1
CHANNELS = (64, 192, 384, 256, 256)
TAPS = (1, 4, 7, 9, 11)  # the ReLUs among AlexNet's layers
LEAST_SIDE = 31  # pixels; below, nothing is left after the second pooling
EPSILON = 1e-8


def alexnet_features() -> nn.Sequential:
    """AlexNet's layers up to its last ReLU; their places are torchvision's."""
    a, b, c, d, e = CHANNELS
    return nn.Sequential(
        nn.Conv2d(3, a, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(a, b, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(d, e, 3, padding=1),
        nn.ReLU(),
    )


class LPIPS(nn.Module):
    """The distance of pictures (N, 3, H, W), RGB from 0 to 1: (N,).

    Args:
        weights: torchvision's AlexNet, `alexnet-owt-7be5be79.pth`; whole, or its convolutions alone.

    Raises:
        UserError: if the file is missing or holds another network, or torchmetrics is not installed.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        self.features = alexnet_features()
        self.features.load_state_dict(_convolutions(Path(weights), self.features))
        self.heads = nn.ParameterList(_heads())
        for name, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Two tensors (N, 3, H, W), sides of at least 31, to (N,)."""
        pairs = zip(self._maps(image), self._maps(reference), self.heads, strict=True)
        distances = [((a - b).square() * head).sum(1).mean((1, 2)) for a, b, head in pairs]
        return torch.stack(distances).sum(0)

    def _maps(self, image: Tensor) -> list[Tensor]:
        """The features after each ReLU (N, C, h, w), of norm 1 at each pixel."""
        x, maps = (2 * image - 1 - self.shift) / self.scale, []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in TAPS:
                maps.append(x / (x.square().sum(1, keepdim=True) + EPSILON).sqrt())
        return maps

    def of_pictures(self, image: NDArray[Any], reference: NDArray[Any]) -> float:
        """The distance of two pictures (H, W, 3) from 0 to 1.

        Raises:
            UserError: if a side is shorter than 31 pixels.
        """
        if min(image.shape[:2]) < LEAST_SIDE:
            raise UserError(
                f"LPIPS needs sides of {LEAST_SIDE} pixels, and got {image.shape[1]}x{image.shape[0]}"
            )
        pair = (torch.from_numpy(picture).float().permute(2, 0, 1)[None] for picture in (image, reference))
        return float(self(*pair))


def _convolutions(path: Path, features: nn.Sequential) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(
            f"LPIPS needs AlexNet's weights, and there is no file {path}",
            "get torchvision's alexnet-owt-7be5be79.pth",
        )
    tensors, found = read_checkpoint(path), {}
    for name, parameter in features.named_parameters():
        tensor = tensors.get(f"features.{name}")
        if tensor is None or tensor.shape != parameter.shape:
            shape = tuple(parameter.shape)
            raise UserError(f"{path} is not torchvision's AlexNet: features.{name} of {shape} is missing")
        found[name] = tensor
    return found


def _heads() -> list[Tensor]:
    """The weights of each tap's channels (C, 1, 1)."""
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        raise UserError("LPIPS needs torchmetrics", "pip install 'opsin-restoration[lpips]'")
    path = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return [tensors[f"lin{tap}.model.1.weight"][0] for tap in range(len(TAPS))]
