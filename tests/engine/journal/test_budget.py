"""A budget holds across runs and processes, and what cannot be counted is not bought."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.engine.conftest import AccountMaker
from tests.engine.jobs.test_submit import ride

from prefect_happyhorse.domain.errors import BudgetExceeded
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.prices import Estimate, Price
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import Submitter, prepare
from prefect_happyhorse.engine.journal.budget import Budget, BudgetTracker
from prefect_happyhorse.engine.journal.journal import Cancellation, Journal, JournalEntry, LeaseOwner
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)
ONE = Price(model="*", per="job", amount=Decimal("1.10"), currency="CNY", dated=date(2026, 11, 1))


def horse(number: int) -> TextToImage:
    return TextToImage(model="gpt-image-2", prompt=f"Horse {number}")


async def buy(store: Store, account: Account, number: int, budget: Budget) -> str:
    """Buy with a tracker of its own, as another process would."""
    tracker = BudgetTracker(budget, Journal(store))
    return (await Submitter(store=store, tracker=tracker).submit(await prepare(horse(number), account))).task_id


def cny(amount: str, days: int | None = None) -> Budget:
    return Budget(amount=Decimal(amount), currency="CNY", days=days)


async def test_what_would_pass_the_budget_is_not_bought(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Exactly what fits is bought, run after run; the refusal says what is spent, and leaves no lease."""
    payer = account(prices=(ONE,))
    for number in range(3):
        await buy(store, payer, number, cny("3.30"))
    with pytest.raises(BudgetExceeded, match=r"1.10 CNY would pass the budget of 3.30 CNY: 3 jobs stand in the journal for 3.30") as caught:
        await buy(store, payer, 3, cny("3.30"))
    assert (caught.value.money, caught.value.gateway) == ("not spent", "happyhorse")
    assert len(sandbox.ledger()) == 3
    assert len(await Journal(store).entries()) == 3
    await buy(store, payer, 3, cny("4.40"))
    assert await buy(store, payer, 0, cny("0.01")) == sandbox.ledger()[0].task_id


async def test_one_purse_sees_what_came_and_went(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """What others buy meanwhile counts, and what was forgotten does not."""
    payer = account(prices=(ONE,))
    journal = Journal(store)
    submitter = Submitter(store=store, tracker=BudgetTracker(cny("2.20"), journal))
    first = await submitter.submit(await prepare(horse(0), payer))
    await buy(store, payer, 1, cny("100"))
    with pytest.raises(BudgetExceeded):
        await submitter.submit(await prepare(horse(2), payer))
    await journal.forget(first.digest)
    await submitter.submit(await prepare(horse(2), payer))
    assert len(sandbox.ledger()) == 3


async def test_many_purses_at_once_never_go_over(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Of ten at the same moment, each with a tracker of its own, no more are bought than fit."""
    payer = account(prices=(ONE,))
    answers = await asyncio.gather(*(buy(store, payer, number, cny("3.30")) for number in range(10)), return_exceptions=True)
    assert {type(answer) for answer in answers} <= {str, BudgetExceeded}
    assert len(sandbox.ledger()) == len([answer for answer in answers if isinstance(answer, str)]) <= 3


async def test_one_purse_buys_what_fits_to_the_last_job(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Of ten at the same moment with one tracker, the three that come first are bought: none waits for one that comes later."""
    payer = account(prices=(ONE,))
    submitter = Submitter(store=store, tracker=BudgetTracker(cny("3.30"), Journal(store)))
    prepared = [await prepare(horse(number), payer) for number in range(10)]
    answers = await asyncio.gather(*(submitter.submit(one) for one in prepared), return_exceptions=True)
    assert len([answer for answer in answers if isinstance(answer, BudgetExceeded)]) == 7
    assert len(sandbox.ledger()) == len(await Journal(store).entries()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(3))
def test_processes_that_race_never_go_over(round_: int, sandbox: SandboxServer, store: Store, tmp_path: Path) -> None:
    """Two with ten jobs each and room for five: five at most are bought, and whoever comes after finds exactly the rest."""
    said = {"store": store.url, "base_url": sandbox.base_url("happyhorse"), "amount": "5.50", "price": ONE.model_dump(mode="json")}
    bought = race([said | {"numbers": list(range(10))}, said | {"numbers": list(range(10, 20))}], tmp_path)
    assert len(sandbox.ledger()) == len(asyncio.run(Journal(store).entries())) == sum(bought) <= 5
    assert race([said | {"numbers": list(range(20, 30))}], tmp_path) == [5 - sum(bought)]
    assert len(sandbox.ledger()) == 5


def race(shares: list[dict[str, Any]], folder: Path) -> list[int]:
    """Start a process for each share, let all go at the same moment, and say how many jobs each got."""
    with ExitStack() as running:
        buyers = [
            running.enter_context(
                subprocess.Popen([sys.executable, "-c", BUYER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)
            )
            for _ in shares
        ]
        for process in buyers:
            running.callback(process.kill)
        assert [process.stdout.readline() for process in buyers if process.stdout is not None] == ["ready\n"] * len(shares)
        for process, share in zip(buyers, shares, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(share) + "\n")
            process.stdin.flush()
        return [int(process.communicate(timeout=120)[0]) for process in buyers]


BUYER = """
import asyncio, json, sys
from decimal import Decimal
from pydantic import SecretStr
from prefect_happyhorse.domain.errors import BudgetExceeded
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.journal.budget import Budget, BudgetTracker
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.engine.jobs.submit import Submitter, prepare
from prefect_happyhorse.gateways import Account

async def main(said):
    store = Store(url=said["store"])
    account = Account(
        gateway="happyhorse", base_url=said["base_url"], key=SecretStr("sesame-1234"), prices=(Price.model_validate(said["price"]),)
    )
    submitter = Submitter(store=store, tracker=BudgetTracker(Budget(amount=said["amount"], currency="CNY"), Journal(store)))
    async def buy(number):
        prepared = await prepare(TextToImage(model="gpt-image-2", prompt=f"Horse {number}"), account)
        return await submitter.submit(prepared)
    answers = await asyncio.gather(*map(buy, said["numbers"]), return_exceptions=True)
    for answer in answers:
        if not isinstance(answer, (Job, BudgetExceeded)):
            raise answer
    print(sum(isinstance(answer, Job) for answer in answers))

print("ready", flush=True)
asyncio.run(main(json.loads(sys.stdin.readline())))
"""


async def test_what_has_no_price_is_not_bought(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Unknown is not nothing: neither for the job itself nor for one that stands in the journal."""
    with pytest.raises(BudgetExceeded, match="is unknown: no price of gpt-image-2 at happyhorse is known"):
        await buy(store, account(), 0, cny("100"))
    assert sandbox.ledger() == []
    await Submitter(store=store).submit(await prepare(horse(0), account()))
    with pytest.raises(BudgetExceeded, match="days"):
        await buy(store, account(prices=(ONE,)), 1, cny("100"))
    assert len(sandbox.ledger()) == 1


async def test_another_currency_is_not_added_up(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Yuan and dollars have no sum."""
    await buy(store, account(prices=(ONE,)), 0, cny("100"))
    with pytest.raises(BudgetExceeded, match="the budget is in USD"):
        await buy(store, account(prices=(ONE,)), 1, Budget(amount=Decimal(100), currency="USD"))


async def test_days_leave_out_what_is_older(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """A budget for a day knows nothing of the day before."""
    payer = account(prices=(ONE,))
    await buy(store, payer, 0, cny("1.10"))
    journal = Journal(store)
    (entry,) = await journal.entries()
    intent = entry.owner.model_copy(update={"at": entry.owner.at - timedelta(days=2)})
    await journal.write(entry.model_copy(update={"owner": intent}))
    with pytest.raises(BudgetExceeded):
        await buy(store, payer, 1, cny("1.10", days=3))
    await buy(store, payer, 1, cny("1.10", days=1))
    assert len(sandbox.ledger()) == 2


async def test_what_the_gateway_took_back_is_not_counted(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """A job that was cancelled before it began cost nothing."""
    sandbox.settings(job_s=3600)
    payer = account("infiflow", prices=(ONE,))
    submitter = Submitter(store=store, tracker=BudgetTracker(cny("1.10"), Journal(store)))
    job = await submitter.submit(await prepare(ride("infiflow"), payer))
    assert (await Session(payer, store).cancel(job)).accepted
    again = Submitter(store=store, tracker=BudgetTracker(cny("1.10"), Journal(store)))
    await again.submit(await prepare(ride("infiflow"), payer, take=2))


async def test_an_entry_that_cannot_be_read_may_be_money(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """It is told by its name, nothing is bought and the lease is released; once it is mended or gone, the same tracker goes on."""
    await store.write("journal/broken.json", b"{")
    submitter = Submitter(store=store, tracker=BudgetTracker(cny("100"), Journal(store)))
    prepared = await prepare(horse(0), account(prices=(ONE,)))
    for _ in range(2):
        with pytest.raises(BudgetExceeded, match=r"journal/broken.json cannot be read") as caught:
            await submitter.submit(prepared)
        assert caught.value.money == "not spent"
    assert sandbox.ledger() == []
    assert await store.list("journal") == ["broken.json"]
    await store.delete("journal/broken.json")
    await submitter.submit(prepared)
    assert len(sandbox.ledger()) == 1


def test_a_budget_is_money() -> None:
    """More than nothing, in a currency, and exact."""
    assert Budget.model_validate({"amount": 0.1, "currency": "CNY"}).amount == Decimal("0.1")
    assert str(cny("5", days=7)) == "5 CNY in 7 days"
    for wrong in (
        {"amount": 0, "currency": "CNY"},
        {"amount": 1, "currency": "yuan"},
        {"amount": 1, "currency": "CNY", "days": 0},
        {"amount": 1, "currency": "CNY", "days": 10**9},
    ):
        with pytest.raises(ValidationError):
            Budget.model_validate(wrong)


def intent(number: int, amount: str | None = "1", currency: str = "CNY", **more: Any) -> JournalEntry:
    """An intent whose job costs so much, or nobody knows how much."""
    known = Estimate(reason="nobody says") if amount is None else Estimate(amount=Decimal(amount), currency=currency, reason="")
    facts: dict[str, Any] = {"state": "intent", "gateway": "happyhorse", "account": "default", "take": 1, "owner": LeaseOwner()} | more
    return JournalEntry(digest=f"{number:064x}", request=horse(number), estimate=known, **facts)


async def claim_and_ask(tracker: BudgetTracker, journal: Journal, entry: JournalEntry) -> bool:
    """What a submitter does before it sends."""
    assert await journal.acquire(entry)
    try:
        await tracker.admit(entry)
    except BudgetExceeded:
        await journal.release(entry)
        return False
    return True


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each folder was listed and each file read."""
    counted: Counter[str] = Counter()
    read, list_ = Store.read, Store.list

    async def read_and_count(store: Store, path: str) -> bytes:
        counted[path] += 1
        return await read(store, path)

    async def list_and_count(store: Store, path: str) -> list[str]:
        counted[path] += 1
        return await list_(store, path)

    monkeypatch.setattr(Store, "read", read_and_count)
    monkeypatch.setattr(Store, "list", list_and_count)
    return counted


async def test_each_entry_is_read_once_and_looks_are_shared(store: Store, calls: Counter[str]) -> None:
    """Two hundred jobs at the same moment list the journal twice at most, and no entry is read a second time, one's own not at all."""
    journal = Journal(store)
    for number in range(50):
        await journal.acquire(intent(number))
    tracker = BudgetTracker(cny("1000"), journal)
    assert await claim_and_ask(tracker, journal, intent(50))
    mine = [intent(number) for number in range(100, 300)]
    for entry in mine:
        await journal.acquire(entry)
    calls.clear()
    await asyncio.gather(*(tracker.admit(entry) for entry in mine))
    assert calls["journal"] <= 2
    await journal.acquire(intent(60))
    assert await claim_and_ask(tracker, journal, intent(61))
    assert [path for path in calls if path.endswith(".json")] == [journal.path(intent(60).digest)]


async def test_what_was_cancelled_and_bought_again_counts(store: Store) -> None:
    """A tracker that once read that a job cost nothing learns that somebody else has bought it since."""
    journal = Journal(store)
    job = Job(
        gateway="happyhorse",
        account="default",
        capability="text_to_image",
        model="m",
        task_id="a",
        digest=intent(1).digest,
        submitted_at=NOW,
    )
    answer = Cancellation(accepted=True, message="")
    returned = await journal.write(intent(1, state="cancelled", job=job, cancellation=answer))
    tracker = BudgetTracker(cny("2"), journal)
    assert await claim_and_ask(tracker, journal, intent(2))
    again = await journal.take_over(returned, intent(1))
    assert again is not None
    await BudgetTracker(cny("2"), journal).admit(again)
    assert not await claim_and_ask(tracker, journal, intent(3))


async def test_every_job_of_a_request_counts(store: Store) -> None:
    """Where somebody chose to resubmit and both were taken, both are paid for; a cancelled one leaves the other."""
    journal = Journal(store)
    facts = {"gateway": "happyhorse", "account": "default", "capability": "text_to_image", "model": "m", "prompt": "", "submitted_at": NOW}
    jobs = [Job.model_validate(facts | {"task_id": name, "digest": intent(1).digest}) for name in "ab"]
    both = await journal.write(intent(1).with_job(jobs[0]).with_job(jobs[1]))
    assert not await claim_and_ask(BudgetTracker(cny("2"), journal), journal, intent(2))
    assert await claim_and_ask(BudgetTracker(cny("3"), journal), journal, intent(3))
    await journal.forget(intent(3).digest)
    await journal.write(both.becoming("cancelled", cancellation=Cancellation(accepted=True, message="")))
    assert await claim_and_ask(BudgetTracker(cny("2"), journal), journal, intent(4))
    assert not await claim_and_ask(BudgetTracker(cny("2"), journal), journal, intent(5))


class Held:
    """A store's reading of one file, which goes on when it is told to; `reached` once so many files are read, that one among them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str, *, files: int) -> None:
        self.read: set[str] = set()
        self.reached, self.goes_on = asyncio.Event(), asyncio.Event()
        read = Store.read

        async def read_and_wait(store: Store, path_: str) -> bytes:
            content = await read(store, path_)
            self.read.add(path_)
            if len(self.read) == files:
                self.reached.set()
            if path_ == path:
                await self.goes_on.wait()
            return content

        monkeypatch.setattr(Store, "read", read_and_wait)


async def test_a_second_try_that_is_refused_still_counts_the_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may have been charged before is not forgotten because the resubmit found no room, neither at once nor later."""
    journal = Journal(store)
    uncertain = await journal.write(intent(1, "2", state="uncertain"))
    dearer = await journal.take_over(uncertain, intent(1, "2.60"))
    assert dearer is not None
    first, last, rival = intent(2, "0.10"), intent(3, "0.50"), intent(4, "1")
    await journal.acquire(first)
    await journal.acquire(last)
    held = Held(monkeypatch, journal.path(dearer.digest), files=2)
    tracker = BudgetTracker(cny("3.50"), journal)
    asked_first = asyncio.create_task(tracker.admit(first))
    await held.reached.wait()
    # Two that come while the first one looks share the next look, which sees somebody else's lease.
    asked = asyncio.gather(tracker.admit(dearer), tracker.admit(last), return_exceptions=True)
    await journal.acquire(rival)
    held.goes_on.set()
    await asked_first
    assert [type(answer) for answer in await asked] == [BudgetExceeded, BudgetExceeded]
    await journal.reinstate(dearer, uncertain)
    await journal.release(last)
    assert await claim_and_ask(tracker, journal, intent(5, "0.40"))
    assert not await claim_and_ask(tracker, journal, intent(6, "0.01"))


async def test_a_second_try_that_waits_counts_what_it_took_the_place_of(store: Store) -> None:
    """Only a first intent is nothing but the job that waits; under a later one something may have been charged already."""
    journal = Journal(store)
    uncertain = await journal.write(intent(1, "2", state="uncertain"))
    again = await journal.take_over(uncertain, intent(1, "2"))
    assert again is not None
    before = intent(2)
    await journal.acquire(before)
    tracker = BudgetTracker(cny("2.50"), journal)
    answers = await asyncio.gather(tracker.admit(before), tracker.admit(again), return_exceptions=True)
    assert [type(answer) for answer in answers] == [BudgetExceeded, type(None)]


@pytest.mark.parametrize("held_number", [2, 3])
async def test_a_lease_that_is_seen_before_it_asks_waits_for_its_turn(
    held_number: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it begins to ask while its file is being read or after, it stands in nobody's way who came before."""
    journal = Journal(store)
    first, later, other = intent(1), intent(2), intent(3, "0")
    for entry in (first, later, other):
        await journal.acquire(entry)
    held = Held(monkeypatch, journal.path(intent(held_number).digest), files=2)
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
    unknown, called_off, wanted = intent(1, None), intent(2), intent(3)
    for entry in (unknown, called_off, wanted):
        await journal.acquire(entry)
    with pytest.raises(BudgetExceeded, match="is unknown: nobody says"):
        await tracker.admit(unknown)
    waiting = asyncio.create_task(tracker.admit(called_off))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await tracker.admit(wanted)
    assert await journal.digests() != [wanted.digest]


async def test_a_lease_that_is_somebody_elses_by_now_counts(store: Store) -> None:
    """What was refused here and released may be bought by another with more money."""
    journal = Journal(store)
    tracker = BudgetTracker(cny("1.50"), journal)
    assert await claim_and_ask(tracker, journal, intent(1))
    assert not await claim_and_ask(tracker, journal, intent(2))
    await journal.forget(intent(1).digest)
    assert await claim_and_ask(BudgetTracker(cny("9"), journal), journal, intent(2))
    assert not await claim_and_ask(tracker, journal, intent(3))


async def test_a_file_that_the_store_does_not_give_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own error may name no file; nothing is admitted, and the failure keeps its kind."""
    journal = Journal(store)
    await journal.acquire(intent(1))
    await journal.acquire(intent(2))
    read = Store.read

    async def refuse(store: Store, path: str) -> bytes:
        raise PermissionError(errno.EACCES, "not yours")

    monkeypatch.setattr(Store, "read", refuse)
    tracker = BudgetTracker(cny("9"), journal)
    with pytest.raises(PermissionError, match=rf"not yours.*{intent(1).digest}.json"):
        await tracker.admit(intent(2))
    monkeypatch.setattr(Store, "read", read)
    await tracker.admit(intent(2))


async def test_all_that_cannot_be_counted_is_told(store: Store) -> None:
    """The first by its name, and how many there are; what is in another currency is told as such."""
    journal = Journal(store)
    await journal.acquire(intent(1, None))
    await journal.acquire(intent(2, "1", "USD"))
    with pytest.raises(BudgetExceeded, match=r"cannot be kept\. That goes for 2 entries of the journal"):
        await BudgetTracker(cny("9"), journal).admit(intent(3))
    await journal.forget(intent(1).digest)
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
