"""Ask for a job until it ends or its deadline passes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from http import HTTPStatus

import anyio
import httpx

from prefect_happyhorse.catalog import Route, find_route
from prefect_happyhorse.domain.errors import (
    CatalogError,
    GenerationError,
    InvalidRequest,
    JobExpired,
    JobFailed,
    JobTimedOut,
    Money,
    PollRejected,
    error_context,
)
from prefect_happyhorse.domain.jobs import DEADLINE_S, Job, JobResult, JobSnapshot, JobStatus
from prefect_happyhorse.engine.http.auth import TokenCache, TokenStore
from prefect_happyhorse.engine.http.client import send
from prefect_happyhorse.engine.jobs.durations import Durations
from prefect_happyhorse.engine.jobs.hints import rebuy, repoll
from prefect_happyhorse.engine.jobs.shared import PROCESS, Shared
from prefect_happyhorse.engine.journal.index import billed
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.engine.telemetry import Step
from prefect_happyhorse.gateways import (
    Account,
    CallError,
    CallRejected,
    CallUnavailable,
    JobUnknown,
    MalformedResponse,
    get_gateway,
    poll_error,
)

__all__ = ["OnPoll", "Poller", "ignore"]

OnPoll = Callable[[Job, JobSnapshot, float], Awaitable[None]]
"""Called after every poll with the job, its snapshot, and the seconds since submit.

For a job that is not polled at once it is called first with a queued one.
"""

_STRANGE_ANSWERS = 5
_JUST_SUBMITTED_S = 5.0

# A gateway may need a moment before it knows a job that it has just accepted, and one of its machines may not know what another does.
_MISSING_FOR_S = 60.0
_MISSING_ANSWERS = 4


async def ignore(job: Job, snapshot: JobSnapshot, elapsed_s: float) -> None:
    """An `OnPoll` that does nothing."""


@dataclass(frozen=True)
class Poller:
    """Waits for jobs.

    Args:
        deadline_s: How long a job may take, in seconds since it was submitted, restarts included.
        on_poll: Called after every poll.
        rate_limit: Waits until a poll may be sent, beside the limiter that all jobs of the account share in this process.
        again: Whether a job that ended without a result is asked for once more.
    """

    account: Account
    store: Store
    deadline_s: float = DEADLINE_S
    on_poll: OnPoll = ignore
    rate_limit: Callable[[], Awaitable[None]] | None = None
    tokens: TokenCache = field(default_factory=TokenStore)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    shared: Shared = PROCESS
    again: bool = False

    async def poll_once(self, job: Job) -> JobSnapshot:
        """Ask for a job once."""
        with error_context(job):
            try:
                return await self.snapshot(job, _route_of(job))
            except CallError as call:
                raise poll_error(call, gateway=job.gateway) from call

    async def poll(self, job: Job) -> JobResult:
        """Poll a job until it has a result."""
        with error_context(job):
            return await self._poll(job, _route_of(job))

    async def _poll(self, job: Job, route: Route) -> JobResult:
        journal = self.shared.journal(self.store)
        entry = await journal.latest(job.digest)
        if (known := _known_result(entry, job, again=self.again)) is not None:
            return known
        durations = self.shared.durations(job, route, self.store)
        try:
            # Held for the whole wait, so that the connection lives from one poll to the next.
            async with self.shared.connections.client() as client:
                parent = None if entry is None else entry.traceparent
                with client.telemetry.step("poll", self.account, job, digest=job.digest, parent=parent) as step:
                    known_expired = entry is not None and entry.state == "expired"
                    result, took_s = await self._wait(job, route, durations, step, known_expired=known_expired)
                    estimate = None if entry is None else entry.estimate
                    step.tell_cost("billed", billed(estimate, result.usage), estimate and estimate.currency)
        except (JobFailed, JobExpired) as error:
            if isinstance(error, JobExpired) and (known := _result_with_addresses(entry, job)) is not None:
                # An address may outlive what the gateway remembers, and what our clock says of it: it is tried before it is given up.
                return known
            if isinstance(error, JobExpired) and entry is not None and self._is_anothers(entry) and not _outlived(job):
                raise PollRejected(
                    f"{error.message} It was submitted by another key than this one, whose account may be another's.",
                    code=error.code,
                    advice="The job is not touched: ask by the key that it was submitted by. Keys of several accounts need several labels.",
                ) from error
            await journal.known_failure(error, job)
            raise
        await journal.record(job, "succeeded", {"result": result})
        if took_s is not None:
            await durations.learn(took_s, self.store)
        return result

    def _is_anothers(self, entry: JournalEntry) -> bool:
        """Whether a job was surely submitted by another key: of another account's a gateway says that there is none."""
        return entry.key_fingerprint not in {None, self.account.fingerprint(entry.owner.claim)}

    async def _wait(
        self, job: Job, route: Route, durations: Durations, step: Step, *, known_expired: bool
    ) -> tuple[JobResult, float | None]:
        """The result, and how long the job took, where that is known."""
        already_s = max(0.0, (datetime.now(timezone.utc) - job.submitted_at).total_seconds())
        started = self.clock()
        polls = 0
        tolerance = _ErrorTolerance(expected=known_expired or _outlived(job))
        await durations.look(self.store)
        # When the job was last seen running: right after its submit it surely was.
        ran_s = already_s if already_s < _JUST_SUBMITTED_S else None
        if ran_s is not None and durations.belief.is_learned:
            await self.on_poll(job, JobSnapshot(status=JobStatus.QUEUED), ran_s)
            await self.sleep(min(durations.belief.pause_s(ran_s), max(self.deadline_s - ran_s, 0.0)))
        while True:
            elapsed_s = already_s + self.clock() - started
            left_s = self.deadline_s - elapsed_s
            retry_after_s = None
            try:
                polls += 1
                step.tell("happyhorse.polls", polls)
                snapshot = await self.snapshot(job, route)
                if snapshot.status is JobStatus.EXPIRED:
                    reason = snapshot.message or "no reason was given"
                    raise JobUnknown(reason, meaning="not_found", code=snapshot.code, request_id=snapshot.request_id)
                tolerance.reset()
                if known_expired:
                    known_expired = False
                    await self.shared.journal(self.store).record(job, "submitted", {"failure": None})
                await self.on_poll(job, snapshot, elapsed_s)
                if tolerance.believes(snapshot.status) or (snapshot.status.final and left_s <= 0):
                    # It ended somewhere between the last two answers. A job that another run left has no such bounds.
                    return _result(job, route, snapshot, polls), None if ran_s is None else (ran_s + elapsed_s) / 2
                ran_s = elapsed_s
            except CallUnavailable as error:
                retry_after_s = error.retry_after_s
            except (CallRejected, MalformedResponse) as error:
                if tolerance.ends(error, elapsed_s) or (left_s <= 0 and isinstance(error, CallRejected)):
                    raise _ended_by(error, job) from error
            if left_s <= 0:
                raise JobTimedOut(
                    f"The job is not finished {elapsed_s:.0f} s after its submit; the deadline was {self.deadline_s:.0f} s.",
                    advice="It may still finish: run the same request again with a later deadline, and it is collected, not bought again.",
                )
            await self.sleep(min(durations.belief.pause_s(elapsed_s, retry_after_s=retry_after_s), left_s))

    async def snapshot(self, job: Job, route: Route) -> JobSnapshot:
        """What the gateway says of a job now; a failed call is raised as what it is."""
        paths = self.shared.poll_paths(self.account, route)
        for path in paths:
            try:
                snapshot = await self._ask(job, route, replace(self.account, poll_path=path))
            except JobUnknown:
                raise
            except CallRejected as error:
                # Not a word about the job, which is surely there: the path is none that this gateway has.
                if error.status_code != HTTPStatus.NOT_FOUND or len(paths) == 1:
                    raise
                if path == paths[-1]:
                    named = f"poll_path in the GatewayCredentials block, or {job.gateway.upper()}_POLL_PATH, names another"
                    error.message += f" Neither of the paths that its documents name is there ({' and '.join(paths)}); {named}."
                    raise
            else:
                self.shared.found_poll_path(self.account, path)
                return snapshot
        raise AssertionError("unreachable: there is a path")

    async def _ask(self, job: Job, route: Route, account: Account) -> JobSnapshot:
        gateway = get_gateway(job.gateway)
        request = gateway.poll_request(route, job.task_id, account)
        limiter = self.shared.limiter(self.account, per_s=route.facts.polls_per_s)
        refusals = await limiter.wait()
        if self.rate_limit is not None:
            await self.rate_limit()
        async with self.shared.connections.client() as client:
            client.telemetry.count("polls", account.gateway)
            response: httpx.Response = await send(client, gateway, account, request, self.tokens)
        try:
            return gateway.read_poll(response, route, task_id=job.task_id, account=account)
        except CallUnavailable as error:
            if error.rate_limited:
                limiter.refuse(refusals)
                client.telemetry.count("rate_limited", account.gateway)
            raise


def _route_of(job: Job) -> Route:
    try:
        # Its dialect may be a package's that does not work any more.
        get_gateway(job.gateway)
        return find_route(job.gateway, job.capability, job.model)
    except (CatalogError, InvalidRequest) as error:
        raise PollRejected(
            f"The catalog holds no route for a job that is paid for: {error}",
            advice="Run it with the version or the gateway's data with which it was bought; the job itself is not touched.",
        ) from error


class _ErrorTolerance:
    """Counts the answers in a row that are strange, do not know the job or call it failed: one may be a mistake, and the job is paid for.

    Args:
        expected: Whether it is no surprise that the gateway does not know the job, so that its first word is believed.
    """

    def __init__(self, *, expected: bool) -> None:
        self._expected = expected
        self._said: JobStatus | None = None
        self.reset()

    def believes(self, status: JobStatus) -> bool:
        """Whether the job has ended: an end without a result has to be said twice in a row."""
        said_before, self._said = self._said, status
        return status is JobStatus.SUCCEEDED or (status.final and status is said_before)

    def reset(self) -> None:
        """Start anew: the gateway answered well."""
        self._strange = self._missing = 0
        self._missing_since_s = 0.0

    def ends(self, error: CallError, elapsed_s: float) -> bool:
        """Whether this is one failed poll too many."""
        if isinstance(error, CallRejected) and error.meaning == "authentication":
            return True
        if isinstance(error, MalformedResponse):
            self._strange += 1
            return self._strange == _STRANGE_ANSWERS
        # Not every gateway has a code for a job that it does not know.
        if self._missing == 0:
            self._missing_since_s = elapsed_s
        self._missing += 1
        lasting = self._missing >= _MISSING_ANSWERS and elapsed_s - self._missing_since_s > _MISSING_FOR_S
        return self._expected or lasting


def _outlived(job: Job) -> bool:
    """Whether the provider has kept the job for as long as it says that it keeps one."""
    return job.expires_at is not None and job.expires_at <= datetime.now(timezone.utc)


def _known_result(entry: JournalEntry | None, job: Job, *, again: bool) -> JobResult | None:
    """What the journal already knows of a job; a result whose URLs may have expired is polled anew."""
    if entry is None or entry.job is None or entry.job.task_id != job.task_id:
        return None
    if again and entry.asset is None:
        return None
    if entry.may_be_bought_again:
        raise JobFailed(
            "The job was cancelled before it began.", money=Money.NOT_SPENT, advice="Run the same request again to buy it anew."
        )
    if entry.failure is not None and entry.state in {"failed", "cancelled"}:
        raise JobFailed(entry.failure.message, code=entry.failure.code, advice=rebuy(entry.digest))
    result = entry.result
    if result is None or any(output.is_inline for output in result.outputs):
        return None
    expired = result.outputs_expire_at is not None and result.outputs_expire_at <= datetime.now(timezone.utc)
    # A kept asset is what the caller goes on with, so expired URLs do not matter to it.
    return None if expired and entry.state != "kept" else result


def _result_with_addresses(entry: JournalEntry | None, job: Job) -> JobResult | None:
    if entry is None or entry.result is None or entry.result.job.task_id != job.task_id:
        return None
    if any(output.is_inline for output in entry.result.outputs):
        return None
    # Only the address itself says whether it is still alive.
    return entry.result.model_copy(update={"outputs_expire_at": None})


def _ended_by(error: CallError, job: Job) -> GenerationError:
    if not isinstance(error, JobUnknown):
        return poll_error(error, gateway=job.gateway)
    return JobExpired(
        f"{job.gateway} does not know the job any more: {error.message}",
        code=error.code,
        status_code=error.status_code,
        request_id=error.request_id,
        advice=f"The provider's console may still show it. {repoll(job.digest)} {rebuy(job.digest)}",
    )


def _result(job: Job, route: Route, snapshot: JobSnapshot, polls: int) -> JobResult:
    if snapshot.status is not JobStatus.SUCCEEDED:
        raise _end(route, snapshot)
    now = datetime.now(timezone.utc)
    lives_s = route.facts.result_ttl_s
    return JobResult(
        job=job,
        outputs=snapshot.outputs,
        outputs_expire_at=None if lives_s is None else now + timedelta(seconds=lives_s),
        finished_at=now,
        polls=polls,
        provider_status=snapshot.provider_status,
        usage=snapshot.usage,
    )


def _end(route: Route, snapshot: JobSnapshot) -> GenerationError:
    reason = snapshot.message or "no reason was given"
    advice = (
        "Change the prompt or the media; the same request will be refused again."
        if route.facts.is_moderation(snapshot.code)
        else "Look at the reason, then change the request, or give another `take` to buy the same again."
    )
    what = "was cancelled" if snapshot.status is JobStatus.CANCELLED else "ended without a result"
    return JobFailed(f"The job {what}: {reason}", code=snapshot.code, request_id=snapshot.request_id, advice=advice)
