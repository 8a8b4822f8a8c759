"""How much is in memory and at work at a time, and what is told meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.engine.download.conftest import JOB, PLACE, VIDEO, Get, lying
from tests.engine.samples import movie, with_padding
from tests.engine.scripted_server import Received, Wire, cut, file

from prefect_happyhorse.engine.download import attempt as attempt_module
from prefect_happyhorse.engine.download.download import DownloadOptions
from prefect_happyhorse.engine.http.connections import Connections
from prefect_happyhorse.engine.media.probe import decoders, in_decoder
from prefect_happyhorse.engine.storage.store import Store


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


async def test_no_more_media_are_decoded_than_there_are_processors(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many downloads end at the same time, looking at them and making thumbnails share so many threads; all get their thumbnail."""
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

    monkeypatch.setattr(attempt_module, "probe_and_thumbnail", counted(attempt_module.probe_and_thumbnail))
    async with Wire([file(VIDEO)] * 8) as wire:
        jobs = [JOB.model_copy(update={"task_id": f"0123456789abcde{number}"}) for number in range(8)]
        downloads = [asyncio.create_task(get(wire.url(), job=job, with_thumbnail=True, options=DownloadOptions())) for job in jobs]
        with anyio.fail_after(30):
            while decoders().statistics().tasks_waiting < 6:  # noqa: ASYNC110 -- a limiter tells nobody who comes
                await asyncio.sleep(0)
        let_go.set()
        kept = await asyncio.gather(*downloads)
    assert all(one.thumbnail for one in kept)
    assert (most, calls) == (2, 8)


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


async def test_decoders_are_few_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often they are called they are the same threads; who is cancelled is not let go while one of them is at work for him."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    found = {thread for _ in range(3) for thread in await asyncio.gather(*(in_decoder(threading.get_ident) for _ in range(8)))}
    assert 1 <= len(found) <= 2
    assert threading.get_ident() not in found
    begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        let_go.wait(10)
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(in_decoder, work)
        await anyio.to_thread.run_sync(begun.wait)
        group.cancel_scope.cancel()
        let_go.set()
    assert ended.is_set()


@pytest.mark.parametrize(("slots", "at_once"), [(True, 16), (False, 40)])
async def test_no_more_come_at_a_time_than_have_a_slot(get: Get, store: Store, slots: bool, at_once: int) -> None:
    """With a shared client's slots sixteen exchanges are under way and the others have not begun; without slots all are. All end well."""
    full, let_go = asyncio.Event(), asyncio.Event()
    begun = 0

    async def gate(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun
        begun += 1
        if begun == at_once:
            full.set()
        await let_go.wait()
        await file(VIDEO)(request, reader, writer)

    async with Wire([gate] * 40) as wire, Connections().client() as shared:
        held = {"slots": shared.downloads} if slots else {}
        jobs = [JOB.model_copy(update={"task_id": f"0123456789abcd{number}"}) for number in range(10, 50)]
        downloads = [asyncio.create_task(get(wire.url(), job=job, options=DownloadOptions(), **held)) for job in jobs]
        await full.wait()
        await anyio.wait_all_tasks_blocked()
        assert begun == at_once
        let_go.set()
        kept = await asyncio.gather(*downloads)
    assert begun == len(lying(store)) == len(kept) == 40
