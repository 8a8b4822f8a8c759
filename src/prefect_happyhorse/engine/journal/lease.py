"""A lease: the right of one process to submit one request, renewed while it does, and released when nothing was bought."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from prefect_happyhorse.domain.errors import GenerationError
from prefect_happyhorse.engine.journal.journal import Failure, Journal, JournalEntry
from prefect_happyhorse.engine.journal.owner import HEARTBEAT_S

__all__ = ["Lease"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """A request that this process alone may submit.

    Args:
        entry: The intent.
        before: What stood in its place: an uncertain submit that was chosen to be sent again, or a cancelled job.
        journal: Where it stands.
    """

    entry: JournalEntry
    before: JournalEntry | None
    journal: Journal

    @asynccontextmanager
    async def heartbeat(self) -> AsyncGenerator[None]:
        """Renew the lease periodically while the submit is under way."""
        over = asyncio.Event()
        renewing = asyncio.create_task(self._renew_until(over))
        try:
            yield
        finally:
            over.set()
            # Waited for rather than cancelled: a late heartbeat must not land on top of the job.
            await renewing

    async def _renew_until(self, over: asyncio.Event) -> None:
        while True:
            with anyio.move_on_after(HEARTBEAT_S):
                await over.wait()
            if over.is_set():
                return
            try:
                if not await self.journal.renew(self.entry):
                    _log.warning("Another process took over the lease of %s, which is still being submitted here.", self.entry.digest[:12])
                    return
            except (OSError, GenerationError) as error:
                _log.warning("The lease of %s could not be renewed: %s", self.entry.digest[:12], error)

    async def undo(self) -> None:
        """Certainly nothing was bought: leave the journal as it was before the lease."""
        try:
            if self.before is None:
                await self.journal.release(self.entry)
            else:
                await self.journal.reinstate(self.entry, self.before)
        except OSError as error:
            # The refusal is what the caller has to hear; the lease that is left only makes the next run ask a person.
            _log.warning("The lease of %s could not be released: %s", self.entry.digest[:12], error)

    async def is_uncertain(self, error: GenerationError) -> None:
        """Write down that nobody knows whether the submit was accepted, and why."""
        failure = Failure(message=error.message, code=error.code)
        try:
            await self.journal.reinstate(self.entry, self.entry.becoming("uncertain", failure=failure))
        except OSError as problem:
            # The intent stands, and means the same.
            _log.warning("Could not write down that %s is uncertain: %s", self.entry.digest[:12], problem)
