"""A page on this machine where one clicks on a picture and sees the mask; Python's own server, nothing else.

    GET  /            the page
    POST /api/images  an image file in; `{"id", "width", "height"}` out: encoded once
    POST /api/masks   `{"id", "points": [[x, y, label], …], "boxes": [[x1, y1, x2, y2], …]}` or
                      `{"id", "everything": POINTS_PER_SIDE}` in; `{"masks": [{"png", "area", …}, …]}` out,
                      each `png` the base64 of a PNG that is opaque where the mask is

What goes wrong by a person's mistake is answered 400 with `{"error": …}`. The server listens on the loopback
address alone and refuses requests that name another host, so that no page of the web can reach it.
"""

from __future__ import annotations

import base64
import itertools
import json
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from opsin.core.cli.show import show_line
from opsin.core.data import read_image
from opsin.core.errors import UserError
from opsin.segmentation.promptable.predictor import EncodedImage, PromptablePredictor, describe
from opsin.segmentation.promptable.prompts import Prompts
from opsin.segmentation.visualization import distinct_colours

LOOPBACK = "127.0.0.1"
MOST_BYTES = 64 * 2**20  # of a request
KEPT_IMAGES = 4
MOST_POINTS_PER_SIDE = 64

Answer = dict[str, Any]


@dataclass
class Images:
    """The pictures that were sent last, encoded; one request at a time goes to the model."""

    predictor: PromptablePredictor
    kept: OrderedDict[str, EncodedImage] = field(default_factory=OrderedDict)
    numbers: Any = field(default_factory=itertools.count)
    lock: Any = field(default_factory=Lock)

    def add(self, content: bytes) -> Answer:
        """Encodes an image file."""
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(content)
            try:
                pixels = read_image(file.name)
            except UserError as error:
                raise UserError(str(error).replace(file.name, "that was sent")) from None
        with self.lock:
            name = str(next(self.numbers))
            self.kept[name] = self.predictor.encode(pixels)
            while len(self.kept) > KEPT_IMAGES:
                self.kept.popitem(last=False)
        return {"id": name, "width": pixels.shape[1], "height": pixels.shape[0]}

    def masks(self, question: Any) -> Answer:
        """Answers one question, see the module."""
        if not isinstance(question, dict) or question.get("id") not in self.kept:
            raise UserError("this picture is not known, or was forgotten", "send it again")
        image = self.kept[question["id"]]
        with self.lock:
            if "everything" in question:
                side = min(int(question["everything"]), MOST_POINTS_PER_SIDE)
                found = image.everything(side)
            else:
                found = image.segment(_prompts(question))
        colours = distinct_colours(len(found.masks))
        rows = zip(found.masks, found.scores, colours, strict=True)
        return {"masks": [_described(mask, score, colour) for mask, score, colour in rows]}


def _prompts(question: Answer) -> Prompts:
    """Points together, with a box if there is just one; else a mask for each box."""
    points, boxes = question.get("points") or [], question.get("boxes") or []
    if points and len(boxes) > 1:
        raise UserError("points go with at most one box")
    try:
        places = torch.tensor(points, dtype=torch.float32).reshape(1, -1, 3) if points else None
        corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) if boxes else None
    except (TypeError, ValueError, RuntimeError):
        raise UserError("points are [x, y, label] and boxes [x1, y1, x2, y2]") from None
    if places is None and corners is None:
        raise UserError("nothing is asked for", "click on the picture")
    return Prompts(
        points=None if places is None else places[..., :2],
        labels=None if places is None else places[..., 2].long(),
        boxes=corners,
    )


def _described(mask: NDArray[np.bool_], score: float, colour: NDArray[np.uint8]) -> Answer:
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[mask] = [*colour[::-1], 255]
    _, encoded = cv2.imencode(".png", pixels)
    return {"png": base64.b64encode(encoded.tobytes()).decode(), **describe(mask, score)}


class Handler(BaseHTTPRequestHandler):
    """Answers the page's requests; `server` is a `PageServer`."""

    server: PageServer

    def do_GET(self) -> None:
        """The page."""
        if not self._is_local():
            return
        if self.path != "/":
            self._send(HTTPStatus.NOT_FOUND, {"error": f"there is no {self.path}"})
            return
        page = resources.files("opsin.segmentation.promptable").joinpath("page.html").read_bytes()
        self._send_bytes(HTTPStatus.OK, page, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """A picture, or a question."""
        if not self._is_local():
            return
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BYTES:
            self.close_connection = True  # the body is not read
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"more than {MOST_BYTES} bytes"})
            return
        content = self.rfile.read(length)
        try:
            self._send(HTTPStatus.OK, self._answer(content))
        except UserError as error:
            self._send(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except ValueError as error:
            self._send(HTTPStatus.BAD_REQUEST, {"error": f"not understood: {error}"})

    def _answer(self, content: bytes) -> Answer:
        if self.path == "/api/images":
            return self.server.images.add(content)
        if self.path == "/api/masks":
            return self.server.images.masks(json.loads(content))
        raise UserError(f"there is no {self.path}")

    def _is_local(self) -> bool:
        """Whether the request names this server; a page of the web that found a way here names another."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host in (LOOPBACK, "localhost"):
            return True
        self.close_connection = True
        self._send(HTTPStatus.FORBIDDEN, {"error": "this page is for this machine alone"})
        return False

    def _send(self, status: HTTPStatus, content: Answer) -> None:
        self._send_bytes(status, json.dumps(content).encode(), "application/json")

    def _send_bytes(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing; the page shows what went wrong."""


class PageServer(ThreadingHTTPServer):
    """The server of one predictor on a port of the loopback address; 0 takes a free one.

    Raises:
        UserError: if the port is taken.
    """

    daemon_threads = True

    def __init__(self, predictor: PromptablePredictor, port: int) -> None:
        self.images = Images(predictor)
        try:
            super().__init__((LOOPBACK, port), Handler)
        except OSError as error:
            raise UserError(
                f"port {port} can't be used: {error.strerror}", "give another by --port"
            ) from None

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{LOOPBACK}:{self.server_port}/"


def serve(predictor: PromptablePredictor, port: int) -> None:
    """Serves the page until Ctrl+C."""
    with PageServer(predictor, port) as server:
        show_line(f"open {server.address} in a browser; Ctrl+C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            show_line("ended")
