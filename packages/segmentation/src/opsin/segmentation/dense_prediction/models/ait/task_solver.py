"""AiT's task solver: an encoder over the image, and a decoder that writes the tokens of a task's answer.

Letters: B images, L tokens, V words, C channels. Task numbers: 0 detection, 1 instance segmentation, 2 depth.

What a naive reading misses: positions count from 0 and are not normalised; the cross-attention's norm goes
over both queries and memory; a task begins with a vector of its own, which is no word; the positions of the
tokens are learned for each task; one table both embeds words and, with a bias, scores them; the soft words
that are fed back know no temperature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.layers.drop_path import DropPath
from opsin.core.layers.mlp import Mlp
from opsin.core.published import Tensors
from opsin.segmentation.dense_prediction.models.ait.vocabulary import Vocabulary

DETECTION, INSTANCES, DEPTH = 0, 1, 2
TASKS = 4  # rows of the tables of tasks; the last has no task
BOX_WORDS = 4


class Attention(nn.Module):
    """Multi-head attention with separate projections; parameters `wq`, `wk`, `wv`, `proj`."""

    def __init__(self, dim: int, num_heads: int, drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.wq = nn.Linear(dim, dim)
        self.wk = nn.Linear(dim, dim)
        self.wv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(drop)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, C) to keys and values (B, heads, L, C / heads)."""
        return self._heads(self.wk(x)), self._heads(self.wv(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Tensor:
        """Queries (B, Q, C) to the same shape."""
        y = F.scaled_dot_product_attention(self._heads(self.wq(x)), keys, values, is_causal=causal)
        attended: Tensor = self.drop(self.proj(y.transpose(1, 2).flatten(2)))
        return attended

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Attention and MLP, norms first."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, drop: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, drop)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_dim, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same shape."""
        normed = self.norm1(x)
        x = x + self.drop_path(self.attn(normed, *self.attn.keys_and_values(normed)))
        added: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return added


class Past(NamedTuple):
    """Keys and values (B, heads, L, C / heads) of a block's tokens so far, and of the memory."""

    own: tuple[Tensor, Tensor] | None
    memory: tuple[Tensor, Tensor]


class DecoderBlock(nn.Module):
    """Attention to the tokens so far, to the memory, and MLP, norms first."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, drop: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, drop)
        self.norm2 = nn.LayerNorm(dim)
        self.crossattn = Attention(dim, num_heads, drop)
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_dim, drop=drop)
        self.drop_path = DropPath(drop_path)

    def begin(self, memory: Tensor) -> Past:
        """What the block keeps of a memory (B, N, C) before the first token."""
        return Past(None, self.crossattn.keys_and_values(self.norm2(memory)))

    def forward(self, x: Tensor, past: Past) -> tuple[Tensor, Past]:
        """Goes on by tokens (B, L, C): several at the beginning, one at a time later."""
        normed = self.norm1(x)
        keys, values = self.attn.keys_and_values(normed)
        first = past.own is None
        if past.own is not None:
            keys, values = torch.cat([past.own[0], keys], 2), torch.cat([past.own[1], values], 2)
        x = x + self.drop_path(self.attn(normed, keys, values, causal=first))
        x = x + self.drop_path(self.crossattn(self.norm2(x), *past.memory))
        x = x + self.drop_path(self.mlp(self.norm3(x)))
        return x, Past((keys, values), past.memory)


class Objects(NamedTuple):
    """What the decoder wrote of N objects an image.

    Args:
        boxes: (B, N, 4) coordinates' words x1, y1, x2, y2.
        classes: (B, N) class numbers from 0.
        scores: (B, N) the class's probability among the classes and noise.
        masks: (B, N, M) mask codes from 0; M is 0 in detection.
        mask_logits: (B, N, M, codes).
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor
    masks: Tensor
    mask_logits: Tensor


class TaskSolver(nn.Module):
    """The encoder-decoder.

    Args:
        in_chans: channels of the backbone's map.
        d_model: C.
        nhead: heads.
        num_encoder_layers, num_decoder_layers: blocks.
        dim_feedforward: width between the MLPs' layers.
        drop_path, drop_out: rates.
        num_bins, num_classes, num_embeddings, num_embeddings_depth: of the `Vocabulary`.
        num_vocal: rows of the word table; as many as there are words by default.
        dec_length: the most tokens of an answer.
        soft_transformer: feeds back the mean of the codes' embeddings under their probabilities.
        parallel: feeds back one learned vector, whatever was written; all tokens come at once.
        top_p: how much probability the words cover that one is drawn from; 0 takes the likeliest.

    Raises:
        UserError: if `num_vocal` has no room for the vocabulary.
    """

    def __init__(
        self,
        in_chans: int = 1024,
        *,
        d_model: int = 256,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 1024,
        drop_path: float = 0.1,
        drop_out: float = 0.1,
        num_bins: int = 2000,
        num_classes: int = 80,
        num_embeddings: int = 128,
        num_embeddings_depth: int = 128,
        num_vocal: int | None = None,
        dec_length: int = 2100,
        soft_transformer: bool = True,
        parallel: bool = False,
        top_p: float = 0.0,
    ) -> None:
        super().__init__()
        self.words = Vocabulary(num_bins, num_classes, num_embeddings, num_embeddings_depth)
        rows = len(self.words) if num_vocal is None else num_vocal
        if rows < len(self.words):
            raise UserError(f"num_vocal={rows} is less than the {len(self.words)} words of the vocabulary")
        if not 0 <= top_p < 1:
            raise UserError(f"top_p={top_p}", "give a probability from 0 (the likeliest word) to below 1")
        self.soft_transformer, self.parallel, self.top_p = soft_transformer, parallel, top_p
        self.drop = nn.Dropout(drop_out)
        self.input_proj = nn.Linear(in_chans, d_model)
        self.stem_ln = nn.LayerNorm(d_model)
        block = (d_model, nhead, dim_feedforward, drop_out, drop_path)
        self.encoder = nn.ModuleDict(
            {"blocks": nn.ModuleList(EncoderBlock(*block) for _ in range(num_encoder_layers))}
        )
        self.encout_ln = nn.LayerNorm(d_model)
        self.proj = nn.Linear(d_model, d_model)
        self.proj_ln = nn.LayerNorm(d_model)
        self.proj_mlp_ln = nn.LayerNorm(d_model)
        self.proj_mlp = Mlp(d_model, dim_feedforward)
        self.decoder = nn.ModuleDict(
            {"blocks": nn.ModuleList(DecoderBlock(*block) for _ in range(num_decoder_layers))}
        )
        self.norm = nn.LayerNorm(d_model)
        self.det_embed = nn.Parameter(0.02 * torch.randn(TASKS, 1, d_model))
        self.voc_embed = nn.Parameter(0.02 * torch.randn(rows, d_model))
        self.dec_embed = nn.Parameter(0.02 * torch.randn(TASKS, dec_length, d_model))
        self.outp_bias = nn.Parameter(torch.zeros(rows))
        self.mask_embed = nn.Parameter(0.02 * torch.randn(1, 1, d_model)) if parallel else None

    def encode(self, feature: Tensor) -> Tensor:
        """The backbone's map (B, in_chans, H, W) to the memory (B, H W, C)."""
        height, width = feature.shape[-2:]
        x = self.stem_ln(self.input_proj(self.drop(feature).flatten(2).transpose(1, 2)))
        positions = sine_positions(height, width, x.shape[-1], x.device).to(x.dtype)
        x = x + positions
        for block in self.encoder["blocks"].children():
            x = block(x)
        x = self.proj_ln(self.proj(self.encout_ln(x))) + positions
        memory: Tensor = x + self.proj_mlp(self.proj_mlp_ln(x))
        return memory

    def forward(self, feature: Tensor, tokens: Tensor, task: Tensor) -> Tensor:
        """Logits (B, L + 1, V) of each next word, given the true words before it.

        Args:
            feature: the backbone's map (B, in_chans, H, W).
            tokens: (B, L) words.
            task: (B,) task numbers.
        """
        fed = self.voc_embed[tokens]
        if self.mask_embed is not None:
            fed = self.mask_embed.expand_as(fed)
        x = torch.cat([self.det_embed[task], fed], 1)
        x = x + self._placed(task, 0, x.shape[1])
        logits, _ = self._step(x, self._begin(self.encode(feature)))
        return logits

    def write(self, feature: Tensor, task: int, parts: Iterable[range]) -> tuple[list[Tensor], list[Tensor]]:
        """Writes an answer word by word.

        Args:
            feature: the backbone's map (B, in_chans, H, W).
            task: its number.
            parts: which words each position may have.

        Returns:
            For each position the words (B,), counted from the part's first, and the logits (B, V) of all.
        """
        parts = list(parts)
        past = self._begin(self.encode(feature))
        batch = len(feature)
        tasks = torch.full((batch,), task, device=feature.device)
        if self.mask_embed is not None:
            return self._write_at_once(tasks, parts, past)
        fed = self.det_embed[tasks]
        words, all_logits = [], []
        for place, part in enumerate(parts):
            logits, past = self._step(fed + self._placed(tasks, place, 1), past)
            logits = logits[:, 0]
            own = logits[:, part.start : part.stop]
            chosen = choose(own, self.top_p)
            words.append(chosen)
            all_logits.append(logits)
            fed = self._fed_back(own, chosen, part)[:, None]
        return words, all_logits

    def write_depth(self, feature: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Depth codes (B, length) and their logits (B, length, codes)."""
        part = self.words.depth
        words, logits = self.write(feature, DEPTH, [part] * length)
        return torch.stack(words, 1), torch.stack(logits, 1)[..., part.start : part.stop]

    def write_objects(self, feature: Tensor, count: int, mask_length: int) -> Objects:
        """`count` objects, in the order of writing; without masks if `mask_length` is 0."""
        each = [self.words.boxes] * BOX_WORDS + [self.words.classes] + [self.words.masks] * mask_length
        task = INSTANCES if mask_length else DETECTION
        words, logits = self.write(feature, task, each * count)
        tokens = torch.stack(words, 1).unflatten(1, (count, len(each)))
        scored = torch.stack(logits, 1).unflatten(1, (count, len(each)))
        named = torch.cat(
            [
                scored[:, :, BOX_WORDS, self.words.classes.start : self.words.classes.stop],
                scored[:, :, BOX_WORDS, self.words.noise, None],
            ],
            -1,
        )
        classes = tokens[..., BOX_WORDS]
        scores = named.softmax(-1).gather(-1, classes[..., None])[..., 0]
        masks = scored[:, :, BOX_WORDS + 1 :, self.words.masks.start : self.words.masks.stop]
        return Objects(tokens[..., :BOX_WORDS], classes, scores, tokens[..., BOX_WORDS + 1 :], masks)

    def _begin(self, memory: Tensor) -> list[Past]:
        return [block.begin(memory) for block in self._decoder_blocks()]

    def _decoder_blocks(self) -> Iterator[DecoderBlock]:
        for block in self.decoder["blocks"].children():
            assert isinstance(block, DecoderBlock)
            yield block

    def _step(self, x: Tensor, past: list[Past]) -> tuple[Tensor, list[Past]]:
        """Goes on by (B, L, C); logits (B, L, V) and what is kept."""
        kept = []
        for block, before in zip(self._decoder_blocks(), past, strict=True):
            x, after = block(x, before)
            kept.append(after)
        return F.linear(self.norm(x), self.voc_embed, self.outp_bias), kept

    def _write_at_once(
        self, tasks: Tensor, parts: list[range], past: list[Past]
    ) -> tuple[list[Tensor], list[Tensor]]:
        assert self.mask_embed is not None
        fed = self.mask_embed.expand(len(tasks), len(parts) - 1, -1)
        x = torch.cat([self.det_embed[tasks], fed], 1) + self._placed(tasks, 0, len(parts))
        logits, _ = self._step(x, past)
        scored = list(logits.unbind(1))
        words = [
            choose(one[:, part.start : part.stop], self.top_p)
            for one, part in zip(scored, parts, strict=True)
        ]
        return words, scored

    def _fed_back(self, logits: Tensor, chosen: Tensor, part: range) -> Tensor:
        """(B, C): a code as its soft embedding, every other word as itself."""
        table = self.voc_embed[part.start : part.stop]
        if self.soft_transformer and part in (self.words.masks, self.words.depth):
            return logits.softmax(-1) @ table
        return table[chosen]

    def _placed(self, task: Tensor, start: int, length: int) -> Tensor:
        """(B, length, C), the positions' embeddings.

        Raises:
            UserError: if the table ends before.
        """
        if start + length > self.dec_embed.shape[1]:
            raise UserError(
                f"an answer of {start + length} tokens is longer than dec_length={self.dec_embed.shape[1]}"
            )
        return self.dec_embed[task, start : start + length]

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of a task model's file; a head's second copy of the solver is dropped."""
        if any(name.startswith("transformer.") for name in tensors):
            own = {n: t for n, t in tensors.items() if n.startswith("transformer.")}
            return {n.removeprefix("transformer."): t for n, t in own.items()}
        return dict(tensors)


def choose(logits: Tensor, top_p: float) -> Tensor:
    """(B, K) logits to numbers (B,): the likeliest, or drawn from the fewest that exceed `top_p` together."""
    if top_p <= 0:
        return logits.argmax(-1)
    shares, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = shares.cumsum(-1) - shares
    kept = torch.where(before <= top_p, shares, 0)
    return order.gather(-1, torch.multinomial(kept, 1))[:, 0]


def sine_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """(height * width, dim), row by row: half of the channels for the row, then half for the column."""
    half = dim // 2
    channel = torch.arange(half, device=device)
    frequency = 10000.0 ** (-2 * (channel // 2) / half)

    def encoded(count: int) -> Tensor:
        angles = torch.arange(count, device=device)[:, None] * frequency
        return torch.where(channel % 2 == 0, angles.sin(), angles.cos())

    rows = encoded(height)[:, None].expand(-1, width, -1)
    columns = encoded(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1).flatten(0, 1)
