import pytest
import torch

from opsin.core.task import get_task
from opsin.registry import MODELS


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tracking_samples")
    get_task("tracking").write_samples(directory)
    return directory


@pytest.fixture
def small_mixformer():
    """Builds small networks of each kind, with statistics that are not those of a fresh norm."""
    get_task("tracking").register()
    backbones = {
        "cvt": dict(type="opsin.MixCvT", dims=(8, 16, 64), depths=(1, 1, 2), num_heads=(1, 2, 2)),
        "vit": dict(
            type="opsin.MixViT",
            dim=64,
            depth=2,
            num_heads=2,
            search_size=96,
            template_size=48,
            drop_path_rate=0.0,
        ),
        "convmae": dict(
            type="opsin.MixConvMAE",
            dims=(8, 16, 64),
            depths=(1, 1, 2),
            num_heads=2,
            search_size=96,
            template_size=48,
        ),
    }

    def build(kind="cvt", head="opsin.CornerHead", online=True, **backbone):
        torch.manual_seed(0)
        network = MODELS.build(
            dict(
                type="opsin.MixFormer",
                backbone={**backbones[kind], **backbone},
                head=dict(type=head, channels=32, freeze_bn=online),
                score=dict(type="opsin.ScoreHead", num_heads=4) if online else None,
            )
        )
        for parameter in network.parameters():
            if parameter.ndim > 1:  # fresh weights are so small that nothing depends on anything
                torch.nn.init.normal_(parameter, std=2 / parameter[0].numel() ** 0.5)
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand_like(buffer) + ("var" in name))
        return network.eval()

    return build
