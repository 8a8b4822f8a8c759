"""Which jobs a page shows: filters and a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import NamedTuple, get_args

from prefect_happyhorse.domain.prices import EXACT
from prefect_happyhorse.engine.journal.index import Line
from prefect_happyhorse.engine.journal.journal import JournalState
from prefect_happyhorse.gallery.reader import JournalReader, Snapshot

__all__ = ["PAGE_ROWS", "Found", "Query", "find"]

PAGE_ROWS = 60
"""How many jobs a page shows."""

_STATES = ("open", *get_args(JournalState))


class Query(NamedTuple):
    """What a page is to show; None for no matter what."""

    state: str | None = None
    gateway: str | None = None
    model: str | None = None
    label: tuple[str, str] | None = None
    day: date | None = None
    words: tuple[str, ...] = ()
    page: int = 1

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Query:
        """What an address asks for; ValueError says what is wrong with it.

        Example:
            >>> Query.of({"label": "project=film", "q": "White horse"})[3:6]
            (('project', 'film'), None, ('white', 'horse'))
        """
        state, day, page, label = (given.get(name) or None for name in ("state", "day", "page", "label"))
        if state is not None and state not in _STATES:
            raise ValueError(f"state must be one of {', '.join(_STATES)} (got {state!r})")
        name, equals, value = (label or "").partition("=")
        if label is not None and not (name and equals):
            raise ValueError(f"label must be a name and a value, such as project=film (got {label!r})")
        try:
            on = None if day is None else date.fromisoformat(day)
        except ValueError as error:
            raise ValueError(f"day must be a date such as 2026-11-20 (got {day!r})") from error
        if page is not None and not (page.isascii() and page.isdigit() and 0 < int(page) < 10**9):
            raise ValueError(f"page must be a number from 1 (got {page!r})")
        return cls(
            state,
            given.get("gateway") or None,
            given.get("model") or None,
            None if label is None else (name, value),
            on,
            tuple(given.get("q", "").casefold().split()),
            int(page or 1),
        )

    def fits(self, line: Line) -> bool:
        """Whether a job is one of those, its prompt aside."""
        return (
            # A lease that was released means that nothing was bought.
            (line.state == self.state if self.state not in {None, "open"} else line.is_open if self.state else line.state != "released")
            and (self.gateway is None or line.gateway == self.gateway)
            and (self.model is None or line.model == self.model)
            and (self.label is None or self.label in line.labels)
            and (self.day is None or line.begun_at.date() == self.day)
        )


class Found(NamedTuple):
    """What a query finds.

    Args:
        lines: The jobs of its page, newest first.
        jobs: How many there are on all pages.
        cost: What they cost together.
        unsearched: How many others may still be found, since their prompts are not read yet.
    """

    lines: list[Line]
    jobs: int
    cost: str
    unsearched: int


def find(query: Query, snapshot: Snapshot, reader: JournalReader) -> Found:
    """The jobs of a page, as far as they are known by now."""
    fitting = [line for line in snapshot.lines if query.fits(line)]
    unsearched = 0
    if query.words:
        unsearched = sum(not reader.has_detail(line) for line in fitting)
        fitting = [line for line in fitting if _says(line, query.words, reader)]
    first = (query.page - 1) * PAGE_ROWS
    return Found(fitting[first : first + PAGE_ROWS], len(fitting), _cost(fitting), unsearched)


def _says(line: Line, words: tuple[str, ...], reader: JournalReader) -> bool:
    detail = reader.details.get(line.digest)
    prompt = "" if detail is None else detail.prompt
    ids = (line.task_id or "").casefold()
    return all(word in prompt or word == ids or (len(word) >= 6 and line.digest.startswith(word)) for word in words)


def _cost(lines: Iterable[Line]) -> str:
    sums: dict[str, Decimal] = {}
    unknown = 0
    for line in lines:
        if line.cost is None:
            unknown += 1
        elif line.currency is not None:
            sums[line.currency] = EXACT.add(sums.get(line.currency, Decimal(0)), line.cost)
    parts = [f"{amount:f} {currency}" for currency, amount in sorted(sums.items())]
    return " and ".join([*parts, *([f"{unknown} of unknown price"] if unknown else [])]) or "nothing"
