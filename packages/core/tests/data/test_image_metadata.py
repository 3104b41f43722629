from functools import lru_cache

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from opsin.core.data.image import Metadata, read_image, read_metadata, write_image

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.dstack((GREY, GREY.T.reshape(3, 4), GREY[::-1]))


@lru_cache  # a profile holds the time at which it was made
def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_space(icc, space):
    """The profile as if it were for another colour space."""
    return icc[:16] + space + icc[20:]


def photograph(path, **extra):
    """A picture as a camera writes it, lying on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Copyright] = "Opsin", "nobody"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.FNumber: 2.5, ExifTags.Base.ExifImageWidth: 4}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    Image.fromarray(COLOUR).save(path, exif=exif.tobytes(), icc_profile=profile(), **extra)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_and_profile_go_from_a_file_into_another(tmp_path, name, dtype):
    metadata = read_metadata(photograph(tmp_path / name))
    pixels = read_image(tmp_path / name).astype(dtype)
    write_image(tmp_path / "copy.png", pixels, metadata=metadata)
    with Image.open(tmp_path / "copy.png") as copy:
        exif = copy.getexif()
        assert copy.info["icc_profile"] == profile()
        assert exif[ExifTags.Base.Make] == "Opsin" and exif[ExifTags.Base.Copyright] == "nobody"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == 2.5
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert (read_image(tmp_path / "copy.png", dtype=dtype) == pixels).all()


def test_what_holds_for_the_first_file_alone_is_not_kept(tmp_path):
    """A picture that was turned upright would be turned again; the layout of a TIFF file is that file's."""
    Image.fromarray(GREY).save(tmp_path / "plain.tif", compression="tiff_lzw")
    assert read_metadata(tmp_path / "plain.tif") == Metadata()
    metadata = read_metadata(photograph(tmp_path / "a.tif"))
    write_image(tmp_path / "copy.png", read_image(tmp_path / "a.tif"), metadata=metadata)
    with Image.open(tmp_path / "copy.png") as copy:
        assert copy.size == (3, 4)  # turned
        exif = copy.getexif()
        assert set(exif) == {*(ExifTags.Base.Make, ExifTags.Base.Copyright), *map(int, (34665, 34853))}
        assert ExifTags.Base.ExifImageWidth not in exif.get_ifd(ExifTags.IFD.Exif)


@pytest.mark.parametrize(
    ("pixels", "space", "kept"),
    [(COLOUR, b"RGB ", True), (GREY, b"GRAY", True), (COLOUR, b"GRAY", False), (COLOUR, b"CMYK", False)],
)
def test_a_profile_for_other_colours_is_left_out(tmp_path, pixels, space, kept):
    write_image(tmp_path / "a.png", pixels, metadata=Metadata(icc=with_space(profile(), space)))
    with Image.open(tmp_path / "a.png") as image:
        assert ("icc_profile" in image.info) == kept


def test_damaged_exif_counts_as_none(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01")
    assert read_metadata(tmp_path / "a.jpg").exif == b""


def test_formats_without_room_for_metadata_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no metadata can be written to"):
        write_image(tmp_path / "a.bmp", COLOUR, metadata=Metadata(icc=profile()))
