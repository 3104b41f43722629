"""AiT's tokenizer: a VQ-VAE that turns a mask or a depth map into a small grid of code numbers, and back.

Letters: B samples, S side of the map, n side of the token grid, K codes of D channels.

The codebook is no parameter: it follows the encoder's outputs by moving averages (arXiv 1711.00937, appendix
A). Masks are scaled to -1..1 inside (`use_norm`) and their loss is taken there, so it is four times that of
the masks; depth goes through in metres, and pixels without depth (0) don't count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, broadcast
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.published import Tensors

DECAY = 0.99
SMOOTHING = 1e-5  # Laplace's, of the codes' counts
COMMITMENT = 0.25


class TokenizerLosses(NamedTuple):
    """Their sum, the mean squared error of the reconstruction, and the commitment, each ()."""

    total: Tensor
    reconstruction: Tensor
    commitment: Tensor


class ResBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1 one with ReLU between, added to the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        added: Tensor = x + self.net(x)
        return added


class Codebook(nn.Module):
    """K codes that follow what is assigned to them.

    Args:
        num_embeddings: K.
        embedding_dim: D.
    """

    _embedding: Tensor
    _ema_w: Tensor
    _ema_cluster_size: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        codes = torch.randn(num_embeddings, embedding_dim)
        self.register_buffer("_embedding", codes)
        self.register_buffer("_ema_w", codes.clone())
        self.register_buffer("_ema_cluster_size", torch.zeros(num_embeddings))

    def nearest(self, z: Tensor) -> Tensor:
        """(B, D, n, n) to the numbers (B, n, n) of the codes at least squared distance."""
        flat = z.permute(0, 2, 3, 1).flatten(0, 2).float()
        distances = self._embedding.square().sum(1) - 2 * flat @ self._embedding.T
        return distances.argmin(1).view(len(z), *z.shape[-2:])

    def codes(self, tokens: Tensor) -> Tensor:
        """(B, n, n) numbers to (B, D, n, n)."""
        return self._embedding[tokens].permute(0, 3, 1, 2)

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever assigned to the codes."""
        return not bool(self._ema_cluster_size.any())

    @torch.no_grad()
    def restart(self, z: Tensor, below: float) -> None:
        """Puts seldom used codes on randomly chosen vectors of (B, D, n, n), as if used once.

        Args:
            z: what the encoder gives.
            below: how often a code must have been used on average over the last batches to stay.
        """
        seldom = self._ema_cluster_size < below
        flat = z.permute(0, 2, 3, 1).flatten(0, 2).float()
        chosen = flat[torch.randint(len(flat), (len(seldom),), device=flat.device)]
        broadcast(chosen)
        self._embedding.copy_(torch.where(seldom[:, None], chosen, self._embedding))
        self._ema_w.copy_(torch.where(seldom[:, None], chosen, self._ema_w))
        self._ema_cluster_size.masked_fill_(seldom, 1.0)

    @torch.no_grad()
    def update(self, z: Tensor, tokens: Tensor) -> None:
        """Moves the codes to the mean of the vectors (B, D, n, n) that `tokens` (B, n, n) assign them."""
        flat = z.permute(0, 2, 3, 1).flatten(0, 2).float()
        assigned = F.one_hot(tokens.flatten(), len(self._embedding)).to(flat)
        counts, sums = assigned.sum(0), assigned.T @ flat
        all_reduce(counts)
        all_reduce(sums)
        self._ema_cluster_size.lerp_(counts, 1 - DECAY)
        self._ema_w.lerp_(sums, 1 - DECAY)
        total = self._ema_cluster_size.sum()
        smoothed = (self._ema_cluster_size + SMOOTHING) / (total + len(counts) * SMOOTHING) * total
        self._embedding.copy_(self._ema_w / smoothed[:, None])


class VQVAE(nn.Module):
    """Encoder, codebook, decoder.

    Args:
        token_length: n * n tokens.
        mask_size: S.
        embedding_dim: D.
        hidden_dim: sets the width: it begins at hidden_dim // (r // 2) for r = S / n and doubles in every
            further halving.
        num_resnet_blocks: on either side.
        num_embeddings: K.
        use_norm: maps in 0..1 are scaled to -1..1 inside.
        tau: factor on the logits of soft tokens.
        restart_below: codes used less often than this in a batch, on average, begin anew where the encoder's
            outputs are; 0, as published, does so only before the first step. Short trainings need it: else
            they end with a few codes.

    Raises:
        UserError: if `token_length` is no square, or S / n no power of two from 4 on.
    """

    def __init__(
        self,
        *,
        token_length: int,
        mask_size: int,
        embedding_dim: int = 512,
        hidden_dim: int = 128,
        num_resnet_blocks: int = 2,
        num_embeddings: int = 128,
        use_norm: bool = True,
        tau: float = 1.0,
        restart_below: float = 0.0,
    ) -> None:
        super().__init__()
        self.grid = math.isqrt(token_length)
        ratio = mask_size // self.grid
        if self.grid**2 != token_length or ratio * self.grid != mask_size or ratio < 4 or ratio & (ratio - 1):
            raise UserError(
                f"a map of {mask_size} pixels a side does not become {token_length} tokens",
                "token_length is a square, and mask_size its root times 4, 8, 16, …",
            )
        self.mask_size, self.use_norm, self.tau = mask_size, use_norm, tau
        self.restart_below = restart_below
        first = hidden_dim // (ratio // 2)
        halvings = int(math.log2(ratio)) - 1
        last = first * ratio // 2
        encoder: list[nn.Module] = [nn.Conv2d(1, first, 4, stride=2, padding=1), nn.ReLU()]
        for i in range(halvings):
            width = first * 2**i
            encoder += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.ReLU()]
        encoder += [ResBlock(last) for _ in range(num_resnet_blocks)]
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(last, embedding_dim, 1))
        self._vq_vae = Codebook(num_embeddings, embedding_dim)
        decoder: list[nn.Module] = [nn.Conv2d(embedding_dim, last, 1), nn.ReLU()]
        decoder += [ResBlock(last) for _ in range(num_resnet_blocks)]
        decoder += [nn.ConvTranspose2d(last, last, 4, stride=2, padding=1), nn.ReLU()]
        for i in range(halvings):
            width = last // 2**i
            decoder += [nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1), nn.ReLU()]
        self.decoder = nn.Sequential(*decoder, nn.Conv2d(last // 2**halvings, 1, 1))

    @property
    def num_embeddings(self) -> int:
        """K."""
        return len(self._vq_vae._embedding)

    def features(self, x: Tensor) -> Tensor:
        """Maps (B, S, S) to the encoder's output (B, D, n, n) before a code is chosen."""
        if x.shape[-2:] != (self.mask_size, self.mask_size):
            raise UserError(
                f"the tokenizer takes maps of {self.mask_size}x{self.mask_size}, not of"
                f" {x.shape[-1]}x{x.shape[-2]}"
            )
        z: Tensor = self.encoder(self._scaled(x[:, None]))
        return z

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Maps (B, S, S) to tokens (B, n * n), row by row."""
        return self._vq_vae.nearest(self.features(x)).flatten(1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, n * n) to maps (B, S, S)."""
        return self._decoded(self._vq_vae.codes(tokens.unflatten(1, (self.grid, self.grid))))

    def decode_soft(self, logits: Tensor) -> Tensor:
        """Logits (B, K, n, n) to maps (B, S, S) from the codes' mean under softmax(tau * logits)."""
        shares = (self.tau * logits.float()).softmax(1)
        return self._decoded(torch.einsum("bkhw,kd->bdhw", shares, self._vq_vae._embedding))

    def forward(self, x: Tensor, target: Tensor | None = None) -> tuple[Tensor, TokenizerLosses]:
        """Maps (B, S, S) through the codes; in training mode the codes move.

        Args:
            x: what the encoder sees.
            target: what the decoder shall give, `x` by default.

        Returns:
            The reconstruction (B, S, S), and the losses.
        """
        z = self.features(x)
        if self.training and (self._vq_vae.is_new or self.restart_below):
            self._vq_vae.restart(z, max(self.restart_below, SMOOTHING))
        tokens = self._vq_vae.nearest(z)
        codes = self._vq_vae.codes(tokens)
        if self.training:
            self._vq_vae.update(z, tokens)
        raw = self.decoder(z + (codes - z).detach())[:, 0]  # the gradient goes past the choice of a code
        wanted = x if target is None else target
        if self.use_norm:
            reconstruction = F.mse_loss(raw, self._scaled(wanted))
        else:
            valid = wanted > 0
            reconstruction = ((raw - wanted).square() * valid).sum() / valid.sum().clamp(min=1)
        commitment = COMMITMENT * F.mse_loss(z, codes)
        return self._unscaled(raw), TokenizerLosses(reconstruction + commitment, reconstruction, commitment)

    def _decoded(self, codes: Tensor) -> Tensor:
        return self._unscaled(self.decoder(codes)[:, 0])

    def _scaled(self, x: Tensor) -> Tensor:
        return 2 * (x - 0.5) if self.use_norm else x

    def _unscaled(self, x: Tensor) -> Tensor:
        return 0.5 * x + 0.5 if self.use_norm else x

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' file (`{"weights": …}`); codes without running averages begin them."""
        codes = tensors.get("_vq_vae._embedding")
        if codes is None:
            return tensors
        counts = codes.new_full((len(codes),), 1 / (1 - DECAY))
        return {"_vq_vae._ema_w": codes * counts[0], "_vq_vae._ema_cluster_size": counts} | tensors


def drop_patches(x: Tensor, *, ratio: float = 0.5, patch: int = 16) -> Tensor:
    """Maps (B, S, S) with a random share of their patches set to 0: what holes in a depth map look like.

    Args:
        x: the maps.
        ratio: chance of each patch.
        patch: its side.
    """
    rows, columns = (-(-side // patch) for side in x.shape[-2:])
    kept = torch.rand(len(x), 1, rows, columns, device=x.device) >= ratio
    grown = F.interpolate(kept.to(x), scale_factor=patch, mode="nearest")[:, 0]
    return x * grown[:, : x.shape[-2], : x.shape[-1]]
