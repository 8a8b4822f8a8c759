"""Turns: so many calls and so many downloads at a time in an event loop, and none of them is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from anyio import wait_all_tasks_blocked
from pydantic import SecretStr

from prefect_happyhorse.engine.http import client as client_module
from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.http.client import send
from prefect_happyhorse.engine.http.connections import Connections
from prefect_happyhorse.gateways import Account, CallUnavailable, MalformedResponse, get_gateway

AT_ONCE = 16
ACCOUNT = Account(gateway="happyhorse", base_url="https://gateway.example", key=SecretStr("sesame-1234"))


class Crowd:
    """A gateway whose answers begin at once and end when they are let go, and that counts how many are under way."""

    def __init__(self) -> None:
        self.connections = Connections()
        self.let_go = asyncio.Event()
        self.running = self.most = self.begun = 0
        self.error: Exception | None = None
        self.clients: list[httpx.AsyncClient] = []

    def client(self) -> httpx.AsyncClient:
        self.clients.append(made := httpx.AsyncClient(transport=httpx.MockTransport(self._answer)))
        return made

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        return httpx.Response(200, content=self._body())

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            await self.let_go.wait()
            if self.error is not None:
                raise self.error
            yield b"{}"
        finally:
            self.running -= 1


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    crowd = Crowd()
    async with crowd.connections.client(crowd.client):
        yield crowd


async def ask(crowd: Crowd, tokens: TokenStore, account: Account = ACCOUNT) -> httpx.Response:
    async with crowd.connections.client() as client:
        return await send(client, get_gateway("happyhorse"), account, httpx.Request("GET", f"{account.base_url}/v1/jobs"), tokens)


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_so_many_calls_at_a_time(crowd: Crowd, tokens: TokenStore) -> None:
    """A call holds its slot until its answer is read to the end; all others wait for theirs, and get it."""
    calls = [asyncio.create_task(ask(crowd, tokens)) for _ in range(50)]
    await wait_all_tasks_blocked()
    assert (crowd.running, crowd.begun) == (AT_ONCE, AT_ONCE)
    crowd.let_go.set()
    assert [response.status_code for response in await asyncio.gather(*calls)] == [200] * 50
    assert (crowd.running, crowd.begun, crowd.most) == (0, 50, AT_ONCE)


async def test_each_call_has_a_connection_of_its_own(tokens: TokenStore) -> None:
    """It takes one that rests, and only else another; all are closed with the last who is inside."""
    crowd = Crowd()
    crowd.let_go.set()
    async with crowd.connections.client(crowd.client) as client:
        others = len(crowd.clients)
        for _ in range(3):
            await ask(crowd, tokens)
        assert len(crowd.clients) - others == 1
        crowd.let_go.clear()
        calls = [asyncio.create_task(ask(crowd, tokens)) for _ in range(2 * AT_ONCE)]
        await wait_all_tasks_blocked()
        crowd.let_go.set()
        await asyncio.gather(*calls)
        assert len(crowd.clients) - others == AT_ONCE
    assert [one.is_closed for one in crowd.clients] == [True] * (others + AT_ONCE)
    assert {client.http, client.direct} <= {*crowd.clients}


async def test_a_slow_gateway_holds_up_no_other(crowd: Crowd, tokens: TokenStore) -> None:
    """Each has slots of its own."""
    slow = [asyncio.create_task(ask(crowd, tokens)) for _ in range(2 * AT_ONCE)]
    await wait_all_tasks_blocked()
    other = asyncio.create_task(ask(crowd, tokens, replace(ACCOUNT, base_url="https://another.example")))
    await wait_all_tasks_blocked()
    assert crowd.running == AT_ONCE + 1
    crowd.let_go.set()
    assert (await other).status_code == 200
    await asyncio.gather(*slow)


@pytest.mark.parametrize("error", [httpx.ReadError("gone"), httpx.DecodingError("odd")])
async def test_a_broken_call_gives_its_slot_back(error: Exception, crowd: Crowd, tokens: TokenStore) -> None:
    """However many break, as many as ever go on at a time."""
    crowd.error = error
    crowd.let_go.set()
    for _ in range(AT_ONCE + 1):
        with pytest.raises((CallUnavailable, MalformedResponse)):
            await ask(crowd, tokens)
    crowd.error = None
    assert (await ask(crowd, tokens)).status_code == 200
    crowd.let_go.clear()
    calls = [asyncio.create_task(ask(crowd, tokens)) for _ in range(20)]
    await wait_all_tasks_blocked()
    assert crowd.running == AT_ONCE
    crowd.let_go.set()
    await asyncio.gather(*calls)


async def test_an_answer_that_is_too_long_gives_its_slot_back(crowd: Crowd, tokens: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read to its end, and yet it is over."""
    crowd.let_go.set()
    with monkeypatch.context() as patched:
        patched.setattr(client_module, "_MAX_ANSWER_BYTES", 1)
        for _ in range(AT_ONCE + 1):
            with pytest.raises(MalformedResponse, match="more than 1 bytes"):
                await ask(crowd, tokens)
    assert (await ask(crowd, tokens)).status_code == 200


@pytest.mark.parametrize("victims", [range(AT_ONCE), range(AT_ONCE, 2 * AT_ONCE), range(0, 2 * AT_ONCE, 3)])
async def test_a_cancelled_call_gives_its_slot_back(victims: range, crowd: Crowd, tokens: TokenStore) -> None:
    """Whether it was under way or waited: whoever is left takes the slots, and as many as before go on at a time."""
    calls = [asyncio.create_task(ask(crowd, tokens)) for _ in range(3 * AT_ONCE)]
    await wait_all_tasks_blocked()
    for number in victims:
        await cancel(calls[number])
    await wait_all_tasks_blocked()
    assert crowd.running == AT_ONCE
    crowd.let_go.set()
    left = [call for number, call in enumerate(calls) if number not in victims]
    assert [response.status_code for response in await asyncio.gather(*left)] == [200] * len(left)
    assert crowd.most == AT_ONCE


async def test_a_call_that_is_cancelled_as_its_slot_comes(crowd: Crowd, tokens: TokenStore) -> None:
    """A slot that was handed to somebody who is no longer there goes to the next, and is not lost."""
    calls = [asyncio.create_task(ask(crowd, tokens)) for _ in range(AT_ONCE + 2)]
    await wait_all_tasks_blocked()
    # Both in one step of the event loop: the first gives its slot to the waiter, which is cancelled before it wakes.
    calls[0].cancel()
    calls[AT_ONCE].cancel()
    await asyncio.wait([calls[0], calls[AT_ONCE]])
    await wait_all_tasks_blocked()
    assert crowd.running == AT_ONCE
    crowd.let_go.set()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(one, httpx.Response) for one in done) == AT_ONCE


class Downloads:
    """Downloads that take their slot and keep it until they are let go."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.let_go = asyncio.Event()
        self.running = self.most = 0

    async def __call__(self) -> None:
        """Download."""
        async with self.connections.client() as client, client.downloads:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self.let_go.wait()
            finally:
                self.running -= 1


async def test_so_many_downloads_at_a_time(crowd: Crowd) -> None:
    """The others wait; one that is cancelled, while it waits or after, gives its slot back."""
    downloads = Downloads(crowd.connections)
    tasks = [asyncio.create_task(downloads()) for _ in range(40)]
    await wait_all_tasks_blocked()
    assert downloads.running == AT_ONCE
    for number in (0, AT_ONCE, 39):
        await cancel(tasks[number])
    await wait_all_tasks_blocked()
    assert downloads.running == AT_ONCE
    downloads.let_go.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert done.count(None) == 37
    assert (downloads.running, downloads.most) == (0, AT_ONCE)


async def test_calls_and_downloads_do_not_wait_for_each_other(crowd: Crowd, tokens: TokenStore) -> None:
    """A job is asked for while long downloads go on, and the other way round."""
    downloads = Downloads(crowd.connections)
    long = [asyncio.create_task(downloads()) for _ in range(2 * AT_ONCE)]
    calls = [asyncio.create_task(ask(crowd, tokens)) for _ in range(2 * AT_ONCE)]
    await wait_all_tasks_blocked()
    assert (downloads.running, crowd.running) == (AT_ONCE, AT_ONCE)
    crowd.let_go.set()
    await asyncio.gather(*calls)
    assert (downloads.running, crowd.begun) == (AT_ONCE, 2 * AT_ONCE)
    downloads.let_go.set()
    await asyncio.gather(*long)
