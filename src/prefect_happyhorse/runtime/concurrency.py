"""Limits that all workers of an account share: how many jobs are open at once, and how many calls are made a second.

Both are Prefect's own global concurrency limits, made by `happyhorse setup limits`. Where there are none, everything works without them.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.concurrency.asyncio import concurrency, rate_limit
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ObjectNotFound

from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.gateways import Account

__all__ = ["call_rate_limit", "calls_limit", "job_slot", "jobs_limit", "keeping_slot", "save_limits", "submit_slot"]

_LOOK_EVERY_S = 60.0

_log = logging.getLogger(__name__)
_SEEN: dict[str, tuple[float, bool]] = {}
"""For each limit when it was looked up, and whether it was there. Threads that look at once cost a call more, and nothing else."""

_HOLDS_SLOT: ContextVar[bool] = ContextVar("_HOLDS_SLOT", default=False)
_KEEPER: ContextVar[AsyncExitStack | None] = ContextVar("_KEEPER", default=None)


def jobs_limit(gateway: str, account: str) -> str:
    """Name of the limit on open jobs of an account.

    Example:
        >>> jobs_limit("infiflow", "film")
        'happyhorse-infiflow-film-jobs'
    """
    return f"happyhorse-{gateway}-{_plain(account)}-jobs"


def calls_limit(gateway: str, account: str) -> str:
    """Name of the limit on calls a second of an account.

    Example:
        >>> calls_limit("infiflow", "film")
        'happyhorse-infiflow-film-calls'
    """
    return f"happyhorse-{gateway}-{_plain(account)}-calls"


def _plain(account: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", account).strip("-")


async def _there_is(name: str) -> bool:
    """Whether there is such a limit: asking for one that is missing costs a call and a warning each time, so it is looked up seldom."""
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return False
    at, there = _SEEN.get(name, (float("-inf"), False))
    if time.monotonic() - at < _LOOK_EVERY_S:
        return there
    if name in _SEEN:
        # While it is looked up again what was known counts; of a limit that was never looked up nothing is known, so all wait for that.
        _SEEN[name] = (time.monotonic(), there)

    async def look() -> bool:
        is_there = there
        try:
            async with get_client() as client:
                is_there = (await client.read_global_concurrency_limit_by_name(name)).active
        except ObjectNotFound:
            is_there = False
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            _log.debug("The limit %s could not be looked up: %s", name, error)
        _SEEN[name] = (time.monotonic(), is_there)
        return is_there

    return await PROCESS.latest("limit", name).get(look)


@asynccontextmanager
async def job_slot(account: Account) -> AsyncGenerator[None]:
    """Hold one of the account's slots for open jobs, where there is such a limit; steps inside hold no second one."""
    name = jobs_limit(account.gateway, account.label)
    if _HOLDS_SLOT.get() or not await _there_is(name):
        yield
        return
    # A lease that could not be renewed for a moment is no reason to give up a job that is paid for.
    async with concurrency(name, raise_on_lease_renewal_failure=False):
        token = _HOLDS_SLOT.set(True)
        try:
            yield
        finally:
            _HOLDS_SLOT.reset(token)


@asynccontextmanager
async def keeping_slot() -> AsyncGenerator[None]:
    """Keep in here the slot that a job is submitted with: of a pool nobody knows before which account's it is."""
    async with AsyncExitStack() as kept:
        token = _KEEPER.set(kept)
        try:
            yield
        finally:
            _KEEPER.reset(token)


@asynccontextmanager
async def submit_slot(account: Account) -> AsyncGenerator[None]:
    """Hold one of the account's slots as `job_slot` does, and once the job is submitted until the end of `keeping_slot`."""
    async with AsyncExitStack() as held:
        await held.enter_async_context(job_slot(account))
        yield
        if (keeper := _KEEPER.get()) is not None:
            keeper.push_async_exit(held.pop_all())


def call_rate_limit(account: Account) -> Callable[[], Awaitable[None]]:
    """What waits until the account's limit on calls lets one through; at once where there is no such limit."""
    name = calls_limit(account.gateway, account.label)

    async def wait() -> None:
        if await _there_is(name):
            await rate_limit(name)

    return wait


async def save_limits(gateway: str, account: str, *, jobs: int | None, calls_per_s: float | None) -> list[str]:
    """Make or change the limits of an account on the Prefect server."""
    wanted: list[tuple[str, int, float]] = []
    if jobs is not None:
        wanted.append((jobs_limit(gateway, account), jobs, 0.0))
    if calls_per_s is not None:
        wanted.append((calls_limit(gateway, account), max(1, int(calls_per_s)), calls_per_s))
    async with get_client() as client:
        for name, limit, decay in wanted:
            await client.upsert_global_concurrency_limit_by_name(name, limit)
            await client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(slot_decay_per_second=decay, active=True))
    _SEEN.clear()
    return [name for name, _, _ in wanted]
