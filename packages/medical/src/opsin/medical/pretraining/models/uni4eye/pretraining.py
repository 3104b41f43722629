"""Uni4Eye's masked autoencoding: hide three quarters of the patches, reconstruct them and their edges."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from opsin.medical.pretraining.models.uni4eye.encoder import (
    EPS,
    Block,
    Positions,
    Uni4EyeEncoder,
    position_table,
    resize_positions,
)
from opsin.medical.pretraining.models.uni4eye.targets import normalised, patchify
from opsin.registry import MODELS


def random_masking(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which tokens are kept.

    Args:
        noise: (B, N); the tokens with the least are kept.
        mask_ratio: share that is hidden.

    Returns:
        Indices of the kept tokens (B, K), K = int(N * (1 - ratio)); the mask (B, N), 1 where hidden; where
        each token lies in the shuffled order (B, N), kept ones first.
    """
    count = int(noise.shape[1] * (1 - mask_ratio))
    order = noise.argsort(1)
    place = order.argsort(1)
    return order[:, :count], (place >= count).float(), place


def hidden_error(found: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Each sample's sum over hidden patches of the mean squared error; patches (B, N, numbers) to (B,)."""
    return ((found - wanted).square().mean(-1) * mask).sum(1)


@MODELS.register_module()
class Uni4Eye(BaseModel):
    """The encoder and its two decoders: one for the picture, one for its edges.

    Both decoders read the same latent tokens, and share positions and the last norm; embedding, mask token
    and blocks are their own. Pictures and volumes have prediction heads of their own.

    Args:
        encoder: arguments of `Uni4EyeEncoder`.
        decoder_dim: width of the decoders.
        decoder_depth: blocks of each.
        decoder_heads: heads of a block.
        mask_ratio: share of the patches that is hidden.
        norm_pix_loss: reconstruct each patch with its mean and variance taken out; never done to edges.
        data_preprocessor, init_cfg: see mmengine's `BaseModel`.
    """

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        *,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        mask_ratio: float = 0.75,
        norm_pix_loss: bool = False,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        settings = dict(encoder or {})
        positions: Positions = settings.get("positions", "sincos")
        self.encoder = Uni4EyeEncoder(**settings)
        self.mask_ratio, self.norm_pix_loss = mask_ratio, norm_pix_loss
        tables = [position_table(grid, decoder_dim, positions) for grid in self.encoder.grids]
        self.decoder_pos_embed2, self.decoder_pos_embed3 = tables
        for branch in ("", "1"):
            self.add_module(f"decoder_embed{branch}", nn.Linear(self.encoder.dim, decoder_dim))
            self.register_parameter(f"mask_token{branch}", nn.Parameter(torch.zeros(1, 1, decoder_dim)))
            ratio = settings.get("mlp_ratio", 4.0)
            blocks = nn.ModuleList(Block(decoder_dim, decoder_heads, ratio) for _ in range(decoder_depth))
            self.add_module(f"decoder_blocks{branch}", blocks)
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=EPS)
        patch = self.encoder.patch_size
        channels = settings.get("in_channels", 3)
        self.decoder_pred2 = nn.Linear(decoder_dim, patch**2 * channels)
        self.decoder_pred3 = nn.Linear(decoder_dim, patch**3)
        self.decoder_pred21 = nn.Linear(decoder_dim, patch**2)
        self.decoder_pred31 = nn.Linear(decoder_dim, patch**3)

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Pictures (B, 3, s, s) or volumes (B, 1, s, s / 2, s), never both in a batch.

        Returns:
            tensor: the latent tokens (B, 1 + N, dim) of everything; loss: `loss_image` and `loss_gradient`;
            predict: the data samples with `prediction`, `target` and `gradient_prediction` (N, numbers), and
            `mask` (N,); what is hidden is then a function of the number of patches alone.
        """
        if mode == "tensor":
            return self.encoder(inputs)
        shape = len(inputs), math.prod(self.encoder.grid_of(inputs))
        if mode == "predict":
            noise = torch.rand(shape[1:], generator=torch.Generator().manual_seed(0)).expand(shape)
        else:
            noise = torch.rand(shape, device=inputs.device)
        noise = noise.to(inputs.device)
        image, gradient, mask = self.reconstruct(inputs, noise)[1:]
        if mode == "loss":
            edges = torch.stack([sample.gradient for sample in data_samples or []]).to(inputs)
            terms = self.losses(inputs, edges, image, gradient, mask)
            return {name: loss.sum() / mask.sum() for name, loss in terms.items()}
        samples = data_samples or [BaseDataElement() for _ in inputs]
        names = ("prediction", "gradient_prediction", "mask", "target")
        for sample, *found in zip(samples, image, gradient, mask, self.target(inputs), strict=True):
            sample.set_data(dict(zip(names, found, strict=True)))
        return samples

    def reconstruct(self, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latent (B, 1 + K, dim), patches of the picture and of its edges (B, N, numbers), mask (B, N)."""
        kept, mask, place = random_masking(noise, self.mask_ratio)
        latent = self.encoder(inputs, kept)
        image, gradient = (self.decode(latent, inputs, place, branch) for branch in ("", "1"))
        return latent, image, gradient, mask

    def decode(self, latent: Tensor, inputs: Tensor, place: Tensor, branch: str) -> Tensor:
        """One decoder ('' the picture's, '1' the edges'): its patches (B, N, numbers)."""
        kind = "3" if inputs.ndim == 5 else "2"
        tokens = self.get_submodule(f"decoder_embed{branch}")(latent)
        hidden = place.shape[1] + 1 - tokens.shape[1]
        filler = self.get_parameter(f"mask_token{branch}").expand(len(tokens), hidden, -1)
        patches = torch.cat([tokens[:, 1:], filler], 1)
        patches = patches.gather(1, place[..., None].expand(-1, -1, patches.shape[2]))
        tokens = torch.cat([tokens[:, :1], patches], 1)
        table = self.get_parameter(f"decoder_pos_embed{kind}")
        grid = self.encoder.grids[inputs.ndim == 5]
        tokens = tokens + resize_positions(table, grid, self.encoder.grid_of(inputs))
        for block in self.get_submodule(f"decoder_blocks{branch}").children():
            tokens = block(tokens)
        return self.get_submodule(f"decoder_pred{kind}{branch}")(self.decoder_norm(tokens))[:, 1:]

    def losses(
        self, inputs: Tensor, edges: Tensor, image: Tensor, gradient: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Each sample's sum over its hidden patches of the mean squared error, (B,), of either branch.

        Args:
            inputs: pictures or volumes.
            edges: their gradient maps, one channel.
            image: patches that the first decoder gives.
            gradient: those of the second.
            mask: (B, N), 1 where hidden.
        """
        wanted = patchify(edges, self.encoder.patch_size)
        return {
            "loss_image": hidden_error(image, self.target(inputs), mask),
            "loss_gradient": hidden_error(gradient, wanted, mask),
        }

    def target(self, inputs: Tensor) -> Tensor:
        """What the first decoder shall give: patches (B, N, numbers)."""
        patches = patchify(inputs, self.encoder.patch_size)
        return normalised(patches) if self.norm_pix_loss else patches

    @staticmethod
    def from_published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The encoder's tensors have no prefix there; the second decoder's own positions are never used."""
        kept = {n: t for n, t in tensors.items() if n not in ("decoder_pos_embed21", "decoder_pos_embed31")}
        return {n if n.startswith(("decoder_", "mask_token")) else f"encoder.{n}": t for n, t in kept.items()}
