"""The page of `opsin segment-app` without a browser: clicks, what they ask, what is shown, and its server."""

from __future__ import annotations

import asyncio
import http.client
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")

from gradio import SelectData
from gradio.state_holder import SessionState

from opsin.core.cli import main
from opsin.core.data import read_image
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError
from opsin.segmentation.promptable.clicks import Click, ClickedPicture, Clicks, Rgb, said
from opsin.segmentation.promptable.commands import parse_prompts
from opsin.segmentation.promptable.predictor import FoundMasks, PromptablePredictor
from opsin.segmentation.promptable.web_page import LOOPBACK, NO_PICTURE, SECOND_CORNER, Page, PageServer


@pytest.fixture(scope="module")
def predictor() -> PromptablePredictor:
    """Random weights: the page shows whatever the predictor answers."""
    torch.manual_seed(0)
    return PromptablePredictor(load_config("rwkv_sam_samples"), None)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def page(predictor: PromptablePredictor) -> Page:
    return Page(predictor)


def of_size(page: Page, height: int, width: int) -> ClickedPicture:
    pixels = np.zeros((height, width, 3), np.uint8)
    return ClickedPicture(pixels, page.predictor.encode(pixels))


def test_points_and_a_box_join_to_one_question() -> None:
    clicks = Clicks().after((3, 4), Click.OBJECT).after((9, 8), Click.OTHER)
    asked = clicks.after((7, 2), Click.CORNER).after((1, 6), Click.CORNER).prompts()
    assert asked.points is not None and asked.labels is not None and asked.boxes is not None
    assert asked.points.tolist() == [[[3, 4], [9, 8]]] and asked.labels.tolist() == [[1, 0]]
    assert asked.boxes.tolist() == [[1, 2, 8, 7]]  # both corners' pixels are in it


def test_a_new_box_replaces_the_old_one_and_may_have_one_pixel() -> None:
    first = Clicks().after((1, 1), Click.CORNER).after((5, 5), Click.CORNER)
    begun = first.after((2, 2), Click.CORNER)
    assert begun.box is None
    assert begun.after((2, 2), Click.CORNER).box_edges == (2, 2, 3, 3)


@pytest.mark.parametrize(
    ("clicks", "words"),
    [(Clicks(), "nothing is asked for"), (Clicks(corner=(1, 2)), "a box has two corners")],
)
def test_clicks_that_ask_for_nothing_are_refused(clicks: Clicks, words: str) -> None:
    with pytest.raises(UserError, match=words):
        clicks.prompts()


@pytest.mark.parametrize(
    ("size", "shown", "click", "pixel"),
    [
        ((96, 128), (384, 512), (511, 383), (127, 95)),  # enlarged four times
        ((96, 128), (384, 512), (4, 3), (1, 0)),
        ((600, 700), (600, 700), (699, 0), (699, 0)),
        ((1536, 3072), (768, 1536), (1535, 767), (3071, 1535)),  # halved
        ((1, 5), (103, 515), (514, 102), (4, 0)),
    ],
)
def test_clicks_on_what_is_shown_are_pixels_of_the_picture(
    page: Page, size: tuple[int, int], shown: tuple[int, int], click: tuple[int, int], pixel: tuple[int, int]
) -> None:
    picture = of_size(page, *size)
    assert picture.shown_size == shown and picture.drawn().shape == (*shown, 3)
    assert picture.clicked(click, Click.OBJECT).clicks.points == ((*pixel, 1),)


def test_masks_box_and_points_lie_over_the_picture_where_they_were_asked(page: Page) -> None:
    picture = of_size(page, 128, 128).clicked((42, 42), Click.OBJECT).clicked((402, 402), Click.OTHER)
    picture = picture.clicked((200, 300), Click.CORNER).clicked((100, 250), Click.CORNER)
    mask = np.zeros((1, 128, 128), bool)
    mask[0, 60:100, 60:100] = True
    drawn = picture.drawn(FoundMasks(mask, np.ones(1)))
    assert drawn[42, 42].tolist() == [0, 170, 0] and drawn[402, 402].tolist() == [204, 0, 0]
    assert drawn[320, 320].any() and not drawn[200, 200].any()  # in the mask, and before it
    assert (drawn[260:300, 100] == 255).all() and (drawn[248, 110:190] == 255).all()  # the box's edges
    assert drawn.shape == (512, 512, 3)


def test_page_encodes_a_picture_once_and_answers_as_the_predictor_does(
    page: Page, predictor: PromptablePredictor, file: Path
) -> None:
    calls: list[int] = []
    hook = predictor.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    picture, drawn, _ = page.open(str(file))
    np.testing.assert_array_equal(drawn, cv2.resize(read_image(file), (512, 384), interpolation=0))
    picture, _, line = page.click(picture, (360, 300), Click.CORNER)
    assert line == SECOND_CORNER
    picture, drawn, line = page.click(picture, (40, 48), Click.CORNER)
    found = picture.encoded.segment(parse_prompts([], ["10,12,91,76"]))
    assert line == said(found) == f"{found.masks[0].sum()} pixels, stability {found.scores[0]:.4f}"
    np.testing.assert_array_equal(drawn, picture.drawn(found))
    picture, _, line = page.click(picture, (80, 120), Click.OTHER)
    assert line == said(picture.encoded.segment(parse_prompts(["20,30,0"], ["10,12,91,76"])))
    picture, _, line = page.everything(picture)
    assert line == said(picture.encoded.everything(**predictor.cfg.everything))
    assert picture.clicks == Clicks()
    hook.remove()
    assert len(calls) == 1


def test_mistakes_are_one_line_that_names_the_file(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    with pytest.raises(UserError, match=r"^notes\.png is not an image"):
        page.open(str(text))
    for answer in (lambda: page.click(None, (1, 1), Click.OBJECT), lambda: page.everything(None)):
        with pytest.raises(UserError, match="there is no picture, or it was forgotten"):
            answer()


def test_controls_are_wired_to_what_they_do(
    page: Page, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every control is used as the browser's requests use it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    blocks = page.blocks()
    events = {fn.targets[0][1]: fn for fn in blocks.fns.values() if fn.targets[0][1] != "click"}
    everything, clear = (fn for fn in blocks.fns.values() if fn.targets[0][1] == "click")
    assert len(blocks.fns) == 4
    state = SessionState(blocks)

    def uses(fn: object, *inputs: object, at: tuple[int, int] | None = None) -> tuple[Rgb | None, str]:
        chosen = SelectData(None, {"index": at, "value": None}) if at else None
        answer = asyncio.run(blocks.process_api(fn, list(inputs), state=state, event_data=chosen))
        _, shown, line = answer["data"]
        return (read_image(shown["path"]) if "path" in shown else None), line

    with pytest.warns(UserWarning, match="there is no picture"):  # shown in a corner of the page, too
        shown, line = uses(everything, None)
    assert shown is None and line.startswith("there is no picture")
    upload = {"path": str(file), "meta": {"_type": "gradio.FileData"}}
    picture, drawn, line = page.open(str(file))
    shown, said_line = uses(events["upload"], upload)
    np.testing.assert_array_equal(shown, drawn)
    assert said_line == line
    for at, kind in (((40, 60), Click.OBJECT), ((90, 30), Click.OTHER)):
        picture, drawn, line = page.click(picture, at, kind)
        shown, said_line = uses(events["select"], None, str(kind), at=at)
        np.testing.assert_array_equal(shown, drawn)
        assert said_line == line
    shown, _ = uses(clear, None)
    np.testing.assert_array_equal(shown, picture.cleared().drawn())
    shown, line = uses(everything, None)
    assert line == page.everything(picture)[2]


@pytest.fixture(scope="module")
def server(predictor: PromptablePredictor) -> Iterator[PageServer]:
    opened = PageServer(predictor, 0)
    thread = threading.Thread(target=opened.run, daemon=True)
    thread.start()
    yield opened
    opened.close()
    thread.join()


def get(server: PageServer, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_server_answers_this_machine_alone_and_sends_nothing_elsewhere(server: PageServer) -> None:
    status, content = get(server, "/")
    assert status == 200 and NO_PICTURE in content and '"analytics_enabled":false' in content
    assert "fonts.g" not in content and "cdn" not in content
    assert get(server, "/", Host="evil.example:80")[0] == 400
    assert server.socket.getsockname()[0] == LOOPBACK


def test_port_in_use_is_named(server: PageServer, predictor: PromptablePredictor) -> None:
    with pytest.raises(UserError, match=f"port {server.port} can't be used: .*; give another by --port"):
        PageServer(predictor, server.port)


def test_without_gradio_the_remedy_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "opsin.segmentation.promptable.web_page")
    with pytest.raises(SystemExit) as left:
        main(["segment-app", "rwkv_sam_samples", "none.pth"])
    assert left.value.code == 2
    assert "pip install 'opsin-segmentation[app]'" in capsys.readouterr().err
