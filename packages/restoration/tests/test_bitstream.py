"""Files of compressed pictures: exact, everywhere the same, near the estimate, and robust against damage."""

import copy
import hashlib
import itertools
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch.utils._python_dispatch import TorchDispatchMode

from opsin.core.data.pictures import photographs
from opsin.core.errors import UserError
from opsin.restoration.compression.bitstream import ieee
from opsin.restoration.compression.bitstream.codec import Codec, cropped, padded, to_input, to_picture
from opsin.restoration.compression.bitstream.container import CompressedPicture, Streams
from opsin.restoration.compression.bitstream.context import FixedPointContext, FloatContext
from opsin.restoration.compression.bitstream.rans import (
    LARGEST_SYMBOL,
    CodingModels,
    StreamReader,
    StreamWriter,
    _constriction,
)
from opsin.restoration.compression.bitstream.tables import (
    TAIL_QUANTILE,
    bottleneck_tables,
    gaussian_mass,
    gaussian_tables,
    quantised,
    scale_edges,
    scale_table,
    scale_thresholds,
)
from opsin.restoration.compression.fixed_point import arithmetic
from opsin.restoration.compression.fixed_point.layers import (
    FixedRegionAdaptiveTransform,
    fixed_point_of,
    integer_weights,
)
from opsin.restoration.compression.models import SegPIC
from opsin.restoration.compression.models.segpic import (
    EntropyBottleneck,
    RegionAdaptiveTransform,
    gaussian_likelihood,
)
from opsin.restoration.compression.models.segpic.gdn import InverseGDN

SMALL = dict(
    width=16,
    latent=20,
    num_slices=5,
    max_support_slices=2,
    hyper=(20, 18, 16, 14, 12),
    context=(16, 12),
    code=(10, 8),
    head=6,
    num_heads=2,
)


def lively(network, strength=6.0):
    """Weights with which y has symbols of many sizes and scales, as a trained network's."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        network.g_a2["2"].conv_b[4].bias += 2
        network.basic_E[3].scales_bias[2].weight *= strength
        for nets in (network.cc_mean_transforms, network.cc_scale_transforms, network.lrp_transforms):
            for net in nets:
                for layer in net[::2]:
                    layer.weight *= 2
                net[-1].bias += torch.randn(net[-1].bias.shape, generator=generator).abs()
        network.h_a[8].weight *= 20
        for codes in (network.g_ab[4], network.g_ab2[4]):
            codes.weight *= 8
    return network


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return lively(SegPIC(**SMALL)).eval()


@pytest.fixture(scope="module")
def codec(network):
    return Codec(network)


@pytest.fixture(scope="module")
def picture():
    return np.ascontiguousarray(photographs()["coffee"][100:200, 150:300])


@pytest.fixture(scope="module")
def file(codec, picture):
    return codec.encode(picture)


# Exactness.


@pytest.mark.parametrize("height, width", [(64, 64), (128, 192), (1, 1), (65, 63), (100, 150)])
@pytest.mark.parametrize("context", [FixedPointContext, FloatContext])
def test_a_file_decodes_to_the_forward_pass_bit_for_bit(network, picture, height, width, context):
    codec = Codec(network, context(network))
    picture = np.ascontiguousarray(np.tile(picture, (2, 2, 1))[:height, :width])
    reconstruction, coded = codec.forward(picture)
    data = codec.encode(picture)
    found = CompressedPicture.from_bytes(data)
    y, center = codec.read(found.streams, tuple(padded(to_input(picture)).shape[2:]), found.grid)
    assert torch.equal(y, coded.y) and torch.equal(center, coded.center)
    assert torch.equal(cropped(codec.synthesise(y, center, 4), (height, width)), reconstruction)
    assert np.array_equal(codec.decode(data), to_picture(reconstruction))


def test_the_floating_point_context_is_the_networks_own_forward_pass(network, picture):
    x = to_input(picture)
    reconstruction, _ = Codec(network, FloatContext(network)).forward(picture)
    with torch.inference_mode():
        assert torch.equal(cropped(network(x)["x_hat"], picture.shape[:2]), reconstruction)


@pytest.mark.parametrize("grid", [1, 3, 16])
def test_any_grid_can_be_used(codec, picture, grid):
    expected, _ = codec.forward(picture, grid)
    assert np.array_equal(codec.decode(codec.encode(picture, grid)), to_picture(expected))


@pytest.mark.parametrize("context", [FixedPointContext, FloatContext])
def test_real_rate_is_near_the_estimate_while_tables_hold_the_symbols(network, picture, context):
    fitting = copy.deepcopy(network)
    with torch.no_grad():
        for net in fitting.cc_scale_transforms:  # scales near the symbols' own
            net[-1].weight *= 0.1
            net[-1].bias.fill_(0.6)
    coder = Codec(fitting, context(fitting))
    _, coded = coder.forward(np.tile(picture, (3, 3, 1)))
    streams = coder.write(coded)
    assert coded.bits["y"] > 10_000
    for name in ("y", "z", "z_center", "z_center2"):
        real = 8 * len(getattr(streams, name))
        assert 0.98 * coded.bits[name] <= real <= 1.02 * coded.bits[name] + 64, name


def test_tables_cost_what_the_likelihoods_of_small_scales_say():
    """The next larger scales' tables would cost 0.7 % more, here where most of a file's symbols are."""
    generator = torch.Generator().manual_seed(0)
    scale = 0.12 * 5 ** torch.rand(100_000, generator=generator).double()
    symbols = (torch.randn(len(scale), generator=generator) * scale).round()
    table = torch.bucketize(scale * arithmetic.ONE, torch.tensor(scale_thresholds()).double())
    estimate = -gaussian_likelihood(symbols, torch.zeros(1), scale).log2().sum().item()
    writer = StreamWriter()
    writer.put(CodingModels(gaussian_tables()), table.numpy(), symbols.long().numpy())
    assert 8 * len(writer.to_bytes()) == pytest.approx(estimate, rel=0.003)


def test_the_published_network_codes_at_its_default_weights():
    torch.manual_seed(0)
    codec = Codec(SegPIC())
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    reconstruction, coded = codec.forward(picture)
    streams = codec.write(coded)
    real, estimate = 8 * sum(map(len, streams.parts())), sum(coded.bits.values())
    assert 0.98 * estimate <= real <= 1.02 * estimate + 4 * 64
    assert np.array_equal(codec.decode(codec.to_file(coded, (64, 64))), to_picture(reconstruction))


def test_exactness_costs_few_bits(codec, network, picture):
    exact, floating = (
        sum(Codec(network, context).forward(picture)[1].bits.values())
        for context in (codec.context, FloatContext(network))
    )
    assert exact < 1.005 * floating


# The same everywhere.


class OtherRounding(TorchDispatchMode):
    """Moves every result of a product or convolution by up to two units in the last place."""

    products = ("mm", "addmm", "addmm_", "bmm", "matmul", "linear", "conv2d", "convolution")

    def __init__(self, seed=0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.moved = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ in self.products:
            first = out[0] if isinstance(out, tuple) else out
            ulps = torch.randint(-2, 3, first.shape, generator=self.generator)
            first.mul_(1 + ulps * torch.finfo(first.dtype).eps)
            self.moved += 1
        return out


def decoded_y(codec, file):
    found = CompressedPicture.from_bytes(file)
    size = tuple(padded(torch.zeros(1, 1, found.height, found.width)).shape[2:])
    return codec.read(found.streams, size, found.grid)[0]


def test_another_rounding_decodes_to_the_same_symbols(codec, file, picture):
    expected = codec.forward(picture)[1].y
    with OtherRounding() as other:
        y = decoded_y(codec, file)
    assert other.moved > 100 and torch.equal(y, expected)


def test_the_floating_point_context_fails_under_another_rounding(network, picture):
    codec = Codec(network, FloatContext(network))
    file, expected = codec.encode(picture), codec.forward(picture)[1].y
    with OtherRounding():
        try:
            different = not torch.equal(decoded_y(codec, file), expected)
        except UserError:
            different = True
    assert different


@pytest.mark.parametrize("threads, onednn", itertools.product((1, 2), (True, False)))
def test_threads_and_libraries_do_not_matter(codec, file, picture, threads, onednn):
    expected = codec.forward(picture)[1].y
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with torch.backends.mkldnn.flags(enabled=onednn):
            assert torch.equal(decoded_y(codec, file), expected)
    finally:
        torch.set_num_threads(before)


def test_a_bf16_encoder_writes_what_a_float32_decoder_reads(codec, picture):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coded = codec.code(to_input(picture))
    exact = codec.code(to_input(picture))
    assert not torch.equal(coded.symbols["y"], exact.symbols["y"])
    data = codec.to_file(coded, picture.shape[:2])
    assert torch.equal(decoded_y(codec, data), coded.y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decoded_y(codec, data), coded.y)


def test_compiled_layers_give_the_same_integers(network):
    x = torch.randint(-(2**18), 2**18, (2, 3, 12)).double()
    layers = fixed_point_of(network.h_mean_s[:2])
    compiled = torch.compile(layers, backend="aot_eager")
    assert torch.equal(compiled(x), layers(x))


def test_the_order_of_sums_does_not_matter(network):
    """A layer whose input channels are permuted sums in another order."""
    conv = network.cc_mean_transforms[1][0]
    order = torch.randperm(conv.in_channels)
    other = torch.nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
    with torch.no_grad():
        other.weight.copy_(conv.weight[:, order])
        other.bias.copy_(conv.bias)
    x = torch.randint(-arithmetic.LIMIT, arithmetic.LIMIT, (5, 4, conv.in_channels)).double()
    assert torch.equal(fixed_point_of(conv)(x), fixed_point_of(other)(x[..., order]))


def test_constant_tables_are_safe_from_the_c_library():
    """No entry lies so near a rounding boundary that an error of 1e-10 of its unit could move it."""
    places = np.arange(-16 * arithmetic.ONE, 16 * arithmetic.ONE) / arithmetic.ONE
    masses = [gaussian_mass(scale) * 65536 for scale in scale_table()]
    values = [np.array([f(x) * unit for x in places]) for f, unit in arithmetic.ACTIVATIONS.values()]
    for entries in (*masses, *values):
        assert np.abs(entries - np.floor(entries) - 0.5).min() > 5e-9
    scales = np.array(scale_table())
    edges = np.array(scale_edges()) * arithmetic.ONE
    assert np.abs(edges - np.round(edges)).min() > 1e-6
    assert np.abs(scales * TAIL_QUANTILE - np.round(scales * TAIL_QUANTILE)).min() > 1e-6
    assert arithmetic.gelu(torch.zeros(1).double()).item() == 0 and len(gaussian_tables()) == 64


def test_a_machine_with_other_tables_is_told():
    with pytest.raises(UserError, match="this machine computes other tables of sines"):
        arithmetic.check_digest("sines", [b"1"], hashlib.sha256(b"2").hexdigest())


# Fixed point against floating point.


def test_elementary_functions_are_accurate():
    x = np.linspace(-40, 40, 10_001)
    assert np.abs(ieee.exp(x) / np.exp(x) - 1).max() < 1e-14
    assert np.abs(ieee.tanh(x) - np.tanh(x)).max() < 1e-14
    assert np.abs(ieee.softplus(x) - np.logaddexp(0, x)).max() < 1e-14
    assert np.abs(ieee.sigmoid(x) - 1 / (1 + np.exp(-x))).max() < 1e-14


@pytest.mark.parametrize("part", ["h_mean_s", "g_sb2", "dyn_enc_hyper.conv"])
def test_fixed_point_layers_follow_the_network(network, part):
    module = network.get_submodule(part)
    channels = next(module.parameters()).shape[1]
    x = torch.randn(4, 6, channels)
    fixed = arithmetic.to_float(fixed_point_of(module)(arithmetic.to_fixed(x)))
    with torch.no_grad():
        expected = module(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    assert (fixed - expected).abs().max() < 0.004 * max(1, expected.abs().max())


def test_fixed_point_region_transform_follows_the_network():
    transform, x, codes = RegionAdaptiveTransform(6, 5), torch.randn(8, 12, 6), torch.randn(8, 12, 5)
    fixed = FixedRegionAdaptiveTransform(transform)(arithmetic.to_fixed(x), arithmetic.to_fixed(codes))
    with torch.no_grad():
        expected = transform(*(a.permute(2, 0, 1)[None] for a in (x, codes)))[0].permute(1, 2, 0)
    assert (arithmetic.to_float(fixed) - expected).abs().max() < 0.002


def test_sums_of_products_stay_exact_in_the_worst_case():
    weight = torch.randn(3, 4000) * torch.tensor([[1e-3], [1.0], [100.0]])
    integers, bits = integer_weights(weight, 21)
    assert integers.abs().sum(1).max() * 2**21 <= 2**48 and bits >= 8
    assert torch.equal(integers, integers.round())
    with pytest.raises(ValueError, match="too large"):
        integer_weights(torch.full((1, 4000), 1e6), 21)
    with pytest.raises(ValueError, match="not finite"):
        integer_weights(torch.tensor([[float("nan")]]), 21)


def test_integer_roots_are_exact():
    roots = torch.tensor([0, 1, 2, 3, 1000, 2**20 + 7, 2**25 - 1]).double()
    for offset, expected in ((0, 0), (1, 0), (-1, -1)):
        squares = (roots * roots + offset).clamp(min=0)
        found = arithmetic.integer_sqrt(squares)
        assert ((found * found <= squares) & ((found + 1) ** 2 > squares)).all()
        assert torch.equal(found[3:], roots[3:] + expected)


def test_gelu_goes_on_beyond_its_table():
    x = torch.tensor([-600.0, -16.0, 15.999755859375, 16.0, 600.0]).double() * arithmetic.ONE
    assert arithmetic.gelu(x).tolist() == [0, 0, *x[2:].tolist()]


def test_layers_without_a_fixed_point_form_are_named():
    with pytest.raises(TypeError, match="BatchNorm2d has no fixed-point form"):
        fixed_point_of(torch.nn.BatchNorm2d(3))
    with pytest.raises(TypeError, match="no fixed-point form of Conv2d"):
        fixed_point_of(torch.nn.Conv2d(3, 3, 3, stride=2))
    assert fixed_point_of(InverseGDN(3))(torch.zeros(1, 1, 3, dtype=torch.float64)).abs().max() == 0


# Tables and streams.


def test_tables_hold_every_symbol_and_sum_to_the_total():
    torch.manual_seed(0)
    for tables in (gaussian_tables(), bottleneck_tables(EntropyBottleneck(4))):
        for counts in tables.counts:
            assert counts.min() >= 1 and counts.sum() == 65536


def test_gaussian_tables_match_an_independent_normal_distribution():
    for scale, counts in list(zip(scale_table(), gaussian_tables().counts, strict=True))[::9]:
        side = len(counts) // 2 - 1
        places = np.arange(-side, side + 1)
        mass = norm.cdf((places + 0.5) / scale) - norm.cdf((places - 0.5) / scale)
        likely = mass > 1e-3
        assert np.allclose(counts[:-1][likely] / 65536, mass[likely], rtol=0.05)
    assert scale_table()[0] == pytest.approx(0.11) and scale_table()[-1] == pytest.approx(256)
    assert len(scale_thresholds()) == 63


def test_empty_bins_take_from_the_smallest_that_can_give():
    counts = quantised(np.array([0.9999, 1e-9, 3e-5, 7e-5]))
    assert counts.tolist() == [65529, 1, 1, 5] or counts.sum() == 65536
    assert counts.min() == 1


def test_learned_tables_follow_the_likelihood():
    torch.manual_seed(2)
    bottleneck = EntropyBottleneck(3)
    tables = bottleneck_tables(bottleneck)
    places = torch.arange(-10.0, 11)
    with torch.no_grad():
        mass = bottleneck.likelihood(places.expand(1, 3, 1, -1))[0, :, 0].numpy()
    for channel in range(3):
        assert tables.offsets[channel] == -10 and len(tables.counts[channel]) == 22
        assert np.allclose(tables.counts[channel][:-1] / 65536, mass[channel], atol=4e-5)


def test_broken_distributions_are_named():
    bottleneck = EntropyBottleneck(2)
    with torch.no_grad():
        bottleneck.quantiles[0, 0, 1] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        bottleneck_tables(bottleneck)


GAUSSIANS = CodingModels(gaussian_tables())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_streams_return_any_symbols(data):
    count = data.draw(st.integers(0, 40))
    symbol = st.one_of(st.integers(-3, 3), st.integers(-LARGEST_SYMBOL, LARGEST_SYMBOL))
    symbols = np.array(data.draw(st.lists(symbol, min_size=count, max_size=count)), np.int64)
    table = np.array(data.draw(st.lists(st.integers(0, 63), min_size=count, max_size=count)), np.int64)
    models = GAUSSIANS
    writer = StreamWriter()
    writer.put(models, table, symbols)
    writer.put(models, table[::-1], symbols[::-1])
    reader = StreamReader(writer.to_bytes(), "test")
    assert np.array_equal(reader.take(models, table), symbols)
    assert np.array_equal(reader.take(models, table[::-1].copy()), symbols[::-1])
    reader.finish()


def test_the_stream_format_is_pinned():
    """What a file of today holds must be readable by every later version."""
    models = CodingModels(gaussian_tables())
    writer = StreamWriter()
    symbols = np.arange(-40, 41) // 3
    writer.put(models, np.arange(81) % 64, symbols)
    digest = hashlib.sha256(writer.to_bytes()).hexdigest()
    assert digest == "956ca251e1eee5caa551fddb17921d58aa189c9908c1c9cbcf9fc3efb1f5f9f5"


def test_without_constriction_the_remedy_is_told(monkeypatch):
    _constriction.cache_clear()
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(UserError, match=r"pip install 'opsin-restoration\[compression\]'"):
        StreamWriter().to_bytes()
    _constriction.cache_clear()


def test_a_symbol_beyond_all_is_refused():
    with pytest.raises(UserError, match="has it been trained"):
        StreamWriter().put(CodingModels(gaussian_tables()), np.zeros(1, int), np.array([LARGEST_SYMBOL + 1]))


def test_latents_that_are_not_finite_are_refused(picture):
    network = SegPIC(**SMALL)
    with torch.no_grad():
        network.h_a[8].bias[0] = float("inf")
    with pytest.raises(UserError, match="not finite or larger than any symbol"):
        Codec(network).encode(picture)


def test_pictures_of_another_form_are_refused(codec):
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\), not float64 \(4, 4, 3\)"):
        codec.encode(np.zeros((4, 4, 3)))


def test_a_picture_too_large_is_refused_by_the_coder(codec, picture):
    with pytest.raises(UserError, match="the picture has 150x100 pixels, with padding more than 9999"):
        codec.encode(picture, max_pixels=9999)


def test_a_grid_out_of_range_is_refused(codec, picture):
    with pytest.raises(UserError, match="from 1 to 16"):
        codec.encode(picture, grid=17)


# Damage.

LARGEST_TEST = 2**18


def sealed(body):
    """A body with the checksum that belongs to it."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def decodes_or_tells(codec, data):
    """Whether the file decodes; anything but a picture or one line of explanation is an error."""
    try:
        picture = codec.decode(data, max_pixels=LARGEST_TEST)
    except UserError as error:
        assert "\n" not in str(error)
        return False
    assert picture.dtype == np.uint8 and picture.size <= 3 * LARGEST_TEST
    return True


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda f: f[:-1], "checksum"),
        (lambda f: f[:10], "truncated"),
        (lambda f: b"", "not an OPC file"),
        (lambda f: b"\x89PNG" + f[4:], "not an OPC file"),
        (lambda f: f[:4] + b"\x09" + f[5:], "version 9"),
        (lambda f: f[:50] + bytes([f[50] ^ 4]) + f[51:], "checksum"),
        (lambda f: sealed(f[:7] + bytes(8) + f[15:-4]), "made with the model 0000000000000000"),
        (lambda f: sealed(f[:5] + b"\x02" + f[6:-4]), "predictions are of kind 2"),
        (lambda f: sealed(f[:6] + b"\x00" + f[7:-4]), "a grid of 0"),
        (lambda f: sealed(f[:15] + b"\xff" * 9 + f[24:-4]), "does not end"),
        (lambda f: sealed(f[:-4] + b"1234"), "lengths do not add up"),
        (lambda f: sealed(f[:17]), "truncated"),
    ],
)
def test_damage_is_told_in_one_line(codec, file, damage, told):
    with pytest.raises(UserError, match=told) as caught:
        codec.decode(damage(file))
    assert "\n" not in str(caught.value)


def test_a_claim_of_a_huge_picture_is_refused_before_any_work(codec, file):
    found = CompressedPicture.from_bytes(file)
    for width, height in ((2**20, 2**20), (1, 2**24)):
        data = CompressedPicture(1, 4, found.model, width, height, found.streams).to_bytes()
        with pytest.raises(UserError, match="with padding more than"):
            codec.decode(data)


def test_streams_of_another_picture_size_are_noticed(codec, file):
    found = CompressedPicture.from_bytes(file)
    larger = CompressedPicture(1, 4, found.model, 300, 200, found.streams)
    smaller = CompressedPicture(1, 4, found.model, 64, 64, found.streams)
    with pytest.raises(UserError, match="damaged"):
        codec.decode(smaller.to_bytes())
    decodes_or_tells(codec, larger.to_bytes())


def test_bits_flipped_anywhere_are_noticed(codec, file):
    for place in range(0, 8 * len(file), 97):
        broken = bytearray(file)
        broken[place // 8] ^= 1 << place % 8
        assert not decodes_or_tells(codec, bytes(broken))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_hostile_files_with_right_checksums_are_survived(codec, file, data):
    body = bytearray(file[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_tells(codec, sealed(bytes(body[: data.draw(st.integers(0, len(body)))])))


@settings(max_examples=40, deadline=None)
@given(streams=st.lists(st.binary(max_size=60), min_size=4, max_size=4), grid=st.integers(1, 4))
def test_hostile_streams_are_survived(codec, streams, grid):
    decodes_or_tells(codec, CompressedPicture(1, grid, codec.model, 70, 60, Streams(*streams)).to_bytes())


@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=200))
def test_foreign_bytes_are_survived(codec, noise):
    assert not decodes_or_tells(codec, noise)
    assert not decodes_or_tells(codec, b"\x89OPC\x01" + noise)
