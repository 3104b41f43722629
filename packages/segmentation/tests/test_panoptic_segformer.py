"""Panoptic SegFormer: published numbers, what its parts promise, and losses for several pictures at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from small_backbones import BACKBONES
from torch import Tensor

from opsin.core.cli.catalog import describe
from opsin.core.engine.checkpoint import load_exactly
from opsin.core.errors import UserError
from opsin.core.models import create_model
from opsin.core.parity import run_case
from opsin.core.published import place, read_checkpoint
from opsin.registry import MODELS
from opsin.segmentation.panoptic.models import PanopticSegFormer, PanopticSegFormerHead
from opsin.segmentation.panoptic.models.panoptic_segformer.head import padding_of
from opsin.segmentation.panoptic.models.panoptic_segformer.inference import resizer
from opsin.segmentation.panoptic.models.panoptic_segformer.losses import (
    LocatedLayer,
    PanopticSegFormerLoss,
    Shares,
    assign_in_rounds,
)
from opsin.segmentation.panoptic.models.panoptic_segformer.mask_decoder import MaskDecoder
from opsin.segmentation.panoptic.models.panoptic_segformer.targets import targets_of

CASES = sorted((Path(__file__).parent / "parity" / "panoptic-segformer").glob("*.json"))
THINGS, STUFF = 3, 2
SIZES = [(8, 10), (4, 5), (2, 3)]
SMALL_HEAD = {
    "num_things_classes": THINGS,
    "num_stuff_classes": STUFF,
    "num_queries": 12,
    "embed_dims": 32,
    "num_heads": 4,
    "ffn_dims": 64,
    "encoder_layers": 1,
    "location_layers": 2,
    "thing_blocks": 2,
    "stuff_blocks": 2,
    "dropout": 0.0,
    "test_cfg": {"max_per_img": 10},
}


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_parity_with_the_authors_code(case: Path) -> None:
    result = run_case(case)
    assert not result.error
    assert result.ok


@pytest.mark.parametrize(
    ("name", "total", "parts"),
    [
        ("r50", 51_271_900, {"backbone": 23_508_032, "neck": 5_638_144, "bbox_head": 22_125_724}),
        ("r101", 70_264_028, {}),
        ("pvtv2_b5", 104_996_188, {}),
    ],
)
def test_parameter_counts(name: str, total: int, parts: dict[str, int]) -> None:
    with torch.device("meta"):
        model = create_model(f"panoptic_segformer_{name}")
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    assert sum(counts.values()) == total
    assert {part: counts[part] for part in parts} == parts
    head = {part: sum(p.numel() for p in m.parameters()) for part, m in model.bbox_head.named_children()}
    assert head["transformer"] == 10_665_986
    assert head["things_mask_head"] == 3_291_829
    assert head["stuff_mask_head"] == 6_453_911


def test_info_counts_operations_without_building_the_weights() -> None:
    facts = describe("panoptic_segformer_r50", 64)
    assert facts["parameters"] == 51_271_900
    assert facts["multiply_adds"] > 10**9


def small_head(**changes: Any) -> PanopticSegFormerHead:
    torch.manual_seed(0)
    return PanopticSegFormerHead(**{**SMALL_HEAD, **changes})


def maps(batch: int = 2, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 32, h, w, generator=generator) for h, w in [*SIZES, (1, 2)]]


def sample(things: list[tuple[int, tuple[int, int, int, int]]], shape: tuple[int, int] = (64, 80)) -> Any:
    """Rectangles as things on two halves of stuff."""
    width = shape[1]
    semantic = np.full(shape, THINGS)
    semantic[:, width // 2 :] = THINGS + 1
    masks = np.zeros((len(things), *shape), np.uint8)
    for mask, (label, (left, top, right, bottom)) in zip(masks, things, strict=True):
        mask[top:bottom, left:right] = 1
        semantic[top:bottom, left:right] = label
    made = DetDataSample(metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)})
    made.set_metainfo({"batch_input_shape": (64, 80), "img_path": "scene.jpg"})
    made.gt_instances = InstanceData(
        labels=torch.tensor([label for label, _ in things], dtype=torch.long),
        bboxes=torch.tensor([box for _, box in things], dtype=torch.float32).reshape(-1, 4),
        masks=BitmapMasks(masks, *shape),
    )
    made.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(semantic)[None])
    return made


SCENES = [
    [(0, (5, 5, 40, 30)), (2, (44, 20, 78, 60))],
    [(1, (20, 10, 60, 50))],
]


def test_masks_are_never_negative_and_come_from_every_block_and_the_tail() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(32, 4, num_layers=3, hidden_dim=64, self_attn=True)
    memory = torch.randn(2, sum(h * w for h, w in SIZES), 32)
    decoded = decoder(torch.randn(2, 5, 32), memory, SIZES, torch.randn(2, 5, 32))
    for masks in (decoded.masks, *decoded.block_masks):
        assert masks.shape == (2, 5, *SIZES[0])
        assert masks.min() >= 0
        assert masks.max() > 0
    assert len(decoded.block_masks) == len(decoded.block_queries) == 3


def test_coarsest_level_changes_boxes_but_no_mask() -> None:
    head = small_head().eval()
    with torch.no_grad():
        for branch in head.reg_branches:  # they begin at zero, which would hide the change
            torch.nn.init.normal_(branch[-1].weight, std=0.1)
        memory, located = head.locate(maps(), torch.zeros(2, 64, 80, dtype=torch.bool))
        before = head.decode_things(located.queries[-1], memory).masks
        memory.tokens[:, sum(h * w for h, w in SIZES) :] += 3.0
        after = head.decode_things(located.queries[-1], memory).masks
        moved = head.transformer.decode(memory, head.query_embedding.weight, head.reg_branches)
    assert torch.equal(before, after)
    assert not torch.allclose(moved.boxes[-1], located.boxes[-1])


def test_thing_masks_follow_a_permutation_of_their_queries() -> None:
    head = small_head().eval()
    memory, located = head.locate(maps(), torch.zeros(2, 64, 80, dtype=torch.bool))
    order = torch.randperm(12)
    plain = head.decode_things(located.queries[-1], memory).masks
    permuted = head.decode_things(located.queries[-1][:, order], memory).masks
    torch.testing.assert_close(plain[:, order], permuted)


def test_padding_does_not_reach_the_picture() -> None:
    head = small_head().eval()
    padding = torch.zeros(2, 64, 80, dtype=torch.bool)
    padding[:, :, 64:] = True
    changed = maps()
    for level in changed[:2]:  # cells that lie wholly in the padding
        level[..., level.shape[-1] - level.shape[-1] // 5 :] += 100.0
    _, before = head.locate(maps(), padding)
    _, after = head.locate(changed, padding)
    torch.testing.assert_close(before.boxes[-1], after.boxes[-1])


def test_rounds_of_matching_give_each_thing_further_queries() -> None:
    cost = torch.tensor([[0.0, 9.0], [1.0, 9.0], [9.0, 0.0], [9.0, 1.0], [5.0, 5.0]])
    rounds = assign_in_rounds(cost, 3)
    assert [rows.tolist() for rows, _ in rounds] == [[0, 2], [1, 3]]  # no queries are left for a third
    assert len(assign_in_rounds(cost, 1)) == 1


def test_losses_of_several_pictures_are_those_of_each_weighted_by_their_segments() -> None:
    head, features = small_head(), maps()
    pictures = [sample(scene) for scene in SCENES]
    both = head.loss(features, pictures)
    alone = [head.loss([m[i : i + 1] for m in features], [pictures[i]]) for i in range(2)]
    # Of each picture: sum of its masks' losses, before the average over things and their share.
    counts = [(len(scene), STUFF) for scene in SCENES]
    sums = [
        losses["loss_mask_things"] * n / (n / (n + s)) for losses, (n, s) in zip(alone, counts, strict=True)
    ]
    things, stuff = (sum(column) for column in zip(*counts, strict=True))
    expected = sum(sums) / things * (things / (things + stuff))
    torch.testing.assert_close(both["loss_mask_things"], expected)


def test_published_loss_names_and_every_parameter_has_a_gradient() -> None:
    head = small_head()
    losses = head.loss(maps(), [sample(scene) for scene in SCENES])
    wanted = {"loss_cls", "loss_bbox", "loss_iou", "loss_mask_things", "loss_mask_stuff"}
    wanted |= {f"d0.{name}" for name in ("loss_cls", "loss_bbox", "loss_iou")}
    wanted |= {f"d{i}.loss_mask_{kind}_f" for i in range(2) for kind in ("things", "stuff")}
    wanted |= {f"d{i}.loss_cls_stuff_f" for i in range(2)}
    assert losses.keys() == wanted
    sum(losses.values()).backward()
    missing = [name for name, p in head.named_parameters() if p.grad is None]
    assert not missing
    for decoder in (head.things_mask_head, head.stuff_mask_head):
        for block in decoder.blocks:
            assert block.attn.q.weight.grad.abs().sum() > 0


def test_pictures_without_things_or_stuff_have_finite_losses() -> None:
    head = small_head()
    empty = sample([])
    empty.gt_sem_seg.sem_seg[:] = 255
    losses = head.loss(maps(), [empty, sample([])])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_mask_things"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


def test_masks_smaller_than_the_padded_batch_are_padded() -> None:
    (target,) = targets_of([sample([(0, (0, 0, 10, 10))], shape=(48, 60))], THINGS, STUFF)
    assert target.masks.shape == (1, 64, 80)
    assert target.stuff_masks.shape == (2, 64, 80)
    assert target.stuff_masks[:, 48:].sum() == target.stuff_masks[:, :, 60:].sum() == 0


def test_labels_outside_the_classes_are_named() -> None:
    strange = sample([(0, (0, 0, 10, 10))])
    strange.gt_sem_seg.sem_seg[0, 0, 0] = 9
    with pytest.raises(UserError, match=r"scene.jpg has label 9, but the model knows 3 things and 2 stuff"):
        targets_of([strange], THINGS, STUFF)
    bare = DetDataSample(metainfo={"img_shape": (4, 4), "img_path": "bare.jpg"})
    with pytest.raises(UserError, match=r"bare.jpg comes without masks"):
        targets_of([bare], THINGS, STUFF)


def test_shares_are_never_zero() -> None:
    shares = Shares.count(0, 0, torch.zeros(1))
    assert shares.of_things == shares.of_stuff == 0.5


def small_model(**changes: Any) -> PanopticSegFormer:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "type": "opsin.PanopticSegFormer",
        "backbone": {
            "type": "opsin.ConvNeXt",
            "arch": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
            "out_indices": (1, 2, 3),
        },
        "in_channels": (16, 24, 32),
        "bbox_head": SMALL_HEAD,
        **changes,
    }
    model: PanopticSegFormer = MODELS.build(config)
    model.init_weights()
    return model


def predict(model: PanopticSegFormer, image: Tensor, **meta: Any) -> DetDataSample:
    shape = tuple(image.shape[-2:])
    info = {"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0), **meta}
    (result,) = model.test_step({"inputs": [image], "data_samples": [DetDataSample(metainfo=info)]})
    return result


def test_padding_is_cut_off_before_masks_get_the_original_size() -> None:
    ramp = (torch.arange(10.0) + 0.5).expand(1, 8, 10)  # of cells of 8 pixels: a mask's value is its place
    meta = {"batch_input_shape": (64, 80), "img_shape": (48, 60), "ori_shape": (24, 30)}
    places = resizer(meta, rescale=True)(ramp)
    assert places.shape == (1, 24, 30)
    wanted = (torch.arange(30) + 0.5) * 2 / 8
    torch.testing.assert_close(places[0, 5, 2:], wanted[2:], rtol=0, atol=0.02)
    assert resizer(meta, rescale=False)(ramp).shape == (1, 48, 60)


@pytest.mark.parametrize("shape", [(64, 96), (75, 101), (1, 1)])
def test_result_has_the_original_size(shape: tuple[int, int]) -> None:
    model = small_model(bbox_head={**SMALL_HEAD, "embed_dims": 64}).eval()
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    original = (shape[0] * 2, shape[1] * 2)
    result = predict(model, image, ori_shape=original, scale_factor=(0.5, 0.5))
    assert result.pred_panoptic_seg.sem_seg.shape == (1, *original)
    assert result.pred_instances.masks.shape == (10, *original)
    assert result.pred_instances.scores.diff().max() <= 0
    boxes = result.pred_instances.bboxes
    assert boxes.min() >= 0
    assert (boxes[:, 2] <= original[1]).all() and (boxes[:, 3] <= original[0]).all()


def test_padded_batch_locates_what_single_pictures_locate() -> None:
    """The backbone sees the padding from a picture's border, so boxes agree nearly, not exactly."""
    model = small_model().eval()
    large, small = torch.rand(2, 3, 128, 128)
    padded = torch.stack([large, torch.nn.functional.pad(small[:, :64], (0, 0, 0, 64))])
    padding = torch.zeros(2, 128, 128, dtype=torch.bool)
    padding[1, 64:] = True
    with torch.no_grad():
        _, both = model.bbox_head.locate(model.extract_feat(padded), padding)
        _, alone = model.bbox_head.locate(model.extract_feat(small[None, :, :64]), padding[:1, :64])
    assert (both.boxes[-1][1] - alone.boxes[-1][0]).abs().max() < 0.02


def test_bfloat16_autocast_trains_and_predicts() -> None:
    model = small_model()
    image = torch.rand(2, 3, 64, 80)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(image, [sample(scene) for scene in SCENES])
        raw = model.eval()(image, mode="tensor")
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(part).all() for part in raw)


def test_export_gives_the_same_raw_values() -> None:
    model = small_model().eval()
    image = torch.rand(1, 3, 64, 96)
    program = torch.export.export(model, (image,))
    for ours, exported in zip(model(image), program.module()(image), strict=True):
        torch.testing.assert_close(ours, exported, rtol=1e-4, atol=1e-5)


def test_two_scenes_are_learned_with_their_things() -> None:
    model = small_model(bbox_head={**SMALL_HEAD, "embed_dims": 64})
    images = torch.zeros(2, 3, 64, 80)
    for image, scene in zip(images, SCENES, strict=True):
        image[0, :, 40:] = 1.0
        for label, (left, top, right, bottom) in scene:
            image[1, top:bottom, left:right] = 1.0 + label
    samples = [sample(scene) for scene in SCENES]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    totals = []
    for _ in range(60):
        loss = sum(model.loss(images, samples).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        totals.append(loss.item())
    assert totals[49] < 0.3 * totals[0]
    with torch.no_grad():
        results = model.eval().predict(images, [sample(scene) for scene in SCENES])
    for result, scene, truth in zip(results, SCENES, samples, strict=True):
        panoptic = result.pred_panoptic_seg.sem_seg
        assert (panoptic % 1000 == truth.gt_sem_seg.sem_seg).float().mean() > 0.8
        things = sorted(value % 1000 for value in panoptic.unique().tolist() if value >= 1000)
        assert things == sorted(label for label, _ in scene)


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ({"type": "mmdet.ResNet", "depth": 18, "out_indices": (1, 2, 3)}, (128, 256, 512)),
        (
            {
                "type": "mmdet.PyramidVisionTransformerV2",
                "embed_dims": 8,
                "num_layers": [1, 1, 1, 1],
                "out_indices": (1, 2, 3),
            },
            (16, 40, 64),
        ),
        (
            {
                "type": "mmdet.SwinTransformer",
                "embed_dims": 8,
                "depths": [1, 1, 1, 1],
                "num_heads": [1, 1, 1, 1],
                "out_indices": (1, 2, 3),
            },
            (16, 32, 64),
        ),
    ],
    ids=["resnet", "pvtv2", "swin"],
)
def test_any_backbone_of_three_maps_serves(backbone: dict[str, Any], channels: tuple[int, ...]) -> None:
    model = small_model(backbone=backbone, in_channels=channels)
    losses = model.loss(torch.rand(1, 3, 64, 80), [sample(SCENES[0])])
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("name", BACKBONES)
def test_every_opsin_backbone_serves_and_says_its_own_channels(name: str) -> None:
    head = {**SMALL_HEAD, "embed_dims": 64}
    model = small_model(backbone=BACKBONES[name], in_channels=None, bbox_head=head)
    samples = [sample(scene) for scene in SCENES]
    for picture in samples:
        picture.set_metainfo({"batch_input_shape": (96, 96), "img_shape": (64, 80)})
    losses = model.train().loss(torch.rand(2, 3, 96, 96), samples)
    assert all(torch.isfinite(loss) for loss in losses.values())
    result = predict(model.eval(), torch.rand(3, 96, 96) * 255)
    assert result.pred_panoptic_seg.sem_seg.shape == (1, 96, 96)


def test_backbone_that_does_not_say_its_channels_needs_them_in_the_config() -> None:
    with pytest.raises(UserError, match="ResNet does not say the channels of its maps"):
        small_model(
            backbone={"type": "mmdet.ResNet", "depth": 18, "out_indices": (1, 2, 3)}, in_channels=None
        )


def original_names(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """A PVTv2's tensors under its authors' names, as in the published checkpoint."""
    published = {}
    for name, tensor in own.items():
        parts = name.split(".")
        if not name.startswith("backbone.layers"):
            published[name] = tensor
            continue
        stage, kind, rest = int(parts[2]) + 1, parts[3], ".".join(parts[4:])
        if kind == "0":
            rest = rest.replace("projection.", "proj.")
            published[f"backbone.patch_embed{stage}.{rest}"] = tensor
        elif kind == "2":
            published[f"backbone.norm{stage}.{rest}"] = tensor
        elif "in_proj" in rest:
            block, leaf = f"backbone.block{stage}.{parts[4]}", rest.rsplit("_", 1)[-1]
            q, kv = tensor[: len(tensor) // 3], tensor[len(tensor) // 3 :]
            published |= {f"{block}.attn.q.{leaf}": q, f"{block}.attn.kv.{leaf}": kv}
        else:
            for ours, theirs in (
                ("attn.attn.out_proj", "attn.proj"),
                ("ffn.layers.0", "mlp.fc1"),
                ("ffn.layers.1", "mlp.dwconv.dwconv"),
                ("ffn.layers.4", "mlp.fc2"),
            ):
                if ours in rest:
                    is_linear = tensor.dim() == 4 and "dwconv" not in theirs
                    flat = tensor.flatten(1) if is_linear else tensor
                    published[f"backbone.block{stage}.{rest.replace(ours, theirs)}"] = flat
                    break
            else:
                published[f"backbone.block{stage}.{rest}"] = tensor
    return published


def test_published_checkpoint_of_a_pvt_is_read_by_its_authors_names(tmp_path: Path) -> None:
    backbone = {
        "type": "mmdet.PyramidVisionTransformerV2",
        "embed_dims": 8,
        "num_layers": [1, 1, 1, 1],
        "out_indices": (1, 2, 3),
    }
    model, other = (small_model(backbone=backbone, in_channels=(16, 40, 64)) for _ in range(2))
    published = original_names(model.state_dict())
    assert "backbone.block1.0.attn.q.weight" in published
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    torch.save({"meta": {}, "state_dict": published}, tmp_path / "published.pth")
    place(other, read_checkpoint(tmp_path / "published.pth"))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    load_exactly(other, published, source="published.pth")


def test_checkpoint_of_another_model_is_refused() -> None:
    model = small_model()
    tensors = small_model(bbox_head={**SMALL_HEAD, "num_things_classes": 4}).state_dict()
    with pytest.raises(UserError, match=r"bbox_head.cls_branches"):
        place(model, tensors)


def test_setting_outside_its_range_is_named() -> None:
    with pytest.raises(UserError, match=r"max_overlap_things=40"):
        small_head(test_cfg={"merging": {"max_overlap_things": 40}})


def test_padding_is_true_outside_the_picture() -> None:
    padding = padding_of([sample([], shape=(48, 60))], torch.device("cpu"))
    assert padding.shape == (1, 64, 80)
    assert not padding[0, :48, :60].any()
    assert int((~padding).sum()) == 48 * 60


def test_rounds_of_the_paper_send_up_to_three_queries_a_thing_to_the_mask_decoder() -> None:
    for rounds, expected in ((1, [2, 1]), (3, [6, 3])):
        head = small_head(rounds=rounds)
        memory, located = head.locate(maps(), torch.zeros(2, 64, 80, dtype=torch.bool))
        targets = targets_of([sample(scene) for scene in SCENES], THINGS, STUFF)
        layer = LocatedLayer(head.cls_branches[-1](located.queries[-1]), located.boxes[-1])
        found = PanopticSegFormerLoss(rounds).match(layer, targets)
        assert [sum(len(rows) for rows, _ in matches) for matches in found] == expected
        assert memory.tokens.shape[0] == 2
