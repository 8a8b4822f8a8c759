"""What a person or a schedule does with the jobs of a journal: choose, adopt, forget, cancel."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta, timezone

from prefect_happyhorse.catalog import find_route
from prefect_happyhorse.domain.errors import GatewayUnavailable, GenerationError, JobExpired, RequestRejected, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job, JobStatus
from prefect_happyhorse.engine.http.auth import TokenStore
from prefect_happyhorse.engine.http.client import http_client, send
from prefect_happyhorse.engine.jobs.hints import resolve_uncertain
from prefect_happyhorse.engine.jobs.poll import DEADLINE_S, Poller
from prefect_happyhorse.engine.jobs.results import OutputStore, StoredResult
from prefect_happyhorse.engine.journal.journal import Cancellation, Journal, JournalEntry, JournalState
from prefect_happyhorse.gateways import Account, get_gateway

__all__ = ["adopt", "cancel", "find_entry", "forget", "resume", "select"]

_SHORTEST_PREFIX = 6


def select(
    entries: Iterable[JournalEntry],
    *,
    states: Collection[JournalState] = (),
    gateway: str | None = None,
    account: str | None = None,
    flow_run_id: str | None = None,
    older_than: timedelta | None = None,
    younger_than: timedelta | None = None,
) -> list[JournalEntry]:
    """The entries that fit every filter that is given."""
    now = datetime.now(timezone.utc)
    return [
        entry
        for entry in entries
        if (not states or entry.state in states)
        and (gateway is None or entry.gateway == gateway)
        and (account is None or entry.account == account)
        and (flow_run_id is None or entry.flow_run_id == flow_run_id)
        and (older_than is None or now - entry.begun_at >= older_than)
        and (younger_than is None or now - entry.begun_at <= younger_than)
    ]


async def find_entry(journal: Journal, name: str) -> JournalEntry:
    """The entry that a person means."""
    digests = [digest for digest in await journal.digests() if len(name) >= _SHORTEST_PREFIX and digest.startswith(name)]
    found = [entry for digest in digests if (entry := await journal.read(digest)) is not None]
    if not found:
        found = [entry for entry in await journal.entries() if entry.job is not None and entry.job.task_id == name]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"No job {name!r} stands in {journal.store.url}: give a task id, or six or more characters of a digest.")
    fitting = ", ".join(entry.digest[:12] for entry in found)
    raise ValueError(f"{name!r} means {len(found)} jobs: {fitting}. Give more characters.")


async def adopt(journal: Journal, entry: JournalEntry, task_id: str, *, account: Account | None) -> JournalEntry:
    """Give a request whose submit was uncertain the job that it became."""
    if entry.job is not None:
        raise ValueError(f"{entry.digest[:12]} has a job already: {entry.job.task_id}. Nothing was changed.")
    _check_left(entry)
    others = [other for other in await journal.entries() if other.job is not None and other.job.task_id == task_id]
    if any(other.gateway == entry.gateway for other in others):
        raise ValueError(f"Job {task_id} stands under {others[0].digest[:12]} already. Nothing was changed.")
    lives_s = find_route(entry.gateway, entry.request.capability, entry.request.model).facts.task_ttl_s
    job = Job(
        gateway=entry.gateway,
        account=entry.account,
        capability=entry.request.capability,
        model=entry.request.model,
        task_id=task_id,
        digest=entry.digest,
        prompt=entry.request.prompt,
        # The gateway took it within the minute after the submit was begun, if it took it at all.
        submitted_at=entry.owner.at,
        expires_at=None if lives_s is None else entry.owner.at + timedelta(seconds=lives_s),
    )
    if account is not None:
        await _check_known(job, Poller(account=account, store=journal.store))
    await journal.write_job_down(entry, job)
    return await journal.read(entry.digest) or entry


async def _check_known(job: Job, poller: Poller) -> None:
    try:
        state = await poller.poll_once(job)
        reason = state.message or state.provider_status if state.status is JobStatus.EXPIRED else None
    except RequestRejected as error:
        reason = error.message
    if reason is not None:
        raise JobExpired(
            f"{job.gateway} does not know a job {job.task_id}: {reason}",
            gateway=job.gateway,
            account=job.account,
            digest=job.digest,
            money="may be spent",
            advice="Nothing was changed. Check the id, and that the credentials are of the account that paid.",
        )


async def resume(journal: Journal, entry: JournalEntry, account: Account, *, deadline_s: float = DEADLINE_S) -> StoredResult:
    """Wait for a job that stands in the journal, and keep its outputs. Nothing is bought."""
    if entry.job is None:
        raise SubmissionUncertain(
            "Nobody knows whether this submit was accepted.",
            gateway=entry.gateway,
            digest=entry.digest,
            advice=resolve_uncertain(entry.digest),
        )
    result = await Poller(account=account, store=journal.store, deadline_s=deadline_s).poll(entry.job)
    return await OutputStore(account=account, store=journal.store).collect(result)


async def forget(journal: Journal, entry: JournalEntry) -> None:
    """Remove an entry, so that the same request is bought anew when it is asked for again. No file is removed."""
    if entry.job is None:
        _check_left(entry)
    await journal.forget(entry.digest)


def _check_left(entry: JournalEntry) -> None:
    if entry.state == "intent" and not entry.owner.expired(datetime.now(timezone.utc)):
        raise ValueError(f"{entry.digest[:12]} is being submitted right now by {entry.owner}. Nothing was changed.")


async def cancel(journal: Journal, job: Job, account: Account) -> Cancellation:
    """Ask the gateway to cancel a job, and write its answer down."""
    answer = await _ask_to_cancel(job, account)
    entry = await journal.read(job.digest)
    if entry is not None and entry.job is not None and entry.job.task_id == job.task_id and entry.is_open:
        await journal.write(entry.becoming("cancelled" if answer.accepted else entry.state, cancellation=answer))
    return answer


async def _ask_to_cancel(job: Job, account: Account) -> Cancellation:
    gateway = get_gateway(job.gateway)
    request = gateway.cancel_request(job.task_id, account)
    if request is None:
        return Cancellation(accepted=False, message=f"{job.gateway} documents no way to cancel a job; it goes on and can be collected.")
    try:
        async with http_client() as client:
            request_id = gateway.read_cancel(await send(client, gateway, account, request, TokenStore()))
    except GatewayUnavailable as error:
        return Cancellation(accepted=False, message=f"The gateway could not be asked: {error.message}")
    except GenerationError as error:
        return Cancellation(accepted=False, message=error.message, request_id=error.request_id)
    return Cancellation(accepted=True, message="The gateway took the job back before it began.", request_id=request_id)
