import math

import albumentations
import cv2
import numpy as np
import pytest

from opsin.restoration.blur_kernels import (
    SIZES,
    bell_kernel,
    draw_blur_kernel,
    plateau_kernel,
    ringing_kernel,
)


def moments(kernel):
    """Mean squares of the column and of the row around the centre, and their mean product."""
    places = np.arange(len(kernel)) - len(kernel) // 2
    rows, columns = np.meshgrid(places, places, indexing="ij")
    return tuple(float((kernel * product).sum()) for product in (columns**2, rows**2, rows * columns))


def test_beta_one_is_the_gaussian():
    axis = cv2.getGaussianKernel(21, 1.7)
    np.testing.assert_allclose(bell_kernel(21, (1.7, 1.7), 0.4, 1.0), axis * axis.T, atol=1e-7)


def test_generalised_gaussians_are_albumentations():
    blur = albumentations.AdvancedBlur(
        blur_limit=(15, 15),
        sigma_x_limit=(2.0, 2.0),
        sigma_y_limit=(2.0, 2.0),
        rotate_limit=(0, 0),
        beta_limit=(0.5, 4.0),
        noise_limit=(1.0, 1.0),
    )
    blur.set_random_seed(0)
    theirs = blur.get_params()["kernel"]
    betas = np.linspace(0.5, 4, 3501)
    assert min(np.abs(bell_kernel(15, (2, 2), 0, beta) - theirs).max() for beta in betas) < 1e-4


def test_oval_kernels_have_their_spreads_along_turned_axes():
    level = moments(bell_kernel(21, (2.5, 1.0), 0, 1))
    assert level == pytest.approx((6.25, 1.0, 0), abs=0.02)
    upright = moments(bell_kernel(21, (2.5, 1.0), math.pi / 2, 1))
    assert upright == pytest.approx((1.0, 6.25, 0), abs=0.02)
    slanted = moments(bell_kernel(21, (2.5, 1.0), math.pi / 4, 1))
    assert slanted == pytest.approx((3.625, 3.625, 2.625), abs=0.1)


def test_a_plateau_is_flat_within_its_sigma_and_halves_there():
    kernel = plateau_kernel(21, (4, 4), 0, 2)
    centre, edge = kernel[10, 10], kernel[10, 14]
    assert edge == pytest.approx(centre / 2) and kernel[10, 12] > 0.9 * centre


def test_ringing_kernels_cut_high_frequencies_and_overshoot():
    kernel = ringing_kernel(21, math.pi / 2)
    response = np.abs(np.fft.fft2(kernel, (64, 64)))
    frequency = np.hypot(*np.meshgrid(*[2 * math.pi * np.fft.fftfreq(64)] * 2))
    assert response[frequency < 1.2].min() > 0.8 and response[frequency > 2.0].max() < 0.15
    edge = cv2.filter2D(np.repeat([[0.0] * 32 + [1.0] * 32], 64, 0).astype(np.float32), -1, kernel)
    assert edge.max() > 1.03 and edge.min() < -0.03


def test_drawn_kernels_are_of_all_sizes_and_one_in_ten_rings():
    rng = np.random.default_rng(0)
    kernels = [draw_blur_kernel((0.2, 3), rng) for _ in range(800)]
    assert {len(kernel) for kernel in kernels} == set(SIZES) == {7, 9, 11, 13, 15, 17, 19, 21}
    assert all(kernel.sum() == pytest.approx(1, abs=1e-4) for kernel in kernels)
    ringing = [kernel for kernel in kernels if kernel.min() < 0]
    assert 0.06 < len(ringing) / len(kernels) < 0.13
    bells = [kernel for kernel in kernels if kernel.min() >= 0]
    round_ones = [np.allclose(kernel, kernel.T, atol=1e-6) for kernel in bells]
    assert 0.64 < np.mean(round_ones) < 0.75  # published: 0.69


def test_kernels_follow_from_the_generator():
    first, again, other = (draw_blur_kernel((0.2, 3), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
