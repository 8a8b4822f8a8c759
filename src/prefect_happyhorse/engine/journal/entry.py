"""What the journal knows of one request."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal

from pydantic import Field

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobResult
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.domain.values import Value
from prefect_happyhorse.engine.journal.owner import LeaseOwner

__all__ = ["OPEN_STATES", "Cancellation", "Failure", "JournalEntry", "JournalState"]

JournalState = Literal["intent", "uncertain", "submitted", "succeeded", "kept", "failed", "expired", "cancelled"]
"""Where a request stands: about to be sent; perhaps taken, perhaps not; taken; finished; its file kept; and three ends without one."""

OPEN_STATES: tuple[JournalState, ...] = ("intent", "uncertain", "submitted", "succeeded")
"""The states in which money is or may be spent and no file is kept yet."""


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Failure(Value):
    """How a job ended without a result."""

    message: str
    code: str | None = None
    provider_status: str | None = None
    at: datetime = Field(default_factory=_now)


class Cancellation(Value):
    """What a gateway answered when it was asked to cancel a job."""

    accepted: bool
    message: str
    request_id: str | None = None
    at: datetime = Field(default_factory=_now)


class JournalEntry(Value):
    """All that is known of one request digest."""

    version: Literal[1] = 1
    digest: str
    state: JournalState
    gateway: str
    account: str
    take: int
    request: GenerationRequest
    estimate: Estimate | None = Field(default=None, description="What it should cost, by the price list at its submit.")
    credentials: str | None = Field(default=None, description="The name under which the credentials can be found again.")
    flow_run_id: str | None = Field(default=None, description="The flow run that bought it.")
    owner: LeaseOwner
    job: Job | None = None
    result: JobResult | None = None
    asset: MediaAsset | None = None
    failure: Failure | None = None
    cancellation: Cancellation | None = None
    duplicate_jobs: tuple[Job, ...] = Field(
        default=(), description="Further jobs of the same request, bought because somebody chose to resubmit."
    )
    updated_at: datetime = Field(default_factory=_now)

    @property
    def begun_at(self) -> datetime:
        """When the submit was begun."""
        return self.owner.at

    @property
    def is_open(self) -> bool:
        """Whether money is or may be spent and no file is kept yet."""
        return self.state in OPEN_STATES

    @property
    def may_be_bought_again(self) -> bool:
        """Whether the gateway itself said that it took the job back before it began."""
        return self.state == "cancelled" and self.cancellation is not None and self.cancellation.accepted

    def becoming(self, state: JournalState, **facts: object) -> JournalEntry:
        """The entry in a new state."""
        return self.model_copy(update={"state": state, "updated_at": _now(), **facts})

    def with_job(self, job: Job) -> JournalEntry:
        """The entry with a job that was accepted; a second one of the same request is kept beside the first."""
        if self.job is None:
            return self.becoming("submitted", job=job, failure=None)
        if job.task_id in {one.task_id for one in (self.job, *self.duplicate_jobs)}:
            return self
        return self.model_copy(update={"duplicate_jobs": (*self.duplicate_jobs, job)})
