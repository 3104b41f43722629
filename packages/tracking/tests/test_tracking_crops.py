import numpy as np
import pytest

from opsin.core.errors import UserError
from opsin.tracking.crops import box_from_crop, box_in_crop, clip_box, crop_square
from opsin.tracking.online_memory import OnlineMemory, UpdateRule


def picture(height=20, width=30):
    return np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3).astype(np.uint8)


def test_a_crop_inside_the_picture_is_that_part_of_it():
    image = picture()
    crop = crop_square(image, (10, 6, 4, 4), 2.0, 8)
    assert crop.resize_factor == 1 and not crop.padding.any()
    assert np.array_equal(crop.pixels, image[4:12, 8:16])


def test_the_crop_side_is_rounded_up_and_its_corner_half_to_even():
    # sqrt(3 * 3) * 1.1 = 3.3 becomes 4; the corner 10 + 1.5 - 2 = 9.5 becomes 10, and 7.5 becomes 8
    crop = crop_square(picture(), (10, 8, 3, 3), 1.1, 4)
    assert np.array_equal(crop.pixels, picture()[8:12, 10:14])


def test_outside_is_black_and_one_more_pixel_at_the_far_borders():
    image = np.full((20, 30, 3), 9, np.uint8)
    crop = crop_square(image, (-2, -2, 4, 4), 2.0, 8)
    assert not crop.pixels[:4].any() and not crop.pixels[:, :4].any() and (crop.pixels[4:, 4:] == 9).all()
    assert crop.padding[:4].all() and not crop.padding[4:, 4:].any()
    crop = crop_square(image, (24, 10, 4, 4), 2.0, 8)  # columns 22 to 29: ends with the picture
    assert not crop.pixels[:, 7].any() and (crop.pixels[:, :7] == 9).all() and crop.padding[:, 7].all()


def test_a_crop_wholly_outside_is_all_padding():
    crop = crop_square(picture(), (500, 500, 10, 10), 2.0, 16)
    assert crop.padding.all() and not crop.pixels.any()


@pytest.mark.parametrize(
    "box", [(1, 1, 0, 5), (1, 1, 5, -2), (1, 1, float("nan"), 2), (1, 1, float("inf"), 2)]
)
def test_a_box_without_area_is_refused(box):
    with pytest.raises(UserError, match="has no area"):
        crop_square(picture(), box, 2.0, 8)


def test_a_box_goes_into_the_crop_and_back():
    around, truth = (100.0, 80.0, 40.0, 30.0), (110.0, 78.0, 36.0, 33.0)
    crop = crop_square(np.zeros((300, 400, 3), np.uint8), around, 4.0, 128)
    x, y, w, h = box_in_crop(truth, around, crop.resize_factor, 128)
    predicted = (x + w / 2, y + h / 2, w, h)
    back = box_from_crop(predicted, around, crop.resize_factor, 128, (300, 400))
    # training centres crops at (size - 1) / 2 and tracking at size / 2: half a pixel of the crop apart
    half = 0.5 / crop.resize_factor
    np.testing.assert_allclose(back, (110 - half, 78 - half, 36, 33), atol=1e-9)


def test_ten_pixels_of_a_box_stay_inside():
    assert clip_box((-50, -50, 20, 20), (100, 200)) == (0, 0, 10, 10)
    assert clip_box((500, 95, 20, 20), (100, 200)) == (190, 90, 10, 10)
    assert clip_box((20, 20, 1, 2), (100, 200)) == (20, 20, 10, 10)
    assert clip_box((150, 10, 100, 20), (100, 200)) == (150, 10, 50, 20)


def run(scores, **rule):
    memory = OnlineMemory(0, UpdateRule(**rule))
    history = []
    for frame, score in enumerate(scores, 1):
        memory.observe(score, lambda frame=frame: frame)
        history.append(list(memory.entries))
    return history, memory


def test_one_entry_is_replaced_by_the_best_frame_of_each_interval():
    history, _ = run([0.6, 0.9, 0.7, 0.2, 0.3, 0.4], size=1, interval=3)
    assert history == [[0], [0], [2], [2], [2], [0]]  # no candidate: the first template again


def test_memory_grows_and_then_overwrites_its_oldest_entry():
    history, _ = run([0.9] * 5, size=3, interval=1)
    assert history == [[0, 1], [0, 1, 2], [3, 1, 2], [3, 4, 2], [3, 4, 5]]


def test_the_best_score_decays_so_that_later_frames_win():
    assert run([0.8, 0.78, 0.6], size=1, interval=3)[0][-1] == [1]
    assert run([0.8, 0.78, 0.6], size=1, interval=3, decay=0.9)[0][-1] == [2]


def test_scores_at_the_threshold_are_no_candidates_and_cut_nothing():
    memory = OnlineMemory("first", UpdateRule(size=1, interval=2))

    def cut():
        raise AssertionError("a template was cut")

    assert not memory.observe(0.5, cut) and memory.observe(0.1, cut)
    assert memory.entries == ["first"] and memory.best_score == -1


def test_interval_zero_never_updates():
    assert run([0.9] * 4, size=2, interval=0)[0][-1] == [0]
