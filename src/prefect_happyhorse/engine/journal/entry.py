"""What the journal knows of one request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Literal

from pydantic import AwareDatetime, Field, model_validator

from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.jobs import Job, JobResult
from prefect_happyhorse.domain.prices import Estimate
from prefect_happyhorse.domain.requests import GenerationRequest
from prefect_happyhorse.domain.values import FrozenLabels, Labels, Value
from prefect_happyhorse.engine.journal.owner import LeaseOwner

__all__ = ["FACTS", "OPEN_STATES", "TRANSITIONS", "Cancellation", "Failure", "JournalEntry", "JournalState"]

JournalState = Literal["intent", "uncertain", "submitted", "succeeded", "kept", "failed", "expired", "cancelled", "released", "forgotten"]
"""Where a request stands: about to be sent; perhaps taken, perhaps not; taken; finished; its file kept; three ends without one; and two
in which nothing is bought: the lease was released, or a person had the request forgotten.
"""

OPEN_STATES: tuple[JournalState, ...] = ("intent", "uncertain", "submitted", "succeeded")
"""The states in which money is or may be spent and no file is kept yet."""

TRANSITIONS: Mapping[JournalState, frozenset[JournalState]] = {
    "intent": frozenset({"uncertain", "submitted", "released", "forgotten"}),
    # Somebody chose to resubmit, or found the job at the provider.
    "uncertain": frozenset({"intent", "submitted", "forgotten"}),
    "submitted": frozenset({"succeeded", "kept", "failed", "expired", "cancelled", "forgotten"}),
    "succeeded": frozenset({"kept", "failed", "expired", "cancelled", "forgotten"}),
    "kept": frozenset[JournalState]({"forgotten"}),
    # Two runs may hear two answers about one job. Whichever came second, a result is not lost for it.
    "failed": frozenset({"succeeded", "kept", "expired", "forgotten"}),
    "expired": frozenset({"submitted", "succeeded", "kept", "failed", "forgotten"}),
    "cancelled": frozenset({"intent", "succeeded", "kept", "forgotten"}),
    # A submit that was held up on its way may still be accepted.
    "released": frozenset({"intent", "submitted", "forgotten"}),
    "forgotten": frozenset({"intent", "submitted"}),
}
"""What each state may become. To stay is always allowed: so facts are added."""

FACTS: Mapping[JournalState, tuple[frozenset[str], frozenset[str]]] = {
    "intent": (frozenset(), frozenset()),
    "uncertain": (frozenset(), frozenset({"failure"})),
    "submitted": (frozenset({"job"}), frozenset({"result", "cancellation"})),
    "succeeded": (frozenset({"job", "result"}), frozenset({"asset", "failure", "cancellation"})),
    "kept": (frozenset({"job", "result", "asset"}), frozenset({"failure", "cancellation"})),
    "failed": (frozenset({"job", "failure"}), frozenset({"result", "cancellation"})),
    "expired": (frozenset({"job", "failure"}), frozenset({"result", "cancellation"})),
    "cancelled": (frozenset({"job", "cancellation"}), frozenset({"result", "failure"})),
    "released": (frozenset(), frozenset()),
    "forgotten": (frozenset(), frozenset()),
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
    task_id: str | None = Field(default=None, description="The job that an uncertain submit's answer named.")
    at: AwareDatetime = Field(default_factory=_now)
    up_s: float | None = Field(default=None, description="When an uncertain submit was given up, as its owner's `up_s`.")


class Cancellation(Value):
    """What a gateway answered when it was asked to cancel a job."""

    accepted: bool
    message: str
    may_be_charged: bool = Field(default=False, description="Whether the job may be charged all the same, for nobody says that it is not.")
    request_id: str | None = None
    at: AwareDatetime = Field(default_factory=_now)


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
    base_url: str | None = Field(default=None, description="The gateway's address, at which alone its tasks can be listed.")
    credentials: str | None = Field(default=None, description="The name under which the credentials can be found again.")
    key_fingerprint: str | None = Field(
        default=None, description="What tells the key that it was submitted by from another, in whose account it cannot be."
    )
    flow_run_id: str | None = Field(default=None, description="The flow run that bought it.")
    labels: Labels = Field(default_factory=FrozenLabels, description="What it was called by when it was bought.")
    owner: LeaseOwner
    job: Job | None = None
    result: JobResult | None = None
    asset: MediaAsset | None = None
    failure: Failure | None = None
    cancellation: Cancellation | None = None
    traceparent: str | None = Field(default=None, description="The span of its submit, of whose trace are those of its job.")
    aside: tuple[str, ...] = Field(default=(), description="Digests of the entries of further jobs that were bought for this request.")
    updated_at: AwareDatetime = Field(default_factory=_now)
    revision: int = Field(
        default=0, exclude=True, description="How often it was written. The name of its file says so; 0 before the first."
    )

    @model_validator(mode="after")
    def _check_facts(self) -> JournalEntry:
        return self.checked()

    def checked(self) -> JournalEntry:
        """The entry itself, unless it holds what an entry of its state cannot hold: a copy is not checked when it is made."""
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
        """Whether nothing is bought: never, or no more, since the gateway itself said that it took the job back before it began."""
        answer = self.cancellation
        cancelled = self.state == "cancelled" and answer is not None and answer.accepted and not answer.may_be_charged
        return cancelled or self.state in {"released", "forgotten"}

    def is_intent_of(self, owner: LeaseOwner) -> bool:
        """Whether this is still the intent of a submit."""
        return self.state == "intent" and self.owner.claim == owner.claim

    def may_become(self, state: JournalState) -> bool:
        """Whether the entry may come into a state, or stay in it."""
        return state == self.state or state in TRANSITIONS[self.state]

    def becoming(self, state: JournalState, **facts: object) -> JournalEntry:
        """The entry in a new state, with new facts; one without a job loses those of the job that it had."""
        if not self.may_become(state):
            raise ValueError(f"an entry that is {self.state!r} cannot become {state!r}")
        _, allowed = FACTS[state]
        dropped = {} if allowed or FACTS[state][0] else dict.fromkeys(_ALL_FACTS)
        changed = self.model_copy(update={"state": state, "updated_at": _now(), **dropped, **facts})
        return changed.checked()

    def job_named(self, task_id: str, *, lives_s: float | None = None) -> Job:
        """The job that an uncertain submit became, by the id that somebody knows."""
        return Job(
            gateway=self.gateway,
            account=self.account,
            capability=self.request.capability,
            model=self.request.model,
            task_id=task_id,
            digest=self.digest,
            prompt=self.request.prompt,
            # The gateway took it within the minute after the submit was begun, if it took it at all.
            submitted_at=self.begun_at,
            expires_at=None if lives_s is None else self.begun_at + timedelta(seconds=lives_s),
            labels=self.labels,
        )

    def set_aside(self, job: Job) -> JournalEntry:
        """An entry of its own for a job of this request that another takes the place of, so that it is waited for and kept as any other."""
        digest = hashlib.sha256(f"{self.digest} {job.task_id}".encode()).hexdigest()
        own = job.model_copy(update={"digest": digest})
        of_its_own: dict[str, object] = {"digest": digest, "job": own, "aside": (), "revision": 0}
        if self.job is not None and self.job.task_id == job.task_id:
            if self.result is not None:
                of_its_own["result"] = self.result.model_copy(update={"job": own})
            if self.asset is not None:
                mine = [one.model_copy(update={"job": own}) for one in self.asset.siblings]
                of_its_own["asset"] = self.asset.model_copy(update={"job": own, "siblings": tuple(mine)})
            return self.model_copy(update=of_its_own)
        return self.model_copy(update={**dict.fromkeys(_ALL_FACTS), "state": "submitted", **of_its_own})
