"""What the suites share that every gateway's protocol has to pass: how its answers look, and how they are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import SecretStr

from prefect_happyhorse.catalog import Route, find_route
from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GenerationError,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    RequestRejected,
)
from prefect_happyhorse.domain.jobs import JobSnapshot, JobStatus, Submission
from prefect_happyhorse.domain.requests import GenerationRequest, parse_request
from prefect_happyhorse.gateways import Account, CallError, Gateway, get_gateway, poll_error, submit_error

KEY = "sk-Sesame/42&open"
TASK_ID = "0385dc79-5ff8-4d82-bcb6-000000000001"
URL = "https://example.com/results/horse.mp4?Expires=1&Signature=a%2Fb"
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"

REFUSING: dict[int, type[GenerationError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    402: QuotaExceeded,
    403: AuthenticationFailed,
    404: RequestRejected,
    405: RequestRejected,
    411: InvalidRequest,
    413: InvalidRequest,
    414: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    431: InvalidRequest,
}
"""The statuses that by themselves say that a submit was turned away and nothing was begun."""

PASSING = {408, 425, 499}
"""Time-outs on the way, after which work may be going on."""

UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n",
    "HTML": HTML,
    "truncated JSON": b'{"output": {"task_id": "0385dc79',
    "a list": b'[{"task_id": "t-1"}]',
    "a text": b'"t-1"',
    "a number": b"7",
    "null": b"null",
    "too deep": b"[" * 100_000,
    "a number beyond reading": b"9" * 5000,
    "not text": bytes(range(256)),
}


def response(
    body: object, status: int = 200, *, headers: dict[str, str] | None = None, request: httpx.Request | None = None
) -> httpx.Response:
    """An answer, with JSON or with bytes in it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, content=content, headers=headers, request=request)


@dataclass(frozen=True)
class Refusal:
    """An error of the sources: how it looks, and what it means for a submit."""

    status: int
    body: dict[str, Any]
    kind: type[GenerationError]
    code: str | None = None
    money: str = "not spent"


class Dialect:
    """How one gateway's answers look: a class per gateway fills it in."""

    gateway: ClassVar[str]
    capability: ClassVar[str] = "reference_to_video"
    model: ClassVar[str]
    key_header: ClassVar[tuple[str, str]] = ("authorization", f"Bearer {KEY}")
    words: ClassVar[dict[JobStatus, tuple[str, ...]]]
    refusals: ClassVar[list[Refusal]]
    missing: ClassVar[list[tuple[int, dict[str, Any]]]] = []
    submit_path: ClassVar[str]
    poll_path: ClassVar[str]
    cancel_path: ClassVar[str | None] = None

    def accepted(self, task_id: object = TASK_ID) -> dict[str, Any]:
        """The answer to a submit."""
        raise NotImplementedError

    def state(self, word: object, *, results: list[Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        """The answer to a poll."""
        raise NotImplementedError

    def echo(self, text: str) -> list[tuple[int, dict[str, Any]]]:
        """Errors and answers with a text in each place that is shown to somebody."""
        raise NotImplementedError

    @property
    def protocol(self) -> Gateway:
        """The gateway that is tested."""
        return get_gateway(self.gateway)

    @property
    def route(self) -> Route:
        """One of its routes."""
        return find_route(self.gateway, self.capability, self.model)

    @property
    def account(self) -> Account:
        """An account at a host of its own."""
        return Account(gateway=self.gateway, base_url="https://gateway.example", key=SecretStr(KEY))

    def wanted(self) -> GenerationRequest:
        """A request that the route takes."""
        return parse_request(
            {
                "capability": self.capability,
                "model": self.model,
                "prompt": "A horse",
                "references": ["https://example.com/a.png"],
                "aspect_ratio": "16:9",
                "resolution": "720p",
                "duration": 5,
            }
        )

    def signed(self) -> httpx.Request:
        """A submit with the key in it."""
        call = self.protocol.submit_request(self.wanted(), self.route, self.account)
        self.protocol.sign(call, SecretStr(KEY))
        return call

    def submit(self, body: object, status: int = 200, **more: Any) -> Submission:
        """What the gateway reads from an answer to a submit."""
        return self.protocol.read_submit(response(body, status, **more), self.route)

    def poll(self, body: object, status: int = 200, **more: Any) -> JobSnapshot:
        """What the gateway reads from an answer to a poll."""
        return self.protocol.read_poll(response(body, status, **more), self.route)

    def refused(self, body: object, status: int = 200, **more: Any) -> GenerationError:
        """The error that a submit's answer stands for."""
        with pytest.raises(CallError) as caught:
            self.submit(body, status, **more)
        return submit_error(caught.value, gateway=self.gateway)

    def not_polled(self, body: object, status: int = 200, **more: Any) -> GenerationError:
        """The error that a poll's answer stands for."""
        with pytest.raises(CallError) as caught:
            self.poll(body, status, **more)
        return poll_error(caught.value, gateway=self.gateway)
