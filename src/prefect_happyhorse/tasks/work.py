"""What the tasks do, apart from being tasks: the coroutines that they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect_happyhorse.artifacts.cards import show_asset
from prefect_happyhorse.artifacts.progress import Progress
from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobResult, JobSnapshot, JobStatus
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.engine.jobs.submit import OnUncertain
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.runtime.cancellation import cancelled_with_its_run, flow_run_id
from prefect_happyhorse.runtime.concurrency import call_rate_limit, job_slot
from prefect_happyhorse.runtime.events import emit, emitting_failure
from prefect_happyhorse.runtime.lineage import record_lineage
from prefect_happyhorse.runtime.log import run_logger

__all__ = [
    "Credentials",
    "StoreRef",
    "Terms",
    "account_of",
    "download_job",
    "poll_job",
    "session_of",
    "store_of",
    "submit_job",
]

Credentials = GatewayCredentials | str
"""A block, the name of a saved block, or the id of a gateway whose key stands in the environment."""

StoreRef = MediaStore | str | Path | None
"""A block, the name of a saved block, a folder, an fsspec URL, or None for `HAPPYHORSE_STORE` or else the folder `outputs`."""


async def account_of(credentials: Credentials, job: Job | None = None) -> Account:
    """The account that credentials stand for.

    Args:
        credentials: A block or a name.
        job: The job that the account has to be the payer of.

    Raises:
        ValueError: When the job belongs to another account.
    """
    block = await GatewayCredentials.find(credentials) if isinstance(credentials, str) else credentials
    account = block.to_account()
    if job is not None and (account.gateway, account.label) != (job.gateway, job.account):
        raise ValueError(
            f"Job {job.task_id} belongs to account {job.account!r} of {job.gateway}; these credentials are for"
            f" {account.label!r} of {account.gateway}. Nothing was sent."
        )
    return account


async def store_of(store: StoreRef) -> Store:
    """The store that a block, a name or nothing stands for.

    Args:
        store: A block, a name, or None.
    """
    block = store if isinstance(store, MediaStore) else await MediaStore.find(store)
    return block.to_store()


async def session_of(credentials: Credentials, store: StoreRef, job: Job | None = None) -> Session:
    """The session of an account and a store; see `account_of` and `store_of`."""
    account = await account_of(credentials, job)
    return Session(account, await store_of(store), rate_limit=call_rate_limit(account))


class _Report:
    """Says in the log and as a progress artifact how a job is getting on."""

    def __init__(self, job: Job) -> None:
        self._progress = Progress(job)
        self._last: tuple[str, int] | None = None
        self._ran = False

    async def __call__(self, job: Job, state: JobSnapshot, elapsed_s: float) -> None:
        word = state.provider_status or state.status.value
        # Without a flow run, as in a notebook, there is no page that shows progress: the log says every tenth of it.
        tenths = int((state.progress or 0) * 10) if flow_run_id() is None else 0
        if (word, tenths) != self._last:
            if state.status is JobStatus.RUNNING and not self._ran:
                self._ran = True
                emit("running", job)
            self._last = (word, tenths)
            percent = "" if state.progress is None else f", {state.progress:.0%}"
            run_logger().info("%s %s is %s (%s%s) after %.0f s", job.gateway, job.task_id, state.status.value, word, percent, elapsed_s)
        await self._progress.show(state, elapsed_s)


@dataclass(frozen=True)
class Terms:
    """How a request is bought.

    Args:
        take: 1, or another number for another variation of the very same request.
        on_uncertain: What to do when an earlier submit may have been accepted.
        budget: The most that the journal's jobs may cost together; None for no limit.
    """

    take: int
    on_uncertain: OnUncertain
    budget: Budget | None


async def submit_job(request: GenerationRequest, credentials: Credentials, store: StoreRef, terms: Terms) -> Job:
    """Submit a request at most once, and tell the run and the event feed.

    Args:
        request: What to make.
        credentials: Who pays.
        store: Where the journal is kept.
        terms: How it is bought.

    Returns:
        The job.

    Raises:
        GenerationError: See `prefect_happyhorse.tasks.steps.submit`.
    """
    session = await session_of(credentials, store)
    prepared = await session.prepare(request, take=terms.take)
    run = flow_run_id()
    async with job_slot(session.account):
        await call_rate_limit(session.account)()
        with emitting_failure():
            job, is_new = await session.submit(
                prepared, on_uncertain=terms.on_uncertain, flow_run_id=None if run is None else str(run), budget=terms.budget
            )
    if not is_new:
        run_logger().info("%s %s: already bought, going on with job %s, digest %s", job.gateway, job.model, job.task_id, job.digest[:12])
        return job
    emit("submitted", job)
    request_id = f", request id {job.request_id}" if job.request_id else ""
    run_logger().info("%s %s: task id %s%s, digest %s", job.gateway, job.model, job.task_id, request_id, job.digest[:12])
    return job


async def poll_job(job: Job, credentials: Credentials, store: StoreRef, deadline_s: float) -> JobResult:
    """Wait for a job's result, while its flow run is not cancelled, and show how it gets on.

    Args:
        job: The job.
        credentials: Who paid.
        store: Where the journal is kept.
        deadline_s: How long the job may take, in seconds since it was submitted.

    Returns:
        Where the outputs lie at the provider.

    Raises:
        GenerationError: See `prefect_happyhorse.tasks.steps.poll`.
    """
    session = await session_of(credentials, store, job)
    async with job_slot(session.account), cancelled_with_its_run(job, session, run_logger()):
        with emitting_failure():
            result = await session.poll(job, deadline_s=deadline_s, on_poll=_Report(job))
    emit("succeeded", job)
    return result


async def download_job(result: JobResult, credentials: Credentials, store: StoreRef) -> MediaAsset:
    """Keep a job's outputs, and show each with its lineage.

    Args:
        result: The finished job.
        credentials: Who paid.
        store: Where the outputs are kept.

    Returns:
        The first output; further ones are its `siblings`.

    Raises:
        GenerationError: See `prefect_happyhorse.tasks.steps.download`.
    """
    session = await session_of(credentials, store, result.job)
    stored = await session.store_outputs(result)
    for asset, thumbnail in stored.with_thumbnails():
        run_logger().info("%s kept at %s (%d bytes)", asset.kind, asset.uri, asset.bytes)
        await show_asset(asset, thumbnail=thumbnail, store=session.store)
        record_lineage(asset, stored.inputs)
    return stored.asset
