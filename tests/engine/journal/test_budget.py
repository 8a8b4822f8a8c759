"""A budget holds across runs and processes, and what cannot be counted is not bought."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.engine.conftest import AccountMaker
from tests.engine.jobs.test_submit import ride

from prefect_happyhorse.domain.errors import BudgetExceeded, SubmissionUncertain
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import Submitter
from prefect_happyhorse.engine.journal.budget import Budget, BudgetTracker
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

ONE = Price(model="*", per="job", amount=Decimal("1.10"), currency="CNY", dated=date(2026, 11, 1))


def horse(number: int) -> TextToImage:
    return TextToImage(model="gpt-image-2", prompt=f"Horse {number}")


async def buy(store: Store, account: Account, number: int, budget: Budget) -> str:
    """Buy with a tracker of its own, as another process would."""
    tracker = BudgetTracker(budget, Journal(store))
    return (await Submitter(store=store, tracker=tracker).submit(await prepare(horse(number), account))).task_id


def cny(amount: str, days: int | None = None) -> Budget:
    return Budget(amount=Decimal(amount), currency="CNY", days=days)


async def states(store: Store) -> list[str]:
    """The states of all entries, oldest first."""
    listing = await Journal(store).entries()
    assert listing.unreadable == []
    return [entry.state for entry in listing.entries]


async def test_what_would_pass_the_budget_is_not_bought(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Exactly what fits is bought, run after run; the refusal says what is spent, and its lease is released."""
    payer = account(prices=(ONE,))
    for number in range(3):
        await buy(store, payer, number, cny("3.30"))
    with pytest.raises(BudgetExceeded, match=r"1.10 CNY would pass the budget of 3.30 CNY: 3 jobs stand in the journal for 3.30") as caught:
        await buy(store, payer, 3, cny("3.30"))
    assert (caught.value.money, caught.value.gateway) == ("not spent", "happyhorse")
    assert len(sandbox.ledger()) == 3
    assert await states(store) == ["submitted"] * 3 + ["released"]
    await buy(store, payer, 3, cny("4.40"))
    assert await buy(store, payer, 0, cny("0.01")) == sandbox.ledger()[0].task_id


async def test_the_makers_list_counts_only_where_the_budget_says_so(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """What a reseller asks nobody knows by it; a budget that does without refuses what another has bought by it too."""
    payer = account(gateway="infiflow")
    strict, loose = cny("100"), Budget(amount=Decimal(100), currency="CNY", makers_list=True)
    with pytest.raises(BudgetExceeded, match=r"by its maker's list alone \(.* CNY\).*makers_list=True"):
        await Submitter(store=store, tracker=BudgetTracker(strict, Journal(store))).submit(await prepare(ride("infiflow"), payer))
    assert sandbox.ledger() == []
    tracker = BudgetTracker(loose, Journal(store))
    await Submitter(store=store, tracker=tracker).submit(await prepare(ride("infiflow"), payer))
    with pytest.raises(BudgetExceeded, match=r"by its maker's list alone"):
        await buy(store, account(prices=(ONE,)), 1, strict)
    await buy(store, account(prices=(ONE,)), 1, loose)
    assert len(sandbox.ledger()) == 2


async def test_one_purse_sees_what_came_and_went(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """What others buy meanwhile counts, and a submit that was forgotten does not; a job that was forgotten is paid for all the same."""
    payer = account(prices=(ONE,))
    journal = Journal(store)
    submitter = Submitter(store=store, tracker=BudgetTracker(cny("2.20"), journal))
    first = await submitter.submit(await prepare(horse(0), payer))
    await buy(store, payer, 1, cny("100"))
    with pytest.raises(BudgetExceeded):
        await submitter.submit(await prepare(horse(2), payer))
    await journal.forget(await standing(journal, first.digest))
    with pytest.raises(BudgetExceeded, match=r"2 jobs stand in the journal for 2.20"):
        await submitter.submit(await prepare(horse(2), payer))
    submitter = Submitter(store=store, tracker=BudgetTracker(cny("3.30"), journal))
    sandbox.fault(at="submit", kind="drop_after")
    uncertain = await prepare(horse(3), payer)
    with pytest.raises(SubmissionUncertain):
        await submitter.submit(uncertain)
    with pytest.raises(BudgetExceeded, match=r"3 jobs stand in the journal for 3.30"):
        await submitter.submit(await prepare(horse(2), payer))
    await journal.forget(await standing(journal, uncertain.digest))
    await submitter.submit(await prepare(horse(2), payer))
    assert sorted(await states(store)) == ["forgotten", "forgotten", "submitted", "submitted", "submitted"]


async def standing(journal: Journal, digest: str) -> JournalEntry:
    entry = await journal.read(digest)
    assert entry is not None
    return entry


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
    assert len(sandbox.ledger()) == 3
    assert sorted(await states(store)) == ["released"] * 7 + ["submitted"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(3))
def test_processes_that_race_never_go_over(round_: int, sandbox: SandboxServer, store: Store, tmp_path: Path) -> None:
    """Two with ten jobs each and room for five: five at most are bought, and whoever comes after finds exactly the rest."""
    said = {"store": store.url, "base_url": sandbox.base_url("happyhorse"), "amount": "5.50", "price": ONE.model_dump(mode="json")}
    bought = race([said | {"numbers": list(range(10))}, said | {"numbers": list(range(10, 20))}], tmp_path)
    assert len(sandbox.ledger()) == sum(bought) <= 5
    assert sorted(asyncio.run(states(store))) == ["released"] * (20 - sum(bought)) + ["submitted"] * sum(bought)
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
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.engine.jobs.prepare import prepare
from prefect_happyhorse.engine.jobs.submit import Submitter
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
    (entry,) = (await journal.entries()).entries
    owner = entry.owner.model_copy(update={"at": entry.owner.at - timedelta(days=2)})
    assert await journal.create(entry.model_copy(update={"owner": owner})) is not None
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
    await store.write("journal/br/broken.1.json", b"{")
    submitter = Submitter(store=store, tracker=BudgetTracker(cny("100"), Journal(store)))
    prepared = await prepare(horse(0), account(prices=(ONE,)))
    for _ in range(2):
        with pytest.raises(BudgetExceeded, match=r"journal/br/broken\.1\.json cannot be read") as caught:
            await submitter.submit(prepared)
        assert caught.value.money == "not spent"
    assert sandbox.ledger() == []
    (entry,) = (await Journal(store).entries()).entries
    assert (entry.digest, entry.state) == (prepared.digest, "released")
    await store.delete("journal/br/broken.1.json")
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
