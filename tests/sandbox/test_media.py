"""Results are real pictures and videos that show what was asked and what went in."""

from __future__ import annotations

import base64
import io
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings
from prefect_happyhorse.sandbox.jobs.job import read_ratio
from prefect_happyhorse.sandbox.media.render import Card, MediaSpec, font_for, readable, wrap

from .conftest import Caller, find_task_id, find_url, vector

RED, GREEN = (230, 20, 30), (10, 200, 60)


@pytest.fixture(scope="module")
def running() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxSettings(job_s=0)) as server:
        yield server


@pytest.fixture
def full(running: SandboxServer, client: httpx.Client) -> Caller:
    running.reset()
    return Caller(running, client)


def picture_of(colour: tuple[int, int, int], size: tuple[int, int] = (640, 480), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def share_of(picture: Image.Image, colour: tuple[int, int, int]) -> float:
    """How much of a picture has a colour, give or take what compression does to it."""
    pixels = picture.convert("RGB").tobytes()
    near = sum(
        all(abs(pixels[at + band] - colour[band]) < 40 for band in range(3)) for at in range(0, len(pixels), 3)
    )  # fmt: skip
    return near / (len(pixels) / 3)


def finish(caller: Caller, sent: dict[str, Any]) -> str:
    """Submit, poll once, and give the result's address."""
    answer = caller.submit(sent)
    assert answer.status_code == 200, answer.text
    return find_url(caller.poll(sent["gateway"], caller.poll_path(sent, find_task_id(answer.json()))).json())


def frames_of(data: bytes) -> tuple[tuple[str, str | None, float], list[Image.Image]]:
    """Codec, pixel format and frames per second, and every frame."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        facts = (stream.codec_context.name, stream.pix_fmt, float(stream.average_rate or 0))
        return facts, [frame.to_image() for frame in container.decode(video=0)]


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("model", "change", "size", "kind"),
    [
        ("gpt-image-2", {"size": "1536x1024"}, (768, 512), "PNG"),
        ("gpt-image-2", {"size": "1024x1536", "output_format": "webp"}, (512, 768), "WEBP"),
        ("gpt-image-2-pro", {"size": "9:16"}, (432, 768), "PNG"),
        ("gemini-3.1-flash-image", {"aspect_ratio": "21:9"}, (934, 400), "PNG"),
    ],
)
def test_a_picture_has_the_asked_proportion_and_format(
    full: Caller, model: str, change: dict[str, str], size: tuple[int, int], kind: str
) -> None:
    """Pictures open with Pillow, in the proportion and format that the body asks for, with no side below 400."""
    sent = vector("happyhorse", "text_to_image", model)
    sent["body"].update(change)
    picture = Image.open(io.BytesIO(full.client.get(finish(full, sent)).content))
    assert (picture.size, picture.format) == (size, kind)


def test_a_video_plays_as_asked_and_shows_its_references(full: Caller) -> None:
    """A video is H.264 with its index first, as long and as wide as asked; it moves, and every frame shows both references."""
    sent = vector("infiflow")
    sent["body"]["parameters"].update(duration=4, ratio="16:9")
    for medium, colour in zip(sent["body"]["input"]["media"], (RED, GREEN), strict=True):
        medium["url"] = data_url(picture_of(colour))
    data = full.client.get(finish(full, sent)).content
    facts, frames = frames_of(data)
    assert facts == ("h264", "yuv420p", 12.0)
    assert (len(frames), frames[0].size) == (48, (768, 432))
    assert data.index(b"moov") < data.index(b"mdat")
    assert frames[0].tobytes() != frames[-1].tobytes()
    for frame in (frames[0], frames[-1]):
        assert share_of(frame, RED) > 0.08
        assert share_of(frame, GREEN) > 0.01
    assert share_of(frames[0], (20, 60, 230)) == 0


def test_the_picture_is_in_the_video_is_in_the_edit(full: Caller) -> None:
    """Picture, reference video and edit follow each other on three gateways, and the first input's red is seen in the edit's end."""
    image = vector("happyhorse", "reference_to_image", "gpt-image-2")
    with Hosted({"red.png": picture_of(RED)}) as host:
        image["body"]["image_urls"] = [f"{host}/red.png"]
        first = finish(full, image)
    video = vector("ttapi")
    video["body"]["input"]["media"] = [{"type": "reference_image", "url": first}]
    second = finish(full, video)
    edit = vector("uniall", "video_edit")
    edit["body"].update(video=second, reference_image_urls=[first])
    _, frames = frames_of(full.client.get(finish(full, edit)).content)
    assert frames[0].size == (432, 768)
    assert len(frames) == 60
    assert share_of(frames[-1], RED) > 0.01
    assert [entry.inputs for entry in full.sandbox.ledger()] == [1, 1, 2]
    assert [entry.downloads for entry in full.sandbox.ledger()] == [0, 0, 1]


class Hosted:
    """Files on an HTTP server of their own.

    Args:
        files: Their bytes by name.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def __enter__(self) -> str:
        files = self._files

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the standard library's name
                data = files.get(self.path[1:])
                self.send_response(404 if data is None else 200)
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_equal_jobs_are_made_once(full: Caller) -> None:
    """A hundred equal jobs share one file, so that only one is encoded; another prompt makes another file."""
    sent = vector("uniall", "text_to_video")
    tags = {full.client.head(finish(full, sent)).headers["etag"] for _ in range(100)}
    assert len(tags) == 1
    sent["body"]["prompt"] = "A black horse."
    assert full.client.head(finish(full, sent)).headers["etag"] not in tags


def test_tiny_files_are_small_and_valid(full: Caller) -> None:
    """For benchmarks a video of the same shape and length is a few kilobytes."""
    full.sandbox.settings(media="tiny")
    try:
        data = full.client.get(finish(full, vector("uniall", "text_to_video"))).content
    finally:
        full.sandbox.settings(media="full")
    _, frames = frames_of(data)
    assert (len(frames), frames[0].size) == (48, (768, 432))
    assert len(data) < 20_000


@pytest.mark.parametrize(
    "prompt",
    ["\u4fdd\u6301\u9a6c\u5339\u4e3b\u4f53\u7279\u5f81\u4e00\u81f4" * 40, "", "x" * 4000, "\u0000\u202e\U0001f40e", "word " * 900],
    ids=["chinese", "empty", "one long word", "odd", "long"],
)
@pytest.mark.parametrize("size", [(768, 432), (400, 934), (64, 64)])
def test_any_prompt_makes_a_card(prompt: str, size: tuple[int, int]) -> None:
    """No text breaks a card, whatever it is made of and however little room there is."""
    spec = MediaSpec("image", "png", *size, 0, 12, 90, heading="H", model="m" * 60, prompt=prompt, footer="f " * 90)
    assert Card(spec).picture().size == size


def test_text_without_glyphs_is_said_to_be_there() -> None:
    """Characters that no font can draw become an ellipsis, or a note when nothing else is left."""
    assert readable("horse \ue000\ue001 hill") == "horse \u2026 hill"
    assert readable("\ue000\ue001") == "(2 characters that no font here can draw)"


def test_wrapping_keeps_lines_within_the_width() -> None:
    """Lines break between words, a long word anywhere, and what has no room ends in an ellipsis."""
    font = font_for("a", 20)
    text = "one two three https://example.com/" + "a" * 60
    lines = wrap(text, font, 120, 99)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(font.getlength(line) <= 120 for line in lines)
    assert wrap(text, font, 120, 2)[-1].endswith("\u2026")
    assert len(wrap(text, font, 120, 2)) == 2


def test_ratios_are_read_in_every_spelling() -> None:
    """A ratio is read from all the ways in which bodies write it, and nonsense is none."""
    read = [read_ratio(text) for text in ("16:9", "1536x1024", "1024*1024", "9 : 16", "auto", "1K", "0:5", None, "100:1")]
    assert read == [16 / 9, 1.5, 1.0, 9 / 16, None, None, None, None, 4.0]


def test_the_folder_goes_with_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results lie in a temporary folder that is removed when the sandbox stops."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with SandboxServer(SandboxSettings(job_s=0, media="tiny", check_inputs="never")) as server, httpx.Client() as client:
        caller = Caller(server, client)
        client.get(finish(caller, vector("uniall")))
        assert len(list(tmp_path.glob("happyhorse-sandbox-*/*.mp4"))) == 1
    assert list(tmp_path.iterdir()) == []
