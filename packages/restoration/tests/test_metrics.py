import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from opsin.core.data.pictures import photographs
from opsin.core.errors import UserError
from opsin.restoration.degradation import bicubic
from opsin.restoration.metrics import SuperResolutionMetric, luma, psnr, ssim


@pytest.fixture(scope="module")
def pair():
    picture = photographs()["chelsea"][:120, :160]
    return picture, bicubic(bicubic(picture, 1 / 4), 4)


def test_luma_is_that_of_scikit_image(pair):
    np.testing.assert_allclose(luma(pair[0]), rgb2ycbcr(pair[0])[..., 0], atol=0.01)
    assert luma(np.array([[[0, 0, 0], [255, 255, 255]]])).tolist() == [[16.0, 235.0]]


def test_psnr_is_that_of_scikit_image(pair):
    assert psnr(*pair) == pytest.approx(peak_signal_noise_ratio(*pair, data_range=255))


def test_ssim_is_that_of_scikit_image(pair):
    settings = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    assert ssim(*pair) == pytest.approx(structural_similarity(*pair, channel_axis=2, **settings), abs=1e-6)
    y = [luma(picture) for picture in pair]
    assert ssim(*y) == pytest.approx(structural_similarity(*y, **settings), abs=1e-6)


def test_a_picture_against_itself_is_inf_and_1(pair):
    assert psnr(pair[0], pair[0]) == math.inf
    assert ssim(pair[0], pair[0]) == pytest.approx(1.0)


def sample(image, reference):
    tensors = (torch.from_numpy(p.copy()).permute(2, 0, 1) for p in (image, reference))
    return dict(zip(("pred_img", "gt_img"), tensors, strict=True), gt_path="a.png")


def test_border_is_left_out_and_pictures_are_averaged(pair):
    reference, image = pair[0], pair[0].copy()
    image[:4] = image[-4:] = 0
    image[:, :4] = image[:, -4:] = 0
    metric = SuperResolutionMetric(crop_border=4)
    metric.process({}, [sample(image, reference)])
    assert metric.evaluate(1)["sr/psnr_y"] == math.inf
    metric = SuperResolutionMetric(crop_border=4, measures=("psnr_rgb",))
    metric.process({}, [sample(pair[1], reference), sample(255 - reference, reference)])
    inner = (slice(4, -4), slice(4, -4))
    expected = (psnr(pair[1][inner], reference[inner]) + psnr(255 - reference[inner], reference[inner])) / 2
    assert metric.evaluate(2) == {"sr/psnr_rgb": pytest.approx(expected)}


def test_a_picture_smaller_than_the_window_is_named():
    tiny = np.zeros((12, 12, 3), np.uint8)
    with pytest.raises(UserError, match=r"a\.png is too small to measure"):
        SuperResolutionMetric(crop_border=4).process({}, [sample(tiny, tiny)])
