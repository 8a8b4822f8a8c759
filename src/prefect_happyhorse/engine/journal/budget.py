"""A limit on what is spent, counted in the journal across runs, processes and machines."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import NamedTuple

from pydantic import Field

from prefect_happyhorse.domain.errors import BudgetExceeded, SubmissionUncertain
from prefect_happyhorse.domain.prices import EXACT, Amount, Currency
from prefect_happyhorse.domain.values import Value
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.journal.owner import LeaseOwner

__all__ = ["Budget", "BudgetTracker"]

_AT_ONCE = 16


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

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}{'' if self.days is None else f' in {self.days} days'}"


class BudgetTracker:
    """Says of each job whether its budget has room for it.

    The intent is written before it is counted, so of two processes that come at the same moment each sees the other's: both may be
    refused, but never do both go over. Within one tracker there is an order: a job waits until those before it are decided, and counts
    none of those after it, so that exactly what fits is bought.

    Whoever is refused sends nothing and releases its lease. Entries are read once, since an estimate never changes: a job that is
    cancelled, or forgotten and bought anew, after this tracker read it counts as it was then. Only what was taken over is read each time.

    Args:
        budget: The budget.
        journal: Where what is bought stands.
    """

    def __init__(self, budget: Budget, journal: Journal) -> None:
        self._budget = budget
        self._journal = journal
        self._totals = _Totals()
        self._unread: set[str] = set()
        self._undecided: dict[str, JournalEntry] = {}
        self._refused: dict[str, LeaseOwner] = {}
        self._refreshing = asyncio.Lock()
        self._refreshes_begun = 0
        self._refreshes_done = 0

    def check(self, entry: JournalEntry) -> None:
        """Refuse a job that can have no room whatever else is bought. Nothing is read, so this may come before the lease."""
        line = self._line(entry)
        if line.problem is not None:
            raise self._refusal(
                f"{line.problem}, so the budget of {self._budget} cannot be kept.",
                f"Give its price in {self._budget.currency} in the credentials' price list.",
            )
        if line.cost > self._budget.amount:
            raise self._refusal(
                f"This job at {line.cost:f} {self._budget.currency} would pass the budget of {self._budget} all by itself.",
                "Raise the budget, or leave the job out.",
            )

    async def admit(self, entry: JournalEntry) -> None:
        """Refuse a job that has no room."""
        self._refused.pop(entry.digest, None)
        if entry.owner.epoch == 1:
            # Only a first intent stands for nothing but this job; what a later one took the place of may be charged.
            self._undecided[entry.digest] = entry
            self._totals.strike(entry.digest)
        try:
            self.check(entry)
            await self._refresh()
            self._decide(entry)
        except BaseException:
            if entry.owner.epoch == 1:
                self._refused[entry.digest] = entry.owner
            raise
        finally:
            self._undecided.pop(entry.digest, None)

    def _decide(self, entry: JournalEntry) -> None:
        before = self._totals.strike(entry.digest)
        try:
            line = self._fitting(entry)
        except BudgetExceeded:
            if before is not None:
                self._totals.enter(entry.digest, before)
            raise
        self._totals.enter(entry.digest, line)
        self._unread.discard(entry.digest)

    def _fitting(self, entry: JournalEntry) -> _Line:
        line = self._line(entry)
        totals = self._totals
        if totals.problems:
            raise self._uncountable(list(totals.problems.values()))
        if EXACT.add(totals.spent, line.cost) > self._budget.amount:
            jobs = "1 job stands" if totals.charged == 1 else f"{totals.charged} jobs stand"
            raise self._refusal(
                f"This job at {line.cost:f} {self._budget.currency} would pass the budget of {self._budget}:"
                f" {jobs} in the journal for {totals.spent:f} {self._budget.currency}.",
                "Raise the budget, or leave the job out.",
            )
        return line

    def _uncountable(self, problems: list[str]) -> BudgetExceeded:
        more = "" if len(problems) == 1 else f" That goes for {len(problems)} entries of the journal."
        return self._refusal(
            f"{problems[0]}, so the budget of {self._budget} cannot be kept.{more}",
            "What a job costs is written down when it is bought: count fewer `days`, so that an old job is left out, or use another store."
            " A file that cannot be read has to be mended, or moved away if you know that nothing was bought under it.",
        )

    async def _refresh(self) -> None:
        """Bring the totals up to date. One refresh is for all who came before it began."""
        came_during = self._refreshes_begun
        async with self._refreshing:
            if self._refreshes_done > came_during:
                return
            self._refreshes_begun += 1
            number = self._refreshes_begun
            await self._read_what_changed()
            self._refreshes_done = number

    async def _read_what_changed(self) -> None:
        """The names alone show what came, what went, and what was taken over: each take-over writes a file of its own."""
        digests = set(await self._journal.digests())
        taken_over = {name.partition(".")[0] for name in await self._journal.store.list("journal/leases")}
        self._totals.keep(digests)
        self._refused = {digest: owner for digest, owner in self._refused.items() if digest in digests}
        self._unread = (self._unread | (digests - self._totals.lines.keys()) | (digests & taken_over) | self._refused.keys()) & digests
        await self._read_all(self._unread - self._undecided.keys())
        if self._budget.days is not None:
            self._totals.leave_out(before=datetime.now(timezone.utc) - timedelta(days=self._budget.days))

    async def _read_all(self, digests: Collection[str]) -> None:
        names = iter(digests)
        failed: list[OSError] = []

        async def read_on() -> None:
            for digest in names:
                try:
                    await self._read(digest)
                except OSError as error:
                    failed.append(error)
                    return

        await asyncio.gather(*(read_on() for _ in range(min(_AT_ONCE, len(digests)))))
        if failed:
            raise failed[0]

    async def _read(self, digest: str) -> None:
        try:
            entry = await self._journal.read(digest)
        except SubmissionUncertain as error:
            # It stays unread, so that it is looked at again: somebody may mend it.
            self._totals.enter(digest, _Line(datetime.now(timezone.utc), Decimal(0), error.message.rstrip(".")))
            return
        except OSError as error:
            # An object store's own error names the bucket alone.
            file = self._journal.store.uri(self._journal.path(digest))
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), file) from error
        if digest in self._undecided:
            return
        self._unread.discard(digest)
        if entry is None or self._refused.get(digest) == entry.owner:
            # Removed meanwhile; or refused here, and its lease not released yet.
            self._totals.strike(digest)
            return
        self._refused.pop(digest, None)
        self._totals.enter(digest, self._line(entry))

    def _line(self, entry: JournalEntry) -> _Line:
        charged = len(entry.duplicate_jobs) + (0 if entry.may_be_bought_again else 1)
        estimate = entry.estimate
        if charged == 0:
            return _Line(entry.begun_at, Decimal(0))
        what = f"job {entry.digest[:12]} ({entry.request.model} at {entry.gateway})"
        if estimate is None or estimate.amount is None:
            reason = "" if estimate is None else f": {estimate.reason}"
            return _Line(entry.begun_at, Decimal(0), f"What {what} costs is unknown{reason}")
        if estimate.currency != self._budget.currency:
            problem = f"The {what} costs {estimate.amount:f} {estimate.currency}, and the budget is in {self._budget.currency}"
            return _Line(entry.begun_at, Decimal(0), problem)
        return _Line(entry.begun_at, EXACT.multiply(estimate.amount, charged))

    def _refusal(self, message: str, advice: str) -> BudgetExceeded:
        return BudgetExceeded(message, advice=f"Nothing was sent. {advice}")


class _Line(NamedTuple):
    """What an entry means for a budget."""

    begun_at: datetime
    cost: Decimal
    problem: str | None = None


class _Totals:
    """The lines of a journal and their sum, kept up while lines come and go."""

    def __init__(self) -> None:
        self.lines: dict[str, _Line] = {}
        self.problems: dict[str, str] = {}
        self.spent = Decimal(0)
        self.charged = 0

    def enter(self, digest: str, line: _Line) -> None:
        self.strike(digest)
        self.lines[digest] = line
        self.spent = EXACT.add(self.spent, line.cost)
        self.charged += line.cost > 0
        if line.problem is not None:
            self.problems[digest] = line.problem

    def strike(self, digest: str) -> _Line | None:
        line = self.lines.pop(digest, None)
        self.problems.pop(digest, None)
        if line is not None:
            self.spent = EXACT.subtract(self.spent, line.cost)
            self.charged -= line.cost > 0
        return line

    def keep(self, digests: Collection[str]) -> None:
        for digest in self.lines.keys() - digests:
            self.strike(digest)

    def leave_out(self, *, before: datetime) -> None:
        for digest, line in list(self.lines.items()):
            if line.begun_at < before and (line.cost or line.problem):
                self.enter(digest, _Line(line.begun_at, Decimal(0)))
