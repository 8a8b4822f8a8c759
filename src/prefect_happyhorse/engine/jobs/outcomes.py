"""What an entry of the journal means for who submits its request again: its job, its end, or that nobody knows."""

from __future__ import annotations

from prefect_happyhorse.domain.errors import GenerationError, JobFailed, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.jobs.hints import rebuy, resolve_uncertain
from prefect_happyhorse.engine.journal.entry import JournalEntry

__all__ = ["job_of", "uncertain"]


def job_of(entry: JournalEntry, job: Job) -> Job:
    """The job that was bought; JobFailed where it has ended without a result."""
    # That a gateway did not know a job may have been its mistake, so an expired one is polled again.
    if entry.state not in {"failed", "cancelled"}:
        return job
    reason = "" if entry.failure is None else f"{entry.failure.message.rstrip('.')}. "
    failed = JobFailed(
        f"{reason}This very request was submitted at {job.submitted_at.isoformat(timespec='seconds')} and ended as {entry.state}",
        task_id=job.task_id,
        request_id=job.request_id,
        code=None if entry.failure is None else entry.failure.code,
        advice=rebuy(entry.digest),
    )
    failed.job = job
    raise failed


def uncertain(message: str, digest: str, error: GenerationError | None = None, *, task_id: str | None = None) -> SubmissionUncertain:
    """What is raised where nobody knows whether a submit was accepted, with the job that its answer named, if any."""
    task_id = task_id if error is None else error.task_id
    return SubmissionUncertain(
        message,
        task_id=task_id,
        code=None if error is None else error.code,
        status_code=None if error is None else error.status_code,
        request_id=None if error is None else error.request_id,
        digest=digest,
        advice=resolve_uncertain(digest, task_id),
    )
