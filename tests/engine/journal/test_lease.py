"""Of several who would submit the same request, exactly one does, whoever of them stalls or dies when."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import AccountMaker, Naps
from tests.engine.jobs.test_submit import HORSE

from prefect_happyhorse.domain.errors import RateLimited, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.jobs.manage import forget
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.shared import Shared
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal import lease as leases
from prefect_happyhorse.engine.journal.index import open_entries
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.journal.lease import Lease, LeaseLost
from prefect_happyhorse.engine.journal.owner import LEASE_TTL_S, SENDING_TTL_S, LeaseOwner
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer

NOW = datetime.now(timezone.utc)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HAPPYHORSE_HOME", str(tmp_path / "home"))


def ended() -> LeaseOwner:
    """An owner on this machine whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return LeaseOwner(process=process.pid, run="another")


def elsewhere(**facts: Any) -> LeaseOwner:
    return LeaseOwner(host="far", machine="far away", process=1, run="another", **facts)


def test_who_is_known_to_be_gone() -> None:
    """A dead process of this machine, and a submit of this process that is over; nothing is known of another machine's."""
    assert ended().lives() is False
    assert LeaseOwner(process=os.getppid(), run="another").lives() is True
    assert elsewhere(at=NOW - timedelta(days=400)).lives() is None
    # An earlier process that had this one's id, as in a container that was started again.
    assert LeaseOwner(run="another").lives() is False
    # One that was forked from its parent has the parent's memory, and not its id.
    assert LeaseOwner(process=os.getppid()).lives() is True
    ours = LeaseOwner()
    with ours.submitting():
        assert ours.lives() is True
    assert ours.lives() is False
    # An event loop that was closed under it, as a notebook's may be, never ends it.
    loop = asyncio.new_event_loop()
    with ours.submitting(loop):
        assert ours.lives() is True
        loop.close()
        assert ours.lives() is False


@pytest.mark.skipif(sys.platform != "linux", reason="No other system says it without a further package.")
def test_who_ended_is_gone_though_its_id_is_not() -> None:
    """Its parent may not ask for it for long, as in a container without an init; or another process may have the id by now."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert LeaseOwner(process=process.pid, run="another").lives() is False
    parent = int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19])
    assert LeaseOwner(process=os.getppid(), run="another", started=parent).lives() is True
    assert LeaseOwner(process=os.getppid(), run="another", started=parent + 1).lives() is False


@pytest.mark.skipif(sys.platform != "linux", reason="No other system says it without a further package.")
def test_an_owner_says_when_it_was_started() -> None:
    """An entry of an earlier version does not say it, and then it is not known, whoever reads it."""
    ours = LeaseOwner()
    assert ours.started == int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert LeaseOwner.model_validate_json(ours.model_dump_json()) == ours
    facts = ours.model_dump(exclude={"started"})
    assert LeaseOwner.model_validate(facts | {"run": "another", "process": 1}).started is None


def test_an_owner_may_not_be_asked_for_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another user is alive; on Windows nobody is asked, since asking would end it, and nothing is known of others."""

    def refuse(process: int, signal: int) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr("os.kill", refuse)
    theirs, earlier = LeaseOwner(process=1, run="another"), LeaseOwner(run="another")
    assert theirs.lives() is True
    asked: list[int] = []
    monkeypatch.setattr("os.kill", lambda process, _: asked.append(process))
    with monkeypatch.context() as windows:
        windows.setattr("os.name", "nt")
        found = theirs.lives(), earlier.lives()
    assert (found, asked) == ((None, False), [])


async def test_of_many_who_resubmit_one_does(sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps) -> None:
    """Twenty runs that would all rather pay find one dead owner: one of them submits, and all get its job."""
    prepared = await prepare(HORSE, account())
    await Journal(store).acquire(intent_of(prepared.digest, ended()))
    runs = [Submitter(store=store, on_uncertain="resubmit").submit(prepared) for _ in range(20)]
    jobs = await asyncio.gather(*runs)
    assert {job.task_id for job in jobs} == {entry.task_id for entry in sandbox.ledger()}
    assert len(sandbox.ledger()) == 1


def intent_of(digest: str, owner: LeaseOwner) -> JournalEntry:
    return JournalEntry(digest=digest, state="intent", gateway="happyhorse", account="default", take=1, request=HORSE, owner=owner)


@pytest.mark.parametrize("at", [NOW, NOW - timedelta(days=400), NOW + timedelta(days=400)])
async def test_what_another_machines_clock_says_decides_nothing(
    sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps, at: datetime
) -> None:
    """A lease is taken to have expired only after a silence that was heard here, whatever times were written."""
    prepared = await prepare(HORSE, account())
    await Journal(store).acquire(intent_of(prepared.digest, elsewhere(at=at)))
    with pytest.raises(SubmissionUncertain, match="process 1 on far, and nobody knows"):
        await Submitter(store=store, sleep=naps).submit(prepared)
    assert sum(naps.taken) > LEASE_TTL_S
    naps.taken.clear()
    await Submitter(store=store, on_uncertain="resubmit", sleep=naps).submit(prepared)
    assert sum(naps.taken) > LEASE_TTL_S
    assert len(sandbox.ledger()) == 1


async def test_a_live_process_of_this_machine_is_never_gone(
    sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps
) -> None:
    """However long it is silent, as a process that was stopped is: nothing is sent, and the error says what to do."""
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    stopped = await journal.acquire(intent_of(prepared.digest, LeaseOwner(process=os.getppid(), run="another")))
    assert stopped is not None
    for on_uncertain in ("raise", "resubmit"):
        with pytest.raises(SubmissionUncertain, match=r"still alive and was silent for 150 s.*end it, then run again"):
            await Submitter(store=store, on_uncertain=on_uncertain, sleep=naps).submit(prepared)
    with pytest.raises(ValueError, match="is being submitted right now"):
        await forget(journal, stopped, sleep=naps)
    assert await journal.read(prepared.digest) == stopped
    assert sandbox.ledger() == []


async def test_a_submit_of_a_loop_that_was_stopped_is_told_of(
    sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps
) -> None:
    """It stands in this process, is not over and never will be, and nobody waits for it for ever."""
    prepared = await prepare(HORSE, account())
    owner = LeaseOwner()
    await Journal(store).acquire(intent_of(prepared.digest, owner))
    stopped = asyncio.new_event_loop()
    with owner.submitting(stopped), pytest.raises(SubmissionUncertain, match=r"still alive and was silent for 150 s"):
        await Submitter(store=store, sleep=naps).submit(prepared)
    stopped.close()
    assert sandbox.ledger() == []


@pytest.mark.slow
async def test_a_renewal_begins_the_silence_anew(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """As long as the owner says now and then that it is at work, it is waited for."""
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    entry = await journal.acquire(intent_of(prepared.digest, elsewhere()))
    assert entry is not None
    waited: list[float] = []

    async def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        if sum(waited) < 3 * LEASE_TTL_S:
            await store.write(f"journal/leases/{entry.digest}.1.json", str(len(waited)).encode())
        else:
            await journal.release(entry, None)

    await Submitter(store=store, on_uncertain="resubmit", sleep=meanwhile).submit(prepared)
    assert sum(waited) >= 3 * LEASE_TTL_S
    assert len(sandbox.ledger()) == 1


async def test_a_submit_that_takes_long_says_that_it_is_at_work(
    sandbox: SandboxServer, account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file of its own, so that the entry is written for money alone; it goes with the submit."""
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    sandbox.fault(at="submit", kind="stall_after", seconds=600)
    prepared = await prepare(HORSE, account())
    running = asyncio.create_task(Submitter(store=store).submit(prepared))
    renewals = f"journal/leases/{prepared.digest}.1.json"
    first = None
    while first is None:
        await asyncio.sleep(0.01)
        with suppress(FileNotFoundError):
            first = await store.read(renewals)
    while await store.read(renewals) == first:  # noqa: ASYNC110 -- a file has no event to wait for
        await asyncio.sleep(0.01)
    assert await store.list(f"journal/{prepared.digest[:2]}") == [f"{prepared.digest}.1.json"]
    sandbox.release()
    job = await running
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    assert (entry.state, entry.job, entry.revision) == ("submitted", job, 2)
    assert await store.list("journal/leases") == []


class Clocks:
    """A monotonic and a wall clock that are moved by hand."""

    def __init__(self) -> None:
        self.monotonic_s = 1_000.0
        self.wall_s = 1_700_000_000.0

    def now(self) -> tuple[float, float]:
        return self.monotonic_s, self.wall_s


async def acquired(store: Store) -> Lease:
    journal = Journal(store)
    intent = await journal.acquire(intent_of("d" * 64, LeaseOwner()))
    assert intent is not None
    return Lease(intent, None, journal)


async def test_a_renewal_under_way_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write goes on in its thread whoever waits for it; the file is deleted once it has ended."""
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0)
    write, writing, may_end = Store.write, asyncio.Event(), asyncio.Event()
    threads: list[asyncio.Task[None]] = []

    async def held(store: Store, path: str, content: bytes) -> None:
        await may_end.wait()
        await write(store, path, content)

    async def in_a_thread(self: Store, path: str, content: bytes) -> None:
        writing.set()
        threads.append(asyncio.create_task(held(self, path, content)))
        await asyncio.shield(threads[-1])

    lease = await acquired(store)
    monkeypatch.setattr(Store, "write", in_a_thread)
    async with lease.heartbeat():
        await writing.wait()
        asyncio.get_running_loop().call_later(0.1, may_end.set)
    await asyncio.gather(*threads)
    assert await store.list("journal/leases") == []


@pytest.mark.parametrize(("monotonic_s", "wall_s"), [(SENDING_TTL_S + 1, 0), (0, SENDING_TTL_S + 1), (0, -SENDING_TTL_S - 1)])
async def test_nothing_is_sent_under_a_lease_that_may_have_expired(
    store: Store, monkeypatch: pytest.MonkeyPatch, monotonic_s: float, wall_s: float
) -> None:
    """A process that was stopped sees it by the first clock, a laptop that slept by the second; one that jumped may have done either."""
    clocks = Clocks()
    monkeypatch.setattr(leases, "_now", clocks.now)
    lease = await acquired(store)
    await lease.check()
    assert lease.sent
    lease.sent = False
    clocks.monotonic_s += monotonic_s
    clocks.wall_s += wall_s
    with pytest.raises(LeaseLost, match="not renewed for 75 s"):
        await lease.check()
    assert not lease.sent


async def test_a_look_that_takes_long_counts_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may be stopped while the store is asked whether the lease is still its own."""
    clocks = Clocks()
    monkeypatch.setattr(leases, "_now", clocks.now)
    lease = await acquired(store)
    revision = Journal.revision

    async def slow(self: Journal, digest: str) -> int:
        clocks.monotonic_s += 200
        return await revision(self, digest)

    monkeypatch.setattr(Journal, "revision", slow)
    with pytest.raises(LeaseLost, match="not renewed"):
        await lease.check()


async def test_a_call_whose_connection_took_long_does_not_leave(
    sandbox: SandboxServer, account: AccountMaker, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The clocks are read once more when the connection stands: a laptop may sleep while it is made."""
    confirm, seen = Lease.confirm, 0

    def slept_while_connecting(self: Lease) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise LeaseLost("the lease was not renewed")
        confirm(self)

    monkeypatch.setattr(Lease, "confirm", slept_while_connecting)
    prepared = await prepare(HORSE, account())
    job = await Submitter(store=store).submit(prepared)
    # Twice before the connection and once with it, for each of two tries.
    assert seen == 6
    assert "nothing was sent" in caplog.text
    assert [charged.task_id for charged in sandbox.ledger()] == [job.task_id]


async def test_a_lease_that_somebody_took_over_sends_nothing_and_undoes_nothing(store: Store) -> None:
    """An owner that wakes up late leaves the lease to who has it now."""
    journal = Journal(store)
    stalled = await journal.acquire(intent_of("d" * 64, elsewhere()))
    assert stalled is not None
    taken = await Journal(store).acquire(intent_of("d" * 64, LeaseOwner()), stalled.becoming("uncertain"))
    assert taken is not None
    lease = Lease(stalled, None, journal)
    with pytest.raises(LeaseLost, match="took over"):
        await lease.check()
    await lease.release()
    await lease.give_up(SubmissionUncertain("Who knows."))
    assert await Journal(store).read("d" * 64) == taken


class Ends(BaseException):
    """What ends a process, and is no error of its work."""


@pytest.mark.parametrize(("kind", "stays"), [(Ends, True), (OSError, False)])
async def test_the_last_renewal_outlives_the_process_alone(
    kind: type[BaseException], stays: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says until when the submit may have been sent, where the intent may stand for good."""
    monkeypatch.setattr("prefect_happyhorse.engine.journal.lease.HEARTBEAT_S", 0.01)
    journal = Journal(store)
    intent = await journal.acquire(intent_of("d" * 64, LeaseOwner()))
    assert intent is not None

    async def renewed() -> bool:
        return bool(await store.list("journal/leases"))

    async def work() -> None:
        async with Lease(intent, None, journal).heartbeat():
            while not await renewed():  # noqa: ASYNC110 -- nothing tells of a renewal but its file
                await asyncio.sleep(0.01)
            raise kind

    with pytest.raises(kind):
        await work()
    assert await renewed() is stays


async def test_a_submit_whose_lease_is_lost_begins_anew(
    sandbox: SandboxServer, account: AccountMaker, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It sleeps between a refusal for its rate and the next try, and meanwhile a person has it forgotten and another run buys."""
    prepared = await prepare(HORSE, account())
    sandbox.fault(at="submit", kind="throttle", times=1, retry_after_s=7)
    others: list[Job] = []

    async def meanwhile(seconds: float) -> None:
        if not others and seconds >= 7:
            entry = await Journal(store).read(prepared.digest)
            assert entry is not None
            await Journal(store).forget(entry)
            others.append(await Submitter(store=store, shared=Shared()).submit(prepared))
        await asyncio.sleep(0 if seconds < 30 else 3600)

    job = await Submitter(store=store, sleep=meanwhile).submit(prepared)
    assert [job] == others
    assert "took over the lease" in caplog.text
    assert len(sandbox.ledger()) == 1


async def test_the_answer_to_the_leases_own_write_is_lost(
    sandbox: SandboxServer, account: AccountMaker, tmp_path: Path, naps: Naps
) -> None:
    """It is read back, and is ours: nobody waits for the owner that this submit is itself."""
    store = Store(url=str(tmp_path / "outputs"))
    backend = store._backend
    create = backend.create

    def lost(path: str, data: bytes) -> bool:
        if not create(path, data):
            return False
        raise OSError(errno.ETIMEDOUT, "no answer", path)

    backend.create = lost  # pyright: ignore[reportAttributeAccessIssue]
    job = await Submitter(store=store, sleep=naps).submit(await prepare(HORSE, account()))
    assert [charged.task_id for charged in sandbox.ledger()] == [job.task_id]
    assert naps.taken == []


async def test_two_jobs_of_one_request_are_both_kept(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Who was taken over and had bought all the same finds the other's job, and its own gets an entry by itself: nothing paid is lost."""
    prepared = await prepare(HORSE, account())
    journal = Journal(store)
    stalled = await journal.acquire(intent_of(prepared.digest, ended()))
    assert stalled is not None
    job = await Submitter(store=store, on_uncertain="resubmit").submit(prepared)
    late = job.model_copy(update={"task_id": "late-1"})
    own = await journal.accept(stalled, late)
    assert own.task_id == "late-1"
    entry = await journal.read(prepared.digest)
    assert entry is not None
    assert (entry.job, entry.aside) == (job, (own.digest,))
    assert {one.job for one in (await open_entries(journal)).entries} == {job, own}
    assert await journal.accept(stalled, late) == own
    assert await journal.read(prepared.digest) == entry


async def test_a_refused_resubmit_leaves_the_intent_of_a_dead_owner(
    sandbox: SandboxServer, account: AccountMaker, store: Store, naps: Naps
) -> None:
    """It may have been accepted too, though its owner died before it could write that nobody knows."""
    prepared = await prepare(HORSE, account())
    dead = await Journal(store).acquire(intent_of(prepared.digest, ended()))
    assert dead is not None
    sandbox.fault(at="submit", kind="throttle", times=None)
    with pytest.raises(RateLimited):
        await Submitter(store=store, on_uncertain="resubmit", sleep=naps).submit(prepared)
    entry = await Journal(store).read(prepared.digest)
    assert entry is not None
    assert (entry.state, entry.owner, entry.revision) == ("intent", dead.owner, 3)
    with pytest.raises(SubmissionUncertain, match="nobody knows whether it was accepted"):
        await Submitter(store=store, sleep=naps).submit(prepared)


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


async def test_what_cannot_be_given_back_is_told_and_hides_no_refusal(
    sandbox: SandboxServer, account: AccountMaker, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's refusal reaches the caller though the journal cannot be changed any more; so does the doubt."""
    create = Store.create

    async def refuse(self: Store, path: str, data: bytes) -> bool:
        if path.endswith(".2.json"):
            raise OSError(errno.EROFS, "read-only", path)
        return await create(self, path, data)

    monkeypatch.setattr(Store, "create", refuse)
    sandbox.fault(at="submit", kind="refuse", accept=False)
    with pytest.raises(Exception, match="400"):
        await Submitter(store=store).submit(await prepare(HORSE, account()))
    assert "could not be released" in caplog.text
    sandbox.fault(at="submit", kind="drop_after")
    with pytest.raises(SubmissionUncertain):
        await Submitter(store=store).submit(await prepare(HORSE, account(), take=2))
    assert "is uncertain" in caplog.text


async def test_the_journal_says_who_bought(account: AccountMaker, store: Store) -> None:
    """Flow run, credentials and process stand in the entry, for whoever has to find out."""
    prepared = await prepare(HORSE, account(credentials="sandbox_env"))
    await Submitter(store=store, flow_run_id="run-1").submit(prepared)
    facts = json.loads(await store.read(Journal(store).path(prepared.digest, 2)))
    assert (facts["flow_run_id"], facts["credentials"]) == ("run-1", "sandbox_env")
    assert facts["owner"]["process"] > 0
