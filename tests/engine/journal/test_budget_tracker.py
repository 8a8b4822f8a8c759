"""A tracker over one journal: what it counts, what it reads, and whose turn it is."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.journal.test_budget import cny, horse, standing

from prefect_happyhorse.domain.errors import BudgetExceeded
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.engine.journal.budget import BudgetTracker, _LoopsLock  # pyright: ignore[reportPrivateUsage] -- no other way to cancel at its steps
from prefect_happyhorse.engine.journal.journal import Cancellation, Journal, JournalEntry, LeaseOwner
from prefect_happyhorse.engine.storage.store import Store

NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)
FACTS = {"gateway": "happyhorse", "account": "default", "capability": "text_to_image", "model": "m", "submitted_at": NOW}


def intent(number: int, amount: str | None = "1", currency: str = "CNY", **more: Any) -> JournalEntry:
    """An intent whose job costs so much, or nobody knows how much."""
    known = Estimate(reason="nobody says") if amount is None else Estimate(amount=Decimal(amount), currency=currency, reason="")
    facts: dict[str, Any] = {"state": "intent", "gateway": "happyhorse", "account": "default", "take": 1, "owner": LeaseOwner()} | more
    return JournalEntry(digest=f"{number:064x}", request=horse(number), estimate=known, **facts)


async def acquired(journal: Journal, entry: JournalEntry, instead_of: JournalEntry | None = None) -> JournalEntry:
    """The lease, which nobody else wants."""
    lease = await journal.acquire(entry, instead_of)
    assert lease is not None
    return lease


async def claim_and_ask(tracker: BudgetTracker, journal: Journal, entry: JournalEntry) -> bool:
    """What a submitter does before it sends."""
    before = await journal.read(entry.digest)
    lease = await acquired(journal, entry, before)
    try:
        await tracker.admit(lease, before)
    except BudgetExceeded:
        await journal.release(lease, before)
        return False
    return True


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each folder was listed and each file read."""
    counted: Counter[str] = Counter()
    read, read_all, list_, folders = Store.read, Store.read_all, Store.list, Store.folders

    async def read_and_count(store: Store, path: str) -> bytes:
        counted[path] += 1
        return await read(store, path)

    async def read_all_and_count(store: Store, paths: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        counted.update(paths)
        async for one in read_all(store, paths):
            yield one

    async def list_and_count(store: Store, path: str) -> list[str]:
        counted[path] += 1
        return await list_(store, path)

    async def folders_and_count(store: Store, path: str) -> list[str]:
        counted[path] += 1
        return await folders(store, path)

    monkeypatch.setattr(Store, "read", read_and_count)
    monkeypatch.setattr(Store, "read_all", read_all_and_count)
    monkeypatch.setattr(Store, "list", list_and_count)
    monkeypatch.setattr(Store, "folders", folders_and_count)
    return counted


def entries_read(calls: Counter[str]) -> dict[str, int]:
    return {path: times for path, times in calls.items() if path.endswith(".json") and not path.startswith("journal/index/")}


async def test_each_entry_is_read_once_and_looks_are_shared(store: Store, calls: Counter[str]) -> None:
    """Two hundred jobs at the same moment list the journal twice at most, and no entry is read a second time, one's own not at all."""
    journal = Journal(store)
    for number in range(50):
        await acquired(journal, intent(number))
    tracker = BudgetTracker(cny("1000"), journal)
    assert await claim_and_ask(tracker, journal, intent(50))
    assert entries_read(calls) == {journal.path(intent(number).digest, 1): 1 for number in range(50)}
    mine = [await acquired(journal, intent(number)) for number in range(100, 300)]
    calls.clear()
    await asyncio.gather(*(tracker.admit(entry) for entry in mine))
    assert calls["journal"] <= 2
    await acquired(journal, intent(60))
    assert await claim_and_ask(tracker, journal, intent(61))
    assert entries_read(calls) == {journal.path(intent(60).digest, 1): 1}


async def test_what_is_written_anew_is_read_anew(store: Store, calls: Counter[str]) -> None:
    """A lease that another released, or a job that was cancelled, costs nothing from then on; a closed one stands in the index."""
    journal = Journal(store)
    lease = await acquired(journal, intent(1))
    job = Job.model_validate(FACTS | {"task_id": "a", "digest": intent(2).digest})
    bought = await journal.create(intent(2, state="submitted", job=job))
    assert bought is not None
    tracker = BudgetTracker(cny("2"), journal)
    assert not await claim_and_ask(tracker, journal, intent(3))
    await journal.release(lease, None)
    assert await claim_and_ask(tracker, journal, intent(3))
    assert not await claim_and_ask(tracker, journal, intent(4))
    await journal.record(job, "cancelled", {"cancellation": Cancellation(accepted=True, message="")})
    assert await claim_and_ask(tracker, journal, intent(4))
    calls.clear()
    assert not await claim_and_ask(BudgetTracker(cny("2"), journal), journal, intent(5))
    assert sorted(entries_read(calls)) == [journal.path(intent(number).digest, revision) for number, revision in ((3, 3), (4, 3))]


async def test_what_was_cancelled_and_bought_again_counts(store: Store) -> None:
    """A tracker that once read that a job cost nothing learns that somebody else has bought it since."""
    journal = Journal(store)
    job = Job.model_validate(FACTS | {"task_id": "a", "digest": intent(1).digest})
    answer = Cancellation(accepted=True, message="")
    returned = await journal.create(intent(1, state="cancelled", job=job, cancellation=answer))
    tracker = BudgetTracker(cny("2"), journal)
    assert await claim_and_ask(tracker, journal, intent(2))
    again = await acquired(journal, intent(1), returned)
    await BudgetTracker(cny("2"), journal).admit(again, returned)
    assert not await claim_and_ask(tracker, journal, intent(3))


async def test_every_job_of_a_request_counts(store: Store) -> None:
    """Where somebody chose to resubmit and both were taken, both are paid for; a cancelled one leaves the other."""
    journal = Journal(store)
    jobs = [Job.model_validate(FACTS | {"task_id": name, "digest": intent(1).digest}) for name in "ab"]
    lease = await acquired(journal, intent(1))
    for job in jobs:
        await journal.accept(lease, job)
    assert not await claim_and_ask(BudgetTracker(cny("2"), journal), journal, intent(2))
    assert await claim_and_ask(BudgetTracker(cny("3"), journal), journal, intent(3))
    await journal.forget(await standing(journal, intent(3).digest))
    await journal.record(jobs[0], "cancelled", {"cancellation": Cancellation(accepted=True, message="")})
    assert await claim_and_ask(BudgetTracker(cny("2"), journal), journal, intent(4))
    assert not await claim_and_ask(BudgetTracker(cny("2"), journal), journal, intent(5))


class Held:
    """A store's reading of many files that one is among: it goes on when it is told to; `reached` once they are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        self.reached, self.goes_on = asyncio.Event(), asyncio.Event()
        read_all = Store.read_all

        async def read_and_wait(store: Store, paths: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
            found = [one async for one in read_all(store, paths)]
            if path in paths and not self.reached.is_set():
                self.reached.set()
                await self.goes_on.wait()
            for one in sorted(found):
                yield one

        monkeypatch.setattr(Store, "read_all", read_and_wait)


async def test_a_second_try_that_is_refused_still_counts_the_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may have been charged before is not forgotten because the resubmit found no room, neither at once nor later."""
    journal = Journal(store)
    uncertain = await journal.create(intent(1, "2", state="uncertain"))
    assert uncertain is not None
    dearer = await acquired(journal, intent(1, "2.60"), uncertain)
    first = await acquired(journal, intent(2, "0.10"))
    last = await acquired(journal, intent(3, "0.50"))
    held = Held(monkeypatch, journal.path(dearer.digest, dearer.revision))
    tracker = BudgetTracker(cny("3.50"), journal)
    asked_first = asyncio.create_task(tracker.admit(first))
    await held.reached.wait()
    # Two that come while the first one looks share the next look, which sees somebody else's lease.
    asked = asyncio.gather(tracker.admit(dearer, uncertain), tracker.admit(last), return_exceptions=True)
    await acquired(journal, intent(4, "1"))
    held.goes_on.set()
    await asked_first
    assert [type(answer) for answer in await asked] == [BudgetExceeded, BudgetExceeded]
    await journal.release(dearer, uncertain)
    await journal.release(last, None)
    assert await claim_and_ask(tracker, journal, intent(5, "0.40"))
    assert not await claim_and_ask(tracker, journal, intent(6, "0.01"))


@pytest.mark.parametrize("state", ["uncertain", "intent"])
async def test_a_second_try_that_waits_counts_what_it_took_the_place_of(state: str, store: Store) -> None:
    """Only a first intent is nothing but the job that waits; under a later one something may have been charged already."""
    journal = Journal(store)
    uncertain = await journal.create(intent(1, "2", state=state))
    again = await acquired(journal, intent(1, "2"), uncertain)
    before = await acquired(journal, intent(2))
    tracker = BudgetTracker(cny("2.50"), journal)
    answers = await asyncio.gather(tracker.admit(before), tracker.admit(again, uncertain), return_exceptions=True)
    assert [type(answer) for answer in answers] == [BudgetExceeded, type(None)]


async def test_what_is_bought_after_it_was_released_waits_for_its_turn(store: Store) -> None:
    """A lease that was released once, or a request that was forgotten, takes nobody's room who came before it."""
    journal = Journal(store)
    before = await journal.create(intent(1, state="released"))
    again = await acquired(journal, intent(1), before)
    first = await acquired(journal, intent(2))
    tracker = BudgetTracker(cny("1"), journal)
    answers = await asyncio.gather(tracker.admit(first), tracker.admit(again, before), return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None), BudgetExceeded]


@pytest.mark.parametrize("held_number", [2, 3])
async def test_a_lease_that_is_seen_before_it_asks_waits_for_its_turn(
    held_number: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it begins to ask while its file is being read or after, it stands in nobody's way who came before."""
    journal = Journal(store)
    first, later, _ = [await acquired(journal, entry) for entry in (intent(1), intent(2), intent(3, "0"))]
    held = Held(monkeypatch, journal.path(intent(held_number).digest, 1))
    tracker = BudgetTracker(cny("1"), journal)
    asked_first = asyncio.create_task(tracker.admit(first))
    await held.reached.wait()
    asked_later = asyncio.create_task(tracker.admit(later))
    await asyncio.sleep(0)
    held.goes_on.set()
    await asked_first
    with pytest.raises(BudgetExceeded):
        await asked_later


async def test_what_is_refused_takes_nobodys_room(store: Store) -> None:
    """A job of unknown price, and one that was called off while it waited, stand in nobody's way before their leases are released."""
    journal = Journal(store)
    tracker = BudgetTracker(cny("1"), journal)
    unknown, called_off, wanted = [await acquired(journal, entry) for entry in (intent(1, None), intent(2), intent(3))]
    with pytest.raises(BudgetExceeded, match="is unknown: nobody says"):
        await tracker.admit(unknown)
    waiting = asyncio.create_task(tracker.admit(called_off))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await tracker.admit(wanted)
    assert [entry.state for entry in (await journal.entries()).entries] == ["intent"] * 3


async def test_a_lease_that_is_somebody_elses_by_now_counts(store: Store) -> None:
    """What was refused here and released may be bought by another with more money."""
    journal = Journal(store)
    tracker = BudgetTracker(cny("1.50"), journal)
    assert await claim_and_ask(tracker, journal, intent(1))
    assert not await claim_and_ask(tracker, journal, intent(2))
    await journal.forget(await standing(journal, intent(1).digest))
    assert await claim_and_ask(BudgetTracker(cny("9"), journal), journal, intent(2))
    assert not await claim_and_ask(tracker, journal, intent(3))


async def test_a_file_that_the_store_does_not_give_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own error may name no file; nothing is admitted, and the failure keeps its kind."""
    journal = Journal(store)
    await acquired(journal, intent(1))
    wanted = await acquired(journal, intent(2))

    read = store._backend.read

    def refuse(path: str) -> bytes:
        if path.startswith("journal/index/"):
            return read(path)
        raise PermissionError(errno.EACCES, "not yours")

    tracker = BudgetTracker(cny("9"), journal)
    with monkeypatch.context() as patched:
        patched.setattr(store._backend, "read", refuse)
        with pytest.raises(PermissionError, match=rf"not yours.*journal/00/{intent(1).digest}\.1\.json"):
            await tracker.admit(wanted)
    await tracker.admit(wanted)


async def test_all_that_cannot_be_counted_is_told(store: Store) -> None:
    """The first by its name, and how many there are; what is in another currency is told as such."""
    journal = Journal(store)
    await acquired(journal, intent(1, None))
    await acquired(journal, intent(2, "1", "USD"))
    with pytest.raises(BudgetExceeded, match=r"cannot be kept \(2 entries of the journal cannot be counted\)\."):
        await BudgetTracker(cny("9"), journal).admit(intent(3))
    await journal.forget(await standing(journal, intent(1).digest))
    with pytest.raises(BudgetExceeded, match=r"costs 1 USD, and the budget is in CNY"):
        await BudgetTracker(cny("9"), journal).admit(intent(3))


@pytest.mark.parametrize(
    ("hopeless", "told"), [(intent(1, None), "is unknown"), (intent(1, "1", "USD"), "in CNY"), (intent(1, "9.01"), "all by itself")]
)
def test_what_is_hopeless_is_told_before_anything_is_read(hopeless: JournalEntry, told: str) -> None:
    """There is no such folder, and nobody looks for it."""
    tracker = BudgetTracker(cny("9"), Journal(Store("/nowhere/at/all")))
    with pytest.raises(BudgetExceeded, match=told):
        tracker.check(hopeless)
    tracker.check(intent(2, "9"))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.decimals("0.01", "3", places=2)), min_size=1, max_size=12), st.decimals("0.01", "9", places=2)
)
def test_whoever_asks_in_whatever_order_the_sum_fits(jobs: list[tuple[int, Decimal]], limit: Decimal) -> None:
    """Three trackers over one journal, all at once: what is admitted fits the budget, and afterwards whatever still fits is admitted."""

    async def ask_all(folder: str) -> None:
        journal = Journal(Store(folder))
        trackers = [BudgetTracker(cny(str(limit)), journal) for _ in range(3)]
        entries = [(which, intent(number, str(amount))) for number, (which, amount) in enumerate(jobs)]
        answers = await asyncio.gather(*(claim_and_ask(trackers[which], journal, entry) for which, entry in entries))
        costs = [amount for (_, amount), admitted in zip(jobs, answers, strict=True) if admitted]
        assert sum(costs) <= limit
        for number, (which, amount) in enumerate(jobs, 100):
            fits = sum(costs) + amount <= limit
            assert await claim_and_ask(trackers[which], journal, intent(number, str(amount))) == fits
            costs += [amount] if fits else []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(ask_all(folder))


def test_the_order_holds_over_event_loops_and_survives_those_that_are_cancelled() -> None:
    """One holder at a time in all loops; who is cancelled while it waits, or just when its turn comes, keeps nobody out."""
    lock = _LoopsLock()
    inside: list[int] = []
    most: list[int] = []

    async def hold(number: int) -> None:
        async with lock.held():
            inside.append(number)
            most.append(len(inside))
            try:
                await asyncio.sleep(0)
            finally:
                inside.remove(number)

    async def several(number: int) -> None:
        tasks = [asyncio.create_task(hold(100 * number + one)) for one in range(50)]
        for step, task in enumerate(tasks):
            if step % 3 == 0:
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await hold(100 * number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: asyncio.run(asyncio.wait_for(several(number), 60)), range(4)))
    assert max(most) == 1
    assert len(most) >= 4 * (50 - 17 + 1)
