"""A job that the store would not take just when it was accepted is not lost, and not bought again."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.test_submit import HORSE
from tests.engine.journal.test_lease import ended, intent_of

from prefect_happyhorse.domain.errors import SubmissionUncertain
from prefect_happyhorse.engine.jobs.manage import find_entry
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.journal.spool import Spool
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))


class Failing(Store):
    """A store that cannot be written from the moment on at which it is told so."""

    def break_writing(self) -> None:
        async def refuse(path: str, data: bytes) -> bool:
            raise OSError(errno.ENOSPC, "no space left", path)

        object.__setattr__(self, "write", refuse)
        object.__setattr__(self, "create", refuse)

    def mend(self) -> None:
        object.__delattr__(self, "write")
        object.__delattr__(self, "create")


def _when_charged(sandbox: SandboxServer, work: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def watch() -> None:
        while not sandbox.ledger():  # noqa: ASYNC110 -- the ledger is another thread's, and has no event to wait for
            await asyncio.sleep(0.01)
        work()
        sandbox.release()

    return watch


async def test_a_job_that_the_store_would_not_take_is_kept_in_the_spool(
    sandbox: SandboxServer, account: AccountMaker, tmp_path: Path, naps: Naps, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full just when the gateway accepts: the job goes on, and a later run finds it and buys nothing."""
    store = Failing(url=str(tmp_path / "outputs"))
    prepared = await prepare(HORSE, account())
    sandbox.fault(at="submit", kind="stall_after", seconds=600)
    _, job = await asyncio.gather(_when_charged(sandbox, store.break_writing)(), Submitter(store=store, sleep=naps).submit(prepared))
    assert [charged.task_id for charged in sandbox.ledger()] == [job.task_id]
    assert "until it can" in caplog.text
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    assert (entry.state, entry.job) == ("intent", None)
    store.mend()
    assert await Submitter(store=store).submit(prepared) == job
    assert await Spool(store.url).digests() == []
    assert [entry.job for entry in (await Journal(store).entries()).entries] == [job]
    assert len(sandbox.ledger()) == 1


async def test_a_job_kept_aside_is_listed(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Reading the journal brings back what was kept in the spool, also for an entry that is gone."""
    prepared = await prepare(HORSE, account())
    job = await Submitter(store=store).submit(prepared)
    journal = Journal(store)
    entry = await journal.read(prepared.digest)
    assert entry is not None
    await Spool(store.url).put(entry.model_dump_json())
    await store.delete(journal.path(prepared.digest, 2))
    assert [found.job for found in (await Journal(store).entries()).entries] == [job]
    assert await journal.restore(prepared.digest) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00noise", b"{"])
async def test_a_damaged_file_in_the_spool_is_named_and_stops_no_other(
    content: bytes, sandbox: SandboxServer, account: AccountMaker, store: Store
) -> None:
    """Whatever is in it; it is moved away by its name, and what is under its digest is written down all the same."""
    session = Session(account(), store)
    job = (await session.submit(await session.prepare(HORSE))).job
    other = (await session.submit(await session.prepare(HORSE, take=2))).job
    spool = session.journal.spool
    name = f"{other.digest}.json"
    spool.folder.mkdir(parents=True, exist_ok=True)
    (spool.folder / name).write_bytes(content)
    listing = await session.journal.entries()
    assert {one.job for one in listing.entries} == {job, other}
    assert [one.file for one in listing.unreadable] == [f"{spool}/{name}"]
    assert f"happyhorse jobs forget {name}" in str(listing.unreadable[0].error)
    assert (await find_entry(session.journal, job.task_id)).job == job
    with pytest.raises(SubmissionUncertain, match=name):
        await find_entry(session.journal, name)
    await session.store_outputs(await session.poll(other))
    kept = await session.journal.read(other.digest)
    assert kept is not None
    assert kept.state == "kept"
    away = await session.journal.put_away(name)
    assert away is not None
    assert Path(away).read_bytes() == content
    (spool.folder / name).write_bytes(b"another")
    assert await session.journal.put_away(name) == f"{away}.1"
    assert await session.journal.put_away(f"../{name}") is None
    assert (await session.journal.entries()).unreadable == []


async def test_a_request_that_is_forgotten_leaves_no_damaged_file_in_its_way(account: AccountMaker, store: Store) -> None:
    """It may hold the id of a job, so it is moved and not removed; the request can be bought anew."""
    session = Session(account(), store)
    prepared = await session.prepare(HORSE)
    intent = await session.journal.acquire(intent_of(prepared.digest, ended()))
    assert intent is not None
    spool = session.journal.spool
    spool.folder.mkdir(parents=True, exist_ok=True)
    (spool.folder / f"{prepared.digest}.json").write_bytes(b"{")
    with pytest.raises(SubmissionUncertain, match="cannot be read"):
        await session.submit(prepared)
    await session.journal.forget(intent)
    assert (await session.submit(prepared)).is_new
    assert (spool.folder / "unreadable" / f"{prepared.digest}.json").read_bytes() == b"{"


async def test_a_job_in_the_spool_is_found_by_whoever_finishes_it(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Its intent still stands in the store when the result comes."""
    prepared = await prepare(HORSE, account())
    session = Session(account(), store)
    job = (await session.submit(prepared)).job
    accepted = await session.journal.read(prepared.digest)
    assert accepted is not None
    await Spool(store.url).put(accepted.model_dump_json())
    await store.delete(session.journal.path(prepared.digest, 2))
    session = Session(account(), store, shared=Shared())
    await session.journal.acquire(intent_of(prepared.digest, accepted.owner))
    await session.store_outputs(await session.poll(job))
    kept = await session.journal.read(prepared.digest)
    assert kept is not None
    assert (kept.state, kept.job) == ("kept", job)
    assert await Spool(store.url).digests() == []
    assert len(sandbox.ledger()) == 1


async def test_a_job_that_can_be_written_nowhere_stands_in_the_log(
    sandbox: SandboxServer, account: AccountMaker, tmp_path: Path, naps: Naps, caplog: pytest.LogCaptureFixture
) -> None:
    """It still goes on, the log says how it is adopted, and the intent keeps it from being bought again."""
    store = Failing(url=str(tmp_path / "outputs"))
    prepared = await prepare(HORSE, account())
    sandbox.fault(at="submit", kind="stall_after", seconds=600)

    def break_everything() -> None:
        store.break_writing()
        shutil.rmtree(tmp_path / "home")
        (tmp_path / "home").write_text("no folder")

    _, job = await asyncio.gather(_when_charged(sandbox, break_everything)(), Submitter(store=store, sleep=naps).submit(prepared))
    assert f"happyhorse jobs adopt {job.task_id} {prepared.digest[:12]}" in caplog.text
    (tmp_path / "home").unlink()
    session = Session(account(), Store(url=store.url), shared=Shared())
    entry = await session.journal.read(prepared.digest)
    assert entry is not None
    assert entry.state == "intent"
    await session.store_outputs(await session.poll(job))
    kept = await session.journal.read(prepared.digest)
    assert kept is not None
    assert (kept.state, kept.job) == ("kept", job)
    assert await session.submit(prepared, on_uncertain="resubmit") == (job, False)
    assert len(sandbox.ledger()) == 1


async def test_a_machine_that_can_write_no_job_down_buys_nothing(
    sandbox: SandboxServer, account: AccountMaker, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder for what the store may not take is tried before anything is sent, and no lease stays."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        await Submitter(store=store, shared=Shared()).submit(await prepare(HORSE, account()))
    assert sandbox.ledger() == []
    assert await Journal(store).revisions() == {}
