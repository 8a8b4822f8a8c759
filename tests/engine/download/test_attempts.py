"""Downloads over real sockets: attempts that break off, are continued and retried, and what is refused for what it is."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx
import pytest
from tests.engine.conftest import Naps
from tests.engine.download.conftest import JOB, OPTIONS, PLACE, VIDEO, Gateway, Get, lying
from tests.engine.samples import movie, picture, with_padding
from tests.engine.scripted_server import Step, Wire, chunked, cut, file, raw, redirect, refuse, stall

from prefect_happyhorse.domain.errors import DownloadFailed
from prefect_happyhorse.domain.jobs import Output
from prefect_happyhorse.engine.download.download import DownloadOptions, StoredOutput
from prefect_happyhorse.engine.media.probe import MediaInfo
from prefect_happyhorse.engine.storage.store import Store


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


async def test_pictures(get: Get, store: Store) -> None:
    """The extension and media type come from the bytes, not from the address or the server's word."""
    async with Wire([file(picture("webp"), extra="Content-Type: image/png\r\n")]) as wire:
        kept = await get(Output(kind="image", url=wire.url("/horse.png")))
    assert (kept.path, kept.info.media_type, kept.info.width) == (PLACE.replace("mp4", "webp"), "image/webp", 640)
