"""The index of a journal: what is listed and counted of each closed entry, and the open ones as they are, so that none need be read.

It is made by whoever reads an entry that is not in it yet, and a revision never changes: what is lost of it is read anew, and nothing can
be wrong. Open entries lie in files of their own, since they change often, and only those that have a job: where nobody knows what was
bought, the entry itself is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from prefect_happyhorse.domain.prices import EXACT, Currency, Estimate
from prefect_happyhorse.engine.journal.files import INDEX, dumped_entry, index_path
from prefect_happyhorse.engine.journal.journal import OPEN_STATES, Journal, JournalEntry, JournalState, Listing, Unreadable

__all__ = ["Contents", "Index", "Line", "begun", "billed", "contents", "open_entries"]

_FILES_AT_ONCE = 4
_MOST_SECONDS = 1e6

_log = logging.getLogger(__name__)


class Line(NamedTuple):
    """What is listed and counted of a revision of an entry. A hundred thousand are held at a time, and so they are tuples.

    Args:
        cost: None where it is unknown.
        reason: Why the cost is unknown.
        billed: What it cost by the seconds that the provider counted, in the same currency, where both are known.
        by_maker: Whether the cost is by the list of the model's maker, which binds no gateway.
        warned: Whether an output is not as it was asked for, or black, still or silent.
    """

    digest: str
    revision: Annotated[int, Field(ge=1)]
    begun_at: AwareDatetime
    state: JournalState
    gateway: str
    account: str
    model: str
    task_id: str | None = None
    cost: Decimal | None = None
    currency: Currency | None = None
    reason: str | None = None
    by_maker: bool = False
    billed: Decimal | None = None
    labels: tuple[tuple[str, str], ...] = ()
    warned: bool = False

    @classmethod
    def of(cls, entry: JournalEntry) -> Line:
        """The line of an entry; one under which nothing is bought costs nothing, in no currency."""
        task_id = None if entry.job is None else entry.job.task_id
        line = cls(entry.digest, entry.revision, entry.begun_at, entry.state, entry.gateway, entry.account, entry.request.model, task_id)
        outputs = () if entry.asset is None else (entry.asset, *entry.asset.siblings)
        line = line._replace(labels=tuple(entry.labels.items()), warned=any(one.warnings for one in outputs))
        if entry.may_be_bought_again:
            return line._replace(cost=Decimal(0))
        if entry.estimate is None or entry.estimate.amount is None:
            return line._replace(reason=None if entry.estimate is None else entry.estimate.reason)
        by_maker = entry.estimate.basis == "maker"
        line = line._replace(cost=entry.estimate.amount, currency=entry.estimate.currency, by_maker=by_maker)
        return line._replace(billed=billed(entry.estimate, _usage(entry)))

    @property
    def is_open(self) -> bool:
        """Whether money is or may be spent and no file is kept yet."""
        return self.state in OPEN_STATES


def _usage(entry: JournalEntry) -> Mapping[str, Any] | None:
    return (entry.result and entry.result.usage) or (entry.asset and entry.asset.usage)


def billed(estimate: Estimate | None, usage: Mapping[str, Any] | None) -> Decimal | None:
    """What a job cost by the seconds that its provider counted, where both are known."""
    seconds, price = (usage or {}).get("duration"), estimate and estimate.per_second
    if price is None or isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < _MOST_SECONDS:
        return None
    return EXACT.multiply(price, Decimal(str(seconds)))


class Contents(NamedTuple):
    """What a journal holds: a line for each entry, in no order; the open entries, oldest first; and the files that may stand for more."""

    lines: list[Line]
    open_entries: list[JournalEntry]
    unreadable: list[Unreadable]


_LINES = TypeAdapter(list[Line])
_ENTRIES = TypeAdapter(list[JournalEntry])


class Index:
    """The lines of a journal's closed entries and its open entries, by their digests.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._store = journal.store
        self._lines: dict[str, Line] = {}
        self._open: dict[str, JournalEntry] = {}
        self._with_open = True
        self._loaded: set[str] = set()
        self._changed: set[tuple[str, bool]] = set()
        self._replaced: list[str] = []

    async def load(self, revisions: Mapping[str, int]) -> None:
        """Read what is not read yet of the parts that some entries belong to, and drop what is of an entry that is gone."""
        if parts := {digest[:1] for digest in revisions} - self._loaded:
            self._loaded |= parts
            paths = [f"{INDEX}/{name}" for name in await self._store.list(INDEX) if name[:1] in parts]
            # Each may be a megabyte.
            for start in range(0, len(paths), _FILES_AT_ONCE):
                async for path, content in self._store.read_all(paths[start : start + _FILES_AT_ONCE]):
                    self._take(path, content)
        for digest in self._lines.keys() - revisions.keys():
            # Its revisions may come again, and be another's.
            del self._lines[digest]
            self._changed.add((digest[:1], False))
        for digest, entry in list(self._open.items()):
            if revisions.get(digest) != entry.revision:
                del self._open[digest]
                self._changed.add((digest[:1], True))

    def _take(self, path: str, content: bytes) -> None:
        part = path.rpartition("/")[2][:1]
        of_open = path == index_path(part, is_open=True)
        try:
            if not of_open:
                self._lines.update((line.digest, line) for line in _LINES.validate_json(content))
            elif self._with_open:
                # What only a later version knows is kept, as it is when the entry itself is read.
                kept = filter(_is_kept, _ENTRIES.validate_json(content, extra="allow"))
                self._open.update((one.digest, one) for one in kept)
        except (ValidationError, RecursionError) as error:
            count = f": {error.error_count()} problems" if isinstance(error, ValidationError) else ""
            _log.warning("%s cannot be read and is made anew%s", self._store.uri(path), count)
            self._changed.add((part, of_open))
        if not of_open and path != index_path(part):
            # Of an earlier form, with a file for each two first characters.
            self._replaced.append(path)
            self._changed.add((part, False))

    def get(self, digest: str, revision: int) -> Line | None:
        """The line of an entry, or None when it has to be read."""
        if (entry := self.open_entry(digest, revision)) is not None:
            return Line.of(entry)
        return self._line(digest, revision)

    def _line(self, digest: str, revision: int) -> Line | None:
        line = self._lines.get(digest)
        return line if line is not None and line.revision == revision else None

    def open_entry(self, digest: str, revision: int) -> JournalEntry | None:
        """An open entry that need not be read."""
        entry = self._open.get(digest)
        return entry if entry is not None and entry.revision == revision else None

    def add(self, entry: JournalEntry) -> Line:
        """The line of an entry that was read; it is kept where the entry is closed, and an open entry that has a job as it is."""
        line = Line.of(entry)
        if not entry.is_open:
            self._lines[entry.digest] = line
            self._changed.add((entry.digest[:1], False))
        elif self._with_open and _is_kept(entry):
            self._open[entry.digest] = entry
            self._changed.add((entry.digest[:1], True))
        return line

    def leave_open_ones(self) -> None:
        """Hold the open entries no longer, nor keep what changes of them: whoever looks again and again needs their lines alone."""
        self._with_open = False
        self._open.clear()

    async def save(self, revisions: Mapping[str, int]) -> None:
        """Write what is new, without what was replaced."""
        if not self._changed:
            return
        current: dict[tuple[str, bool], list[Any]] = {one: [] for one in self._changed}
        self._changed.clear()
        for digest, revision in revisions.items():
            lines, entries = current.get((digest[:1], False)), current.get((digest[:1], True))
            if lines is not None and (line := self._line(digest, revision)) is not None:
                lines.append(line)
            if entries is not None and (entry := self.open_entry(digest, revision)) is not None:
                entries.append(entry)
        slots = asyncio.Semaphore(_FILES_AT_ONCE)

        async def write(part: str, is_open: bool) -> bool:
            path, held = index_path(part, is_open=is_open), current[part, is_open]
            async with slots:
                try:
                    await self._store.write(path, _written(held) if is_open else _LINES.dump_json(held))
                except OSError as error:
                    _log.debug("%s could not be written: %s", self._store.uri(path), error)
                    return False
            return True

        if all(await asyncio.gather(*(write(*one) for one in current))):
            replaced, self._replaced = self._replaced, []
            with suppress(OSError):
                await self._store.delete_all(replaced)


def _is_kept(entry: JournalEntry) -> bool:
    """Whether the index holds an open entry: where nobody knows what was bought, or a part is kept, the entry itself is read."""
    return entry.is_open and entry.job is not None and entry.asset is None


def _written(entries: Iterable[JournalEntry]) -> bytes:
    return to_json([dumped_entry(entry) | {"revision": entry.revision} for entry in entries])


async def contents(journal: Journal, *, tidy: bool = False, read_only: bool = False) -> Contents:
    """What a journal holds; only entries that are not in its index are read.

    Args:
        journal: The journal.
        tidy: Whether to remove what processes that ended in between left of closed entries.
        read_only: Whether to write nothing: neither what waits in the spool nor the index.
    """
    unreadable = [] if read_only else await journal.restore_all()
    survey = await journal.survey()
    index = Index(journal)
    await index.load(survey.latest)
    lines: list[Line] = []
    found: list[JournalEntry] = []
    unread: dict[str, int] = {}
    for digest, revision in survey.latest.items():
        if (line := index.get(digest, revision)) is None:
            unread[digest] = revision
            continue
        lines.append(line)
        if (entry := index.open_entry(digest, revision)) is not None:
            found.append(entry)
    async for one in journal.read_all(unread):
        if isinstance(one, Unreadable):
            unreadable.append(one)
            continue
        lines.append(index.add(one))
        if one.is_open:
            found.append(one)
    if not read_only:
        await index.save(survey.latest)
    if tidy:
        await journal.tidy(survey, lambda digest, revision: (line := index.get(digest, revision)) is not None and not line.is_open)
    return Contents(lines, sorted(found, key=begun), unreadable)


def begun(one: Line | JournalEntry) -> tuple[float, str]:
    """By what entries are ordered: when their submit was begun, and which of several that were begun at once is first."""
    # Two times with a zone are compared twenty times as slowly.
    return one.begun_at.timestamp(), one.digest


async def open_entries(journal: Journal, *, tidy: bool = False) -> Listing:
    """The open entries of a journal, oldest first, and what cannot be read; see `contents`."""
    _, found, unreadable = await contents(journal, tidy=tidy)
    return Listing(found, unreadable)
