"""The frozen models around FrozenSeg: CLIP's two sides, its tokeniser, SAM's encoder, and their files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from frozenseg_stand_ins import STAND_INS, segment_anything_names
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.segmentation.open_vocabulary.models import CLIP, SamEncoder
from opsin.segmentation.open_vocabulary.models.clip import load_tokenizer
from opsin.segmentation.open_vocabulary.models.clip.text import encode_names
from opsin.segmentation.open_vocabulary.vocabulary import PROMPTS, as_vocabulary, read_vocabulary

ARCH = STAND_INS["clip"]["arch"]
RESNET = {
    "embed_dim": 12,
    "visual": {"type": "resnet", "layers": (1, 1, 1, 1), "width": 16, "image_size": 64},
    "text": ARCH["text"],
}


class OpenClipText(nn.Module):
    """The text side as open_clip has it, in torch's own modules."""

    def __init__(self, vocab: int, width: int, heads: int, layers: int, length: int, out: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocab, width)
        self.positional_embedding = nn.Parameter(torch.randn(length, width))
        blocks = [
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, F.gelu, norm_first=True)
            for _ in range(layers)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, out))

    def forward(self, tokens: Tensor) -> Tensor:
        x = (self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]).transpose(0, 1)
        causal = torch.full((len(x), len(x)), -torch.inf).triu(1)
        for block in self.blocks:
            x = block(x, src_mask=causal)
        ends = tokens.argmax(-1)  # the end token has the greatest number
        return self.ln_final(x.transpose(0, 1))[torch.arange(len(tokens)), ends] @ self.text_projection

    def published(self) -> dict[str, Tensor]:
        inner = {
            "self_attn.in_proj_": "attn.in_proj_",
            "self_attn.out_proj": "attn.out_proj",
            "norm1": "ln_1",
            "norm2": "ln_2",
            "linear1": "mlp.c_fc",
            "linear2": "mlp.c_proj",
        }
        named = {}
        for name, tensor in self.state_dict().items():
            for old, new in inner.items():
                name = name.replace(old, new)
            named[name.replace("blocks.", "transformer.resblocks.")] = tensor
        return named


def timm_names(trunk: nn.Module) -> dict[str, Tensor]:
    """A ConvNeXt trunk's tensors under timm's names."""
    named = {}
    for name, tensor in trunk.state_dict().items():
        parts = name.split(".")
        if name.startswith("downsample_layers.0."):
            name = ".".join(["stem", *parts[2:]])
        elif name.startswith("downsample_layers."):
            name = ".".join(["stages", parts[1], "downsample", *parts[2:]])
        elif name.startswith("stages."):
            name = ".".join(["stages", parts[1], "blocks", *parts[2:]])
            name = name.replace("dwconv", "conv_dw").replace("pwconv", "mlp.fc")
        else:
            name = f"head.{name}"
        named[name] = tensor
    return named


def test_an_open_clip_file_fills_both_sides(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = CLIP(ARCH)
    vocab = len(source.text.tokenizer)
    text = OpenClipText(vocab, 16, 2, 1, 48, ARCH["embed_dim"]).eval()
    visual = {f"visual.trunk.{n}": t for n, t in timm_names(source.visual.trunk).items()}
    visual |= {f"visual.head.{n}": t for n, t in source.visual.head.state_dict().items()}
    scale = {"logit_scale": torch.tensor(3.0)}
    torch.save(
        {"state_dict": {f"module.{n}": t for n, t in (visual | text.published() | scale).items()}},
        tmp_path / "c.pt",
    )
    torch.manual_seed(1)
    clip = CLIP(ARCH, checkpoint=str(tmp_path / "c.pt"))
    image = torch.rand(1, 3, 70, 64)
    for ours, theirs in zip(clip(image), source(image), strict=True):
        assert torch.equal(ours, theirs)
    assert clip.logit_scale.item() == 3.0
    tokens = torch.tensor([[vocab - 2, 40, 77, 9, vocab - 1, 0], [vocab - 2, 5, vocab - 1, 0, 0, 0]])
    ours = clip.text.model(input_ids=tokens).text_embeds
    torch.testing.assert_close(ours, text(tokens), atol=1e-5, rtol=1e-4)


def test_padding_of_the_texts_does_not_change_their_embedding() -> None:
    tower = CLIP(ARCH).text
    together = tower(["cat", "a photo of a large television"])
    torch.testing.assert_close(together[:1], tower(["cat"]), atol=1e-6, rtol=1e-5)


def test_a_name_is_the_mean_of_its_prompts() -> None:
    tower = CLIP(ARCH).text
    unit = F.normalize(tower([prompt.format("cat") for prompt in PROMPTS]), dim=-1)
    expected = F.normalize(unit.mean(0), dim=0)
    torch.testing.assert_close(encode_names(tower, ["dog", "cat"], PROMPTS, batch=5)[1], expected)
    assert len(set(PROMPTS)) == 14


@pytest.mark.parametrize("arch", [ARCH, RESNET], ids=["convnext", "resnet"])
def test_the_pyramid_has_strides_four_to_thirty_two(arch: dict) -> None:
    clip = CLIP(arch).train()
    image = torch.rand(2, 3, 64, 96)
    shapes = [tuple(m.shape[1:]) for m in clip(image)]
    assert shapes == [(c, 64 // s, 96 // s) for c, s in zip(clip.channels, (4, 8, 16, 32), strict=True)]
    assert torch.equal(clip(image)[-1], clip(image)[-1])  # batch norms do not learn
    embedded = clip.embed_masks(clip(image)[-1], torch.randn(2, 3, 16, 24))
    assert embedded.shape == (2, 3, 12)


def test_attention_pooling_looks_under_the_mask_only() -> None:
    torch.manual_seed(0)
    pool = CLIP(RESNET).visual.attnpool
    x = torch.randn(1, 512, 2, 3)
    masks = torch.full((1, 2, 2, 3), -1.0)
    masks[0, 0, 0] = 1.0  # the second mask is empty
    other = x.clone()
    other[..., 1, :] = x[..., 1, :].flip(-1)  # another order outside the mask, the same mean
    first, second = pool(x, masks), pool(other, masks)
    torch.testing.assert_close(first[0, 0], second[0, 0])
    assert not torch.allclose(first[0, 1], second[0, 1], atol=1e-4)
    whole = pool(x, torch.ones(1, 1, 2, 3))[0, 0]
    torch.testing.assert_close(first[0, 1], whole)


def test_whole_map_pooling_is_clips_own() -> None:
    torch.manual_seed(0)
    pool = CLIP(RESNET).visual.attnpool
    x = torch.randn(1, 512, 2, 2)
    flat = x.flatten(2).permute(2, 0, 1)
    flat = torch.cat([flat.mean(0, keepdim=True), flat]) + pool.positional_embedding[:, None]
    weights = [pool.q_proj.weight, pool.k_proj.weight, pool.v_proj.weight]
    biases = torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias])
    expected, _ = F.multi_head_attention_forward(
        flat[:1], flat[1:], flat[1:], 512, pool.num_heads, None, biases, None, None, False, 0.0,
        pool.c_proj.weight, pool.c_proj.bias, use_separate_proj_weight=True, need_weights=False,
        q_proj_weight=weights[0], k_proj_weight=weights[1], v_proj_weight=weights[2],
    )  # fmt: skip
    torch.testing.assert_close(pool(x, torch.ones(1, 1, 2, 2))[0], expected[0], atol=1e-5, rtol=1e-4)


def test_a_file_of_segment_anything_fills_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    arch = STAND_INS["sam"]["arch"]
    source = SamEncoder(arch)
    tensors = {f"image_encoder.{n}": t for n, t in segment_anything_names(source).items()}
    torch.save(tensors | {"mask_decoder.iou_token.weight": torch.zeros(1)}, tmp_path / "sam.pth")
    image = torch.rand(1, 3, 64, 64)
    filled = SamEncoder(arch, checkpoint=str(tmp_path / "sam.pth"))
    assert torch.equal(filled(image), source(image))
    assert filled(torch.rand(1, 3, 40, 90)).shape == source(image).shape  # stretched
    torch.save({f"model.{n}": t for n, t in source.state_dict().items()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"is missing"):
        SamEncoder(arch, checkpoint=str(tmp_path / "other.pth"))


def test_files_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    torch.save({"text_model.x": torch.zeros(1)}, tmp_path / "hf.pt")
    with pytest.raises(UserError, match=r"no visual\.\*; give open_clip's or OpenAI's"):
        CLIP(ARCH, checkpoint=str(tmp_path / "hf.pt"))
    with pytest.raises(UserError, match=r"no checkpoint at"):
        SamEncoder(STAND_INS["sam"]["arch"], checkpoint=str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"unknown CLIP image side 'vit'"):
        CLIP({**ARCH, "visual": {"type": "vit"}})


MERGES = ["c a", "ca t</w>", "d o", "do g</w>"]


def test_the_three_forms_of_the_tokeniser_agree(tmp_path: Path) -> None:
    listing = "#version: 0.2\n" + "\n".join(MERGES) + "\n"
    (tmp_path / "bpe.txt.gz").write_bytes(gzip.compress(listing.encode()))
    (tmp_path / "bpe.txt").write_text(listing)
    (tmp_path / "hf").mkdir()
    packed = load_tokenizer(tmp_path / "bpe.txt.gz")
    (tmp_path / "hf/vocab.json").write_text(json.dumps(packed.get_vocab()))
    (tmp_path / "hf/merges.txt").write_text(listing)
    texts = ["Cat dog", "catdog!", "é 12"]
    expected = packed(texts)["input_ids"]
    assert packed.tokenize("Cat dog") == ["cat</w>", "dog</w>"]
    assert expected[0] == [512 + 4, 512 + 1, 512 + 3, 512 + 5]  # start, two merges, end
    for path in ("bpe.txt", "hf", "hf/vocab.json"):
        assert load_tokenizer(tmp_path / path)(texts)["input_ids"] == expected


def test_without_a_file_tokens_are_bytes() -> None:
    tokenizer = load_tokenizer()
    assert len(tokenizer) == 514
    # CLIP's table begins with "!", so "a" is 64; 256 more at a word's end
    assert tokenizer("ab")["input_ids"] == [512, 64, 65 + 256, 513]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.txt", None, "no tokeniser at"),
        ("bad.txt", b"#v\na b c\n", "is not a list of merges"),
        ("bad.txt.gz", b"no gzip", "can't be read as a tokeniser"),
    ],
)
def test_a_wrong_tokeniser_file_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path / name)
    with pytest.raises(UserError, match=r"neither tokenizer.json nor"):
        load_tokenizer(tmp_path)


def test_a_model_of_clips_size_needs_clips_tokeniser() -> None:
    tower = CLIP({**ARCH, "text": {**ARCH["text"], "vocab_size": 600}}).text
    with pytest.raises(
        UserError, match=r"tokeniser has 514 tokens, the text model 600; set model.clip.tokenizer"
    ):
        tower(["cat"])


def test_class_files_hold_synonyms_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("0:invalid_class_id\n1:person, child\nsky\n\n3:tv,monitor\n")
    assert read_vocabulary(path) == [("person", "child"), ("sky",), ("tv", "monitor")]
    assert as_vocabulary(["cat", ("tv", "monitor")]) == [("cat",), ("tv", "monitor")]
    path.write_text("\n")
    with pytest.raises(UserError, match=r"hold no class name"):
        read_vocabulary(path)
    with pytest.raises(UserError, match=r"empty name"):
        as_vocabulary(["cat", ("",)])
