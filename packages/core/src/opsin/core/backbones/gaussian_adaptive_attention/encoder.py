"""A frozen backbone whose layers' averages are computed once a picture and kept in files."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from opsin.core.backbones.backbone import Backbone
from opsin.core.errors import UserError
from opsin.core.files import write_atomically
from opsin.registry import MODELS


class FrozenEncoder(BaseModule):
    """Image (N, 3, H, W) to the position-averaged maps of a backbone, (N, L, F); nothing of it trains.

    Args:
        backbone: config of one of opsin's backbones whose maps all have F channels. Of a plain one take every
            block: `dict(type="opsin.ILLaMA", arch="large", out_indices=range(24), fpn=False)`.
        cache: folder for the features of every picture that was seen, so that it is encoded once. They are
            found by the picture's pixels, in a folder named after the encoder's weights. Augmented pictures
            are all different and fill it in vain.

    Raises:
        UserError: if maps differ in channels.
    """

    def __init__(self, backbone: dict[str, Any], cache: str | None = None) -> None:
        super().__init__()
        built = MODELS.build(backbone)
        assert isinstance(built, Backbone)
        widths = [info.channels for info in built.feature_info]
        if len(set(widths)) > 1:
            raise UserError(
                f"maps of {type(built).__name__} have {widths} channels and layers must be alike",
                "choose out_indices of one width, or a plain backbone with fpn=False",
            )
        self.backbone = built.eval().requires_grad_(False)
        self.num_layers, self.feature_size = len(widths), widths[0]
        self.cache = None if cache is None else Path(cache)
        self.folder: Path | None = None  # of these weights
        self.register_load_state_dict_pre_hook(_forget_folder)

    def train(self, mode: bool = True) -> Self:
        """The backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, L, F), float32."""
        if self.cache is None:
            return self._encode(x)
        if self.folder is None:
            self.folder = self.cache / _fingerprint(self.backbone)
        files = [self.folder / f"{_digest(image)}.npy" for image in x]
        new = [index for index, file in enumerate(files) if not file.is_file()]
        if new:
            for index, features in zip(new, self._encode(x[new]), strict=True):
                content = io.BytesIO()
                np.save(content, features.cpu().numpy())
                write_atomically(files[index], content.getvalue())
        return torch.stack([torch.from_numpy(np.load(file)) for file in files]).to(x.device)

    def _encode(self, x: Tensor) -> Tensor:
        return torch.stack([m.float().mean((2, 3)) for m in self.backbone(x)], 1)


def _forget_folder(module: nn.Module, *args: Any) -> None:
    """Other weights give other features."""
    assert isinstance(module, FrozenEncoder)
    module.folder = None


def _digest(*tensors: Tensor) -> str:
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _fingerprint(module: nn.Module) -> str:
    """A name for a class of modules with these weights."""
    return f"{type(module).__name__}-{_digest(*module.state_dict().values())}"
