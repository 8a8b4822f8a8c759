"""What the jobs of a process share."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal

from tests.engine.conftest import AccountMaker

from prefect_happyhorse.domain.errors import BudgetExceeded
from prefect_happyhorse.domain.prices import Price
from prefect_happyhorse.domain.requests import TextToImage
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import PROCESS, Shared
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.sandbox import SandboxServer


def test_all_jobs_of_an_account_share_a_limiter(account: AccountMaker) -> None:
    """And no other account's jobs do."""
    one = PROCESS.limiter(account("ttapi"), per_s=20)
    assert PROCESS.limiter(account("ttapi"), per_s=20) is one
    assert PROCESS.limiter(account("ttapi", label="b"), per_s=20) is not one
    assert PROCESS.limiter(account("ttapi", base_url="https://elsewhere.example"), per_s=20) is not one
    assert PROCESS.limiter(account("uniall"), per_s=None) is not one


def test_two_sessions_of_one_account_share_it_over_stores_and_threads(account: AccountMaker, store: Store) -> None:
    """A limit is the account's: whichever store, thread and event loop a job has."""
    found = [Session(account(), place).shared.limiter(account(), per_s=1) for place in (store, Store("memory://elsewhere"))]
    thread = threading.Thread(target=lambda: found.append(Session(account(), store).shared.limiter(account(), per_s=1)))
    thread.start()
    thread.join()
    assert found[0] is found[1] is found[2]


def test_a_budget_is_tracked_once_in_a_process(store: Store) -> None:
    """Equal budgets of one store share what is read of its journal, whatever the event loop; another store or budget has its own."""

    async def tracker(amount: int = 1, place: Store = store) -> object:
        return PROCESS.tracker(Budget(amount=Decimal(amount), currency="CNY"), place)

    first, second = asyncio.run(tracker()), asyncio.run(tracker())
    assert first is second
    assert first not in [asyncio.run(tracker(2)), asyncio.run(tracker(place=Store("memory://elsewhere")))]


def test_what_fits_a_budget_is_bought_by_whatever_loop_asks(sandbox: SandboxServer, account: AccountMaker, store: Store) -> None:
    """Mapped tasks have a thread and an event loop each; a budget with room for four of eight jobs buys four."""
    price = Price(model="gpt-image-2", per="output", amount=Decimal(5), currency="CNY", dated=date(2026, 1, 1))
    begin = threading.Barrier(8)

    async def one(number: int) -> bool:
        session = Session(account(prices=(price,)), store, shared=process)
        prepared = await session.prepare(TextToImage(model="gpt-image-2", prompt=f"horse {number}"))
        begin.wait(60)
        try:
            await session.submit(prepared, budget=Budget(amount=Decimal(20), currency="CNY"))
        except BudgetExceeded:
            return False
        return True

    def run(number: int) -> bool:
        return asyncio.run(one(number))

    process = Shared()
    with ThreadPoolExecutor(8) as threads:
        bought = list(threads.map(run, range(8)))
    assert bought.count(True) == len(sandbox.ledger()) == 4
