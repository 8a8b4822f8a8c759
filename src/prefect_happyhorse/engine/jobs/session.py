"""One account and one store, with all that they share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import ClassVar

import anyio

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.errors import (
    DownloadFailed,
    GatewayUnavailable,
    GenerationError,
    JobExpired,
    Money,
    PollRejected,
    RequestRejected,
    SubmissionUncertain,
    error_context,
)
from prefect_happyhorse.domain.jobs import DEADLINE_S, Job, JobResult, JobSnapshot, JobStatus
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.domain.values import Labels
from prefect_happyhorse.engine.http.auth import TokenCache, TokenStore
from prefect_happyhorse.engine.http.client import send
from prefect_happyhorse.engine.jobs import manage
from prefect_happyhorse.engine.jobs.hints import goes_on, resolve_uncertain
from prefect_happyhorse.engine.jobs.poll import OnPoll, Poller, ignore
from prefect_happyhorse.engine.jobs.prepare import Identified, Prepared, identify
from prefect_happyhorse.engine.jobs.results import OutputStore, StoredResult
from prefect_happyhorse.engine.jobs.settle import Settler
from prefect_happyhorse.engine.jobs.shared import PROCESS, Shared
from prefect_happyhorse.engine.jobs.submit import OnUncertain, SubmitPolicy, Submitted, Submitter
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.journal.journal import Cancellation, Failure, Journal, JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account, CallError, CallRejected, CallUnavailable, get_gateway

__all__ = ["Session"]

_GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_DELETED = {
    "message": "The gateway deleted the job. That it is not charged nobody says: look at the provider's console.",
    "may_be_charged": True,
}


@contextmanager
def _once_paid(job: Job) -> Generator[None]:
    """Say of a store or a network that fails as such that the job is paid for, and how it is gone on with."""
    with error_context(job):
        try:
            yield
        except OSError as error:
            raise DownloadFailed(
                f"The job could not be waited for or kept: {type(error).__name__}: {error}.", advice=goes_on(job.digest)
            ) from error


@dataclass(frozen=True)
class Session:
    """Everything that is done with the jobs of one account and one store.

    Args:
        account: Who pays.
        store: Where the journal and the outputs lie.
        rate_limit: Waits until a poll may be sent, beside the limiter that all jobs of the account share in this process.
        tokens: Where access tokens are cached.
        clock: Seconds that only ever grow.
        sleep: Waits for so many seconds.
        shared: What is shared with the other sessions of the process.
    """

    account: Account
    store: Store
    rate_limit: Callable[[], Awaitable[None]] | None = None
    tokens: TokenCache = field(default_factory=TokenStore)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    shared: Shared = PROCESS

    rounds: ClassVar[int] = 1
    """How often one request may be bought in a run; see `Pool.rounds`."""

    @property
    def journal(self) -> Journal:
        """The journal of the store."""
        return self.shared.journal(self.store, sleep=self.sleep)

    async def prepare(self, request: GenerationRequest, *, take: int = 1) -> Prepared:
        """Check a request against its route and its media, and give it its digest. Nothing is sent."""
        return (await self.identify(request, take=take)).prepared()

    async def identify(self, request: GenerationRequest, *, take: int = 1) -> Identified:
        """Give a request its digest, unchecked: enough to look for what was made of it. Nothing is sent."""
        return await identify(request, self.account, take=take, store=self.store)

    async def submit(
        self,
        prepared: Prepared,
        *,
        on_uncertain: OnUncertain = "settle",
        flow_run_id: str | None = None,
        budget: Budget | None = None,
        labels: Labels | None = None,
        policy: SubmitPolicy | None = None,
    ) -> Submitted:
        """Submit a prepared request at most once; the result says whether this call bought the job. A turn is a pool's."""
        submitter = Submitter(
            store=self.store,
            on_uncertain=on_uncertain,
            flow_run_id=flow_run_id,
            tracker=None if budget is None else self.shared.tracker(budget, self.store),
            labels=labels or {},
            tokens=self.tokens,
            sleep=self.sleep,
            shared=self.shared,
            **({} if policy is None else policy._asdict()),
        )
        return await submitter.submit_or_find(prepared)

    def of(self, job: Job | JournalEntry) -> Session:
        """The session of the account that paid for a job: this one; see `Pool.of`."""
        return self

    def _poller(self, deadline_s: float = DEADLINE_S, on_poll: OnPoll = ignore, *, again: bool = False) -> Poller:
        return Poller(
            account=self.account,
            store=self.store,
            deadline_s=deadline_s,
            on_poll=on_poll,
            rate_limit=self.rate_limit,
            tokens=self.tokens,
            clock=self.clock,
            sleep=self.sleep,
            shared=self.shared,
            again=again,
        )

    async def poll(self, job: Job, *, deadline_s: float = DEADLINE_S, on_poll: OnPoll = ignore, again: bool = False) -> JobResult:
        """Wait for a job's result; one that ended without is asked for once more where `again` says so."""
        with _once_paid(job):
            return await self._poller(deadline_s, on_poll, again=again).poll(job)

    async def poll_once(self, job: Job) -> JobSnapshot:
        """Ask for a job once."""
        with _once_paid(job):
            return await self._poller().poll_once(job)

    @property
    def _outputs(self) -> OutputStore:
        return OutputStore(account=self.account, store=self.store, tokens=self.tokens, shared=self.shared)

    async def store_outputs(self, result: JobResult) -> StoredResult:
        """Store a job's outputs, or find that they are stored."""
        with _once_paid(result.job):
            return await self._outputs.store_outputs(result)

    async def find_kept(self, digests: Collection[str]) -> dict[str, StoredResult]:
        """What was made of those requests of which all is kept, by their digests, without the small pictures. Nothing is bought."""
        return await self._outputs.find_kept(digests)

    async def resume(self, entry: JournalEntry, *, deadline_s: float = DEADLINE_S, again: bool = False) -> StoredResult:
        """Wait for a job that stands in the journal, and store its outputs. Nothing is bought."""
        if entry.job is None and await self.settle(entry):
            entry = await self.journal.read(entry.digest) or entry
            if entry.job is None:
                told = f"The list of tasks of {entry.gateway} shows that this submit was not accepted."
                raise RequestRejected(told, gateway=entry.gateway, digest=entry.digest, advice="Run the same request again to buy it.")
        if entry.job is None:
            raise SubmissionUncertain(
                "Nobody knows whether this submit was accepted.",
                gateway=entry.gateway,
                digest=entry.digest,
                advice=resolve_uncertain(entry.digest),
            )
        return await self.store_outputs(await self.poll(entry.job, deadline_s=deadline_s, again=again))

    async def settle(self, entry: JournalEntry) -> bool:
        """Whether the gateway's list of tasks showed what became of an uncertain submit: a job, or surely none."""
        settler = Settler(self.account, self.journal, tokens=self.tokens, sleep=self.sleep, shared=self.shared)
        return await settler.settle(entry)

    async def adopt(self, entry: JournalEntry, task_id: str) -> JournalEntry:
        """Give an uncertain submit the job that it became, once the gateway says that it knows it."""
        job = await manage.adoptable(self.journal, entry, task_id, sleep=self.sleep)
        await self._check_known(job)
        await self.journal.accept(entry, job)
        return await self.journal.read(entry.digest) or entry

    async def _check_known(self, job: Job) -> None:
        unchanged = "Nothing was changed."
        with error_context(job):
            try:
                snapshot = await self._poller().snapshot(job, find_route(job.gateway, job.capability, job.model))
                reason = snapshot.message or snapshot.provider_status if snapshot.status is JobStatus.EXPIRED else None
            except CallRejected as call:
                if call.meaning == "authentication":
                    advice = f"{unchanged} Check the key in the GatewayCredentials block."
                    raise PollRejected(call.message, code=call.code, money=Money.MAY_BE_SPENT, advice=advice) from call
                reason = call.message
            except CallError as call:
                raise GatewayUnavailable(call.message, money=Money.MAY_BE_SPENT, advice=f"{unchanged} Adopt it again later.") from call
            if reason is not None:
                raise JobExpired(
                    f"{job.gateway} does not know a job {job.task_id}: {reason}",
                    money=Money.MAY_BE_SPENT,
                    advice=f"{unchanged} Check the id, and that the credentials are of the account that paid.",
                )

    async def cancel(self, job: Job) -> Cancellation:
        """Ask the gateway to cancel a job, and record what it says; it is cancelled only once the gateway says so of the job itself."""
        deletes = get_gateway(job.gateway).cancel_deletes
        answer = (await self._kept_from_deletion(job) if deletes else None) or await self._send_cancel(job)
        if answer.accepted:
            answer = await self._confirm_cancel(job, answer, deletes=deletes)
        entry = await self.journal.read(job.digest)
        if entry is not None and entry.job is not None and entry.job.task_id == job.task_id and entry.is_open:
            ended = {"failure": Failure(message=answer.message)} if answer.may_be_charged else {}
            await self.journal.record(job, "cancelled" if answer.accepted else entry.state, {"cancellation": answer, **ended})
        return answer

    async def _kept_from_deletion(self, job: Job) -> Cancellation | None:
        """Why a job must not be deleted, or None where it may: once it has begun, what is paid for would go with it."""
        try:
            snapshot = await self.poll_once(job)
        except GenerationError as error:
            why = f"could not be asked how it stands: {error.message}"
        else:
            if snapshot.status is JobStatus.QUEUED:
                return None
            why = f"says of the job that it is {snapshot.provider_status or snapshot.status.value}"
        return Cancellation(
            accepted=False, message=f"A delete takes a job away with all that it has made, and the gateway {why}. {goes_on(job.digest)}"
        )

    async def _confirm_cancel(self, job: Job, answer: Cancellation, *, deletes: bool) -> Cancellation:
        try:
            snapshot = await self.poll_once(job)
        except GenerationError as error:
            if deletes and (isinstance(error, JobExpired) or error.status_code in _GONE):
                return answer.model_copy(update=_DELETED)
            said = f"could not be asked whether it did: {error.message}"
        else:
            if deletes and snapshot.status in {JobStatus.CANCELLED, JobStatus.EXPIRED}:
                return answer.model_copy(update=_DELETED)
            if snapshot.status is JobStatus.CANCELLED:
                return answer
            said = f"says of the job that it is {snapshot.provider_status or snapshot.status.value}"
        message = f"The gateway took the call and {said}. The job is not taken to be cancelled."
        return answer.model_copy(update={"accepted": False, "message": message})

    async def _send_cancel(self, job: Job) -> Cancellation:
        gateway = get_gateway(job.gateway)
        request = gateway.cancel_request(job.task_id, self.account)
        if request is None:
            return Cancellation(accepted=False, message=f"{job.gateway} documents no way to cancel a job; it goes on and can be collected.")
        try:
            async with self.shared.connections.client() as client:
                request_id = gateway.read_cancel(await send(client, gateway, self.account, request, self.tokens))
        except CallUnavailable as error:
            return Cancellation(accepted=False, message=f"The gateway could not be asked: {error.message}")
        except CallError as error:
            whose = gateway.facts.borrowed_note("cancel")
            message = f"{error.message} The call is {whose}." if whose else error.message
            return Cancellation(accepted=False, message=message, request_id=error.request_id)
        return Cancellation(accepted=True, message="The gateway took the job back before it began.", request_id=request_id)
