"""The journal: what was bought, one readable JSON file per request digest, beside the outputs. It is the truth about money.

A file is never written over. Each change creates `journal/<first two characters>/<digest>.<revision>.json` with the next revision, which of
several writers exactly one can; none is used twice, nor one whose file was moved to `journal/unreadable/`. The latest counts, and is the
fencing token of whoever submits. Earlier ones go once an entry is closed, so that a writer that was held up until then may create one that
lies behind the latest. Where money hangs on it a writer therefore looks whether its own is the latest: before it sends, when it writes a
job down later than its lease lives, and when a job is forgotten.
"""

from __future__ import annotations

import errno
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

import anyio

from prefect_happyhorse.domain.errors import GenerationError, JobExpired, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.journal.entry import OPEN_STATES, Cancellation, Failure, JournalEntry, JournalState
from prefect_happyhorse.engine.journal.files import (
    INDEX,
    LEASES,
    entry_path,
    entry_start,
    is_of_earlier_form,
    is_prefix,
    lease_path,
    read_entry,
    revision_of,
    written_entry,
)
from prefect_happyhorse.engine.journal.owner import LeaseOwner
from prefect_happyhorse.engine.journal.spool import Spool
from prefect_happyhorse.engine.storage.store import Store

__all__ = [
    "OPEN_STATES",
    "Cancellation",
    "Failure",
    "Journal",
    "JournalEntry",
    "JournalState",
    "LeaseOwner",
    "Listing",
    "Survey",
    "Unreadable",
]

_PAUSES_S = (0.5, 2.0, 5.0)
_REMEMBERED = 4096
_REMOVED = 20
_PUT_AWAY = "journal/unreadable"

_log = logging.getLogger(__name__)


class Unreadable(NamedTuple):
    """A file of the journal that cannot be read, and why."""

    file: str
    error: SubmissionUncertain


class Listing(NamedTuple):
    """The entries of a journal, oldest first, and the files that may stand for more."""

    entries: list[JournalEntry]
    unreadable: list[Unreadable]


class Survey(NamedTuple):
    """The latest revision of every entry, by its digest, and the earlier ones that are there."""

    latest: dict[str, int]
    earlier: list[tuple[str, int]]


class Journal:
    """The journal of a store.

    Args:
        store: Where the outputs lie; the journal is its folder `journal`.
        sleep: Waits for so many seconds.
        remembered: The entries that this process wrote last, by their folder and digest, so that they need not be read again.
    """

    def __init__(
        self,
        store: Store,
        *,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        remembered: OrderedDict[tuple[str, str], JournalEntry] | None = None,
    ) -> None:
        self.store = store
        self._sleep = sleep
        self._remembered: OrderedDict[tuple[str, str], JournalEntry] = OrderedDict() if remembered is None else remembered

    @cached_property
    def spool(self) -> Spool:
        """Where an entry lies that the store would not take."""
        return Spool(self.store.url)

    def path(self, digest: str, revision: int) -> str:
        """Where a revision of an entry lies in the store."""
        return entry_path(digest, revision)

    async def check_form(self) -> None:
        """Refuse a journal of an earlier form: what was bought under it is not known here."""
        if earlier := [name for name in await self.store.list("journal") if is_of_earlier_form(name)]:
            raise SubmissionUncertain(
                f"The journal in {self.store.url} holds {len(earlier)} entries of an unreleased version of this package, which are read no"
                f" more, such as journal/{earlier[0]}.",
                digest=earlier[0].removesuffix(".json"),
                advice="Move these files away if you know that nothing in them is still to come, or use another store.",
            )

    async def revision(self, digest: str) -> int:
        """The latest revision of an entry; 0 when nothing was ever set out to be bought under the digest."""
        return (await self._revisions([digest])).get(digest, 0)

    async def _revisions(self, digests: Iterable[str]) -> dict[str, int]:
        """The latest revision of each of some entries that is there."""
        starts = {entry_start(digest): digest for digest in digests}
        found = [(starts[start], names) async for start, names in self.store.list_starting(list(starts))]
        return {digest: latest for digest, names in found if (latest := _latest(names, digest))}

    async def read(self, digest: str) -> JournalEntry | None:
        """The entry of a digest, or None when nothing was ever set out to be bought under it."""
        while revision := await self.revision(digest):
            with suppress(FileNotFoundError):
                return self._parsed(digest, revision, await self.store.read(self.path(digest, revision)))
        return None

    async def latest(self, digest: str) -> JournalEntry | None:
        """The entry of a digest as this process wrote it last, else as it is read: what has changed since is seen when it is changed."""
        return self._remembered.get((self.store.url, digest)) or await self.read(digest)

    async def create(self, entry: JournalEntry, *, verify: bool = False) -> JournalEntry | None:
        """Write an entry as the revision after its own; None when somebody else has written that one, or, if verified, a later one."""
        # A revision is never used twice: what is known of one is known for good.
        before = entry.revision or await self._revision_put_away(entry.digest)
        written = entry.model_copy(update={"revision": before + 1}).checked()
        if not await self.store.create(self.path(written.digest, written.revision), written_entry(written)):
            self._remembered.pop((self.store.url, entry.digest), None)
            return None
        if verify and await self.revision(written.digest) != written.revision:
            self._remembered.pop((self.store.url, entry.digest), None)
            with suppress(OSError):
                await self.store.delete(self.path(written.digest, written.revision))
            return None
        self._remember(written)
        if not written.is_open:
            earlier = range(max(1, written.revision - _REMOVED), written.revision)
            # One that stays does no harm: the latest counts.
            with suppress(OSError):
                await self.store.delete_all([self.path(written.digest, revision) for revision in earlier])
        return written

    async def update(self, digest: str, change: Callable[[JournalEntry | None], JournalEntry | None]) -> JournalEntry | None:
        """Change an entry as it is now, however many change it at the same time; None from the change leaves it."""
        entry = await self.latest(digest)
        while True:
            changed = change(entry)
            if changed is None:
                return entry
            if entry is not None and changed.revision != entry.revision:
                changed = changed.model_copy(update={"revision": entry.revision})
            if (written := await self.create(changed)) is not None:
                return written
            entry = await self.read(digest)

    def _remember(self, entry: JournalEntry) -> None:
        # Threads share it, so that each step is one that no other thread can come into.
        self._remembered.pop((self.store.url, entry.digest), None)
        self._remembered[self.store.url, entry.digest] = entry
        while len(self._remembered) > _REMEMBERED:
            with suppress(KeyError):
                self._remembered.popitem(last=False)

    async def acquire(self, intent: JournalEntry, instead_of: JournalEntry | None = None) -> JournalEntry | None:
        """Acquire the lease of a request: write the intent, of several who try exactly one can; a job that stood there is set aside."""
        if instead_of is None:
            return await self.create(intent)
        if not instead_of.may_become("intent"):
            raise ValueError(f"an entry that is {instead_of.state!r} cannot be bought again")
        aside = await self._set_aside(instead_of)
        return await self.create(intent.model_copy(update={"revision": instead_of.revision, "aside": aside}))

    async def _set_aside(self, entry: JournalEntry, job: Job | None = None) -> tuple[str, ...]:
        """Give a job of an entry, by default its own, an entry of its own."""
        job = job or entry.job
        if job is None and entry.failure is not None and entry.failure.task_id is not None:
            # The gateway named it beside an error: whether it exists is found out by asking for it, which is free.
            job = entry.job_named(entry.failure.task_id)
        if job is None:
            return entry.aside
        own = entry.set_aside(job)
        if own.digest in entry.aside:
            return entry.aside
        # It may be there already: whoever wrote it died before it could be named here.
        await self.create(own)
        return (*entry.aside, own.digest)

    async def release(self, intent: JournalEntry, before: JournalEntry | None) -> None:
        """Leave an intent under which certainly nothing was bought, unless it is somebody else's by now."""

        def back(latest: JournalEntry | None) -> JournalEntry | None:
            if latest is None or not latest.is_intent_of(intent.owner):
                return None
            if before is not None and not before.may_be_bought_again:
                # That nothing was bought now says nothing of the submit before.
                return before.model_copy(update={"aside": latest.aside})
            return latest.becoming("released")

        await self.update(intent.digest, back)

    async def give_up(self, intent: JournalEntry, failure: Failure) -> None:
        """Write down that nobody knows whether a submit was accepted, unless the lease is somebody else's by now."""

        def uncertain(latest: JournalEntry | None) -> JournalEntry | None:
            ours = latest is not None and latest.is_intent_of(intent.owner)
            return intent.becoming("uncertain", failure=failure) if ours else None

        await self.update(intent.digest, uncertain)

    async def accept(self, entry: JournalEntry, job: Job, *, verify: bool = True) -> Job:
        """Write down a job that was just accepted: it is not lost while anything can be written anywhere.

        Returns the job as it stands in the journal: under a digest of its own where another job of the request is known already.
        """
        for pause_s in (*_PAUSES_S, None):
            try:
                return await self._accept(entry, job, verify=verify)
            except OSError as error:
                if pause_s is None:
                    await self.spool.put(entry.becoming("submitted", job=job, failure=None).model_dump_json())
                    _log.warning(
                        "The store cannot be written (%s): job %s of %s stands in %s until it can.",
                        error,
                        job.task_id,
                        job.gateway,
                        self.spool,
                    )
                    return job
                await self._sleep(pause_s)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _accept(self, entry: JournalEntry, job: Job, *, verify: bool = True) -> Job:
        latest = await (self.read if verify else self.latest)(entry.digest)
        while True:
            standing = job
            if latest is None:
                changed = entry if entry.job is not None else entry.becoming("submitted", job=job, failure=None)
                changed = changed.model_copy(update={"revision": 0})
            elif latest.job is None:
                # An error may have named another job than the one that somebody adopts.
                named = latest.failure is not None and latest.failure.task_id not in {None, job.task_id}
                aside = await self._set_aside(latest) if named else latest.aside
                changed = latest.becoming("submitted", job=job, failure=None).model_copy(update={"aside": aside})
            elif latest.job.task_id == job.task_id:
                return latest.job
            else:
                standing = latest.set_aside(job).job or job
                aside = await self._set_aside(latest, job)
                if aside == latest.aside:
                    return standing
                changed = latest.model_copy(update={"aside": aside})
            if await self.create(changed, verify=verify) is not None:
                return standing
            verify = True
            latest = await self.read(entry.digest)

    async def restore(self, digest: str) -> JournalEntry | None:
        """Bring a job into the journal that could only be written to this machine's own folder."""
        kept = await self.spool.get(digest)
        if kept is None:
            return None
        entry = read_entry(digest, 0, kept, file=f"{self.spool}/{digest}.json")
        if entry.job is not None:
            await self._accept(entry, entry.job)
        await self.spool.remove(digest)
        return await self.read(digest)

    async def restore_all(self) -> list[Unreadable]:
        """Bring all jobs into the journal that could only be written to this machine's own folder; what cannot be read stays there."""
        unreadable: list[Unreadable] = []
        for digest in await self.spool.digests():
            try:
                await self.restore(digest)
            except SubmissionUncertain as error:
                unreadable.append(Unreadable(f"{self.spool}/{digest}.json", error))
            except OSError as error:
                unreadable.append(_failed(f"{self.spool}/{digest}.json", digest, error))
        return unreadable

    async def record(self, job: Job, state: JournalState, facts: Mapping[str, Any]) -> JournalEntry | None:
        """Add what is newly known of a job to the entry as it is now, so that what another run wrote meanwhile is kept."""
        known_here = self._remembered.get((self.store.url, job.digest))
        is_written = known_here is not None and known_here.job is not None and known_here.job.task_id == job.task_id
        if not is_written and await self.spool.get(job.digest) is not None:
            # One that cannot be read stays where it is and is told; the job itself is known here.
            with suppress(SubmissionUncertain):
                await self.restore(job.digest)

        def known(latest: JournalEntry | None) -> JournalEntry | None:
            if latest is None:
                return None
            if latest.job is None and latest.may_become("submitted"):
                # It was accepted while nothing could be written anywhere, and is paid for all the same.
                latest = latest.becoming("submitted", job=job, failure=None)
            if latest.job is None or latest.job.task_id != job.task_id or not latest.may_become(state):
                # Another run was faster. A file that is kept is no less kept because a slower one only now sees the job finished.
                return None
            return latest.becoming(state, job=job, **facts)

        return await self.update(job.digest, known)

    async def known_failure(self, error: GenerationError, job: Job) -> None:
        """Keep how a job ended without a result."""
        state: JournalState = "expired" if isinstance(error, JobExpired) else "failed"
        await self.record(job, state, {"failure": Failure(message=error.message, code=error.code)})

    async def forget(self, entry: JournalEntry) -> None:
        """Let the same request be bought anew. What was bought for it is not lost: it gets an entry of its own."""
        while True:
            aside = await self._set_aside(entry)
            forgotten = entry.becoming("forgotten").model_copy(update={"aside": aside})
            if await self.create(forgotten, verify=True) is not None:
                # What could be read of it was restored before.
                await self.spool.put_away(f"{entry.digest}.json")
                return
            latest = await self.read(entry.digest)
            if latest is None or latest.owner != entry.owner:
                raise ValueError(f"{entry.digest[:12]} was changed by another process meanwhile. Nothing was forgotten.")
            entry = latest

    async def put_away(self, name: str) -> str | None:
        """Move a file of the journal that cannot be read out of the way, by its name; its new place, or None when there is no such file."""
        if (spooled := await self.spool.put_away(name)) is not None:
            return spooled
        if (known := revision_of(name)) is None or not await self.store.exists(path := self.path(*known)):
            return None
        away = await self._copy_away(name, await self.store.read(path))
        # It may have been readable once: what the index says of it is of no use any more.
        index = [one for one in await self.store.list(INDEX) if one[:1] == known[0][:1]]
        await self.store.delete_all([f"{INDEX}/{one}" for one in index])
        await self._restate_earlier(*known)
        await self.store.delete(path)
        return self.store.uri(away)

    async def _copy_away(self, name: str, content: bytes) -> str:
        """Write what cannot be read where it is not looked for, beside whatever was put away under the same name before."""
        away, number = f"{_PUT_AWAY}/{name}", 0
        while not await self.store.create(away, content):
            number += 1
            away = f"{_PUT_AWAY}/{name}.{number}"
        return away

    async def _restate_earlier(self, digest: str, revision: int) -> None:
        """Write what stands before a revision that is put away as one after it, so that the next change does not use that one again."""
        names = await self.store.list(f"journal/{digest[:2]}")
        latest = _latest((name for name in names if revision_of(name) != (digest, revision)), digest)
        after = await self._revision_put_away(digest)
        if 0 < latest <= after:
            # One that cannot be read either is told next, and put away in its turn.
            with suppress(FileNotFoundError, SubmissionUncertain):
                earlier = self._parsed(digest, latest, await self.store.read(self.path(digest, latest)))
                await self.create(earlier.model_copy(update={"revision": after}))

    async def _revision_put_away(self, digest: str) -> int:
        """The latest revision of an entry that was put away, or 0."""
        return _latest((f"{name.partition('.json')[0]}.json" for name in await self.store.list(_PUT_AWAY)), digest)

    async def revisions(self) -> dict[str, int]:
        """The latest revision of every entry, by its digest."""
        return (await self.survey()).latest

    async def survey(self) -> Survey:
        """The revisions of every entry, by the names of the files alone, which are listed once."""
        survey = Survey({}, [])
        folders = [f"journal/{name}" for name in await self.store.folders("journal") if is_prefix(name)]
        async for _, names in self.store.list_all(folders):
            for digest, revision in filter(None, map(revision_of, names)):
                known = survey.latest.get(digest)
                survey.latest[digest] = revision if known is None else max(known, revision)
                if known is not None:
                    survey.earlier.append((digest, min(known, revision)))
        return survey

    async def tidy(self, survey: Survey, is_closed: Callable[[str, int], bool]) -> None:
        """Remove what processes that ended in between left of entries that are closed by now: earlier revisions, and leases."""
        leases = [*filter(None, map(revision_of, await self.store.list(LEASES)))]
        ended = {digest for digest, _ in (*survey.earlier, *leases) if is_closed(digest, survey.latest.get(digest, 0))}
        left = [self.path(digest, revision) for digest, revision in survey.earlier if digest in ended]
        left += [lease_path(digest, revision) for digest, revision in leases if digest in ended and revision < survey.latest[digest]]
        # One that stays does no harm: the latest counts.
        with suppress(OSError):
            await self.store.delete_all(left)

    async def entries(self, digests: Collection[str] | None = None) -> Listing:
        """Every entry, or those of some digests, oldest first; what cannot be read is told beside them."""
        found: list[JournalEntry] = []
        unreadable = await self.restore_all()
        revisions = await self.revisions()
        chosen = revisions if digests is None else {digest: revisions[digest] for digest in digests if digest in revisions}
        async for one in self.read_all(chosen):
            if isinstance(one, JournalEntry):
                found.append(one)
            else:
                unreadable.append(one)
        return Listing(sorted(found, key=lambda entry: (entry.begun_at, entry.digest)), unreadable)

    async def read_some(self, digests: Iterable[str]) -> AsyncGenerator[JournalEntry | Unreadable, None]:
        """The entries of some digests, where there are any, or what came in their place, in no order."""
        async for one in self.read_all(await self._revisions(digests)):
            yield one

    async def read_all(self, revisions: Mapping[str, int]) -> AsyncGenerator[JournalEntry | Unreadable, None]:
        """The entries of these revisions, or what came in their place, in no order."""
        paths = {self.path(digest, revision): (digest, revision) for digest, revision in revisions.items()}
        missing = set(revisions)
        # Of a file that fails, as on a bad sector, those that were to be read with it know nothing: they are read one by one.
        with suppress(OSError):
            async for path, content in self.store.read_all(list(paths)):
                digest, revision = paths[path]
                missing.discard(digest)
                try:
                    yield self._parsed(digest, revision, content)
                except SubmissionUncertain as error:
                    yield Unreadable(self.store.uri(path), error)
        for digest in missing:
            # Or it was written anew between the list of names and the reading.
            if (revision := await self.revision(digest)) == 0:
                continue
            file = self.store.uri(self.path(digest, revision))
            try:
                entry = await self.read(digest)
            except SubmissionUncertain as error:
                yield Unreadable(file, error)
            except OSError as error:
                yield _failed(file, digest, error)
            else:
                if entry is not None:
                    yield entry

    def _parsed(self, digest: str, revision: int, content: bytes) -> JournalEntry:
        entry = read_entry(digest, revision, content, file=self.store.uri(self.path(digest, revision)))
        if entry.asset is None or self.store.path_of(entry.asset.uri) is not None:
            return entry
        # The outputs lie beside the journal, by whatever path or address the store was reached when they were kept.
        here = self.store.reached_here
        siblings = tuple(one.model_copy(update={"uri": here(one.uri)}) for one in entry.asset.siblings)
        return entry.model_copy(update={"asset": entry.asset.model_copy(update={"uri": here(entry.asset.uri), "siblings": siblings})})


def _latest(names: Iterable[str], digest: str) -> int:
    """The latest of an entry's revisions among some files, or 0."""
    mine = filter(None, map(revision_of, (name for name in names if name.startswith(f"{digest}."))))
    return max((revision for found, revision in mine if found == digest), default=0)


def _failed(file: str, digest: str, error: OSError) -> Unreadable:
    """A file that may well be read the next time; the error of the store, which may not name it, is the cause."""
    message = f"The journal entry {file} cannot be read, or not be brought into the journal: {error}."
    uncertain = SubmissionUncertain(message, digest=digest, advice="Nothing is bought under it until it can.")
    uncertain.__cause__ = OSError(error.errno or errno.EIO, error.strerror or str(error), file)
    return Unreadable(file, uncertain)
