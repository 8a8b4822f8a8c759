"""Events for the Prefect event feed and for automations: about jobs, budgets, gateways and the journal."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Literal

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

from prefect_happyhorse.catalog import gateway_facts
from prefect_happyhorse.domain.errors import GenerationError, JobExpired, JobFailed, ModerationRejected, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.engine.journal.journal import Unreadable
from prefect_happyhorse.gateways import Account

__all__ = ["JobEvent", "emit", "emit_expiring", "emit_nearly_spent", "emit_rest", "emit_unreadable", "emitting_failure"]

_log = logging.getLogger(__name__)

JobEvent = Literal["submitted", "running", "succeeded", "kept", "failed", "expiring", "expired", "uncertain"]
"""What can happen to a job; the event's name is `happyhorse.job.` and one of these."""


_FAILURES: dict[type[GenerationError], JobEvent] = {
    SubmissionUncertain: "uncertain",
    JobExpired: "expired",
    JobFailed: "failed",
    ModerationRejected: "failed",
}
_NEARLY = 0.8
_NEAR_ITS_END = 0.25
_TOLD: set[Budget] = set()
_LABELS = ("gateway", "account", "model", "capability", "digest")


def emit(event: JobEvent, job: Job, **more: str) -> None:
    """Emit an event about a job; the run, its flow and its deployment are related to it by Prefect. Outside a run nothing is emitted."""
    _emit(event, job, job.task_id, **more)


def emit_expiring(job: Job, now: datetime) -> None:
    """Emit the event that a job which is not kept yet can be asked for only a quarter of its life more."""
    if job.expires_at is not None and timedelta(0) < job.expires_at - now < (job.expires_at - job.submitted_at) * _NEAR_ITS_END:
        emit("expiring", job, expires_at=job.expires_at.isoformat(timespec="minutes"))


def emit_unreadable(unreadable: Unreadable) -> None:
    """Emit the event that an entry of the journal cannot be read. Outside a run nothing is emitted."""
    resource = {"prefect.resource.id": f"happyhorse.journal.{unreadable.file}", "prefect.resource.name": unreadable.file}
    _send("happyhorse.journal.unreadable", resource, {"problem": str(unreadable.error)})


@contextmanager
def emitting_failure() -> Generator[None]:
    """Emit the event that an error stands for, if one is raised in here and stands for one."""
    try:
        yield
    except GenerationError as error:
        for kind, event in _FAILURES.items():
            if isinstance(error, kind):
                reason = "moderation" if _is_moderation(error) else None
                _emit(event, error, error.task_id or error.digest, code=error.code, reason=reason)
        raise


def emit_nearly_spent(budget: Budget, share: float) -> None:
    """Emit, once in a process, the event that four fifths of a budget are spent. Outside a run nothing is emitted."""
    if share < _NEARLY or budget in _TOLD or not _in_run():
        return
    _TOLD.add(budget)
    resource = {"prefect.resource.id": f"happyhorse.budget.{budget.currency}", "prefect.resource.name": str(budget)}
    _send("happyhorse.budget.nearly-spent", resource, {"share": round(share, 4)})


def emit_rest(account: Account, seconds: float) -> None:
    """Emit the event that a gateway failed so often that it rests. Outside a run nothing is emitted."""
    resource = {
        "prefect.resource.id": f"happyhorse.gateway.{account.gateway}",
        "prefect.resource.name": account.gateway,
        "happyhorse.gateway": account.gateway,
        "happyhorse.account": account.label,
    }
    _send("happyhorse.gateway.rests", resource, {"seconds": seconds})


def _is_moderation(error: GenerationError) -> bool:
    if isinstance(error, ModerationRejected):
        return True
    return error.gateway is not None and gateway_facts(error.gateway).is_moderation(error.code)


def _emit(event: JobEvent, about: Job | GenerationError, name: str | None, **more: str | None) -> None:
    job = f"{about.gateway}.{name}"
    labels = {label: getattr(about, label) for label in _LABELS} | more
    resource = {f"happyhorse.{label}": value for label, value in labels.items() if value is not None}
    if isinstance(about, Job):
        resource |= {f"happyhorse.label.{name}": value for name, value in about.labels.items()}
    resource |= {"prefect.resource.id": f"happyhorse.job.{job}", "prefect.resource.name": about.model or job}
    _send(f"happyhorse.job.{event}", resource, {})


def _in_run() -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _send(event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
    if not _in_run():
        return
    try:
        emit_event(event=event, resource=resource, payload=payload)
    except Exception as error:  # noqa: BLE001 -- what Prefect may raise here has no common base, and what the event is about goes on
        _log.warning("The event %s of %s could not be emitted: %s", event, resource["prefect.resource.id"], error)
