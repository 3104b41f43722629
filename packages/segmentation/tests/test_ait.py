"""AiT's network: parity, counts, and what its parts do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from opsin.core import create_model, list_models
from opsin.core.errors import UserError
from opsin.core.parity import run_case
from opsin.core.published import load_published
from opsin.segmentation.dense_prediction.models import VQVAE, AiT, AiTSwinV2, AiTTokenizer, TaskSolver
from opsin.segmentation.dense_prediction.models.ait import objects
from opsin.segmentation.dense_prediction.models.ait.depth import silog, square_windows, window_starts
from opsin.segmentation.dense_prediction.models.ait.task_solver import choose, sine_positions
from opsin.segmentation.dense_prediction.models.ait.tokenizer import drop_patches
from opsin.segmentation.dense_prediction.models.ait.vocabulary import Vocabulary

CASES = sorted((Path(__file__).parent / "parity/ait").glob("*.json"))
BACKBONE: dict[str, Any] = {
    "type": "opsin.AiTSwinV2",
    "arch": {"embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2)},
    "window_size": (4, 4),
    "pretrain_window_size": (4, 4),
    "use_shift": (True, True),
    "out_indices": (1,),
}
WORDS: dict[str, Any] = {"num_bins": 20, "num_classes": 3, "num_embeddings": 6, "num_embeddings_depth": 5}
SOLVER: dict[str, Any] = {
    "d_model": 16,
    "nhead": 2,
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
    "dim_feedforward": 16,
    "dec_length": 40,
    "drop_path": 0.0,
    "drop_out": 0.0,
    **WORDS,
}
DEPTH: dict[str, Any] = {
    "token_length": 4,
    "mask_size": 32,
    "embedding_dim": 8,
    "hidden_dim": 16,
    "num_embeddings": 5,
}
MASKS: dict[str, Any] = {
    "token_length": 4,
    "mask_size": 16,
    "embedding_dim": 8,
    "hidden_dim": 16,
    "num_embeddings": 6,
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def solver(**changes: Any) -> TaskSolver:
    model = TaskSolver(16, **{**SOLVER, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def ait(**tasks: Any) -> AiT:
    """A model whose tokenizers count as trained."""
    model = AiT(BACKBONE, SOLVER, **tasks)
    for head in (model.depth_head, model.insseg_head):
        if head is not None:
            head.vqvae._vq_vae._ema_cluster_size.fill_(1)
    return model


def depth_sample(side: int = 32) -> SegDataSample:
    sample = SegDataSample(metainfo={"img_shape": (side, side), "ori_shape": (side, side)})
    sample.gt_depth_map = PixelData(data=1 + torch.rand(1, side, side))
    return sample


def object_sample(count: int = 2, side: int = 32) -> DetDataSample:
    sample = DetDataSample(metainfo={"img_shape": (side, side), "ori_shape": (2 * side, side)})
    masks = np.zeros((count, side, side), np.uint8)
    masks[:, 4:20, 6:24] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[6.0, 4.0, 24.0, 20.0]] * count).reshape(-1, 4),
        labels=torch.arange(count),
        masks=BitmapMasks(masks, side, side),
    )
    return sample


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_public_cases_agree_with_the_published_code(case: Path) -> None:
    result = run_case(case)
    assert result.ok and not result.error, result
    assert result.worst is not None and result.worst < 1e-4


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (
            "ait_swinv2_base_joint",
            {"backbone": 86_893_816, "depth_head": 7_689_201, "insseg_head": 1_985_393},
        ),
        ("ait_swinv2_large_depth", {"backbone": 195_202_932, "transformer": 14_799_139}),
        ("ait_tokenizer_depth", {"": 7_689_201}),
        ("ait_tokenizer_masks", {"": 1_985_393}),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, counts: dict[str, int]) -> None:
    with torch.device("meta"):
        model = create_model(name)
    found = {p: sum(q.numel() for q in model.get_submodule(p).parameters()) for p in counts}
    assert found == counts
    codebooks = [b.numel() for n, b in model.named_buffers() if n.endswith("_embedding")]
    assert set(codebooks) == {65_536}


def test_the_solver_on_a_base_backbone_has_the_published_size() -> None:
    with torch.device("meta"):
        model = TaskSolver(1024)
    assert sum(p.numel() for p in model.parameters()) == 14_668_067


def test_the_variants_are_listed_and_vocabularies_have_the_published_sizes() -> None:
    assert len(list_models("ait_*")) == 9
    words = Vocabulary()
    assert (words.classes.start, words.end, words.noise) == (2001, 2081, 2082)
    assert (words.masks.start, words.depth.start, len(words)) == (2083, 2211, 2339)


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (8, 90)])
def test_the_backbone_takes_any_size(size: tuple[int, int]) -> None:
    model = AiTSwinV2(**{k: v for k, v in BACKBONE.items() if k != "type"} | {"out_indices": (0, 1)}).train()
    maps = model(torch.rand(2, 3, *size, requires_grad=True))
    for m, info in zip(maps, model.feature_info, strict=True):
        assert m.shape == (2, info.channels, *(-(-side // info.stride) for side in size))
    sum(m.square().sum() for m in maps).backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    assert unused == []
    layers = {model.get_layer_depth(n)[0] for n, _ in model.named_parameters()}
    assert layers == {0, 1, 2, 3, 4}


def test_soft_tokens_of_sure_logits_are_the_tokens() -> None:
    model = VQVAE(**MASKS).eval()
    tokens = torch.randint(6, (3, 4))
    logits = 200.0 * torch.nn.functional.one_hot(tokens, 6).permute(0, 2, 1).unflatten(2, (2, 2))
    torch.testing.assert_close(model.decode_soft(logits), model.decode(tokens))


def test_a_tokenizer_of_ellipses_learns_tenfold() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")

    def ellipses(count: int) -> Tensor:
        cx, cy = (torch.rand(2, count, 1, 1) - 0.5).unbind(0)
        rx, ry = (0.3 + 0.5 * torch.rand(2, count, 1, 1)).unbind(0)
        return (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1).float()

    model = VQVAE(
        token_length=64, mask_size=32, embedding_dim=16, hidden_dim=32, num_resnet_blocks=1, restart_below=0.5
    )
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    first = model.eval()(ellipses(64))[1].reconstruction.item()
    model.train()
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20)
        loss = model(ellipses(16))[1].total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.eval()(ellipses(64))[1].reconstruction.item() < first / 10


def test_depth_loss_counts_measured_pixels_only() -> None:
    model = VQVAE(**DEPTH, use_norm=False).eval()
    x = 1 + torch.rand(1, 32, 32)
    x[:, :16] = 0
    reconstruction, losses = model(x)
    expected = (reconstruction - x)[:, 16:].square().mean()
    torch.testing.assert_close(losses.reconstruction, expected)
    dropped = drop_patches(x + 1, ratio=0.5, patch=4)
    share = (dropped == 0).float().mean().item()
    assert 0.2 < share < 0.8 and torch.equal(dropped[dropped > 0], (x + 1)[dropped > 0])


def test_codes_follow_what_is_assigned_to_them() -> None:
    model = VQVAE(**MASKS).train()
    book = model._vq_vae
    assert book.is_new
    z = torch.randn(1, 8, 2, 2)
    book.restart(z, 0.5)
    assert all((code == z.flatten(2)[0].T).all(1).any() for code in book._embedding)
    before, tokens = book._embedding.clone(), torch.zeros(1, 2, 2, dtype=torch.long)
    book.update(z, tokens)
    mean = (0.99 * before[0] + 0.01 * z.sum((0, 2, 3))) / (0.99 + 0.04)
    torch.testing.assert_close(book._embedding[0], mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(book._embedding[1:], before[1:], atol=1e-4, rtol=1e-3)


def test_later_words_do_not_change_earlier_logits() -> None:
    model = solver()
    feature, tokens = torch.randn(1, 16, 3, 4), torch.randint(30, (1, 9))
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 30
    first, second = (model(feature, t, torch.tensor([1])) for t in (tokens, changed))
    torch.testing.assert_close(first[:, :6], second[:, :6])
    assert (first[:, 6:] - second[:, 6:]).abs().amax(-1).min() > 1e-4


def test_greedy_writing_repeats_itself_and_agrees_with_teacher_forcing() -> None:
    model = solver(soft_transformer=False)
    feature = torch.randn(2, 16, 3, 4)
    tokens, logits = model.write_depth(feature, 7)
    again, _ = model.write_depth(feature, 7)
    assert torch.equal(tokens, again)
    part = model.words.depth
    forced = model(feature, tokens[:, :-1] + part.start, torch.tensor([2, 2]))
    torch.testing.assert_close(logits, forced[..., part.start : part.stop], atol=1e-4, rtol=1e-4)


def test_in_parallel_mode_words_do_not_matter() -> None:
    model = solver(parallel=True)
    feature = torch.randn(1, 16, 3, 4)
    first, second = (model(feature, torch.randint(30, (1, 6)), torch.tensor([2])) for _ in range(2))
    assert torch.equal(first, second)
    _, logits = model.write_depth(feature, 7)
    part = model.words.depth
    torch.testing.assert_close(logits, first[..., part.start : part.stop])


def test_soft_words_are_fed_back_as_a_mean() -> None:
    model = solver()
    logits, part = torch.randn(2, 5), model.words.depth
    fed = model._fed_back(logits, logits.argmax(-1), part)
    torch.testing.assert_close(fed, logits.softmax(-1) @ model.voc_embed[part.start : part.stop])
    box = model._fed_back(torch.randn(2, 21), torch.tensor([3, 4]), model.words.boxes)
    assert torch.equal(box, model.voc_embed[3:5])


def test_a_word_is_drawn_from_the_fewest_that_exceed_the_probability() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(400, -1)
    assert set(choose(logits, 0.0).tolist()) == {0}
    assert set(choose(logits, 0.45).tolist()) == {0}
    assert set(choose(logits, 0.7).tolist()) == {0, 1}
    assert set(choose(logits, 0.9).tolist()) == {0, 1, 2}


def test_positions_count_from_zero() -> None:
    table = sine_positions(2, 3, 8, torch.device("cpu"))
    assert table[0].tolist() == [0.0, 1.0] * 4
    assert table[4, 0].item() == pytest.approx(np.sin(1)) and table[4, 5].item() == pytest.approx(np.cos(1))
    assert table[3, 6].item() == pytest.approx(np.sin(0))


def test_boxes_come_back_within_half_a_word() -> None:
    boxes = 640 * torch.rand(100, 4)
    back = objects.boxes_of(objects.box_words(boxes, 640.0, 2000), 640.0, 2000)
    assert (back - boxes).abs().max() <= 640 / 2000 / 2 + 1e-4


def test_noise_objects_fill_the_sequence_and_only_their_class_is_wanted() -> None:
    words = Vocabulary(**WORDS)
    boxes, labels = torch.tensor([[0.0, 0, 16, 32]]), torch.tensor([2])
    sequence = objects.object_sequence(
        words, boxes, labels, torch.tensor([[5, 0]]), count=3, extent=32.0, size=(32.0, 32.0)
    )
    fed, wanted = (s.view(3, 7) for s in sequence)
    start = words.masks.start
    assert wanted[0].tolist() == [0, 0, 10, 20, words.classes.start + 2, start + 5, start]
    assert (wanted[1:, 4] == words.noise).all()
    assert (wanted[1:, [0, 1, 2, 3, 5, 6]] == objects.IGNORE).all()
    assert torch.equal(fed[0, :4], wanted[0, :4])
    assert all(c in [*words.classes, words.noise] for c in fed[:, 4].tolist())
    assert (fed[:, :2] <= fed[:, 2:4]).all() and fed[:, :4].max() <= 20


def test_word_loss_is_a_sum_over_the_number_of_wanted_words() -> None:
    words = Vocabulary(**WORDS)
    logits = torch.randn(1, 3, len(words))
    wanted = torch.tensor([[0, words.masks.start, objects.IGNORE]])
    each = -logits.log_softmax(-1)
    expected = (each[0, 0, 0] + 0.2 * each[0, 1, words.masks.start]) / 2
    torch.testing.assert_close(objects.word_loss(logits, wanted, words, 0.2), expected)


def test_silog_forgives_half_of_a_common_factor() -> None:
    target = 1 + torch.rand(2, 5, 5)
    target[0, 0] = 0
    error = silog(2 * target, target)
    assert error.item() == pytest.approx(np.log(2) * np.sqrt(0.5), rel=1e-4)
    assert silog(target, 0 * target).item() == 0


def test_a_mask_is_pasted_into_its_box() -> None:
    pasted = objects.paste(torch.ones(1, 8, 8), torch.tensor([[2.0, 1.0, 6.0, 3.0]]), (6, 9))
    expected = torch.zeros(1, 6, 9, dtype=torch.bool)
    expected[0, 1:3, 2:6] = True
    assert torch.equal(pasted, expected)


def test_windows_are_the_left_and_the_right_square_and_overlaps_are_averaged() -> None:
    assert window_starts(640, 480) == [0, 160] and window_starts(480, 480) == [0]
    seen: list[Tensor] = []

    def depth_of(window: Tensor) -> Tensor:
        seen.append(window)
        return window[:, 0]

    image = torch.rand(1, 3, 4, 6) + 0.1
    torch.testing.assert_close(square_windows(image, depth_of), image[:, 0])
    assert [w.shape[-1] for w in seen] == [4] * 4
    tall = image.transpose(2, 3)
    torch.testing.assert_close(square_windows(tall, lambda w: w[:, 0]), tall[:, 0])
    assert square_windows(-image, lambda w: w[:, 0]).max().item() == pytest.approx(1e-3)


def test_one_class_builds_models_of_several_tasks() -> None:
    model = ait(depth={"tokenizer": DEPTH}, instances={"tokenizer": MASKS, "count": 3, "extent": 32.0})
    losses = model.loss(torch.rand(3, 3, 32, 32), [depth_sample(), object_sample(), object_sample(0)])
    assert set(losses) == {
        f"{task}.loss_{kind}" for task in ("depth", "instances") for kind in ("words", "pixels")
    }
    sum(losses.values(), torch.zeros(())).backward()
    unused = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert unused == set()
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".vqvae." in n)
    only = ait(detection={"count": 3, "extent": 32.0})
    assert set(only.loss(torch.rand(1, 3, 32, 32), [object_sample()])) == {"detection.loss_words"}


def test_the_pixel_loss_reaches_the_words_through_the_frozen_decoder() -> None:
    model = ait(depth={"tokenizer": DEPTH}).train()
    loss = model.loss(torch.rand(1, 3, 32, 32), [depth_sample()])["depth.loss_pixels"]
    loss.backward()
    part = model.transformer.words.depth
    assert model.transformer.voc_embed.grad is not None
    assert model.transformer.voc_embed.grad[part.start : part.stop].abs().sum() > 0
    assert model.depth_head is not None and not model.depth_head.vqvae.training


def test_losses_fall_on_four_images() -> None:
    model = ait(depth={"tokenizer": DEPTH})
    images, samples = torch.rand(4, 3, 32, 32), [depth_sample() for _ in range(4)]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    totals = []
    for _ in range(25):
        loss = model.loss(images, samples)["depth.loss_words"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert totals[-1] < 0.6 * totals[0]


@pytest.mark.parametrize("size", [(32, 32), (24, 50), (61, 40)])
def test_depth_of_a_picture_of_any_size(size: tuple[int, int]) -> None:
    model = ait(depth={"tokenizer": DEPTH}).eval()
    sample = SegDataSample(metainfo={"img_shape": size, "ori_shape": size})
    (result,) = model.predict(torch.rand(1, 3, *size), [sample])
    assert result.pred_depth_map.data.shape == (1, *size)
    assert model(torch.rand(1, 3, *size)).shape == (1, *size)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.rand(1, 3, *size)).isfinite().all()


def test_instances_lie_in_the_picture_on_disk() -> None:
    model = ait(instances={"tokenizer": MASKS, "count": 3, "extent": 32.0}).eval()
    (result,) = model.predict(torch.rand(1, 3, 32, 32), [object_sample()])
    found = result.pred_instances
    assert found.masks.shape == (3, 64, 32) and found.masks.dtype == torch.bool
    assert (found.bboxes <= torch.tensor([32.0, 64.0, 32.0, 64.0])).all() and (found.bboxes >= 0).all()
    assert ((found.scores > 0) & (found.scores < 1)).all() and (found.labels < 3).all()


def test_the_authors_files_are_read(tmp_path: Path) -> None:
    source, target = (ait(depth={"tokenizer": DEPTH}) for _ in range(2))
    tensors = {n: t for n, t in source.state_dict().items() if "_ema_" not in n}
    copies = {f"depth_head.{n}": t for n, t in tensors.items() if n.startswith("transformer.")}
    tables = {"backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(1)}
    torch.save({"state_dict": tensors | copies | tables}, tmp_path / "task.pth")
    load_published(target, tmp_path / "task.pth")
    assert torch.equal(target.transformer.voc_embed, source.transformer.voc_embed)
    assert source.depth_head is not None
    weights = source.depth_head.vqvae.state_dict()
    torch.save({"weights": {f"module.{n}": t for n, t in weights.items()}}, tmp_path / "vqvae_depth.pt")
    filled = AiT(BACKBONE, SOLVER, depth={"tokenizer": DEPTH, "checkpoint": str(tmp_path / "vqvae_depth.pt")})
    assert filled.depth_head is not None
    assert torch.equal(filled.depth_head.vqvae._vq_vae._embedding, weights["_vq_vae._embedding"])
    torch.save(
        {"model": {f"encoder.{n}": t for n, t in source.backbone.state_dict().items()}}, tmp_path / "b.pth"
    )
    load_published(target.backbone, tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AiT(BACKBONE, SOLVER), "AiT has no task; give model.depth"),
        (lambda: VQVAE(token_length=5, mask_size=32), "32 pixels a side does not become 5 tokens"),
        (lambda: VQVAE(token_length=16, mask_size=12), "12 pixels a side does not become 16 tokens"),
        (lambda: VQVAE(**MASKS).encode(torch.rand(1, 9, 8)), "takes maps of 16x16, not of 8x9"),
        (lambda: solver(num_vocal=9), "num_vocal=9 is less than the 37 words"),
        (lambda: solver(top_p=1.0), "top_p=1.0; give a probability"),
        (
            lambda: solver(dec_length=4).write_depth(torch.rand(1, 16, 2, 2), 5),
            "5 tokens is longer than dec_length=4",
        ),
        (
            lambda: ait(depth={"tokenizer": {**DEPTH, "num_embeddings": 7}}),
            "set model.solver.num_embeddings_depth=7",
        ),
        (
            lambda: AiT(BACKBONE, SOLVER, depth={"tokenizer": DEPTH, "checkpoint": "x.pt"}),
            "no checkpoint at x.pt",
        ),
        (
            lambda: AiT(BACKBONE, SOLVER, depth={"tokenizer": DEPTH}).loss(
                torch.rand(1, 3, 32, 32), [depth_sample()]
            ),
            "tokenizer for depth is untrained, .* give it as model.depth.checkpoint=FILE",
        ),
        (
            lambda: ait(depth={"tokenizer": DEPTH}).loss(torch.rand(1, 3, 32, 32), [object_sample()]),
            "a sample has no truth for this AiT's tasks",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(build: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


def test_tokenizers_of_masks_learn_from_objects() -> None:
    model = AiTTokenizer(MASKS).train()
    losses = model(torch.rand(1, 3, 32, 32), [object_sample()], mode="loss")
    assert set(losses) == {"loss_reconstruction", "loss_commitment"}
    sum(losses.values(), torch.zeros(())).backward()
    assert model(torch.rand(2, 1, 16, 16)).shape == (2, 1, 16, 16)


def test_the_task_solver_can_be_exported() -> None:
    model = solver()
    inputs = (torch.randn(1, 16, 3, 4), torch.randint(30, (1, 5)), torch.tensor([2]))
    program = torch.export.export(model, inputs)
    torch.testing.assert_close(program.module()(*inputs), model(*inputs))
