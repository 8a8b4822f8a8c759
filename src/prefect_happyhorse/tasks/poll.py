"""The task that waits for a job."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any, cast

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from prefect_happyhorse.artifacts.progress import Progress
from prefect_happyhorse.blocks import MediaStore
from prefect_happyhorse.domain.jobs import DEADLINE_S, Job, JobResult, JobSnapshot, JobStatus
from prefect_happyhorse.domain.settings import current
from prefect_happyhorse.engine.jobs.poll import OnPoll, ignore
from prefect_happyhorse.engine.jobs.session import Session
from prefect_happyhorse.runtime.cancellation import cancelled_with_its_run, flow_run_id
from prefect_happyhorse.runtime.concurrency import job_slot
from prefect_happyhorse.runtime.events import emit, emitting_failure
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.dual import retried_task
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef, run_name, session_of

__all__ = ["poll", "poll_in"]

_KEY_VERSION = "1"


def _store_name(store: StoreRef) -> str:
    return store.url if isinstance(store, MediaStore) else str(store or "") or current().store or "outputs"


def _poll_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    job = cast("Job", parameters["job"])
    about = "\n".join((_KEY_VERSION, job.digest, job.task_id, _store_name(parameters["store"])))
    return f"happyhorse-poll-{hashlib.sha256(about.encode()).hexdigest()}"


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


@retried_task(
    name="poll",
    task_run_name=run_name("poll", "job"),
    cache_policy=CachePolicy.from_cache_key_fn(_poll_key),
    # A provider's address lives 24 hours where it says so at all; a cached one must not outlive it.
    cache_expiration=timedelta(hours=12),
)
async def poll(job: Job, credentials: Credentials, store: StoreRef = None, *, deadline_s: float = DEADLINE_S) -> JobResult:
    """Wait for a job's result.

    Args:
        job: The job.
        credentials: Who paid.
        store: Where the journal is kept.
        deadline_s: How long the job may take, in seconds since it was submitted.

    Returns:
        Where the outputs lie at the provider.

    Raises:
        JobFailed: When the provider ended the job without a result.
        JobExpired: When the gateway does not know the job any more.
        JobTimedOut: When the deadline passed first; the job may still finish and be collected.

    Example:
        ```python
        result = await poll(job, "happyhorse", deadline_s=1800)
        ```
    """
    result = await poll_in(await session_of(credentials, store, job), job, deadline_s=deadline_s, on_poll=_Report(job))
    emit("succeeded", job)
    return result


async def poll_in(session: Session, job: Job, *, deadline_s: float, on_poll: OnPoll = ignore) -> JobResult:
    """Wait for a job in a session, cancel it with its run, and emit the event of a failure."""
    async with job_slot(session.account), cancelled_with_its_run(job, session, run_logger()):
        with emitting_failure():
            return await session.poll(job, deadline_s=deadline_s, on_poll=on_poll)
