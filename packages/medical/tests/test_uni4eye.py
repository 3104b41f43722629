import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from opsin.core import create_model
from opsin.core.engine.config import build_model, load_config
from opsin.core.engine.runner import test as evaluate
from opsin.core.engine.runner import train
from opsin.core.errors import UserError
from opsin.core.parity import Case, find_adapter
from opsin.core.published import load_published
from opsin.medical.classification.predictor import MedicalClassificationPredictor
from opsin.medical.path_lists import PathLists
from opsin.medical.pretraining.datasets import FitVolume, LoadVolume, OneKindBatches
from opsin.medical.pretraining.models import Uni4Eye, Uni4EyeClassifier, Uni4EyeEncoder
from opsin.medical.pretraining.models.uni4eye.targets import (
    gradient_map,
    patchify,
    unpatchify,
    volume_gradient_map,
)
from opsin.medical.pretraining.predictor import ReconstructionPredictor
from opsin.medical.pretraining.samples import write_samples

ENCODER = {"size": 32, "patch_size": 8, "dim": 24, "depth": 2, "heads": 2}
SHAPES = {"picture": (3, 32, 32), "volume": (1, 32, 16, 32)}
IN_PROCESS = [
    f"{split}_dataloader.{key}"
    for split in ("train", "val", "test")
    for key in ("num_workers=0", "persistent_workers=False")
]


def small(**changes) -> Uni4Eye:
    torch.manual_seed(0)
    return Uni4Eye(
        {**ENCODER, **changes.pop("encoder", {})}, decoder_dim=16, decoder_depth=1, decoder_heads=2, **changes
    )


def batch(kind: str, count: int = 2) -> tuple[Tensor, list[BaseDataElement]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(count, *SHAPES[kind], generator=generator)
    edges = torch.rand(count, 1, *SHAPES[kind][1:], generator=generator)
    return inputs, [BaseDataElement(gradient=edge) for edge in edges]


def test_counts_are_the_published_ones():
    with torch.device("meta"):
        model = Uni4Eye()
        base = create_model("uni4eye_base", num_classes=0)
    unused_tables = (197 + 1373) * 512  # the second decoder's own positions, which the authors never use
    assert sum(p.numel() for p in model.parameters()) + unused_tables == 366_728_192
    assert sum(p.numel() for p in model.encoder.parameters()) == 308_902_912
    assert len(base.encoder.blocks) == 12 and base.num_features == 768


def test_one_network_takes_pictures_and_volumes_of_the_published_sizes():
    encoder = Uni4EyeEncoder(dim=12, depth=1, heads=2)
    for shape, tokens, seen in (((1, 3, 224, 224), 196, 49), ((1, 1, 224, 112, 224), 1372, 343)):
        x = torch.zeros(shape)
        assert encoder(x).shape == (1, tokens + 1, 12)
        assert math.prod(encoder.grid_of(x)) == tokens
        assert encoder(x, torch.arange(seen)[None]).shape == (1, seen + 1, 12)


@pytest.mark.parametrize(("kind", "other"), [("picture", "3"), ("volume", "2")])
def test_a_step_on_one_kind_leaves_the_others_parts_alone(kind, other):
    model = small()
    model.parse_losses(model(*batch(kind), mode="loss"))[0].backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    parts = ("encoder.patch_embed.proj{}", "decoder_pred{}", "decoder_pred{}1")
    assert without == {f"{part.format(other)}.{leaf}" for part in parts for leaf in ("weight", "bias")}
    assert all(
        p.grad.abs().sum() > 0 for n, p in model.named_parameters() if "blocks" in n and "bias" not in n
    )


@pytest.mark.parametrize("kind", SHAPES)
def test_the_right_patches_cost_nothing_and_go_back_to_the_input(kind):
    inputs, samples = batch(kind)
    patches = patchify(inputs, 8)
    grid = tuple(side // 8 for side in inputs.shape[2:])
    assert torch.equal(unpatchify(patches, grid, 8), inputs)
    model, mask = small(), torch.ones(patches.shape[:2])
    edges = torch.stack([sample.gradient for sample in samples])
    losses = model.losses(inputs, edges, patches, patchify(edges, 8), mask)
    assert losses["loss_image"].max() == 0 and losses["loss_gradient"].max() == 0


def test_patches_hold_their_numbers_in_raster_order():
    picture = torch.arange(3 * 4 * 4.0).view(1, 3, 4, 4)
    assert patchify(picture, 2)[0, 1].tolist() == [2, 18, 34, 3, 19, 35, 6, 22, 38, 7, 23, 39]
    volume = torch.arange(4 * 2 * 4.0).view(1, 1, 4, 2, 4)
    assert patchify(volume, 2)[0, 1].tolist() == [2, 3, 6, 7, 10, 11, 14, 15]


def test_other_edges_change_the_edges_loss_alone():
    model = small().eval()
    inputs, samples = batch("picture")
    noise = torch.rand(2, 16)
    _, image, gradient, mask = model.reconstruct(inputs, noise)
    edges = torch.stack([sample.gradient for sample in samples])
    one, two = (model.losses(inputs, e, image, gradient, mask) for e in (edges, 2 * edges))
    assert torch.equal(one["loss_image"], two["loss_image"])
    assert not torch.equal(one["loss_gradient"], two["loss_gradient"])
    names = {n.split(".")[0] for n, _ in model.named_parameters() if n.startswith(("decoder", "mask"))}
    shared = {"decoder_norm", "decoder_pos_embed2", "decoder_pos_embed3"}
    own = {name for branch in ("", "1") for name in (f"decoder_embed{branch}", f"mask_token{branch}")}
    assert names >= shared | own


# The edges


def test_a_constant_picture_has_no_edges_and_a_step_has_a_line():
    assert gradient_map(np.full((16, 16, 3), 0.4, np.float32)).max() == 0
    step = np.zeros((12, 12, 3), np.float32)
    step[:, 6:] = 1
    edges = gradient_map(step)
    assert (edges == edges[0]).all()
    assert edges[0].tolist() == [0, 0, 0, 0, 8, 24, 24, 8, 0, 0, 0, 0]


def test_edges_of_a_volume_have_the_scale_of_a_picture():
    assert volume_gradient_map(torch.full((8, 6, 8), 3.0)).max() == 0
    step = torch.zeros(12, 8, 12)
    step[6:] = 1
    edges = volume_gradient_map(step)
    torch.testing.assert_close(edges[:, 4, 6], torch.tensor([0, 0, 0, 0, 16, 48, 48, 16, 0, 0, 0, 0]) / 3)


# What goes in


def test_volumes_of_other_sizes_and_odd_batches_work():
    encoder = Uni4EyeEncoder(**ENCODER)
    assert encoder(torch.zeros(1, 3, 24, 40)).shape == (1, 16, 24)
    assert encoder(torch.zeros(1, 1, 16, 8, 24)).shape == (1, 7, 24)
    with pytest.raises(UserError, match="patches of 8"):
        encoder(torch.zeros(1, 3, 30, 32))
    with pytest.raises(UserError, match="no multiple of 16"):
        Uni4EyeEncoder(size=40, patch_size=8)


def test_half_precision_and_export():
    model = Uni4EyeClassifier(ENCODER, num_classes=3).eval()
    for shape in SHAPES.values():
        x = torch.rand(2, *shape)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), model(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert (model(x).float() - model(x)).abs().max() < 0.1


def write_volume(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), path)


def test_a_volume_is_cut_to_what_differs_from_its_corner_and_standardised(tmp_path):
    values = np.zeros((10, 12, 14))
    values[2:8, 3:9, 4:12] = np.random.default_rng(0).uniform(5, 9, (6, 6, 8))
    write_volume(tmp_path / "a.nii.gz", values)
    cut = LoadVolume()({"img_path": str(tmp_path / "a.nii.gz")})
    assert cut["volume"].shape == (6, 6, 8) and cut["ori_shape"] == (10, 12, 14)
    fitted = FitVolume(size=16)(cut)["volume"]
    assert fitted.shape == (16, 8, 16) and abs(fitted.mean()) < 0.05 and abs(fitted.std() - 1) < 0.05
    write_volume(tmp_path / "b.nii.gz", np.full((4, 4, 4), 2.0))
    with pytest.raises(UserError, match=r"b\.nii\.gz is constant"):
        LoadVolume()({"img_path": str(tmp_path / "b.nii.gz")})


def test_mistakes_in_a_list_name_file_and_line(tmp_path):
    def reading(text, message, **settings):
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            PathLists(lists=["list.txt"], data_root=str(tmp_path), pipeline=[], **settings)

    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    reading("a.png 0\n\nnone.png 1\n", "line 3: no file at")
    reading("notes.txt 0\n", "neither a picture nor a volume")
    reading("a.png 2\n", "has class 2 .* names 2 classes", classes=("a", "b"))
    reading("# nothing\n", "no sample")
    with pytest.raises(UserError, match=r"other\.txt"):
        PathLists(lists=["other.txt"], data_root=str(tmp_path), pipeline=[])


def test_batches_hold_one_kind_and_an_epoch_all_of_both():
    class Kinds:
        kinds = tuple(i % 3 == 0 for i in range(20))

        def __len__(self) -> int:
            return len(self.kinds)

    sampler = DefaultSampler(Kinds(), shuffle=True, seed=0)
    batches = OneKindBatches(sampler, batch_size=4, volume_batch_size=2)
    first = list(batches)
    assert len(first) == len(batches) == 4 + 4
    assert all(len({Kinds.kinds[i] for i in one}) == 1 for one in first)
    assert {i for one in first for i in one} == set(range(20))
    assert list(batches) == first
    sampler.set_epoch(1)
    assert list(batches) != first
    with pytest.raises(UserError, match="PathLists"):
        OneKindBatches(DefaultSampler([1, 2]), batch_size=4)


# Checkpoints and other runs of the authors' code


def published(model: Uni4Eye) -> dict[str, Tensor]:
    tensors = {n.removeprefix("encoder."): t for n, t in model.state_dict().items()}
    return tensors | {f"decoder_pos_embed{k}1": torch.zeros(1) for k in (2, 3)}


def test_classifiers_of_both_kinds_begin_with_one_pretrained_file(tmp_path):
    model = small()
    torch.save({"model": published(model), "epoch": 7, "args": {}}, tmp_path / "published.pth")
    load_published(small(encoder={"positions": "zeros"}), tmp_path / "published.pth")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "own.pth")
    for file in ("published.pth", "own.pth"):
        classifier = load_published(Uni4EyeClassifier(ENCODER, num_classes=3), tmp_path / file).eval()
        for kind in SHAPES:
            x = batch(kind)[0]
            torch.testing.assert_close(classifier.encoder(x), model.eval()(x))
            assert classifier(x).shape == (2, 3)
    assert classifier.get_layer_depth("encoder.blocks.1.norm1.weight") == (2, 4)
    assert classifier.get_layer_depth("head.weight") == (3, 4)
    with pytest.raises(UserError, match="is not for Uni4EyeClassifier"):
        load_published(Uni4EyeClassifier({**ENCODER, "dim": 32}), tmp_path / "own.pth")


def case_of(
    source: str, tensors: dict[str, Tensor], inputs: dict[str, tuple[int, ...]], **built_with
) -> Case:
    meta = {
        "system": "uni4eye",
        "case": "other",
        "source": f"Davidczy/Uni4Eye_pp@4e984a8 {source}",
        "built_with": built_with,
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "inputs": {name: {"seed": 1, "shape": shape, "kind": "uniform"} for name, shape in inputs.items()},
        "outputs": {},
    }
    return Case(meta, {})


@pytest.mark.parametrize("kinds", [("2d",), ("3d",), ("2d", "3d")])
def test_other_autoencoder_cases_run(kinds):
    shapes = {"2d": ((2, 3, 32, 32), (2, 16)), "3d": ((2, 1, 32, 16, 32), (2, 32))}
    inputs = {}
    for kind in kinds:
        image, noise = shapes[kind]
        inputs |= {f"img_{kind}": image, f"noise_{kind}": noise, f"grad_{kind}": (2, 1, *image[2:])}
    built_with = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "decoder_embed_dim": 16,
        "decoder_depth": 1,
        "decoder_num_heads": 2,
        "mask_ratio": 0.5,
    }
    case = case_of("models_mae.py MaskedAutoencoderViT23D_2decoder", published(small()), inputs, **built_with)
    found = find_adapter(case)(case)
    for kind in kinds:
        assert found[f"mask_{kind}"].mean() == 0.5
        assert found[f"loss_{kind}"].shape == (2,)


def test_other_patch_embeddings_run():
    tensors = {
        "proj2.weight": torch.zeros(5, 3, 4, 4),
        "proj2.bias": torch.zeros(5),
        "proj3.weight": torch.zeros(5, 3, 4, 4, 4),
        "proj3.bias": torch.zeros(5),
    }
    inputs = {"image": (1, 3, 8, 12), "volume": (1, 3, 8, 4, 8)}
    case = case_of("PatchEmbed23D.py PatchEmbed23D", tensors, inputs, patch_size=4, in_chans=3, embed_dim=5)
    found = find_adapter(case)(case)
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == {
        "tokens_2d": (6, 5),
        "tokens_3d": (4, 5),
    }


# The whole way


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("eyes")
    write_samples(folder, pictures=16, volumes=4, held_out=4)
    return folder


def config(name: str, data: Path, *overrides: str):
    return load_config(name, data=data, overrides=[*IN_PROCESS, *overrides])


def test_published_recipe_builds():
    with torch.device("meta"):
        assert isinstance(build_model(load_config("uni4eye_vit_large")), nn.Module)


@pytest.mark.slow
def test_it_learns_from_both_kinds_in_turn_what_a_constant_cannot_explain(tmp_path):
    write_samples(tmp_path / "data")
    cfg = config("uni4eye_mini_samples", tmp_path / "data", "train_cfg.val_interval=16")
    train(cfg, tmp_path / "run")
    reached = evaluate(cfg, tmp_path / "run" / "epoch_16.pth")
    assert reached["pretraining/pictures"] > 0.25  # a constant that knows each sample's mean has 0
    assert reached["pretraining/explained"] > 0.12


def test_pretrain_resume_fine_tune_test_and_predict(samples, tmp_path):
    quick = ["train_cfg.max_epochs=2", "train_cfg.val_interval=1"]
    cfg = config("uni4eye_mini_samples", samples, *quick)
    train(cfg, tmp_path / "whole")
    train(config("uni4eye_mini_samples", samples, *quick, "train_cfg.max_epochs=1"), tmp_path / "halves")
    train(cfg, tmp_path / "halves", resume=True)
    files = [tmp_path / run / "epoch_2.pth" for run in ("whole", "halves")]
    whole, resumed = (torch.load(file, weights_only=True)["state_dict"] for file in files)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    predictor = ReconstructionPredictor(cfg, files[0])
    inputs = [samples / "pictures" / "val000.png", samples / "volumes" / "val000.nii.gz"]
    records = predictor.predict(inputs, tmp_path / "out", quiet=True)
    assert all(record["explained"] < 1 for record in records)
    assert len(list((tmp_path / "out" / "pictures").glob("*.png"))) == 2

    init = "model.network.init_cfg"
    begin = [f"{init}.type=opsin.Published", f"{init}.checkpoint={files[0]}"]
    fine = config("uni4eye_mini_classifier_samples", samples, *quick, *begin)
    train(fine, tmp_path / "fine")
    measures = evaluate(fine, tmp_path / "fine" / "epoch_2.pth")
    assert {"medical/accuracy", "medical/auc"} <= measures.keys()
    classifier = MedicalClassificationPredictor(fine, tmp_path / "fine" / "epoch_2.pth")
    classifier.predict(inputs, tmp_path / "classes", quiet=True)
    found = json.loads((tmp_path / "classes" / "predictions.json").read_text())
    assert [record["class"] in ("0", "1") for record in found] == [True, True]
    assert len(list((tmp_path / "classes" / "pictures").glob("*.png"))) == 2
