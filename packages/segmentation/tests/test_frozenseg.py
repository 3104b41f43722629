"""FrozenSeg's head and inference: parity, counts, and what the paper's parts do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from frozenseg_stand_ins import CHANNELS, STAND_INS, TINY, D, segment_anything_names
from torch import Tensor

from opsin.core import create_model, list_models
from opsin.core.errors import UserError
from opsin.core.parity import run_case
from opsin.core.published import load_published
from opsin.segmentation.open_vocabulary.models import FrozenSeg, FrozenSegHead
from opsin.segmentation.open_vocabulary.models.frozenseg import TextClassifier, inference
from opsin.segmentation.open_vocabulary.models.frozenseg.pixel_decoder import (
    PublishedSingleMapAttention,
    SingleMapAttention,
)
from opsin.segmentation.open_vocabulary.models.frozenseg.transformer_decoder import Prediction
from opsin.segmentation.open_vocabulary.models.mask_pooling import mask_pool

CASES = sorted((Path(__file__).parent / "parity/frozenseg").glob("*.json"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def tiny_head(**changes: Any) -> FrozenSegHead:
    head = FrozenSegHead(CHANNELS, D, **{**TINY, **changes})
    with torch.no_grad():  # offsets and places depend on the query, as after training
        for parameter in head.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return head


def maps(batch: int = 1, height: int = 64, width: int = 96) -> tuple[list[Tensor], Tensor]:
    sizes = zip(CHANNELS, (4, 8, 16, 32), strict=True)
    features = [torch.randn(batch, c, -(-height // s), -(-width // s)) for c, s in sizes]
    return features, torch.randn(batch, 32, 9, 7)


def classes(*synonyms: int) -> TextClassifier:
    names = torch.nn.functional.normalize(torch.randn(sum(synonyms), D), dim=-1)
    return TextClassifier.of(names, torch.randn(1, D), synonyms)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_public_cases_agree_with_the_published_code(case: Path) -> None:
    result = run_case(case)
    assert result.ok and not result.error, result
    assert result.worst is not None and result.worst < 1e-5


@pytest.mark.parametrize(
    ("name", "head", "void"),
    [("frozenseg_convnext_large", 26_496_385, 768), ("frozenseg_rn50x64", 27_790_977, 1024)],
)
def test_trainable_parameters_are_the_published_ones(name: str, head: int, void: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.sem_seg_head.parameters()) == head
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == head + void
    decoder = model.sem_seg_head.pixel_decoder
    assert sum(p.numel() for p in decoder.sam_transformer.parameters()) == 4_393_920


def test_the_variants_are_listed() -> None:
    assert list_models("frozenseg_*") == ["frozenseg_convnext_large", "frozenseg_rn50x64"]


@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_one_prediction_for_the_queries_and_one_a_layer(size: tuple[int, int]) -> None:
    features, sam = maps(2, *size)
    predictions = tiny_head().eval()(features, sam, classes(2, 1, 3))
    assert len(predictions) == TINY["decoder_depth"] + 1
    for prediction in predictions:
        assert prediction.logits.shape == (2, 5, 4)
        assert prediction.masks.shape == (2, 5, *features[0].shape[-2:])


def test_every_parameter_of_the_head_gets_a_gradient() -> None:
    head = tiny_head()
    features, sam = maps()
    predictions = head(features, sam, classes(1, 2))
    sum((p.logits.square().mean() + p.masks.square().mean() for p in predictions), torch.zeros(())).backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_bfloat16_agrees_with_float32() -> None:
    head = tiny_head().eval()
    features, sam = maps()
    text = classes(1, 2)
    exact = head(features, sam, text)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough = head(features, sam, text)[0]
    assert (
        torch.nn.functional.cosine_similarity(exact.masks.flatten(), rough.masks.flatten().float(), 0) > 0.99
    )


def test_the_head_can_be_exported() -> None:
    features, sam = maps()
    text = classes(1, 2)

    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = tiny_head().eval()

        def forward(self, features: list[Tensor], sam: Tensor) -> Prediction:
            last: Prediction = self.head(features, sam, text)[-1]
            return last

    model = Last()
    program = torch.export.export(model, (features, sam))
    torch.testing.assert_close(program.module()(features, sam)[1], model(features, sam)[1])


def test_without_sams_features_masks_change_at_once_and_classes_from_layer_three_on() -> None:
    head = tiny_head().eval()
    features, sam = maps()
    text = classes(1, 1)
    mask_features, pyramid, sam_fpn = head.pixel_decoder(features, sam)
    whole = head.predictor(pyramid, mask_features, sam, sam_fpn, text)
    no_map = head.predictor(pyramid, mask_features, sam, torch.zeros_like(sam_fpn), text)
    no_pooling = head.predictor(pyramid, mask_features, torch.zeros_like(sam), sam_fpn, text)
    assert torch.equal(whole[0].masks, no_map[0].masks)
    assert not torch.allclose(whole[1].masks, no_map[1].masks, atol=1e-4)
    for early in range(4):  # queries of layer 2 are changed after its prediction
        assert torch.equal(whole[early].logits, no_pooling[early].logits)
    assert not torch.allclose(whole[4].logits, no_pooling[4].logits, atol=1e-5)


def test_the_published_kernel_reads_the_rows_of_other_queries() -> None:
    published, own = PublishedSingleMapAttention(8, 2), SingleMapAttention(8, 2)
    for attention in (published, own):
        torch.nn.init.normal_(attention.sampling_offsets.weight)
        torch.nn.init.normal_(attention.attention_weights.weight)
    shapes = torch.tensor([[3, 4]])
    references = torch.rand(2, 12, 1, 2)
    x = torch.randn(2, 12, 8)
    changed = x.clone()
    changed[0, 2] += 1.0  # image 0, query 2
    value = torch.randn(2, 12, 8)

    def touched(attention: SingleMapAttention) -> list[list[int]]:
        outs = [attention(q, value, references, shapes) - q for q in (x, changed)]
        moved = (outs[0] - outs[1]).abs().amax(-1) > 1e-6
        return [row.nonzero()[:, 0].tolist() for row in moved]

    assert touched(own) == [[2], []]
    # rows 4 and 5 (two heads) hold entries 12…17 of a third their length: queries 6, 7, 8
    assert touched(published) == [[6, 7, 8], []]
    assert published.state_dict().keys() == own.state_dict().keys()


def test_in_a_batch_only_the_published_kernel_mixes_images() -> None:
    features, sam = maps(2)
    text = classes(1)
    for published in (False, True):
        head = tiny_head(published_kernel=published).eval()
        together = head(features, sam, text)[-1].masks[1]
        alone = head([f[1:] for f in features], sam[1:], text)[-1].masks[0]
        assert torch.allclose(together, alone, atol=1e-4) != published


def test_another_synonym_never_lowers_a_class() -> None:
    text = classes(1, 1)
    x = torch.randn(1, 7, D)
    scale = torch.tensor(2.0)
    extra = torch.nn.functional.normalize(torch.randn(1, D), dim=-1)
    more = TextClassifier.of(torch.cat([text.rows[:1], extra, text.rows[1:2]]), text.rows[2:], (2, 1))
    before, after = text.logits(x, scale), more.logits(x, scale)
    assert (after[..., 0] >= before[..., 0] - 1e-5).all() and (after[..., 0] > before[..., 0]).any()
    torch.testing.assert_close(after[..., 1:], before[..., 1:])


def test_the_scale_of_the_cosines_is_cut_at_a_hundred() -> None:
    text = classes(1)
    assert text.logits(10 * text.rows[None, :1], torch.tensor(9.0))[0, 0, 0].item() == pytest.approx(
        100, rel=1e-5
    )


def test_the_ensemble_is_a_weighted_geometric_mean() -> None:
    decoder, clip = torch.randn(3, 4), torch.randn(3, 4)
    seen = torch.tensor([True, False, True])
    logits = inference.geometric_ensemble(decoder, clip, seen, 0.4, 0.8)
    p, q = decoder[:, :-1].softmax(-1), clip[:, :-1].softmax(-1)
    share = torch.tensor([0.4, 0.8, 0.4])
    void = decoder.softmax(-1)[:, -1:]
    mixed = (p ** (1 - share) * q**share).log().softmax(-1) * (1 - void)
    torch.testing.assert_close(logits, (torch.cat([mixed, void], -1) + 1e-8).log())


def test_without_a_share_clip_has_no_say() -> None:
    decoder = torch.randn(3, 4)
    seen = torch.tensor([True, False, True])
    alone = inference.geometric_ensemble(decoder, torch.randn(3, 4), seen, 0.0, 0.0)
    torch.testing.assert_close(alone.softmax(-1), decoder.softmax(-1), atol=1e-6, rtol=1e-5)
    valid = torch.tensor([False, True, True])
    mixed = inference.geometric_ensemble(decoder, torch.randn(3, 4), seen, 0.4, 0.8, valid)
    torch.testing.assert_close(mixed[0], alone[0])
    assert not torch.allclose(mixed[1], alone[1])


def test_sam_masks_below_half_only_take_from_unseen_classes() -> None:
    scores = torch.rand(3, 4, 5)
    seen = torch.tensor([True, False, False])
    masks = torch.randn(2, 8, 10)
    unsure = torch.zeros(2, 4)
    out = inference.add_sam_masks(scores, unsure, masks, seen, 0.2)
    torch.testing.assert_close(out, scores * torch.tensor([1.0, 0.8, 0.8])[:, None, None])
    sure = torch.tensor([[0.0, 9.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]])  # the second is of a seen class
    out = inference.add_sam_masks(scores, sure, masks, seen, 0.2)
    small = torch.nn.functional.interpolate(masks[None], (4, 5), mode="bilinear")[0, 0].sigmoid()
    torch.testing.assert_close(out[1], 0.8 * scores[1] + 0.2 * sure[0].softmax(-1)[1] * small)
    assert torch.equal(inference.add_sam_masks(scores, sure, masks, torch.ones(3).bool(), 0.2), scores)


def test_stuff_of_one_class_is_one_segment_and_hidden_masks_are_dropped() -> None:
    masks = torch.full((5, 4, 4), -9.0)
    masks[0, :2] = masks[1, 2:] = 9.0  # twice the stuff class 1
    masks[2, 3] = 9.5  # a thing on it, surer than the stuff
    masks[3, 3] = 9.0  # hidden by the thing
    logits = torch.full((5, 3), -9.0)
    logits[:2, 1] = 3.0
    logits[2, 0], logits[3, 0], logits[4, 2] = 9.0, 0.0, 9.0  # the last says void
    ids, segments = inference.panoptic_segments(
        logits, masks, torch.tensor([True, False]), overlap_threshold=0.4
    )
    assert [(s.label, s.is_thing) for s in segments] == [(1, False), (0, True)]
    assert ids.tolist() == [[1] * 4, [1] * 4, [1] * 4, [2] * 4]
    none, empty = inference.panoptic_segments(logits[4:], masks[4:], torch.tensor([True, False]))
    assert none.sum() == 0 and empty == []


def test_instances_are_things_and_the_best_come_first() -> None:
    masks = torch.full((2, 4, 4), -9.0)
    masks[0, 0], masks[1, 1] = 9.0, 0.5
    found = inference.top_instances(
        torch.tensor([[0.0, 5.0, 1.0], [4.0, 0.0, 0.0]]), masks, torch.tensor([True, False])
    )
    assert (found.labels == 0).all() and (found.scores.diff() <= 0).all()
    assert found.masks.shape[1:] == (4, 4)


def test_the_mean_under_a_mask_counts_its_pixels_only() -> None:
    features = torch.arange(8.0).view(1, 1, 2, 4)
    masks = torch.tensor([[[[1.0, -1, -1, -1], [1, -1, -1, -1]], [[-1.0] * 4] * 2]])
    assert mask_pool(features, masks)[0, :, 0].tolist() == [2.0, 0.0]


def test_frozen_parts_stay_frozen_and_in_eval_mode() -> None:
    model = FrozenSeg(**STAND_INS, classes=["cat", ("tv", "monitor")]).train()
    assert not any(module.training for part in (model.backbone, model.sam) for module in part.modules())
    prediction = model(torch.randn(2, 3, 64, 64))
    (prediction.logits.square().sum() + prediction.masks.mean()).backward()
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert trained == {"sem_seg_head", "void_embedding"}
    assert not any(p.requires_grad for part in (model.backbone, model.sam) for p in part.parameters())


def test_the_authors_checkpoint_is_read_with_and_without_the_frozen_parts(tmp_path: Path) -> None:
    source = FrozenSeg(**STAND_INS, classes=["cat"])
    tensors = {
        n: t for n, t in source.state_dict().items() if n.startswith(("sem_seg_head.", "void_embedding."))
    }
    tensors.pop("sem_seg_head.predictor.logit_scale")
    torch.save({"model": tensors}, tmp_path / "head.pth")
    target = FrozenSeg(**STAND_INS, classes=["cat"])
    own = target.backbone.visual.trunk.downsample_layers[0][0].weight.clone()
    load_published(target, tmp_path / "head.pth")
    assert torch.equal(target.void_embedding.weight, source.void_embedding.weight)
    assert torch.equal(target.backbone.visual.trunk.downsample_layers[0][0].weight, own)
    sam = {f"sam.image_encoder.{n}": t for n, t in segment_anything_names(source.sam).items()}
    torch.save({"state_dict": {f"module.{n}": t for n, t in (tensors | sam).items()}}, tmp_path / "more.pth")
    load_published(target, tmp_path / "more.pth")
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(target.sam(image), source.sam(image))


def test_a_checkpoint_of_another_head_is_refused(tmp_path: Path) -> None:
    source = FrozenSeg(**{**STAND_INS, "head": {**TINY, "num_queries": 6}}, classes=["cat"])
    torch.save({"model": source.state_dict()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"query_feat.weight is \[6, 32\] and should be \[5, 32\]"):
        load_published(FrozenSeg(**STAND_INS, classes=["cat"]), tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seen_share": 1.4}, "model.seen_share=1.4; give a share between 0 and 1"),
        ({"head": {**TINY, "dim": 48}}, "head.dim=48 is no multiple of 32"),
        ({"clip": {"arch": "convnext_large"}}, "unknown CLIP arch .* convnext_large_d_320"),
        ({"sam": {"arch": "vit_t"}}, "unknown SAM arch 'vit_t'"),
        ({"classes": ["cat", "cat"]}, "name cat twice"),
        ({"classes": ["cat"], "stuff": ["sky"]}, "unknown stuff class 'sky'"),
        ({"classes": "missing.txt"}, "no file of class names at missing.txt"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FrozenSeg(**{**STAND_INS, **settings})


def test_a_model_without_classes_asks_for_them() -> None:
    with pytest.raises(UserError, match=r"not told what to look for; give model.classes"):
        FrozenSeg(**STAND_INS)(torch.rand(1, 3, 64, 64))
