import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from opsin.core.data.image import write_image
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError
from opsin.core.systems import systems
from opsin.core.task import get_task
from opsin.medical.checks import check_folder
from opsin.medical.segmentation.datasets import (
    ImageMaskDataset,
    MNI152Slices,
    MonaiTransforms,
    OneAngleRotation,
    PackMedical,
    RandomAxialSlice,
    RandomTurnOrRotation,
    SegmentationSample,
    SliceDataset,
    StretchIntensity,
    SynapseDataset,
    VolumeDataset,
    ZoomSlice,
)
from opsin.medical.segmentation.halving import HalveAfterBest
from opsin.medical.segmentation.metrics import (
    OverlapSurfaceMetric,
    PooledPixelMetric,
    SubjectDiceMetric,
    pooled_hausdorff95,
)
from opsin.medical.segmentation.models import MedicalSegmentor
from opsin.medical.segmentation.visualization import three_planes, tinted
from opsin.registry import MODELS

pytestmark = pytest.mark.xdist_group("medical_segmentation")  # the training that they share is done once

PACK = [dict(type="opsin.PackMedical")]
CLASSES = ("background", "grey matter", "white matter")


def evaluated(metric, *pairs, **meta):
    """The metric's numbers for pairs of predicted and true labels."""
    for number, (found, true) in enumerate(pairs):
        sample = dict(pred_label=torch.as_tensor(found), gt_label=torch.as_tensor(true))
        metric.process(None, [sample | {key: values[number] for key, values in meta.items()}])
    return metric.compute_metrics(metric.results)


# Data sets.


def test_isic_pairs_by_position_and_keeps_soft_masks(tmp_path):
    for index in range(3):
        write_image(tmp_path / "images" / f"ISIC_{index}.jpg", np.full((6, 8, 3), 40 * index, np.uint8))
        write_image(
            tmp_path / "masks" / f"ISIC_{index}_segmentation.png", np.full((6, 8), 51 * index, np.uint8)
        )
    dataset = ImageMaskDataset(data_root=str(tmp_path), pipeline=PACK)
    item = dataset[2]
    assert item["inputs"].shape == (3, 6, 8) and item["inputs"].mean() == pytest.approx(80, abs=2)
    assert item["data_samples"].gt_label[0, 0] == pytest.approx(0.4)
    write_image(tmp_path / "masks" / "more.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match=r"3 pictures and .* 4 masks"):
        ImageMaskDataset(data_root=str(tmp_path), pipeline=PACK)[0]


def test_slices_give_subject_number_and_classes(tmp_path):
    write_image(tmp_path / "Img" / "Subj_12slice_7.png", np.full((4, 5), 100, np.uint8))
    grey = np.array([[0, 63, 126, 189, 252]] * 4, np.uint8)
    write_image(tmp_path / "GT" / "Subj_12slice_7.png", grey)
    names = ("background", "a", "b", "c", "d")
    sample = SliceDataset(data_root=str(tmp_path), classes=names, pipeline=PACK)[0]["data_samples"]
    assert (sample.case, sample.slice) == ("Subj_12", 7)
    assert sample.gt_label[0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match=r"Subj_12slice_7\.png has the values 3, 4, and classes are 0 to 2"):
        SliceDataset(data_root=str(tmp_path), classes=names[:3], pipeline=PACK)[0]
    write_image(tmp_path / "Img" / "Subj_12slice_8.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(UserError, match="masks bear the slices' names"):
        SliceDataset(data_root=str(tmp_path), classes=names, pipeline=PACK)[0]


def test_synapse_reads_its_lists(segmentation_samples, tmp_path):
    root = str(segmentation_samples / "synapse")
    train = SynapseDataset(split="train", data_root=root, classes=CLASSES, pipeline=PACK)
    test = SynapseDataset(split="test", data_root=root, classes=CLASSES, pipeline=PACK)
    assert len(train) == 36 and len(test) == 2
    item, volume = train[5], test[0]
    assert item["inputs"].shape == (1, 64, 64) and volume["inputs"].shape == (1, 9, 64, 64)
    assert item["data_samples"].case == "case0001" and item["data_samples"].slice == 5
    assert volume["data_samples"].gt_label.unique().tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="lacks train_npz, lists"):
        SynapseDataset(split="train", data_root=str(tmp_path), pipeline=PACK)[0]
    (tmp_path / "train_npz").mkdir()
    (tmp_path / "lists" / "list_Synapse").mkdir(parents=True)
    (tmp_path / "lists" / "list_Synapse" / "train.txt").write_text("case0001_slice000\n")
    with pytest.raises(UserError, match=r"names case0001_slice000\.npz, which is not in"):
        SynapseDataset(split="train", data_root=str(tmp_path), pipeline=PACK)[0]
    (tmp_path / "train_npz" / "case0001_slice000.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="truncated or no npz file"):
        SynapseDataset(split="train", data_root=str(tmp_path), pipeline=PACK)[0]


def test_volumes_of_any_orientation_become_the_same_slices(segmentation_samples):
    root = str(segmentation_samples / "volumes" / "train")
    dataset = VolumeDataset(data_root=root, classes=CLASSES, pipeline=PACK, cache_num=2)
    items = [dataset[i] for i in range(4)]
    assert [tuple(i["inputs"].shape) for i in items] == [(1, 63, 78, 66)] * 3 + [(1, 32, 78, 66)]
    assert items[3]["data_samples"].spacing == (6, 3, 3)
    for item in items:  # white matter is bright, wherever the volume's axes point
        image, label = item["inputs"][0], item["data_samples"].gt_label
        assert image[label == 2].mean() > 1.1 * image[label == 1].mean() > 1.1 * image[label == 0].mean()


def test_volumes_without_labels_are_named(segmentation_samples, tmp_path):
    with pytest.raises(UserError, match="lacks images, labels"):
        VolumeDataset(data_root=str(tmp_path), classes=CLASSES, pipeline=PACK)[0]
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    source = segmentation_samples / "volumes" / "val" / "images" / "subject_05.nii.gz"
    (tmp_path / "imagesTr" / "brain_0000.nii.gz").write_bytes(source.read_bytes())
    with pytest.raises(UserError, match=r"brain_0000\.nii\.gz has no labels"):
        VolumeDataset(data_root=str(tmp_path), classes=CLASSES, pipeline=PACK)[0]
    label = segmentation_samples / "volumes" / "val" / "labels" / "subject_05.nii.gz"
    (tmp_path / "labelsTr" / "brain.nii.gz").write_bytes(label.read_bytes())
    assert VolumeDataset(data_root=str(tmp_path), classes=CLASSES, pipeline=PACK)[0]["inputs"].ndim == 4


def test_slabs_of_the_head_are_apart_and_show_their_tissues():
    splits = {s: MNI152Slices(split=s, spacing=4.0, pipeline=[]) for s in ("train", "val")}
    places = {s: np.array([d[i]["slice"] for i in range(len(d))]) * 4.0 for s, d in splits.items()}
    assert np.abs(places["train"][:, None] - places["val"]).min() > 4.0
    tissue = [np.unique(d[i]["gt_label"]) for d in splits.values() for i in range(len(d))]
    assert set(np.concatenate(tissue)) == {0, 1, 2}
    with pytest.raises(UserError, match="split 'test' of MNI152"):
        MNI152Slices(split="test")


def test_unreadable_cases_are_skipped_if_asked_for(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
        write_image(tmp_path / "masks" / f"{name}.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "images" / "a.png").write_bytes(b"")
    for cache_num in (0, 2):
        with pytest.raises(UserError, match=r"^image .*a\.png is empty"):
            ImageMaskDataset(data_root=str(tmp_path), pipeline=PACK, cache_num=cache_num)[0]
    dataset = ImageMaskDataset(data_root=str(tmp_path), pipeline=PACK, on_error="skip", test_mode=True)
    assert len(dataset) == 1 and dataset[0]["data_samples"].case == "b"
    with pytest.raises(UserError, match="exclude each other"):
        ImageMaskDataset(data_root=str(tmp_path), pipeline=PACK, on_error="skip", cache_num=2)


def test_checker_names_layouts_problems_and_remarks(tmp_path):
    write_image(tmp_path / "set" / "images" / "a.png", np.full((4, 4, 3), 9, np.uint8))
    write_image(tmp_path / "set" / "masks" / "a.png", np.zeros((4, 4), np.uint8))
    write_image(tmp_path / "set" / "images" / "b.png", np.zeros((4, 4, 3), np.uint8))
    write_image(tmp_path / "set" / "masks" / "b.png", np.zeros((5, 4), np.uint8))
    (report,) = check_folder(tmp_path, 2)
    assert report.layout == "images/ and masks/" and report.cases == 1
    assert report.remarks == ["a.png is constant", "a.png has no label but the background"]
    assert len(report.problems) == 1 and "is 4x4 and its labels" in report.problems[0]
    with pytest.raises(UserError, match="no known layout"):
        check_folder(tmp_path / "set" / "images", 2)


def test_checker_remarks_on_thick_slices(tmp_path):
    values = np.zeros((4, 5, 3), np.uint8)
    values[0] = 1
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        nib.save(nib.Nifti1Image(values, np.diag((1.0, 1.0, 5.0, 1.0))), tmp_path / part / "a.nii.gz")
    (report,) = check_folder(tmp_path, 2)
    assert report.cases == 1 and report.remarks == ["a.nii.gz is anisotropic: 5 x 1 x 1 mm"]


def test_sample_data_pass_the_checker(segmentation_samples):
    reports = check_folder(segmentation_samples, len(CLASSES))
    assert {report.layout for report in reports} >= {"1 DICOM series", "Synapse's test volumes"}
    assert all(report.cases and not report.problems for report in reports)


# Transforms.


def test_monai_transforms_move_picture_and_labels_alike_and_follow_numpys_seed():
    image = np.arange(48, dtype=np.float32).reshape(1, 6, 8)
    spec = [dict(type="RandFlipd", prob=0.5, spatial_axis=1), dict(type="RandRotate90d", prob=0.5)]
    moves = MonaiTransforms(spec)
    seen = []
    for _ in range(2):
        np.random.seed(3)
        seen.append([moves(dict(img=image, gt_label=image[0].astype(np.uint8))) for _ in range(8)])
    for first, second in zip(*seen, strict=True):
        np.testing.assert_array_equal(first["img"], second["img"])
        np.testing.assert_array_equal(first["img"][0], first["gt_label"])
        assert first["gt_label"].dtype == np.uint8
    assert len({result["img"].tobytes() for result in seen[0]}) > 2
    assert "gt_label" not in moves(dict(img=image))


def test_monai_transforms_that_are_not_are_told():
    with pytest.raises(UserError, match="RandFlipd"):
        MonaiTransforms([dict(type="RandFlip")])
    with pytest.raises(UserError, match="MONAI transform Resized"):
        MonaiTransforms([dict(type="Resized", size=3)])


def test_stretch_undoes_every_standardisation():
    image = np.random.rand(3, 4, 5).astype(np.float32) * 90 + 30
    stretched = StretchIntensity()(dict(img=image))["img"]
    assert stretched.min() == 0 and stretched.max() == 255
    again = StretchIntensity()(dict(img=(image - 157.561) / 26.706))["img"]
    np.testing.assert_allclose(stretched, again, atol=1e-3)
    assert not StretchIntensity()(dict(img=np.full((1, 2, 2), 7.0, np.float32)))["img"].any()


def test_one_angle_serves_all_pictures():
    rotate = OneAngleRotation(prob=1.0)
    image = np.random.rand(1, 9, 9).astype(np.float32)
    first, second = (rotate(dict(img=image, gt_label=image[0]))["img"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(
        first[0], ndimage.rotate(image[0], rotate.angle, reshape=False, order=1), atol=1e-6
    )
    assert OneAngleRotation(prob=0.0)(dict(img=image))["img"] is image


def test_turns_and_rotations_keep_size_and_agreement():
    image = np.random.randint(0, 5, (1, 8, 8)).astype(np.float32)
    results = [RandomTurnOrRotation()(dict(img=image, gt_label=image[0].astype(np.uint8))) for _ in range(40)]
    for result in results:
        np.testing.assert_array_equal(result["img"][0], result["gt_label"])
    unchanged = sum(np.array_equal(result["img"], image) for result in results)
    assert 0 < unchanged < 25


def test_zoom_is_cubic_for_slices_and_nearest_for_labels():
    ramp = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
    zoomed = ZoomSlice((15, 15))(dict(img=ramp[None], gt_label=(ramp > 0.5).astype(np.uint8)))
    np.testing.assert_allclose(zoomed["img"][0, 3], np.linspace(0, 1, 15), atol=0.03)
    assert set(np.unique(zoomed["gt_label"])) == {0, 1} and zoomed["gt_label"].shape == (15, 15)


def test_slices_with_labels_are_preferred():
    label = np.zeros((6, 3, 3), np.uint8)
    label[2] = 1
    results = [
        RandomAxialSlice(labelled=1.0)(dict(img=np.zeros((1, 6, 3, 3), np.float32), gt_label=label))
        for _ in range(5)
    ]
    assert all(result["slice"] == 3 and result["gt_label"].all() for result in results)
    empty = RandomAxialSlice()(dict(img=np.zeros((1, 6, 3, 3), np.float32), gt_label=label * 0))
    assert empty["img"].shape == (1, 3, 3)


def test_packing_without_labels_serves_prediction():
    packed = PackMedical()(dict(img=np.zeros((1, 3, 3)), img_path="a.png"))
    assert packed["inputs"].dtype == torch.float32 and "gt_label" not in packed["data_samples"]


# Metrics.


def test_pooled_numbers_are_those_of_a_worked_example():
    pairs = (
        ([[1, 1], [0, 0]], [[1.0, 0.4], [0.6, 0.0]]),  # hit, false alarm, miss, rejection
        ([[1, 0], [0, 0]], [[1.0, 0.0], [0.0, 0.0]]),
    )
    numbers = evaluated(PooledPixelMetric(), *pairs)
    assert numbers == pytest.approx(
        dict(dice=4 / 6, iou=2 / 4, accuracy=6 / 8, sensitivity=2 / 3, specificity=4 / 5)
    )
    assert evaluated(PooledPixelMetric(), ([[0]], [[0.0]]))["dice"] == 1


def test_surface_numbers_are_those_of_a_worked_example():
    true, found = np.zeros((1, 9, 9), np.uint8), np.zeros((1, 9, 9), np.uint8)
    true[0, 2:6, 2:6], found[0, 2:6, 3:7] = 1, 1  # shifted by one column
    numbers = evaluated(OverlapSurfaceMetric(("b", "x")), (found, true), spacing=[(5.0, 1.0, 2.0)])
    assert numbers["dice"] == pytest.approx(0.75)
    assert numbers["hd95"] == pytest.approx(2.0)  # one column of two millimetres
    assert 0 < numbers["asd"] < 2
    assert pooled_hausdorff95(found == 1, true == 1) == pytest.approx(1.0)


def test_pooled_distance_equals_a_search_over_all_pairs():
    masks = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(2, 12, 12)), (0, 2, 2)) > 0
    surfaces = [np.argwhere(m & ~ndimage.binary_erosion(m)) for m in masks]
    pairs = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)
    expected = np.percentile(np.concatenate([pairs.min(1), pairs.min(0)]), 95)
    assert pooled_hausdorff95(*masks) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("found", "true", "monai", "synapse"),
    [(0, 0, {}, (0, 0)), (1, 0, (0, None), (1, 0)), (0, 1, (0, None), (0, 0))],
)
def test_absent_classes_count_as_the_protocol_says(found, true, monai, synapse):
    pair = np.full((1, 3, 3), found, np.uint8), np.full((1, 3, 3), true, np.uint8)
    by_monai = evaluated(OverlapSurfaceMetric(("b", "x")), pair)
    assert by_monai.get("dice") == (monai[0] if monai else None) and "hd95" not in by_monai
    by_synapse = evaluated(OverlapSurfaceMetric(("b", "x"), protocol="synapse"), pair)
    assert (by_synapse["dice"], by_synapse["hd95"]) == synapse
    with pytest.raises(UserError, match="protocol"):
        OverlapSurfaceMetric(("b", "x"), protocol="medpy")


def test_subjects_are_scored_as_volumes_and_written(tmp_path):
    import json

    import nibabel as nib

    found = [np.array([[1, 1]]), np.array([[0, 1]]), np.array([[1, 0]])]
    true = [np.array([[1, 0]]), np.array([[0, 1]]), np.array([[0, 0]])]
    metric = SubjectDiceMetric(("b", "x"), out_dir=str(tmp_path))
    numbers = evaluated(
        metric, *zip(found, true, strict=True), case=["Subj_1", "Subj_1", "Subj_2"], slice=[1, 3, 1]
    )
    assert numbers["dice"] == numbers["dice_2d_x"] == pytest.approx(2 * 2 / (4 + 2))
    assert numbers["dice_3d_x"] == pytest.approx((4 / 5 + 0) / 2)
    assert numbers["dice_3d_std_x"] == pytest.approx(0.4)
    volume = nib.load(tmp_path / "volumes" / "Subj_1.nii")
    assert volume.shape == (1, 2, 3) and volume.affine[0, 0] == 2
    assert np.asarray(volume.dataobj)[0].tolist() == [[1, 0, 0], [1, 0, 1]]  # the last slice is there
    assert json.loads((tmp_path / "subjects.json").read_text())["Subj_2"]["x"] == pytest.approx(0, abs=1e-6)
    assert (tmp_path / "slices" / "Subj_1slice_3.png").is_file()


# The model.

NET = dict(type="opsin.monai_network", name="UNet", spatial_dims=2, in_channels=1, out_channels=3,
           channels=(4, 8), strides=(2,))  # fmt: skip
NET3 = NET | dict(spatial_dims=3)


def test_modes_agree_and_losses_need_labels():
    model = MedicalSegmentor(NET).eval()
    image = torch.rand(1, 8, 12)
    with torch.no_grad():
        logits = model([image])
    sample = model([image], mode="predict")[0]
    assert torch.equal(sample.pred_label, logits.argmax(1)[0].byte())
    labelled = [SegmentationSample(gt_label=torch.zeros(8, 12, dtype=torch.uint8))]
    assert set(model([image], labelled, mode="loss")) == {"loss_ce", "loss_dice"}
    with pytest.raises(UserError, match="a loss needs labels"):
        model([image], mode="loss")


def test_a_flat_network_segments_a_volume_slice_by_slice():
    model = MedicalSegmentor(NET, batch_size=2).eval()
    volume = torch.rand(1, 5, 8, 12)
    with torch.no_grad():
        found = model.labels(volume)
        assert torch.equal(found, torch.stack([model.labels(volume[:, i]) for i in range(5)]))


def test_slices_are_brought_to_the_networks_size_and_back():
    model = MedicalSegmentor(NET, slice_size=(16, 16)).eval()
    with torch.no_grad():
        assert model.labels(torch.rand(1, 3, 10, 21)).shape == (3, 10, 21)


def test_windows_cover_a_volume_that_is_larger_or_smaller_than_them():
    model = MedicalSegmentor(NET3, spatial_dims=3, window=(8, 8, 8)).eval()
    sizes = []
    model.network.register_forward_hook(lambda _, inputs, __: sizes.append(tuple(inputs[0].shape[2:])))
    with torch.no_grad():
        assert model.labels(torch.rand(1, 5, 20, 9)).shape == (5, 20, 9)
        assert model.labels(torch.rand(1, 1, 4, 4)).shape == (1, 4, 4)
    assert set(sizes) == {(8, 8, 8)}  # memory follows the window
    with pytest.raises(UserError, match="given to a network that takes volumes"):
        model.labels(torch.rand(1, 9, 9))
    with pytest.raises(UserError, match="does not fit a network of 2 dimensions"):
        MedicalSegmentor(NET, window=(8, 8, 8))


def test_one_class_is_found_from_its_threshold_on():
    model = MedicalSegmentor(NET | dict(out_channels=1), dict(type="opsin.BCEDiceLoss"), threshold=0.5).eval()
    image = torch.rand(1, 8, 8)
    with torch.no_grad():
        probability = model.probabilities(image[None])[0, 0]
        model.threshold = float(probability.median())
        assert torch.equal(model.labels(image), (probability >= model.threshold).byte())


def test_losses_of_monai_serve():
    loss = MODELS.build(dict(type="opsin.MonaiLoss", name="DiceCELoss", to_onehot_y=True, softmax=True))
    assert loss(torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4)))["loss"] > 0
    with pytest.raises(UserError, match="DiceCELoss"):
        MODELS.build(dict(type="opsin.MonaiLoss", name="DiceCEloss"))
    with pytest.raises(UserError, match="Unet"):
        MODELS.build(dict(type="opsin.monai_network", name="Unett"))


def test_an_authors_file_loads_into_the_model():
    network = dict(type="opsin.MHSVM", arch="tiny")
    model, other = (MedicalSegmentor(network, dict(type="opsin.BCEDiceLoss")) for _ in range(2))
    bare = {f"vmunet.{name}": tensor for name, tensor in model.network.state_dict().items()}
    other.load_state_dict(bare)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_rate_is_halved_at_the_first_epoch_and_fifty_after_the_best():
    from types import SimpleNamespace

    from mmengine.logging import MessageHub

    group = {"lr": 1.0}
    runner = SimpleNamespace(
        epoch=0,
        message_hub=MessageHub.get_instance("halving"),
        optim_wrapper=SimpleNamespace(optimizer=SimpleNamespace(param_groups=[group])),
    )
    hook, rates = HalveAfterBest(patience=4), []
    for epoch, dice in enumerate([0.1, 0.3, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1]):
        runner.epoch = epoch + 1
        hook.after_val_epoch(runner, {"seg/dice": dice})
        rates.append(group["lr"])
    assert rates == [0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]  # the best is epoch 1


# Pictures, configs.


def test_background_is_not_tinted():
    grey = np.full((4, 4, 3), 100, np.uint8)
    labels = np.zeros((4, 4), np.uint8)
    assert np.array_equal(tinted(grey, labels), grey)
    labels[:2] = 1
    shown = tinted(grey, labels)
    assert (shown[3] == 100).all() and (shown[0] != 100).any()


def test_planes_have_true_proportions():
    values, labels = np.random.rand(20, 30, 10), np.zeros((20, 30, 10), np.uint8)
    labels[5:9, 4:8, 3:5] = 1
    shown = three_planes(values, labels, (2.0, 2.0, 6.0))
    assert shown.shape == (256, 80 + 4 + 80 + 4 + 120, 3)
    assert three_planes(values * 0, labels * 0, (1, 1, 1)).any()  # constant: a white gap is all there is


NAMES = [name for slug in ("mhs-vm", "multi-scale-attention") for name in systems()[slug].configs]


@pytest.mark.parametrize("name", NAMES)
def test_every_config_builds(name):
    cfg = load_config(name)
    assert cfg.task == "medical_segmentation"
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    classes = len(cfg.classes)
    heads = {
        p.shape[0] for n, p in model.named_parameters() if n.endswith(("final_conv.bias", "predict1.bias"))
    }
    one_channel = cfg.model.loss.type == "opsin.BCEDiceLoss"
    assert heads <= {1 if one_channel else classes}
    assert (
        tuple(cfg.train_dataloader.dataset.classes)
        == tuple(cfg.val_dataloader.dataset.classes)
        == tuple(cfg.classes)
    )


def test_listed_configs_are_those_on_disk():
    assert sorted(get_task("medical_segmentation").configs()) == sorted(NAMES)
