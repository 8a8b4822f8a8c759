"""Chanjing: every answer is HTTP 200 and the envelope's code decides; access tokens kill the one before."""

from __future__ import annotations

import json
import traceback
from datetime import datetime, timezone
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import SecretStr

from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    GenerationError,
    InvalidRequest,
    ProtocolError,
    RateLimited,
)
from prefect_happyhorse.domain.jobs import JobStatus
from prefect_happyhorse.gateways import AccessToken, Account, CallError, Gateway, MalformedResponse, get_gateway, submit_error

from .dialect import KEY, TASK_ID, URL, Refusal, response
from .gateway_suite import GatewaySuite

SECRET = "secret/Key&1"
TOKEN = "token-0123456789"


def envelope(code: object, data: object = None, msg: object = "No.") -> dict[str, Any]:
    return {"trace_id": "96afa792520b0e6a86d72e89435bc0a7", "code": code, "msg": msg, "data": data}


class TestChanjing(GatewaySuite):
    """Chanjing."""

    gateway: ClassVar[str] = "chanjing"
    model: ClassVar[str] = "happyhorse-1.0-r2v"
    key_header: ClassVar[tuple[str, str]] = ("access_token", KEY)
    submit_path: ClassVar[str] = "/open/v1/ai_creation/task/submit"
    poll_path: ClassVar[str] = "/open/v1/ai_creation/task?unique_id="
    words: ClassVar[dict[JobStatus, tuple[str, ...]]] = {
        JobStatus.QUEUED: ("Queued", "Ready"),
        JobStatus.RUNNING: ("Generating",),
        JobStatus.SUCCEEDED: ("Success",),
        JobStatus.FAILED: ("Error", "Fail"),
    }
    refusals: ClassVar[list[Refusal]] = [
        Refusal(200, envelope(400), InvalidRequest, "400"),
        Refusal(200, envelope(10400), AuthenticationFailed, "10400"),
        Refusal(200, envelope(40000), InvalidRequest, "40000"),
        Refusal(200, envelope(40001), RateLimited, "40001"),
        Refusal(200, envelope(50000), GatewayUnavailable, "50000", "may be spent"),
        Refusal(200, envelope("40001"), RateLimited, "40001"),
        Refusal(401, envelope(10400), AuthenticationFailed, "10400"),
        Refusal(500, envelope(50000), GatewayUnavailable, "50000", "may be spent"),
        # A success of the envelope counts only in a success of HTTP; an unknown code means nothing.
        Refusal(502, envelope(0, TASK_ID), GatewayUnavailable, "0", "may be spent"),
        Refusal(302, envelope(0, TASK_ID), ProtocolError, None, "may be spent"),
        Refusal(200, envelope(77), ProtocolError, None, "may be spent"),
        Refusal(200, envelope(None, TASK_ID), ProtocolError, None, "may be spent"),
        Refusal(200, envelope(False, TASK_ID), ProtocolError, None, "may be spent"),
        Refusal(409, envelope(77), ProtocolError, None, "may be spent"),
    ]

    def accepted(self, task_id: object = TASK_ID) -> dict[str, Any]:
        return envelope(0, task_id, "success")

    def state(self, word: object, *, results: list[Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        return envelope(0, {"unique_id": TASK_ID, "progress_desc": word, "err_msg": reason or "", "output_url": results or []}, "success")

    def echo(self, text: str) -> list[tuple[int, dict[str, Any]]]:
        return [
            *((status, envelope(code, None, text)) for status in (200, 400, 500) for code in (text, 40000, 10400, 50000)),
            (200, {**envelope(0, TASK_ID), "trace_id": text}),
            (200, {"code": 0, "trace_id": text, "data": {"progress_desc": text}}),
            (200, {"code": 0, "data": {"progress_desc": "Fail", "err_msg": text}}),
            (200, {text: text}),
        ]

    @pytest.mark.parametrize("data", [None, [], "t-1", 5])
    def test_data_that_is_no_object_holds_no_state(self, data: object) -> None:
        """Whatever stands in its place."""
        assert type(self.not_polled(envelope(0, data))) is ProtocolError

    def test_the_trace_id_is_the_request_id(self) -> None:
        """Of a submit and of a poll."""
        assert self.submit(self.accepted()).request_id == "96afa792520b0e6a86d72e89435bc0a7"
        assert self.poll(self.state("Ready")).request_id == "96afa792520b0e6a86d72e89435bc0a7"

    def test_several_outputs_keep_their_order(self) -> None:
        """One that is empty is passed over, one that stands twice is one."""
        state = self.poll(self.state("Success", results=[URL, None, URL + "2", URL]))
        assert [output.url for output in state.outputs] == [URL, URL + "2"]

    def test_an_output_may_stand_alone(self) -> None:
        """As a text in place of a list."""
        (output,) = self.poll(envelope(0, {"progress_desc": "Success", "output_url": URL})).outputs
        assert output.url == URL

    def test_a_reason_is_read_from_a_failure_alone(self) -> None:
        """An empty one is none."""
        assert self.poll(self.state("Fail")).message is None
        assert self.poll(self.state("Generating", reason="warming up")).message is None


def gateway() -> Gateway:
    return get_gateway("chanjing")


def account(**more: Any) -> Account:
    return Account(gateway="chanjing", base_url="https://gateway.example", **{"app_id": "app-1", "secret_key": SecretStr(SECRET), **more})


def token_request(**more: Any) -> httpx.Request:
    return next(gateway().token_flow(account(**more)))


def exchanged(body: object, status: int = 200) -> AccessToken:
    """The token that the exchange gives for a response."""
    flow = gateway().token_flow(account())
    answer = response(body, status, request=next(flow))
    with pytest.raises(StopIteration) as stop:
        flow.send(answer)
    return stop.value.value


def test_a_token_is_asked_for_with_app_id_and_secret() -> None:
    """In the body of a POST, and in nothing else."""
    call = token_request()
    assert (call.method, str(call.url)) == ("POST", "https://gateway.example/open/v1/access_token")
    assert json.loads(call.content) == {"app_id": "app-1", "secret_key": SECRET}
    assert SECRET not in str(call.headers)


@pytest.mark.parametrize("missing", ["app_id", "secret_key"])
def test_a_token_needs_both(missing: str) -> None:
    """An access token alone asks for no other."""
    with pytest.raises(ValueError, match="app id and a secret key"):
        token_request(**{missing: None})


def test_a_secret_is_shown_by_no_account() -> None:
    """Nor is a key."""
    assert SECRET not in repr(account(key=SecretStr(KEY)))
    assert KEY not in repr(account(key=SecretStr(KEY)))


def test_a_token_ends_when_the_answer_says() -> None:
    """`expire_in` is a moment, in Unix seconds."""
    token = exchanged(envelope(0, {"access_token": TOKEN, "expire_in": 1_795_000_000}))
    assert (token.value.get_secret_value(), token.expires_at) == (TOKEN, datetime.fromtimestamp(1_795_000_000, timezone.utc))
    assert TOKEN not in repr(token)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        TOKEN,
        {},
        {"access_token": TOKEN},
        {"expire_in": 1},
        {"access_token": "", "expire_in": 1},
        *(
            {"access_token": TOKEN, "expire_in": ends}
            for ends in (None, True, "1795000000", [], 1e30, -1e30, 10**400, float("nan"), float("inf"))
        ),
    ],
)
def test_an_answer_without_token_and_end_is_odd(data: object) -> None:
    """And shows no token."""
    with pytest.raises(MalformedResponse) as caught:
        exchanged(envelope(0, data))
    assert TOKEN not in shown(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, envelope(40000, None, f"{SECRET} is wrong"), InvalidRequest),
        (200, envelope(50000, None, SECRET), GatewayUnavailable),
        (200, envelope(10400, {"access_token": TOKEN}, None), AuthenticationFailed),
        (200, {"code": 77, "data": {"access_token": TOKEN}}, ProtocolError),
        (500, {"data": {"access_token": TOKEN}}, GatewayUnavailable),
        (200, ('{"code": 0, "data": {"access_token": "' + TOKEN).encode(), ProtocolError),
        (200, f"<p>{SECRET} {TOKEN}</p>".encode(), ProtocolError),
        (502, f"<p>{SECRET} {TOKEN}</p>".encode(), GatewayUnavailable),
        (302, {"code": 0, "data": {"access_token": TOKEN}}, ProtocolError),
    ],
)
def test_a_refused_token_shows_neither_secret_nor_token(status: int, body: object, kind: type[GenerationError]) -> None:
    """Not even where the answer is cut in the middle of one."""
    with pytest.raises(CallError) as caught:
        exchanged(body, status)
    assert type(submit_error(caught.value, gateway="chanjing")) is kind
    assert [secret for secret in (SECRET, TOKEN) if secret in shown(caught.value)] == []


def shown(error: CallError) -> str:
    return "".join(traceback.format_exception(error)) + str(vars(error)) + str(error.__context__ and vars(error.__context__))


@pytest.mark.parametrize(
    ("body", "status", "refuses"),
    [
        (envelope(10400), 200, True),
        (envelope("10400"), 401, True),
        (envelope(0, TASK_ID), 200, False),
        (envelope(40000), 200, False),
        (b"<html>", 502, False),
        (b"[10400]", 200, False),
        (b"10400", 200, False),
        (b"[" * 100_000, 200, False),
        (b"\xff", 200, False),
    ],
)
def test_a_refused_token_is_told_by_its_code(body: object, status: int, refuses: bool) -> None:
    """So that a new one may be asked for, and the same call made again: nothing was started."""
    assert gateway().refuses_token(response(body, status)) is refuses
