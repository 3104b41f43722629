"""A page on this machine where one clicks on a picture and sees the mask, made with Gradio (the extra `app`).

It listens on the loopback address alone and refuses requests that name another host, so that no page of the
web can reach it; it loads nothing from elsewhere and sends nothing there. When it ends, pictures are deleted.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from opsin.core.cli.show import show_line
from opsin.core.data import read_image
from opsin.core.errors import UserError
from opsin.segmentation.promptable.clicks import Click, ClickedPicture, Rgb, said
from opsin.segmentation.promptable.predictor import PromptablePredictor

LOOPBACK = "127.0.0.1"
MOST_BYTES = 64 * 2**20  # of a picture's file
KEPT_PICTURES = 4  # one a browser tab, the last used
FILES_KEPT = 3600  # seconds
GRID = 16  # points a side for everything, unless the config says otherwise

TITLE = "Click and see the mask"
NO_PICTURE = "Choose a picture."
READY = "Click on an object."
SECOND_CORNER = "Click on the opposite corner."
THEME = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])

Answer = tuple[ClickedPicture, Rgb, str]


class Page:
    """What the page's controls do; each answers with the picture, how it looks, and a line to read."""

    def __init__(self, predictor: PromptablePredictor) -> None:
        self.predictor = predictor
        self.everything_settings = {"points_per_side": GRID, **predictor.cfg.get("everything", {})}

    def open(self, path: str) -> Answer:
        """Reads and encodes a picture."""
        try:
            pixels = read_image(path)
        except UserError as error:
            raise UserError(str(error).replace(path, Path(path).name)) from None
        picture = ClickedPicture(pixels, self.predictor.encode(pixels))
        return picture, picture.drawn(), READY

    def click(self, picture: ClickedPicture | None, shown: tuple[int, int], click: Click) -> Answer:
        """A click on a pixel of the picture as it is shown."""
        picture = _chosen(picture).clicked(shown, click)
        if picture.clicks.corner is not None:
            return picture, picture.drawn(), SECOND_CORNER
        found = picture.answer()
        return picture, picture.drawn(found), said(found)

    def everything(self, picture: ClickedPicture | None) -> Answer:
        """Masks of everything; what was clicked is forgotten."""
        picture = _chosen(picture).cleared()
        found = picture.encoded.everything(**self.everything_settings)
        return picture, picture.drawn(found), said(found)

    def clear(self, picture: ClickedPicture | None) -> Answer:
        """Forgets what was clicked."""
        picture = _chosen(picture).cleared()
        return picture, picture.drawn(), READY

    def blocks(self) -> gr.Blocks:
        """The controls, wired."""
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(FILES_KEPT, FILES_KEPT)) as blocks:
            picture = gr.State()
            gr.Markdown(f"### {TITLE}")
            with gr.Row():
                file = gr.UploadButton("Picture …", file_types=["image"], variant="primary", elem_id="file")
                everything = gr.Button("Everything", elem_id="everything")
                clear = gr.Button("Clear", elem_id="clear")
            kind = gr.Radio(list(Click), value=Click.OBJECT, label="A click is", elem_id="kind")
            line = gr.Textbox(NO_PICTURE, show_label=False, interactive=False, elem_id="said")
            shown = gr.Image(format="png", interactive=False, show_label=False, buttons=[], elem_id="picture")

            def click(picture: ClickedPicture | None, kind: str, event: gr.SelectData) -> Answer:
                return self.click(picture, tuple(event.index), Click(kind))

            wiring: dict[str, Any] = {
                "outputs": [picture, shown, line],
                "show_progress": "minimal",
                "show_progress_on": line,
                "trigger_mode": "multiple",
                "concurrency_id": "model",  # one question at a time
                "concurrency_limit": 1,
                "api_visibility": "private",
            }
            file.upload(_mistakes_said(self.open), file, **wiring)
            shown.select(_mistakes_said(click), [picture, kind], **wiring)
            everything.click(_mistakes_said(self.everything), picture, **wiring)
            clear.click(_mistakes_said(self.clear), picture, **wiring)
        blocks.state_session_capacity = KEPT_PICTURES
        return blocks


def _chosen(picture: ClickedPicture | None) -> ClickedPicture:
    if picture is None:
        raise UserError("there is no picture, or it was forgotten", "choose one")
    return picture


def _mistakes_said(answer: Callable[..., Answer]) -> Callable[..., Any]:
    """`answer`; a person's mistake leaves the picture as it is and is what the line says."""

    @wraps(answer)  # Gradio reads the arguments' types
    def answered(*arguments: Any) -> Any:
        try:
            return answer(*arguments)
        except UserError as error:
            gr.Warning(str(error))
            return gr.skip(), gr.skip(), str(error)

    return answered


class PageServer:
    """The server of one predictor's page on a port of the loopback address; 0 takes a free one.

    Raises:
        UserError: if the port is taken.
    """

    def __init__(self, predictor: PromptablePredictor, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind((LOOPBACK, port))
            self.socket.listen()
        except OSError as error:
            self.socket.close()
            raise UserError(
                f"port {port} can't be used: {error.strerror}", "give another by --port"
            ) from None
        app = FastAPI(openapi_url=None)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])
        mounted = gr.mount_gradio_app(
            app,
            Page(predictor).blocks(),
            path="/",
            footer_links=[],
            run_history=False,
            show_error=True,
            max_file_size=MOST_BYTES,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=THEME,
        )
        # a tab that is still open would else keep the server from ending
        config = uvicorn.Config(mounted, log_level="warning", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)

    @property
    def port(self) -> int:
        """Where it listens."""
        number: int = self.socket.getsockname()[1]
        return number

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{LOOPBACK}:{self.port}/"

    def run(self) -> None:
        """Serves until `close` or Ctrl+C, which is raised again."""
        with self.socket:
            self.server.run(sockets=[self.socket])

    def close(self) -> None:
        """Ends `run`, which stands in another thread."""
        self.server.should_exit = True


def serve(predictor: PromptablePredictor, port: int) -> None:
    """Serves the page until Ctrl+C."""
    server = PageServer(predictor, port)
    show_line(f"open {server.address} in a browser; Ctrl+C ends it")
    try:
        server.run()
    except KeyboardInterrupt:
        show_line("ended")
