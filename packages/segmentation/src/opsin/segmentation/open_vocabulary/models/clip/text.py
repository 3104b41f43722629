"""CLIP's text side: transformers' `CLIPTextModelWithProjection`, and open_clip's names translated to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.published import Tensors
from opsin.segmentation.open_vocabulary.models.clip.tokenizer import load_tokenizer

RENAMES = (
    (r"^token_embedding\.weight$", "text_model.embeddings.token_embedding.weight"),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^transformer\.resblocks\.(\d+)\.", r"text_model.encoder.layers.\1."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
)
PACKED = re.compile(r"^(.*)\.attn\.in_proj_(weight|bias)$")


class TextTower(nn.Module):
    """Texts to vectors of the common space.

    Args:
        embed_dim: width of the common space.
        width: of the transformer.
        layers: of the transformer.
        heads: of its attention.
        hidden_act: `gelu` in open_clip's models, `quick_gelu` in OpenAI's.
        context_length: tokens of a text, start and end included.
        tokenizer: see `load_tokenizer`.
        vocab_size: tokens; those of the tokeniser by default.

    Raises:
        UserError: if transformers is not installed, or the tokeniser can't be read.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        width: int,
        layers: int,
        heads: int,
        hidden_act: str = "gelu",
        context_length: int = 77,
        tokenizer: str | None = None,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer = load_tokenizer(tokenizer)
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        self.context_length = context_length
        self.vocab_size = vocab_size or len(self.tokenizer)
        config = CLIPTextConfig(
            vocab_size=self.vocab_size,
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=embed_dim,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            hidden_act=hidden_act,
            max_position_embeddings=context_length,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.model = CLIPTextModelWithProjection(config)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), embed_dim)."""
        if len(self.tokenizer) != self.vocab_size:
            raise UserError(
                f"the tokeniser has {len(self.tokenizer)} tokens, the text model {self.vocab_size}",
                "set model.clip.tokenizer to CLIP's bpe_simple_vocab_16e6.txt.gz",
            )
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.context_length, return_tensors="pt"
        )
        device = self.model.text_projection.weight.device
        embedded: Tensor = self.model(input_ids=tokens["input_ids"].to(device)).text_embeds
        return embedded

    def from_published(self, tensors: Tensors) -> Tensors:
        """The text side's tensors of an open_clip or OpenAI file, or transformers' own."""
        converted: dict[str, Any] = {}
        for name, tensor in tensors.items():
            packed = PACKED.match(name)
            if packed:
                layer = _renamed(packed[1] + ".")
                for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                    converted[f"model.{layer}self_attn.{part}_proj.{packed[2]}"] = piece.clone()
            elif name == "text_projection":
                converted["model.text_projection.weight"] = tensor.T.contiguous()
            else:
                converted[f"model.{_renamed(name)}"] = tensor
        return converted


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


@torch.no_grad()
def encode_names(tower: TextTower, names: Sequence[str], prompts: Sequence[str], batch: int = 512) -> Tensor:
    """(len(names), D): for each name the mean of its prompts' unit vectors, as a unit vector.

    Autocast is off here: the rows are kept for the whole run.

    Args:
        tower: the text side.
        names: what takes the place of `{}` in the prompts.
        prompts: texts with `{}`.
        batch: texts that are encoded at once.
    """
    texts = [prompt.format(name) for name in names for prompt in prompts]
    with torch.autocast(next(tower.parameters()).device.type, enabled=False):
        pieces = [tower(texts[start : start + batch]) for start in range(0, len(texts), batch)]
    units = nn.functional.normalize(torch.cat(pieces), dim=-1)
    return nn.functional.normalize(units.unflatten(0, (len(names), -1)).mean(1), dim=-1)
