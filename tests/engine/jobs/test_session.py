"""What is done with an account and a store, and what it asks of the store."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.test_submit import HORSE

from prefect_happyhorse.domain.errors import DownloadFailed
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was asked of any store below `journal/`, durations and thumbnails apart: the call's name and the path."""
    calls: list[tuple[str, str]] = []

    def note(name: str, path: str) -> None:
        if path.partition("/")[0] == "journal" and path.split("/")[1:2] not in (["durations"], ["thumbnails"]):
            calls.append((name, path))

    def noted(name: str) -> Callable[..., Any]:
        original = getattr(Store, name)

        async def call(store: Store, path: str, *args: Any) -> Any:
            note(name, path)
            return await original(store, path, *args)

        return call

    read_all = Store.read_all

    async def noted_read_all(store: Store, paths: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        for path in paths:
            note("read_all", path)
        async for one in read_all(store, paths):
            yield one

    for name in ("create", "write", "read", "list", "folders"):
        monkeypatch.setattr(Store, name, noted(name))
    monkeypatch.setattr(Store, "read_all", noted_read_all)
    return calls


async def test_what_a_job_costs_the_journal(
    sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps, asked: list[tuple[str, str]]
) -> None:
    """Four files and three looks from the request to the kept file, in an object store each a call that takes its time."""
    sandbox.settings(job_s=0)
    session = Session(account(), store, sleep=naps, shared=Shared())
    await session.shared.prove(session.journal)
    asked.clear()
    prepared = await session.prepare(HORSE)
    job, is_new = await session.submit(prepared)
    stored = await session.store_outputs(await session.poll(job))
    assert is_new
    assert await store.exists(store.path_of(stored.asset.uri) or "")
    written = [path for name, path in asked if name in {"create", "write"}]
    looks = [one for one in asked if one[0] not in {"create", "write"}]
    assert len(written) <= 4, asked
    assert len(looks) <= 3, asked
    entry = await session.journal.read(job.digest)
    assert entry is not None
    # What was counted is all of it: each revision was written by itself, and the latest is there.
    assert written == [session.journal.path(job.digest, revision) for revision in range(1, entry.revision + 1)]
    assert (entry.state, entry.asset) == ("kept", stored.asset)


@pytest.mark.parametrize("step", ["poll", "store_outputs"])
async def test_a_store_that_fails_once_a_job_is_paid_for_says_so(
    step: str, sandbox: SandboxServer, account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which job, that money is spent, how it is gone on with, and that the step may be tried again."""
    session = Session(account(), store, shared=Shared())
    job = (await session.submit(await session.prepare(HORSE))).job
    result = await session.poll(job)

    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "outputs/horse.png")

    for name in ("read", "write", "write_all"):
        monkeypatch.setattr(Store, name, full)
    with pytest.raises(DownloadFailed, match="No space left on device") as caught:
        # A process that knows nothing of the job yet reads of it first.
        await (Session(account(), store, shared=Shared()).poll(job) if step == "poll" else session.store_outputs(result))
    error = caught.value
    assert (error.task_id, error.digest, error.money, error.retryable) == (job.task_id, job.digest, "spent", True)
    assert f"happyhorse jobs resume {job.digest[:12]}" in str(error)
    assert isinstance(error.__cause__, OSError)


async def test_a_store_may_move(sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps, tmp_path: Path) -> None:
    """Its files are found by whatever path it is reached: after a rename, through a link; nothing is asked for or fetched."""
    sandbox.settings(job_s=0)
    session = Session(account(), store, sleep=naps, shared=Shared())
    job, _ = await session.submit(await session.prepare(HORSE))
    first = await session.store_outputs(await session.poll(job))
    (tmp_path / "outputs").rename(tmp_path / "moved")
    moved = Store(str(tmp_path / "moved"))
    sandbox.fault(at="poll", kind="http", times=100)
    sandbox.fault(at="download", kind="http", times=100)
    session = Session(account(), moved, sleep=naps, shared=Shared())
    found = (await session.find_kept([job.digest]))[job.digest].asset
    assert (found.uri, found.sha256) == (first.asset.uri.replace("/outputs/", "/moved/"), first.asset.sha256)
    assert (await session.store_outputs(await session.poll(job))).asset == found
    assert Store("/srv").reached_here("file:///horse.mp4") == "file:///horse.mp4"
