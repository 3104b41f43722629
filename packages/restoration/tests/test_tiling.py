import subprocess
import sys

import numpy as np
import pytest
import torch

from opsin.core.errors import UserError
from opsin.restoration.models.tiling import BlockwiseTiling, ImageTiling, Untiled, from_unit, restore, to_unit


def picture(height, width):
    return np.random.default_rng(0).random((height, width, 3), dtype=np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        dict(upscale=2),
        dict(upscale=3, window_size=16, overlap_ratio=0.25),
        dict(upscale=4, conv_scale=0.0),
        dict(upscale=1, resi_connection="identity"),
        dict(upscale=2, img_size=8),
    ],
    ids=lambda changes: "-".join(f"{k}={v}" for k, v in changes.items()),
)
def test_blockwise_tiles_equal_the_whole_picture(small_hat, changes):
    network, image = small_hat(**changes), picture(37, 53)
    whole = restore(network, image, Untiled())
    tiled = restore(network, image, BlockwiseTiling(size=16))
    assert np.abs(tiled - whole).max() <= 1e-4 and np.abs(whole).max() > 0.5


@pytest.mark.parametrize("size", [(1, 40), (64, 9), (32, 32)])
def test_blockwise_tiles_equal_the_whole_picture_at_odd_sizes(small_hat, size):
    network, image = small_hat(), picture(*size)
    whole = restore(network, image, Untiled())
    assert np.abs(restore(network, image, BlockwiseTiling(size=8)) - whole).max() <= 1e-4


def test_blockwise_tiles_give_the_same_8_and_16_bit_pictures(small_hat):
    network = small_hat()
    for dtype, white in ((np.uint8, 255), (np.uint16, 65535)):
        image = (picture(20, 28) * white).astype(dtype)
        whole, tiled = (restore(network, image, way) for way in (Untiled(), BlockwiseTiling(size=8)))
        assert whole.dtype == tiled.dtype == dtype
        assert np.abs(whole.astype(int) - tiled.astype(int)).max() <= 1  # a value at x.5 may round either way


def test_image_tiles_are_near_and_become_exact_without_the_global_branch(small_hat):
    """With one window of margin and one unshifted block, all that a pixel sees is in its tile."""
    image = picture(40, 40)
    network = small_hat(depths=(1,), num_heads=(2,), conv_scale=0.0)
    whole = restore(network, image, Untiled())
    assert np.abs(restore(network, image, ImageTiling(size=16, pad=16)) - whole).max() < 1e-4
    network.layers[0].residual_group.blocks[0].conv_scale = 0.5
    whole = restore(network, image, Untiled())
    difference = np.abs(restore(network, image, ImageTiling(size=16, pad=16)) - whole)
    assert difference.max() > 1e-4 and difference.mean() < 0.02


def test_pieces_cover_the_picture_once(small_hat):
    network, image = small_hat(upscale=3), picture(21, 33)
    for tiling in (BlockwiseTiling(size=16), ImageTiling(size=16, pad=8), Untiled()):
        times = np.zeros((63, 99), int)
        for region, _ in tiling.pieces(network, image):
            times[region] += 1
        assert (times == 1).all()


def test_progress_counts_every_tile(small_hat):
    for tiling in (BlockwiseTiling(size=16), ImageTiling(size=16, pad=8), Untiled()):
        calls: list[tuple[int, int]] = []
        restore(small_hat(), picture(20, 30), tiling, lambda *call, calls=calls: calls.append(call))
        total = calls[-1][1]
        assert calls == [(i, total) for i in range(1, total + 1)]


def test_tiles_must_fit_the_window(small_hat):
    for tiling in (BlockwiseTiling(size=12), ImageTiling(size=12, pad=8), ImageTiling(size=16, pad=4)):
        with pytest.raises(UserError, match="not a multiple of the window, 8"):
            restore(small_hat(), picture(20, 20), tiling)


def test_a_scratch_folder_that_is_not_there_is_named(small_hat, tmp_path):
    with pytest.raises(UserError, match=r"no scratch folder in .*nowhere"):
        restore(small_hat(), picture(20, 20), BlockwiseTiling(size=8, scratch=str(tmp_path / "nowhere")))


def test_no_scratch_file_is_left(small_hat, tmp_path):
    restore(small_hat(), picture(20, 20), BlockwiseTiling(size=8, scratch=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_units_and_stored_values_are_each_others_inverse():
    for dtype in (np.uint8, np.uint16):
        values = np.arange(256, dtype=dtype).reshape(16, 16, 1) * (257 if dtype == np.uint16 else 1)
        unit = to_unit(values.astype(dtype))
        assert unit.min() == 0 and unit.max() == 1
        assert np.array_equal(from_unit(unit[0], np.dtype(dtype))[0], values[..., 0])
    assert from_unit(torch.tensor([[[-1.0, 2.0]]]), np.dtype(np.uint8)).tolist() == [[[0, 255]]]


PEAK = """
import sys
import numpy as np, torch
from opsin.core.engine.measure import peak_memory
from opsin.restoration.models import HAT
from opsin.restoration.models.tiling import BlockwiseTiling, restore
torch.set_num_threads(1)
network = HAT(img_size=32, window_size=8, embed_dim=32, depths=(1,), num_heads=(2,), squeeze_factor=8).eval()
side, tile = int(sys.argv[1]), int(sys.argv[2])
way = BlockwiseTiling(size=tile, scratch=sys.argv[3])
restore(network, np.zeros((40, 40, 3), np.uint8), BlockwiseTiling(size=8, scratch=sys.argv[3]))
before = peak_memory()
restore(network, np.zeros((side, side, 3), np.uint8), way)
print((peak_memory() - before) // 1024)
"""


def peak_kilobytes(side, tile, scratch):
    command = [sys.executable, "-c", PEAK, str(side), str(tile), str(scratch)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def test_memory_is_bounded_by_the_tile_and_not_by_the_picture(tmp_path):
    # 320 pixels have tiles of every kind, within the picture and at its border; 640 only more of them
    small, large, whole = (peak_kilobytes(*size, tmp_path) for size in ((320, 64), (640, 64), (448, 448)))
    pictures = (640**2 - 320**2) * 3 * (1 + 4) / 1024  # what is stored of input and result, in kB
    assert large - small < pictures + 12_000
    assert whole > 4 * large
