"""Downloads over real sockets, through whatever a network does to them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.conftest import Naps
from tests.engine.samples import movie, picture, with_padding
from tests.engine.scripted_server import Received, Step, Wire, chunked, cut, file, raw, redirect, refuse, stall

from prefect_happyhorse.domain.errors import DownloadFailed, GatewayUnavailable, JobExpired
from prefect_happyhorse.domain.jobs import Job, Output
from prefect_happyhorse.engine.download import attempt as attempt_module
from prefect_happyhorse.engine.download import download as download_module
from prefect_happyhorse.engine.download.download import DownloadOptions, StoredOutput, download, forget_partial
from prefect_happyhorse.engine.http.client import http_client
from prefect_happyhorse.engine.media.probe import MediaInfo, MediaNotReadable, decoders
from prefect_happyhorse.engine.storage.store import Store

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
JOB = Job(
    gateway="ttapi",
    account="default",
    capability="text_to_video",
    model="happyhorse-1.1",
    task_id="0123456789abcdef",
    digest="d1",
    submitted_at=NOW,
)
PLACE = "2026-11-20/text_to_video/happyhorse-1.1-0123456789abcdef.mp4"
VIDEO = with_padding(movie(), 400_000)
OPTIONS = DownloadOptions(stall_s=0.5, connect_s=5, checkpoint_bytes=10_000)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


class Gateway:
    """Stands in for the gateway that is asked for fresh addresses; when it has no more, the job has expired."""

    def __init__(self, *answers: Output | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self) -> Output:
        """Ask once more."""
        self.asked += 1
        if not self.answers:
            raise JobExpired("The job is gone.", advice="Look elsewhere.")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def get(client: httpx.AsyncClient, store: Store, naps: Naps) -> Callable[..., Awaitable[StoredOutput]]:
    async def get(output: Output | str, **changes: Any) -> StoredOutput:
        usual = {
            "job": JOB,
            "store": store,
            "client": client,
            "refresh": Gateway(),
            "local_allowed": True,
            "options": OPTIONS,
            "sleep": naps,
        }
        return await download(Output(kind="video", url=output) if isinstance(output, str) else output, **(usual | changes))

    return get


Get = Callable[..., Awaitable[StoredOutput]]


def lying(store: Store) -> dict[str, bytes]:
    """Every file in the store that is not hidden, by path."""
    root = store.folder or Path()
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


def partial_files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


async def test_whole_file(get: Get, store: Store) -> None:
    """A file that comes whole is kept under the template's name, and all that is known of it is told."""
    async with Wire([file(VIDEO)]) as wire:
        kept = await get(wire.url("/a/horse.bin?Signature=1"))
        expected = StoredOutput(
            path=PLACE,
            uri=store.uri(PLACE),
            sha256=hashlib.sha256(VIDEO).hexdigest(),
            info=MediaInfo("mp4", "video", len(VIDEO), 320, 240, 1.0, 12.0, "h264"),
            url=wire.url("/a/horse.bin?Signature=1"),
        )
    assert kept == expected
    assert (kept.info.bytes, kept.info.kind, kept.info.media_type) == (len(VIDEO), "video", "video/mp4")
    assert lying(store) == {PLACE: VIDEO}


async def test_nothing_of_the_client_is_sent(get: Get) -> None:
    """Headers, cookies and authentication of the client stay at home, and cookies of the server are not sent back."""
    client = httpx.AsyncClient(
        headers={"Authorization": "Bearer sesame"}, cookies={"session": "sesame"}, auth=("user", "sesame"), trust_env=False
    )
    async with client, Wire([redirect("/b"), refuse(503, "Set-Cookie: track=sesame\r\n"), redirect("/b"), file(VIDEO)]) as wire:
        await get(wire.url(), client=client)
    assert [sorted(request.headers) for request in wire.received] == [["accept", "accept-encoding", "connection", "host", "user-agent"]] * 4
    assert "sesame" not in repr(wire.received)


async def test_goes_on_after_a_break(get: Get, store: Store, naps: Naps) -> None:
    """A connection that breaks is taken up where it ended, under the condition that the file is the same."""
    async with Wire([cut(VIDEO, 100_000), file(VIDEO)]) as wire:
        kept = await get(wire.url())
    assert kept.sha256 == hashlib.sha256(VIDEO).hexdigest()
    assert [(request.headers.get("range"), request.headers.get("if-range")) for request in wire.received] == [
        (None, None),
        ("bytes=100000-", '"v1"'),
    ]
    assert lying(store) == {PLACE: VIDEO}
    assert len(naps.taken) == 1


@pytest.mark.parametrize(
    ("steps", "ranges"),
    [
        pytest.param([cut(VIDEO, 100_000), file(VIDEO, ranges=False)], [None, "bytes=100000-"], id="range ignored"),
        pytest.param([cut(VIDEO, 100_000, tag=None), file(VIDEO, tag=None)], [None, None], id="nothing to tell the file by"),
        pytest.param([cut(VIDEO, 100_000, tag='W/"v1"'), file(VIDEO, tag='W/"v1"')], [None, None], id="weak tag"),
        pytest.param([cut(movie(seed=5), 2_000), file(VIDEO, tag='"v2"')], [None, "bytes=2000-"], id="another file by now"),
        pytest.param(
            [
                cut(VIDEO, 100_000),
                raw(b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n\r\n0123456789"),
                file(VIDEO),
            ],
            [None, "bytes=100000-", None],
            id="wrong range",
        ),
        pytest.param(
            [
                cut(VIDEO, 100_000),
                raw(f'HTTP/1.1 206 X\r\nETag: "v2"\r\nContent-Range: bytes 100000-{len(VIDEO) - 1}/{len(VIDEO)}\r\n\r\n'.encode()),
                file(VIDEO),
            ],
            [None, "bytes=100000-", None],
            id="range of another file",
        ),
        pytest.param(
            [
                cut(VIDEO, 100_000),
                raw(f'HTTP/1.1 206 X\r\nETag: "v1"\r\nContent-Range: bytes 7-{len(VIDEO) - 1}/{len(VIDEO)}\r\n\r\n'.encode() + VIDEO[7:]),
                file(VIDEO),
            ],
            [None, "bytes=100000-", None],
            id="range from elsewhere",
        ),
        pytest.param([cut(VIDEO, 100_000), refuse(416), file(VIDEO)], [None, "bytes=100000-", None], id="range refused"),
        pytest.param([cut(VIDEO, 10), file(VIDEO)], [None, None], id="too little to tell what it is"),
        pytest.param([chunked(VIDEO, ends=False), file(VIDEO)], [None, None], id="chunks without an end"),
        pytest.param([raw(b""), file(VIDEO)], [None, None], id="no answer"),
        pytest.param([raw(b"HTTP/1.1 2"), file(VIDEO)], [None, None], id="half a status line"),
        pytest.param([refuse(200, "Content-Encoding: gzip\r\n"), file(VIDEO)], [None, None], id="coded"),
        pytest.param([file(VIDEO[: len(VIDEO) - 9]), file(VIDEO)], [None, None], id="cut short at the source"),
    ],
)
async def test_mishaps(steps: list[Step], ranges: list[str | None], get: Get, store: Store) -> None:
    """Whatever goes wrong once, the file is whole in the end, and a part is only used where it is certain to be of the same file."""
    async with Wire(steps) as wire:
        await get(wire.url())
    assert [request.headers.get("range") for request in wire.received] == ranges
    assert lying(store) == {PLACE: VIDEO}


async def test_length_unknown(get: Get, store: Store) -> None:
    """A file of unannounced length is kept too."""
    async with Wire([chunked(VIDEO)]) as wire:
        await get(wire.url())
    assert lying(store) == {PLACE: VIDEO}


async def test_stall(get: Get, store: Store) -> None:
    """A server that goes silent is given up on, and the download goes on with another connection."""
    async with Wire([stall(VIDEO, 100_000), file(VIDEO)]) as wire:
        await get(wire.url())
    assert [request.headers.get("range") for request in wire.received] == [None, "bytes=100000-"]
    assert lying(store) == {PLACE: VIDEO}


async def test_gives_up(get: Get, store: Store, naps: Naps) -> None:
    """Retries end, and the error says what happened, to which job, and that nothing has to be bought again."""
    async with Wire([refuse(503, "Retry-After: 7\r\n")] * 9) as wire:
        with pytest.raises(DownloadFailed) as caught:
            await get(wire.url("/x.mp4?Signature=secret"))
    error = caught.value
    assert len(wire.received) == 1 + OPTIONS.retries
    assert (error.task_id, error.gateway, error.digest, error.status_code, error.money) == (JOB.task_id, "ttapi", "d1", 503, "spent")
    assert error.message == f"Output 1 could not be downloaded from {wire.url('/x.mp4')}: the server answered 503."
    assert error.advice == "Collect the job again; nothing is bought anew."
    assert naps.taken[:2] == [7.0, 7.0]
    assert max(naps.taken) <= OPTIONS.backoff_max_s
    assert lying(store) == {}


async def test_retry_after_date(get: Get, naps: Naps) -> None:
    """Retry-After is obeyed as a date too, up to the longest wait; what makes no sense is ignored."""
    tomorrow = format_datetime(datetime.now(timezone.utc) + timedelta(days=1), usegmt=True)
    steps = [refuse(429, f"Retry-After: {tomorrow}\r\n"), refuse(429, "Retry-After: soon\r\n"), file(VIDEO)]
    async with Wire(steps) as wire:
        await get(wire.url())
    assert naps.taken[0] == OPTIONS.backoff_max_s
    assert naps.taken[1] < OPTIONS.backoff_max_s


async def test_retry_after_counts_by_the_servers_clock(get: Get, naps: Naps) -> None:
    """A date is read against the server's own Date, since its clock and ours may differ."""
    steps = [refuse(503, "Date: Fri, 20 Nov 2026 12:00:00 GMT\r\nRetry-After: Fri, 20 Nov 2026 12:00:09 GMT\r\n"), file(VIDEO)]
    async with Wire(steps) as wire:
        await get(wire.url())
    assert naps.taken == [9.0]


async def test_comes_in_pieces(get: Get, store: Store) -> None:
    """Retries count anew while the file gets longer, so that a line that breaks often brings a long file all the same."""
    long = with_padding(movie(), 16 << 20)
    async with Wire([*[cut(long, 2 << 20)] * 8, file(long)]) as wire:
        await get(wire.url(), options=DownloadOptions(retries=1))
    assert lying(store) == {PLACE: long}


async def test_no_progress_is_no_progress(get: Get) -> None:
    """A line that breaks at the same place over and over is given up on."""
    long = with_padding(movie(), 4 << 20)
    async with Wire([cut(long, 2 << 20, tag=None)] * 9) as wire:
        with pytest.raises(DownloadFailed):
            await get(wire.url(), options=DownloadOptions(retries=2))
    assert len(wire.received) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_fresh_address(status: int, get: Get, store: Store) -> None:
    """Where the address works no longer, the gateway is asked for a fresh one; the part that is there is used."""
    async with Wire([cut(VIDEO, 100_000), refuse(status), file(VIDEO)]) as wire:
        gateway = Gateway(Output(kind="video", url=wire.url("/fresh")))
        kept = await get(wire.url("/stale"), refresh=gateway)
    assert [(request.target, request.headers.get("range")) for request in wire.received] == [
        ("/stale", None),
        ("/stale", "bytes=100000-"),
        ("/fresh", "bytes=100000-"),
    ]
    assert (kept.url, gateway.asked) == (wire.url("/fresh"), 1)
    assert lying(store) == {PLACE: VIDEO}


async def test_fresh_addresses_end(get: Get) -> None:
    """The gateway is asked for a fresh address twice, not for ever."""
    async with Wire([refuse(403)] * 9) as wire:
        gateway = Gateway(*[Output(kind="video", url=wire.url())] * 9)
        with pytest.raises(DownloadFailed, match=r"the server answered 403 \(2 fresh addresses tried too\)"):
            await get(wire.url(), refresh=gateway)
    assert (len(wire.received), gateway.asked) == (3, 2)


async def test_known_to_be_expired(get: Get, store: Store) -> None:
    """An address that is known to have expired is not even tried."""
    async with Wire([file(VIDEO)]) as wire:
        await get(wire.url("/old"), expires_at=NOW, now=lambda: NOW, refresh=Gateway(Output(kind="video", url=wire.url("/new"))))
    assert [request.target for request in wire.received] == ["/new"]
    assert lying(store) == {PLACE: VIDEO}


async def test_job_expired(get: Get) -> None:
    """When the gateway no longer knows the job, that is what is raised, with the job's facts."""
    async with Wire([refuse(404)]) as wire:
        with pytest.raises(JobExpired, match="The job is gone") as caught:
            await get(wire.url())
    assert (caught.value.task_id, caught.value.model) == (JOB.task_id, JOB.model)


async def test_gateway_fails_too(get: Get) -> None:
    """When the gateway has no fresh address to give, the error names both failures."""
    async with Wire([refuse(404)]) as wire:
        with pytest.raises(DownloadFailed, match="the server answered 404, and the gateway gave no fresh address: It is down"):
            await get(wire.url(), refresh=Gateway(GatewayUnavailable("It is down.", status_code=502)))


async def test_final_status(get: Get) -> None:
    """An answer that neither time nor a fresh address will change ends the download at once."""
    async with Wire([refuse(451)]) as wire:
        with pytest.raises(DownloadFailed, match="451"):
            await get(wire.url())
    assert len(wire.received) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<!doctype html><p>Please sign in to see this file, please sign in to see this file</p>", "text/html in place of a video"),
        (b"", "nothing at all"),
        (picture(), "png in place of a video"),
    ],
)
async def test_something_else(body: bytes, said: str, get: Get, store: Store) -> None:
    """What is no video is not kept in place of one, whatever the status says, and nothing of it is left."""
    page = refuse(200, "Content-Type: text/html\r\n", body)
    async with Wire([page] * 3) as wire:
        with pytest.raises(DownloadFailed, match=f"the server sent {said}"):
            await get(wire.url(), refresh=Gateway(*[Output(kind="video", url=wire.url())] * 2))
    assert lying(store) == {}


async def test_damaged_for_good(get: Get, store: Store) -> None:
    """A video that the server itself has only in part is never shown as if it were whole."""
    async with Wire([file(VIDEO[:-9])] * 9) as wire:
        with pytest.raises(DownloadFailed, match="what came is not whole: it is cut short"):
            await get(wire.url())
    assert len(wire.received) == 1 + OPTIONS.retries
    assert lying(store) == {}


@pytest.mark.parametrize("step", [file(VIDEO), chunked(VIDEO)])
async def test_size_cap(step: Step, get: Get, store: Store) -> None:
    """What is longer than allowed is refused, whether its length is announced or not."""
    async with Wire([step]) as wire:
        with pytest.raises(DownloadFailed, match="must have at most 50,000 bytes"):
            await get(wire.url(), options=DownloadOptions(max_bytes={"video": 50_000}))
    assert len(wire.received) == 1
    assert lying(store) == {}


async def test_redirects(get: Get, store: Store) -> None:
    """Redirects are followed, relative and absolute, with the Range that is wanted."""
    async with Wire([cut(VIDEO, 100_000), redirect("b?c=1"), file(VIDEO)]) as wire:
        await get(wire.url("/x/a"))
    assert [(request.target, request.headers.get("range")) for request in wire.received] == [
        ("/x/a", None),
        ("/x/a", "bytes=100000-"),
        ("/x/b?c=1", "bytes=100000-"),
    ]
    assert lying(store) == {PLACE: VIDEO}


async def test_redirect_to_nowhere(get: Get, store: Store) -> None:
    """A redirect that does not say where to is tried again."""
    async with Wire([refuse(302), file(VIDEO)]) as wire:
        await get(wire.url())
    assert lying(store) == {PLACE: VIDEO}


async def test_no_address_at_all(get: Get, store: Store) -> None:
    """What is no address is asked for anew."""
    async with Wire([file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed, match=r"could not be downloaded from http://.*the address is not valid"):
            await get("http://[::1?a=secret", options=DownloadOptions(refreshes=0))
        await get("http://[::1", refresh=Gateway(Output(kind="video", url=wire.url())))
    assert lying(store) == {PLACE: VIDEO}


async def test_usual_clock(get: Get) -> None:
    """An address that expires in the future is used."""
    async with Wire([file(VIDEO)]) as wire:
        await get(wire.url(), expires_at=datetime.now(timezone.utc) + timedelta(hours=1))
    assert len(wire.received) == 1


async def test_file_without_a_thumbnail(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is whole but gives no thumbnail is kept without one."""

    def refuse(*_: object) -> bytes:
        raise MediaNotReadable("no thumbnail can be made of it")

    monkeypatch.setattr("prefect_happyhorse.engine.download.download.thumbnail", refuse)
    async with Wire([file(VIDEO)]) as wire:
        assert (await get(wire.url(), with_thumbnail=True)).thumbnail is None


async def test_forget_while_somebody_is_at_it(get: Get, store: Store) -> None:
    """What somebody is at work on is not forgotten under his hands."""
    long = with_padding(movie(), 5 << 20)
    under_way = asyncio.Event()
    async with Wire([stall(long, 3 << 20), file(long)]) as wire:
        task = asyncio.create_task(
            get(wire.url(), options=DownloadOptions(stall_s=2, checkpoint_bytes=1), on_bytes=lambda *_: under_way.set())
        )
        await under_way.wait()
        await forget_partial(JOB, store=store)
        assert len(partial_files(store.scratch_dir())) == 1
        await task
    assert lying(store) == {PLACE: long}


async def test_proxy_knows_the_name(get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the proxy can resolve names, it is left to do so."""

    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with Wire([file(VIDEO)]) as wire:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{wire.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        async with httpx.AsyncClient() as client:
            with monkeypatch.context() as patch:
                patch.setattr("prefect_happyhorse.engine.download.exchange.checked_addresses", getaddrinfo)
                await get("http://results.example/a", client=client, local_allowed=False)
    assert [request.target for request in wire.received] == ["http://results.example/a"]
    assert lying(store) == {PLACE: VIDEO}


async def test_redirect_circle(get: Get) -> None:
    """Redirects that lead in a circle end."""
    async with Wire([redirect("/again")] * 9) as wire:
        with pytest.raises(DownloadFailed, match="more than 2 redirects"):
            await get(wire.url(), options=DownloadOptions(redirects=2, refreshes=0))
    assert len(wire.received) == 3


@pytest.mark.parametrize("target", ["ftp://example.com/x", "file:///etc/passwd", "gopher://example.com/", "http://user:pw@example.com/"])
async def test_strange_redirect(target: str, get: Get) -> None:
    """Only http and https are followed, and no user name or password is."""
    async with Wire([redirect(target)]) as wire:
        with pytest.raises(DownloadFailed) as caught:
            await get(wire.url())
    assert "pw" not in str(caught.value)
    assert len(wire.received) == 1


class Names:
    """A resolver that answers from a script; each name takes its next answer, and stays with the last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[str]) -> None:
        self.answers = {name.replace("_", "."): addresses for name, addresses in answers.items()}
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[Any]:
        """In place of the event loop's own."""
        known = self.answers.get(host)
        if known is None:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        address = known.pop(0) if len(known) > 1 else known[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


async def test_private_redirect(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to a private address is not followed: nothing is sent there."""
    Names(monkeypatch, results_example=["93.184.215.14"], inside_example=["10.0.0.7"])
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(str(request.url))
        return httpx.Response(302, headers={"Location": "https://inside.example/x"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(DownloadFailed, match=r"inside\.example is at 10\.0\.0\.7, which is not on the public internet"):
            await get("https://results.example/a", client=client, local_allowed=False)
    assert sent == ["https://93.184.215.14/a"]


async def test_rebinding(get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address that was checked, under the name of the URL, even if the name means another one by then."""
    Names(monkeypatch, results_example=["93.184.215.14", "127.0.0.1"])
    sent: list[tuple[str, str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((str(request.url), request.headers["Host"], request.extensions["sni_hostname"]))
        return httpx.Response(503) if len(sent) == 1 else httpx.Response(200, content=VIDEO)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(DownloadFailed, match=r"results\.example is at 127\.0\.0\.1"):
            await get("https://results.example:8443/a?b=1", client=client, local_allowed=False)
    assert sent == [("https://93.184.215.14:8443/a?b=1", "results.example:8443", "results.example")]
    assert lying(store) == {}


async def test_downgrade(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect from https to http is not followed."""
    Names(monkeypatch, results_example=["93.184.215.14"])
    transport = httpx.MockTransport(lambda request: httpx.Response(302, headers={"Location": "http://results.example/x"}))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(DownloadFailed, match="a redirect leads from https to http"):
            await get("https://results.example/a", client=client, local_allowed=False)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://[::1]:1/x", "http://169.254.169.254/latest", "http://2130706433/x"])
async def test_private_address(url: str, get: Get) -> None:
    """A result of a public gateway is not fetched from this machine or a private network."""
    with pytest.raises(DownloadFailed, match="not on the public internet"):
        await get(url, local_allowed=False)


@pytest.mark.parametrize(("name", "is_good"), [("results.example", True), ("other.example", False)])
async def test_certificate(name: str, is_good: bool, get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is checked against the name in the URL, though the connection is made to an address."""
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(name).configure_cert(serving)
    authority.configure_trust(trusting)
    Names(monkeypatch, results_example=["127.0.0.1"])
    async with httpx.AsyncClient(verify=trusting, trust_env=False) as client, Wire([file(VIDEO)], tls=serving) as wire:
        url = f"https://results.example:{wire.port}/a"
        if is_good:
            await get(url, client=client)
            assert wire.received[0].headers["host"] == f"results.example:{wire.port}"
        else:
            with pytest.raises(DownloadFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await get(url, client=client, options=DownloadOptions(retries=0))
    assert lying(store) == ({PLACE: VIDEO} if is_good else {})


async def test_next_address(get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a host has several addresses and the first does not answer, the next is tried."""

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with Wire([file(VIDEO)]) as wire, httpx.AsyncClient(trust_env=False) as client:
        await get(f"http://results.example:{wire.port}/a", client=client)
    assert lying(store) == {PLACE: VIDEO}


async def test_no_such_name(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is tried again, and then reported."""

    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(DownloadFailed, match=r"the name results\.example could not be resolved"):
        await get("http://results.example/a")


async def test_proxy_of_the_environment(get: Get, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment names a proxy, it is asked for the host by name; hosts on this machine are refused without asking it."""
    async with Wire([file(VIDEO)]) as wire:
        monkeypatch.setenv("http_proxy", wire.url(""))
        monkeypatch.delenv("no_proxy", raising=False)
        Names(monkeypatch, results_example=["93.184.215.14"])
        async with httpx.AsyncClient() as client:
            await get("http://results.example/a", client=client, local_allowed=False)
            with pytest.raises(DownloadFailed, match="not on the public internet"):
                await get("http://127.1/a", client=client, local_allowed=False, index=1)
    assert [request.target for request in wire.received] == ["http://results.example/a"]
    assert lying(store) == {PLACE: VIDEO}


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(VIDEO).decode(),
        "data:video/mp4;base64," + base64.b64encode(VIDEO).decode(),
        base64.b64encode(VIDEO).decode().rstrip("="),
        base64.encodebytes(VIDEO).decode(),
    ],
    ids=["base64", "data URL", "no padding", "lines"],
)
async def test_inline(text: str, get: Get, store: Store) -> None:
    """Bytes that came inside the gateway's answer go the same way as those from an address."""
    kept = await get(Output(kind="video", inline=text))
    assert (kept.path, kept.url, kept.sha256) == (PLACE, None, hashlib.sha256(VIDEO).hexdigest())
    assert lying(store) == {PLACE: VIDEO}


@pytest.mark.parametrize(
    "output", [Output(kind="video", inline="!!!!"), Output(kind="video"), Output(kind="video", url="data:;base64,AAA*")]
)
async def test_inline_lost(output: Output, get: Get, store: Store) -> None:
    """Bytes that were not kept, or are damaged, are asked for again."""
    gateway = Gateway(Output(kind="video", inline=base64.b64encode(VIDEO).decode()))
    await get(output, refresh=gateway)
    assert gateway.asked == 1
    assert lying(store) == {PLACE: VIDEO}


async def test_finished_already(get: Get, store: Store) -> None:
    """A finished file is not fetched again after a crash between keeping it and writing that down."""
    async with Wire([file(VIDEO), file(VIDEO)]) as wire:
        first = await get(wire.url())
        second = await get(wire.url())
        assert (second.path, second.sha256, second.info, second.reused) == (first.path, first.sha256, first.info, True)
        assert len(wire.received) == 1
        await forget_partial(JOB, store=store)
        third = await get(wire.url())
    assert (third.path, third.sha256, third.reused) == (first.path, first.sha256, False)
    assert lying(store) == {PLACE: VIDEO}
    await forget_partial(JOB, store=store)
    assert [path.name for path in store.scratch_dir().iterdir()] == ["locks"]


async def test_finished_file_changed(get: Get, store: Store) -> None:
    """A file that somebody changed or removed since is not taken for the finished one."""
    async with Wire([file(VIDEO), file(VIDEO)]) as wire:
        await get(wire.url())
        (Path(store.folder or "") / PLACE).unlink()
        kept = await get(wire.url())
    assert kept.reused is False
    assert lying(store) == {PLACE: VIDEO}


async def test_never_overwrites(get: Get, store: Store) -> None:
    """A different file in the place stays as it is; once it is gone, what was fetched is kept without fetching it again."""
    place = Path(store.folder or "") / PLACE
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    async with Wire([file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed, match=r"another file lies at .*, and nothing is overwritten") as caught:
            await get(wire.url())
        assert (lying(store), caught.value.advice) == ({PLACE: b"mine"}, "Move that file away and collect the job again.")
        place.unlink()
        await get(wire.url())
    assert len(wire.received) == 1
    assert lying(store) == {PLACE: VIDEO}


async def test_template_changed_in_between(get: Get, store: Store) -> None:
    """What was fetched before a crash goes where the store's template says now."""
    place = Path(store.folder or "") / PLACE
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    async with Wire([file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed):
            await get(wire.url())
        kept = await get(wire.url(), store=Store(store.url, template="{kind}/{task_id}{suffix}.{ext}"))
    assert kept.path == "video/0123456789abcdef.mp4"
    assert len(wire.received) == 1


async def test_outputs_of_one_job(get: Get, store: Store) -> None:
    """Further outputs of a job get a place of their own."""
    async with Wire([file(VIDEO)] * 2) as wire:
        kept = [await get(wire.url(), index=index) for index in (0, 1)]
    assert [one.path for one in kept] == [PLACE, PLACE.replace(".mp4", "-2.mp4")]
    assert lying(store) == {one.path: VIDEO for one in kept}


async def test_two_at_once(get: Get, client: httpx.AsyncClient, store: Store) -> None:
    """Two who want the same output at the same time fetch it once between them."""
    second_waits = asyncio.Event()

    async def nap(_: float) -> None:
        second_waits.set()
        await asyncio.sleep(0.01)

    async def gate(request: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await second_waits.wait()
        await file(VIDEO)(request, reader, writer)  # type: ignore[arg-type]

    async with Wire([gate]) as wire:
        kept = await asyncio.gather(get(wire.url(), sleep=nap), get(wire.url(), sleep=nap))
    assert sorted(one.reused for one in kept) == [False, True]
    assert len(wire.received) == 1
    assert lying(store) == {PLACE: VIDEO}


async def test_cancelled(get: Get, store: Store) -> None:
    """A cancelled download lets go of everything at once, and the next one goes on where it was."""
    long = with_padding(movie(), 5 << 20)
    under_way = asyncio.Event()
    async with Wire([stall(long, 3 << 20), file(long)]) as wire:
        patient = DownloadOptions(checkpoint_bytes=10_000)
        task = asyncio.create_task(get(wire.url(), options=patient, on_bytes=lambda *_: under_way.set()))
        await under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert lying(store) == {}
        await get(wire.url(), options=patient)
    assert int(wire.received[1].headers["range"].removeprefix("bytes=").removesuffix("-")) >= 1 << 20
    assert lying(store) == {PLACE: long}


_CHILD = """
import asyncio, sys
from datetime import datetime, timezone
import httpx
from prefect_happyhorse.domain.jobs import Job, Output
from prefect_happyhorse.engine.download.download import DownloadOptions, download
from prefect_happyhorse.engine.storage.store import Store

async def refresh():
    raise RuntimeError

async def main(url, folder, job):
    async with httpx.AsyncClient(trust_env=False) as client:
        await download(
            Output(kind="video", url=url), job=Job.model_validate_json(job), store=Store(folder), client=client, refresh=refresh,
            local_allowed=True, options=DownloadOptions(checkpoint_bytes=1), on_bytes=lambda done, total: print(done, flush=True),
        )

asyncio.run(main(*sys.argv[1:]))
"""


async def test_killed(get: Get, store: Store) -> None:
    """A process that is killed in the middle leaves no visible file, and another goes on where it was."""
    long = with_padding(movie(), 5 << 20)
    async with Wire([stall(long, 3 << 20), file(long)]) as wire:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(_CHILD), wire.url(), store.url, JOB.model_dump_json(), stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        synced = int(await child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        await child.wait()
        assert lying(store) == {}
        kept = await get(wire.url())
    start = int(wire.received[1].headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert start >= synced >= 1 << 20
    assert kept.sha256 == hashlib.sha256(long).hexdigest()
    assert lying(store) == {PLACE: long}


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b'{"version": 99}', b'{"version": 1, "finished": {}}'])
async def test_damaged_state(state: bytes, get: Get, store: Store) -> None:
    """A state file that makes no sense costs a new start, not the result."""
    async with Wire([cut(VIDEO, 100_000), file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed):
            await get(wire.url(), options=DownloadOptions(retries=0))
        (path,) = store.scratch_dir().glob("*.json")
        path.write_bytes(state)
        await get(wire.url())
    assert [request.headers.get("range") for request in wire.received] == [None, None]
    assert lying(store) == {PLACE: VIDEO}


async def test_noise_at_the_end(get: Get, store: Store) -> None:
    """Only what was synced counts after a crash: what a power cut left beyond it is not taken for part of the file."""
    async with Wire([cut(VIDEO, 100_000), file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed):
            await get(wire.url(), options=DownloadOptions(retries=0))
        (path,) = store.scratch_dir().glob("*.part")
        path.write_bytes(path.read_bytes() + bytes(50_000))
        await get(wire.url())
    assert wire.received[1].headers["range"] == "bytes=100000-"
    assert lying(store) == {PLACE: VIDEO}


async def test_all_there_but_unfinished(get: Get, store: Store) -> None:
    """A process that died when every byte was there leaves nothing to fetch."""
    async with Wire([cut(VIDEO, 100_000), file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed):
            await get(wire.url(), options=DownloadOptions(retries=0))
        (path,), (state,) = store.scratch_dir().glob("*.part"), store.scratch_dir().glob("*.json")
        path.write_bytes(VIDEO)
        state.write_text(state.read_text().replace('"safe_bytes": 100000', f'"safe_bytes": {len(VIDEO)}'))
        await get(wire.url())
    assert len(wire.received) == 1
    assert lying(store) == {PLACE: VIDEO}


async def test_all_there_of_unknown_length(get: Get, store: Store) -> None:
    """A server that says there is nothing beyond what is there has said that it is whole."""
    async with Wire([cut(VIDEO, 100_000), file(VIDEO)]) as wire:
        with pytest.raises(DownloadFailed):
            await get(wire.url(), options=DownloadOptions(retries=0))
        (path,), (state,) = store.scratch_dir().glob("*.part"), store.scratch_dir().glob("*.json")
        path.write_bytes(VIDEO)
        changed = state.read_text().replace('"safe_bytes": 100000', f'"safe_bytes": {len(VIDEO)}')
        state.write_text(changed.replace(f'"total": {len(VIDEO)}', '"total": null'))
        await get(wire.url())
    assert wire.received[1].headers["range"] == f"bytes={len(VIDEO)}-"
    assert lying(store) == {PLACE: VIDEO}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit.")
async def test_full_disk(get: Get, store: Store) -> None:
    """When the disk takes no more, nothing half is shown, the error says so, and later the download goes on."""
    import resource

    long = with_padding(movie(), 6 << 20)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with Wire([file(long), file(long)]) as wire:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, limits[1]))
            with pytest.raises(DownloadFailed, match="could not be written") as caught:
                await get(wire.url())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert lying(store) == {}
        assert caught.value.advice == "Free some space or repair the store, then collect the job again."
        await get(wire.url())
    assert int(wire.received[1].headers["range"].removeprefix("bytes=").removesuffix("-")) > 0
    assert lying(store) == {PLACE: long}


async def test_progress(get: Get) -> None:
    """The caller is told how far it is, also across a break."""
    told: list[tuple[int, int | None]] = []
    async with Wire([cut(VIDEO, 100_000), file(VIDEO)]) as wire:
        await get(wire.url(), on_bytes=lambda done, total: told.append((done, total)))
    assert told == [(100_000, len(VIDEO)), (len(VIDEO), len(VIDEO))]


async def test_memory(get: Get, store: Store) -> None:
    """Memory does not grow with the length of a download."""
    long = with_padding(movie(), 64 << 20)
    async with Wire([file(long)]) as wire:
        tracemalloc.start()
        await get(wire.url())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (Path(store.folder or "") / PLACE).stat().st_size == len(long)
    # A copy of the body in the server's own hands is the longest slice there is; the rest is a few pieces of 1 MiB.
    assert peak < 16 << 20


async def test_thumbnail(get: Get) -> None:
    """A thumbnail is made from the file that came, where one is wanted; also of a file that was there already."""
    async with Wire([file(VIDEO)]) as wire:
        first = await get(wire.url(), with_thumbnail=True)
        second = await get(wire.url(), with_thumbnail=True)
    assert first.thumbnail is not None
    assert first.thumbnail.startswith(b"\xff\xd8\xff")
    assert second.thumbnail == first.thumbnail
    assert repr(first.thumbnail[:8]) not in repr(first)


async def test_no_more_media_are_decoded_than_there_are_processors(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many downloads end at the same time, looking at them and making posters share so many threads; all get their poster."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    lock, both, let_go = threading.Lock(), threading.Barrier(2), threading.Event()
    running = most = calls = 0

    def counted(decode: Callable[..., Any]) -> Callable[..., Any]:
        def work(*args: Any) -> Any:
            nonlocal running, most, calls
            with lock:
                calls, running = calls + 1, running + 1
                most, is_early = max(most, running), calls <= 2
            try:
                if is_early:
                    # Two are meant to be at work side by side, and they are until all the others have come.
                    both.wait(10)
                    let_go.wait(10)
                return decode(*args)
            finally:
                with lock:
                    running -= 1

        return work

    monkeypatch.setattr(attempt_module, "probe", counted(attempt_module.probe))
    monkeypatch.setattr(download_module, "_thumbnail", counted(download_module._thumbnail))
    async with Wire([file(VIDEO)] * 8) as wire:
        jobs = [JOB.model_copy(update={"task_id": f"0123456789abcde{number}"}) for number in range(8)]
        downloads = [asyncio.create_task(get(wire.url(), job=job, with_thumbnail=True, options=DownloadOptions())) for job in jobs]
        with anyio.fail_after(30):
            while decoders().statistics().tasks_waiting < 6:  # noqa: ASYNC110 -- a limiter tells nobody who comes
                await asyncio.sleep(0)
        let_go.set()
        kept = await asyncio.gather(*downloads)
    assert all(one.thumbnail for one in kept)
    assert (most, calls) == (2, 16)


def test_every_event_loop_has_its_own_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are processors, and one where their number is not known; within a loop they are the same for all."""

    async def twice() -> tuple[anyio.CapacityLimiter, anyio.CapacityLimiter]:
        return decoders(), decoders()

    found: list[anyio.CapacityLimiter] = []
    for number in (3, None):
        monkeypatch.setattr(os, "cpu_count", lambda number=number: number)  # pyright: ignore[reportUnknownLambdaType]
        one, other = asyncio.run(twice())
        assert one is other
        found.append(one)
    assert [limiter.total_tokens for limiter in found] == [3, 1]


async def test_no_more_come_at_a_time_than_have_a_turn(get: Get, store: Store) -> None:
    """Where downloads share a client, sixteen exchanges are under way, the others have not even begun, and all end well."""
    full, let_go = asyncio.Event(), asyncio.Event()
    begun = 0

    async def gate(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun
        begun += 1
        if begun == 16:
            full.set()
        await let_go.wait()
        await file(VIDEO)(request, reader, writer)

    async with Wire([gate] * 40) as wire, http_client():
        jobs = [JOB.model_copy(update={"task_id": f"0123456789abcd{number}"}) for number in range(10, 50)]
        downloads = [asyncio.create_task(get(wire.url(), job=job, options=DownloadOptions())) for job in jobs]
        await full.wait()
        await anyio.wait_all_tasks_blocked()
        assert begun == 16
        let_go.set()
        kept = await asyncio.gather(*downloads)
    assert begun == len(lying(store)) == len(kept) == 40


async def test_pictures(get: Get, store: Store) -> None:
    """The extension and media type come from the bytes, not from the address or the server's word."""
    async with Wire([file(picture("webp"), extra="Content-Type: image/png\r\n")]) as wire:
        kept = await get(Output(kind="image", url=wire.url("/horse.png")))
    assert (kept.path, kept.info.media_type, kept.info.width) == (PLACE.replace("mp4", "webp"), "image/webp", 640)


async def test_object_store(get: Get, tmp_path: Path) -> None:
    """A store that is no local folder gets the file in one piece, and the partial file is gone."""
    store = Store("memory://outputs-of-a-test", scratch=str(tmp_path))
    async with Wire([cut(VIDEO, 100_000), file(VIDEO)]) as wire:
        kept = await get(wire.url(), store=store, with_thumbnail=True)
        again = await get(wire.url(), store=store)
    assert (kept.uri, again.reused, kept.thumbnail is None) == (f"memory://outputs-of-a-test/{PLACE}", True, False)
    assert await store.read(PLACE) == VIDEO
    assert partial_files(tmp_path) == []


async def test_store_down(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the store takes nothing, what was fetched waits here, and is not fetched again."""
    import fsspec.implementations.memory

    store = Store("memory://down", scratch=str(tmp_path))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no route to host")

    async with Wire([file(VIDEO)]) as wire:
        with monkeypatch.context() as patch:
            patch.setattr(fsspec.implementations.memory.MemoryFileSystem, "put_file", broken)
            with pytest.raises(DownloadFailed, match=r"could not be written to memory://down: .*no route to host"):
                await get(wire.url(), store=store)
        kept = await get(wire.url(), store=store)
    assert (kept.path, len(wire.received)) == (PLACE, 1)


_OTHER = movie(seed=9)
_FAULTS: list[Callable[[int], Step]] = [
    lambda size: cut(VIDEO, size),
    lambda size: cut(VIDEO, size, tag=None),
    lambda size: cut(VIDEO, size, ranges=False),
    lambda size: cut(_OTHER, size % len(_OTHER), tag='"other"'),
    lambda size: refuse(500 + size % 5),
    lambda _: refuse(429, "Retry-After: 0\r\n"),
    lambda _: raw(b"garbage\r\n\r\n"),
    lambda _: refuse(200, "Content-Type: text/html\r\n", b"<html>" + b"busy" * 30),
    lambda _: refuse(403),
    lambda _: redirect("/elsewhere"),
    lambda _: file(VIDEO[:-100]),
    lambda _: refuse(416),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.tuples(st.sampled_from(_FAULTS), st.integers(0, len(VIDEO))), max_size=5))
async def test_faults_at_random(faults: list[tuple[Callable[[int], Step], int]], tmp_path: Path) -> None:
    """Whatever mix of faults comes, there is either the whole file and nothing else, or an error and no file at all."""
    folder = tmp_path / os.urandom(8).hex()
    store = Store(str(folder))
    naps = Naps()
    async with Wire([make(size) for make, size in faults] + [file(VIDEO)] * 3) as wire, httpx.AsyncClient(trust_env=False) as client:
        gateway = Gateway(*[Output(kind="video", url=wire.url("/fresh"))] * 2)
        try:
            kept = await download(
                Output(kind="video", url=wire.url()),
                job=JOB,
                store=store,
                client=client,
                refresh=gateway,
                local_allowed=True,
                options=OPTIONS,
                sleep=naps,
            )
        except DownloadFailed:
            assert lying(store) == {}
        else:
            # The other file may come whole, in pieces of its own, but the two are never mixed.
            whole = VIDEO if kept.info.bytes == len(VIDEO) else _OTHER
            assert (lying(store), kept.sha256) == ({PLACE: whole}, hashlib.sha256(whole).hexdigest())
