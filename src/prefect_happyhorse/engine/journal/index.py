"""The index of a journal: what each closed entry means for a budget, so that neither open jobs nor what was spent are found by reading all.

It is made by whoever reads an entry that is not in it yet, and a revision never changes: a line that is lost is read anew, and none can be
wrong. An open entry is one that is not in the index.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from decimal import Decimal

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from prefect_happyhorse.domain.prices import Currency
from prefect_happyhorse.domain.values import Value
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, Listing

__all__ = ["Index", "Line", "open_entries"]

_AT_ONCE = 32

_log = logging.getLogger(__name__)


class Line(Value):
    """What an entry means for a budget."""

    begun_at: AwareDatetime
    cost: Decimal | None = Field(default=None, description="None where it is unknown.")
    currency: Currency | None = None
    what: str = Field(description="The job, for messages.")
    reason: str | None = Field(default=None, description="Why the cost is unknown.")

    @classmethod
    def of(cls, entry: JournalEntry) -> Line:
        """The line of an entry; one under which nothing is bought costs nothing, in no currency."""
        what = f"job {entry.digest[:12]} ({entry.request.model} at {entry.gateway})"
        if entry.may_be_bought_again:
            return cls(begun_at=entry.begun_at, cost=Decimal(0), what=what)
        if entry.estimate is None or entry.estimate.amount is None:
            return cls(begun_at=entry.begun_at, what=what, reason=None if entry.estimate is None else entry.estimate.reason)
        return cls(begun_at=entry.begun_at, cost=entry.estimate.amount, currency=entry.estimate.currency, what=what)


_LINES = TypeAdapter(dict[str, Line])


class Index:
    """The lines of a journal's closed entries, by digest and revision.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._store = journal.store
        self._lines: dict[str, dict[str, Line]] = {}
        self._changed: set[str] = set()

    async def load(self, revisions: dict[str, int]) -> None:
        """Read what is not read yet of the part that some entries belong to."""
        prefixes = {digest[:2] for digest in revisions} - self._lines.keys()
        paths = [_path(prefix) for prefix in prefixes]
        self._lines |= {prefix: {} for prefix in prefixes}
        async for path, content in self._store.read_all(paths):
            try:
                self._lines[path.rpartition("/")[2].removesuffix(".json")] = _LINES.validate_json(content)
            except ValidationError as error:
                _log.warning("%s cannot be read and is made anew: %s problems", self._store.uri(path), error.error_count())

    def get(self, digest: str, revision: int) -> Line | None:
        """The line of an entry, or None when it has to be read."""
        return self._lines.get(digest[:2], {}).get(f"{digest}.{revision}")

    def add(self, entry: JournalEntry) -> Line:
        """The line of an entry that was read; it is kept where the entry is closed."""
        line = Line.of(entry)
        if not entry.is_open:
            self._lines.setdefault(entry.digest[:2], {})[f"{entry.digest}.{entry.revision}"] = line
            self._changed.add(entry.digest[:2])
        return line

    async def save(self, revisions: dict[str, int]) -> None:
        """Write what is new, without what was replaced."""
        current: defaultdict[str, dict[str, Line]] = defaultdict(dict)
        for digest, revision in revisions.items():
            if digest[:2] in self._changed and (line := self.get(digest, revision)) is not None:
                current[digest[:2]][f"{digest}.{revision}"] = line
        self._changed = set()
        slots = asyncio.Semaphore(_AT_ONCE)

        async def write(prefix: str) -> None:
            async with slots:
                try:
                    await self._store.write(_path(prefix), _LINES.dump_json(current[prefix], exclude_none=True))
                except OSError as error:
                    _log.debug("%s could not be written: %s", self._store.uri(_path(prefix)), error)

        await asyncio.gather(*map(write, current))


async def open_entries(journal: Journal) -> Listing:
    """The open entries of a journal, oldest first, and what cannot be read."""
    index = Index(journal)
    revisions = await journal.revisions()
    await index.load(revisions)
    listing = await journal.entries([digest for digest, revision in revisions.items() if index.get(digest, revision) is None])
    for entry in listing.entries:
        index.add(entry)
    await index.save(revisions)
    return Listing([entry for entry in listing.entries if entry.is_open], listing.unreadable)


def _path(prefix: str) -> str:
    return f"journal/index/{prefix}.json"
