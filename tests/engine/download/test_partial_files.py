"""What a cancelled, killed or cheated process leaves behind is continued where it is good, and dropped where it is not."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.conftest import Naps
from tests.engine.download.conftest import JOB, OPTIONS, PLACE, VIDEO, Gateway, Get, lying
from tests.engine.samples import movie, with_padding
from tests.engine.scripted_server import Step, Wire, cut, file, raw, redirect, refuse, stall

from prefect_happyhorse.domain.errors import DownloadFailed
from prefect_happyhorse.domain.jobs import Output
from prefect_happyhorse.engine.download.download import DownloadOptions, download
from prefect_happyhorse.engine.storage.store import Store


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
