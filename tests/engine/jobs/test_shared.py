"""What the jobs of a process share."""

from __future__ import annotations

import asyncio
import threading

from tests.engine.conftest import AccountMaker

from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.storage.store import Store


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


def test_a_budget_is_tracked_once_in_an_event_loop(store: Store) -> None:
    """Equal budgets of one store share what is read of its journal; another loop, store or budget has its own."""

    async def tracker(amount: str = "1", place: Store = store) -> object:
        return PROCESS.tracker(Budget(amount=amount, currency="CNY"), place)

    async def several() -> list[object]:
        return [await tracker(), await tracker(), await tracker("2"), await tracker(place=Store("memory://elsewhere"))]

    first, second, *others = asyncio.run(several())
    assert first is second
    assert first not in [*others, asyncio.run(tracker())]
