import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as reference

from opsin.core.errors import UserError
from opsin.restoration.metalens.metrics import MetalensMetric
from opsin.restoration.metrics import LPIPS, SuperResolutionMetric


@pytest.fixture(scope="module")
def alexnet():
    """AlexNet's features as torchvision builds them, with random weights."""
    torch.manual_seed(0)
    relu, pool = nn.ReLU(), nn.MaxPool2d(3, 2)
    layers = [nn.Conv2d(3, 64, 11, 4, 2), relu, pool, nn.Conv2d(64, 192, 5, padding=2), relu, pool]
    for channels in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(*channels, 3, padding=1), relu]
    return nn.Sequential(*layers, pool)


@pytest.fixture(scope="module")
def weights(alexnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    tensors = {f"features.{name}": tensor for name, tensor in alexnet.state_dict().items()}
    torch.save(tensors | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return str(path)


def test_distances_are_those_of_torchmetrics_whose_heads_are_used(alexnet, weights, monkeypatch):
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda net, pretrained: alexnet)
    theirs, ours = reference._LPIPS(net="alex"), LPIPS(weights)
    for size in ((31, 31), (64, 50)):
        pair = torch.rand(2, 2, 3, *size)
        found = ours(*pair)
        torch.testing.assert_close(found, theirs(*pair, normalize=True).flatten())
        assert found.shape == (2,) and (found > 1e-4).all()
    assert ours(pair[0], pair[0]).abs().max() == 0


def sample(size=40):
    rng = np.random.default_rng(0)
    image, truth = rng.integers(0, 256, (2, 3, size, size), np.uint8)
    return {"pred_img": torch.from_numpy(image), "gt_img": torch.from_numpy(truth)}


def test_metrics_measure_it_if_they_get_the_file(weights):
    given = sample()
    metric = SuperResolutionMetric(crop_border=4, measures=("psnr_y",), lpips_weights=weights)
    metric.process({}, [given])
    found = metric.evaluate(1)
    inner = [given[key][None, :, 4:-4, 4:-4] / 255 for key in ("pred_img", "gt_img")]
    assert found.keys() == {"sr/psnr_y", "sr/lpips"}
    assert found["sr/lpips"] == pytest.approx(float(LPIPS(weights)(*inner)), rel=1e-5)
    assert "lpips" not in SuperResolutionMetric(crop_border=4).measures
    floats = {key: picture / 255 for key, picture in given.items()}
    metric = MetalensMetric(lpips_weights=weights)
    metric.process({}, [floats | {"middle_img": floats["gt_img"]}])
    found = metric.evaluate(1)
    assert found["metalens/wiener_lpips"] == 0 < found["metalens/lpips"]


def test_mistakes_are_named(weights, tmp_path):
    with pytest.raises(UserError, match=r"no file .*nowhere\.pth; get torchvision's alexnet-owt-7be5be79"):
        LPIPS(tmp_path / "nowhere.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=r"is not torchvision's AlexNet: features\.0\.weight of"):
        LPIPS(tmp_path / "vgg.pth")
    with pytest.raises(UserError, match="sides of 31 pixels, and got 30x40"):
        LPIPS(weights).of_pictures(*np.zeros((2, 40, 30, 3)))
