import cv2
import numpy as np
import pytest

from opsin.core.data.pictures import photographs
from opsin.core.errors import UserError
from opsin.restoration.datasets import PackPair, RandomCropPair, RealWorldDegradation, sharpened
from opsin.restoration.datasets.real_world import (
    SECOND,
    Round,
    blurred,
    gaussian_noise,
    jpeg,
    poisson_noise,
    resized,
)
from opsin.restoration.degradation import bicubic
from opsin.restoration.metrics import psnr


@pytest.fixture(scope="module")
def photograph():
    return photographs()["coffee"][100:198, 200:297].copy()  # 98x97


def degraded(photograph, seed=0, **settings):
    np.random.seed(seed)
    return RealWorldDegradation(**settings)(dict(img=photograph, img_path="a.png", scale=4))


def test_a_picture_becomes_a_pair_that_follows_from_numpys_seed(photograph):
    pair = degraded(photograph)
    assert pair["img"].shape == (24, 24, 3) and pair["img"].dtype == np.uint8
    assert np.array_equal(pair["gt_img"], photograph[:96, :96]) and "sharp_img" not in pair
    assert np.array_equal(degraded(photograph)["img"], pair["img"])
    assert not np.array_equal(degraded(photograph, seed=1)["img"], pair["img"])


def test_degraded_pictures_lie_where_the_clean_one_does(photograph):
    clean = bicubic(photograph[:96, :96], 1 / 4)
    pictures = [degraded(photograph, seed)["img"] for seed in range(24)]
    values = [psnr(picture, clean) for picture in pictures]
    assert min(values) > 14 and max(values) < 36 and np.std(values) > 1.5  # all kinds of damage
    mean, inner = np.mean(pictures, axis=0), (slice(2, -2), slice(2, -2))
    here = psnr(mean[inner], clean[inner])
    assert here > 24
    shifted = [np.roll(mean, shift, axis) for axis in (0, 1) for shift in (-1, 1)]
    assert all(psnr(picture[inner], clean[inner]) < here - 1 for picture in shifted)


def test_sharpening_is_the_published_unsharp_mask(photograph):
    image = photograph.astype(np.float32) / 255
    difference = image - cv2.GaussianBlur(image, (51, 51), 0)
    mask = cv2.GaussianBlur((np.abs(difference) > 10 / 255).astype(np.float32), (51, 51), 0)
    expected = mask * (image + 0.5 * difference).clip(0, 1) + (1 - mask) * image
    assert np.abs(sharpened(photograph) - expected * 255).max() <= 0.51


def test_the_sharper_pair_has_a_sharpened_target_beside_the_real_picture(photograph):
    pair = degraded(photograph, sharpen=True)
    assert np.array_equal(pair["gt_img"], photograph[:96, :96])
    assert np.array_equal(pair["sharp_img"], sharpened(photograph[:96, :96]))
    assert not np.array_equal(pair["img"], degraded(photograph)["img"])  # the sharpened one is degraded
    sample = PackPair()(RandomCropPair(8)(pair))["data_samples"]
    assert sample.gt_img.shape == sample.sharp_img.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("settings", "probabilities", "least", "largest"),
    [(Round(), (0.2, 0.7, 0.1), 0.15, 1.5), (SECOND, (0.3, 0.4, 0.3), 0.3, 1.2)],
)
def test_sizes_grow_shrink_and_stay_as_published(settings, probabilities, least, largest):
    rng = np.random.default_rng(0)
    factors = np.array([settings.resize_factor(rng) for _ in range(3000)])
    found = [(factors > 1).mean(), (factors < 1).mean(), (factors == 1).mean()]
    assert found == pytest.approx(probabilities, abs=0.03)
    assert least <= factors.min() < least + 0.02 and largest - 0.02 < factors.max() <= largest


def test_a_round_without_damage_is_the_identity_and_the_second_may_not_blur(photograph):
    image = photograph.astype(np.float32) / 255
    nothing = dict(resize_probs=(0, 0, 1), gaussian_sigma=(0, 0), poisson_scale=(0, 0))
    rng = np.random.default_rng(0)
    kept = Round(blur_prob=0, **nothing)(image, image.shape[:2], rng)
    np.testing.assert_allclose(kept, image, atol=1e-6)
    second = Round(blur_prob=SECOND.blur_prob, **nothing)
    sharp = [np.allclose(second(image, image.shape[:2], rng), image, atol=1e-6) for _ in range(100)]
    assert 0.1 < np.mean(sharp) < 0.3


def test_gaussian_noise_has_its_sigma_and_may_be_grey():
    rng, image = np.random.default_rng(0), np.zeros((100, 100, 3), np.float32)
    colour, grey = (gaussian_noise(image, 20, grey, rng) for grey in (False, True))
    assert colour.std() * 255 == pytest.approx(20, rel=0.03) == grey.std() * 255
    assert colour.shape == (100, 100, 3) and grey.shape == (100, 100, 1)


def test_shot_noise_grows_with_the_light_and_with_its_scale():
    image = np.full((200, 200, 3), 0.2, np.float32)
    image[100:] = 0.8
    rng = np.random.default_rng(0)
    noise = poisson_noise(image, 1, False, rng)
    # two levels of brightness make a pixel's value 1 two photons
    assert noise[:100].var() == pytest.approx(0.1, rel=0.05)
    assert noise[100:].var() == pytest.approx(0.4, rel=0.05)
    assert abs(noise.mean()) < 0.01
    assert poisson_noise(image, 0.5, False, rng).std() == pytest.approx(noise.std() / 2, rel=0.05)
    assert poisson_noise(image, 1, True, rng).shape == (200, 200, 1)


def test_jpeg_keeps_colours_and_loses_detail_with_quality(photograph):
    image = photograph.astype(np.float32) / 255
    good, bad = (jpeg(image, quality) for quality in (95, 30))
    assert psnr(good * 255, photograph) > 34 > psnr(bad * 255, photograph) > 24
    red = np.full((16, 16, 3), (1, 0, 0), np.float32)
    assert np.abs(jpeg(red, 90) - red).max() < 0.03


def test_blurs_mirror_the_border_and_sizes_never_vanish():
    image = np.random.default_rng(0).random((9, 12, 3), dtype=np.float32)
    box = np.full((7, 7), 1 / 49, np.float32)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    assert blurred(image, box)[0, 0, 0] == pytest.approx(padded[:7, :7, 0].mean(), abs=1e-6)
    assert resized(image, (0, 5), np.random.default_rng(0)).shape == (1, 5, 3)


def test_mistakes_are_named(photograph):
    with pytest.raises(UserError, match=r"a\.png is smaller than 4x4"):
        degraded(photograph[:3])
    with pytest.raises(UserError, match="unexpected keyword argument 'sigmas'"):
        RealWorldDegradation(second=dict(sigmas=(1, 2)))
