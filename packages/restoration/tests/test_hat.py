import pytest
import torch

from opsin.core import create_backbone, create_model, list_models
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.restoration.models import HAT, HATBackbone, UNetDiscriminatorSN
from opsin.restoration.models.hat.blocks import HAB, OCAB, overlap_bias, window_bias

PARAMETERS = {
    "hat_s_x2": 9_473_471,
    "hat_s_x3": 9_658_111,
    "hat_s_x4": 9_621_183,
    "hat_x2": 20_624_795,
    "hat_x3": 20_809_435,
    "hat_x4": 20_772_507,
    "hat_l_x2": 40_698_863,
    "hat_l_x3": 40_883_503,
    "hat_l_x4": 40_846_575,
}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(name, count):
    with torch.device("meta"):
        network = create_model(name)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_nine_variants_are_listed():
    assert list_models("hat_*") == sorted(PARAMETERS)


def test_discriminator_has_the_published_size():
    discriminator = UNetDiscriminatorSN(3)
    assert sum(p.numel() for p in discriminator.parameters()) == 4_376_897
    assert discriminator(torch.rand(1, 3, 24, 32)).shape == (1, 1, 24, 32)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [(37, 53), (1, 1), (5, 16)])
def test_output_is_exactly_scale_times_the_input(small_hat, scale, size):
    image = torch.rand(2, 3, *size)
    with torch.inference_mode():
        assert small_hat(upscale=scale)(image).shape == (2, 3, size[0] * scale, size[1] * scale)


def test_other_channel_counts_have_no_mean(small_hat):
    network = small_hat(in_chans=1)
    assert network.mean.flatten().tolist() == [0.0]
    assert network(torch.rand(1, 1, 8, 8)).shape == (1, 1, 16, 16)


def test_padding_reflects_without_the_border_pixel(small_hat):
    network = small_hat()
    image = torch.rand(1, 3, 13, 10)
    padded = torch.nn.functional.pad(image, (0, 6, 0, 3), mode="reflect")
    with torch.inference_mode():
        torch.testing.assert_close(network(image), network(padded)[..., :26, :20])


def test_without_conv_scale_the_convolution_branch_is_not_used(small_hat):
    network, image = small_hat(conv_scale=0.0), torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        before = network(image)
        for name, parameter in network.named_parameters():
            if "conv_block" in name:
                parameter.fill_(7.0)
        assert torch.equal(network(image), before)


def test_with_conv_scale_the_convolution_branch_counts(small_hat):
    network, image = small_hat(), torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        before = network(image)
        network.layers[0].residual_group.blocks[0].conv_block.cab[2].weight.add_(1.0)
        assert not torch.allclose(network(image), before, atol=1e-3)


def test_query_window_of_ocab_sees_its_overlapping_window_only():
    block = OCAB(12, (64, 64), window_size=16, overlap_ratio=0.5, num_heads=2).eval()
    x = torch.randn(1, 48, 48, 12)
    with torch.inference_mode():
        before = block(x)
        # the middle window is rows and columns 16 to 31, so it reads 12 to 35
        for place, seen in [
            ((11, 20), False),
            ((36, 20), False),
            ((20, 36), False),
            ((12, 20), True),
            ((35, 35), True),
        ]:
            changed = x.clone()
            changed[0, place[0], place[1]] += torch.randn(12)
            after = block(changed)
            assert torch.equal(after[:, 16:32, 16:32], before[:, 16:32, 16:32]) != seen


def test_bias_tables_are_read_at_the_published_indices():
    ws, m = 8, 12
    rows, cols = torch.arange(ws * ws) // ws, torch.arange(ws * ws) % ws
    table = torch.randn((2 * ws - 1) ** 2, 3)
    index = (rows[:, None] - rows + ws - 1) * (2 * ws - 1) + cols[:, None] - cols + ws - 1
    assert torch.equal(window_bias(table, ws)[0], table[index].permute(2, 0, 1))
    key_rows, key_cols = torch.arange(m * m) // m, torch.arange(m * m) % m
    table = torch.randn((ws + m - 1) ** 2, 3)
    index = (key_rows - rows[:, None] + ws - m + 1) * (ws + m - 1) + key_cols - cols[:, None] + ws - m + 1
    assert index.min() < 0
    assert torch.equal(overlap_bias(table, ws, m)[0], table[index].permute(2, 0, 1))


def test_shifted_windows_do_not_mix_the_regions_that_a_roll_brings_together():
    block = HAB(8, (16, 16), num_heads=2, window_size=8, shift_size=4, conv_scale=0.0).eval()
    x = torch.randn(1, 16, 16, 8)
    with torch.inference_mode():
        before = block(x)
        x[0, 0, 8] += torch.randn(8)  # the first row shares a rolled window with the last rows
        after = block(x)
    assert torch.equal(after[0, 4:], before[0, 4:])
    assert not torch.equal(after[0, :4], before[0, :4])


def test_a_small_designed_resolution_turns_the_shift_off():
    assert HAB(8, (16, 16), 2, window_size=8, shift_size=4).shift_size == 4
    shrunk = HAB(8, (8, 16), 2, window_size=16, shift_size=8)
    assert (shrunk.window_size, shrunk.shift_size) == (8, 0)
    network = HAT(img_size=8, window_size=8, embed_dim=12, depths=(2,), num_heads=(2,), squeeze_factor=6)
    assert [block.shift_size for block in network.layers[0].residual_group.blocks] == [0, 0]
    with pytest.raises(ValueError, match="smaller than a window"):
        HAT(img_size=8, window_size=16)


@pytest.mark.parametrize(
    "changes", [dict(upscale=5), dict(upscale=2, upsampler="nearest+conv"), dict(resi_connection="3conv")]
)
def test_arguments_that_were_never_published_are_refused(changes):
    with pytest.raises(ValueError, match="must be"):
        HAT(img_size=8, window_size=8, embed_dim=12, depths=(1,), num_heads=(2,), squeeze_factor=6, **changes)


def test_gradients_reach_every_parameter_and_equal_those_of_plain_attention(small_hat, monkeypatch):
    network, image = small_hat(upscale=3, drop_path_rate=0.0).train(), torch.rand(2, 3, 16, 24)
    network(image).square().sum().backward()
    fused = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    assert all(grad.abs().sum() > 0 for grad in fused.values())
    network.zero_grad()

    def plain(q, k, v, bias, scale, dropout=0.0):
        return ((q @ k.transpose(-2, -1)) * scale + bias).softmax(-1) @ v

    monkeypatch.setattr("opsin.restoration.models.hat.blocks.biased_attention", plain)
    network(image).square().sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(
            fused[name], parameter.grad, rtol=1e-3, atol=1e-3 * float(parameter.grad.abs().max())
        )


def test_gradient_checkpointing_changes_nothing(small_hat):
    network, image = small_hat(drop_path_rate=0.0).train(), torch.rand(1, 3, 16, 16)
    network(image).sum().backward()
    plain = network.conv_first.weight.grad.clone()
    network.zero_grad()
    network.with_cp = True
    network(image).sum().backward()
    torch.testing.assert_close(network.conv_first.weight.grad, plain)


def test_bf16_autocast_trains_and_stays_near_float32(small_hat):
    network, image = small_hat(), torch.rand(1, 3, 24, 16)
    exact = network(image)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(image)
        rough.float().square().mean().backward()
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_torch_export_gives_the_same_network(small_hat):
    network, image = small_hat(), torch.rand(1, 3, 21, 16)
    with torch.no_grad():
        exported = torch.export.export(network, (image,)).module()
        torch.testing.assert_close(exported(image), network(image))


def test_backbone_gives_maps_of_the_input_size_and_shares_published_names(small_hat):
    network = small_hat()
    backbone = HATBackbone(
        img_size=32, window_size=8, embed_dim=24, depths=(2, 2), num_heads=(2, 2), squeeze_factor=2,
        conv_scale=0.5, out_indices=(0, 1), frozen_stages=1,
    )  # fmt: skip
    own = backbone.state_dict()
    assert set(own) < set(network.state_dict())
    backbone.load_state_dict({name: tensor for name, tensor in network.state_dict().items() if name in own})
    first, last = backbone.eval()(torch.rand(1, 3, 13, 20))
    assert first.shape == last.shape == (1, 24, 13, 20)
    assert [info.channels for info in backbone.feature_info] == [24, 24]
    trained = {name.split(".")[0] for name, p in backbone.train().named_parameters() if p.requires_grad}
    assert trained == {"layers", "norm"}


def test_named_backbone_is_built_from_the_variant():
    with torch.device("meta"):
        backbone = create_backbone("hat_s_x4", depths=(1,), num_heads=(6,))
    assert backbone.feature_info[0].channels == 144


def test_published_file_loads_its_averaged_weights_without_index_buffers(small_hat, tmp_path):
    network, other = small_hat(), small_hat()
    buffers = {"relative_position_index_SA": torch.zeros(4), "relative_position_index_OCA": torch.zeros(4)}
    content = {"params": other.state_dict() | buffers, "params_ema": network.state_dict() | buffers}
    torch.save(content, tmp_path / "HAT.pth")
    load_published(other, tmp_path / "HAT.pth")
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), network.parameters(), strict=True))


def test_published_file_of_another_scale_is_refused_by_name(small_hat, tmp_path):
    torch.save({"params_ema": small_hat(upscale=2).state_dict()}, tmp_path / "HAT.pth")
    with pytest.raises(UserError, match=r"upsample\.2\.weight .* is missing"):
        load_published(small_hat(upscale=4), tmp_path / "HAT.pth")


def test_initialisation_is_the_published_one():
    network = HAT(img_size=8, window_size=8, embed_dim=60, depths=(1,), num_heads=(6,))
    block = network.layers[0].residual_group.blocks[0]
    assert 0.015 < block.attn.qkv.weight.std() < 0.025
    assert 0.015 < block.attn.relative_position_bias_table.std() < 0.025
    assert block.mlp.fc1.bias.abs().max() == 0
    assert block.conv_block.cab[0].bias.abs().max() > 0


def test_absolute_positions_need_the_size_they_were_learned_for():
    network = HAT(
        img_size=16, window_size=8, embed_dim=12, depths=(1,), num_heads=(2,), squeeze_factor=6, ape=True
    )
    assert network(torch.rand(1, 3, 16, 16)).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match="16x16 images, got 24x16"):
        network(torch.rand(1, 3, 24, 16))


def test_parity_adapter_takes_the_published_defaults_where_a_case_says_nothing():
    given = dict(depths=(1,), num_heads=(2,), window_size=4, img_size=8, compress_ratio=8)
    tensors = [[n, list(p.shape)] for n, p in HAT(embed_dim=96, mlp_ratio=4, **given).named_parameters()]
    inputs = {"x": {"kind": "uniform", "seed": 1, "shape": [1, 3, 4, 8]}}
    source = "XPixelGroup/HAT@0 hat/archs/hat_arch.py HAT"
    case = Case(
        dict(system="hat", case="made", source=source, built_with=given, tensors=tensors, inputs=inputs), {}
    )
    assert find_adapter(case)(case)["out"].shape == (1, 3, 8, 16)
