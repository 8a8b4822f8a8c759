"""One call to a gateway: it ends, its answer is bounded, and its key shows nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import anyio
import httpcore
import httpx
import pytest
from pydantic import SecretStr
from tests.engine.conftest import Naps
from tests.engine.jobs.test_submit import HORSE, ride
from tests.engine.scripted_server import Received, Step, Wire, raw, redirect, refuse

from prefect_happyhorse.domain.errors import GenerationError, SubmissionUncertain
from prefect_happyhorse.engine.http import client as client_module
from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.http.client import send
from prefect_happyhorse.engine.http.connections import Connections
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account, CallRejected, CallUnavailable, MalformedResponse, get_gateway
from prefect_happyhorse.gateways.failures import retry_after_s

KEY = "sesame-1234"
ACCOUNT = Account(gateway="happyhorse", base_url="https://gateway.example", key=SecretStr(KEY))
PICTURE_POLL = "/v1/images/async/t-1"
VIDEO_POLL = "/v1/videos/t-1"


async def drip() -> AsyncIterator[bytes]:
    """A body that never ends, a byte at a time."""
    while True:
        yield b" "
        await asyncio.sleep(0.001)


async def drip_slowly(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer that never ends, a byte at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.001)


Answer = Callable[[httpx.Request], httpx.Response]


async def call(
    answer: Answer, tokens: TokenStore, path: str = VIDEO_POLL, account: Account = ACCOUNT, connections: Connections | None = None
) -> httpx.Response:
    """Make one call, which is answered by a function."""
    connections = connections or Connections()
    async with connections.client(lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer))) as client:
        request = httpx.Request("GET", f"{account.base_url}{path}")
        return await send(client, get_gateway(account.gateway), account, request, tokens)


async def test_a_call_ends(tokens: TokenStore) -> None:
    """An answer that drips for ever is given up as one whose outcome nobody knows; however many do, their slots come back."""
    connections = Connections(call_s=0.02)
    answers = [httpx.Response(200, content=drip()) for _ in range(20)]
    async with connections.client(lambda: httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answers.pop()))):
        calls = [call(lambda _: answers.pop(), tokens, connections=connections) for _ in range(20)]
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
        assert [(type(error), getattr(error, "may_have_acted", None)) for error in ended] == [(CallUnavailable, True)] * 20
        assert "was not answered within 0.02 s" in str(ended[0])
        answers.append(httpx.Response(200, json={}))
    assert (await call(lambda _: answers.pop(), tokens, connections=Connections())).status_code == 200


async def test_a_long_answer_has_longer() -> None:
    """A picture that comes as base64 over a slow line is not given up while it comes."""
    limit = anyio.CancelScope(deadline=1000.0)
    content = await client_module._read(httpx.Response(200, content=b"A" * 3_000_000), 4_000_000, limit)
    assert (len(content or b""), limit.deadline) == (3_000_000, pytest.approx(1060.0))


def shared(call_s: float) -> Shared:
    found = Shared()
    found.connections = Connections(call_s=call_s)
    return found


async def test_a_submit_that_is_not_answered_is_uncertain(store: Store, tokens: TokenStore, naps: Naps) -> None:
    """It may have been accepted, so it is not sent again."""
    async with Wire([drip_slowly] * 2) as wire:
        submitter = Submitter(store=store, tokens=tokens, sleep=naps, shared=shared(0.3))
        with pytest.raises(SubmissionUncertain, match=r"was not answered within 0\.3 s"):
            await asyncio.wait_for(submitter.submit(await prepare(HORSE, replace(ACCOUNT, base_url=wire.url("")))), 60)
    assert len(wire.received) <= 1


async def test_a_token_exchange_that_is_not_answered_leaves_no_doubt(tokens: TokenStore, store: Store, naps: Naps) -> None:
    """The submit that needed the token was not sent."""
    app = Account(gateway="chanjing", base_url="http://x", app_id="app-1", secret_key=SecretStr(KEY))
    async with Wire([drip_slowly] * 9) as wire:
        submitter = Submitter(store=store, tokens=tokens, sleep=naps, shared=shared(0.1), attempts=2)
        with pytest.raises(GenerationError, match="No access token was given") as caught:
            await asyncio.wait_for(submitter.submit(await prepare(ride("chanjing"), replace(app, base_url=wire.url("")))), 60)
    assert caught.value.money == "not spent"


@pytest.mark.parametrize("base_url", ["http://gateway.example", "http://127.evil.com", r"https://good.example\@gateway.example"])
async def test_a_key_is_not_sent_in_clear(base_url: str, tokens: TokenStore) -> None:
    """Not even by a block that was saved before there was a check."""
    with pytest.raises(CallRejected, match="The base URL of happyhorse must"):
        await call(lambda _: httpx.Response(200), tokens, account=replace(ACCOUNT, base_url=base_url))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
@pytest.mark.parametrize("private_network", [False, True])
async def test_a_key_goes_to_no_proxy_in_clear(
    host: str, private_network: bool, tokens: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment's proxy would read of a call by http is the key."""
    async with Wire([refuse(502)]) as proxy, Wire([refuse(200)]) as gateway:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        account = replace(ACCOUNT, base_url=f"http://{host}:{gateway.port}", private_network=private_network)
        request = httpx.Request("GET", f"{account.base_url}{VIDEO_POLL}")
        async with Connections().client() as client:
            # 127.0.0.2 stands for any other machine: nobody listens there, and the proxy is not asked.
            answer = await asyncio.gather(send(client, get_gateway("happyhorse"), account, request, tokens), return_exceptions=True)
    assert proxy.received == []
    assert [type(one) for one in answer] == [CallUnavailable if host == "127.0.0.2" else httpx.Response]
    assert [KEY in one.headers["authorization"] for one in gateway.received] == [True] * (host != "127.0.0.2")


async def test_an_output_on_this_machine_comes_through_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would look for it on its own machine; all others it is asked for as ever."""
    async with Wire([refuse(502)]) as proxy, Wire([refuse(200)]) as here:
        monkeypatch.setenv("http_proxy", proxy.url(""))
        monkeypatch.delenv("no_proxy", raising=False)
        async with Connections().client() as client:
            assert (await client.http.get(here.url("/a"))).status_code == 200
            assert (await client.http.get("http://results.example/b")).status_code == 502
    assert [request.target for request in (*here.received, *proxy.received)] == ["/a", "http://results.example/b"]


@pytest.mark.parametrize(
    ("path", "size", "is_taken"),
    [
        (PICTURE_POLL, 3_000_000, True),
        (PICTURE_POLL, 64 * 1024 * 1024 + 1, False),
        (VIDEO_POLL, 1024 * 1024, True),
        (VIDEO_POLL, 1024 * 1024 + 1, False),
        ("/v1/images/elsewhere", 1024 * 1024 + 1, False),
    ],
)
async def test_the_length_of_an_answer(path: str, size: int, is_taken: bool, tokens: TokenStore) -> None:
    """A megabyte, and more only where the answer may hold the pictures themselves."""
    body = b'{"b64_json": "' + b"A" * (size - 16) + b'"}'
    if is_taken:
        assert len((await call(lambda _: httpx.Response(200, content=body), tokens, path)).content) == size
        return
    with pytest.raises(MalformedResponse, match="answered with more than"):
        await call(lambda _: httpx.Response(200, content=body), tokens, path)


async def test_an_answer_that_takes_long_to_parse(tokens: TokenStore) -> None:
    """It is refused before it is parsed, for the event loop of all jobs would stand still; a long text is quick."""
    many = json.dumps({"x": [[]] * 300_000}).encode()
    with pytest.raises(MalformedResponse, match="more than 20000 values"):
        await call(lambda _: httpx.Response(200, content=many), tokens, PICTURE_POLL)


async def test_a_submit_with_a_long_answer_is_uncertain(store: Store, tokens: TokenStore, naps: Naps) -> None:
    """The task id may stand in it, so it is not sent again; a poll's is strange and costs nothing."""
    long = refuse(200, body=b'{"id": "t-1", "x": "' + b"A" * 1024 * 1024 + b'"}')
    async with Wire([long] * 2) as wire:
        submitter = Submitter(store=store, tokens=tokens, sleep=naps, shared=Shared())
        with pytest.raises(SubmissionUncertain, match="more than 1048576 bytes"):
            await submitter.submit(await prepare(HORSE, replace(ACCOUNT, base_url=wire.url(""))))
    assert len(wire.received) == 1


@pytest.mark.parametrize(
    ("said", "obeyed"),
    [("86400", 300), ("301", 300), ("299", 299), ("soon", None), ("Fri, 20 Nov 2026 12:00:00 GMT", 300)],
)
async def test_retry_after_is_obeyed_for_five_minutes(said: str, obeyed: float | None, tokens: TokenStore) -> None:
    """What a gateway asks for beyond that is not handed on, in seconds or as a date."""
    headers = {"Retry-After": said, "Date": "Fri, 20 Nov 2026 11:00:00 GMT"}
    assert retry_after_s(await call(lambda _: httpx.Response(429, headers=headers), tokens)) == obeyed


class BrokenStream(httpcore.AsyncNetworkStream):
    """A connection that fails at one of its steps."""

    def __init__(self, step: str) -> None:
        self.step = step

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as httpcore has it
        """Send."""
        if self.step == "write":
            raise httpcore.WriteError("gone")

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 -- as httpcore has it
        """Receive."""
        raise httpcore.ReadTimeout("gone") if self.step == "timeout" else httpcore.ReadError("gone")

    async def aclose(self) -> None:
        """Hang up."""


class Broken(httpcore.AsyncNetworkBackend):
    """A network that fails at one of its steps."""

    def __init__(self, step: str) -> None:
        self.step = step

    async def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        """Connect."""
        if self.step == "connect":
            raise httpcore.ConnectError("refused")
        return BrokenStream(self.step)


def locals_of(error: BaseException) -> str:
    """A traceback with the locals of its frames, as error trackers show it; those of the test itself are left out."""
    shown: list[str] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None:
            frames = traceback.TracebackException.from_exception(one, capture_locals=True).stack
            shown += [f"{frame.name} {frame.locals}" for frame in frames if "/tests/" not in frame.filename]
            shown.append(f"{one!r} {vars(one)}")
            todo += [one.__cause__, one.__context__]
    return "\n".join(shown)


@pytest.mark.parametrize("step", ["connect", "write", "read", "timeout"])
async def test_a_key_shows_in_no_traceback_and_no_log(
    step: str, store: Store, tokens: TokenStore, naps: Naps, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a submit whose connection fails, however much is logged."""
    caplog.set_level(logging.DEBUG)
    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=Broken(step))
    process = Shared()
    prepared = await prepare(HORSE, replace(ACCOUNT, base_url="http://127.0.0.1:9"))
    async with process.connections.client(lambda: httpx.AsyncClient(transport=transport)):
        with pytest.raises(GenerationError) as caught:
            await Submitter(store=store, tokens=tokens, sleep=naps, shared=process, attempts=1).submit(prepared)
    assert KEY not in locals_of(caught.value)
    assert KEY not in caplog.text
    assert [record.name for record in caplog.records if record.name.startswith("http")] == []


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nX: sesame-1234\r\nContent-Length: 99\r\n\r\nsesame-1234"), id="cut short"),
        pytest.param(raw(b"Authorization: Bearer sesame-1234\r\n\r\n"), id="no HTTP"),
        pytest.param(redirect(f"http://xn--zzzzzz/{KEY}"), id="to no host"),
        pytest.param(redirect(f"http:\\\\host/{KEY}"), id="to no address"),
        pytest.param(refuse(200, "", f'{{"task_id": "{KEY} {KEY}"}}'.encode()), id="as task id"),
        pytest.param(refuse(400, "", f'{{"error": {{"message": "{KEY}"}}, "id": "t-1"}}'.encode()), id="beside an id"),
    ],
)
async def test_an_echo_of_a_key_shows_nowhere(
    step: Step, store: Store, tokens: TokenStore, naps: Naps, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway that sends back what it was sent and breaks off has its bytes in no frame."""
    caplog.set_level(logging.DEBUG)
    async with Wire([step]) as wire:
        submitter = Submitter(store=store, tokens=tokens, sleep=naps, shared=Shared())
        with pytest.raises(SubmissionUncertain) as caught:
            await submitter.submit(await prepare(HORSE, replace(ACCOUNT, base_url=wire.url(""))))
    assert KEY not in locals_of(caught.value)
    assert KEY not in caplog.text


async def test_other_clients_are_logged_as_ever(tokens: TokenStore, caplog: pytest.LogCaptureFixture) -> None:
    """Quiet are the package's own requests, while they last, and no others at the same time."""
    caplog.set_level(logging.DEBUG)
    mine = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    under_way, over = asyncio.Event(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        under_way.set()
        await over.wait()
        return httpx.Response(200, json={})

    async with mine:
        ours = asyncio.create_task(call(answer, tokens))  # pyright: ignore[reportArgumentType]
        await under_way.wait()
        await mine.get("https://elsewhere.example/mine")
        over.set()
        await ours
        await mine.get("https://elsewhere.example/after")
    told = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert [line.split()[3] for line in told if line.startswith("HTTP Request")] == [
        "https://elsewhere.example/mine",
        "https://elsewhere.example/after",
    ]
