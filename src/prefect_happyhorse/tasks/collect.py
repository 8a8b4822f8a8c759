"""What later runs do with jobs that earlier ones left: which of a journal's are open, and whether one is finished."""

from __future__ import annotations

from prefect_happyhorse.domain.jobs import Job, JobSnapshot
from prefect_happyhorse.engine.jobs.shared import PROCESS
from prefect_happyhorse.engine.journal.index import open_entries
from prefect_happyhorse.engine.journal.journal import JournalEntry
from prefect_happyhorse.runtime.log import run_logger
from prefect_happyhorse.tasks.dual import dual_task, retried_task
from prefect_happyhorse.tasks.resolve import Credentials, StoreRef, session_of, store_of

__all__ = ["open_jobs", "poll_once"]


@dual_task(name="open-jobs", persist_result=False)
async def open_jobs(store: StoreRef = None) -> list[JournalEntry]:
    """The jobs of a store's journal that cost or may have cost money and have no file yet, oldest first.

    Args:
        store: Where the journal is kept.

    Returns:
        The journal's entries; one without a job is a submit of which nobody knows whether it was accepted. A file that cannot be read is
        told in the run's log as an error, and the others are returned. What killed processes left of closed entries is removed.

    Raises:
        OSError: When the store cannot be read.

    Example:
        ```python
        jobs = [entry.job for entry in await open_jobs() if entry.job]
        ```
    """
    listing = await open_entries(PROCESS.journal(await store_of(store)), tidy=True)
    for unreadable in listing.unreadable:
        run_logger().error("%s It is left out, and may stand for a paid job.", unreadable.error)
    return listing.entries


@retried_task(name="poll-once", task_run_name="poll once {job.gateway} {job.task_id}", persist_result=False)
async def poll_once(job: Job, credentials: Credentials, store: StoreRef = None) -> JobSnapshot:
    """Ask for a job once, without waiting for it.

    Args:
        job: The job.
        credentials: Who paid.
        store: Where the journal is kept.

    Returns:
        What the gateway says.

    Raises:
        JobExpired: When the gateway does not know the job any more.
        GenerationError: When the gateway could not be asked.

    Example:
        ```python
        state = await poll_once(job, "happyhorse")
        ```
    """
    return await (await session_of(credentials, store, job)).poll_once(job)
