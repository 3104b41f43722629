"""The page of `opsin segment-app` in headless Chromium: what one clicks is what one sees.

Not a part of `make test`, since it needs a Chromium and its driver: `make browser-test`. A picture of each
state is written to the folder in BROWSER_PICTURES, if that is set.
"""

from __future__ import annotations

import base64
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.ui import WebDriverWait

from opsin.core.data import read_image
from opsin.core.engine.config import load_config
from opsin.segmentation.promptable.clicks import Click, ClickedPicture, Clicks, Rgb, said
from opsin.segmentation.promptable.predictor import PromptablePredictor
from opsin.segmentation.promptable.samples import write_samples
from opsin.segmentation.promptable.web_page import NO_PICTURE, READY, SECOND_CORNER, PageServer

SECONDS = 60  # that an answer may take
# pixels of the sample as shown, four times as large: a digit, its neighbour, and a box around the digit
ON_IT, BESIDE_IT, CORNERS = (322, 132), (286, 380), ((430, 90), (250, 350))
READ_PICTURE = """
const image = document.querySelector("#picture img");
if (!image || !image.complete) return null;
const canvas = document.createElement("canvas");
canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
canvas.getContext("2d").drawImage(image, 0, 0);
return canvas.toDataURL("image/png");
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def picture(predictor: PromptablePredictor, file: Path) -> ClickedPicture:
    """What the page should know of the file."""
    pixels = read_image(file)
    return ClickedPicture(pixels, predictor.encode(pixels))


@pytest.fixture(scope="module")
def browser(predictor: PromptablePredictor) -> Iterator[Chrome]:
    options = ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    server = PageServer(predictor, 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    with Chrome(options, ChromeService(shutil.which("chromedriver"))) as opened:
        opened.get(server.address)
        yield opened
    server.close()
    thread.join()


class Page:
    """What a person does on the page and sees there."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser
        self.waits_for(NO_PICTURE)

    @property
    def said(self) -> str:
        """The line below the buttons."""
        return self.browser.execute_script("return document.querySelector('#said textarea')?.value ?? ''")

    def waits_for(self, words: str) -> None:
        """Waits until the line has these words."""
        WebDriverWait(self.browser, SECONDS).until(lambda _: words in self.said, f"{words!r}: {self.said!r}")

    def opens(self, path: Path) -> None:
        self.browser.find_element("css selector", "input[type=file]").send_keys(str(path))

    def presses(self, name: str) -> None:
        self.browser.find_element("id", name).click()

    def clicks(self, x: int, y: int, click: Click = Click.OBJECT) -> None:
        """Chooses what a click is, and clicks on a pixel of the picture as it is shown."""
        self.browser.find_element("css selector", f"#kind input[value='{click}']").click()
        image = self.browser.find_element("css selector", "#picture img")
        width, height = (int(image.get_property(side)) for side in ("naturalWidth", "naturalHeight"))
        factor = min(image.size["width"] / width, image.size["height"] / height)
        across, down = (
            (x - width / 2) * factor,
            (y - height / 2) * factor,
        )  # selenium counts from the middle
        ActionChains(self.browser).move_to_element_with_offset(
            image, round(across), round(down)
        ).click().perform()

    def seen(self) -> Rgb | None:
        """The picture as it is shown."""
        url = self.browser.execute_script(READ_PICTURE)
        if url is None:
            return None
        content = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
        return cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def shows(self, drawn: Rgb) -> None:
        """Waits until it shows just this."""
        WebDriverWait(self.browser, SECONDS).until(lambda _: np.array_equal(self.seen(), drawn))

    def photographs(self, name: str) -> None:
        """Writes what is seen."""
        if folder := os.environ.get("BROWSER_PICTURES"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.fixture
def page(browser: Chrome, file: Path) -> Page:
    """The page with a picture and nothing asked yet."""
    browser.refresh()
    opened = Page(browser)
    opened.opens(file)
    opened.waits_for(READY)
    return opened


def test_a_click_shows_the_mask_of_that_pixel(page: Page, picture: ClickedPicture) -> None:
    page.shows(picture.drawn())
    page.clicks(*ON_IT)
    asked = picture.clicked(ON_IT, Click.OBJECT)
    assert asked.clicks == Clicks(((80, 33, 1),))
    found = asked.answer()
    page.waits_for(said(found))
    page.shows(asked.drawn(found))
    page.photographs("click")


def test_a_click_beside_the_object_changes_the_mask(page: Page, picture: ClickedPicture) -> None:
    page.clicks(*ON_IT)
    page.waits_for("stability")
    page.clicks(*BESIDE_IT, Click.OTHER)
    asked = picture.clicked(ON_IT, Click.OBJECT).clicked(BESIDE_IT, Click.OTHER)
    found = asked.answer()
    page.waits_for(said(found))
    page.shows(asked.drawn(found))
    page.photographs("not_the_object")


def test_two_corners_make_a_box_and_clear_forgets_it(page: Page, picture: ClickedPicture) -> None:
    page.clicks(*CORNERS[0], Click.CORNER)
    page.waits_for(SECOND_CORNER)
    page.photographs("first_corner")
    page.clicks(*CORNERS[1], Click.CORNER)
    asked = picture.clicked(CORNERS[0], Click.CORNER).clicked(CORNERS[1], Click.CORNER)
    assert asked.clicks.box_edges == (62, 22, 108, 88)
    found = asked.answer()
    page.waits_for(said(found))
    page.shows(asked.drawn(found))
    page.photographs("box")
    page.presses("clear")
    page.waits_for(READY)
    page.shows(picture.drawn())


def test_everything_says_how_many_masks_it_shows(
    page: Page, predictor: PromptablePredictor, picture: ClickedPicture
) -> None:
    page.presses("everything")
    found = picture.encoded.everything(**predictor.cfg.everything)
    page.waits_for(said(found))
    page.shows(picture.drawn(found))
    page.photographs("everything")


def test_mistakes_are_said_in_one_line(browser: Chrome, tmp_path: Path) -> None:
    browser.refresh()
    page = Page(browser)
    page.presses("everything")
    page.waits_for("there is no picture, or it was forgotten; choose one")
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    page.opens(text)
    page.waits_for("notes.png is not an image")
    page.photographs("mistakes")
    assert page.seen() is None


def test_nothing_is_loaded_from_elsewhere_and_nothing_fails(page: Page) -> None:
    loaded = page.browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert len(loaded) > 10
    assert [name for name in loaded if not name.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []
    assert [row["message"] for row in page.browser.get_log("browser") if row["level"] == "SEVERE"] == []
