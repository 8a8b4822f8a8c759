"""A gateway whose documents name two query paths is asked by both, and by the right one alone from then on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone

import httpx
import pytest
from pydantic import SecretStr

from prefect_happyhorse.domain.errors import GatewayUnavailable, PollRejected
from prefect_happyhorse.domain.jobs import Job, JobStatus
from prefect_happyhorse.engine.http.connections import Client, Connections
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account

FIRST, SECOND = "/v1/videos/generations/t-1", "/v1/videos/t-1"
JOB = Job(
    gateway="uniall",
    account="default",
    capability="text_to_video",
    model="happy-horse-720p",
    task_id="t-1",
    digest="0" * 64,
    prompt="It runs",
    submitted_at=datetime(2026, 11, 1, tzinfo=timezone.utc),
)


class OnePath(Connections):
    """A gateway that has some paths and answers 404 to all others."""

    def __init__(self, *paths: str) -> None:
        super().__init__()
        self.paths = paths
        self.asked: list[str] = []

    @asynccontextmanager
    async def client(self, make: object = None) -> AsyncIterator[Client]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.answer)) as http:
            yield Client(lambda **_: http)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if request.url.path.startswith("/busy"):
            return httpx.Response(429, request=request)
        if request.url.path not in self.paths:
            return httpx.Response(404, text="404 page not found", request=request)
        return httpx.Response(200, json={"id": "t-1", "status": "in_progress"}, request=request)


def session(gateway: OnePath, store: Store, poll_path: str | None = None) -> Session:
    shared = Shared()
    shared.connections = gateway
    account = Account(gateway="uniall", base_url="https://gateway.example", key=SecretStr("k"), poll_path=poll_path)
    return Session(account, store, shared=shared)


async def test_the_documents_path_is_asked_first(store: Store) -> None:
    """The other one is not asked where it is right."""
    gateway = OnePath(FIRST)
    assert (await session(gateway, store).poll_once(JOB)).status is JobStatus.RUNNING
    assert gateway.asked == [FIRST]


async def test_the_other_path_is_tried_and_remembered(store: Store) -> None:
    """A 404 is no word about the job; the path that answered is asked from then on."""
    gateway = OnePath(SECOND)
    asks = session(gateway, store)
    for _ in range(2):
        assert (await asks.poll_once(JOB)).status is JobStatus.RUNNING
    assert gateway.asked == [FIRST, SECOND, SECOND]


async def test_where_neither_is_there_the_setting_is_named(store: Store) -> None:
    """And a path of one's own is the only one."""
    gateway = OnePath()
    with pytest.raises(PollRejected, match=r"Neither of the paths.*poll_path in the GatewayCredentials block, or UNIALL_POLL_PATH"):
        await session(gateway, store).poll_once(JOB)
    assert gateway.asked == [FIRST, SECOND]
    own = OnePath("/v9/t-1")
    assert (await session(own, store, "/v9/{task_id}").poll_once(JOB)).status is JobStatus.RUNNING
    assert own.asked == ["/v9/t-1"]


async def test_a_refusal_for_the_rate_slows_all_polls_of_the_account(store: Store) -> None:
    """Nothing is documented of this gateway: what it refuses says where its limit is."""
    asks = session(OnePath(), store, "/busy/{task_id}")
    limiter = asks.shared.limiter(asks.account, per_s=None)
    refused: list[int] = []
    limiter.refuse = refused.append  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(GatewayUnavailable):
        await asks.poll_once(JOB)
    assert refused == [0]
