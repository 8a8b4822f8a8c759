"""A lease: the right of one process to submit one request, renewed while it does, and released when nothing was bought."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio

from prefect_happyhorse.domain.errors import GenerationError, SubmissionUncertain
from prefect_happyhorse.engine.journal.files import lease_path
from prefect_happyhorse.engine.journal.journal import Failure, Journal, JournalEntry
from prefect_happyhorse.engine.journal.owner import HEARTBEAT_S, LEASE_TTL_S, SENDING_TTL_S, up_s

__all__ = ["Fence", "Lease", "LeaseLost", "Superseded", "sent_until_up_s", "wait_for_owner"]

Fence = Callable[[], Awaitable[None]]
"""Raises Superseded when the request may not be bought here any more."""

_LOOK_AGAIN_S = 0.2
_LOOK_AGAIN_AT_MOST_S = 2.0

_log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The lease may be another process's by now, and nothing was sent under it."""


class Superseded(Exception):
    """The request is to be bought at another gateway by now, and nothing was sent under the lease."""


class Lease:
    """A request that this process alone may submit.

    Args:
        intent: The entry under which it was acquired.
        before: What stood in its place.
        journal: Where it stands.
        fence: What must hold beside it at each send.
    """

    def __init__(self, intent: JournalEntry, before: JournalEntry | None, journal: Journal, fence: Fence | None = None) -> None:
        self.intent = intent
        self.before = before
        self.journal = journal
        self.fence = fence
        self.sent = False
        self._path = _renewals(intent)
        self._renewed_at = _now()
        self._renewals = 0

    def is_surely_held(self) -> bool:
        """Whether nobody can have taken the lease over: it was renewed within its life, by either clock."""
        return all(abs(now - then) <= SENDING_TTL_S for now, then in zip(_now(), self._renewed_at, strict=True))

    async def check(self) -> None:
        """Say just before a call is sent that the lease is surely still ours; LeaseLost when it may not be."""
        self.confirm()
        self.sent = False
        if await self.journal.revision(self.intent.digest) != self.intent.revision:
            raise LeaseLost(f"another process took over the lease of {self.intent.digest[:12]}")
        if self.fence is not None:
            await self.fence()
        # The look may have taken its time too.
        self.confirm()

    def confirm(self) -> None:
        """Say at the moment at which a call leaves that nobody can have taken the lease over since; LeaseLost when somebody may have."""
        self.sent = self.is_surely_held()
        if not self.sent:
            raise LeaseLost(f"the lease of {self.intent.digest[:12]} was not renewed for {SENDING_TTL_S:.0f} s")

    @asynccontextmanager
    async def heartbeat(self) -> AsyncGenerator[None]:
        """Renew the lease periodically while the submit is under way."""
        scope = anyio.CancelScope()
        renewing = asyncio.create_task(self._renew(scope))
        # Where the process itself is to end the intent may stand for good, and then the last renewal says until when it was sent.
        is_over = False
        try:
            yield
            is_over = True
        except Exception:
            is_over = True
            raise
        finally:
            scope.cancel()
            # Not awaited itself: where the event loop ends it was cancelled, and an answer that came must not be.
            await asyncio.wait({renewing})
            if self._renewals and is_over:
                with suppress(OSError):
                    await self.journal.store.delete(self._path)

    async def _renew(self, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                await anyio.sleep(HEARTBEAT_S)
                # Whoever waits may have heard the silence out by now.
                if not self.is_surely_held():
                    return
                # A write that is given up goes on in its thread, and would come after the file is deleted.
                with anyio.CancelScope(shield=True):
                    await self._renew_once()

    async def _renew_once(self) -> None:
        now = _now()
        self._renewals += 1
        try:
            await self.journal.store.write(self._path, f"{self._renewals} {self.intent.owner.claim} {up_s():.3f}\n".encode())
        except OSError as error:
            _log.warning("The lease of %s could not be renewed: %s", self.intent.digest[:12], error)
        else:
            self._renewed_at = now

    async def release(self) -> None:
        """Certainly nothing was bought: let the request be bought anew."""
        try:
            await self.journal.release(self.intent, self.before)
        except (OSError, GenerationError) as error:
            # The refusal is what the caller has to hear; the lease that is left only makes the next run ask a person.
            _log.warning("The lease of %s could not be released: %s", self.intent.digest[:12], error)

    async def give_up(self, error: GenerationError) -> None:
        """Write down that nobody knows whether the submit was accepted, and why."""
        failure = Failure(message=error.message, code=error.code, task_id=error.task_id, up_s=up_s())
        try:
            await self.journal.give_up(self.intent, failure)
        except (OSError, GenerationError) as problem:
            # The intent stands, and means the same; but who resubmits would find no word of a job that the answer named.
            name = self.intent.digest[:12]
            adopt = "" if error.task_id is None else f" Its answer named a job: happyhorse jobs adopt {error.task_id} {name}"
            _log.log(logging.ERROR if adopt else logging.WARNING, "Could not write down that %s is uncertain: %s.%s", name, problem, adopt)


def _now() -> tuple[float, float]:
    """By a clock that only ever grows, but may stand still while the machine sleeps; and by one that goes on then, but may jump."""
    return time.monotonic(), time.time()


async def wait_for_owner(entry: JournalEntry, journal: Journal, sleep: Callable[[float], Awaitable[None]]) -> bool:
    """Wait for the owner of a lease: True once it is taken to be gone, False once the entry has changed.

    Clocks differ and jump, so that silence counts as it is heard here; and a process of this machine that lives is never gone.
    """
    silent_s = 0.0
    heard: bytes | None = None
    while (lives := entry.owner.lives()) is not False:
        if silent_s > LEASE_TTL_S:
            if lives is None:
                return True
            # One of this process is silent where its event loop was stopped and never closed.
            raise SubmissionUncertain(
                f"The submit was begun by {entry.owner}, which is still alive and was silent for {LEASE_TTL_S:.0f} s.",
                digest=entry.digest,
                advice="Nothing was sent just now. Wait for that process or end it, then run again.",
            )
        pause_s = min(_LOOK_AGAIN_S + silent_s / 10, _LOOK_AGAIN_AT_MOST_S)
        await sleep(pause_s)
        if await journal.revision(entry.digest) != entry.revision:
            return False
        said = await _last_renewal(entry, journal)
        silent_s = silent_s + pause_s if said == heard else 0.0
        heard = said
    # It may have finished between the last look and its end.
    return await journal.revision(entry.digest) == entry.revision


async def sent_until_up_s(entry: JournalEntry, journal: Journal) -> float | None:
    """Until when the owner of an intent, which has ended, may have sent its submit, as its `up_s`; None where that is not known."""
    if entry.failure is not None:
        return entry.failure.up_s
    if entry.owner.up_s is None:
        return None
    said = await _last_renewal(entry, journal)
    try:
        renewed_up_s = entry.owner.up_s if said is None else float(said.split()[-1])
    except (ValueError, IndexError):
        return None
    # What is no time of this machine's since the submit was begun was not written by its owner.
    return renewed_up_s + SENDING_TTL_S if entry.owner.up_s <= renewed_up_s <= up_s() else None


async def _last_renewal(entry: JournalEntry, journal: Journal) -> bytes | None:
    try:
        return await journal.store.read(_renewals(entry))
    except FileNotFoundError:
        return None


def _renewals(entry: JournalEntry) -> str:
    return lease_path(entry.digest, entry.revision)
