"""What the command line says of routes and requests before anything is sent."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.cli.commands import request_file, run

from prefect_happyhorse.catalog import Route, find_problems, find_route, routes
from prefect_happyhorse.cli.docs import assumed, costly_defaults, example_request
from prefect_happyhorse.domain.requests import parse_request

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).parents[1].joinpath("data", "vectors.json").read_text(encoding="utf-8"))

pytestmark = pytest.mark.usefixtures("no_environment")


def test_models_are_listed_and_filtered() -> None:
    """All, or those of a gateway, a capability or a part of a model's name."""
    assert f"{len(routes())} routes" in run("models").output
    assert f"{len(routes('uniall'))} routes" in run("models", "--gateway", "uniall").output
    some = [route for route in routes("happyhorse") if "happyhorse" in route.model]
    assert f"{len(some)} routes" in run("models", "--gateway", "happyhorse", "--model", "happyHORSE").output
    lines = run("models", "--capability", "video_edit", "--json").output.splitlines()
    assert {json.loads(line)["capability"] for line in lines} == {"video_edit"}
    assert run("models", "--model", "no such").exit_code == 1


def test_what_is_missing_or_mistyped_is_named(tmp_path: Path) -> None:
    """And nothing that was given."""
    assert "text_to_video" in run("models", "--capability", "text_to_vdeo").stderr
    assert "Give --gateway, or" in run("preview", request_file(tmp_path)).stderr
    assert "Give REQUEST.json, or" in run("preview", "--gateway", "ttapi").stderr


def test_models_star_only_what_a_request_must_hold() -> None:
    """Media of which any one will do, and a voice, are optional."""
    table = run("models", "--capability", "multimodal_to_video", "--model", "wan2.7-r2v").output
    assert "prompt*" in table
    assert all(name in table and f"{name}*" not in table for name in ("first_frame", "reference_videos", "references", "voice"))


def test_what_costs_unsaid_is_shown() -> None:
    """TTAPI marks its videos unless it is told not to; in the list and in a preview alike, and as a request writes it."""
    assert "resolution=1080P, duration=5, watermark=true" in run("models", "--gateway", "ttapi").output
    assert "watermark" not in costly_defaults(find_route("infiflow", "reference_to_video", "happyhorse-1.1-r2v"))
    # Duration goes over the wire twice, and is one thing to say.
    assert assumed(find_route("happyhorse", "text_to_video", "omni_flash-fast")) == {
        "duration": "10",
        "aspect_ratio": "16:9",
        "resolution": "720p",
    }


def test_a_preview_tells_what_is_left_and_what_is_only_advised(tmp_path: Path) -> None:
    """Both on stderr, and neither refuses anything."""
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"capability": "text_to_video", "model": "wan2.7-t2v", "prompt": "A horse", "duration": 20}))
    result = run("preview", str(file), "--gateway", "happyhorse")
    assert result.exit_code == 0
    assert "watermark=false" in result.stderr
    assert "no limit: duration: between 2 and 15 seconds is advised (got 20)" in result.stderr
    assert '"duration": 20' in result.stdout


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['gateway']}-{v['capability']}-{v['model']}")
def test_a_preview_shows_the_call_that_would_be_sent(vector: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Method, address, headers without a key, and the exact body; no key is needed and no connection is made."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a preview opens no connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    path = tmp_path / "request.json"
    path.write_text(json.dumps(vector["request"]))
    result = run("preview", str(path), "--gateway", vector["gateway"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    method, _, endpoint = vector["submit"].partition(" ")
    assert shown["method"] == method
    assert shown["url"].endswith(endpoint)
    assert shown["body"] == vector["body"]
    for header in vector["headers"]:
        name, _, value = header.partition(": ")
        assert value.partition(" ")[0] in shown["headers"][name.lower()]
    assert set(shown) == {"method", "url", "headers", "body"}


def test_a_miss_lists_who_offers_it(tmp_path: Path) -> None:
    """A route that a gateway lacks ends in code 2, with the gateways and models that have one."""
    result = run("preview", request_file(tmp_path), "--gateway", "ttapi")
    assert result.exit_code == 2
    assert "is offered by happyhorse" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["preview", "generate"])
def test_a_file_that_is_not_there_is_told_in_one_line(tmp_path: Path, command: str) -> None:
    """With a way to get one, and code 2: nothing was sent."""
    more = ("--output", str(tmp_path)) if command == "generate" else ()
    result = run(command, str(tmp_path / "none.json"), "--gateway", "happyhorse", *more)
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "none.json cannot be read: No such file or directory" in result.output
    assert "--example" in result.output


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{route.gateway}-{route.capability}-{route.model}")
def test_an_example_is_a_request_that_its_route_takes(route: Route) -> None:
    """Whatever the capability needs is in it."""
    assert find_problems(parse_request(example_request(route)), route) == ()


def test_an_example_can_be_copied(tmp_path: Path) -> None:
    """What `preview --example` prints can be previewed as it is; where there is none, the message says who has one."""
    path = tmp_path / "request.json"
    path.write_text(run("preview", "--example", "image_to_video", "--gateway", "happyhorse").stdout)
    assert json.loads(path.read_text())["image"] == "https://example.com/image.png"
    assert run("preview", str(path), "--gateway", "happyhorse").exit_code == 0
    assert json.loads(run("preview", "--example", "text_to_video").stdout)["capability"] == "text_to_video"
    miss = run("preview", "--example", "text_to_image", "--gateway", "ttapi")
    assert (miss.exit_code, "ttapi does not offer text_to_image" in miss.output) == (1, True)
    assert run("preview").exit_code == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "no request"),
        ('{"capability": "text_to_image", "model": "m", "prompt": "p", "colour": "red", "n": "many"}', "colour"),
        ('{"capability": "sculpture"}', "capability"),
    ],
)
def test_a_file_that_is_no_request_is_told(tmp_path: Path, content: str, told: str) -> None:
    """Every problem in one message, code 2, no traceback."""
    path = tmp_path / "request.json"
    path.write_text(content)
    result = run("preview", str(path), "--gateway", "happyhorse")
    assert (result.exit_code, "Traceback" in result.output) == (2, False)
    assert told in result.output


def test_every_problem_of_a_request_is_told_at_once(tmp_path: Path) -> None:
    """A text file named .png, a duration, a seed and an option, in one message."""
    tmp_path.joinpath("notes.png").write_text("not a picture")
    request = {
        "capability": "reference_to_video",
        "model": "happyhorse-1.1-r2v",
        "prompt": "x" * 6000,
        "references": [str(tmp_path / "notes.png"), "ftp://example.com/a.png"],
        "duration": 2,
        "seed": -1,
        "options": {"quality": "high"},
    }
    result = run("preview", request_file(tmp_path, **request), "--gateway", "ttapi")
    assert result.exit_code == 2
    for told in ("notes.png", "ftp", "duration must be between 3 and 15 seconds (got 2)", "seed must be", "5000", "options.quality"):
        assert told in result.output


def test_a_preview_shows_no_password_of_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such an address is refused there as everywhere."""
    monkeypatch.setenv("HAPPYHORSE_BASE_URL", "https://user:S3KRET@example.com")
    result = run("preview", request_file(tmp_path), "--gateway", "happyhorse")
    assert (result.exit_code, "S3KRET" in result.output) == (2, False)
    assert "HAPPYHORSE_BASE_URL must be scheme, host, port and path alone" in result.stderr
