"""Input media are fetched as a provider would fetch them, and refused when they are out of reach or invalid."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from prefect_happyhorse.sandbox import SandboxServer, SandboxSettings

from .conftest import Caller, find_status, find_task_id, vector
from .test_media import RED, Hosted, data_url, picture_of
from .test_refusals import assert_refused


def video_of(seconds: float, size: tuple[int, int] = (640, 360), fps: int = 12, form: str = "mp4") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        frame: Any = av.VideoFrame.from_image(Image.new("RGB", size, RED)).reformat(format="yuv420p")
        for index in range(round(seconds * fps)):
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def sound_of(seconds: float) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream: Any = container.add_stream("libmp3lame", rate=44100)
        frame = av.AudioFrame(format="s16p", layout="stereo", samples=1152)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = 44100
        for index in range(round(seconds * 44100 / 1152)):
            frame.pts = index * 1152
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    files = {
        "valid.png": picture_of(RED),
        "valid.jpg": picture_of(RED, kind="JPEG"),
        "valid.webp": picture_of(RED, kind="WEBP"),
        "valid.bmp": picture_of(RED, (400, 400), kind="BMP"),
        "small.png": picture_of(RED, (640, 399)),
        "tiny.png": picture_of(RED, (640, 299)),
        "wide.png": picture_of(RED, (1000, 390)),
        "gif.gif": picture_of(RED, kind="GIF"),
        "text.png": b"I am a text that is named like a picture.",
        "empty.png": b"",
        "valid.mp4": video_of(4),
        "valid.mov": video_of(4, form="mov"),
        "short.mp4": video_of(2),
        "narrow.mp4": video_of(4, (640, 300)),
        "slow.mp4": video_of(4, fps=8),
        "long.mp3": sound_of(20),
        "valid.mp3": sound_of(5),
    }
    with Hosted(files) as address:
        yield address


@pytest.fixture(scope="module")
def running() -> Iterator[SandboxServer]:
    with SandboxServer(SandboxSettings(job_s=0, media="tiny", check_inputs="submit")) as server:
        yield server


@pytest.fixture
def strict(running: SandboxServer, client: httpx.Client) -> Caller:
    running.reset()
    running.settings(check_inputs="submit", input_max_bytes=150_000_000, input_timeout_s=20)
    return Caller(running, client)


def with_input(sent: dict[str, Any], url: str) -> dict[str, Any]:
    """A body with one input, where its gateway and capability want it."""
    body = sent["body"]
    if "input" in body:
        body["input"]["media"] = [{**body["input"]["media"][0], "url": url}]
    elif "ref_img_url" in body:
        body["ref_img_url"] = [url]
    elif "video" in body:
        body["video"] = url
        body.pop("reference_image_urls", None)
    elif "metadata" in body and "video" in body["metadata"]:
        body["metadata"]["video"] = url
        body.pop("images", None)
    elif "images" in body:
        body["images"] = [url]
    else:
        body["image"] = url
    return sent


VALID = [
    ("ttapi", "reference_to_video", "valid.png"),
    ("infiflow", "reference_to_video", "valid.webp"),
    ("chanjing", "reference_to_video", "valid.jpg"),
    ("uniall", "reference_to_video", "valid.jpg"),
    ("uniall", "image_to_video", "valid.bmp"),
    ("uniall", "video_edit", "valid.mov"),
    ("happyhorse", "image_edit", "valid.png"),
]


@pytest.mark.parametrize(("gateway", "capability", "name"), VALID)
def test_valid_inputs_are_accepted(strict: Caller, host: str, gateway: str, capability: str, name: str) -> None:
    """Every format that a source names is accepted."""
    answer = strict.submit(with_input(vector(gateway, capability), f"{host}/{name}"))
    assert answer.json().get("code", 0) == 0
    assert len(strict.sandbox.ledger()) == 1


INVALID = [
    ("ttapi", "reference_to_video", "small.png", "its sides must be at least 400 pixels (got 640x399)"),
    ("ttapi", "reference_to_video", "valid.bmp", "its format must be one of jpeg, png, webp (got bmp)"),
    ("ttapi", "reference_to_video", "gif.gif", "(got gif)"),
    ("infiflow", "reference_to_video", "text.png", "is not a readable picture"),
    ("infiflow", "reference_to_video", "empty.png", "is not a readable picture"),
    ("infiflow", "reference_to_video", "valid.mp4", "is not a readable picture"),
    ("chanjing", "reference_to_video", "nothing.png", "its server answered 404"),
    ("chanjing", "reference_to_video", "text.png", "is not a readable picture"),
    ("uniall", "image_to_video", "tiny.png", "its sides must be at least 300 pixels"),
    ("uniall", "image_to_video", "wide.png", "its width to height must be between 0.4 and 2.5"),
    ("uniall", "video_edit", "short.mp4", "it must play between 3 and 60 seconds (got 2.0)"),
    ("uniall", "video_edit", "narrow.mp4", "its sides must be at least 320 pixels"),
    ("uniall", "video_edit", "slow.mp4", "it must have more than 8 frames per second (got 8)"),
    ("uniall", "video_edit", "valid.png", "video"),
    ("uniall", "video_edit", "valid.mp3", "holds no video"),
    ("happyhorse", "image_edit", "tiny.png", "its sides must be at least 300 pixels"),
    ("happyhorse", "video_edit", "valid.png", "video"),
]


def test_an_advised_format_is_no_limit(strict: Caller, host: str) -> None:
    """MP4 is advised for Wan's edit, so a film in another format is made all the same."""
    strict.submit(with_input(vector("happyhorse", "video_edit", "wan2.7-videoedit"), f"{host}/valid.mov"))
    assert len(strict.sandbox.ledger()) == 1


@pytest.mark.parametrize("case", INVALID, ids=lambda case: "-".join(case[:3]))
def test_invalid_inputs_are_refused(strict: Caller, host: str, case: tuple[str, str, str, str]) -> None:
    """An input beyond the route's limits is refused before anything is charged, and the refusal says why."""
    gateway, capability, name, said = case
    model = "wan2.7-videoedit" if (gateway, capability) == ("happyhorse", "video_edit") else None
    assert_refused(gateway, strict.submit(with_input(vector(gateway, capability, model), f"{host}/{name}")), said)
    assert strict.sandbox.ledger() == []


def test_sounds_are_checked(strict: Caller, host: str) -> None:
    """A sound of the right length is accepted, one that is too long or no sound is refused."""
    sent = vector("happyhorse", "image_audio_to_video")
    sent["body"]["image_url"] = f"{host}/valid.png"
    for name, said in (("long.mp3", "it must play between 2 and 14 seconds"), ("valid.png", "audio"), ("valid.mp4", "holds no audio")):
        sent["body"]["extra_audios"] = [f"{host}/{name}"]
        assert_refused("happyhorse", strict.submit(sent), said)
    sent["body"]["extra_audios"] = [f"{host}/valid.mp3"]
    assert strict.submit(sent).status_code == 200


def test_what_cannot_be_reached(strict: Caller) -> None:
    """A closed port and an unknown host are refused; the refusal names where the address stands."""
    for url in ("http://127.0.0.1:9/a.png", "http://no-such-host.invalid/a.png"):
        assert_refused("ttapi", strict.submit(with_input(vector("ttapi"), url)), "input.media[0].url: failed to download it (ConnectError)")


def test_an_input_of_too_many_bytes(strict: Caller, host: str) -> None:
    """Reading stops at the cap."""
    strict.sandbox.settings(input_max_bytes=1000)
    assert_refused("ttapi", strict.submit(with_input(vector("ttapi"), f"{host}/valid.mp4")), "it must have at most 1000 bytes")


def test_an_input_that_never_comes(strict: Caller) -> None:
    """Fetching ends when its time is up."""
    strict.sandbox.settings(input_timeout_s=0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.png"
        assert_refused("ttapi", strict.submit(with_input(vector("ttapi"), url)), "failed to download it")


def test_data_urls_where_the_route_takes_them(strict: Caller) -> None:
    """Infiflow accepts base64 data, and refuses what is not base64 or not a picture."""
    assert strict.submit(with_input(vector("infiflow"), data_url(picture_of(RED)))).status_code == 200
    assert_refused("infiflow", strict.submit(with_input(vector("infiflow"), "data:image/png;base64,!!!!")), "is not valid base64")
    assert_refused("infiflow", strict.submit(with_input(vector("infiflow"), "data:image/png;base64,AAAA")), "is not a readable picture")


def test_all_invalid_inputs_at_once(strict: Caller, host: str) -> None:
    """A refusal names every invalid input."""
    sent = vector("ttapi")
    for medium, name in zip(sent["body"]["input"]["media"], ("small.png", "gif.gif"), strict=True):
        medium["url"] = f"{host}/{name}"
    message = strict.submit(sent).json()["message"]
    assert "input.media[0].url: its sides must be at least 400 pixels (got 640x399)" in message
    assert "input.media[1].url: its format must be one of jpeg, png, webp (got gif)" in message


def test_inputs_checked_while_the_job_runs(strict: Caller, host: str) -> None:
    """With check_inputs job the submit is accepted and charged, and the job fails, which takes the charge back."""
    strict.sandbox.settings(check_inputs="job")
    answers = [strict.submit(with_input(vector("infiflow"), f"{host}/{name}")).json() for name in ("valid.png", "small.png")]
    ends: list[str] = []
    for answer in answers:
        path = f"/dashscope/api/v1/tasks/{answer['output']['task_id']}"
        while (word := find_status(polled := strict.poll("infiflow", path).json())) in {"PENDING", "RUNNING"}:
            pass
        ends.append(f"{word} {polled['output'].get('code', '')}".strip())
    assert ends == ["SUCCEEDED", "FAILED InvalidParameter"]
    assert [entry.refunded for entry in strict.sandbox.ledger()] == [False, True]


def test_an_expired_result_is_no_input(strict: Caller) -> None:
    """A result's address that has expired cannot be the next job's input, on the same sandbox either."""
    sent = vector("happyhorse", "text_to_image")
    task_id = find_task_id(strict.submit(sent).json())
    polled = strict.poll("happyhorse", f"/v1/images/async/{task_id}").json()
    url = polled["data"]["data"]["data"][0]["url"]
    assert strict.submit(with_input(vector("ttapi"), url)).status_code == 200
    strict.sandbox.advance(86_401)
    assert_refused("ttapi", strict.submit(with_input(vector("ttapi"), url)), "its server answered 403")
