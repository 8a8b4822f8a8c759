"""Events about jobs, for the Prefect event feed and for automations: submitted, running, succeeded, failed, expired, uncertain."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

from prefect_happyhorse.catalog import gateway_facts
from prefect_happyhorse.domain.errors import GenerationError, JobExpired, JobFailed, ModerationRejected, SubmissionUncertain
from prefect_happyhorse.domain.jobs import Job
from prefect_happyhorse.engine.journal.budget import Budget
from prefect_happyhorse.gateways import Account

__all__ = ["JobEvent", "emit", "emit_nearly_spent", "emit_rest", "emitting_failure"]

_log = logging.getLogger(__name__)

JobEvent = Literal["submitted", "running", "succeeded", "failed", "expired", "uncertain"]
"""What can happen to a job; the event's name is `happyhorse.job.` and one of these."""


_FAILURES: dict[type[GenerationError], JobEvent] = {
    SubmissionUncertain: "uncertain",
    JobExpired: "expired",
    JobFailed: "failed",
    ModerationRejected: "failed",
}
_NEARLY = 0.8
_TOLD: set[Budget] = set()
_LABELS = ("gateway", "account", "model", "capability", "digest")


def emit(event: JobEvent, job: Job) -> None:
    """Emit an event about a job; the run, its flow and its deployment are related to it by Prefect. Outside a run nothing is emitted."""
    _emit(event, job, job.task_id)


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
    if share < _NEARLY or budget in _TOLD or (FlowRunContext.get() is None and TaskRunContext.get() is None):
        return
    _TOLD.add(budget)
    resource = {"prefect.resource.id": f"happyhorse.budget.{budget.currency}", "prefect.resource.name": str(budget)}
    try:
        emit_event(event="happyhorse.budget.nearly-spent", resource=resource, payload={"share": round(share, 4)})
    except Exception as error:  # noqa: BLE001 -- what Prefect may raise here has no common base, and the job is paid for and goes on
        _log.warning("That the budget of %s is nearly spent could not be emitted: %s", budget, error)


def emit_rest(account: Account, seconds: float) -> None:
    """Emit the event that a gateway failed so often that it rests. Outside a run nothing is emitted."""
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    resource = {
        "prefect.resource.id": f"happyhorse.gateway.{account.gateway}",
        "prefect.resource.name": account.gateway,
        "happyhorse.gateway": account.gateway,
        "happyhorse.account": account.label,
    }
    try:
        emit_event(event="happyhorse.gateway.rests", resource=resource, payload={"seconds": seconds})
    except Exception as error:  # noqa: BLE001 -- what Prefect may raise here has no common base, and the request goes on elsewhere
        _log.warning("That %s rests could not be emitted: %s", account.gateway, error)


def _is_moderation(error: GenerationError) -> bool:
    if isinstance(error, ModerationRejected):
        return True
    return error.gateway is not None and gateway_facts(error.gateway).is_moderation(error.code)


def _emit(event: JobEvent, about: Job | GenerationError, name: str | None, **more: str | None) -> None:
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    job = f"{about.gateway}.{name}"
    labels = {label: getattr(about, label) for label in _LABELS} | more
    resource = {f"happyhorse.{label}": value for label, value in labels.items() if value is not None}
    if isinstance(about, Job):
        resource |= {f"happyhorse.label.{name}": value for name, value in about.labels.items()}
    resource |= {"prefect.resource.id": f"happyhorse.job.{job}", "prefect.resource.name": about.model or job}
    try:
        emit_event(event=f"happyhorse.job.{event}", resource=resource)
    except Exception as error:  # noqa: BLE001 -- what Prefect may raise here has no common base, and the job is paid for and goes on
        _log.warning("The event %s of %s could not be emitted: %s", event, job, error)
