from pathlib import Path

import numpy as np
import pytest
import torch

from opsin.restoration.degradation import bicubic, crop_to_multiple

CORNER = Path(__file__).parent / "data" / "set5_butterfly_corner.npz"


def test_known_reduction_of_a_test_picture_is_matched_to_the_last_bit():
    """The upper left corner of Set5's butterfly and of its ×4 reduction, which an older MATLAB made."""
    with np.load(CORNER) as corner:
        hr, lr = corner["hr"], corner["lr"]
    known = (slice(0, 14), slice(0, 14))  # the corner's own right and lower border is not the picture's
    assert np.array_equal(bicubic(hr, 0.25, "replicate")[known], lr[known])
    inner = (slice(2, 14), slice(2, 14))
    assert np.array_equal(bicubic(hr, 0.25)[inner], lr[inner])
    assert not np.array_equal(bicubic(hr, 0.25)[known], lr[known])


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 2, 3])
def test_inside_equals_pytorchs_antialiased_bicubic(scale):
    image = np.random.default_rng(0).random((36, 48))
    size = (round(36 * scale), round(48 * scale))
    given = torch.from_numpy(image)[None, None]
    expected = torch.nn.functional.interpolate(given, size=size, mode="bicubic", antialias=True)[0, 0].numpy()
    if scale > 1:  # there PyTorch has another kernel (a = -0.75) unless it antialiases
        assert np.abs(bicubic(image, scale) - expected)[8:-8, 8:-8].max() < 1e-6
    else:
        assert np.abs(bicubic(image, scale) - expected)[3:-3, 3:-3].max() < 1e-6


def test_border_pixels_are_mirrored_with_themselves():
    image = np.random.default_rng(0).random((24, 16))
    padded = np.pad(image, 16, mode="symmetric")
    np.testing.assert_allclose(bicubic(image, 0.25), bicubic(padded, 0.25)[4:-4, 4:-4], atol=1e-12)


def test_flat_pictures_stay_flat_and_integers_are_clamped():
    assert (bicubic(np.full((9, 9, 3), 200, np.uint8), 1 / 3) == 200).all()
    edge = np.zeros((16, 16), np.uint16)
    edge[:, 8:] = 65535
    enlarged = bicubic(edge, 4)
    assert enlarged.dtype == np.uint16 and enlarged.min() == 0 and enlarged.max() == 65535


def test_sizes_round_up_and_cropping_makes_multiples():
    assert bicubic(np.zeros((10, 30, 3)), 0.1).shape == (1, 3, 3)
    assert bicubic(np.zeros((10, 31)), 0.1).shape == (1, 4)
    assert crop_to_multiple(np.zeros((10, 31, 3)), 4).shape == (8, 28, 3)
    with pytest.raises(ValueError, match="positive"):
        bicubic(np.zeros((4, 4)), 0)
