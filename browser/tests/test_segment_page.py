"""The page of `opsin segment-app` in headless Chromium: what one clicks is what one sees.

Not a part of `make test`, since it needs a Chromium and its driver: `make browser-test`. A picture of each
state is written to the folder in BROWSER_PICTURES, if that is set.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from opsin.core.data import read_image
from opsin.core.engine.config import load_config
from opsin.segmentation.promptable.predictor import PromptablePredictor
from opsin.segmentation.promptable.prompts import Prompts
from opsin.segmentation.promptable.samples import write_samples
from opsin.segmentation.promptable.web_page import PageServer

SECONDS = 60  # that an answer may take
DOT = 6  # pixels around a click that its dot covers
READ_OVERLAY = """
const canvas = document.getElementById("overlay");
return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)
  .filter((_, index) => index % 4 === 3);
"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_samples(folder, train=1, val=1)
    return folder / "coco/images/val/0000.jpg"


@pytest.fixture(scope="module")
def predictor() -> PromptablePredictor:
    """A trained model where PROMPTABLE_CHECKPOINT names one; random weights answer all the same."""
    torch.manual_seed(0)
    checkpoint = os.environ.get("PROMPTABLE_CHECKPOINT")
    return PromptablePredictor(load_config("rwkv_sam_samples"), Path(checkpoint) if checkpoint else None)


@pytest.fixture(scope="module")
def browser(predictor: PromptablePredictor) -> Iterator[Chrome]:
    options = ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,800"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = ChromeService(shutil.which("chromedriver"))
    with PageServer(predictor, 0) as server, Chrome(options, service) as opened:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        opened.get(server.address)
        yield opened
        server.shutdown()
        thread.join()


class Page:
    """What a person does on the page and sees there."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    @property
    def said(self) -> str:
        """The line below the buttons."""
        return self.browser.find_element("id", "said").text

    def waits_for(self, words: str) -> None:
        """Waits until the line has these words."""
        WebDriverWait(self.browser, SECONDS).until(lambda _: words in self.said, f"{words!r}: {self.said!r}")

    def opens(self, path: Path) -> None:
        self.browser.find_element("id", "file").send_keys(str(path))

    def clicks(self, x: int, y: int, *, shift: bool = False) -> None:
        """Clicks on a pixel of the picture."""
        actions = ActionChains(self.browser)
        if shift:
            actions.key_down(Keys.SHIFT)
        self._move(actions, x, y).click()
        if shift:
            actions.key_up(Keys.SHIFT)
        actions.perform()

    def drags(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Drags a box between two pixels of the picture."""
        actions = self._move(ActionChains(self.browser), *start).click_and_hold()
        self._move(actions, *end).release().perform()

    def _move(self, actions: ActionChains, x: int, y: int) -> ActionChains:
        canvas: WebElement = self.browser.find_element("id", "overlay")
        width, height = int(canvas.get_attribute("width")), int(canvas.get_attribute("height"))
        size = canvas.size  # selenium counts from the middle
        across, down = size["width"] * (x / width - 0.5), size["height"] * (y / height - 0.5)
        return actions.move_to_element_with_offset(canvas, round(across), round(down))

    def points(self) -> Prompts:
        """The clicks as the page counts them, parts of pixels included."""
        [*clicks] = self.browser.execute_script("return points")
        places = torch.tensor(clicks, dtype=torch.float32)[None]
        return Prompts(places[..., :2], places[..., 2].long())

    def painted(self) -> NDArray[np.bool_]:
        """The pixels of the picture that have something over them."""
        alpha = np.array(self.browser.execute_script(READ_OVERLAY), np.uint8)
        return alpha.reshape(128, 128) > 0

    def photographs(self, name: str) -> None:
        """Writes what is seen."""
        if folder := os.environ.get("BROWSER_PICTURES"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.fixture
def page(browser: Chrome, picture: Path) -> Page:
    """The page with a picture and nothing asked yet."""
    browser.refresh()
    opened = Page(browser)
    opened.opens(picture)
    opened.waits_for("Click on an object.")
    return opened


def asked(predictor: PromptablePredictor, picture: Path, prompts: Prompts) -> NDArray[np.bool_]:
    """The mask that the predictor itself gives."""
    mask: NDArray[np.bool_] = predictor.encode(read_image(picture)).segment(prompts).masks[0]
    return mask


def test_a_click_shows_the_mask_of_that_pixel(
    page: Page, predictor: PromptablePredictor, picture: Path
) -> None:
    assert not page.painted().any()
    page.clicks(40, 50)
    page.waits_for("stability")
    page.photographs("click")
    seen = page.painted()
    prompts = page.points()
    torch.testing.assert_close(prompts.points, torch.tensor([[[40.0, 50.0]]]), atol=1.0, rtol=0)
    wanted = asked(predictor, picture, prompts)
    assert f"{wanted.sum()} pixels" in page.said
    beside = np.ones_like(seen)
    beside[50 - DOT : 50 + DOT + 1, 40 - DOT : 40 + DOT + 1] = False
    np.testing.assert_array_equal(seen[beside], wanted[beside])
    assert seen[50, 40]  # the dot


def test_a_click_with_shift_says_what_is_not_the_object(
    page: Page, predictor: PromptablePredictor, picture: Path
) -> None:
    page.clicks(40, 50)
    page.waits_for("stability")
    page.clicks(90, 100, shift=True)
    WebDriverWait(page.browser, SECONDS).until(lambda _: len(page.points().labels[0]) == 2)
    both = page.points()
    assert both.labels.tolist() == [[1, 0]]
    page.waits_for(f"{asked(predictor, picture, both).sum()} pixels")
    page.photographs("shift_click")


def test_a_box_is_dragged_and_cleared(page: Page, predictor: PromptablePredictor, picture: Path) -> None:
    page.drags((20, 30), (100, 110))
    page.waits_for("stability")
    [corners] = page.browser.execute_script("return boxes")
    np.testing.assert_allclose(corners, [20, 30, 100, 110], atol=1)
    wanted = asked(predictor, picture, Prompts(boxes=torch.tensor([corners])))
    assert f"{wanted.sum()} pixels" in page.said
    page.photographs("box")
    assert page.painted()[28:33, 25:95].any(0).all()  # the box's upper side
    page.browser.find_element("id", "clear").click()
    page.waits_for("Click on an object.")
    assert not page.painted().any()


def test_everything_says_how_many_masks_it_shows(page: Page) -> None:
    page.browser.find_element("id", "everything").click()
    page.waits_for("masks")
    page.photographs("everything")
    assert page.painted().any() == (page.said != "0 masks")


def test_a_file_that_is_no_picture_is_named_in_red(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    page.opens(text)
    WebDriverWait(page.browser, SECONDS).until(
        lambda b: "wrong" in b.find_element("id", "said").get_attribute("class")
    )
    page.photographs("mistake")


def test_nothing_is_loaded_from_elsewhere_and_nothing_fails(page: Page) -> None:
    loaded = page.browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith(("http://127.0.0.1:", "data:")) for name in loaded)
    errors = [entry["message"] for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in errors if "favicon" not in message] == []
