"""A submitted request and what its gateway says of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

from pydantic import AwareDatetime, Field, model_validator

from prefect_happyhorse.domain.values import AssetKind, FrozenLabels, Labels, Value

__all__ = ["DEADLINE_S", "Job", "JobResult", "JobSnapshot", "JobStatus", "ListedTask", "Output", "Submission", "TaskPage"]

DEADLINE_S = 3600.0
"""How long a job is waited for when nobody says otherwise, in seconds since submit."""


class JobStatus(str, Enum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """Whether the gateway will never say anything else.

        Example:
            >>> JobStatus.UNKNOWN.final
            False
        """
        return self in _FINAL


_FINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED})


class Submission(Value):
    """What a gateway answers to an accepted submit."""

    task_id: str
    request_id: str | None = None
    status: JobStatus = JobStatus.QUEUED
    provider_status: str | None = None


class Job(Value):
    """A submitted request: enough to poll and download it from any machine, without a secret.

    Example:
        >>> from datetime import datetime, timezone
        >>> now = datetime(2026, 11, 20, tzinfo=timezone.utc)
        >>> job = Job(gateway="ttapi", account="default", capability="reference_to_video",
        ...           model="happyhorse-1.1-r2v", task_id="t-1", digest="d", submitted_at=now)
        >>> job.task_id
        't-1'
    """

    gateway: str = Field(description="The gateway that runs the job.")
    account: str = Field(description="The label of the account that pays.")
    capability: str = Field(description="What was asked for.")
    model: str = Field(description="The model that was asked for.")
    task_id: str = Field(description="The provider's id of the job.")
    request_id: str | None = Field(default=None, description="The provider's id of the submit exchange.")
    digest: str = Field(description="The request digest.")
    prompt: str | None = Field(default=None, description="The prompt as the user wrote it.")
    submitted_at: AwareDatetime = Field(description="When the gateway accepted the job.")
    expires_at: AwareDatetime | None = Field(default=None, description="Until when the gateway answers for the job.")
    labels: Labels = Field(default_factory=FrozenLabels, description="What it was called by when it was bought.")


class Output(Value):
    """One result of a job, at the provider's address or inside its answer."""

    kind: AssetKind
    url: str | None = None
    keyed: bool = Field(default=False, description="Whether its address, at the gateway itself, is opened by the key of the account alone.")
    inline: str | None = Field(default=None, exclude=True, repr=False, description="Base64 of a result that came inside the answer.")

    @model_validator(mode="before")
    @classmethod
    def _data_url_is_inline(cls, data: object) -> object:
        # As an address it would carry the whole file into the journal, logs and errors.
        facts: dict[str, Any] = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
        is_data_url = str(facts.get("url")).startswith("data:")
        return facts | {"url": None, "inline": facts["url"]} if is_data_url else cast("object", data)

    @property
    def is_inline(self) -> bool:
        """Whether the bytes come inside the gateway's answer, so that there is no address to keep."""
        return self.url is None


class JobSnapshot(Value):
    """What a gateway answers to one poll."""

    status: JobStatus
    provider_status: str | None = None
    progress: float | None = Field(default=None, ge=0, le=1)
    outputs: tuple[Output, ...] = ()
    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    usage: Mapping[str, Any] | None = None
    prompt: str | None = Field(default=None, repr=False, description="The prompt that the gateway says it was sent with.")


class ListedTask(Value):
    """A task in a gateway's list."""

    task_id: str
    created_at: AwareDatetime = Field(description="When the gateway took it, by its own clock.")


class TaskPage(Value):
    """A page of a gateway's list of tasks."""

    tasks: tuple[ListedTask, ...]
    total: int = Field(ge=0, description="How many tasks the list holds in all.")
    pages: int = Field(ge=0, description="How many pages it has.")


class JobResult(Value):
    """A finished job and where its outputs lie."""

    job: Job
    outputs: tuple[Output, ...]
    outputs_expire_at: AwareDatetime | None = None
    finished_at: AwareDatetime
    polls: int = Field(ge=0, description="How many times the gateway was asked.")
    provider_status: str | None = None
    usage: Mapping[str, Any] | None = None
