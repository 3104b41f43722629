import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from opsin.classification.models import Distillation, ImageClassifier, MixupCutmix, PooledClassifier
from opsin.core.errors import UserError
from opsin.registry import MODELS

CONVNEXT = {"type": "opsin.ConvNeXt", "arch": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}}


class Brightness(nn.Module):
    """A network whose logits can be foretold: class 0 by the mean of the first channel, class 1 the rest."""

    num_classes = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x[:, 0].mean((1, 2))
        return torch.stack([mean, -mean], dim=1)


@pytest.fixture
def brightness(monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, "Brightness", Brightness)
    return {"type": "opsin.Brightness"}


def labelled(*labels: int) -> list[BaseDataElement]:
    samples = [BaseDataElement() for _ in labels]
    for sample, label in zip(samples, labels, strict=True):
        sample.gt_label = torch.tensor(label)
    return samples


def batch(images: torch.Tensor, *labels: int) -> dict:
    return {"inputs": list(images), "data_samples": labelled(*labels)}


PREPROCESSOR = {"type": "ImgDataPreprocessor", "mean": [100.0, 100, 100], "std": [50.0, 50, 50]}


def test_loss_is_the_smoothed_cross_entropy_of_normalised_images(brightness):
    loss = {"type": "opsin.SoftTargetCrossEntropy", "label_smoothing": 0.2}
    model = ImageClassifier(brightness, loss=loss, data_preprocessor=PREPROCESSOR)
    data = model.data_preprocessor(batch(torch.full((1, 3, 4, 4), 150, dtype=torch.uint8), 0))
    log_likely, log_unlikely = torch.tensor([1.0, -1.0]).log_softmax(0)
    expected = -(0.9 * log_likely + 0.1 * log_unlikely)
    assert torch.isclose(model(**data, mode="loss")["loss"], expected)


def test_predictions_are_probabilities_and_the_likeliest_label(brightness):
    model = ImageClassifier(brightness, data_preprocessor=PREPROCESSOR)
    dark_and_bright = torch.stack([torch.full((3, 4, 4), 50), torch.full((3, 4, 4), 200)]).to(torch.uint8)
    dark, bright = model.test_step(batch(dark_and_bright, 1, 1))
    assert (int(dark.pred_label), int(bright.pred_label)) == (1, 0)
    assert torch.allclose(bright.pred_scores, torch.tensor([2.0, -2.0]).softmax(0))


def test_a_label_beyond_the_network_names_the_setting(brightness):
    model = ImageClassifier(brightness, data_preprocessor=PREPROCESSOR)
    with pytest.raises(UserError, match=r"class 5 .* has 2 classes.*model\.network\.num_classes"):
        model(torch.zeros(1, 3, 4, 4), labelled(5), mode="loss")


@pytest.mark.parametrize("settings", [{"cutmix": 0.0}, {"mixup": 0.0}, {}])
def test_targets_follow_what_the_images_are_made_of(settings):
    mix = MixupCutmix(**settings)
    values = torch.tensor([0.0, 1.0, 2.0, 3.0])
    images = values[:, None, None, None].expand(4, 3, 20, 30)
    targets = torch.eye(4)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, soft = mix(images, targets)
        assert torch.allclose(soft.sum(1), torch.ones(4))
        # the share of each source in the target is its share in the picture
        assert torch.allclose(mixed.mean((1, 2, 3)), soft @ values, atol=1e-4)
        assert torch.equal(images[1], torch.ones(3, 20, 30))


def test_cutmix_pastes_and_mixup_blends():
    images = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 16, 16)
    torch.manual_seed(0)
    assert set(MixupCutmix(mixup=0.0)(images, torch.eye(2))[0].unique().tolist()) == {0.0, 1.0}
    blended = MixupCutmix(cutmix=0.0)(images, torch.eye(2))[0]
    assert all(image.unique().numel() == 1 and 0 < image.max() < 1 for image in blended)
    untouched, _ = MixupCutmix(probability=0.0)(images, torch.eye(2))
    assert torch.equal(untouched, images)


@pytest.mark.parametrize("settings", [{"mixup": 0, "cutmix": 0}, {"mixup": -1}, {"switch": 2}])
def test_impossible_mixtures_are_refused(settings):
    with pytest.raises(UserError, match="MixupCutmix"):
        MixupCutmix(**settings)


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        (CONVNEXT, {}),
        ({"type": "opsin.VisionMamba", "arch": {"embed_dim": 16, "depth": 4}, "img_size": 64}, {}),
    ],
)
def test_any_opsin_backbone_becomes_a_classifier(backbone, settings):
    model = PooledClassifier(backbone, num_classes=3, **settings)
    logits = model(torch.randn(2, 3, 64, 80))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    without = [name for name, p in model.backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name in without if not name.startswith(("norm0", "norm1", "norm2", "fpn"))]
    layer, layers = model.get_layer_depth("head.weight")
    assert layer == layers - 1


def test_a_backbone_of_mmdet_becomes_a_classifier():
    pytest.importorskip("mmdet")
    resnet = {"type": "mmdet.ResNet", "depth": 18}
    assert PooledClassifier(resnet, num_classes=3, in_channels=512)(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(UserError, match=r"ResNet does not say.*in_channels"):
        PooledClassifier(resnet, num_classes=3)


def test_channels_that_contradict_the_backbone_are_refused():
    with pytest.raises(UserError, match="in_channels is 99 and the last map of ConvNeXt has 32"):
        PooledClassifier(CONVNEXT, in_channels=99)


def test_layer_decay_reaches_through_the_wrappers():
    network = {"type": "opsin.PooledClassifier", "backbone": CONVNEXT, "num_classes": 2}
    model = ImageClassifier(network)
    assert model.get_layer_depth("network.backbone.stages.3.0.gamma") == (4, 6)
    assert model.get_layer_depth("network.norm.bias") == (5, 6)


class Shy(Brightness):
    """Has a loss of its own: bright pictures cost."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.brightness = x.mean()
        return super().forward(x)

    def auxiliary_losses(self) -> dict[str, torch.Tensor]:
        return {"loss_brightness": 0.1 * self.brightness}


def test_losses_of_the_network_are_added(monkeypatch, brightness):
    monkeypatch.setitem(MODELS.module_dict, "Shy", Shy)
    images, samples = torch.full((2, 3, 4, 4), 3.0), labelled(0, 1)
    plain = ImageClassifier(brightness)(images, samples, mode="loss")
    model = ImageClassifier({"type": "opsin.Shy"})
    losses = model(images, samples, mode="loss")
    assert set(plain) == {"loss"} and losses["loss"] == plain["loss"]
    total, _ = model.parse_losses(losses)
    assert torch.isclose(total, plain["loss"] + 0.3)


def test_losses_of_a_pooled_backbone_are_passed_on():
    arch = {
        "embed_dims": (8, 8, 8, 8),
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 1, 2, 4),
        "shared_heads": (1, 1, 2, 1),
        "routed_heads": (0, 0, 0, 2),
    }
    moh = {"type": "opsin.PooledClassifier", "backbone": {"type": "opsin.MoHViT", "arch": arch}}
    images, samples = torch.randn(2, 3, 64, 64), labelled(0, 1)
    model = ImageClassifier({**moh, "num_classes": 2}).train()
    assert model(images, samples, mode="loss")["loss_balance"] > 0
    convnext = {"type": "opsin.PooledClassifier", "backbone": CONVNEXT, "num_classes": 2}
    assert set(ImageClassifier(convnext).train()(images, samples, mode="loss")) == {"loss"}


class Opposite(Brightness):
    """Calls class 0 what `Brightness` calls class 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).flip(1)


class TwoHeads(Brightness):
    """As networks with a head for a teacher: a pair of logits in training."""

    def __init__(self) -> None:
        super().__init__()
        self.distilled = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor):
        logits = super().forward(x)
        return (logits, logits.detach() + self.distilled) if self.training else logits


@pytest.fixture
def teacher(monkeypatch, brightness):
    for network in (Opposite, TwoHeads):
        monkeypatch.setitem(MODELS.module_dict, network.__name__, network)
    return {"type": "opsin.Opposite"}


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_second_head_follows_the_teacher_and_not_the_label(teacher, kind):
    distillation = {"type": "opsin.Distillation", "teacher": teacher, "kind": kind}
    model = ImageClassifier({"type": "opsin.TwoHeads"}, distillation=distillation)
    images, samples = torch.ones(4, 3, 4, 4), labelled(0, 0, 0, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        model(images, samples, mode="loss")["loss"].backward()
        optimizer.step()
    likely = (torch.tensor([1.0, -1.0]) + model.network.distilled).argmax()
    assert int(likely) == 1  # the teacher's; the label is 0


def test_teacher_is_neither_saved_nor_trained(teacher):
    convnext = {**CONVNEXT, "type": "opsin.ConvNeXtClassifier", "num_classes": 2}
    model = ImageClassifier(teacher, distillation={"type": "opsin.Distillation", "teacher": convnext})
    assert list(model.parameters()) == [] and model.state_dict() == {}
    assert not any(parameter.requires_grad for parameter in model.distillation.teacher.parameters())


def test_soft_distillation_is_zero_for_the_teachers_own_logits(teacher):
    distillation = Distillation(teacher, "soft", alpha=1.0, tau=3.0)
    images = torch.randn(2, 3, 4, 4)
    assert float(distillation(images, Opposite()(images), torch.tensor(5.0))) == pytest.approx(0, abs=1e-6)


def test_wrong_distillation_is_named(teacher):
    with pytest.raises(UserError, match=r"no teacher.*model\.distillation"):
        ImageClassifier({"type": "opsin.TwoHeads"})(torch.ones(1, 3, 4, 4), labelled(0), mode="loss")
    with pytest.raises(UserError, match=r"medium.*hard"):
        Distillation(teacher, "medium")
    with pytest.raises(UserError, match=r"alpha=1\.5"):
        Distillation(teacher, alpha=1.5)
