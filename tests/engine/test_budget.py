"""A budget holds across runs and processes, and what cannot be counted is not bought."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from decimal import Decimal

import pytest
from pydantic import ValidationError

from prefect_happyhorse.domain.errors import BudgetExceeded, SubmissionUncertain
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.budget import Budget, Purse
from prefect_happyhorse.engine.jobs import cancel
from prefect_happyhorse.engine.journal import Journal
from prefect_happyhorse.engine.store import Store
from prefect_happyhorse.engine.submit import Submitter, prepare
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.sandbox import SandboxServer

from .conftest import AccountMaker
from .test_submit import ride

ONE = Price(model="*", per="job", amount=Decimal("1.10"), currency="CNY", dated=date(2026, 11, 1))


def horse(number: int) -> TextToImage:
    return TextToImage(model="gpt-image-2", prompt=f"Horse {number}")


async def buy(store: Store, account: Account, number: int, budget: Budget) -> str:
    """Buy with a purse of its own, as another process would."""
    purse = Purse(budget, Journal(store))
    return (await Submitter(store=store, purse=purse).submit(await prepare(horse(number), account))).task_id


def cny(amount: str, days: int | None = None) -> Budget:
    return Budget(amount=Decimal(amount), currency="CNY", days=days)


async def test_what_would_pass_the_budget_is_not_bought(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Exactly what fits is bought, run after run; the refusal says what is spent, and leaves no claim."""
    payer = account(prices=(ONE,))
    for number in range(3):
        await buy(store, payer, number, cny("3.30"))
    with pytest.raises(BudgetExceeded, match=r"1.10 CNY would pass the budget of 3.30 CNY: 3 jobs have spent 3.30 CNY") as caught:
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
    submitter = Submitter(store=store, purse=Purse(cny("2.20"), journal))
    first = await submitter.submit(await prepare(horse(0), payer))
    await buy(store, payer, 1, cny("100"))
    with pytest.raises(BudgetExceeded):
        await submitter.submit(await prepare(horse(2), payer))
    await journal.forget(first.digest)
    await submitter.submit(await prepare(horse(2), payer))
    assert len(sandbox.ledger()) == 3


async def test_many_at_once_never_go_over(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Of ten at the same moment, each with a purse of its own, no more are bought than fit."""
    payer = account(prices=(ONE,))
    answers = await asyncio.gather(*(buy(store, payer, number, cny("3.30")) for number in range(10)), return_exceptions=True)
    assert {type(answer) for answer in answers} <= {str, BudgetExceeded}
    assert len(sandbox.ledger()) == len([answer for answer in answers if isinstance(answer, str)]) <= 3


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
    intent = entry.intent.model_copy(update={"at": entry.intent.at - timedelta(days=2)})
    await journal.write(entry.model_copy(update={"intent": intent}))
    with pytest.raises(BudgetExceeded):
        await buy(store, payer, 1, cny("1.10", days=3))
    await buy(store, payer, 1, cny("1.10", days=1))
    assert len(sandbox.ledger()) == 2


async def test_what_the_gateway_took_back_is_not_counted(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """A job that was cancelled before it began cost nothing."""
    sandbox.settings(job_s=3600)
    payer = account("infiflow", prices=(ONE,))
    submitter = Submitter(store=store, purse=Purse(cny("1.10"), Journal(store)))
    job = await submitter.submit(await prepare(ride("infiflow"), payer))
    assert (await cancel(Journal(store), job, payer)).accepted
    again = Submitter(store=store, purse=Purse(cny("1.10"), Journal(store)))
    await again.submit(await prepare(ride("infiflow"), payer, take=2))


async def test_an_entry_that_cannot_be_read_may_be_money(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """It is told, and nothing is bought; the claim is given back."""
    await store.write("journal/broken.json", b"{")
    with pytest.raises(SubmissionUncertain, match="cannot be read"):
        await buy(store, account(prices=(ONE,)), 0, cny("100"))
    assert sandbox.ledger() == []
    assert await store.list("journal") == ["broken.json"]


def test_a_budget_is_money() -> None:
    """More than nothing, in a currency, and exact."""
    assert Budget.model_validate({"amount": 0.1, "currency": "CNY"}).amount == Decimal("0.1")
    assert str(cny("5", days=7)) == "5 CNY in 7 days"
    for wrong in ({"amount": 0, "currency": "CNY"}, {"amount": 1, "currency": "yuan"}, {"amount": 1, "currency": "CNY", "days": 0}):
        with pytest.raises(ValidationError):
            Budget.model_validate(wrong)
