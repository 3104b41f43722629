from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from opsin.core import create_model, list_models
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter, run_case
from opsin.core.published import load_published
from opsin.core.systems import get_system
from opsin.restoration.metalens.datasets import CleanImages, SimulateMetalens
from opsin.restoration.metalens.metrics import MetalensMetric, psnr_rgb, psnr_y, ssim_of_floats
from opsin.restoration.metalens.models import AberrationCorrector, ACFormer
from opsin.restoration.metalens.models.acformer import STAF, BlockSettings, Fusion
from opsin.restoration.metalens.optics import (
    Noise,
    blur,
    grid_of,
    noise_penalties,
    optical_transfer,
    read_psf,
    wiener,
    wiener_bank,
)
from opsin.restoration.metalens.samples import point_spread_functions

CASES = Path(__file__).parent / "parity" / "metalens-metaformer"
SMALL = dict(
    filters=3,
    dim=8,
    num_blocks=(1, 1, 1, 2),
    num_refinement_blocks=2,
    channel_heads=(1, 1, 2, 2),
    spatial_heads=(1, 1, 2, 2),
    spatial_dim_head=8,
    filter_attention=(8, 2, 8),
)


def small(**changes):
    return ACFormer(**{**SMALL, **changes}).eval()


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def delta(size, positions=9):
    """PSFs that blur nothing."""
    psf = torch.zeros(positions, size, size, 3)
    psf[:, size // 2, size // 2] = 1
    return psf


@pytest.mark.parametrize("case", get_system("metalens-metaformer").cases)
def test_public_cases_match(case):
    result = run_case(CASES / f"{case}.json")
    assert result.ok, (result.error, result.worst)


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        network = create_model("acformer")
    assert parameters(network) == 29_122_907 and list_models("acformer") == ["acformer"]
    names = ["ca", "patch_embed", "encoder_level1", "encoder_level2", "encoder_level3", "latent"]
    names += ["decoder_level3", "decoder_level2", "decoder_level1", "refinement"]
    assert [parameters(getattr(network, name)) for name in names] == [
        *(11_043, 16_848, 125_530, 947_832, 3_682_160, 14_528_496),
        *(3_682_160, 947_832, 461_626, 923_252),
    ]


@pytest.mark.parametrize("size", [5, 6])
def test_a_delta_lens_reproduces_the_picture_moved_by_the_shift_of_fftshift(size):
    psf = delta(size)
    grid, otf = grid_of(psf.shape), optical_transfer(psf)
    scene = torch.zeros(1, 3, *grid.canvas)
    scene[..., size + 2 : -size - 2, size + 2 : -size - 2] = torch.rand(3, 3 * size - 4, 3 * size - 4)
    seen = grid.joined(blur(grid.patches(scene), otf))[0]
    moved = size % 2  # odd sizes: the centre is at index -1
    torch.testing.assert_close(
        seen, grid.without_ring(scene.roll((-moved, -moved), (-2, -1)))[0], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("size", [5, 6])
def test_a_delta_lens_without_noise_is_undone_by_every_filter(size):
    psf = delta(size)
    grid, otf = grid_of(psf.shape), optical_transfer(psf)
    scene = torch.rand(1, 3, *grid.canvas)
    found = grid.joined(wiener(blur(grid.patches(scene), otf), otf, 1e-9))
    torch.testing.assert_close(found, grid.without_ring(scene), atol=1e-5, rtol=0)


def high_frequencies(picture):
    """Variance of what a 3x3 average leaves, in the inside."""
    return (picture - torch.nn.functional.avg_pool2d(picture, 3, 1, 1))[..., 2:-2, 2:-2].var().item()


def simulated(noise=1e-3, count=13):
    psf = torch.from_numpy(point_spread_functions())
    grid, otf = grid_of(psf.shape), optical_transfer(psf)
    torch.manual_seed(0)
    scene = torch.nn.functional.avg_pool2d(torch.rand(1, 3, *grid.canvas), 5, 1, 2)
    noisy = Noise(noise, noise / 10)(blur(grid.patches(scene), otf))
    return grid.without_ring(scene)[0], wiener_bank(noisy, otf, grid, count)[0]


def test_candidates_are_ordered_from_smooth_to_sharp_and_noisy():
    _, candidates = simulated()
    found = [high_frequencies(candidate) for candidate in candidates]
    assert found == sorted(found) and found[-1] > 2 * found[0]
    assert noise_penalties(13)[[0, 12]].tolist() == pytest.approx([1e-2, 1e-5])


def test_without_noise_a_smaller_penalty_is_nearer_to_the_scene():
    scene, candidates = simulated(noise=0)
    errors = [(candidate - scene).abs().mean().item() for candidate in candidates]
    assert errors == sorted(errors, reverse=True)


def test_noise_has_the_stated_variance():
    torch.manual_seed(0)
    brightness = torch.full((200_000,), 0.5)
    noisy = Noise(photon=4e-4, sensor=1e-2)(brightness)
    assert noisy.mean().item() == pytest.approx(0.5, abs=1e-3)
    assert noisy.var().item() == pytest.approx(4e-4 * 0.5 + 1e-4, rel=0.03)
    assert torch.equal(Noise(0, 0)(brightness), brightness)


def test_patches_and_joined_are_each_others_inverse_on_a_grid_that_is_no_square():
    grid = grid_of((6, 4, 5, 3), rows=2)
    assert grid.sensor == (8, 15) and grid.canvas == (16, 25)
    scene = torch.rand(2, 3, *grid.canvas)
    patches = grid.patches(scene)
    assert patches.shape == (2, 6, 3, 12, 15)
    assert torch.equal(patches[0, 4], scene[0, :, 4:16, 5:20])
    assert torch.equal(grid.joined(patches), grid.without_ring(scene))
    with pytest.raises(UserError, match="make it 25x16"):
        grid.patches(scene[..., :-1])


def test_the_query_of_all_candidates_is_that_of_the_middle_one():
    network = small(filters=5)
    candidates = torch.rand(1, 5, 3, 16, 24)
    with torch.inference_mode():
        before = network.refined_filters(candidates).unflatten(1, (5, 3))
        for changed in range(5):
            other = candidates.clone()
            other[:, changed] = torch.rand(3, 16, 24)
            after = network.refined_filters(other).unflatten(1, (5, 3))
            moved = [j for j in range(5) if not torch.allclose(after[:, j], before[:, j], atol=1e-6)]
            assert moved == (list(range(5)) if changed == 2 else [changed])


def test_fusion_weighs_channels_in_the_encoder_and_pixels_in_the_decoder():
    x = torch.randn(2, 8, 16, 24)
    assert Fusion(8, per_pixel=False)(x, x).shape == (2, 8, 1, 1)
    assert Fusion(8, per_pixel=True)(x, x).shape == (2, 1, 16, 24)
    network = small()
    assert all(block.fusion.averaged == (2, 3) for block in (*network.encoder_level2, *network.latent))
    assert all(block.fusion.averaged == (1,) for block in (*network.decoder_level1, *network.refinement))
    block = STAF(8, 2, 2, per_pixel=True, query_kernel=3, settings=BlockSettings(spatial_dim_head=4)).eval()
    block.fusion.forward = lambda spatial, channel: torch.ones_like(spatial[:, :1])
    with torch.inference_mode():
        spatial = x + block.spatial_attn(block.norm1(x))
        torch.testing.assert_close(block(x), spatial + block.spatial_ffn(block.norm2(spatial)))


def test_every_second_block_from_the_latent_on_has_high_pass_queries():
    with torch.device("meta"):
        network = ACFormer()

    def kernels(level):
        return [block.channel_attn.kernel for block in getattr(network, level)]

    assert kernels("encoder_level3") == [0, 0, 0, 0] and kernels("latent") == [0, 15, 0, 15]
    assert kernels("decoder_level3") == [0, 11, 0, 11] and kernels("decoder_level2") == [0, 7, 0, 7]
    assert kernels("decoder_level1") == [0, 3] and kernels("refinement") == [0, 3, 0, 3]


def test_with_a_zero_output_the_result_is_the_middle_candidate():
    network = small(
        init_cfg=dict(type="Constant", val=0, layer=[], override=dict(type="Constant", name="output", val=0))
    )
    network.init_weights()
    candidates = torch.rand(1, 3, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(candidates), candidates[:, 1])


@pytest.mark.parametrize("size", [(64, 128), (50, 70), (5, 9)])
def test_any_size_goes_through_and_is_extended_by_reflection(size):
    network, candidates = small(), torch.rand(1, 3, 3, *size)
    with torch.inference_mode():
        restored = network(candidates)
        assert restored.shape == (1, 3, *size)
        if size == (50, 70):
            flat = torch.nn.functional.pad(candidates[0], (0, 58, 0, 14), mode="reflect")[None]
            torch.testing.assert_close(restored, network(flat)[..., :50, :70])


def test_every_parameter_gets_a_gradient():
    network = small().train()
    network(torch.rand(2, 3, 3, 64, 64)).square().mean().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]


def test_bf16_autocast_stays_near():
    network, candidates = small(), torch.rand(1, 3, 3, 64, 64)
    with torch.inference_mode():
        exact = network(candidates)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(candidates)
    assert (exact - rounded.float()).abs().mean() < 0.02


def test_export_computes_the_same():
    network, candidates = small(num_blocks=(1, 1, 1, 1), num_refinement_blocks=1), torch.rand(1, 3, 3, 64, 64)
    program = torch.export.export(network, (candidates,)).module()
    with torch.inference_mode():
        torch.testing.assert_close(program(candidates), network(candidates), atol=1e-5, rtol=1e-4)


def made_case(source, built_with, module, shape):
    named = ACFormer.to_published(module.state_dict())
    return Case(
        {
            "system": "metalens-metaformer",
            "case": "made",
            "source": f"benhenryL/Metalens-Transformer@0 basicsr/models/archs/restormer_arch.py {source}",
            "tolerance": 1e-3,
            "built_with": built_with,
            "tensors": [[name, list(tensor.shape)] for name, tensor in named.items()],
            "inputs": {"x": {"kind": "uniform", "seed": 1, "shape": list(shape)}},
            "outputs": {},
        },
        {},
    )


@pytest.mark.parametrize("changes", [dict(), dict(filter_attention=None), dict(norm="BiasFree", bias=True)])
def test_network_adapter_takes_other_settings(changes):
    network = small(filters=5, query_kernels=(3, 5, 3, 0, 0), **changes)
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in SMALL.items()}
    del settings["filter_attention"], settings["filters"]
    built_with = dict(settings, M=5, inp_channels=15, ca_dim=8, ca_heads=2, query_ksize=[3, 5, 3, 0, 0])
    built_with |= {"LayerNorm_type": changes.get("norm", "WithBias"), "bias": changes.get("bias", False)}
    case = made_case("ACFormer", built_with, network, (1, 5, 3, 64, 128))
    outputs = find_adapter(case)(case)
    assert outputs["out"].shape == (1, 3, 64, 128) and outputs["mafg"].shape == (1, 15, 64, 128)


def test_block_adapter_takes_other_settings():
    block = STAF(12, 3, 2, per_pixel=True, query_kernel=3, settings=BlockSettings(4, 0.5, 6, 2.0))
    holder = torch.nn.ModuleDict({"dec": block})
    built_with = dict(dim=12, window_size=4, overlap_ratio=0.5, spatial_dim_head=6, ffn_expansion_factor=2.0)
    own = dict(num_channel_heads=3, num_spatial_heads=2, channel_fusion=True, query_ksize=3)
    case = made_case("Transformer_STAF", {**built_with, "dec": own}, holder, (2, 12, 8, 16))
    assert find_adapter(case)(case)["dec"].shape == (2, 12, 8, 16)


@pytest.mark.parametrize(
    ("padding", "rows", "columns"),
    [
        ([2, 3, 0, 0], slice(9, 25), slice(7, 28)),
        ([0, 0, 1, 2], slice(7, 28), slice(8, 26)),
        ([2, 3, 1, 2], slice(9, 25), slice(7, 28)),  # the authors crop one axis only
        ([1, 0, 0, 1], slice(7, 28), slice(7, 28)),  # and none that is padded on one side
    ],
)
def test_filter_bank_adapter_crops_as_the_authors_do(padding, rows, columns):
    inputs = {
        "image": {"kind": "uniform", "seed": 1, "shape": [1, 3, 35, 35]},
        "psf": {"kind": "uniform", "seed": 2, "shape": [9, 7, 7, 3]},
        "noise": {"kind": "uniform", "seed": 3, "shape": [1, 9, 3, 21, 21], "low": -0.01, "high": 0.01},
        "M": {"kind": "literal", "value": 3, "dtype": "int64"},
        "padding": {"kind": "literal", "value": [padding], "dtype": "int64"},
    }
    source = "benhenryL/Metalens-Transformer@0 basicsr/utils/nano.py psf2otf"
    case = Case({"system": "metalens-metaformer", "case": "made", "source": source, "inputs": inputs}, {})
    outputs = find_adapter(case)(case)
    expected = case.inputs()["image"][0, :, rows, columns]
    assert torch.equal(outputs["gt"], expected)
    assert outputs["filters"].shape == (3, *expected.shape)


@pytest.mark.parametrize("wrapper", ["params", "state_dict"])
def test_published_files_load_into_network_and_model(tmp_path, wrapper):
    network = small()
    published = ACFormer.to_published(network.state_dict())
    assert any("rel_pos_emb.rel_height" in name for name in published)
    torch.save({wrapper: {f"module.{name}": t for name, t in published.items()}}, tmp_path / "net.pth")
    other = load_published(small(), tmp_path / "net.pth")
    model = AberrationCorrector(dict(type="opsin.ACFormer", **SMALL))
    model.load_state_dict(dict(published))
    for found in (other, model.network):
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), found.parameters(), strict=True))
    with pytest.raises(UserError, match=r"net\.pth is not for ACFormer"):
        load_published(small(dim=16), tmp_path / "net.pth")


def test_the_wrong_number_of_candidates_is_told():
    with pytest.raises(UserError, match="takes 3 candidates"):
        small()(torch.rand(1, 5, 3, 64, 64))


def test_metric_equals_scikit_image():
    rng = np.random.default_rng(0)
    clean = rng.random((20, 24, 3))
    image = (clean + 0.1 * rng.standard_normal(clean.shape)).clip(0, 1)
    a, b = (np.round(picture * 255).astype(np.uint8) for picture in (clean, image))
    assert psnr_rgb(image, clean) == pytest.approx(peak_signal_noise_ratio(a, b))
    expected = structural_similarity(2 * clean - 1, 2 * image - 1, channel_axis=-1, data_range=2.0)
    assert ssim_of_floats(image, clean) == pytest.approx(expected)
    weights = np.array([65.481, 128.553, 24.966]) / 255
    error = ((a.astype(float) - b.astype(float)) @ weights) ** 2
    assert psnr_y(image, clean) == pytest.approx(10 * np.log10(255**2 / error.mean()))
    metric = MetalensMetric()
    tensors = {k: torch.from_numpy(p.transpose(2, 0, 1)) for k, p in (("gt_img", clean), ("pred_img", image))}
    metric.process(None, [{**tensors, "middle_img": tensors["gt_img"]}])
    found = metric.compute_metrics(metric.results)
    assert found["ssim"] == pytest.approx(expected) and found["wiener_ssim"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("psf", "text"),
    [
        (np.ones((9, 5, 5), np.float32), "is needed"),
        (np.full((9, 5, 5, 3), 0.5, np.float32), "divide each by its sum"),
        (np.full((8, 5, 5, 3), 0.04, np.float32), "8 positions are no square"),
    ],
)
def test_unusable_point_spread_functions_are_told(tmp_path, psf, text):
    np.save(tmp_path / "psf.npy", psf)
    with pytest.raises(UserError, match=text):
        read_psf(tmp_path / "psf.npy")
    with pytest.raises(UserError, match="no point spread functions"):
        read_psf(tmp_path / "none.npy")
    (tmp_path / "psf.npy").write_bytes(b"text")
    with pytest.raises(UserError, match="is no array file"):
        read_psf(tmp_path / "psf.npy")


def test_pictures_are_laid_in_the_middle_of_the_sensor(tmp_path):
    np.save(tmp_path / "psf.npy", delta(6).numpy())
    simulate = SimulateMetalens(str(tmp_path / "psf.npy"), filters=3, photon_noise=0, sensor_noise=0)
    image = np.random.default_rng(0).integers(0, 256, (27, 54, 3), np.uint8)
    results = simulate.transform({"img": image, "img_path": "a.png"})
    assert results["candidates"].shape == (3, 3, 9, 18) and results["gt_img"].shape == (3, 9, 18)
    torch.testing.assert_close(results["raw_img"], results["gt_img"], atol=1e-5, rtol=0)
    scene, padding = simulate.scene(image, "a.png")
    assert padding == (4, 5, 0, 0) and scene.shape == (3, 30, 30) and not scene[:, :10].any()
    simulate.resize = False
    with pytest.raises(UserError, match=r"a\.png is 54x27, and the sensor 18x18"):
        simulate.transform({"img": image, "img_path": "a.png"})


def test_a_crop_is_the_same_part_of_the_whole(tmp_path):
    np.save(tmp_path / "psf.npy", point_spread_functions())
    settings = dict(psf=str(tmp_path / "psf.npy"), filters=3, photon_noise=0, sensor_noise=0)
    sample = {"img": np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8), "img_path": "a.png"}
    whole = SimulateMetalens(**settings).transform(sample)
    np.random.seed(1)
    crop = SimulateMetalens(**settings, crop=30).transform(sample)
    np.random.seed(1)
    np.random.randint(2**31)  # the noise
    y, x = np.random.randint(80 - 30 + 1), np.random.randint(96 - 30 + 1)
    for key in ("candidates", "raw_img", "gt_img"):
        torch.testing.assert_close(crop[key], whole[key][..., y : y + 30, x : x + 30], atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"a\.png has 96x80 pixels on the sensor; a crop takes 90"):
        SimulateMetalens(**settings, crop=90).transform(sample)


def test_noise_is_drawn_anew_unless_it_is_fixed(tmp_path):
    np.save(tmp_path / "psf.npy", delta(6).numpy())
    image = np.full((18, 18, 3), 128, np.uint8)

    def drawn(fixed):
        simulate = SimulateMetalens(str(tmp_path / "psf.npy"), filters=2, fixed_noise=fixed)
        return [simulate.transform({"img": image, "img_path": "a.png"})["raw_img"] for _ in range(2)]

    assert torch.equal(*drawn(True)) and not torch.equal(*drawn(False))


def test_a_folder_without_pictures_is_told(tmp_path):
    with pytest.raises(UserError, match="no image in folder"):
        CleanImages(data_root=str(tmp_path))
