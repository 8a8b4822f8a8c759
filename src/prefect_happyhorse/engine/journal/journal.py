"""The journal: what was bought, one readable JSON file per request digest, beside the outputs. It is the truth about money."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timezone
from typing import Any, cast

import anyio
from pydantic import ValidationError

from prefect_happyhorse.domain.errors import GenerationError, JobExpired, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.journal.entry import OPEN_STATES, Cancellation, Failure, JournalEntry, JournalState
from prefect_happyhorse.engine.journal.owner import LeaseOwner
from prefect_happyhorse.engine.journal.spool import Spool
from prefect_happyhorse.engine.storage.store import Store

__all__ = ["OPEN_STATES", "Cancellation", "Failure", "Journal", "JournalEntry", "JournalState", "LeaseOwner"]

_PAUSES_S = (0.5, 2.0, 5.0)

_log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Journal:
    """The journal of a store.

    Args:
        store: Where the outputs lie; the journal is its folder `journal`.
        sleep: Waits for so many seconds.
    """

    def __init__(self, store: Store, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        self.store = store
        self._sleep = sleep
        self._spool = Spool(store.url)

    def path(self, digest: str) -> str:
        """Where the entry of a digest lies in the store."""
        return f"journal/{digest}.json"

    async def read(self, digest: str) -> JournalEntry | None:
        """The entry of a digest, or None when nothing was ever set out to be bought under it."""
        try:
            content = await self.store.read(self.path(digest))
        except FileNotFoundError:
            return None
        return self._parsed(self.store.uri(self.path(digest)), content)

    async def acquire(self, entry: JournalEntry) -> bool:
        """Acquire the lease of a request that is not in the journal: write the intent, unless another process has."""
        return await self.store.create(self.path(entry.digest), _bytes(entry))

    async def take_over(self, entry: JournalEntry, successor: JournalEntry) -> JournalEntry | None:
        """Take over the lease of an entry; of several who try at the same time, exactly one succeeds."""
        if not entry.may_become("intent"):
            raise ValueError(f"an entry that is {entry.state!r} cannot be bought again")
        epoch = entry.owner.epoch
        while True:
            epoch += 1
            mine = successor.owner.model_copy(update={"epoch": epoch})
            path = f"journal/leases/{entry.digest}.{epoch}.json"
            if await self.store.create(path, mine.model_dump_json().encode()):
                return await self.write(successor.model_copy(update={"owner": mine, "duplicate_jobs": entry.duplicate_jobs}))
            rival = LeaseOwner.model_validate_json(await self.store.read(path))
            latest = await self.read(entry.digest)
            if not rival.expired(_now()) or latest is None or latest.owner.epoch >= epoch:
                return None

    async def renew(self, entry: JournalEntry) -> bool:
        """Renew the lease of an intent; False when another process has taken it over."""
        latest = await self.read(entry.digest)
        if latest is None or not latest.owner.same(entry.owner):
            return False
        await self.write(latest.model_copy(update={"owner": latest.owner.renewed()}))
        return True

    async def release(self, entry: JournalEntry) -> None:
        """Remove an intent under which certainly nothing was bought, unless it is somebody else's by now."""
        latest = await self.read(entry.digest)
        if latest is not None and latest.job is None and latest.owner.same(entry.owner):
            await self._remove(latest)

    async def reinstate(self, entry: JournalEntry, instead: JournalEntry) -> None:
        """Write an entry in place of an intent, unless that is somebody else's by now."""
        latest = await self.read(entry.digest)
        if latest is not None and latest.job is None and latest.owner.same(entry.owner):
            # The epoch stays: a number that was once taken is never free again.
            await self.write(instead.model_copy(update={"owner": instead.owner.model_copy(update={"epoch": latest.owner.epoch})}))

    async def write_job_down(self, entry: JournalEntry, job: Job) -> Job:
        """Write down a job that was just accepted: it is not lost while anything can be written anywhere."""
        for pause_s in (*_PAUSES_S, None):
            try:
                written = await self.write((await self.read(job.digest) or entry).with_job(job))
            except OSError as error:
                if pause_s is None:
                    await self._spool.put(entry.with_job(job).model_dump_json())
                    _log.warning(
                        "The store cannot be written (%s): job %s of %s stands in %s until it can.",
                        error,
                        job.task_id,
                        job.gateway,
                        self._spool,
                    )
                    return job
                await self._sleep(pause_s)
            else:
                return written.job or job
        raise AssertionError("unreachable: the last try returns or raises")

    async def restore(self, digest: str) -> JournalEntry | None:
        """Bring a job into the journal that could only be written to this machine's own folder."""
        kept = await self._spool.get(digest)
        if kept is None:
            return None
        entry = self._parsed(f"{self._spool}/{digest}.json", kept)
        latest = await self.read(digest) or entry
        written = await self.write(latest if entry.job is None else latest.with_job(entry.job))
        await self._spool.remove(digest)
        return written

    async def write(self, entry: JournalEntry) -> JournalEntry:
        """Replace the entry of a digest."""
        await self.store.write(self.path(entry.digest), _bytes(entry))
        return entry

    async def record(self, job: Job, state: JournalState, facts: Mapping[str, Any]) -> JournalEntry | None:
        """Add what is newly known of a job to the entry as it is now, so that what another run wrote meanwhile is kept."""
        entry = await self.read(job.digest)
        if entry is None or entry.job is None:
            entry = await self.restore(job.digest) or entry
        if entry is not None and entry.job is None:
            # It was accepted while nothing could be written anywhere, and is paid for all the same.
            entry = entry.with_job(job)
        if entry is None or entry.job is None or entry.job.task_id != job.task_id:
            return None
        if not entry.may_become(state):
            # Another run was faster. A file that is kept is no less kept because a slower one only now sees the job finished.
            return entry
        return await self.write(entry.becoming(state, job=job, **facts))

    async def forget(self, digest: str) -> None:
        """Remove the entry of a digest, so that the same request would be bought anew."""
        entry = await self.read(digest)
        await self._spool.remove(digest)
        if entry is not None:
            await self._remove(entry)

    async def _remove(self, entry: JournalEntry) -> None:
        # The leases first: were the entry removed and they not, the next take-over would find its epoch taken.
        for epoch in range(2, entry.owner.epoch + 1):
            await self.store.delete(f"journal/leases/{entry.digest}.{epoch}.json")
        await self.store.delete(self.path(entry.digest))

    async def digests(self) -> list[str]:
        """The digest of every entry, in no order that means anything."""
        return [name.removesuffix(".json") for name in await self.store.list("journal") if name.endswith(".json")]

    async def entries(self) -> list[JournalEntry]:
        """Every entry, oldest first."""
        for digest in await self._spool.digests():
            await self.restore(digest)
        paths = [self.path(digest) for digest in await self.digests()]
        found = [self._parsed(self.store.uri(path), content) async for path, content in self.store.read_all(paths)]
        return sorted(found, key=lambda entry: (entry.owner.at, entry.digest))

    def _parsed(self, file: str, content: bytes | str) -> JournalEntry:
        try:
            return JournalEntry.model_validate_json(content)
        except ValidationError as error:
            if _is_of_version_1(content):
                problem = "was written by an unreleased version of this package, in a form that is read no more"
            else:
                problem = f"cannot be read: {error.error_count()} problems"
            raise SubmissionUncertain(
                f"The journal entry {file} {problem}.",
                digest=file.rpartition("/")[2].removesuffix(".json"),
                advice="Mend the file, or move it away if you know that nothing was bought under it.",
            ) from error

    async def known_failure(self, error: GenerationError, job: Job) -> None:
        """Keep how a job ended without a result."""
        entry = await self.read(job.digest)
        if entry is not None and entry.state == "cancelled":
            # That the gateway now calls it ended is no news.
            return
        state: JournalState = "expired" if isinstance(error, JobExpired) else "failed"
        await self.record(job, state, {"failure": Failure(message=error.message, code=error.code)})


def _bytes(entry: JournalEntry) -> bytes:
    # A copy is not checked when it is made, so every entry is once more before it is written.
    entry = JournalEntry.model_validate(dict(entry))
    return (entry.model_dump_json(indent=2, exclude_none=True) + "\n").encode()


def _is_of_version_1(content: bytes | str) -> bool:
    try:
        data = json.loads(content)
    except ValueError:
        return False
    return isinstance(data, dict) and cast("dict[str, object]", data).get("version") == 1
