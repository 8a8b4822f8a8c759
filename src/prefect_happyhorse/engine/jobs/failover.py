"""A request that several gateways may make, bought at one of them at most.

A pool is an ordered list of sessions, each of another gateway. The request has one parent entry (`engine.journal.parent`), under a digest
of what is asked for alone: neither the order nor the choice of gateways is in it, so that whoever asks again finds where the money is. The
parent points at one child, the request's entry at one gateway. These rules keep two children from being bought:

1. Whoever buys at a child has read the parent at a revision that points at it, and read *after that* of every other child that was ever
   pointed at that certainly nothing is bought there. Of the rest, what is bought is gone on with, what is under way is waited for, and
   what is uncertain is raised, never passed by.
2. Just before each send, with the child's lease held, the parent's latest revision must still be that very one (`Lease.fence`).

Say that X is to send at C under revision n, and Y at D under a later one, m. X wrote its intent, and then read that n is the latest, so
before m was written. Y read C after it had read m, and so after the intent was there, which goes only by X's own word that nothing was
bought. So Y meets the intent or what became of it, and does not buy; or X meets m, and does not send. Whoever dies in between leaves an
intent at C or a parent that points to D, and the next run goes by the same rules. A run that lost the parent to another goes along with it.

Three things may lead to a second purchase, and each of them somebody asked for: `on_uncertain="resubmit"`, a job that a person had
forgotten, and `after_failure`. What is made at one gateway by itself, outside of any pool, is found and gone on with, but not held back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Literal, NamedTuple

from prefect_happyhorse.catalog import as_offered, of_family
from prefect_happyhorse.domain.errors import (
    BudgetExceeded,
    GatewayUnavailable,
    GenerationError,
    InvalidRequest,
    MediaUnreachable,
    Money,
    PollRejected,
    QuotaExceeded,
    SubmissionUncertain,
)
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.engine.jobs.breaker import is_resting, note_failure, note_success
from prefect_happyhorse.engine.jobs.hints import goes_on, rebuy, resolve_uncertain
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import SubmitPolicy, Submitted
from prefect_happyhorse.engine.journal.digest import request_digest
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.journal.lease import Superseded, wait_for_owner
from prefect_happyhorse.engine.journal.parent import Child, Parent, Parents
from prefect_happyhorse.gateways import Account, CallUnavailable

__all__ = ["Order", "Pool", "PreparedPool", "SubmitOne"]

Order = Literal["given", "cheapest", "fastest"]

SubmitOne = Callable[[Session, Prepared, SubmitPolicy], Awaitable[Submitted]]
"""Submits at one gateway of a pool."""

# A gateway that is not there for a moment is asked again; one that is not there for longer is passed by, where there is another.
_PATIENT = (5, 120.0)
_IMPATIENT = (2, 5.0)
_ASKED_AT_MOST = 3
_LOOK_AGAIN_S = 0.2

_log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A gateway of a pool that can carry a request, and the request as it goes there."""

    session: Session
    prepared: Prepared

    @property
    def child(self) -> Child:
        """What the parent calls it."""
        account = self.prepared.account
        return Child(gateway=account.gateway, account=account.label, digest=self.prepared.digest)


class PreparedPool(NamedTuple):
    """A request that may be submitted: at least one gateway can carry it."""

    digest: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Pool:
    """Several gateways for the same requests.

    Args:
        sessions: Who may pay, the first choice first, each at another gateway; they share one store.
        order: How the choices are ordered: as given, by what a request should cost, or by how long jobs were seen to take.
        after_failure: Whether a job that its provider ended without a result is bought again at the next gateway.
        tell: Says what a person should know of the choice.
        on_rest: Called with an account that failed so often that it rests, and for how many seconds.
    """

    sessions: Sequence[Session]
    order: Order = "given"
    after_failure: bool = False
    tell: Callable[[str], object] = _log.warning
    on_rest: Callable[[Account, float], object] = lambda _, __: None
    _told: set[str] = field(default_factory=set[str], repr=False, compare=False)

    def __post_init__(self) -> None:
        if problem := pool_problem([session.account.gateway for session in self.sessions]):
            raise InvalidRequest(f"{problem}. Nothing was sent.", problems=(problem,))

    def of(self, job: Job | JournalEntry) -> Session:
        """The session of the account that paid for a job."""
        payer = (job.gateway, job.account)
        found = next((one for one in self.sessions if (one.account.gateway, one.account.label) == payer), None)
        if found is None:
            named = ", ".join(one.account.gateway for one in self.sessions)
            name = job.task_id if isinstance(job, Job) else job.digest[:12]
            told = f"Job {name} belongs to account {job.account!r} of {job.gateway}; the pool is of {named}"
            raise ValueError(f"{told}. Nothing was sent.")
        return found

    @property
    def rounds(self) -> int:
        """How often one request may be bought in a run: more than once only after a failure."""
        return len(self.sessions) if self.after_failure else 1

    async def prepare(self, request: GenerationRequest, *, take: int = 1) -> PreparedPool:
        """Check a request against the route of each gateway; one that cannot carry it is left out, and told. Nothing is sent."""
        neutral = of_family(request)
        candidates: list[Candidate] = []
        problems: list[str] = []
        for session in self.sessions:
            gateway = session.account.gateway
            try:
                candidates.append(Candidate(session, await session.prepare(as_offered(neutral, gateway), take=take)))
            except InvalidRequest as error:
                problems += [f"{gateway}: {problem}" for problem in error.problems or (error.message,)]
        if not candidates:
            raise InvalidRequest(
                f"No gateway of the pool can take this {request.capability} with {request.model!r}. Nothing was sent.",
                capability=request.capability,
                model=request.model,
                problems=tuple(problems),
            )
        for problem in problems:
            self._tell_once(f"A gateway of the pool is left out, since it cannot carry the request: {problem}")
        # A sandbox's jobs must never pass for a paid gateway's.
        place = "sandbox" if {session.account.label for session in self.sessions} == {"sandbox"} else "*"
        fingerprints = candidates[0].prepared.fingerprints
        return PreparedPool(request_digest(neutral, gateway="*", account=place, take=take, fingerprints=fingerprints), tuple(candidates))

    async def submit(self, prepared: PreparedPool, submit: SubmitOne) -> Submitted:
        """Submit a prepared request at one gateway at most: at the first that does not certainly refuse it."""
        return await _Run(self, prepared, submit, await self._ordered(prepared.candidates)).submit()

    async def _ordered(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        ordered = list(candidates)
        if self.order != "given":
            ranks = self._costs(ordered) if self.order == "cheapest" else await self._durations(ordered)
            ordered = [ordered[number] for number in sorted(range(len(ordered)), key=ranks.__getitem__)]
        rests = await is_resting(one.prepared.account for one in ordered)
        for one, rest in zip(ordered, rests, strict=True):
            if rest and not all(rests):
                self._tell_once(f"{one.child.gateway} failed often and rests: the others are asked before it.")
        # Sorting keeps the order of those that are equal.
        return [ordered[number] for number in sorted(range(len(ordered)), key=rests.__getitem__)]

    def _costs(self, candidates: Sequence[Candidate]) -> list[tuple[bool, Decimal]]:
        estimates = [one.prepared.estimate for one in candidates]
        currencies = sorted({one.currency for one in estimates if one.currency is not None})
        if len(currencies) > 1:
            self._tell_once(f"Prices in {' and '.join(currencies)} cannot be compared: the pool's gateways are asked in the given order.")
            return [(False, Decimal(0)) for _ in estimates]
        for one, estimate in zip(candidates, estimates, strict=True):
            if not estimate.known:
                self._tell_once(f"What it costs at {one.child.gateway} is unknown, so it is asked last: {estimate.reason}")
        return [(not one.known, one.amount or Decimal(0)) for one in estimates]

    async def _durations(self, candidates: Sequence[Candidate]) -> list[tuple[bool, float]]:
        ranks: list[tuple[bool, float]] = []
        for session, prepared in candidates:
            durations = session.shared.durations_of(session.account, prepared.route, session.store)
            await durations.look(session.store)
            if not durations.belief.is_learned:
                self._tell_once(f"How long {prepared.account.gateway} takes is not learned yet, so it is asked last.")
            ranks.append((not durations.belief.is_learned, durations.belief.median_s if durations.belief.is_learned else 0.0))
        return ranks

    def _tell_once(self, sentence: str) -> None:
        """Tell what is so for many requests only once."""
        if sentence not in self._told:
            self._told.add(sentence)
            self.tell(sentence)


def pool_problem(gateways: Sequence[str]) -> str | None:
    """Why these gateways make no pool, or None."""
    if not gateways:
        return "A pool needs at least one gateway (got an empty list)"
    if twice := [gateway for gateway, count in Counter(gateways).items() if count > 1]:
        return f"Each gateway may stand in a pool once (got {', '.join(twice)} more than once), with one account"
    return None


class _Run:
    """One run's way through the gateways of a pool for one request."""

    def __init__(self, pool: Pool, prepared: PreparedPool, submit: SubmitOne, order: Sequence[Candidate]) -> None:
        self._pool = pool
        self._digest = prepared.digest
        self._submit_one = submit
        self._candidates = {one.child: one for one in order}
        first = order[0].session
        self._journal, self._shared, self._sleep = first.journal, first.shared, first.sleep
        self._parents = Parents(first.store)
        self._refused: dict[Child, GenerationError] = {}
        self._asked: Counter[Child] = Counter()
        self._lost = 0
        # Whether the run may still say by itself where the parent points; afterwards it goes along with the others.
        self._begins = True

    async def submit(self) -> Submitted:
        """The job, bought where need be."""
        while True:
            parent = await self._parents.read(self._digest)
            if (child := await self._next(parent)) is None:
                continue
            if parent is None or parent.current != child:
                await self._shared.prove(self._journal)
                await self._parents.point(self._digest, parent, child)
                self._begins = False
                # What the others are is only known for certain once they are read after this.
                continue
            self._begins = False
            if (submitted := await self._try(child, parent.revision)) is not None:
                return submitted

    async def _next(self, parent: Parent | None) -> Child | None:
        """Where the request is, or may be, bought, else where it is to be tried; None where something changed meanwhile."""
        known = () if parent is None else (parent.current, *parent.tried)
        found = await self._read((*known, *(self._candidates if self._begins else ())))
        # Where the parent points an intent may be taken back yet, and is bought anew there, so that the others come before it.
        for child, entry in sorted(found.items(), key=lambda one: parent is not None and one[0] == parent.current and _is_intent(one[1])):
            if entry is None or self._is_clear(entry):
                continue
            elsewhere = child not in self._candidates
            # Where the parent points the submit itself waits. Elsewhere a run may just be about to see that it has lost the parent.
            waits = entry.state == "intent" and (elsewhere or parent is None or child != parent.current)
            if waits and not await wait_for_owner(entry, self._journal, self._sleep):
                return None
            if elsewhere:
                raise _is_elsewhere(child, entry)
            if self._asked[child] >= _ASKED_AT_MOST and child in self._refused:
                raise self._refused[child]
            return child
        if parent is not None and not self._begins and parent.current in self._left(found):
            return parent.current
        if left := self._left(found):
            return left[0]
        if self._refused:
            raise self._none_took_it()
        # Each has failed, as the submit itself will say.
        return next(child for child in self._candidates if child in found)

    async def _read(self, children: Iterable[Child]) -> dict[Child, JournalEntry | None]:
        unique = list(dict.fromkeys(children))
        # Never what this process remembers: another may have written since.
        entries = await asyncio.gather(*(self._journal.read(child.digest) for child in unique))
        return dict(zip(unique, entries, strict=True))

    def _is_clear(self, entry: JournalEntry) -> bool:
        """Whether the next gateway may be tried: certainly nothing is bought, or a failure that is to be bought again."""
        return entry.may_be_bought_again or (self._pool.after_failure and entry.state == "failed")

    def _left(self, found: dict[Child, JournalEntry | None]) -> list[Child]:
        failed = {child for child, entry in found.items() if entry is not None and entry.state == "failed"}
        return [child for child in self._candidates if child not in self._refused and child not in failed]

    async def _try(self, child: Child, revision: int) -> Submitted | None:
        """Submit at one gateway; None where it certainly bought nothing, or the parent points elsewhere by now."""
        session, prepared = self._candidates[child]
        others = self._candidates.keys() - self._refused.keys() - {child}
        policy = SubmitPolicy(partial(self._check, revision), *(_IMPATIENT if others else _PATIENT))
        self._asked[child] += 1
        try:
            submitted = await self._submit_one(session, prepared, policy)
        except Superseded:
            self._lost += 1
            # Two runs without a gateway in common give each other more and more time.
            await self._sleep(_LOOK_AGAIN_S * self._lost)
            return None
        except (BudgetExceeded, GatewayUnavailable, QuotaExceeded, MediaUnreachable) as error:
            if error.money is not Money.NOT_SPENT:
                raise
            if isinstance(error, (GatewayUnavailable, QuotaExceeded)):
                await self._count_outage(session.account)
            self._refused[child] = error
            self._pool.tell(f"{child} did not take the request, and certainly nothing was bought there: {error.message}")
            return None
        except SubmissionUncertain as error:
            # One of an earlier run was counted then.
            if isinstance(error.__cause__, CallUnavailable):
                await self._count_outage(session.account)
            raise
        if submitted.is_new:
            await note_success(session.account)
        return submitted

    async def _check(self, revision: int) -> None:
        if await self._parents.revision(self._digest) != revision:
            raise Superseded

    async def _count_outage(self, account: Account) -> None:
        if rest_s := await note_failure(account):
            self._pool.tell(f"{account.gateway} failed again and again, and rests for {rest_s:.0f} s.")
            self._pool.on_rest(account, rest_s)

    def _none_took_it(self) -> GenerationError:
        """The refusal that may pass, so that whoever may tries again does so; else the last."""
        refusals = list(self._refused.values())
        told = next((error for error in refusals if error.retryable), refusals[-1])
        each = "; ".join(f"{child.gateway}: {error.message}" for child, error in self._refused.items())
        if len(refusals) > 1:
            told.args = (f"None of the pool's gateways took the request. {each}",)
        return told


def _is_intent(entry: JournalEntry | None) -> bool:
    return entry is not None and entry.state == "intent"


def _is_elsewhere(child: Child, entry: JournalEntry) -> GenerationError:
    """What is said where the money is, or may be, at a gateway that this pool does not have for the request."""
    facts: dict[str, Any] = {"gateway": child.gateway, "account": child.account, "digest": child.digest, "model": entry.request.model}
    missing = "which this pool does not have, or which cannot carry the request"
    if entry.job is None:
        return SubmissionUncertain(
            f"A submit of this request may have been accepted by {child}, {missing}. Nothing was sent.",
            advice=resolve_uncertain(child.digest),
            **facts,
        )
    return PollRejected(
        f"This request was bought at {child}, {missing}. Nothing was sent.",
        task_id=entry.job.task_id,
        advice=f"Name {child.gateway} in the pool too. {goes_on(child.digest)} {rebuy(child.digest)}",
        **facts,
    )
