"""Which jobs a page shows: filters and a search."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, localcontext
from typing import NamedTuple, get_args

from prefect_happyhorse.domain.prices import EXACT
from prefect_happyhorse.engine.journal.index import Line
from prefect_happyhorse.engine.journal.journal import JournalState
from prefect_happyhorse.gallery.reader import JournalReader, Snapshot

__all__ = ["PAGE_ROWS", "Finder", "Found", "Query"]

PAGE_ROWS = 60
"""How many jobs a page shows."""

_AGAIN_S = 0.5
_PAUSE_FACTOR = 5.0
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

    def chosen(self, lines: Sequence[Line]) -> list[Line]:
        """The jobs that fit, their prompts aside."""
        if self.state == "open":
            chosen = [line for line in lines if line.is_open]
        elif self.state is not None:
            chosen = [line for line in lines if line.state == self.state]
        else:
            # A lease that was released means that nothing was bought.
            chosen = [line for line in lines if line.state != "released"]
        if self.gateway is not None:
            chosen = [line for line in chosen if line.gateway == self.gateway]
        if self.model is not None:
            chosen = [line for line in chosen if line.model == self.model]
        if self.label is not None:
            chosen = [line for line in chosen if self.label in line.labels]
        if self.day is not None:
            chosen = [line for line in chosen if line.begun_at.date() == self.day]
        return chosen


class Found(NamedTuple):
    """What a query finds.

    Args:
        lines: The jobs of all its pages, newest first.
        cost: What they cost together.
        unsearched: How many others may still be found, since their prompts are not read yet.
    """

    lines: list[Line]
    cost: str
    unsearched: int

    def page(self, number: int) -> list[Line]:
        """The jobs of one page."""
        return self.lines[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-len(self.lines) // PAGE_ROWS))


class Finder:
    """Finds the jobs of a query, and the same ones again at once.

    Args:
        reader: What is known of the journal.
    """

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._last: tuple[str, Query, Found, float] | None = None

    def find(self, query: Query, snapshot: Snapshot) -> Found:
        """The jobs of all pages of a query, as far as they are known by now."""
        query = query._replace(page=1)
        started = time.monotonic()
        if self._last is not None:
            version, asked, found, good_until = self._last
            # While prompts are read, a search in all of them once more would keep those who read them from their work.
            if (version, asked) == (snapshot.version, query) and (not found.unsearched or started < good_until):
                return found
        chosen = query.chosen(snapshot.lines)
        unsearched = 0
        if query.words:
            unsearched = sum(not self._reader.has_detail(line) for line in chosen)
            chosen = [line for line in chosen if _says(line, query.words, self._reader)]
        found = Found(chosen, _cost(chosen), unsearched)
        now = time.monotonic()
        self._last = snapshot.version, query, found, now + max(_AGAIN_S, _PAUSE_FACTOR * (now - started))
        return found


def _says(line: Line, words: tuple[str, ...], reader: JournalReader) -> bool:
    detail = reader.details.get(line.digest)
    prompt = "" if detail is None else detail.prompt
    return all(
        word in prompt or word == (line.task_id or "").casefold() or (len(word) >= 6 and line.digest.startswith(word)) for word in words
    )


def _cost(lines: Sequence[Line]) -> str:
    amounts: defaultdict[str, list[Decimal]] = defaultdict(list)
    for line in lines:
        if line.cost is not None and line.currency is not None:
            amounts[line.currency].append(line.cost)
    with localcontext(EXACT):
        parts = [f"{sum(costs, Decimal(0)):f} {currency}" for currency, costs in sorted(amounts.items())]
    if unknown := sum(line.cost is None for line in lines):
        parts.append(f"{unknown} of unknown price")
    return " and ".join(parts) or "nothing"
