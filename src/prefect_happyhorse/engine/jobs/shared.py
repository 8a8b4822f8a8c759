"""What the sessions of a process share, whatever their event loop and thread: mapped tasks have one of each."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio

from prefect_happyhorse.catalog import Route, gateway_facts
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.http.connections import Connections
from prefect_happyhorse.engine.http.rate_limit import RateLimiter
from prefect_happyhorse.engine.jobs.durations import Durations
from prefect_happyhorse.engine.journal.budget import Budget, BudgetTracker
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.storage.paths import safe
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account

__all__ = ["PROCESS", "Latest", "Shared"]

_Read = TypeVar("_Read")

# As many as anybody could want: the limiter finds out by refusals where the limit is.
_UNDOCUMENTED_PER_S = 500.0
_UNDOCUMENTED_BURST = 1000
_REMEMBERED = 10_000

# As many as there are slots for calls: a submit that waits for one is in doubt too once its process is killed.
_SUBMITS = 16


class Latest(Generic[_Read]):
    """What takes long to read, read once for all who ask for it at the same time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._read: tuple[float, _Read] | None = None

    async def get(self, read: Callable[[], Awaitable[_Read]], *, once: bool = False) -> _Read:
        """What `read` gives, by a reading that was begun after this was called, or, of what never changes, by the first."""
        asked_at = time.monotonic()
        async with self._lock:
            if self._read is None or (self._read[0] <= asked_at and not once):
                begun_at = time.monotonic()
                self._read = begun_at, await read()
            return self._read[1]


class Shared:
    """HTTP clients by event loop, rate limiters by account, durations by account and route, budget trackers by store."""

    def __init__(self) -> None:
        self.connections = Connections()
        self._lock = threading.Lock()
        self._limiters: dict[tuple[str, ...], RateLimiter] = {}
        self._submit_slots = WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, ...], asyncio.Semaphore]]()
        self._durations: dict[tuple[str, str], Durations] = {}
        self._remembered: OrderedDict[tuple[str, str], JournalEntry] = OrderedDict()
        self._proved: set[str] = set()
        self._poll_paths: dict[tuple[str, str], str] = {}
        self._latest = WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, ...], Latest[Any]]]()
        self._trackers: dict[tuple[str, Budget], BudgetTracker] = {}

    def limiter(self, account: Account, *, per_s: float | None) -> RateLimiter:
        """The limiter of all polls of an account; where no limit is documented, one that is wide until a call is refused."""
        key = (account.gateway, account.label, account.base_url)
        wide = {"per_s": _UNDOCUMENTED_PER_S, "burst": _UNDOCUMENTED_BURST}
        return self._limiter(key, **(wide if per_s is None else {"per_s": per_s}))

    def submit_slots(self, account: Account, route: Route) -> asyncio.Semaphore:
        """The slots for an account's submits of a model on this event loop: no more are in doubt once it is killed."""
        with self._lock:
            slots = self._submit_slots.setdefault(asyncio.get_running_loop(), {})
            return slots.setdefault((account.gateway, account.label, account.base_url, route.model), asyncio.Semaphore(_SUBMITS))

    def submit_limiter(self, account: Account, route: Route) -> RateLimiter | None:
        """The limiter of an account's submits of a model, or None where no limit is documented."""
        per_s = route.facts.submits_per_s
        return None if per_s is None else self._limiter((account.gateway, account.label, account.base_url, route.model), per_s=per_s)

    def _limiter(self, key: tuple[str, ...], **how: Any) -> RateLimiter:
        with self._lock:
            if key not in self._limiters:
                self._limiters[key] = RateLimiter(**how)
            return self._limiters[key]

    def poll_paths(self, account: Account, route: Route) -> list[str]:
        """The paths by which a job may be polled, the one that is known to be right alone: the account's own, else the catalog's."""
        known = account.poll_path or self._poll_paths.get((account.gateway, account.base_url))
        calls = [route.poll] if route.facts.alternative_poll is None else [route.poll, route.facts.alternative_poll]
        return [known] if known else [call.partition(" ")[2] for call in calls]

    def found_poll_path(self, account: Account, path: str) -> None:
        """Remember which of a gateway's poll paths is right, where its documents name more than one."""
        if gateway_facts(account.gateway).alternative_poll is not None:
            self._poll_paths[account.gateway, account.base_url] = path

    def durations(self, job: Job, route: Route, store: Store) -> Durations:
        """The durations of all jobs of an account on a route."""
        return self._durations_at(f"{job.gateway}.{job.account}.{job.capability}.{job.model}", route, store)

    def durations_of(self, account: Account, route: Route, store: Store) -> Durations:
        """The same, where there is no job yet."""
        return self._durations_at(f"{account.gateway}.{account.label}.{route.capability}.{route.model}", route, store)

    def _durations_at(self, name: str, route: Route, store: Store) -> Durations:
        path = f"journal/durations/{safe(name)}.json"
        with self._lock:
            return self._durations.setdefault((store.url, path), Durations(path, typical_s=route.typical_s))

    def journal(self, store: Store, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> Journal:
        """The journal of a store, which knows what this process wrote to it last."""
        return Journal(store, sleep=sleep, remembered=self._remembered)

    def latest(self, *key: str) -> Latest[Any]:
        """What is read once for all who ask for the same on this event loop."""
        with self._lock:
            known = self._latest.setdefault(asyncio.get_running_loop(), {})
            if key not in known and len(known) >= _REMEMBERED:
                known.clear()
            return known.setdefault(key, Latest())

    async def prove(self, journal: Journal) -> None:
        """Try, once in a process, that a journal can keep two buyers apart, and that a job can be written down on this machine too."""
        place = f"{journal.store.url} {journal.spool}"
        if place in self._proved:
            return
        await journal.check_form()
        await journal.spool.check()
        await journal.store.prove(f"journal/proofs/{uuid.uuid4().hex}")
        self._proved.add(place)

    def tracker(self, budget: Budget, store: Store) -> BudgetTracker:
        """The tracker of a budget, which remembers what it has read of the journal."""
        with self._lock:
            return self._trackers.setdefault((store.url, budget), BudgetTracker(budget, self.journal(store)))


PROCESS = Shared()
"""The one of this process."""
