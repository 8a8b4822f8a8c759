"""Of several who would submit the same request, exactly one does, whoever of them stalls or dies when."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.test_submit import HORSE

from prefect_happyhorse.domain.errors import RateLimited, SubmissionUncertain
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import Submitter, prepare
from prefect_happyhorse.engine.journal import lease as leases
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.journal.owner import LEASE_TTL_S, LeaseOwner
from prefect_happyhorse.engine.journal.spool import Spool
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

NOW = datetime.now(timezone.utc)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))


def ended() -> LeaseOwner:
    """A owner on this machine whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return LeaseOwner(process=process.pid, run="another")


def elsewhere(**facts: Any) -> LeaseOwner:
    return LeaseOwner(host="far", machine="far away", process=1, run="another", **facts)


def test_who_counts_as_gone() -> None:
    """A dead process of this machine, and whoever was silent for five heartbeats; nobody else."""
    late = NOW + timedelta(seconds=LEASE_TTL_S + 1)
    assert not LeaseOwner(at=NOW).expired(NOW)
    assert LeaseOwner(at=NOW).expired(late)
    assert ended().is_dead()
    # The same id in another container, and an earlier process that had this one's id.
    assert not elsewhere(at=NOW).expired(NOW)
    assert elsewhere(at=NOW).expired(late)
    assert LeaseOwner(run="another", at=NOW).is_dead()


def test_a_owner_may_not_be_asked_for_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another user is alive, and on Windows nobody is asked, since asking would end it."""

    def refuse(process: int, signal: int) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr("os.kill", refuse)
    other = LeaseOwner(process=1, run="another")
    assert not other.is_dead()


async def test_of_many_who_resubmit_one_does(sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps) -> None:
    """Twenty runs that would all rather pay find one dead owner: one of them submits, and all get its job."""
    prepared = await prepare(HORSE, account())
    await Journal(store).acquire(_intent(prepared.digest, ended()))
    runs = [Submitter(store=store, on_uncertain="resubmit").submit(prepared) for _ in range(20)]
    jobs = await asyncio.gather(*runs)
    assert {job.task_id for job in jobs} == {entry.task_id for entry in sandbox.ledger()}
    assert len(sandbox.ledger()) == 1


def _intent(digest: str, owner: LeaseOwner) -> JournalEntry:
    return JournalEntry(digest=digest, state="intent", gateway="happyhorse", account="default", take=1, request=HORSE, owner=owner)


async def test_a_rival_that_died_while_it_took_over_stops_nobody(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """It took the next epoch and wrote nothing more; whoever comes takes the epoch after that."""
    prepared = await prepare(HORSE, account())
    await Journal(store).acquire(_intent(prepared.digest, ended()))
    await store.create(f"journal/leases/{prepared.digest}.2.json", ended().model_copy(update={"epoch": 2}).model_dump_json().encode())
    job = await Submitter(store=store, on_uncertain="resubmit").submit(prepared)
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    assert (entry.job, entry.owner.epoch, len(sandbox.ledger())) == (job, 3, 1)


async def test_a_rival_at_work_is_waited_for(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Who finds the next epoch taken by a living process waits for its job and buys nothing."""
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    await journal.acquire(_intent(prepared.digest, ended()))
    rival = elsewhere(at=datetime.now(timezone.utc), epoch=2)
    await store.create(f"journal/leases/{prepared.digest}.2.json", rival.model_dump_json().encode())
    naps = 0

    async def meanwhile(seconds: float) -> None:
        nonlocal naps
        naps += 1
        if naps == 3:
            await journal.forget(prepared.digest)
            await Submitter(store=store).submit(prepared)

    job = await Submitter(store=store, on_uncertain="resubmit", sleep=meanwhile).submit(prepared)
    assert [entry.task_id for entry in sandbox.ledger()] == [job.task_id]


async def test_a_clock_that_jumped_makes_nobody_pay_twice(sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps) -> None:
    """Where money hangs on it, a lease counts as expired only after a silence that was heard here, whatever times were written."""
    prepared = await prepare(HORSE, account())
    await Journal(store).acquire(_intent(prepared.digest, elsewhere(at=NOW - timedelta(days=400))))
    await Submitter(store=store, on_uncertain="resubmit", sleep=naps).submit(prepared)
    assert sum(naps.taken) > LEASE_TTL_S
    assert len(sandbox.ledger()) == 1


@pytest.mark.slow
async def test_a_heartbeat_begins_the_silence_anew(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """As long as the owner says now and then that it is at work, it is waited for."""
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    entry = _intent(prepared.digest, elsewhere(at=NOW))
    await journal.acquire(entry)
    waited: list[float] = []

    async def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        if sum(waited) < 3 * LEASE_TTL_S:
            assert await journal.renew(entry)
        elif await journal.read(prepared.digest) is not None:
            await journal.release(entry)

    await Submitter(store=store, on_uncertain="resubmit", sleep=meanwhile).submit(prepared)
    assert sum(waited) >= 3 * LEASE_TTL_S
    assert len(sandbox.ledger()) == 1


async def test_a_submit_that_takes_long_says_that_it_is_at_work(
    sandbox: SandboxServer, account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entry is newer than its lease while the gateway has not answered; the job lands on top of every heartbeat."""
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    sandbox.fault(at="submit", kind="stall_after", seconds=600)
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    running = asyncio.create_task(Submitter(store=store).submit(prepared))
    first = later = None
    while first is None or later is None or later.owner.at == first.owner.at:
        await asyncio.sleep(0.01)
        later = await journal.read(prepared.digest)
        first = first or later
    sandbox.release()
    job = await running
    entry = await journal.read(prepared.digest)
    assert entry is not None
    assert (entry.state, entry.job, entry.owner.same(first.owner)) == ("submitted", job, True)


async def test_a_heartbeat_never_revives_what_somebody_took_over(account: AccountMaker, store: Store) -> None:
    """A owner that wakes up late leaves the lease to who has it now, and gives nothing back that is not its own."""
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    stalled = _intent(prepared.digest, elsewhere(at=NOW))
    await journal.acquire(stalled)
    taken = await journal.take_over(stalled, _intent(prepared.digest, LeaseOwner()))
    assert taken is not None
    assert not await journal.renew(stalled)
    await journal.release(stalled)
    await journal.reinstate(stalled, stalled.becoming("uncertain"))
    assert await journal.read(prepared.digest) == taken


async def test_two_jobs_of_one_request_are_both_kept(
    sandbox: SandboxServer, account: AccountMaker, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Who was taken over and had bought all the same finds the other's job, and its own stands beside it: nothing paid is lost."""
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    stalled = _intent(prepared.digest, ended())
    await journal.acquire(stalled)
    job = await Submitter(store=store, on_uncertain="resubmit").submit(prepared)
    late = job.model_copy(update={"task_id": "late-1"})
    assert await journal.write_job_down(stalled, late) == job
    entry = await journal.read(prepared.digest)
    assert entry is not None
    assert (entry.job, entry.duplicate_jobs) == (job, (late,))
    assert await journal.write_job_down(stalled, late) == job
    assert await journal.read(prepared.digest) == entry


async def test_a_refused_resubmit_leaves_the_doubt(sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps) -> None:
    """That the second submit certainly bought nothing says nothing of the first: the next run asks a person again."""
    prepared = await prepare(HORSE, account())
    sandbox.fault(at="submit", kind="drop_after")
    with pytest.raises(SubmissionUncertain):
        await Submitter(store=store).submit(prepared)
    sandbox.fault(at="submit", kind="throttle", times=None)
    with pytest.raises(RateLimited):
        await Submitter(store=store, on_uncertain="resubmit", sleep=naps).submit(prepared)
    with pytest.raises(SubmissionUncertain, match="broke after it was sent"):
        await Submitter(store=store).submit(prepared)
    sandbox.clear_faults()
    await Submitter(store=store, on_uncertain="resubmit").submit(prepared)
    assert len(sandbox.ledger()) == 2


class Failing(Store):
    """A store that cannot be written from the moment on at which it is told so."""

    def break_writing(self) -> None:
        async def refuse(path: str, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "no space left", path)

        object.__setattr__(self, "write", refuse)

    def mend(self) -> None:
        object.__delattr__(self, "write")


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
    assert [entry.job for entry in await Journal(store).entries()] == [job]
    assert len(sandbox.ledger()) == 1


async def test_a_job_kept_aside_is_listed(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Reading the journal brings back what was kept in the spool, also for an entry that is gone."""
    prepared = await prepare(HORSE, account())
    job = await Submitter(store=store).submit(prepared)
    journal = Journal(store)
    entry = await journal.read(prepared.digest)
    assert entry is not None
    await Spool(store.url).put(entry.model_dump_json())
    await store.delete(journal.path(prepared.digest))
    assert [found.job for found in await journal.entries()] == [job]
    assert await journal.restore(prepared.digest) is None


async def test_a_job_in_the_spool_is_found_by_whoever_finishes_it(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Its intent still stands in the store when the result comes."""
    prepared = await prepare(HORSE, account())
    session = Session(account(), store)
    job = (await session.submit(prepared)).job
    accepted = await session.journal.read(prepared.digest)
    assert accepted is not None
    await Spool(store.url).put(accepted.model_dump_json())
    await session.journal.write(_intent(prepared.digest, accepted.owner))
    await session.store_outputs(await session.poll(job))
    kept = await session.journal.read(prepared.digest)
    assert kept is not None
    assert (kept.state, kept.job) == ("kept", job)
    assert await Spool(store.url).digests() == []
    assert len(sandbox.ledger()) == 1


async def test_a_job_that_can_be_written_nowhere_stands_in_the_log(
    sandbox: SandboxServer,
    account: AccountMaker,
    tmp_path: Path,
    naps: Naps,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It still goes on, the log says how it is adopted, and the intent keeps it from being bought again."""
    store = Failing(url=str(tmp_path / "outputs"))
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "file"))
    prepared = await prepare(HORSE, account())
    sandbox.fault(at="submit", kind="stall_after", seconds=600)
    _, job = await asyncio.gather(_when_charged(sandbox, store.break_writing)(), Submitter(store=store, sleep=naps).submit(prepared))
    assert f"happyhorse jobs adopt {job.task_id} {prepared.digest[:12]}" in caplog.text
    journal = Journal(Store(url=store.url))
    entry = await journal.read(prepared.digest)
    assert entry is not None
    assert entry.state == "intent"
    session = Session(account(), Store(url=store.url))
    await session.store_outputs(await session.poll(job))
    kept = await journal.read(prepared.digest)
    assert kept is not None
    assert (kept.state, kept.job) == ("kept", job)
    assert await session.submit(prepared, on_uncertain="resubmit") == (job, False)
    assert len(sandbox.ledger()) == 1


async def test_what_cannot_be_given_back_is_told_and_hides_no_refusal(
    sandbox: SandboxServer, account: AccountMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The gateway's refusal reaches the caller though the journal cannot be changed; so does the doubt."""
    store = Failing(url=str(tmp_path / "outputs"))

    async def refuse(path: str) -> None:
        raise OSError(errno.EROFS, "read-only", path)

    object.__setattr__(store, "delete", refuse)
    sandbox.fault(at="submit", kind="refuse", accept=False)
    with pytest.raises(Exception, match="400"):
        await Submitter(store=store).submit(await prepare(HORSE, account()))
    assert "could not be released" in caplog.text
    store.break_writing()
    sandbox.fault(at="submit", kind="drop_after")
    with pytest.raises(SubmissionUncertain):
        await Submitter(store=store).submit(await prepare(HORSE, account(), take=2))
    assert "is uncertain" in caplog.text


async def test_the_journal_says_who_bought(account: AccountMaker, store: Store) -> None:
    """Flow run, credentials and process stand in the entry, for whoever has to find out."""
    prepared = await prepare(HORSE, account(credentials="sandbox_env"))
    await Submitter(store=store, flow_run_id="run-1").submit(prepared)
    facts = json.loads(await store.read(f"journal/{prepared.digest}.json"))
    assert (facts["flow_run_id"], facts["credentials"]) == ("run-1", "sandbox_env")
    assert facts["owner"]["process"] > 0
