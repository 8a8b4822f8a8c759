"""What every dialect has to say, and what gateways of all dialects have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from starlette.datastructures import Headers

from prefect_happyhorse.catalog import GatewayFacts
from prefect_happyhorse.sandbox.jobs.job import Failure, Job, LedgerState, Meaning, fingerprint
from prefect_happyhorse.sandbox.jobs.state import SandboxState
from prefect_happyhorse.sandbox.jobs.uploads import Grant

__all__ = ["Answer", "Dialect", "PollView"]

Answer = dict[str, object]
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class PollView:
    """A job as one poll reports it."""

    job: Job
    state: LedgerState
    progress: float
    urls: tuple[str, ...] = ()
    b64: tuple[str, ...] = ()
    word: str | None = None

    def vary(self, about: str, choices: Sequence[Choice]) -> Choice:
        """One of several ways in which a provider writes the same, always the same one for a job."""
        return choices[hashlib.sha256(f"{about}:{self.job.task_id}".encode()).digest()[0] % len(choices)]

    @property
    def reason(self) -> str:
        """Why the job has no result; empty when it has one or may get one."""
        if self.state == "cancelled":
            return "task canceled"
        return self.job.failure.message if self.state == "failed" and self.job.failure else ""


class Dialect(ABC):
    """How one gateway speaks: a class per wire protocol, which takes from the facts what is the gateway's own."""

    model_key: ClassVar[str] = "model"
    batch_call: ClassVar[str | None] = None
    tolerated: frozenset[str] = frozenset()
    cuts_prompt: bool = False

    def __init__(self, facts: GatewayFacts, state: SandboxState) -> None:
        self.facts = facts
        self.state = state
        self._key_header, _, pattern = facts.auth.partition(": ")
        self._key_scheme = pattern.partition("<")[0]

    def credential(self, headers: Headers) -> str:
        """The key that a request carries; empty when there is none."""
        value = headers.get(self._key_header, "")
        return value[len(self._key_scheme) :].strip() if value.lower().startswith(self._key_scheme.lower()) else ""

    def account(self, headers: Headers) -> str | None:
        """Whose request it is; None when its key is refused."""
        key = self.credential(headers)
        return fingerprint(key) if self.state.settings.takes_key(key) else None

    def normalize(self, body: dict[str, object]) -> dict[str, object]:
        """A submit's body with the provider's aliases replaced."""
        return body

    def new_task_id(self) -> str:
        """A task id as the provider writes it."""
        return self.state.new_id()

    @abstractmethod
    def error(self, meaning: Meaning, message: str) -> tuple[int, Answer]:
        """Status and body of a refusal."""

    @abstractmethod
    def accepted(self, view: PollView) -> Answer:
        """The answer to a submit that was accepted."""

    @abstractmethod
    def status(self, view: PollView) -> Answer:
        """The answer to a poll."""

    def missing(self, task_id: str) -> Answer:
        """The answer to a poll of a job that is not there."""
        raise Failure("missing_task", f"no such task: {task_id}")

    def cancelled(self, view: PollView | None) -> Answer:
        """The answer to a cancel of a job, which a Failure refuses; None is one that is not there."""
        if view is None or view.state != "queued":
            raise Failure("unsupported", "Failed to cancel the task, please confirm if the task is in PENDING status.")
        return {"request_id": self.state.new_id()}

    def without_task_id(self, answer: Answer) -> Answer:
        """An answer to a submit from which the job's id is gone."""
        return {
            key: self.without_task_id(value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType]
            for key, value in answer.items()
            if key not in {"id", "task_id"}
        }

    def issue_token(self, body: Mapping[str, object]) -> Answer:
        """The answer to a call for an access token."""
        raise Failure("unsupported", "there are no access tokens here")

    def policy(self, grant: Grant, url: str) -> Answer:
        """The answer to a call for an upload to the temporary storage at an address."""
        raise Failure("unsupported", "there is no temporary storage here")

    def resolves_uploads(self, headers: Headers) -> bool:
        """Whether a submit asks for what was uploaded to be found."""
        return False

    def listed(self, jobs: Sequence[Job], query: Mapping[str, str]) -> Answer:
        """The answer to a call for the list of an account's tasks."""
        raise Failure("unsupported", "jobs cannot be listed")

    def batch(self, views: Sequence[PollView]) -> Answer:
        """The answer to a poll of many jobs at once."""
        raise Failure("unsupported", "jobs cannot be queried in batches")
