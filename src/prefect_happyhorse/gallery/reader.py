"""What a gallery knows of a journal: a line of each job, newest first, kept up to date. Nothing is ever written.

Lines come from the journal's index, and from the entries that are not in it. What only a search or a job's page needs of an entry, such as
its prompt, is read when it is first asked for. Both happen in a thread of their own, so that a page is answered meanwhile.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import GenerationError, SubmissionUncertain
from prefect_happyhorse.domain.requests import iter_media
from prefect_happyhorse.engine.journal.files import read_entry
from prefect_happyhorse.engine.journal.index import Index, Line, begun
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, Unreadable
from prefect_happyhorse.gallery.facets import Facets, facets

__all__ = ["Detail", "JournalReader", "Snapshot", "not_listed"]

_AT_ONCE = 512
_REMEMBERED = 512
_AT_FIRST = 4096
_PROGRESS_S = 0.5
_LEAST_PAUSE_S = 2.0
_PAUSE_FACTOR = 5.0
"""After a look at the journal it rests for so many times as long as the look took."""


class Detail(NamedTuple):
    """What is known of an entry that its line does not say.

    Args:
        revision: Of which revision.
        prompt: The prompt without regard to case.
        request: The same for all takes of a request.
        made_from: The digests of the jobs whose assets it takes.
    """

    revision: int
    prompt: str
    request: int
    made_from: tuple[str, ...]

    @classmethod
    def of(cls, entry: JournalEntry) -> Detail:
        """The detail of an entry."""
        media = (medium for _, _, medium in iter_media(entry.request))
        made_from = dict.fromkeys(one.job.digest for one in media if isinstance(one, MediaAsset) and one.job is not None)
        key = hash((entry.request.capability, *map(_fact, vars(entry.request).values())))
        return cls(entry.revision, (entry.request.prompt or "").casefold(), key, tuple(made_from))


def _fact(value: Any) -> Any:
    """A value of a request, so that it can be hashed; an asset by its content, since all else of it may differ between takes."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, MediaAsset):
        return value.sha256
    if isinstance(value, tuple):
        return tuple(map(_fact, cast("tuple[Any, ...]", value)))
    return frozenset(cast("Mapping[str, Any]", value).items())


class Snapshot(NamedTuple):
    """A journal at one moment.

    Args:
        version: Another one for everything else that is shown.
        lines: The jobs, newest first.
        by_digest: The same by their digests.
        facets: What there is to filter them by.
        problems: What could not be read, and why.
        read: How many of the entries are in it.
        total: How many entries there are.
        whole: Whether the first look at the journal is over.
    """

    version: str
    lines: list[Line]
    by_digest: dict[str, Line]
    facets: Facets
    problems: list[str]
    read: int
    total: int
    whole: bool


class JournalReader:
    """Reads a journal for as long as somebody looks.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._run = secrets.token_hex(4)
        self._versions = 0
        self.snapshot = Snapshot(f"{self._run}-0", [], {}, facets([]), [], 0, 0, False)
        self.details: dict[str, Detail] = {}
        self._lines: dict[str, Line] = {}
        self._loaded = False
        self._shown: Future[None] = Future()
        self._spooled: dict[str, JournalEntry] = {}
        self._entries: OrderedDict[tuple[str, int], JournalEntry] = OrderedDict()
        self._portal: BlockingPortal | None = None
        self._looking: Future[None] | None = None
        self._detailing: Future[None] | None = None
        self._detailed: str | None = None
        self._look_again_at = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Read in a thread of its own from now on, as far as `look` and `want_details` ask for it."""
        with start_blocking_portal() as portal:
            self._portal = portal
            try:
                self.look()
                yield
            finally:
                for task in filter(None, (self._looking, self._detailing)):
                    task.cancel()
                self._portal = None

    def look(self) -> None:
        """See what is new in the journal, unless that was just done."""
        if time.monotonic() >= self._look_again_at:
            self._looking = self._begun(self._looking, self.refresh)

    def want_details(self) -> None:
        """Read of every entry what its line does not say, where that is not known yet."""
        if self._detailed != self.snapshot.version:
            self._detailing = self._begun(self._detailing, self.read_details)

    def _begun(self, running: Future[None] | None, work: Callable[[], Coroutine[Any, Any, None]]) -> Future[None] | None:
        if self._portal is None or (running is not None and not running.done()):
            return running
        return self._portal.start_task_soon(work)

    async def first_look(self, *, at_most_s: float) -> None:
        """Wait until there is something to show, but not for long."""
        if not self._shown.done():
            await asyncio.wait({asyncio.wrap_future(self._shown)}, timeout=at_most_s)

    async def refresh(self) -> None:
        """See what is new in the journal. What cannot be read is a problem of the snapshot, and never raised."""
        started = time.monotonic()
        try:
            await self.load()
        except (OSError, GenerationError) as error:
            problem = str(error) if isinstance(error, GenerationError) else not_listed(self.journal, error)
            if [problem] != self.snapshot.problems:
                self._publish([problem], self.snapshot.total, whole=True)
        finally:
            now = time.monotonic()
            self._look_again_at = now + max(_LEAST_PAUSE_S, _PAUSE_FACTOR * (now - started))

    async def load(self) -> None:
        """See what is new in the journal; OSError or SubmissionUncertain where it cannot be read at all."""
        await self.journal.check_form()
        latest = (await self.journal.survey()).latest
        lines = self._lines
        gone = lines.keys() - latest.keys()
        for digest in gone:
            del lines[digest]
        spool_changed, problems = await self._read_spool()
        new = {digest: revision for digest, revision in latest.items() if digest not in lines or lines[digest].revision != revision}
        # At first a part after the other, so that a large journal shows something soon.
        for portion in [new] if self._loaded else _portions(new):
            unread = portion if self._loaded else await self._read_index(portion)
            async for one in self.journal.read_all(unread):
                if isinstance(one, Unreadable):
                    problems.append(str(one.error))
                else:
                    lines[one.digest] = Line.of(one)
                    self.details[one.digest] = Detail.of(one)
                self._show_progress(problems, len(latest))
            self._show_progress(problems, len(latest))
        problems.sort()
        if not self._loaded or gone or new.keys() & lines.keys() or spool_changed or problems != self.snapshot.problems:
            self._loaded = True
            self._publish(problems, len(latest), whole=True)

    async def _read_index(self, revisions: dict[str, int]) -> dict[str, int]:
        """Take the lines of some entries from the journal's index; what is not in it is left to be read."""
        index = Index(self.journal)
        await index.load(revisions)
        known = {digest: line for digest, revision in revisions.items() if (line := index.get(digest, revision)) is not None}
        self._lines |= known
        return {digest: revision for digest, revision in revisions.items() if digest not in known}

    def _show_progress(self, problems: Sequence[str], total: int) -> None:
        started = time.monotonic()
        if not self._loaded and started >= self._look_again_at:
            self._publish(problems, total, whole=False)
            now = time.monotonic()
            self._look_again_at = now + max(_PROGRESS_S, _PAUSE_FACTOR * (now - started))

    async def _read_spool(self) -> tuple[bool, list[str]]:
        """Jobs that their store would not take are paid for as well; bringing them there is for those who may write."""
        problems: list[str] = []
        found: dict[str, JournalEntry] = {}
        spool = self.journal.spool
        for digest in await spool.digests():
            if (content := await spool.get(digest)) is not None:
                try:
                    found[digest] = read_entry(digest, 0, content, file=f"{spool}/{digest}.json")
                except SubmissionUncertain as error:
                    problems.append(str(error))
        changed = found != self._spooled
        self._spooled = found
        return changed, problems

    def _publish(self, problems: Sequence[str], total: int, *, whole: bool) -> None:
        known = dict(self._lines)
        read = len(known) + len(problems)
        known |= {digest: Line.of(entry) for digest, entry in self._spooled.items()}
        self._versions += 1
        newest_first = sorted(known.values(), key=begun, reverse=True)
        version = f"{self._run}-{self._versions}"
        self.snapshot = Snapshot(version, newest_first, known, facets(newest_first), list(problems), read, total, whole)
        if not self._shown.done():
            self._shown.set_result(None)

    async def read_details(self) -> None:
        """Read what the lines do not say, newest first."""
        snapshot = self.snapshot
        unknown = [line for line in snapshot.lines if not self.has_detail(line)]
        for start in range(0, len(unknown), _AT_ONCE):
            some = {line.digest: line.revision for line in unknown[start : start + _AT_ONCE]}
            # What cannot be read, or is written anew just now, is searched in vain, and not for ever.
            found = {digest: Detail(revision, "", 0, ()) for digest, revision in some.items()}
            found |= {digest: Detail.of(entry) for digest, entry in (await self._read(some)).items()}
            self.details |= found
        self._detailed = snapshot.version

    def has_detail(self, line: Line) -> bool:
        """Whether the detail of a line is known."""
        detail = self.details.get(line.digest)
        return detail is not None and detail.revision == line.revision

    async def _read(self, revisions: dict[str, int]) -> dict[str, JournalEntry]:
        spooled = {digest: self._spooled[digest] for digest in revisions if digest in self._spooled}
        try:
            kept = self.journal.read_all({digest: revision for digest, revision in revisions.items() if digest not in spooled})
            return spooled | {one.digest: one async for one in kept if isinstance(one, JournalEntry)}
        except OSError:
            # The next look at the journal says so.
            return spooled

    async def entries(self, lines: Sequence[Line]) -> list[JournalEntry]:
        """The entries of some lines, in their order; one that cannot be read is left out, as the next look says."""
        missing = {line.digest: line.revision for line in lines if (line.digest, line.revision) not in self._entries}
        found = await self._read(missing)
        for digest, entry in found.items():
            self._entries[digest, missing[digest]] = entry
        shown = [self._entries[at] for line in lines if (at := (line.digest, line.revision)) in self._entries]
        while len(self._entries) > max(_REMEMBERED, len(lines)):
            self._entries.popitem(last=False)
        return shown

    async def entry(self, digest: str) -> JournalEntry | None:
        """The entry of a digest, or None when the journal has none."""
        line = self.snapshot.by_digest.get(digest)
        if line is None:
            # It may be newer than the last look.
            known = _is_digest(digest) and await self.journal.revision(digest)
            return await self.journal.read(digest) if known else None
        return next(iter(await self.entries([line])), None)

    def takes(self, entry: JournalEntry) -> list[Line]:
        """The lines of all takes of its request that are known by now, itself among them, oldest first."""
        key = Detail.of(entry).request
        lines = self.snapshot.by_digest
        same = [lines[digest] for digest, detail in self.details.copy().items() if detail.request == key and digest in lines]
        return sorted(same, key=begun)

    def made_of(self, digest: str) -> list[Line]:
        """The lines of the jobs that take an asset of this one, as far as they are known by now, oldest first."""
        lines = self.snapshot.by_digest
        found = [lines[one] for one, detail in self.details.copy().items() if digest in detail.made_from and one in lines]
        return sorted(found, key=begun)


def _portions(revisions: dict[str, int]) -> Iterator[dict[str, int]]:
    """The entries in parts, each of whole parts of the journal's index."""
    portion: dict[str, int] = {}
    for prefix in sorted(by_prefix := _by_prefix(revisions)):
        portion |= by_prefix[prefix]
        if len(portion) >= _AT_FIRST:
            yield portion
            portion = {}
    yield portion


def _by_prefix(revisions: dict[str, int]) -> dict[str, dict[str, int]]:
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for digest, revision in revisions.items():
        found[digest[:1]][digest] = revision
    return found


def _is_digest(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def not_listed(journal: Journal, error: OSError) -> str:
    """Why nothing is shown of a journal."""
    why = error.strerror or str(error)
    return (
        f"The journal of {journal.store.url} cannot be listed: {why}. Reading it takes the right to list the store and to read its files;"
        " nothing is said of what was bought there."
    )
