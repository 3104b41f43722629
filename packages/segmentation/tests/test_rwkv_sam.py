"""RWKV-SAM: published numbers, sizes, and how backbone, prompts and decoder behave."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from opsin.core import create_backbone, create_model, list_models
from opsin.core.engine.measure import peak_memory
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter, run_case
from opsin.core.published import load_published
from opsin.registry import MODELS
from opsin.segmentation.promptable.models.mask_answers import original_logits
from opsin.segmentation.promptable.models.rwkv_sam import RWKVSAM, PromptEncoder, RWKVSAMBackbone
from opsin.segmentation.promptable.models.rwkv_sam.backbone import ARCHS
from opsin.segmentation.promptable.models.rwkv_sam.blocks import RWKVBlock, SpatialMix, q_shift
from opsin.segmentation.promptable.models.rwkv_sam.token_layers import (
    TOKEN_LAYERS,
    ConvTokens,
    TransformerBlock,
)
from opsin.segmentation.promptable.prompts import Prompts

CASES = sorted((Path(__file__).parent / "parity" / "rwkv-sam").glob("*.json"))
ARCH = {"dims": (8, 16, 32), "depths": (1, 2, 3)}


def thin(**changes: Any) -> RWKVSAM:
    """A thin network for pictures of 64 pixels whose branches all count."""
    torch.manual_seed(0)
    model = RWKVSAM(**{"arch": ARCH, "image_size": 64, "embed_dim": 64, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def boxes(*corners: tuple[float, float, float, float]) -> Prompts:
    return Prompts(boxes=torch.tensor(corners))


def points(*places: tuple[float, float], label: int = 1) -> Prompts:
    return Prompts(torch.tensor(places)[:, None], torch.full((len(places), 1), label))


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_published_numbers_are_met(path: Path) -> None:
    result = run_case(path)
    assert not result.error
    assert result.ok, result


@pytest.mark.parametrize(
    ("arch", "mlp_ratio", "count"),
    [
        ("tiny", 2, 4_957_664),
        ("tiny", 4, 7_022_048),
        ("small", 2, 19_727_296),
        ("small", 4, 27_984_832),
        ("base", 2, 78_702_464),
        ("base", 4, 111_732_608),
    ],
)
def test_backbones_have_the_published_sizes(arch: str, mlp_ratio: int, count: int) -> None:
    with torch.device("meta"):
        assert size(create_backbone(f"rwkv_sam_{arch}", mlp_ratio=mlp_ratio)) == count


def test_parts_of_the_small_model_have_the_published_sizes() -> None:
    with torch.device("meta"):
        model = create_model("rwkv_sam_small")
    assert size(model.neck) == 689_152
    assert size(model.pe) == 6_220
    assert size(model.mask_decoder) == 3_819_812
    assert size(model) == 24_242_480
    assert list_models("rwkv_sam_*") == [f"rwkv_sam_{arch}" for arch in ("base", "large", "small", "tiny")]


def altered(tmp_path: Path, name: str, **changes: Any) -> Case:
    """A case of this repository with other arguments, tensors or inputs; its numbers are nobody's."""
    path = next(path for path in CASES if path.stem == name)
    meta = {**json.loads(path.read_text()), **changes}
    (tmp_path / "case.json").write_text(json.dumps(meta))
    (tmp_path / "case.npz").write_bytes(path.with_suffix(".npz").read_bytes())
    return Case.load(tmp_path / "case.json")


def shapes_of(module: nn.Module) -> list[tuple[str, list[int]]]:
    return [(name, list(tensor.shape)) for name, tensor in module.state_dict().items()]


@pytest.mark.parametrize(("variant", "depth"), [("tiny", 14), ("base", 1)])
def test_backbone_adapter_takes_other_variants_and_a_position_table(
    tmp_path: Path, variant: str, depth: int
) -> None:
    arch = {**ARCHS[variant], "depths": (2, 4, depth)}
    backbone = RWKVSAMBackbone(arch, mlp_ratio=4, position_grid=(4, 6))
    case = altered(
        tmp_path,
        "backbone-small-96x128",
        built_with={
            "model_variant": variant,
            "img_size": [64, 96],
            "with_pos_embd": True,
            "attn_cfg": {"depth": depth},
        },
        tensors=shapes_of(backbone),
        inputs={"x": {"seed": 1, "shape": [1, 3, 48, 80], "kind": "normal"}},
    )
    got = find_adapter(case)(case)
    width = backbone.feature_info[3].channels
    assert got["o3"].shape == (1, width, 3, 5) and all(m.isfinite().all() for m in got.values())


@pytest.mark.parametrize("token_layers", sorted(TOKEN_LAYERS))
def test_backbone_adapter_takes_other_token_layers_and_final_layers(
    tmp_path: Path, token_layers: str
) -> None:
    arch = {**ARCHS["tiny"], "depths": (2, 4, 2)}
    backbone = RWKVSAMBackbone(arch, token_layers=token_layers, additional_final_layers=True)
    case = altered(
        tmp_path,
        "backbone-small-96x128",
        built_with={"model_variant": "tiny", "attn_type": token_layers, "additional_final_layers": True},
        tensors=shapes_of(backbone),
        inputs={"x": {"seed": 1, "shape": [1, 3, 32, 64], "kind": "normal"}},
    )
    backbone.load_state_dict(case.state_dict())
    wanted = backbone.eval()(case.inputs()["x"])
    for found, expected in zip(find_adapter(case)(case).values(), wanted, strict=True):
        torch.testing.assert_close(found, expected)


def test_block_adapter_takes_other_widths_and_grids(tmp_path: Path) -> None:
    block = RWKVBlock(10, mlp_ratio=3, layer=1, layers=4)
    case = altered(
        tmp_path,
        "rwkv-block",
        built_with={"channels": 10, "mlp_ratio": 3, "total_layers": 4, "layer_id": 1},
        what="tokens of a 4x6 grid",
        tensors=shapes_of(block),
        inputs={"x": {"seed": 1, "shape": [3, 24, 10], "kind": "normal"}},
    )
    got = find_adapter(case)(case)["out"]
    block.load_state_dict(case.state_dict())
    torch.testing.assert_close(got, block(case.inputs()["x"], (4, 6)))


def test_quarters_look_left_right_up_and_down_and_the_rest_stays() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1).expand(1, 6, 9) + 1  # a 2x3 grid: 1 2 3 / 4 5 6
    shifted = q_shift(x, (2, 3))[0].T.reshape(9, 2, 3)
    assert shifted[0].tolist() == [[0, 1, 2], [0, 4, 5]]
    assert shifted[2].tolist() == [[2, 3, 0], [5, 6, 0]]
    assert shifted[4].tolist() == [[0, 0, 0], [1, 2, 3]]
    assert shifted[6].tolist() == [[4, 5, 6], [0, 0, 0]]
    assert shifted[8].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_decay_adapts_to_the_number_of_tokens() -> None:
    torch.manual_seed(0)
    mixer, x = SpatialMix(8, 1, 3), torch.randn(1, 12, 8)
    wider = SpatialMix(8, 1, 3)
    wider.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        wider.spatial_decay *= 2
        wider.spatial_first *= 2
        for module in (mixer, wider):
            module.key.weight.zero_()
        long = torch.cat((x, x), 1)
        assert not torch.allclose(mixer(x, (3, 4)), wider(x, (3, 4)), atol=1e-4)
        assert mixer(long, (6, 4)).shape == long.shape


def test_initial_values_follow_layer_and_channel() -> None:
    first, last = SpatialMix(16, 0, 5), SpatialMix(16, 4, 5)
    assert first.spatial_decay[0] == -5 and first.spatial_decay[-1].item() == pytest.approx(3)
    assert last.spatial_decay[8].item() == pytest.approx(-5 + 8 * (8 / 15) ** 2)
    assert first.spatial_first[:3].tolist() == pytest.approx([math.log(0.3) + d for d in (0, 0.5, -0.5)])
    assert first.spatial_mix_k[0, 0, 4].item() == pytest.approx(0.25)
    assert last.spatial_mix_v[0, 0, 4].item() == pytest.approx(0.25**0.2 + 0.3)
    assert RWKVBlock(16, mlp_ratio=2).layer_scale_1.tolist() == pytest.approx([0.01] * 16)


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 37, 91), (1, 16, 16), (1, 1, 1)])
def test_backbone_rounds_up_at_every_halving(shape: tuple[int, int, int]) -> None:
    backbone = RWKVSAMBackbone(ARCH).eval()
    batch, height, width = shape
    maps = backbone(torch.randn(batch, 3, height, width))
    for found, info in zip(maps, backbone.feature_info, strict=True):
        rows, columns = (-(-side // info.stride) for side in (height, width))
        assert found.shape == (batch, info.channels, rows, columns)


def test_middle_map_comes_after_block_half_the_depth() -> None:
    backbone, image = RWKVSAMBackbone(ARCH).eval(), torch.randn(1, 3, 64, 64)
    _, _, middle, _ = backbone(image)
    with torch.no_grad():
        backbone.layers[2].attn.output.weight.normal_()
        assert torch.equal(backbone(image)[2], middle)
        backbone.layers[1].layer_scale_2 += 1
        assert not torch.equal(backbone(image)[2], middle)


def test_what_only_later_maps_need_is_not_built_and_published_files_still_fit(tmp_path: Path) -> None:
    model = thin()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "whole.pth")
    image = torch.randn(1, 3, 48, 48)
    full = load_published(RWKVSAMBackbone(ARCH), tmp_path / "whole.pth").eval()
    for out in ((0,), (1,), (0, 1, 2), (2, 3)):
        backbone = load_published(RWKVSAMBackbone(ARCH, out_indices=out), tmp_path / "whole.pth").eval()
        for found, index in zip(backbone(image), out, strict=True):
            torch.testing.assert_close(found, full(image)[index])
    assert not hasattr(RWKVSAMBackbone(ARCH, out_indices=(0, 1)), "layers")
    assert len(RWKVSAMBackbone(ARCH, out_indices=(2,)).layers) == 2


def test_final_layers_give_dense_detectors_a_map_of_stride_32() -> None:
    backbone = RWKVSAMBackbone(ARCH, additional_final_layers=True)
    assert [info.stride for info in backbone.feature_info] == [4, 8, 16, 32]
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 24), (16, 8, 12), (32, 4, 6), (64, 2, 3)]


@pytest.mark.parametrize(
    ("token_layers", "kinds"),
    [
        ("rwkv", [RWKVBlock] * 4),
        ("transformer", [TransformerBlock] * 4),
        ("rwkv_trans", [RWKVBlock, RWKVBlock, TransformerBlock, TransformerBlock]),
        ("rwkv_mbconv", [RWKVBlock, RWKVBlock, ConvTokens, ConvTokens]),
        ("mbconv_rwkv", [ConvTokens, ConvTokens, RWKVBlock, RWKVBlock]),
    ],
)
@pytest.mark.parametrize("final", [False, True])
def test_ablations_have_other_token_layers(token_layers: str, kinds: list[type], final: bool) -> None:
    arch = {"dims": (8, 16, 12), "depths": (1, 1, 4)}
    backbone = RWKVSAMBackbone(
        arch, token_layers=token_layers, additional_final_layers=final, drop_path_rate=0.1
    )
    assert [type(layer) for layer in backbone.layers] == kinds
    maps = backbone(torch.randn(2, 3, 40, 64))
    strides = [info.stride for info in backbone.feature_info]
    assert [tuple(m.shape[2:]) for m in maps] == [(-(-40 // s), 64 // s) for s in strides]
    sum(m.square().sum() for m in backbone.eval()(torch.randn(2, 3, 40, 64))).backward()
    without = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []


def test_transformer_layer_is_attention_and_a_gated_perceptron() -> None:
    torch.manual_seed(0)
    block, x = TransformerBlock(12, num_heads=3).eval(), torch.randn(2, 6, 12)
    assert size(TransformerBlock(384)) == 4 * 384**2 + 6 * 384**2 + (4 + 4 + 1 + 4) * 384
    attention = nn.MultiheadAttention(12, 3, batch_first=True)
    attention.in_proj_weight, attention.in_proj_bias = block.attn.qkv.weight, block.attn.qkv.bias
    attention.out_proj = block.attn.proj
    normed = F.layer_norm(x, (12,), eps=1e-6)
    y = x + attention(normed, normed, normed)[0]
    both = F.layer_norm(y, (12,), eps=1e-6) @ block.mlp.net[0].proj.weight.T + block.mlp.net[0].proj.bias
    wanted = y + block.mlp.net[2](both[..., :24] * F.gelu(both[..., 24:]))
    torch.testing.assert_close(block(x, (2, 3)), wanted)


def test_token_layers_that_can_not_be_are_refused() -> None:
    with pytest.raises(UserError, match="unknown token layer 'transfomer'; did you mean transformer"):
        RWKVSAMBackbone(ARCH, token_layers="transfomer")
    with pytest.raises(UserError, match="6 heads do not divide the 32 channels"):
        RWKVSAMBackbone(ARCH, token_layers="transformer")
    assert RWKVSAMBackbone(ARCH, token_layers="transformer", num_heads=4).layers[0].attn.num_heads == 4


def test_position_table_is_resized_and_one_of_another_grid_is_refused(tmp_path: Path) -> None:
    backbone = RWKVSAMBackbone(ARCH, position_grid=(4, 4)).eval()
    assert backbone(torch.randn(1, 3, 96, 32))[3].shape == (1, 32, 6, 2)
    torch.save(backbone.state_dict(), tmp_path / "grid.pth")
    with pytest.raises(UserError, match=r"position table has 16 places, position_grid=\(2, 4\)"):
        load_published(RWKVSAMBackbone(ARCH, position_grid=(2, 4)), tmp_path / "grid.pth")


def test_frozen_stages_keep_their_weights() -> None:
    backbone = RWKVSAMBackbone(ARCH, frozen_stages=3).train()
    learning = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert learning == {"layers", "final_norm"}
    learning = {name.rsplit(".", 3)[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert not {"layers.0", "layers.1"} & {".".join(name.split(".")[:2]) for name in learning}


def test_layers_for_learning_rate_decay_ascend_with_depth() -> None:
    backbone = RWKVSAMBackbone(ARCH, position_grid=(2, 2))
    depth = {name: backbone.get_layer_depth(name) for name, _ in backbone.named_parameters()}
    assert depth["stem.conv1.weight"] == (0, 8)
    assert depth["conv_stages.0.0.pre_norm.weight"][0] == 1
    assert depth["conv_stages.1.1.pre_norm.weight"][0] == 3
    assert depth["conv_final_pool.proj.weight"][0] == depth["layers.0.norm1.weight"][0] == 4
    assert depth["layers.2.norm1.weight"][0] == 6 and depth["final_norm.weight"] == (7, 8)
    assert backbone.no_weight_decay() == {"pos_embed"}


def test_gradients_reach_every_parameter_in_training() -> None:
    model = thin(train_prompts=True).train()
    image = model.encode(torch.randn(1, 3, 64, 64))[0]
    asked = Prompts(
        points=torch.rand(2, 2, 2) * 63, labels=torch.tensor([[1, 0], [-1, 1]]), boxes=torch.rand(2, 4) * 63
    )
    logits, iou = model.decode(image, asked)
    masked, _ = model.decode(image, Prompts(torch.rand(1, 1, 2), torch.ones(1, 1), masks=logits[:1].detach()))
    (logits.square().mean() + iou.sum() + masked.square().mean()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []


def test_checkpointing_and_drop_path_train() -> None:
    torch.manual_seed(0)
    plain = RWKVSAMBackbone(ARCH, out_indices=(3,)).train()
    saving = RWKVSAMBackbone(ARCH, out_indices=(3,), with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 32, 32)
    for backbone in (plain, saving):
        backbone(image)[0].square().sum().backward()
    torch.testing.assert_close(saving.stem.conv1.weight.grad, plain.stem.conv1.weight.grad)
    dropping = RWKVSAMBackbone(ARCH, drop_path_rate=0.4)
    assert [layer.drop_path.rate for layer in dropping.layers] == pytest.approx([0, 0.2, 0.4])
    assert dropping.train()(image)[3].isfinite().all()


def test_bf16_autocast_stays_near_float32_and_keeps_the_decay_exact() -> None:
    model, image = thin(), torch.randn(1, 3, 64, 64)
    prompts = boxes((3, 4, 40, 50))
    with torch.no_grad():
        exact, _ = model.decode(model.encode(image)[0], prompts)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = model.decode(model.encode(image)[0], prompts)
        rough.float().square().mean().backward()
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()
    learned = [p for p in model.parameters() if p.grad is not None]
    assert learned and all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in learned)


def test_torch_export_gives_the_same_encoder_and_decoder() -> None:
    model, image = thin(), torch.randn(1, 3, 64, 64)
    exported = torch.export.export(model, (image,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(image), model(image))


def test_prompt_places_are_pixel_middles_of_the_padded_picture() -> None:
    encoder = PromptEncoder(64, image_size=32, embedding_size=2)
    with torch.no_grad():
        for embedding in encoder.point_embeddings:
            embedding.weight.zero_()
    dense = encoder.dense_pe()  # cells of 16 pixels: their middles are between pixels 7 and 8
    middle = encoder.embed_points(torch.tensor([[[23.5, 7.5]]]), torch.ones(1, 1), padded=False)
    torch.testing.assert_close(middle[0, 0], dense[0, :, 0, 1])


def test_points_are_padded_only_without_a_box_and_padding_has_no_place() -> None:
    encoder = PromptEncoder(64, image_size=32, embedding_size=2)
    place, label = torch.rand(2, 1, 2) * 31, torch.ones(2, 1)
    assert encoder(Prompts(place, label))[0].shape == (2, 2, 64)
    both = encoder(Prompts(place, label, boxes=torch.rand(2, 4)))[0]
    assert both.shape == (2, 3, 64)
    given = encoder.embed_points(place, -label, padded=True)
    torch.testing.assert_close(given[:, 0], given[:, 1])
    torch.testing.assert_close(given[0, 0], encoder.not_a_point_embed.weight[0])


def test_moving_a_box_or_switching_a_label_changes_the_mask() -> None:
    model = thin()
    with torch.no_grad():
        image = model.encode(torch.randn(1, 3, 64, 64))[0]
        here, there = model.decode(image, boxes((2, 2, 20, 20), (30, 30, 60, 60)))[0]
        inside = model.decode(image, points((10, 10)))[0]
        outside = model.decode(image, points((10, 10), label=0))[0]
    assert (here - there).abs().max() > 1e-3 and (inside - outside).abs().max() > 1e-3


def test_several_prompts_share_one_embedding_and_do_not_touch_each_other() -> None:
    model, calls = thin(), []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        image = model.encode(torch.randn(1, 3, 64, 64))[0]
        many = model.decode(image, boxes((2, 2, 20, 20), (5, 9, 60, 60), (0, 0, 9, 9)))[0]
        alone = model.decode(image, boxes((5, 9, 60, 60)))[0]
    assert len(calls) == 1
    torch.testing.assert_close(many[1:2], alone, rtol=1e-4, atol=1e-4)


def test_each_image_of_a_batch_is_decoded_from_its_own_fine_maps() -> None:
    model, batch = thin(), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        for image, features in zip(batch.split(1), model.encode(batch), strict=True):
            alone = model.decode(model.encode(image)[0], boxes((2, 2, 20, 20)))[0]
            together = model.decode(features, boxes((2, 2, 20, 20)))[0]
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("original", [(75, 120), (300, 10), (1, 7), (64, 64)])
def test_answers_have_the_original_size_and_padding_never_appears(original: tuple[int, int]) -> None:
    scale = 64 / max(original)
    resized = tuple(max(1, round(side * scale)) for side in original)
    logits = torch.full((2, 1, 16, 16), -5.0)
    rows, columns = -(-resized[0] // 4), -(-resized[1] // 4)
    logits[..., :rows, :columns] = 5.0
    far = logits.clone()
    far[..., min(16, rows + 1) :, :] = far[..., min(16, columns + 1) :] = 500.0  # what lies in the padding
    found = original_logits(logits, (64, 64), resized, original)
    assert found.shape == (2, 1, *original)
    torch.testing.assert_close(original_logits(far, (64, 64), resized, original), found)


def test_any_backbone_with_the_strides_serves() -> None:
    backbone = {"type": "opsin.ConvNeXt", "arch": {"depths": (1, 1, 1), "dims": (8, 16, 24)}}
    backbone |= {"arch": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, "out_indices": (0, 1, 2)}
    model = thin(backbone=backbone)
    image = model.encode(torch.randn(1, 3, 64, 64))[0]
    assert model.decode(image, boxes((1, 2, 30, 40)))[0].shape == (1, 1, 16, 16)
    with pytest.raises(UserError, match="ConvNeXt gives no map of stride 8"):
        thin(backbone={**backbone, "out_indices": (0, 2)})


def test_backbone_serves_a_stock_segmenter() -> None:
    backbone = MODELS.build({"type": "opsin.RWKVSAMBackbone", "arch": ARCH, "out_indices": (0, 1, 2, 3)})
    head = MODELS.build(
        {
            "type": "mmseg.UPerHead",
            "in_channels": [info.channels for info in backbone.feature_info],
            "in_index": [0, 1, 2, 3],
            "channels": 8,
            "num_classes": 3,
            "norm_cfg": {"type": "BN"},
            "loss_decode": {"type": "mmseg.CrossEntropyLoss"},
        }
    )
    assert head.eval()(backbone(torch.randn(1, 3, 64, 64))).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module"])
def test_trained_models_load_whatever_wraps_them(tmp_path: Path, wrap: str) -> None:
    model, other = thin(), RWKVSAM(arch=ARCH, image_size=64, embed_dim=64).eval()
    tensors = model.state_dict()
    content: dict[str, Any] = {
        "plain": tensors,
        "state_dict": {"state_dict": tensors, "meta": {}},
        "module": {"model": {f"module.{name}": tensor for name, tensor in tensors.items()}},
    }[wrap]
    torch.save(content, tmp_path / "trained.pth")
    load_published(other, tmp_path / "trained.pth")
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(other(image), model(image))


def test_file_without_the_random_frequencies_is_refused(tmp_path: Path) -> None:
    tensors = {n: t for n, t in thin().state_dict().items() if "gaussian" not in n}
    torch.save(tensors, tmp_path / "trained.pth")
    with pytest.raises(UserError, match=r"positional_encoding_gaussian_matrix .* is missing"):
        load_published(thin(), tmp_path / "trained.pth")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 100}, "image_size=100"),
        ({"embed_dim": 72}, "embed_dim=72"),
        ({"arch": "smal"}, "did you mean small"),
        ({"arch": {"dims": (8, 16, 32)}}, "lacks depths"),
    ],
)
def test_impossible_settings_are_told_in_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        thin(**changes)


def test_input_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="inputs are 32x64, expected 64x64"):
        thin().encode(torch.randn(1, 3, 32, 64))


def test_forward_at_1024_pixels_fits_four_gigabytes() -> None:
    model = create_model("rwkv_sam_small").eval()
    with torch.inference_mode():
        image = model.encode(torch.randn(1, 3, 1024, 1024))[0]
        logits, _ = model.decode(image, boxes((10, 20, 500, 700)))
    assert image.embedding.shape == (1, 256, 64, 64) and logits.shape == (1, 1, 256, 256)
    assert peak_memory() < 4 * 2**30
