import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.core import create_backbone, create_model
from opsin.core.backbones.tic import (
    MSAConv,
    MSAConv2d,
    NeighbourAttention,
    TiC,
    TiCClassifier,
    neighbour_products,
    neighbour_sums,
    roll_four_ways,
)
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published

SMALL = {
    "dims": (8, 8, 16, 16),
    "depths": (1, 2, 1, 1),
    "num_heads": (2, 2, 4, 4),
    "kernel_sizes": (5, 3, 3, 3),
}
KERNELS = [(1, 7, 1), (5, 3, 1), (3, 3, 2), (5, 3, 3), (3, 5, 2)]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("kernel", "bias"), [(3, False), ((5, 1), True)])
def test_block_has_the_published_number_of_parameters(kernel, bias):
    area = 9 if kernel == 3 else 5
    expected = 3 * 12**2 + 3 * 12 + area * 12 * 20 + (20 if bias else 0)
    assert count(MSAConv2d(12, 20, kernel, bias=bias)) == expected
    assert expected == (2628 if kernel == 3 else 1688)


def test_chosen_network_has_its_number_of_parameters():
    with torch.device("meta"):
        assert count(create_model("tic_tiny")) == 13_630_216
        assert count(create_backbone("tic_tiny")) == 13_118_112


# Operators


def unfolded(x: Tensor, kernel: tuple[int, int], dilation: int) -> Tensor:
    """(N, C, H, W) to (N, C, K, H, W)."""
    padding = [dilation * (size // 2) for size in kernel]
    columns = F.unfold(x, kernel, dilation=dilation, padding=padding)
    return columns.unflatten(1, (x.shape[1], -1)).unflatten(3, x.shape[2:])


@pytest.mark.parametrize(("rows", "columns", "dilation"), KERNELS)
def test_operators_multiply_and_sum_what_unfold_lays_out(rows, columns, dilation):
    kernel = (rows, columns)
    q, k, v = torch.randn(3, 2, 6, 9, 7).unbind(0)
    dots = neighbour_products(q, k, kernel, dilation)
    assert torch.allclose(dots, (q[:, :, None] * unfolded(k, kernel, dilation)).sum(1), atol=1e-5)
    weights = dots.softmax(1)
    wanted = (weights[:, None] * unfolded(v, kernel, dilation)).sum(2)
    assert torch.allclose(neighbour_sums(weights, v, kernel, dilation), wanted, atol=1e-5)


def by_definition(q: Tensor, kv: Tensor, kernel, dilation: int) -> Tensor:
    """The published operators, a head at a time; arguments as for `NeighbourAttention`."""
    heads = []
    for head in range(q.shape[3]):
        q_head, k, v = (t[..., head, :].permute(0, 3, 1, 2) for t in (q, kv[:, :, :, 0], kv[:, :, :, 1]))
        dots = neighbour_products(q_head, k, kernel, dilation) * q.shape[-1] ** -0.5
        heads.append(neighbour_sums(dots.softmax(1), v, kernel, dilation).permute(0, 2, 3, 1))
    return torch.stack(heads, 3)


@pytest.mark.parametrize(("rows", "columns", "dilation"), KERNELS)
@pytest.mark.parametrize("size", [(9, 7), (16, 24), (3, 33)])
def test_fused_attention_is_the_operators(rows, columns, dilation, size):
    module = NeighbourAttention((rows, columns), dilation=dilation)
    q, kv = torch.randn(2, *size, 2, 4), torch.randn(2, *size, 2, 2, 4)
    assert torch.allclose(module(q, kv), by_definition(q, kv, (rows, columns), dilation), atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("rows", "columns", "dilation"), [(1, 3, 1), (3, 3, 2)])
def test_gradients_agree_with_finite_differences(fused, rows, columns, dilation):
    torch.manual_seed(0)
    module = NeighbourAttention((rows, columns), dilation=dilation)
    q = torch.randn(1, 3, 4, 1, 2, dtype=torch.float64, requires_grad=True)
    kv = torch.randn(1, 3, 4, 2, 1, 2, dtype=torch.float64, requires_grad=True)

    def definition(q: Tensor, kv: Tensor) -> Tensor:
        return by_definition(q, kv, (rows, columns), dilation)

    assert torch.autograd.gradcheck(module if fused else definition, (q, kv))


def inter_pooled(q: Tensor, kv: Tensor, kernel, dilation: int) -> Tensor:
    """One softmax over K neighbours and K of the map at half the size, by unfolding both."""
    height, width = q.shape[1:3]
    rows, columns = torch.arange(height) // 2, torch.arange(width) // 2
    keys_and_values = []
    for x in (kv[:, :, :, 0], kv[:, :, :, 1]):
        x = x.flatten(3).permute(0, 3, 1, 2)
        small = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        near, far = unfolded(x, kernel, dilation), unfolded(small, kernel, 1)[..., rows, :][..., columns]
        keys_and_values.append(torch.cat((near, far), 2))
    keys, values = keys_and_values
    logits = (q.flatten(3).permute(0, 3, 1, 2)[:, :, None] * keys).sum(1) * q.shape[-1] ** -0.5
    return (logits.softmax(1)[:, None] * values).sum(2).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), 1), ((3, 3), 2), ((5, 3), 1), ((3, 5), 2)])
@pytest.mark.parametrize("size", [(9, 7), (16, 35)])
def test_inter_pooling_adds_the_neighbours_of_the_map_at_half_the_size(kernel, dilation, size):
    module = NeighbourAttention(kernel, dilation=dilation, inter_pool=True)
    q, kv = torch.randn(2, *size, 1, 4), torch.randn(2, *size, 2, 1, 4)
    assert torch.allclose(module(q, kv)[..., 0, :], inter_pooled(q, kv, kernel, dilation), atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("inter_pool", [False, True])
def test_masked_padding_leaves_out_neighbours_beyond_the_image(dilation, inter_pool):
    settings = {"dilation": dilation, "inter_pool": inter_pool}
    masked = NeighbourAttention(5, mask_padding=True, **settings)
    plain = NeighbourAttention(5, **settings)
    q, kv = torch.randn(1, 20, 13, 1, 4), torch.randn(1, 20, 13, 2, 1, 4)
    ones = torch.cat((kv[:, :, :, :1], torch.ones_like(kv[:, :, :, 1:])), 3)
    assert torch.allclose(masked(q, ones), torch.ones(1, 20, 13, 1, 4), atol=1e-5)
    assert plain(q, ones)[0, 0, 0].max() < 0.9
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert torch.allclose(masked(q, kv)[inner], plain(q, kv)[inner], atol=1e-5)


def test_equal_keys_make_it_a_box_filter():
    module = NeighbourAttention((5, 3))
    q, kv = torch.randn(1, 12, 10, 1, 4), torch.randn(1, 12, 10, 2, 1, 4)
    kv[:, :, :, 0] = torch.randn(4)
    box = F.avg_pool2d(kv[:, :, :, 1, 0].permute(0, 3, 1, 2), (5, 3), 1).permute(0, 2, 3, 1)
    assert torch.allclose(module(q, kv)[:, 2:-2, 1:-1, 0], box, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dilation", [1, 2])
def test_moving_the_image_by_a_pixel_moves_the_inner_outputs(dilation):
    block = MSAConv2d(8, 6, 3, dilation=dilation).eval()
    x = torch.randn(1, 8, 20, 22)
    out, moved = block(x), block(torch.roll(x, (1, 1), (2, 3)))
    assert torch.allclose(moved[:, :, 5:-4, 5:-4], out[:, :, 4:-5, 4:-5], atol=1e-5)


def test_memory_kept_for_the_gradient_grows_with_the_pixels():
    def kept(side: int) -> int:
        module = NeighbourAttention(7)
        q = torch.randn(1, side, side, 1, 8, requires_grad=True)
        kv = torch.randn(1, side, side, 2, 1, 8, requires_grad=True)
        tensors: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            tensors[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = module(q, kv)
        out.sum().backward()
        return sum(tensors.values())

    # a 512 pixel image has 128 x 128 positions at stride 4
    small, large = kept(64), kept(128)
    assert 3.5 < large / small < 4.1
    assert large < 128 * 128 * 128 * 128


# Block and network


@torch.no_grad()
def test_dilation_is_of_the_attention_and_stride_of_the_convolution():
    x = torch.randn(1, 6, 12, 12)
    plain, dilated = MSAConv2d(6, 4, 3).eval(), MSAConv2d(6, 4, 3, dilation=2, stride=2).eval()
    dilated.load_state_dict(plain.state_dict())
    q, k, v = plain.qkv_conv(x).chunk(3, 1)
    weights = (neighbour_products(q, k, 3, 2) * 6**-0.5).softmax(1)
    wanted = F.conv2d(neighbour_sums(weights, v, 3, 2) + x, plain.mlp.weight, stride=2, padding=1)
    assert torch.allclose(dilated(x), wanted.relu(), atol=1e-5)


def test_attention_of_the_published_block_is_float32_under_autocast():
    block, seen = MSAConv2d(8, 8, 3), []
    block.attention.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = block(torch.randn(1, 8, 6, 6))
    assert seen == [torch.float32]
    assert out.dtype == torch.bfloat16


@torch.no_grad()
def test_as_many_heads_as_channels_weigh_each_channel_by_itself():
    block = MSAConv2d(4, 4, 3, num_heads=4).eval()
    nn.init.eye_(block.qkv_conv.weight[8:, :, 0, 0])
    x = torch.randn(1, 4, 6, 6)
    q, k, v = block.qkv_conv(x).chunk(3, 1)
    maps = []
    for channel in range(4):
        one = slice(channel, channel + 1)
        weights = neighbour_products(q[:, one], k[:, one], 3).softmax(1)
        maps.append(neighbour_sums(weights, v[:, one], 3))
    wanted = F.conv2d(torch.cat(maps, 1) + x, block.mlp.weight, padding=1).relu()
    assert torch.allclose(block(x), wanted, atol=1e-5)


def test_dropout_acts_while_training_only():
    torch.manual_seed(0)
    block, x = MSAConv2d(8, 8, 3, dropout=0.5), torch.randn(1, 8, 6, 6)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_quarters_of_the_channels_roll_in_four_directions():
    x = torch.zeros(1, 7, 7, 4)
    x[0, 3, 3] = 1
    rolled = roll_four_ways(x, 2)
    places = [tuple(rolled[0, :, :, channel].nonzero()[0].tolist()) for channel in range(4)]
    assert places == [(5, 3), (1, 3), (3, 5), (3, 1)]
    assert torch.equal(roll_four_ways(rolled, -2), x)


@torch.no_grad()
def test_shift_lets_a_position_see_across_the_border():
    torch.manual_seed(0)
    x = torch.randn(1, 16, 16, 8)
    moved = x.clone()
    moved[:, 15] += 1
    seen = {}
    for shift in (0, 1):
        mixer = MSAConv(8, 2, 3, shift=shift)
        seen[shift] = (mixer(moved) - mixer(x)).abs().sum((0, 2, 3)) > 0
    assert seen[0].nonzero().flatten().tolist() == [14, 15]
    assert seen[1].nonzero().flatten().tolist() == [0, 1, 2, 12, 13, 14, 15]


@torch.no_grad()
def test_one_model_takes_any_size():
    model = TiCClassifier(SMALL, num_classes=3).eval()
    backbone = TiC(SMALL).eval()
    for size in [(97, 131), (224, 224), (384, 256)]:
        assert model(torch.randn(1, 3, *size)).shape == (1, 3)
    maps = backbone(torch.randn(1, 3, 97, 131))
    assert [tuple(m.shape[2:]) for m in maps] == [(25, 33), (13, 17), (7, 9), (4, 5)]


@torch.no_grad()
@pytest.mark.parametrize("option", ["shift", "inter_pool", "mask_padding"])
def test_each_option_changes_what_is_computed_but_no_parameter(option):
    torch.manual_seed(0)
    first = TiC(SMALL, layer_scale_init_value=1.0).eval()
    default = option != "mask_padding"
    second = TiC(SMALL, **{option: not default}).eval()
    second.load_state_dict(first.state_dict())
    image = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(first(image)[1], second(image)[1], atol=1e-4)


def test_own_classifiers_file_loads_into_the_backbone(tmp_path):
    source = TiCClassifier(SMALL, num_classes=3)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "tic.pth")
    target = load_published(TiC(SMALL, out_indices=(0, 2)), tmp_path / "tic.pth")
    assert torch.equal(target.stages[2][0].mixer.qkv.weight, source.stages[2][0].mixer.qkv.weight)
    assert torch.equal(target.norm2.weight, torch.ones(16))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MSAConv2d(8, 8, 4), "kernel_size 4.*odd"),
        (lambda: MSAConv2d(8, 8, (3, 3, 3)), "one number or two"),
        (lambda: MSAConv2d(8, 8, 3, num_heads=3), "3 heads"),
        (lambda: NeighbourAttention(3, dilation=3, inter_pool=True), "dilation=3"),
        (lambda: TiC("tinny"), "tinny.*tiny"),
        (lambda: TiC({**SMALL, "depths": (1, 1)}), "four"),
        (lambda: TiC({**SMALL, "dims": (6, 8, 16, 16)}), "multiples of 4"),
        (lambda: TiC(SMALL, out_indices=(0, 4)), "out_indices"),
    ],
)
def test_a_wrong_setting_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


# Cases that others could make


def case_of(source: str, module: nn.Module, inputs: dict, outputs: list[str], **built_with) -> Case:
    """A case as another run of the authors' code would give it, without numbers."""
    meta = {
        "system": "tic",
        "case": "other",
        "source": f"zs670980918/MSA-Conv@2d96f54 core/op/{source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in module.state_dict().items()],
        "inputs": {name: {"seed": 1, "shape": shape} for name, shape in inputs.items()},
        "outputs": dict.fromkeys(outputs),
    }
    return Case(meta, {})


def test_other_block_cases_run():
    module = MSAConv2d(6, 9, (5, 1), bias=True)
    settings = {"input_channel": 6, "output_channel": 9, "kernel_size": [5, 1], "stride": 1, "dilation": 2}
    settings |= {"padding": [2, 0], "bias": True, "dropout": 0.0, "im2col_step": 64}
    source = "Transformer_in_Convolution.py MSA_Conv_2d"
    case = case_of(source, module, {"x": [1, 6, 11, 8]}, ["out"], **settings)
    assert find_adapter(case)(case)["out"].shape == (1, 9, 11, 8)


@pytest.mark.parametrize(
    ("source", "inputs", "outputs"),
    [
        ("msa_conv_v1_1.py MSA_Conv2d_v1", {"q": [1, 4, 6, 7], "k": [1, 4, 6, 7]}, {"dots": (1, 7, 6, 7)}),
        (
            "msa_conv1_v1_1.py MSA_Conv2d_1_v1",
            {"attn": [1, 7, 6, 8], "v": [1, 4, 6, 8]},
            {"out": (1, 4, 6, 8)},
        ),
    ],
)
def test_cases_of_one_operator_run(source, inputs, outputs):
    case = case_of(source, nn.Identity(), inputs, list(outputs), kernel_size=[1, 7], dilation=3, stride=1)
    got = find_adapter(case)(case)
    assert {name: tuple(got[name].shape) for name in outputs} == outputs
