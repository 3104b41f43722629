import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from opsin.core import create_model, list_models
from opsin.core.cli import main
from opsin.core.errors import UserError
from opsin.core.parity import Case
from opsin.core.published import load_published, place
from opsin.registry import MODELS
from opsin.tracking.boxes import ciou, to_centre, to_corners
from opsin.tracking.models.mixformer import TemplateMemory, prroi_pool
from opsin.tracking.models.mixformer.mixed_attention import ConvMixedAttention, MixedBlock
from opsin.tracking.models.mixformer.position_table import sine_table

KINDS = [
    ("cvt", "opsin.CornerHead"),
    ("vit", "opsin.PyramidCornerHead"),
    ("convmae", "opsin.PyramidCornerHead"),
]
# What the authors' classes have without the parameters that nothing is computed with (card of the system).
PARAMETERS = {
    "mixformer_cvt_offline": 35_595_138,
    "mixformer_cvt": 37_459_499 - 385_768,
    "mixformer_cvt_large_offline": 183_867_074,
    "mixformer_cvt_large": 195_395_435 - (1024 * 1000 + 1000 + 2 * 1024),
    "mixvit_base_offline": 97_481_294 - 297_984,
    "mixvit_base": 103_388_551 - 297_984,
}


def crops(batch=1, templates=1, template=48, search=96):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 3, template, template, generator=generator),
        torch.randn(batch, templates, 3, template, template, generator=generator),
        torch.randn(batch, 3, search, search, generator=generator),
    )


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(name, count):
    with torch.device("meta"):
        network = create_model(name)
    assert sum(p.numel() for p in network.parameters()) == count


def test_position_tables_are_fixed_and_have_the_published_size():
    with torch.device("meta"):
        backbone = create_model("mixvit_base").backbone
    assert backbone.pos_embed_s.numel() + backbone.pos_embed_t.numel() == 297_984
    assert "pos_embed_s" not in backbone.state_dict()


def test_the_twelve_variants_build():
    names = list_models("mix*former_*") + list_models("mixvit_*") + list_models("mixconvmae_*")
    assert len(names) == 12
    with torch.device("meta"):
        for name in names:
            assert (create_model(name).score_branch is None) == name.endswith("_offline")


def test_info_counts_the_published_multiply_adds(capsys):
    with pytest.raises(SystemExit) as left:
        main(["info", "mixformer_cvt", "--size", "320", "--json"])
    assert left.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == PARAMETERS["mixformer_cvt"]
    assert 22e9 < facts["multiply_adds"] < 25e9  # the paper has 23.04 G


@pytest.mark.parametrize(("kind", "head"), KINDS)
def test_one_pass_equals_cached_templates(small_mixformer, kind, head):
    network = small_mixformer(kind, head)
    template, online, search = crops(2)
    with torch.inference_mode():
        joint = network(template, online[:, 0], search)
        memory = network.remember(template, online)
        for _ in range(2):  # a memory serves any number of frames
            cached = network.look(search, memory)
    torch.testing.assert_close(cached.boxes, joint.boxes, atol=1e-5, rtol=0)
    torch.testing.assert_close(cached.logits, joint.logits, atol=1e-5, rtol=0)


def test_asymmetric_attention_equals_one_masked_attention_over_all_tokens():
    torch.manual_seed(0)
    block = MixedBlock(ConvMixedAttention(16, 2), 16).eval()
    templates, search = torch.randn(1, 2 * 25, 16), torch.randn(1, 64, 16)
    with torch.no_grad():
        encoded, keys_values = block.encode_templates(templates, 2, (5, 5))
        looked = block.encode_search(search, (8, 8), keys_values)
        parts = [block.attn.project(block.norm1(templates), 2, (5, 5))]
        parts += [block.attn.project(block.norm1(search), 1, (8, 8))]
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(*parts, strict=True))
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        mask[:50, parts[0][1].shape[2] :] = False  # templates do not see the search region
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=16**-0.5)
        x = torch.cat((templates, search), dim=1)
        x = x + block.attn.proj(y.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    torch.testing.assert_close(torch.cat((encoded, looked), dim=1), x, atol=1e-5, rtol=1e-5)
    assert parts[0][1].shape[2] == 2 * 9  # ceil(5 / 2) along each side


@pytest.mark.parametrize(("kind", "head"), KINDS)
def test_search_sees_every_template_and_the_score_only_the_first(small_mixformer, kind, head):
    network = small_mixformer(kind, head)
    template, online, search = crops(1, 3)
    with torch.inference_mode():
        before = network(template, online, search)
        for number in range(3):
            changed = online.clone()
            changed[:, number] += 1
            assert not torch.allclose(network(template, changed, search).boxes, before.boxes, atol=1e-6)
        memory = network.remember(template, online)
        assert not torch.allclose(
            network.look(search, memory._replace(first=memory.first + 1)).logits, before.logits, atol=1e-6
        )


@pytest.mark.parametrize("online", [False, True])
def test_memories_of_several_targets_stack(small_mixformer, online):
    network = small_mixformer(online=online)
    template, recent, search = crops(3, 2)
    with torch.inference_mode():
        together = network(template, recent, search)
        single = [network.remember(template[i : i + 1], recent[i : i + 1]) for i in range(3)]
        stacked = network.look(search, TemplateMemory.stack(single))
    torch.testing.assert_close(stacked.boxes, together.boxes)
    assert (together.logits is not None) == online


@pytest.mark.parametrize(("kind", "head"), KINDS)
@pytest.mark.parametrize(("height", "width"), [(112, 80), (48, 96), (16, 16)])
def test_any_multiple_of_the_stride_goes_through(small_mixformer, kind, head, height, width):
    network = small_mixformer(kind, head)
    template, online, _ = crops()
    with torch.inference_mode():
        boxes, logits = network(template, online, torch.randn(1, 3, height, width))
    assert boxes.shape == (1, 4) and logits.shape == (1,) and boxes.isfinite().all()


def test_cvt_takes_sides_that_are_no_multiple_of_the_stride(small_mixformer):
    template, online, _ = crops(template=49)
    with torch.inference_mode():
        assert small_mixformer()(template, online, torch.randn(1, 3, 101, 77)).boxes.isfinite().all()


def test_gradients_reach_every_parameter(small_mixformer):
    for kind, head in KINDS:
        network = small_mixformer(kind, head).train()
        template, online, search = crops(2)
        boxes = torch.tensor([[0.1, 0.2, 0.5, 0.7]] * 2)  # a random prediction may have no area to be scored
        prediction = network.look(search, network.remember(template, online), boxes)
        (prediction.boxes.sum() + prediction.logits.sum()).backward()
        silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
        # a bias added to all keys, or to all logits of a map, changes no softmax
        assert all(n.endswith(("proj_k.bias", "conv5_tl.bias", "conv5_br.bias")) for n in silent), silent


def test_stochastic_depth_drops_branches_only_in_training(small_mixformer):
    network = small_mixformer("vit", drop_path_rate=0.9)
    inputs = crops(2)
    with torch.no_grad():
        assert torch.equal(network(*inputs).boxes, network(*inputs).boxes)
        network.train()
        assert not torch.equal(network(*inputs).boxes, network(*inputs).boxes)


def test_frozen_stage_of_the_large_network_does_not_learn():
    with torch.device("meta"):
        network = create_model("mixformer_cvt_large")
    frozen = {
        name.split(".")[1] for name, p in network.backbone.named_parameters(prefix="b") if not p.requires_grad
    }
    assert frozen == {"stage0"}


@pytest.mark.parametrize(("kind", "head"), KINDS)
def test_bf16_autocast_stays_near_float32(small_mixformer, kind, head):
    network, (template, online, search) = small_mixformer(kind, head), crops(1)
    with torch.no_grad():  # logits like trained ones: with steeper ones a rounding becomes a choice
        for parameter in network.parameters():
            parameter.mul_(0.5 if parameter.ndim > 1 else 1.0)

    def features():
        return network.backbone.encode_search(search, network.remember(template, online))

    exact = features()
    with torch.autocast("cpu", torch.bfloat16):
        rough = features()
        prediction = network(template, online, search)
        (prediction.boxes.sum() + prediction.logits.sum()).backward()
    assert (rough - exact).norm() < 0.03 * exact.norm()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(("kind", "head"), KINDS)
def test_torch_export_gives_the_same_network(small_mixformer, kind, head):
    network, inputs = small_mixformer(kind, head), crops(1)
    with torch.no_grad():
        exported = torch.export.export(network, inputs).module()(*inputs)
        torch.testing.assert_close(exported[0], network(*inputs).boxes)


def test_corner_of_a_hot_cell_is_its_index_times_the_stride(small_mixformer):
    head = small_mixformer().box_head
    maps = torch.full((1, 2, 6, 8), -1e4)
    maps[0, 0, 1, 2] = maps[0, 1, 5, 7] = 1e4
    head.corner_maps = lambda features: maps
    torch.testing.assert_close(head(torch.zeros(1)), torch.tensor([[2 / 8, 1 / 6, 7 / 8, 5 / 6]]))


def test_positions_encode_the_column_first():
    table = sine_table(8, (3, 4))[0].view(3, 4, 8)
    assert torch.equal(table[0, :, :4], table[2, :, :4]) and torch.equal(table[:, 0, 4:], table[:, 3, 4:])
    torch.testing.assert_close(
        table[2, 3, :4], torch.tensor([math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)])
    )
    torch.testing.assert_close(table[2, 3, 4:6], torch.tensor([math.sin(2), math.sin(0.02)]))


# Precise RoI pooling.


def test_pooling_a_constant_gives_the_constant_inside_and_fades_at_the_border():
    box = torch.tensor([[1.3, 2.1, 5.2, 4.9]])
    torch.testing.assert_close(
        prroi_pool(torch.full((1, 2, 8, 8), 3.0), box, 4), torch.full((1, 2, 4, 4), 3.0)
    )
    edge = prroi_pool(torch.ones(1, 1, 8, 8), torch.tensor([[-1.0, 2.0, 0.0, 3.0]]), 1)
    torch.testing.assert_close(edge, torch.full((1, 1, 1, 1), 0.5))  # from 0 to 1 over one cell


def test_pooling_a_ramp_gives_its_mean():
    ramp = torch.arange(10.0).expand(1, 1, 10, 10)
    pooled = prroi_pool(ramp, torch.tensor([[1.5, 0.0, 5.5, 9.0]]), 4)
    torch.testing.assert_close(pooled[0, 0, 0], torch.tensor([2.0, 3.0, 4.0, 5.0]))


def test_pooling_equals_a_fine_sum_over_the_bilinear_surface():
    torch.manual_seed(0)
    features = torch.randn(1, 1, 6, 7)
    x1, y1, x2, y2 = 0.37, 1.21, 6.8, 4.05
    n = 800
    xs = x1 + (x2 - x1) * (torch.arange(n) + 0.5) / n
    ys = y1 + (y2 - y1) * (torch.arange(n) + 0.5) / n
    padded = F.pad(features, (1, 1, 1, 1))
    grid = torch.stack(torch.meshgrid((xs + 1) / 8 * 2 - 1, (ys + 1) / 7 * 2 - 1, indexing="xy"), -1)[None]
    surface = F.grid_sample(padded, grid, align_corners=True)
    wanted = F.avg_pool2d(surface, n // 2)
    torch.testing.assert_close(
        prroi_pool(features, torch.tensor([[x1, y1, x2, y2]]), 2), wanted, atol=1e-4, rtol=1e-4
    )


def test_boxes_without_area_pool_to_zero_and_coordinates_get_gradients():
    features = torch.randn(3, 2, 6, 6)
    boxes = torch.tensor([[2.0, 2, 2, 4], [3, 3, 1, 1], [1, 1, 4, 3.5]], requires_grad=True)
    pooled = prroi_pool(features, boxes, 4)
    assert not pooled[:2].any() and pooled[2].any()
    pooled.square().sum().backward()
    assert boxes.grad.isfinite().all() and boxes.grad[2].abs().min() > 0


def test_gradients_of_pooling_are_those_of_finite_differences():
    features = torch.randn(1, 1, 5, 5)
    box = torch.tensor([[0.7, 1.2, 3.6, 3.9]], requires_grad=True)
    prroi_pool(features, box, 2)[0, 0, 1, 0].backward()
    for i in range(4):
        step = torch.zeros(1, 4)
        step[0, i] = 1e-2
        ends = [prroi_pool(features, box.detach() + s * step, 2)[0, 0, 1, 0] for s in (1, -1)]
        assert abs((ends[0] - ends[1]) / 2e-2 - box.grad[0, i]) < 5e-3


# Losses.


def test_complete_iou_of_hand_worked_boxes():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 2, 1]])
    truth = torch.tensor([[0.0, 0, 2, 2], [2, 2, 3, 3], [0, 0, 2, 2]])
    complete, iou = ciou(boxes, truth)
    torch.testing.assert_close(iou, torch.tensor([1.0, 0.0, 0.5]))
    # centres 2 sqrt(2) apart in a box of diagonal 3 sqrt(2); half a pixel apart in one of 2 sqrt(2); IoU is
    # not above 0.5, so the aspect ratio does not count
    torch.testing.assert_close(complete, torch.tensor([1.0, -4 / 9, 0.5 - 0.25 / 8]))


def test_equal_and_empty_boxes_have_finite_losses_and_gradients():
    truth = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.2, 0.2, 0.6, 0.6], [0.2, 0.2, 0.6, 0.6]])
    boxes = torch.tensor(
        [[0.1, 0.1, 0.4, 0.5], [0.3, 0.3, 0.3, 0.3], [0.3, 0.3, 0.5, 0.3]], requires_grad=True
    )
    complete, _ = ciou(boxes, truth)
    complete.sum().backward()
    assert complete.isfinite().all() and boxes.grad.isfinite().all() and complete[0] == 1


def test_box_forms_are_each_other_s_inverse():
    boxes = torch.rand(5, 4)
    torch.testing.assert_close(to_centre(to_corners(boxes)), boxes)


# The authors' files and other shapes of the published classes.


def tensors_of(case_name):
    return Case.load(Path(__file__).parent / "parity" / "mixformer" / f"{case_name}.json").state_dict()


def small_published_cvt():
    return MODELS.build(
        dict(
            type="opsin.MixFormer",
            backbone=dict(type="opsin.MixCvT", dims=(16, 32, 64), depths=(1, 1, 2), num_heads=(1, 2, 4)),
            head=dict(type="opsin.CornerHead", channels=64, freeze_bn=True),
            score=dict(type="opsin.ScoreHead"),
        )
    )


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_authors_file_loads_with_its_training_objects(tmp_path, monkeypatch, prefix):
    stats = ModuleType("lib.train.admin.stats")
    meter = type("AverageMeter", (), {"__module__": stats.__name__})
    stats.AverageMeter = meter
    for name in ("lib", "lib.train", "lib.train.admin"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, stats.__name__, stats)
    told = meter()
    told.avg = 3.5
    tensors = tensors_of("cvt-online-memory")
    content = {"epoch": 40, "net": {f"{prefix}{n}": t for n, t in tensors.items()}, "stats": {"loss": told}}
    torch.save(content, tmp_path / "mixformer_cvt_online_22k.pth.tar")
    for name in ("lib", "lib.train", "lib.train.admin", stats.__name__):
        monkeypatch.delitem(sys.modules, name)
    network = load_published(small_published_cvt(), tmp_path / "mixformer_cvt_online_22k.pth.tar")
    assert torch.equal(network.score_branch.score_token, tensors["score_branch.score_token"])
    assert torch.equal(network.box_head.conv1_tl[1].weight, tensors["box_head.conv1_tl.1.weight"])


def test_a_file_of_another_network_is_refused_by_name(tmp_path):
    torch.save({"net": tensors_of("mixvit-small")}, tmp_path / "mixvit.pth.tar")
    with pytest.raises(UserError, match=r"backbone\.stage0\.patch_embed\.proj\.weight .* is missing"):
        load_published(small_published_cvt(), tmp_path / "mixvit.pth.tar")


def test_unused_published_tensors_of_mixvit_are_dropped(small_mixformer):
    network = small_mixformer("vit")
    extra = {
        "backbone.cls_token": torch.zeros(1, 1, 64),
        "backbone.pos_embed": torch.zeros(1, 197, 64),
        "backbone.pos_embed_s": torch.zeros(1, 36, 64),
        "backbone.pos_embed_t": torch.zeros(1, 9, 64),
        "backbone.norm.weight": torch.ones(64),
        "backbone.head.weight": torch.zeros(1000, 64),
    }
    place(network, {**network.state_dict(), **extra})


def case_of(network, source, built_with, inputs, outputs):
    """A case without numbers for a network of ours."""
    meta = {
        "system": "mixformer",
        "case": "other",
        "source": source,
        "built_with": built_with,
        "weight_seed": 3,
        "tolerance": 1e-3,
        "tensors": [[name, list(t.shape)] for name, t in network.state_dict().items()],
        "inputs": inputs,
        "outputs": {name: {"shape": list(shape)} for name, shape in outputs.items()},
    }
    return Case(meta, {})


def test_adapters_take_other_shapes_and_the_cached_path_of_every_backbone(small_mixformer):
    from opsin.core.parity import find_adapter

    def normal(*shape):
        return {"kind": "normal", "seed": 9, "shape": list(shape)}

    cached = {
        "template": normal(1, 3, 48, 48),
        "online_templates": normal(3, 3, 48, 48),
        "search": normal(1, 3, 96, 96),
    }
    shapes = {
        "pred_boxes": (1, 1, 4),
        "pred_scores": (2, 1),
        "search_feat": (1, 64, 6, 6),
        "template_feat": (1, 64, 3, 3),
    }
    vit = dict(img_size_s=96, img_size_t=48, embed_dim=64, num_heads=2, depth=2, head_channel=32)
    vit |= dict(patch_size=16, HEAD_TYPE="CORNER_UP")
    convmae = {
        **vit,
        "embed_dim": [8, 16, 64],
        "depth": [1, 1, 2],
        "patch_size": [4, 2, 2],
        "mlp_ratio": [4, 4, 4],
    }
    for kind, built in (("vit", vit), ("convmae", convmae)):
        network = small_mixformer(kind, "opsin.PyramidCornerHead")
        network.score_branch = type(network.score_branch)(64, 2)
        source = f"MCG-NJU/MixFormer@x lib/models/mixformer_{kind}/mixformer_online.py MixFormerOnlineScore"
        case = case_of(network, source, built, cached, shapes)
        outputs = find_adapter(case)(case)
        for name, shape in shapes.items():
            assert outputs[name].shape == shape
        assert outputs["corner_maps"].shape == (1, 2, 24, 24)
        assert torch.isfinite(outputs["pred_scores"]).all()
