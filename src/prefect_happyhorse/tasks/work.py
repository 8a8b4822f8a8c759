"""What the tasks do, apart from being tasks: the coroutines that they run."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from prefect.logging import get_run_logger

from prefect_happyhorse.artifacts.show import Progress, show_asset
from prefect_happyhorse.blocks import GatewayCredentials, MediaStore
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobResult, JobSnapshot, JobStatus
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.engine.jobs.poll import Poller
from prefect_happyhorse.engine.jobs.results import OutputStore
from prefect_happyhorse.engine.jobs.submit import OnUncertain, Submitter, prepare
from prefect_happyhorse.engine.journal.budget import Budget, BudgetTracker
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.engine.storage.store import Store
from prefect_happyhorse.gateways import Account
from prefect_happyhorse.runtime.cancellation import cancelled_with_its_run, flow_run_id
from prefect_happyhorse.runtime.concurrency import call_turn, job_slot
from prefect_happyhorse.runtime.events import emit, emitting_failure
from prefect_happyhorse.runtime.lineage import record_lineage

__all__ = [
    "Credentials",
    "StoreRef",
    "Terms",
    "account_of",
    "download_job",
    "poll_job",
    "store_of",
    "submit_job",
]

Credentials = GatewayCredentials | str
"""A block, the name of a saved block, or the id of a gateway whose key stands in the environment."""

StoreRef = MediaStore | str | None
"""A block, the name of a saved block, or None for `HAPPYHORSE_STORE` or else the folder `outputs`."""


def _logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    # What a task logs outside of a flow run Prefect drops with a warning.
    return logging.getLogger(__name__) if flow_run_id() is None else get_run_logger()


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


class _Report:
    """Says in the log and as a progress artifact how a job is getting on."""

    def __init__(self, job: Job) -> None:
        self._progress = Progress(job)
        self._last: str | None = None
        self._ran = False

    async def __call__(self, job: Job, state: JobSnapshot, elapsed_s: float) -> None:
        word = state.provider_status or state.status.value
        if word != self._last:
            if state.status is JobStatus.RUNNING and not self._ran:
                self._ran = True
                emit("running", job)
            self._last = word
            percent = "" if state.progress is None else f", {state.progress:.0%}"
            _logger().info("%s %s is %s (%s%s) after %.0f s", job.gateway, job.task_id, state.status.value, word, percent, elapsed_s)
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


_TRACKERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, Budget], BudgetTracker]] = WeakKeyDictionary()


def _tracker(budget: Budget, store: Store) -> BudgetTracker:
    """One for all jobs of an event loop, since it remembers what it has read."""
    purses = _TRACKERS.setdefault(asyncio.get_running_loop(), {})
    return purses.setdefault((store.url, budget), BudgetTracker(budget, Journal(store)))


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
    place = await store_of(store)
    account = await account_of(credentials)
    prepared = await prepare(request, account, take=terms.take, store=place)
    run = flow_run_id()
    submitter = Submitter(
        store=place,
        on_uncertain=terms.on_uncertain,
        flow_run_id=None if run is None else str(run),
        tracker=None if terms.budget is None else _tracker(terms.budget, place),
    )
    async with job_slot(account):
        await call_turn(account)()
        with emitting_failure():
            job = await submitter.submit(prepared)
    emit("submitted", job)
    request_id = f", request id {job.request_id}" if job.request_id else ""
    _logger().info("%s %s: task id %s%s, digest %s", job.gateway, job.model, job.task_id, request_id, job.digest[:12])
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
    account = await account_of(credentials, job)
    place = await store_of(store)
    poller = Poller(account=account, store=place, deadline_s=deadline_s, watch=_Report(job), turn=call_turn(account))
    async with job_slot(account), cancelled_with_its_run(job, account, place, _logger()):
        with emitting_failure():
            result = await poller.poll(job)
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
    place = await store_of(store)
    collected = await OutputStore(account=await account_of(credentials, result.job), store=place).collect(result)
    for asset, poster in collected.with_thumbnails():
        _logger().info("%s kept at %s (%d bytes)", asset.kind, asset.uri, asset.bytes)
        await show_asset(asset, poster=poster, store=place)
        record_lineage(asset, collected.inputs)
    return collected.asset
