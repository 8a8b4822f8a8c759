"""Downloads over real sockets: attempts that break off, are continued and retried, and what is refused for what it is."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx
import pytest
from tests.engine.conftest import Naps
from tests.engine.download.conftest import JOB, OPTIONS, PLACE, VIDEO, Gateway, Get, lying
from tests.engine.samples import AVIF, DRAWING, movie, picture, with_padding
from tests.engine.scripted_server import Step, Wire, chunked, coded, cut, drip, file, raw, redirect, refuse, stall

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
            info=MediaInfo("mp4", "video", len(VIDEO), 320, 240, 1.0, 12.0, "h264", has_sound=False, c2pa=False),
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
        pytest.param([coded(VIDEO, "gzip", ends=False), file(VIDEO)], [None, None], id="coded and cut"),
        pytest.param([cut(VIDEO, 100_000), coded(VIDEO, "gzip")], [None, "bytes=100000-"], id="coded by now"),
        pytest.param(
            [
                raw(f'HTTP/1.1 206 X\r\nETag: "v1"\r\nContent-Range: bytes 0-99999/{len(VIDEO)}\r\n\r\n'.encode() + VIDEO[:100_000]),
                file(VIDEO),
            ],
            [None, "bytes=100000-"],
            id="a part that nobody asked for",
        ),
        pytest.param([file(VIDEO[: len(VIDEO) - 9]), file(VIDEO)], [None, None], id="cut short at the source"),
    ],
)
async def test_mishaps(steps: list[Step], ranges: list[str | None], get: Get, store: Store) -> None:
    """Whatever goes wrong once, the file is whole in the end, and a part is only used where it is certain to be of the same file."""
    async with Wire(steps) as wire:
        await get(wire.url())
    assert [request.headers.get("range") for request in wire.received] == ranges
    assert lying(store) == {PLACE: VIDEO}


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(coded(VIDEO, "gzip"), id="gzip"),
        pytest.param(coded(VIDEO, "deflate"), id="deflate"),
        pytest.param(
            raw(
                f"HTTP/1.1 206 X\r\nContent-Range: bytes 0-{len(VIDEO) - 1}/{len(VIDEO)}\r\nContent-Length: {len(VIDEO)}\r\n\r\n".encode()
                + VIDEO
            ),
            id="the whole as a part",
        ),
    ],
)
async def test_odd_answers(step: Step, get: Get, store: Store) -> None:
    """What was paid for is kept at the first attempt though the server answers as it was not asked to; hash and length are the file's."""
    async with Wire([step]) as wire:
        kept = await get(wire.url())
    assert wire.received[0].headers["accept-encoding"] == "identity"
    assert (kept.sha256, kept.info.bytes, len(wire.received)) == (hashlib.sha256(VIDEO).hexdigest(), len(VIDEO), 1)
    assert lying(store) == {PLACE: VIDEO}


async def test_a_coded_file_keeps_to_the_limit(get: Get) -> None:
    """By its decoded length, which nothing announces."""
    bomb = with_padding(movie(), 5_000_000)
    async with Wire([coded(bomb, "gzip")]) as wire:
        with pytest.raises(DownloadFailed, match="must have at most 3,000,000 bytes"):
            await get(wire.url(), options=DownloadOptions(max_bytes={"video": 3_000_000}))


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


@pytest.mark.parametrize("after", [100_000, 10])
async def test_drip(after: int, get: Get, store: Store) -> None:
    """A server that goes on a byte at a time, in its headers or in the file, is given up on just so."""
    async with Wire([drip(VIDEO, after), file(VIDEO)]) as wire:
        await asyncio.wait_for(get(wire.url(), options=DownloadOptions(stall_s=0.3, connect_s=0.3)), 60)
    start = int((wire.received[1].headers.get("range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    assert start >= after - 1_000
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


async def test_retry_after_is_obeyed_for_five_minutes(get: Get, naps: Naps) -> None:
    """However long the user is willing to wait between attempts."""
    async with Wire([refuse(503, "Retry-After: 86400\r\n"), file(VIDEO)]) as wire:
        await get(wire.url(), options=DownloadOptions(backoff_max_s=100_000.0))
    assert naps.taken == [300.0]


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
        (b'{"code": "AccessDenied", "message": "The specified key does not exist."}', "text/html in place of a video"),
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


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"code": "AccessDenied"}', "application/octet-stream"),
        (b"  <Error><Code>AccessDenied</Code></Error>", "video/mp4"),
        ("\u6587\u4ef6\u5df2\u8fc7\u671f".encode(), "video/mp4"),
        ("<html>expired".encode("utf-16"), "text/html"),
        (bytes(600), "application/problem+json"),
    ],
)
async def test_error_pages(body: bytes, content_type: str, get: Get, store: Store) -> None:
    """A text is an error page, whatever it is called; and what is called a text is one, whatever it looks like."""
    page = refuse(200, f"Content-Type: {content_type}\r\n", body)
    async with Wire([page] * 3) as wire:
        with pytest.raises(DownloadFailed, match=f"the server sent {re.escape(content_type)} in place of a video"):
            await get(wire.url(), refresh=Gateway(*[Output(kind="video", url=wire.url())] * 2))
    assert lying(store) == {}


STRANGE = b"\x00\x01strange" + bytes(range(256)) * 40


@pytest.mark.parametrize("fresh", [2, 0])
async def test_unknown_format(fresh: int, get: Get, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """What was paid for in a format that is not known is kept as it is, once fresh addresses have led nowhere else."""
    async with Wire([file(STRANGE)] * 4) as wire:
        kept = await get(wire.url(), refresh=Gateway(*[Output(kind="video", url=wire.url())] * fresh), with_thumbnail=True)
    place = PLACE.replace("mp4", "bin")
    assert (kept.path, kept.info, kept.info.media_type) == (place, MediaInfo("bin", "video", len(STRANGE)), "application/octet-stream")
    assert (lying(store), kept.thumbnail) == ({place: STRANGE}, None)
    assert "Output 1 of job 0123456789abcdef is in no media format that is known here" in caplog.text


async def test_passing_noise(get: Get, store: Store) -> None:
    """Noise that was a passing fault is not kept in place of the file."""
    async with Wire([file(STRANGE), file(VIDEO)]) as wire:
        await get(wire.url(), refresh=Gateway(Output(kind="video", url=wire.url())))
    assert lying(store) == {PLACE: VIDEO}


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


@pytest.mark.parametrize(("content", "media_type"), [(AVIF, "image/avif"), (DRAWING, "image/svg+xml"), (picture("gif"), "image/gif")])
async def test_other_pictures(content: bytes, media_type: str, get: Get, store: Store) -> None:
    """Formats that providers make pictures in besides the usual ones; a drawing is often sent coded."""
    for index, step in enumerate((file(content), coded(content, "gzip"))):
        async with Wire([step]) as wire:
            kept = await get(Output(kind="image", url=wire.url()), index=index)
        assert (kept.info.media_type, kept.info.bytes) == (media_type, len(content))
    assert list(lying(store).values()) == [content] * 2


async def test_a_signature_is_not_logged(get: Get, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads it may fetch the output: neither httpx nor what it stands on logs it, nor do we, however much is logged."""
    caplog.set_level(logging.DEBUG)
    async with Wire([refuse(503), redirect("/b?Signature=sesame"), file(VIDEO)]) as wire:
        await get(wire.url("/a.mp4?OSSAccessKeyId=k&Signature=sesame"))
    assert "sesame" not in caplog.text
    assert [record.name for record in caplog.records if record.name.startswith("http")] == []


async def test_pictures(get: Get, store: Store) -> None:
    """The extension and media type come from the bytes, not from the address or the server's word."""
    async with Wire([file(picture("webp"), extra="Content-Type: image/png\r\n")]) as wire:
        kept = await get(Output(kind="image", url=wire.url("/horse.png")))
    assert (kept.path, kept.info.media_type, kept.info.width) == (PLACE.replace("mp4", "webp"), "image/webp", 640)
