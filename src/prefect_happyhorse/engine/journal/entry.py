"""What the journal knows of one request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Literal

from pydantic import Field, model_validator

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobResult
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.domain.values import Value
from prefect_happyhorse.engine.journal.owner import LeaseOwner

__all__ = ["FACTS", "OPEN_STATES", "TRANSITIONS", "Cancellation", "Failure", "JournalEntry", "JournalState"]

JournalState = Literal["intent", "uncertain", "submitted", "succeeded", "kept", "failed", "expired", "cancelled"]
"""Where a request stands: about to be sent; perhaps taken, perhaps not; taken; finished; its file kept; and three ends without one."""

OPEN_STATES: tuple[JournalState, ...] = ("intent", "uncertain", "submitted", "succeeded")
"""The states in which money is or may be spent and no file is kept yet."""

TRANSITIONS: Mapping[JournalState, frozenset[JournalState]] = {
    "intent": frozenset({"uncertain", "submitted"}),
    # Somebody chose to resubmit, or found the job at the provider.
    "uncertain": frozenset({"intent", "submitted"}),
    "submitted": frozenset({"succeeded", "kept", "failed", "expired", "cancelled"}),
    "succeeded": frozenset({"kept", "failed", "expired", "cancelled"}),
    "kept": frozenset[JournalState](),
    # Two runs may hear two answers about one job. Whichever came second, a result is not lost for it.
    "failed": frozenset({"succeeded", "kept", "expired"}),
    "expired": frozenset({"submitted", "succeeded", "kept", "failed"}),
    "cancelled": frozenset({"intent", "succeeded", "kept"}),
}
"""What each state may become. To stay is always allowed: so facts are added."""

FACTS: Mapping[JournalState, tuple[frozenset[str], frozenset[str]]] = {
    "intent": (frozenset(), frozenset()),
    "uncertain": (frozenset(), frozenset({"failure"})),
    "submitted": (frozenset({"job"}), frozenset({"result", "cancellation"})),
    "succeeded": (frozenset({"job", "result"}), frozenset({"failure", "cancellation"})),
    "kept": (frozenset({"job", "result", "asset"}), frozenset({"failure", "cancellation"})),
    "failed": (frozenset({"job", "failure"}), frozenset({"result", "cancellation"})),
    "expired": (frozenset({"job", "failure"}), frozenset({"result", "cancellation"})),
    "cancelled": (frozenset({"job", "cancellation"}), frozenset({"result", "failure"})),
}
"""Which facts an entry of each state holds, and which it may hold besides."""

_ALL_FACTS = ("job", "result", "asset", "failure", "cancellation")


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

    version: Literal[2] = 2
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

    @model_validator(mode="after")
    def _check_facts(self) -> JournalEntry:
        needed, allowed = FACTS[self.state]
        held = {name for name in _ALL_FACTS if getattr(self, name) is not None}
        if missing := sorted(needed - held):
            raise ValueError(f"an entry that is {self.state!r} must hold {', '.join(missing)}")
        if surplus := sorted(held - needed - allowed):
            raise ValueError(f"an entry that is {self.state!r} must not hold {', '.join(surplus)}")
        return self

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

    def may_become(self, state: JournalState) -> bool:
        """Whether the entry may come into a state, or stay in it."""
        return state == self.state or state in TRANSITIONS[self.state]

    def becoming(self, state: JournalState, **facts: object) -> JournalEntry:
        """The entry in a new state, with new facts."""
        if not self.may_become(state):
            raise ValueError(f"an entry that is {self.state!r} cannot become {state!r}")
        return JournalEntry.model_validate({**dict(self), "state": state, "updated_at": _now(), **facts})

    def with_job(self, job: Job) -> JournalEntry:
        """The entry with a job that was accepted; a second one of the same request is kept beside the first."""
        if self.job is None:
            return self.becoming("submitted", job=job, failure=None)
        if job.task_id in {one.task_id for one in (self.job, *self.duplicate_jobs)}:
            return self
        return self.model_copy(update={"duplicate_jobs": (*self.duplicate_jobs, job)})
