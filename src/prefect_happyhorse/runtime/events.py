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

__all__ = ["JobEvent", "emit", "emitting_failure"]

_log = logging.getLogger(__name__)

JobEvent = Literal["submitted", "running", "succeeded", "failed", "expired", "uncertain"]
"""What can happen to a job; the event's name is `happyhorse.job.` and one of these."""


def emit(event: JobEvent, job: Job) -> None:
    """Emit an event about a job; the run, its flow and its deployment are related to it by Prefect. Outside a run nothing is emitted."""
    labels = {"gateway": job.gateway, "account": job.account, "model": job.model, "capability": job.capability, "digest": job.digest}
    _emit(event, f"{job.gateway}.{job.task_id}", labels)


@contextmanager
def emitting_failure() -> Generator[None]:
    """Emit the event that an error stands for, if one is raised in here and stands for one."""
    try:
        yield
    except GenerationError as error:
        _emit_failure(error)
        raise


def _emit_failure(error: GenerationError) -> None:
    event: JobEvent
    if isinstance(error, SubmissionUncertain):
        event = "uncertain"
    elif isinstance(error, JobExpired):
        event = "expired"
    elif isinstance(error, (JobFailed, ModerationRejected)):
        event = "failed"
    else:
        return
    facts = {
        "gateway": error.gateway,
        "account": error.account,
        "model": error.model,
        "capability": error.capability,
        "digest": error.digest,
        "code": error.code,
        "reason": "moderation" if _is_moderation(error) else None,
    }
    labels = {name: value for name, value in facts.items() if value is not None}
    _emit(event, f"{error.gateway}.{error.task_id or error.digest}", labels)


def _is_moderation(error: GenerationError) -> bool:
    if isinstance(error, ModerationRejected):
        return True
    return error.gateway is not None and gateway_facts(error.gateway).is_moderation(error.code)


def _emit(event: JobEvent, job: str, labels: dict[str, str]) -> None:
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    resource = {"prefect.resource.id": f"happyhorse.job.{job}", "prefect.resource.name": labels.get("model", job)}
    try:
        emit_event(event=f"happyhorse.job.{event}", resource=resource | {f"happyhorse.{name}": value for name, value in labels.items()})
    # As with artifacts: what Prefect may raise here has no common base, and the job is paid for and goes on.
    except Exception as error:  # noqa: BLE001
        _log.warning("The event %s of %s could not be emitted: %s", event, job, error)
