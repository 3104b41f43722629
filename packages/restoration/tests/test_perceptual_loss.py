import pytest
import torch
from torch import nn

from opsin.core.errors import UserError
from opsin.restoration.models import PerceptualLoss
from opsin.restoration.models.perceptual_loss import LAYER_WEIGHTS, vgg19

LAYERS = {"conv1_2": 0.1, "conv2_2": 0.5}


@pytest.fixture(scope="module")
def classifier():
    """The first two stages as torchvision builds them, with random weights."""
    torch.manual_seed(0)
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    layers = [nn.Conv2d(3, 64, 3, padding=1), relu, nn.Conv2d(64, 64, 3, padding=1), relu, pool]
    layers += [nn.Conv2d(64, 128, 3, padding=1), relu, nn.Conv2d(128, 128, 3, padding=1), relu]
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def weights_file(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({f"features.{name}": tensor for name, tensor in classifier.state_dict().items()}, path)
    return path


@pytest.fixture
def loss(weights_file):
    perceptual = PerceptualLoss(str(weights_file), LAYERS, loss_weight=2.0)
    perceptual.init_weights()
    return perceptual


def test_layers_are_torchvisions():
    places = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    assert [layer.source for layer in vgg19()] == [f"features.{place}" for place in places]
    channels = {layer.name: layer.channels for layer in vgg19()}
    assert channels["conv3_1"] == (256, 128) and channels["conv5_4"] == (512, 512)
    assert LAYER_WEIGHTS.keys() < channels.keys()


def test_features_are_compared_before_their_relu(loss, classifier):
    image, target = torch.rand(2, 2, 3, 16, 16)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    a, b = (image - mean) / std, (target - mean) / std
    expected = 0.1 * (classifier[:3](a) - classifier[:3](b)).abs().mean()
    expected = expected + 0.5 * (classifier[:8](a) - classifier[:8](b)).abs().mean()
    torch.testing.assert_close(loss(image, target), 2 * expected)
    assert loss(image, image) == 0


def test_the_picture_alone_gets_gradients_and_checkpoints_hold_nothing(loss):
    image, target = torch.rand(1, 3, 16, 16, requires_grad=True), torch.rand(1, 3, 16, 16, requires_grad=True)
    loss(image, target).backward()
    assert image.grad.abs().sum() > 0 and target.grad is None
    assert not loss.state_dict() and not list(loss.parameters())


def test_a_missing_or_wrong_file_is_named(weights_file, tmp_path):
    with pytest.raises(UserError, match=r"no file .*nowhere\.pth; get torchvision's vgg19-dcbb9e9d\.pth"):
        PerceptualLoss(str(tmp_path / "nowhere.pth")).init_weights()
    with pytest.raises(UserError, match=r"is not torchvision's VGG19: features\.10\.weight"):
        PerceptualLoss(str(weights_file)).init_weights()
    with pytest.raises(UserError, match=r"unknown layer of VGG19 'conv1_3'; did you mean conv"):
        PerceptualLoss(layer_weights={"conv1_3": 1.0})


def test_untouched_weights_are_no_loss():
    with pytest.raises(RuntimeError, match="no weights before init_weights"):
        PerceptualLoss()(*torch.rand(2, 1, 3, 16, 16))
