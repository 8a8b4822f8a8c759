"""A limit on what is spent, counted in the journal across runs, processes and machines."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from prefect_happyhorse.domain.errors import BudgetExceeded
from prefect_happyhorse.engine.journal import Journal, JournalEntry

__all__ = ["Budget", "Purse"]

_AT_ONCE = 16


class Budget(BaseModel):
    """The most that the jobs of a journal may cost together.

    Example:
        >>> Budget(amount="100", currency="CNY", days=30).amount
        Decimal('100')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Decimal = Field(gt=0, allow_inf_nan=False, description="The most that may be spent.")
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code, for example CNY.")
    days: int | None = Field(default=None, ge=1, description="Count only jobs of the last so many days; empty for all of the journal.")

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}{'' if self.days is None else f' in {self.days} days'}"

    @field_validator("amount", mode="before")
    @classmethod
    def _exact(cls, value: object) -> object:
        # 0.1 as a float is not a tenth, and money is counted exactly.
        return str(value) if isinstance(value, float) else value


class Purse:
    """Says of each job whether its budget has room for it.

    The intent is written before it is counted, so of two processes that come at the same moment each sees the other's: both may be
    refused, but never do both go over.

    Args:
        budget: The budget.
        journal: Where what is bought stands.
    """

    def __init__(self, budget: Budget, journal: Journal) -> None:
        self._budget = budget
        self._journal = journal
        self._known: dict[str, JournalEntry] = {}
        self._turn = asyncio.Lock()

    async def admit(self, entry: JournalEntry) -> None:
        """Refuse a job that has no room.

        Args:
            entry: Its intent, as it stands in the journal.

        Raises:
            BudgetExceeded: When the journal with this job would cost more than the budget, or a price is not known. Nothing was sent.
            SubmissionUncertain: When an entry cannot be read, since it may stand for money.
        """
        async with self._turn:
            await self._read_what_is_new()
        self._known[entry.digest] = entry
        counted = [known for known in self._known.values() if self._counts(known)]
        spent = sum((self._cost(known) for known in counted if known.digest != entry.digest), Decimal(0))
        cost = self._cost(entry)
        if spent + cost > self._budget.amount:
            raise self._refusal(
                f"This job at {cost} {self._budget.currency} would pass the budget of {self._budget}: {len(counted) - 1} jobs have"
                f" spent {spent} {self._budget.currency} or are about to.",
                "Raise the budget, or leave the job out.",
            )

    async def _read_what_is_new(self) -> None:
        """Entries keep their estimate for ever, so each is read once; after that the names alone tell what came and went."""
        digests = set(await self._journal.digests())
        for gone in self._known.keys() - digests:
            del self._known[gone]
        names = iter(digests - self._known.keys())

        async def read_on() -> None:
            for digest in names:
                if (entry := await self._journal.read(digest)) is not None:
                    self._known[digest] = entry

        await asyncio.gather(*(read_on() for _ in range(_AT_ONCE)))

    def _counts(self, entry: JournalEntry) -> bool:
        if entry.may_be_bought_again:
            return False
        days = self._budget.days
        return days is None or datetime.now(timezone.utc) - entry.begun_at <= timedelta(days=days)

    def _cost(self, entry: JournalEntry) -> Decimal:
        estimate = entry.estimate
        if estimate is None or estimate.amount is None:
            reason = "" if estimate is None else f": {estimate.reason}"
            raise self._refusal(
                f"What job {entry.digest[:12]} ({entry.request.model} at {entry.gateway}) costs is unknown{reason}, so the budget of"
                f" {self._budget} cannot be kept.",
                "Give its price in the credentials' price list; or count fewer `days`, so that an old job is left out.",
            )
        if estimate.currency != self._budget.currency:
            raise self._refusal(
                f"Job {entry.digest[:12]} costs {estimate.amount} {estimate.currency}, and the budget is in {self._budget.currency}.",
                "Keep jobs of other currencies in another store, or count fewer `days`.",
            )
        return estimate.amount

    def _refusal(self, message: str, advice: str) -> BudgetExceeded:
        return BudgetExceeded(message, advice=f"Nothing was sent. {advice}")
