"""What facts alone make of a gateway: results for the key alone, jobs that a cancel deletes, and media that are sent as files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from tests.vault import registered

from prefect_happyhorse.catalog import find_problems, find_route
from prefect_happyhorse.domain.jobs import JobStatus, Output
from prefect_happyhorse.domain.requests import ImageToVideo
from prefect_happyhorse.gateways import Account, CallRejected, Gateway, MalformedResponse, build_body, form_parts, get_gateway

from .dialect import TASK_ID, response

ACCOUNT = Account(gateway="vault", base_url="https://vault.example/v2")
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


@pytest.fixture
def vault() -> Iterator[Gateway]:
    with registered():
        yield get_gateway("vault")


def polled(vault: Gateway, word: str, **more: Any) -> tuple[Output, ...]:
    answer = response({"id": TASK_ID, "status": word, **more})
    return vault.read_poll(answer, find_route("vault", "text_to_video", "coin"), task_id=TASK_ID, account=ACCOUNT).outputs


def test_a_result_lies_at_the_gateway_itself(vault: Gateway) -> None:
    """Below the base URL, whatever the answer names; and only once the job is finished."""
    own = Output(kind="video", url=f"https://vault.example/v2/videos/{TASK_ID}/content", keyed=True)
    assert polled(vault, "completed") == polled(vault, "completed", video_url="https://evil.example/a.mp4") == (own,)
    assert polled(vault, "in_progress") == ()


def test_a_task_id_cannot_leave_its_place_in_the_results_address(vault: Gateway) -> None:
    """As in every other call."""
    route = find_route("vault", "text_to_video", "coin")
    state = vault.read_poll(response({"status": "completed"}), route, task_id="../../other", account=ACCOUNT)
    assert state.outputs[0].url == "https://vault.example/v2/videos/..%2F..%2Fother/content"


def test_without_account_and_task_id_the_answer_has_to_hold_the_result(vault: Gateway) -> None:
    """Nothing is made up."""
    with pytest.raises(MalformedResponse, match="holds no result"):
        vault.read_poll(response({"status": "completed"}), find_route("vault", "text_to_video", "coin"))


def test_a_cancel_deletes(vault: Gateway) -> None:
    """By its method; a 204 has no body to read, and a refusal is one."""
    call = vault.cancel_request(TASK_ID, ACCOUNT)
    assert call is not None
    assert (call.method, call.url.path, vault.cancel_deletes) == ("DELETE", f"/v2/videos/{TASK_ID}", True)
    assert vault.read_cancel(response(b"", 204)) is None
    assert vault.read_cancel(response(b"", 204, headers={"x-request-id": "r-1"})) == "r-1"
    with pytest.raises(CallRejected):
        vault.read_cancel(response({"error": {"message": "It runs."}}, 400))
    assert not get_gateway("infiflow").cancel_deletes
    assert not get_gateway("chanjing").cancel_deletes


def test_a_medium_is_a_file_of_the_form(vault: Gateway) -> None:
    """With a name and its media type, beside parts that are text."""
    route = find_route("vault", "image_to_video", "coin")
    request = ImageToVideo(model="coin", prompt="A horse", image=PNG)
    assert find_problems(request, route) == ()
    body = build_body(request, route)
    assert form_parts(body, route.file_parts)["frame"] == ("frame.png", b"\x89PNG", "image/png")
    sent = vault.submit_request(request, route, ACCOUNT).read()
    assert b'name="frame"; filename="frame.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n' in sent
    assert b'name="prompt"\r\n\r\nA horse\r\n' in sent


@pytest.mark.parametrize(
    ("media_type", "name"), [("image/jpeg", "frame.jpg"), ("video/quicktime", "frame.mov"), ("image/webp", "frame.webp")]
)
def test_a_file_is_named_by_its_type(media_type: str, name: str) -> None:
    """As servers that go by names expect it."""
    assert form_parts({"frame": f"data:{media_type};base64,AA=="}, {"frame"}) == {"frame": (name, b"\0", media_type)}


@pytest.mark.parametrize("value", ["https://h/a.png", "data:image/png;base64,", "data:,white", "/a;base64,AA=="])
def test_an_address_is_no_file(value: str) -> None:
    """Its bytes have to be there first."""
    with pytest.raises(TypeError, match="frame is sent as a file and holds no bytes"):
        form_parts({"frame": value}, {"frame"})


def test_a_finished_job_says_so(vault: Gateway) -> None:
    """The rest of an answer is read as ever."""
    route = find_route("vault", "text_to_video", "coin")
    state = vault.read_poll(response({"status": "completed", "progress": "100%"}), route, task_id=TASK_ID, account=ACCOUNT)
    assert (state.status, state.progress) == (JobStatus.SUCCEEDED, 1.0)
