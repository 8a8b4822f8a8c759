"""Submit a request at most once: check, acquire the lease, send, record the job."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Literal, NamedTuple

import anyio
import anyio.to_thread
import httpx

from prefect_happyhorse.domain.errors import (
    Money,
    ProtocolError,
    SubmissionUncertain,
    error_context,
)
from prefect_happyhorse.domain.jobs import Job, Submission
from prefect_happyhorse.domain.locations import locate
from prefect_happyhorse.domain.requests import GenerationRequest, iter_media
from prefect_happyhorse.domain.values import Labels
from prefect_happyhorse.engine.download.medium import fetch_medium
from prefect_happyhorse.engine.http.auth import TokenCache, TokenStore
from prefect_happyhorse.engine.http.client import authorize, is_local, send
from prefect_happyhorse.engine.http.connections import Client
from prefect_happyhorse.engine.http.rate_limit import backoff_s
from prefect_happyhorse.engine.inputs.temporary import upload_temporarily
from prefect_happyhorse.engine.inputs.upload import by_reference, upload_inputs
from prefect_happyhorse.engine.jobs.outcomes import job_of, uncertain
from prefect_happyhorse.engine.jobs.prepare import Prepared
from prefect_happyhorse.engine.jobs.settle import Settler
from prefect_happyhorse.engine.jobs.shared import PROCESS, Shared
from prefect_happyhorse.engine.journal.budget import BudgetTracker
from prefect_happyhorse.engine.journal.journal import Journal, JournalEntry
from prefect_happyhorse.engine.journal.lease import Fence, Lease, LeaseLost, wait_for_owner
from prefect_happyhorse.engine.journal.owner import LeaseOwner
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.engine.telemetry import Step, Telemetry
from prefect_happyhorse.gateways import Account, CallError, CallUnavailable, Gateway, get_gateway, submit_error

__all__ = ["OnUncertain", "SubmitPolicy", "Submitted", "Submitter"]

OnUncertain = Literal["settle", "raise", "resubmit"]

_log = logging.getLogger(__name__)

_FINISH_SENDING_S = 75.0
_LOOK_AGAIN_S = 0.2


class Submitted(NamedTuple):
    """The job of a request, and whether it was bought just now."""

    job: Job
    is_new: bool


class SubmitPolicy(NamedTuple):
    """What a pool grants to one of its gateways: see `Submitter`."""

    fence: Fence
    attempts: int
    patience_s: float


@dataclass(frozen=True)
class Submitter:
    """Submits prepared requests, each at most once.

    Args:
        on_uncertain: What to do with a submit whose outcome nobody knows: settle it where the gateway can list its tasks and raise
            elsewhere, raise, or pay perhaps twice.
        tracker: Says whether there is room in a budget; None for no budget.
        labels: What the jobs are called by.
        attempts: How often a submit is sent that certainly did no work.
        patience_s: How long is waited in all between those, in seconds.
        fence: What must hold beside the lease at each send; None where the request is made at one gateway alone.
    """

    store: Store
    on_uncertain: OnUncertain = "settle"
    flow_run_id: str | None = None
    tracker: BudgetTracker | None = None
    labels: Labels = field(default_factory=dict[str, str])
    attempts: int = 5
    patience_s: float = 120.0
    fence: Fence | None = None
    tokens: TokenCache = field(default_factory=TokenStore)
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    shared: Shared = PROCESS

    async def submit(self, prepared: Prepared) -> Job:
        """Submit a request, or return the job that was submitted under its digest before."""
        return (await self.submit_or_find(prepared)).job

    async def submit_or_find(self, prepared: Prepared) -> Submitted:
        """As `submit`, and say which of the two it was."""
        account = prepared.account
        journal = self.shared.journal(self.store, sleep=self.sleep)
        with error_context(
            gateway=account.gateway,
            account=account.label,
            model=prepared.request.model,
            capability=prepared.request.capability,
            digest=prepared.digest,
        ):
            while True:
                try:
                    if (submitted := await self._job(prepared, journal)) is not None:
                        return submitted
                except SubmissionUncertain as error:
                    # What an earlier run left behind was looked at already.
                    if error.__cause__ is None or not await self._settles(prepared, journal):
                        raise

    async def _job(self, prepared: Prepared, journal: Journal) -> Submitted | None:
        """The job of a request, bought if need be; None when what the journal says has changed meanwhile."""
        entry = await journal.read(prepared.digest)
        if entry is None or entry.job is None:
            entry = await journal.restore(prepared.digest) or entry
        if entry is None or entry.may_be_bought_again:
            return await self._buy(prepared, journal, instead_of=entry)
        if entry.job is not None:
            return Submitted(job_of(entry, entry.job), is_new=False)
        if entry.state == "intent" and not await wait_for_owner(entry, journal, self.sleep):
            return None
        if self.on_uncertain == "resubmit":
            return await self._buy(prepared, journal, instead_of=entry)
        if await self._settles(prepared, journal, entry):
            return None
        if entry.failure is not None:
            raise uncertain(f"A submit may have been accepted: {entry.failure.message}", entry.digest, task_id=entry.failure.task_id)
        raise uncertain(
            f"A submit was begun at {entry.owner.at.isoformat(timespec='seconds')} by {entry.owner}, and nobody knows whether it was"
            " accepted.",
            entry.digest,
        )

    async def _buy(self, prepared: Prepared, journal: Journal, *, instead_of: JournalEntry | None) -> Submitted | None:
        """Do all that is free, wait for the limit, acquire the lease and send; None when another did first, or may have meanwhile."""
        account = prepared.account
        gateway = get_gateway(account.gateway)
        now = datetime.now(timezone.utc)
        # Uploading is free and may fail, so it comes before the lease; and so does all else that may.
        async with self.shared.connections.client() as client:
            how = {"client": client, "gateway": gateway, "account": account, "model": prepared.route.model, "tokens": self.tokens}
            try:
                uploaded = await upload_inputs(
                    prepared.request,
                    prepared.route,
                    self.store,
                    now=now,
                    gateway_is_local=is_local(account),
                    fingerprints=prepared.fingerprints,
                    fetch=partial(fetch_medium, client=client, local_allowed=is_local(account)),
                    publish=partial(upload_temporarily, **how) if account.temporary_upload else None,
                )
            except CallError as call:
                raise submit_error(call, gateway=account.gateway) from call
        request = gateway.submit_request(uploaded, prepared.route, account)
        owner = LeaseOwner()
        intent = JournalEntry(
            digest=prepared.digest,
            state="intent",
            gateway=account.gateway,
            account=account.label,
            take=prepared.take,
            request=await _by_reference(prepared.request),
            estimate=prepared.estimate,
            base_url=account.base_url,
            credentials=account.credentials,
            key_fingerprint=account.fingerprint(owner.claim),
            flow_run_id=self.flow_run_id,
            labels=self.labels,
            owner=owner,
        )
        if self.tracker is not None:
            # Before the lease, so that no other process meets an intent of unknown price that is about to be released.
            self.tracker.check(intent)
        await self.shared.prove(journal)
        async with self.shared.connections.client() as client:
            await self._authorize(client, gateway, account)
            telemetry = client.telemetry
        # Before the lease too: whoever waits for a slot holds none that others wait for, or that is in doubt once this process is killed.
        async with self.shared.submit_slots(account, prepared.route):
            if (limiter := self.shared.submit_limiter(account, prepared.route)) is not None:
                await limiter.wait()
            # It was begun now, and not before minutes in a queue.
            intent = intent.model_copy(update={"owner": LeaseOwner(claim=owner.claim)})
            return await self._buy_now(gateway, prepared, request, intent, journal=journal, telemetry=telemetry, instead_of=instead_of)

    async def _buy_now(
        self,
        gateway: Gateway,
        prepared: Prepared,
        request: httpx.Request,
        intent: JournalEntry,
        *,
        journal: Journal,
        telemetry: Telemetry,
        instead_of: JournalEntry | None,
    ) -> Submitted | None:
        """Acquire the lease and send, as `_buy`."""
        step = self._step(telemetry, prepared, instead_of)
        if (traceparent := step.traceparent) is not None:
            intent = intent.model_copy(update={"traceparent": traceparent})
        with ExitStack() as at_work:
            at_work.enter_context(intent.owner.submitting(asyncio.get_running_loop()))
            try:
                acquired = await journal.acquire(intent, instead_of)
            except OSError:
                # The store may have taken it all the same.
                await Lease(intent, instead_of, journal).release()
                raise
            if acquired is None:
                await self.sleep(_LOOK_AGAIN_S)
                return None
            lease = Lease(acquired, instead_of, journal, self.fence)
            sending = asyncio.ensure_future(step.around(self._submit(gateway, prepared, request, lease, step)))
            # When it ends, `asyncio.run` cancels all tasks that it knows; the answer to this one is awaited first, by whoever waits here.
            # https://docs.python.org/3/library/asyncio-extending.html#task-lifetime-support
            asyncio._unregister_task(sending)  # noqa: SLF001 -- documented there
            # Whoever waits for it may be cancelled first: it is at work until it ends.
            until_it_ends = at_work.pop_all()
            sending.add_done_callback(lambda _: until_it_ends.close())
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            await _end(sending, lease)
            raise

    @staticmethod
    def _step(telemetry: Telemetry, prepared: Prepared, instead_of: JournalEntry | None) -> Step:
        # Where nothing was bought yet, it is still the same asset.
        parent = instead_of.traceparent if instead_of is not None and instead_of.state == "released" else None
        step = telemetry.step("submit", prepared.account, prepared.request, digest=prepared.digest, parent=parent)
        step.tell_cost("estimated", prepared.estimate.amount, prepared.estimate.currency)
        return step

    async def _settles(self, prepared: Prepared, journal: Journal, entry: JournalEntry | None = None) -> bool:
        """Whether an uncertain submit is so no longer, where it may be settled."""
        if self.on_uncertain != "settle" or get_gateway(prepared.account.gateway).facts.list_tasks is None:
            return False
        settler = Settler(prepared.account, journal, tokens=self.tokens, sleep=self.sleep, shared=self.shared)
        try:
            entry = entry or await journal.read(prepared.digest)
            return entry is not None and await settler.settle(entry)
        except OSError as error:
            # It is uncertain all the same, and that is what has to be heard.
            _log.warning("Whether %s was accepted cannot be looked up: %s", prepared.digest[:12], error)
            return False

    async def _authorize(self, client: Client, gateway: Gateway, account: Account) -> None:
        """Get an access token while there is no lease yet, where the gateway takes one."""
        try:
            await authorize(client, gateway, account, self.tokens)
        except CallError as call:
            raise submit_error(call, gateway=account.gateway) from call

    async def _submit(self, gateway: Gateway, prepared: Prepared, request: httpx.Request, lease: Lease, step: Step) -> Submitted | None:
        try:
            # A long journal takes its time to read, and a lease that is not renewed expires.
            async with lease.heartbeat():
                if self.tracker is not None:
                    await self.tracker.admit(lease.intent, lease.before)
                submission = await self._send(gateway, prepared, request, lease, step)
        except CallError as call:
            error = submit_error(call, gateway=prepared.account.gateway)
            if error.money is Money.NOT_SPENT:
                await lease.release()
                raise error from call
            if isinstance(error, ProtocolError) and error.excerpt:
                # Whoever looks for the job has nothing but the answer.
                error.args = (f"{error.message} Answer: {error.excerpt[:200]!r}",)
            await lease.give_up(error)
            raise uncertain(f"The submit may have been accepted: {error.message}", prepared.digest, error) from call
        except LeaseLost as lost:
            step.failed(lost)
            _log.warning("%s; nothing was sent, and the journal is read again.", lost)
            await lease.release()
            return None
        except BaseException as error:
            # Whatever it is, once the call was handed over nobody knows what became of it: then the intent stands.
            if not lease.sent:
                await lease.release()
            if not lease.sent or not isinstance(error, Exception):
                raise
            what = f"The submit may have been accepted, and its answer could not be read: {type(error).__name__}: {error}"
            unread = uncertain(what, prepared.digest)
            await lease.give_up(unread)
            raise unread from error
        job = prepared.accepted(submission, self.labels)
        step.tell("happyhorse.task_id", job.task_id)
        try:
            return Submitted(await lease.journal.accept(lease.intent, job, verify=not lease.is_surely_held()), is_new=True)
        except OSError as error:
            # The intent still stands, so nothing is bought twice; the job goes on, and its id stands in the log.
            _log.error(
                "Job %s of %s is paid for and could be written down nowhere (%s). If this run does not finish: happyhorse jobs adopt %s %s",
                job.task_id,
                job.gateway,
                error,
                job.task_id,
                job.digest[:12],
            )
            return Submitted(job, is_new=True)

    async def _send(self, gateway: Gateway, prepared: Prepared, request: httpx.Request, lease: Lease, step: Step) -> Submission:
        """Send until the gateway takes it; only what certainly did no work is sent again."""
        account, route = prepared.account, prepared.route
        waited_s = 0.0
        async with self.shared.connections.client() as client:
            for attempt in range(1, self.attempts + 1):
                try:
                    response = await send(client, gateway, account, request, self.tokens, permit=lease)
                    step.tell("http.response.status_code", response.status_code)
                    submission = gateway.read_submit(response, route)
                    if not isinstance(submission, Submission):  # pyright: ignore[reportUnnecessaryIsInstance] -- a stranger's dialect
                        raise TypeError(f"the dialect {gateway.facts.dialect} must read it as a Submission (got {submission!r})")
                    return submission
                except CallUnavailable as error:
                    if error.rate_limited:
                        client.telemetry.count("rate_limited", account.gateway)
                    pause_s = max(error.retry_after_s or 0.0, backoff_s(attempt))
                    if error.may_have_acted or attempt == self.attempts or waited_s + pause_s > self.patience_s:
                        raise
                    waited_s += pause_s
                    lease.sent = False
                    await self.sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")


async def _by_reference(request: GenerationRequest) -> GenerationRequest:
    # To decode a data URL takes its time; nothing else of it does.
    is_inline = any(isinstance(medium, str) and locate(medium) == "inline" for _, _, medium in iter_media(request))
    return await anyio.to_thread.run_sync(by_reference, request) if is_inline else request


async def _end(sending: asyncio.Future[Submitted | None], lease: Lease) -> None:
    """End a submit that nobody waits for any more: at once, or with its answer, the only place where the task id stands."""
    if not lease.sent:
        sending.cancel()
    elif not sending.done():
        digest = lease.intent.digest[:12]
        _log.warning("The submit of %s is under way, and its answer is waited for, at most %.0f s.", digest, _FINISH_SENDING_S)
    end = time.monotonic() + _FINISH_SENDING_S
    # A time-out of anyio or Prefect cancels again and again until it is heard.
    with anyio.CancelScope(shield=True):
        while not sending.done() and (left_s := end - time.monotonic()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({sending}, timeout=left_s)
    if sending.done() and not sending.cancelled():
        sending.exception()
