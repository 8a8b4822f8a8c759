"""The journal: what was bought, one readable JSON file per request digest, beside the outputs. It is the truth about money."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import GenerationError, JobExpired, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job, JobResult
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.engine.store import Store

__all__ = ["Claimant", "Failure", "Journal", "JournalEntry", "JournalState"]

JournalState = Literal["intent", "submitted", "succeeded", "kept", "failed", "expired", "canceled"]


def _now() -> datetime:
    return datetime.now(timezone.utc)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Claimant(_Record):
    """Who set out to submit: enough to tell whether it can still be at work."""

    host: str = Field(default_factory=socket.gethostname)
    process: int = Field(default_factory=os.getpid)
    at: datetime = Field(default_factory=_now)

    def gone(self, *, after_s: float, now: datetime) -> bool:
        """Whether the claimant can no longer be sending its submit.

        Args:
            after_s: Seconds after which no submit can still be under way.
            now: The present.
        """
        if (now - self.at).total_seconds() > after_s:
            return True
        return self.host == socket.gethostname() and self.process != os.getpid() and not _alive(self.process)


def _alive(process: int) -> bool:
    if os.name == "nt":
        # There, signal 0 is no question but Ctrl-C.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class Failure(_Record):
    """How a job ended without a result."""

    message: str
    code: str | None = None
    provider_status: str | None = None
    at: datetime = Field(default_factory=_now)


class JournalEntry(_Record):
    """All that is known of one request digest."""

    version: Literal[1] = 1
    digest: str
    state: JournalState
    gateway: str
    account: str
    take: int
    request: GenerationRequest
    intent: Claimant
    job: Job | None = None
    result: JobResult | None = None
    asset: MediaAsset | None = None
    failure: Failure | None = None
    updated_at: datetime = Field(default_factory=_now)

    def becoming(self, state: JournalState, **facts: object) -> JournalEntry:
        """The entry in a new state.

        Args:
            state: The new state.
            facts: What is newly known.
        """
        return self.model_copy(update={"state": state, "updated_at": _now(), **facts})


class Journal:
    """The journal of a store.

    Args:
        store: Where the outputs lie; the journal is its folder `journal`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def path(self, digest: str) -> str:
        """Where the entry of a digest lies in the store.

        Args:
            digest: The request digest.
        """
        return f"journal/{digest}.json"

    async def read(self, digest: str) -> JournalEntry | None:
        """The entry of a digest, or None when nothing was ever set out to be bought under it.

        Args:
            digest: The request digest.

        Raises:
            SubmissionUncertain: When there is an entry but it cannot be read: it may stand for a paid job.
        """
        try:
            content = await self.store.read(self.path(digest))
        except FileNotFoundError:
            return None
        try:
            return JournalEntry.model_validate_json(content)
        except ValidationError as error:
            raise SubmissionUncertain(
                f"The journal entry {self.store.uri(self.path(digest))} cannot be read: {error.error_count()} problems.",
                digest=digest,
                advice="Mend the file, or move it away if you know that nothing was bought under it.",
            ) from error

    async def claim(self, entry: JournalEntry) -> bool:
        """Set out to submit: write the intent, unless somebody else has.

        Args:
            entry: The entry, in the state "intent".

        Returns:
            True when this call wrote it, so that its caller alone may submit.
        """
        return await self.store.create(self.path(entry.digest), _bytes(entry))

    async def write(self, entry: JournalEntry) -> JournalEntry:
        """Replace the entry of a digest.

        Args:
            entry: The entry.

        Returns:
            The entry.
        """
        await self.store.write(self.path(entry.digest), _bytes(entry))
        return entry

    async def record(self, digest: str, state: JournalState, facts: Mapping[str, Any]) -> JournalEntry | None:
        """Add what is newly known to the entry as it is now, so that what another run wrote meanwhile is kept.

        Args:
            digest: The request digest.
            state: The new state.
            facts: What is newly known.

        Returns:
            The entry, or None when there is none, as for a job that was bought without this journal.
        """
        entry = await self.read(digest)
        return None if entry is None else await self.write(entry.becoming(state, **facts))

    async def forget(self, digest: str) -> None:
        """Remove the entry of a digest, so that the same request would be bought anew.

        Args:
            digest: The request digest.
        """
        await self.store.delete(self.path(digest))

    async def entries(self) -> list[JournalEntry]:
        """Every entry, oldest first.

        Raises:
            SubmissionUncertain: When an entry cannot be read.
        """
        names = await self.store.list("journal")
        found = [entry for name in names if name.endswith(".json") and (entry := await self.read(name.removesuffix(".json")))]
        return sorted(found, key=lambda entry: entry.intent.at)

    async def known_failure(self, error: GenerationError, digest: str) -> None:
        """Keep how a job ended without a result.

        Args:
            error: The failure.
            digest: The request digest.
        """
        state: JournalState = "expired" if isinstance(error, JobExpired) else "failed"
        await self.record(digest, state, {"failure": Failure(message=error.message, code=error.code)})


def _bytes(entry: JournalEntry) -> bytes:
    return (entry.model_dump_json(indent=2, exclude_none=True) + "\n").encode()
