from pathlib import Path

import pytest
import torch

from opsin.core import create_model, list_models
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter, run_case
from opsin.core.published import load_published
from opsin.core.systems import get_system
from opsin.registry import MODELS
from opsin.restoration.cloud_removal.models import PMAA, CloudFreeDiscriminator, CloudTeacher
from opsin.restoration.cloud_removal.models.pmaa import ProgressiveBlock
from opsin.restoration.cloud_removal.models.pmaa.network import NORMS

CASES = Path(__file__).parent / "parity" / "pmaa"
INSTANCE, NOTHING = NORMS["instance"]


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def small(**changes):
    """A network of a sixteenth of the cost, with layer scales at which attention counts."""
    network = PMAA(**{"hidden_channels": 4, **changes}).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "layer_scale" in name:
                parameter.fill_(1.0)
    return network


@pytest.mark.parametrize("case", get_system("pmaa").cases)
def test_public_cases_match(case):
    result = run_case(CASES / f"{case}.json")
    assert result.ok, (result.error, result.worst)


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        new, old, written = create_model("pmaa_new"), create_model("pmaa_old"), PMAA(32, 4, norm="batch")
        assert [parameters(network) for network in (new, old, written)] == [3_439_689, 3_439_656, 3_471_881]
        assert parameters(CloudTeacher()) == 222_661
        assert [parameters(CloudFreeDiscriminator(n)) for n in (16, 15)] == [2_844_609, 2_843_585]
    parts = [new.feature_extractor, new.concat_unet, new.other_unet, new.output_layer]
    assert [parameters(part) for part in parts] == [219_717, 1_078_784, 2_141_056, 132]
    assert list_models("pmaa*") == ["pmaa_new", "pmaa_old"]


def test_instance_norm_leaves_no_norm_weights_in_the_state_dict():
    names = list(small().state_dict())
    assert not [n for n in names if "running" in n or ".bn1." in n or ".bn2." in n or "conv_in.1" in n]
    written = list(small(norm="batch").state_dict())
    assert (
        "concat_unet.spp_dw.0.bn1.running_mean" in written
        and "feature_extractor.ASPP.convs.4.2" not in written
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 80), (33, 45)])
def test_masks_and_pictures_stay_in_range_at_any_size(height, width):
    dates = torch.randn(2, 3, 4, height, width)
    with torch.inference_mode():
        image, masks, aux = small(out_channels=3)(dates)
    assert image.shape == (2, 3, height, width) and image.abs().max() <= 1
    assert masks.shape == (2, 3, 1, height, width) and masks.min() > 0 and masks.max() < 1
    assert aux.shape == (2, 3, 4, height, width) and aux.abs().max() <= 1


def test_the_order_of_the_dates_matters():
    network, dates = small(), torch.randn(1, 3, 4, 32, 32)
    with torch.inference_mode():
        image, masks, _ = network(dates)
        turned, turned_masks, _ = network(dates.flip(1))
    assert (image - turned).abs().max() > 1e-2
    torch.testing.assert_close(masks, turned_masks.flip(1))


def test_samples_of_a_batch_do_not_see_each_other():
    network, dates = small(), torch.randn(2, 3, 4, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(network(dates).image[1:], network(dates[1:]).image, atol=1e-5, rtol=1e-4)


def test_only_the_deepest_injection_gets_no_gradient():
    network = small().train()
    image, masks, aux = network(torch.randn(1, 3, 4, 32, 32))
    (image.mean() + masks.square().mean() + aux.square().mean()).backward()
    without = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    blocks = ("concat_unet", "other_unet.0", "other_unet.1")
    parts = ("local_embedding", "global_embedding", "global_act")
    assert without == {f"{block}.loc_glo_fus.4.{part}.0.weight" for block in blocks for part in parts}


@pytest.mark.parametrize("depth", [2, 3])
def test_the_decoder_begins_with_the_finer_map_or_wraps_around(depth):
    block = ProgressiveBlock(4, 8, 4, depth, INSTANCE, NOTHING).eval()
    x = torch.randn(1, 4, 16, 16)
    with torch.inference_mode():
        before = block(x)
        block.loc_glo_fus[depth - 1].global_embedding[0].weight.neg_()
        unused = torch.equal(block(x), before)
    assert unused == (depth > 2)


def test_the_sum_of_the_dates_is_the_residual_of_the_first_block():
    block = ProgressiveBlock(12, 8, 4, 3, INSTANCE, NOTHING).eval()
    bare = ProgressiveBlock(12, 8, 4, 3, INSTANCE, NOTHING, residual=False).eval()
    bare.load_state_dict(block.state_dict())
    x = torch.randn(1, 12, 16, 16)
    with torch.inference_mode():
        expected = bare(x) + x[:, :4] + x[:, 4:8] + x[:, 8:]
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(
    ("source", "built_with", "module", "shape", "output"),
    [
        ("model/pmaa.py PMAA", dict(hidden_channels=4, out_channels=3), PMAA(4, 3), (2, 3, 4, 32, 48), "out"),
        (
            "model/pmaa.py PMAA",
            dict(hidden_channels=4, out_channels=4),
            PMAA(4, 4, norm="batch"),
            (1, 3, 4, 32, 32),
            "pred1",
        ),
        (
            "model/pmaa.py OtherUConvBlock",
            dict(in_channels=12, hidden_channels=8, out_channels=4, upsampling_depth=3, is_first=True),
            ProgressiveBlock(12, 8, 4, 3, INSTANCE, NOTHING, residual=False),
            (1, 12, 16, 24),
            "out",
        ),
        ("model/fe.py FeatureExtractor", {}, CloudTeacher(), (1, 4, 16, 16), "feat"),
        (
            "model/discriminator.py Discriminator",
            {"input_nc": 5},
            CloudFreeDiscriminator(5),
            (1, 5, 96, 64),
            "out",
        ),
    ],
    ids=["three-bands", "batch-norm", "first-block", "teacher", "discriminator"],
)
def test_adapters_take_other_settings(source, built_with, module, shape, output):
    tensors = [[name, list(t.shape)] for name, t in module.state_dict().items() if t.ndim]
    meta = {"system": "pmaa", "case": "made", "source": f"XavierJiezou/PMAA@0 {source}", "tolerance": 1e-3}
    inputs = {"x": {"kind": "normal", "seed": 1, "shape": list(shape)}}
    case = Case({**meta, "built_with": built_with, "tensors": tensors, "inputs": inputs, "outputs": {}}, {})
    found = find_adapter(case)(case)[output]
    assert found.shape[0] == shape[0] and torch.isfinite(found).all() and found.abs().max() > 0


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_published_files_load(tmp_path, wrapper):
    network = small()
    tensors = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({wrapper: tensors} if wrapper else network.state_dict(), tmp_path / "pmaa.pth")
    other = load_published(PMAA(4, 4), tmp_path / "pmaa.pth")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_a_file_of_the_other_data_set_is_named(tmp_path):
    torch.save(PMAA(4, 3).state_dict(), tmp_path / "pmaa_old.pth")
    with pytest.raises(UserError, match=r"pmaa_old\.pth is not for PMAA: output_layer\.0\.weight is \[3, 4"):
        load_published(PMAA(4, 4), tmp_path / "pmaa_old.pth")


@pytest.mark.parametrize(
    ("shape", "text"), [((1, 2, 4, 32, 32), "takes 3 dates"), ((1, 3, 4, 16, 12), "at least 32x32")]
)
def test_wrong_inputs_are_told(shape, text):
    with pytest.raises(UserError, match=text):
        small()(torch.zeros(shape))


def test_an_unknown_norm_is_told():
    with pytest.raises(UserError, match="unknown norm of PMAA 'layer'"):
        PMAA(4, norm="layer")


def test_bf16_autocast_stays_near():
    network, dates = small(), torch.randn(1, 3, 4, 32, 32)
    with torch.inference_mode():
        exact = network(dates).image
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(dates).image
    assert (exact - rounded.float()).abs().mean() < 0.05


def test_export_computes_the_same():
    network, dates = small(), torch.randn(1, 3, 4, 32, 32)
    program = torch.export.export(network, (dates,)).module()
    with torch.inference_mode():
        torch.testing.assert_close(program(dates)[0], network(dates).image, atol=1e-5, rtol=1e-4)


def test_the_teacher_stays_frozen_and_in_evaluation():
    teacher = MODELS.build(dict(type="opsin.CloudTeacher")).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    masks = teacher.masks(torch.randn(2, 3, 4, 16, 16), torch.zeros(2, 4, 16, 16))
    assert masks.shape == (2, 3, 1, 16, 16) and not masks.requires_grad
