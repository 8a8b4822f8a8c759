"""A limit on what is spent, counted in the journal across runs, processes and machines."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import NamedTuple

from pydantic import Field

from prefect_happyhorse.domain.errors import BudgetExceeded
from prefect_happyhorse.domain.prices import EXACT, Amount, Currency
from prefect_happyhorse.domain.values import Value
from prefect_happyhorse.engine.journal.index import Index, Line
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry, Unreadable

__all__ = ["NOTHING_SENT", "Budget", "BudgetTracker", "Problem"]

NOTHING_SENT = "Nothing was sent."

_WRITTEN_DOWN = (
    "What a job costs is written down when it is bought, and prices given later do not change that:"
    " count jobs of the last few `days` alone, so that an old one is left out, or use another store."
)
_UNREADABLE = "A file that cannot be read has to be mended, or moved away if you know that nothing was bought under it."


class Problem(NamedTuple):
    """Why a job cannot be counted, without a full stop, and what to do."""

    message: str
    advice: str


class Budget(Value):
    """The most that the jobs of a journal may cost together.

    Example:
        >>> Budget(amount="100", currency="CNY", days=30).amount
        Decimal('100')
    """

    amount: Amount = Field(gt=0, max_digits=18, decimal_places=8, description="The most that may be spent.")
    currency: Currency = Field(description="ISO 4217 code, for example CNY.")
    days: int | None = Field(
        default=None, ge=1, le=36_500, description="Count only jobs of the last so many days; empty for all of the journal."
    )

    makers_list: bool = Field(
        default=False, description="Count by the list of a model's maker where neither you nor the gateway names a price; else refuse."
    )

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}{'' if self.days is None else f' in {self.days} days'}"


class _LoopsLock:
    """An `asyncio.Lock`, first come first served, for several event loops in threads of their own: whoever waits blocks none of them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holder: asyncio.Future[None] | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """Wait for the lock, and hold it in here."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._guard:
            self._waiting.append(granted)
        self._grant()
        try:
            await granted
            yield
        finally:
            with self._guard:
                # Who is cancelled may wait still, or have been granted it just then.
                if self._holder is granted:
                    self._holder = None
                elif granted in self._waiting:
                    self._waiting.remove(granted)
            self._grant()

    def _grant(self) -> None:
        with self._guard:
            while self._waiting and self._holder is None:
                first = self._waiting.popleft()
                with suppress(RuntimeError):  # Its loop is closed.
                    first.get_loop().call_soon_threadsafe(_resolve, first)
                    self._holder = first


def _resolve(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)


class BudgetTracker:
    """Says of each job whether its budget has room for it.

    The intent is written before it is counted, so of two processes that come at the same moment each sees the other's: both may be
    refused, but never do both go over. Within one tracker there is an order: a job waits until those before it are decided, and counts
    none of those after it, so that exactly what fits is bought. It serves all event loops of a process: mapped tasks have one each.

    Whoever is refused sends nothing and releases its lease. An entry is read once, and again when it was written anew.
    """

    def __init__(self, budget: Budget, journal: Journal) -> None:
        self._budget = budget
        self._journal = journal
        self._index = Index(journal)
        self._totals = _Totals(budget)
        self._undecided: set[str] = set()
        self._refused: dict[str, str] = {}
        self._refreshing = _LoopsLock()
        # Around what one thread must not see half of another's; nothing is awaited under it.
        self._guard = threading.Lock()
        self._refreshes_begun = 0
        self._refreshes_done = 0

    @property
    def share(self) -> float:
        """How much of the budget is spent, as far as this tracker has read; 1 is all of it."""
        return float(self._totals.spent / self._budget.amount)

    def problem(self, line: Line) -> Problem | None:
        """Why a job that is yet to be bought cannot be counted, so that it is refused whatever else is bought; None where it can."""
        return self._totals.problem(line, is_bought=False)

    async def remaining(self) -> Decimal:
        """What is left of the budget now, which may be less than nothing; BudgetExceeded where the journal cannot be counted."""
        await self._refresh()
        if self._totals.problems:
            raise self._uncountable(list(self._totals.problems.values()))
        return EXACT.subtract(self._budget.amount, self._totals.spent)

    def check(self, entry: JournalEntry) -> None:
        """Refuse a job that can have no room whatever else is bought. Nothing is read, so this may come before the lease."""
        line = Line.of(entry)
        if (problem := self.problem(line)) is not None:
            raise self._refusal(f"{problem.message}, so the budget of {self._budget} cannot be kept.", problem.advice)
        if line.cost is not None and line.cost > self._budget.amount:
            raise self._refusal(
                f"This job at {line.cost:f} {self._budget.currency} would pass the budget of {self._budget} all by itself.",
                "Raise the budget, or leave the job out.",
            )

    async def admit(self, entry: JournalEntry, instead_of: JournalEntry | None = None) -> None:
        """Refuse a job that has no room."""
        self._refused.pop(entry.digest, None)
        first = instead_of is None or instead_of.may_be_bought_again
        if first:
            # Only a first intent stands for nothing but this job; what a later one took the place of may be charged.
            with self._guard:
                self._undecided.add(entry.digest)
                self._totals.strike(entry.digest)
        try:
            self.check(entry)
            await self._refresh()
            with self._guard:
                self._decide(entry)
        except BaseException:
            if first:
                self._refused[entry.digest] = entry.owner.claim
            raise
        finally:
            self._undecided.discard(entry.digest)

    def _decide(self, entry: JournalEntry) -> None:
        before = self._totals.strike(entry.digest)
        try:
            self._totals.enter(self._fitting(entry))
        except BudgetExceeded:
            if before is not None:
                self._totals.enter(before._replace(revision=entry.revision))
            raise

    def _fitting(self, entry: JournalEntry) -> Line:
        line = Line.of(entry)
        totals = self._totals
        if totals.problems:
            raise self._uncountable(list(totals.problems.values()))
        if EXACT.add(totals.spent, line.cost or Decimal(0)) > self._budget.amount:
            jobs = "1 job stands" if totals.charged == 1 else f"{totals.charged} jobs stand"
            raise self._refusal(
                f"This job at {line.cost:f} {self._budget.currency} would pass the budget of {self._budget}:"
                f" {jobs} in the journal for {totals.spent:f} {self._budget.currency}.",
                "Raise the budget, or leave the job out.",
            )
        return line

    def _uncountable(self, problems: list[Problem]) -> BudgetExceeded:
        more = "" if len(problems) == 1 else f" ({len(problems)} entries of the journal cannot be counted)"
        return self._refusal(
            f"{problems[0].message}, so the budget of {self._budget} cannot be kept{more}.",
            " ".join(dict.fromkeys(problem.advice for problem in problems)),
        )

    async def _refresh(self) -> None:
        """Bring the totals up to date. One refresh is for all who came before it began."""
        came_during = self._refreshes_begun
        async with self._refreshing.held():
            if self._refreshes_done > came_during:
                return
            self._refreshes_begun += 1
            number = self._refreshes_begun
            await self._read_what_changed()
            self._refreshes_done = number

    async def _read_what_changed(self) -> None:
        """The names alone show what came, what went and what changed."""
        revisions = await self._journal.revisions()
        await self._index.load(revisions)
        unread: dict[str, int] = {}
        with self._guard:
            self._totals.keep(revisions)
            for digest, revision in revisions.items():
                if digest in self._undecided or self._totals.counts(digest, revision):
                    continue
                if (line := self._index.get(digest, revision)) is not None:
                    self._totals.enter(line)
                else:
                    unread[digest] = revision
        async for one in self._journal.read_all(unread):
            if isinstance(one, Unreadable) and isinstance(one.error.__cause__, OSError):
                # It may be over with the next try, which a failure of this kind says.
                raise one.error.__cause__
            with self._guard:
                if isinstance(one, Unreadable):
                    self._totals.enter_problem(one)
                elif self._refused.get(one.digest) == one.owner.claim and one.state == "intent":
                    # Refused here, and its lease not released yet.
                    self._totals.strike(one.digest)
                elif one.digest not in self._undecided:
                    self._totals.enter(self._index.add(one))
        await self._index.save(revisions)
        self._index.leave_open_ones()
        if self._budget.days is not None:
            with self._guard:
                self._totals.leave_out(before=datetime.now(timezone.utc) - timedelta(days=self._budget.days))

    def _refusal(self, message: str, advice: str) -> BudgetExceeded:
        return BudgetExceeded(message, advice=f"{NOTHING_SENT} {advice}")


class _Totals:
    """The lines of a journal and their sum, kept up while lines come and go."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._lines: dict[str, Line] = {}
        self.problems: dict[str, Problem] = {}
        self.spent = Decimal(0)
        self.charged = 0

    def problem(self, line: Line, *, is_bought: bool = True) -> Problem | None:
        """Why a line cannot be counted, or None."""
        currency = self._budget.currency
        what = f"job {line.digest[:12]} ({line.model} at {line.gateway})"
        in_general = _WRITTEN_DOWN if is_bought else f"Give its price in {currency} in the credentials' price list."
        if line.cost is None:
            # By today's prices less might be counted than was paid.
            if is_bought:
                why = "" if line.reason is None else f' ("{line.reason}")'
                return Problem(f"What {what} costs was unknown when it was bought{why}", in_general)
            return Problem(f"What {what} costs is unknown{'' if line.reason is None else f': {line.reason}'}", in_general)
        if line.cost and line.by_maker and not self._budget.makers_list:
            known = f"What {what} costs is known by its maker's list alone ({line.cost:f} {line.currency})"
            counts = "What is known by a maker's list alone counts with `makers_list` in the budget: Budget(makers_list=True)."
            if line.currency != currency:
                return Problem(known, in_general)
            return Problem(known, counts if is_bought else f"{counts} Or give its price in {currency} in the credentials' price list.")
        if line.cost and line.currency != currency:
            return Problem(f"The {what} costs {line.cost:f} {line.currency}, and the budget is in {currency}", in_general)
        return None

    def counts(self, digest: str, revision: int) -> bool:
        """Whether an entry need not be read again, since it was not written anew."""
        line = self._lines.get(digest)
        return line is not None and digest not in self.problems and line.revision == revision

    def enter(self, line: Line) -> None:
        self.strike(line.digest)
        self._lines[line.digest] = line
        if (problem := self.problem(line)) is not None:
            self.problems[line.digest] = problem
        else:
            self.spent = EXACT.add(self.spent, line.cost or Decimal(0))
            self.charged += bool(line.cost)

    def enter_problem(self, unreadable: Unreadable) -> None:
        # It stays without a line, so that it is looked at again: somebody may mend it.
        digest = unreadable.error.digest or unreadable.file
        self.strike(digest)
        self.problems[digest] = Problem(unreadable.error.message.rstrip("."), _UNREADABLE)

    def strike(self, digest: str) -> Line | None:
        line = self._lines.pop(digest, None)
        if self.problems.pop(digest, None) is None and line is not None:
            self.spent = EXACT.subtract(self.spent, line.cost or Decimal(0))
            self.charged -= bool(line.cost)
        return line

    def keep(self, digests: Collection[str]) -> None:
        for digest in (self._lines.keys() | self.problems.keys()) - set(digests):
            self.strike(digest)

    def leave_out(self, *, before: datetime) -> None:
        for digest, line in list(self._lines.items()):
            if line.begun_at < before and (line.cost or digest in self.problems):
                self.enter(line._replace(cost=Decimal(0)))
