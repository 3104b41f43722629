import pytest
import torch

from opsin.core import create_model
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.medical.segmentation.models.multi_scale_attention import (
    AttentionLayer,
    ChannelAttention,
    GuidedAttentionLoss,
    GuidedOutput,
    MultiScaleAttention,
    PositionAttention,
    SemanticModule,
)

TINY = dict(channels=8, depths=(1, 1, 1, 1), groups=2, width_per_group=4, stem_channels=8)


def tiny(**changes):
    return MultiScaleAttention(**{"num_classes": 3, "unused_layers": False, **TINY, **changes})


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        network = create_model("multi_scale_attention")
        used = create_model("multi_scale_attention", unused_layers=False)
    assert sum(p.numel() for p in network.parameters()) == 104_511_475
    assert sum(p.numel() for p in used.parameters()) == 103_556_063
    assert sum(p.numel() for p in network.resnext.parameters()) == 86_736_064


def test_only_grey_slices_are_taken():
    with pytest.raises(UserError, match="slices of 1 channels, got 3"):
        tiny()(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (33, 50)])
def test_any_size_gives_logits_of_that_size(size):
    network = tiny()
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 1, *size)).shape == (1, 3, *size)
        output = network.train()(torch.rand(2, 1, *size))
    assert [tuple(p.shape) for p in output.predictions] == [(2, 3, *size)] * 8
    assert len(output.codes) == 4 and len(output.reconstructions) == 8


# The attentions.


def test_without_gamma_attention_does_nothing_whatever_its_weights():
    x = torch.randn(2, 16, 5, 6)
    position = PositionAttention(16)
    with torch.no_grad():
        for parameter in (*position.query_conv.parameters(), *position.value_conv.parameters()):
            parameter.fill_(3.0)
    assert torch.equal(position(x), x) and torch.equal(ChannelAttention()(x), x)
    layer = AttentionLayer(8, PositionAttention(8)).eval()
    before = layer(x)
    with torch.no_grad():
        layer.attn[3].key_conv.weight.add_(1)
    assert torch.equal(layer(x), before)


def test_channel_attention_follows_a_permutation_of_the_channels():
    attention, x = ChannelAttention(), torch.randn(2, 6, 4, 5)
    with torch.no_grad():
        attention.gamma.fill_(0.7)
    order = torch.randperm(6)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])


def test_channel_attention_weighs_the_least_alike_most():
    attention, x = ChannelAttention(), torch.randn(1, 3, 2, 4)
    with torch.no_grad():
        attention.gamma.fill_(1.0)
    rows = x.flatten(2)[0]
    energy = rows @ rows.T
    weights = (energy.max(1, keepdim=True).values - energy).exp()
    expected = (weights / weights.sum(1, keepdim=True)) @ rows
    torch.testing.assert_close(attention(x)[0] - x[0], expected.view(3, 2, 4))


def test_position_attention_follows_a_permutation_of_the_pixels_and_equals_its_definition():
    attention, x = PositionAttention(16), torch.randn(2, 16, 3, 4)
    with torch.no_grad():
        attention.gamma.fill_(0.7)
    pixels = torch.randperm(12)
    moved = x.flatten(2)[..., pixels].view_as(x)
    torch.testing.assert_close(attention(moved).flatten(2), attention(x).flatten(2)[..., pixels])
    query, key, value = (
        conv(x).flatten(2) for conv in (attention.query_conv, attention.key_conv, attention.value_conv)
    )
    weights = (query.transpose(1, 2) @ key).softmax(-1)
    torch.testing.assert_close(attention(x), 0.7 * (value @ weights.transpose(1, 2)).view_as(x) + x)


def test_semantic_code_is_one_vector_of_the_whole_batch():
    code, decoded = SemanticModule(4)(torch.rand(3, 4, 8, 12))
    assert code.shape == (3 * 16 * 2 * 3,) and decoded.shape == (3, 4, 8, 12)


# Losses.


def test_guidance_is_nothing_where_both_levels_see_the_same_with_the_same_module():
    network = tiny().train()
    network.semanticModule_2_1 = network.semanticModule_1_1
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    down = network._pyramid(torch.rand(1, 1, 32, 32))
    fused = network.fuse1(torch.cat([down[scale] for scale in (4, 3, 2, 1)], 1))
    guide = dict.fromkeys((4, 3, 2, 1), fused)  # att_s * fuse1 = fuse1
    first, second = network._level(1, down, guide), network._level(2, down, guide)
    output = GuidedOutput([torch.zeros(1, 3, 4, 4)] * 8)
    output.codes = [(first[s].code, second[s].code) for s in (1, 2, 3, 4)]
    output.reconstructions = [(first[1].given, first[1].decoded)]
    losses = GuidedAttentionLoss()(output, torch.zeros(1, 4, 4))
    assert losses["loss_guided"] == 0 and losses["loss_reconstruction"] > 0


def test_inference_depends_on_the_second_level_alone():
    network, x = tiny().eval(), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        before = network(x)
        for scale in (1, 2, 3, 4):
            getattr(network, f"predict{scale}").weight.add_(1)
        assert torch.equal(network(x), before)
        network.predict2_2.weight.add_(1)
        assert not torch.equal(network(x), before)


def test_shared_autoencoder_sees_four_batches_in_a_step():
    network = tiny().train()
    network(torch.rand(2, 1, 32, 32))
    assert network.semanticModule_1_1.enc1.encode[1].num_batches_tracked == 4
    assert network.down1[1].num_batches_tracked == 1


def test_loss_is_weighed_as_published():
    network = tiny().train()
    output = network(torch.rand(2, 1, 32, 32))
    target = torch.randint(0, 3, (2, 32, 32))
    single = GuidedAttentionLoss(1.0, 1.0)(output, target)
    losses = GuidedAttentionLoss()(output, target)
    torch.testing.assert_close(losses["loss_guided"], 0.25 * single["loss_guided"])
    torch.testing.assert_close(losses["loss_reconstruction"], 0.1 * single["loss_reconstruction"])


def test_cross_entropy_falls_on_a_few_slices():
    network, loss = tiny().train(), GuidedAttentionLoss()
    slices = torch.rand(4, 1, 32, 32)
    target = (torch.nn.functional.avg_pool2d(slices, 5, 1, 2)[:, 0] * 3).long().clamp(0, 2)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    values = []
    for _ in range(25):
        losses = loss(network(slices), target)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        values.append(losses["loss_ce"].item())
    assert values[-1] < 0.8 * values[0]


def test_gradients_reach_every_parameter_that_is_used():
    network = tiny()
    with torch.no_grad():  # attention counts from the start
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
    output = network.train()(torch.rand(2, 1, 64, 64))
    losses = GuidedAttentionLoss()(output, torch.randint(0, 3, (2, 64, 64)))
    sum(losses.values()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_bf16_autocast_trains():
    network = tiny().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = GuidedAttentionLoss()(network(torch.rand(2, 1, 32, 32)), torch.zeros(2, 32, 32))
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_torch_export_gives_the_same_network():
    network, x = tiny().eval(), torch.rand(1, 1, 32, 64)
    with torch.no_grad():
        exported = torch.export.export(network, (x,)).module()
        torch.testing.assert_close(exported(x), network(x))


# Files.


@pytest.mark.parametrize("unused", [True, False])
def test_authors_layers_that_never_run_are_kept_or_dropped(tmp_path, unused):
    full, other = tiny(unused_layers=True).eval(), tiny(unused_layers=unused).eval()
    torch.save(
        {"state_dict": {f"module.{n}": t for n, t in full.state_dict().items()}}, tmp_path / "best.pth"
    )
    load_published(other, tmp_path / "best.pth")
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(other(x), full(x))


def test_a_file_with_other_classes_is_refused_by_name(tmp_path):
    torch.save(tiny(num_classes=5).state_dict(), tmp_path / "best.pth")
    with pytest.raises(UserError, match=r"predict\d(_2)?\.weight"):
        load_published(tiny(), tmp_path / "best.pth")


def test_too_few_channels_are_told():
    with pytest.raises(UserError, match="at least 8 channels"):
        tiny(channels=4)


def test_adapter_takes_modules_of_another_width():
    modules = torch.nn.ModuleDict(
        dict(
            cam=AttentionLayer(8, ChannelAttention()),
            sem=SemanticModule(16),
            pam=AttentionLayer(8, PositionAttention(8)),
        )
    )
    tensors = [(n, list(t.shape)) for n, t in modules.state_dict().items() if not n.endswith("tracked")]
    meta = dict(
        system="multi-scale-attention",
        source="src/models/attention.py PAM_CAM_Layer, semanticModule",
        built_with=dict(in_ch=8, semantic_in_dim=16),
        tensors=tensors,
        inputs={"x": dict(seed=1, shape=[1, 16, 8, 8])},
    )
    case = Case(meta, {})
    results = find_adapter(case)(case)
    assert results["pam"].shape == results["cam"].shape == (1, 8, 8, 8)
    assert results["code"].shape == (64 * 4,) and results["decoded"].shape == (1, 16, 8, 8)
