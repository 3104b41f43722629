import pytest

from opsin.core.data.pictures import digits, photographs, textures


def test_photographs_are_colour_pictures_of_some_size():
    found = photographs()
    assert {"astronaut", "china", "flower", "rocket"} <= set(found)
    assert all(p.ndim == 3 and p.shape[2] == 3 and min(p.shape[:2]) >= 300 for p in found.values())


def test_textures_have_three_equal_channels():
    for texture in textures().values():
        assert texture.shape == (512, 512, 3)
        assert (texture[..., 0] == texture[..., 2]).all()


def test_digits_use_the_whole_range():
    images, labels = digits()
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 255)
    assert sorted(set(labels.tolist())) == list(range(10))


def test_shared_pictures_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        photographs()["china"][0, 0] = 0
