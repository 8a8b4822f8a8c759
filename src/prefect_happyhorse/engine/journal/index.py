"""The index of a journal: what is listed and counted of each closed entry, so that those who look for others need not read it.

It is made by whoever reads an entry that is not in it yet, and a revision never changes: a line that is lost is read anew, and none can be
wrong. An open entry is one that is not in the index.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from prefect_happyhorse.domain.prices import EXACT, Currency, Estimate
from prefect_happyhorse.engine.journal.files import index_path
from prefect_happyhorse.engine.journal.journal import OPEN_STATES, Journal, JournalEntry, JournalState, Listing, Unreadable

__all__ = ["Contents", "Index", "Line", "begun", "billed", "contents", "open_entries"]

_AT_ONCE = 32
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


class Index:
    """The lines of a journal's closed entries, by their digests.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._store = journal.store
        self._lines: dict[str, Line] = {}
        self._loaded: set[str] = set()
        self._changed: set[str] = set()

    async def load(self, revisions: Mapping[str, int]) -> None:
        """Read what is not read yet of the part that some entries belong to, and drop what is of an entry that is gone."""
        prefixes = {digest[:2] for digest in revisions} - self._loaded
        self._loaded |= prefixes
        async for path, content in self._store.read_all([index_path(prefix) for prefix in prefixes]):
            try:
                self._lines |= {line.digest: line for line in _LINES.validate_json(content)}
            except ValidationError as error:
                _log.warning("%s cannot be read and is made anew: %s problems", self._store.uri(path), error.error_count())
        for digest in self._lines.keys() - revisions.keys():
            # Its revisions may come again, and be another's.
            del self._lines[digest]
            self._changed.add(digest[:2])

    def get(self, digest: str, revision: int) -> Line | None:
        """The line of an entry, or None when it has to be read."""
        line = self._lines.get(digest)
        return line if line is not None and line.revision == revision else None

    def add(self, entry: JournalEntry) -> Line:
        """The line of an entry that was read; it is kept where the entry is closed."""
        line = Line.of(entry)
        if not entry.is_open:
            self._lines[entry.digest] = line
            self._changed.add(entry.digest[:2])
        return line

    async def save(self, revisions: Mapping[str, int]) -> None:
        """Write what is new, without what was replaced."""
        if not self._changed:
            return
        current: defaultdict[str, list[Line]] = defaultdict(list)
        for digest, revision in revisions.items():
            if digest[:2] in self._changed and (line := self.get(digest, revision)) is not None:
                current[digest[:2]].append(line)
        changed, self._changed = self._changed, set()
        slots = asyncio.Semaphore(_AT_ONCE)

        async def write(prefix: str) -> None:
            async with slots:
                try:
                    await self._store.write(index_path(prefix), _LINES.dump_json(current[prefix]))
                except OSError as error:
                    _log.debug("%s could not be written: %s", self._store.uri(index_path(prefix)), error)

        await asyncio.gather(*map(write, changed))


async def contents(journal: Journal, *, tidy: bool = False, read_only: bool = False) -> Contents:
    """What a journal holds; only entries that are not in its index are read, and of these the open ones are kept.

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
    unread: dict[str, int] = {}
    for digest, revision in survey.latest.items():
        if (line := index.get(digest, revision)) is not None:
            lines.append(line)
        else:
            unread[digest] = revision
    found: list[JournalEntry] = []
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
        await journal.tidy(survey, lambda digest, revision: index.get(digest, revision) is not None)
    return Contents(lines, sorted(found, key=begun), unreadable)


def begun(one: Line | JournalEntry) -> tuple[float, str]:
    """By what entries are ordered: when their submit was begun, and which of several that were begun at once is first."""
    # Two times with a zone are compared twenty times as slowly.
    return one.begun_at.timestamp(), one.digest


async def open_entries(journal: Journal, *, tidy: bool = False) -> Listing:
    """The open entries of a journal, oldest first, and what cannot be read; see `contents`."""
    _, found, unreadable = await contents(journal, tidy=tidy)
    return Listing(found, unreadable)
