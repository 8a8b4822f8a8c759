"""What every dialect has to say."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from starlette.datastructures import Headers

from prefect_happyhorse.sandbox.jobs.job import Job, LedgerState, Meaning, fingerprint
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["Answer", "Dialect", "PollPath", "PollView"]

Answer = dict[str, object]
Word = TypeVar("Word")


@dataclass(frozen=True)
class PollView:
    """A job as one poll reports it."""

    job: Job
    state: LedgerState
    progress: float
    now: float
    urls: tuple[str, ...] = ()
    b64: tuple[str, ...] = ()
    word: str | None = None

    def vary(self, about: str, choices: Sequence[Word]) -> Word:
        """One of several ways in which a provider writes the same, always the same for one job."""
        return vary(self.job.task_id, about, choices)

    @property
    def percent(self) -> int | str:
        """The progress, as a number or as text with a percent sign."""
        percent = round(self.progress * 100)
        return self.vary("progress", [percent, f"{percent}%"])

    @property
    def reason(self) -> str:
        """Why the job failed; empty when it did not."""
        return self.job.failure.message if self.state == "failed" and self.job.failure else ""


def vary(task_id: str, about: str, choices: Sequence[Word]) -> Word:
    """Choose by a job's id."""
    return choices[hashlib.sha256(f"{about}:{task_id}".encode()).digest()[0] % len(choices)]


@dataclass(frozen=True)
class PollPath:
    """A path at which jobs are asked for; `{task_id}` stands for the job."""

    path: str
    only_its_own: bool = False
    """Whether a job is found only at the path that its own route names."""


class Dialect(ABC):
    """How one gateway speaks."""

    gateway: ClassVar[str]
    model_key: ClassVar[str] = "model"
    tolerated: ClassVar[frozenset[str]] = frozenset()
    cuts_prompt: ClassVar[bool] = False
    polls: ClassVar[tuple[PollPath, ...]] = ()
    poll_query: ClassVar[str | None] = None
    cancel: ClassVar[str | None] = None
    issue_path: ClassVar[str | None] = None
    batch: ClassVar[str | None] = None

    @abstractmethod
    def credential(self, headers: Headers) -> str:
        """The key that a request carries."""

    @abstractmethod
    def error(self, meaning: Meaning, message: str, state: SandboxState) -> tuple[int, Answer]:
        """A refusal."""

    @abstractmethod
    def accepted(self, view: PollView) -> Answer:
        """The answer to a submit that was accepted."""

    @abstractmethod
    def status(self, view: PollView, state: SandboxState) -> Answer:
        """The answer to a poll."""

    def account(self, key: str, state: SandboxState) -> str | None:
        """Whose key it is."""
        return fingerprint(key) if state.settings.takes_key(key) else None

    def header_problem(self, headers: Headers) -> str | None:
        """What a submit's headers lack."""
        del headers
        return None

    def normal(self, body: Mapping[str, object]) -> dict[str, object]:
        """A submit's body with the provider's aliases replaced."""
        return dict(body)

    def missing(self, task_id: str, state: SandboxState) -> tuple[int, Answer]:
        """The answer to a poll of a job that is not there."""
        return self.error("missing_task", f"no such task: {task_id}", state)

    def without_task_id(self, answer: Answer) -> Answer:
        """An answer to a submit from which the job's id is gone."""
        return {
            key: self.without_task_id(value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType]
            for key, value in answer.items()
            if key not in {"id", "task_id"}
        }
