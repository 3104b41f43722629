import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from opsin.core.data.image import list_images, read_image, write_image
from opsin.core.errors import UserError


def gradient(height=24, width=32):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 10, x + y], axis=2).astype(np.uint8)


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".jpg"])
def test_written_picture_reads_back_as_rgb(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", gradient())
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - gradient()).mean() < 3
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_one_pixel_is_an_image(tmp_path):
    write_image(tmp_path / "a.png", np.full((1, 1, 3), [[9, 8, 7]], np.uint8))
    assert read_image(tmp_path / "a.png").tolist() == [[[9, 8, 7]]]


def test_grey_becomes_rgb(tmp_path):
    Image.fromarray(gradient()[..., 0]).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert all((image[..., c] == gradient()[..., 0]).all() for c in range(3))


def test_alpha_is_dropped(tmp_path):
    rgba = np.dstack([gradient(), np.zeros((24, 32), np.uint8)])
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == gradient()).all()


def test_palette_becomes_its_colours(tmp_path):
    image = Image.fromarray(np.eye(4, dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read[0, 0].tolist() == [200, 100, 50]
    assert read[0, 1].tolist() == [10, 20, 30]


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg")[4, 4].astype(int) - [255, 0, 0]).max() < 6


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 256, 65535]], np.uint16))
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 255]
    assert read_image(tmp_path / "a.png", dtype=np.uint16)[0, :, 1].tolist() == [0, 256, 65535]


def test_sixteen_bit_colour_keeps_its_bits_when_asked(tmp_path):
    deep = np.array([[[1, 300, 65535]]], np.uint16)
    write_image(tmp_path / "a.png", deep)
    assert (read_image(tmp_path / "a.png", dtype=np.uint16) == deep).all()
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 1, 255]]]


def test_eight_bit_white_is_sixteen_bit_white(tmp_path):
    write_image(tmp_path / "a.png", np.full((2, 2, 3), 255, np.uint8))
    assert (read_image(tmp_path / "a.png", dtype=np.uint16) == 65535).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_orientation_is_applied(tmp_path, dtype):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to view
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", exif=exif, quality=100)
    image = read_image(tmp_path / "a.jpg", dtype=dtype)
    assert image.shape == (32, 24, 3)
    eight = image if dtype == np.uint8 else image // 257
    assert np.abs(eight.astype(int) - np.rot90(gradient(), -1)).mean() < 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_truncated_file_is_named(tmp_path, suffix):
    write_image(tmp_path / f"whole{suffix}", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    content = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"half{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"half{suffix}"):
        read_image(tmp_path / f"half{suffix}")


def test_huge_picture_is_refused_before_decoding(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(60000, 60000))
    with pytest.raises(UserError, match=r"bomb\.png is too large"):
        read_image(tmp_path / "bomb.png")
    (tmp_path / "large.png").write_bytes(png_header(12000, 12000))
    with pytest.raises(UserError, match=r"large\.png is too large \(12000x12000\)"):
        read_image(tmp_path / "large.png")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"hello, I am a text", "is not an image"), (b"\x89PNG\r\n\x1a\n", "not an image")],
)
def test_file_that_is_no_image_is_named(tmp_path, content, says):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.png {says}|a\.png is {says}"):
        read_image(tmp_path / "a.png")


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no\.png does not exist"):
        read_image(tmp_path / "no.png")
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)


def test_floating_point_picture_is_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match="floating-point"):
        read_image(tmp_path / "a.tiff")


def test_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="can't write"):
        write_image(tmp_path / "a.png", gradient())
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(UserError, match="cannot write an image to"):
        write_image(tmp_path / "a.txt", gradient())


def test_images_of_a_folder_come_sorted_and_only_images(tmp_path):
    for name in ("b.PNG", "sub/a.jpg", "a.webp", "notes.txt", "._b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [str(p.relative_to(tmp_path)) for p in list_images(tmp_path)] == ["a.webp", "b.PNG", "sub/a.jpg"]
    assert list_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


def test_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no image in folder"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="no file or folder"):
        list_images(tmp_path / "nowhere")
