"""What many requests are yet to cost, before the first of them is bought."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Literal

from anyio import to_thread
from prefect.artifacts import acreate_markdown_artifact
from pydantic import ValidationError
from typing_extensions import Self

from prefect_happyhorse.artifacts.run import artifact_key, in_run, never_fatal
from prefect_happyhorse.catalog import resolve
from prefect_happyhorse.datasets.ids import Ids
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import BudgetExceeded, GenerationError, InvalidRequest
from prefect_happyhorse.domain.prices import EXACT, Estimate, total
from prefect_happyhorse.domain.requests import GenerationRequest, iter_media, parse_request, replace_media
from prefect_happyhorse.domain.validation import validation_problems
from prefect_happyhorse.engine.jobs.failover import Pool
from prefect_happyhorse.engine.jobs.prepare import Identified, Prepared
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.budget import NOTHING_SENT, Budget, Problem
from prefect_happyhorse.engine.journal.index import Line, contents
from prefect_happyhorse.engine.journal.journal import Journal, JournalState
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.dual import dual
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef, payer_of, store_of

__all__ = ["TO_COME", "Outlay", "estimate_requests"]

TO_COME = "https://example.com/to-come"
"""Stands for what an earlier step has yet to make."""

_PERHAPS_AGAIN = frozenset({"released", "forgotten", "cancelled"})


Asked = tuple[GenerationRequest | Mapping[str, Any], Credentials, int]
"""A request or its fields, who is to pay, and its take."""


class Outlay:
    """What is yet to be bought of any number of requests, counted one by one: what it holds does not grow with their number.

    Args:
        store: Where what is bought already is known.
        budget: The most that the jobs of the store's journal may cost together; None for no limit.

    Example:
        ```python
        async with Outlay("studio-store", budget=Budget(amount=100, currency="CNY")) as outlay:
            for request in requests:
                await outlay.add(request, "happyhorse")
        await outlay.refuse()
        ```
    """

    def __init__(self, store: StoreRef = None, *, budget: Budget | None = None) -> None:
        self._store = store
        self._budget = budget
        self._payers: dict[str, Session | Pool] = {}
        self._bought: _Bought | None = None
        self._seen = Ids()
        self._sums: dict[str, Estimate] = {}
        self._least = Decimal(0)
        self._uncounted = 0
        self._why: Problem | None = None
        self._advice: dict[str, None] = {}
        self.new = 0
        """How many requests are yet to be bought."""
        self.bought = 0
        """How many are bought already, or asked for twice, and so cost nothing more."""
        self.unknown = 0
        """Of how many that are yet to be bought the price is unknown."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._seen.close()

    @property
    def sums(self) -> dict[str, Decimal]:
        """What those of known price should cost, by currency."""
        return {currency: one.amount for currency, one in self._sums.items() if one.amount is not None}

    def __str__(self) -> str:
        if not self.new:
            return f"Nothing is yet to be bought; {self.bought} bought already"
        parts = [total(self._sums.values())] if self._sums else []
        parts += [f"{self.unknown} of unknown price"] if self.unknown else []
        return f"{self.new} yet to be bought for {' and '.join(parts)}; {self.bought} bought already"

    async def add(self, request: GenerationRequest | Mapping[str, Any], credentials: Credentials, *, take: int = 1) -> Sequence[str]:
        """Count a request, at a pool at the gateway that is named first.

        Args:
            request: The request or its fields.
            credentials: Who is to pay.
            take: As for `submit`.

        Returns:
            Why it cannot be made, one sentence a problem, and then it is not counted; none when it may be sent.
        """
        payer = await self._payer(credentials)
        try:
            parsed = parse_request(dict(request)) if isinstance(request, Mapping) else request
            if isinstance(payer, Session):
                resolve(parsed, payer.account.gateway)
        except ValidationError as error:
            return validation_problems(error)
        except InvalidRequest as error:
            return (error.message, *error.problems)
        try:
            await self._count(parsed, credentials, take)
        except InvalidRequest as error:
            return error.problems or (error.message,)
        return ()

    async def add_chain(self, requests: Iterable[Asked], *, to_come: str = TO_COME) -> None:
        """Count requests of which each may hold what the one before it makes.

        Args:
            requests: Each request or its fields, who is to pay, and its take.
            to_come: Stands for the medium that the request before makes, or has made already.

        Raises:
            InvalidRequest: When a request cannot be made.
        """
        before: MediaAsset | None = None
        for request, credentials, take in requests:
            parsed = parse_request(dict(request)) if isinstance(request, Mapping) else request
            before = await self._count(parsed, credentials, take, to_come=to_come, before=before)

    async def _count(
        self, request: GenerationRequest, credentials: Credentials, take: int, *, to_come: str = "", before: MediaAsset | None = None
    ) -> MediaAsset | None:
        """Count a request, of which `before` is what `to_come` stands for; what it made, where that is kept."""
        places = [(name, position) for name, position, medium in iter_media(request) if medium == to_come]
        if before is not None:
            request = replace_media(request, dict.fromkeys(places, before))
        found = await self._found(request, credentials, take)
        # What is made of something that there is not yet cannot be bought already.
        may_be_bought = not places or before is not None
        if may_be_bought:
            if self._bought is None:
                self._bought = await _Bought.read(PROCESS.journal(await store_of(self._store)))
            for digest in filter(None, (one.digest for one in found)):
                is_bought, asset = await self._bought.look(digest, with_asset=bool(to_come))
                if is_bought:
                    self.bought += 1
                    return asset
        # What was bought did fit its route; what the provider advises is told when it is submitted.
        prepared = [one.prepared(tell=False) if isinstance(one, Identified) else one for one in found]
        if may_be_bought:
            number = self.new + 1
            if await to_thread.run_sync(self._seen.first, prepared[0].digest, number) != number:
                self.bought += 1
                return None
        self.new += 1
        await self._add(prepared)
        return None

    async def _found(self, request: GenerationRequest, credentials: Credentials, take: int) -> Sequence[Identified | Prepared]:
        """What is looked for in the journal, and else would be sent; at a pool to one of its gateways."""
        payer = await self._payer(credentials)
        if isinstance(payer, Session):
            return [await payer.identify(request, take=take)]
        return [one.prepared for one in (await payer.prepare(request, take=take)).candidates]

    async def _payer(self, credentials: Credentials) -> Session | Pool:
        if not isinstance(credentials, str):
            return await payer_of(credentials, self._store)
        if credentials not in self._payers:
            self._payers[credentials] = await payer_of(credentials, self._store)
        return self._payers[credentials]

    async def _add(self, prepared: Sequence[Prepared]) -> None:
        one = prepared[0].estimate
        if one.amount is None or one.currency is None:
            self.unknown += 1
        else:
            before = self._sums.get(one.currency, Estimate(amount=Decimal(0), currency=one.currency, reason=""))
            sum_ = EXACT.add(before.amount or Decimal(0), one.amount)
            self._sums[one.currency] = Estimate(amount=sum_, currency=one.currency, reason="", at_most=before.at_most or one.at_most)
        if self._budget is None:
            return
        tracker = PROCESS.tracker(self._budget, await store_of(self._store))
        lines = [_line(candidate) for candidate in prepared]
        problems = [tracker.problem(line) for line in lines]
        costs = [line.cost or Decimal(0) for line, problem in zip(lines, problems, strict=True) if problem is None]
        if costs:
            self._least = EXACT.add(self._least, min(costs))
        else:
            self._uncounted += 1
            self._why = self._why or problems[0]
            self._advice |= {problem.advice: None for problem in problems if problem is not None}

    async def refuse(self, *, over_budget: Literal["refuse", "skip"] = "refuse") -> None:
        """Refuse what can never fit into what is left of the budget.

        Args:
            over_budget: Whether it is refused; or only told, so that as much is bought as fits.

        Raises:
            BudgetExceeded: When what is yet to be bought costs more than is left, or has a price that the budget cannot count.
        """
        if self._budget is None or not self.new:
            return
        why: list[str] = []
        advice: list[str] = []
        try:
            left = await PROCESS.tracker(self._budget, await store_of(self._store)).remaining()
        except BudgetExceeded as error:
            why.append(error.message)
            advice.append((error.advice or "").removeprefix(f"{NOTHING_SENT} "))
        else:
            if self._least > left:
                shown = max(left, Decimal(0))
                why.append(f"It costs {self._least:f} {self._budget.currency}, and {shown:f} {self._budget.currency} are left.")
                advice.append("Raise the budget, or leave something out.")
        if self._why is not None:
            why.append(f"{self._uncounted} of it cannot be counted: {self._why.message}.")
            advice += self._advice
        if not why:
            return
        told = f"What is yet to be bought ({self}) does not fit into the budget of {self._budget}. {' '.join(why)}"
        what_to_do = " ".join(dict.fromkeys(advice))
        if over_budget == "skip":
            run_logger().warning("%s What does not fit is not bought. %s", told, what_to_do)
            return
        raise BudgetExceeded(told, advice=f"{NOTHING_SENT} {what_to_do}")

    async def show(self) -> None:
        """Log it, and show it as an artifact of the run."""
        run_logger().info("%s.", self)
        if not in_run():
            return
        lines = ["| | |", "|---|---|", f"| yet to be bought | {self.new} |"]
        lines += [f"| for | {total([one])} |" for one in self._sums.values()]
        lines += [f"| of unknown price, which is not zero | {self.unknown} |", f"| bought already, and so free | {self.bought} |"]
        if self._budget is not None:
            lines.append(f"| budget | {self._budget} |")
        with never_fatal("The estimate"):
            await acreate_markdown_artifact("\n".join(lines), key=artifact_key("estimate"), description="What is yet to be bought")


class _Bought:
    """What stands in a journal as bought."""

    def __init__(self, journal: Journal, states: Mapping[str, JournalState]) -> None:
        self._journal = journal
        self._states = states

    @classmethod
    async def read(cls, journal: Journal) -> _Bought:
        lines, _, unreadable = await contents(journal)
        # What cannot be read may be bought.
        states: dict[str, JournalState] = {one.error.digest: "uncertain" for one in unreadable if one.error.digest is not None}
        states.update((line.digest, line.state) for line in lines)
        return cls(journal, states)

    async def look(self, digest: str, *, with_asset: bool) -> tuple[bool, MediaAsset | None]:
        """Whether a request is bought, or will not be since nobody knows; and what it made, where that is wanted and kept."""
        state = self._states.get(digest)
        if state is None:
            return False, None
        if state not in _PERHAPS_AGAIN and not (with_asset and state == "kept"):
            return True, None
        try:
            entry = await self._journal.read(digest)
        except GenerationError:
            # The submit will tell what is wrong with it, and buys nothing.
            return True, None
        return (False, None) if entry is None or entry.may_be_bought_again else (True, entry.asset)


def _line(prepared: Prepared) -> Line:
    """What a budget counts of a request, were it bought."""
    account, cost = prepared.account, prepared.estimate
    line = Line(prepared.digest, 1, datetime.now(timezone.utc), "intent", account.gateway, account.label, prepared.request.model)
    return line._replace(cost=cost.amount, currency=cost.currency, reason=cost.reason, by_maker=cost.basis == "maker")


@dual
async def estimate_requests(
    requests: Iterable[Asked],
    store: StoreRef = None,
    *,
    budget: Budget | None = None,
    to_come: str = TO_COME,
) -> Outlay:
    """What requests are yet to cost: what the journal of the store knows as bought costs nothing more.

    Args:
        requests: Each request or its fields, who is to pay, and its take.
        store: Where what is bought already is known.
        budget: The most that the jobs of the store's journal may cost together; None for no limit. `Outlay.refuse` holds to it.
        to_come: Stands for a medium that the request before it has yet to make, or has made already.

    Returns:
        How many are yet to be bought, for how much.

    Raises:
        InvalidRequest: When a request cannot be made.

    Example:
        ```python
        print(await estimate_requests([(TextToImage(model="gpt-image-2", prompt="A white horse"), "happyhorse", 1)]))
        ```
    """
    async with Outlay(store, budget=budget) as outlay:
        await outlay.add_chain(requests, to_come=to_come)
    return outlay
