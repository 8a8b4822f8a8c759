"""TTAPI and Infiflow: DashScope's way of speaking, with different heads.

Sources: the providers' pages on HappyHorse reference-to-video, TTAPI's page on fetching a task, and DashScope's documents of
asynchronous tasks.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import ClassVar

from starlette.datastructures import Headers

from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect, PollPath, PollView
from prefect_happyhorse.sandbox.jobs.job import LedgerState, Meaning
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["Infiflow", "Ttapi"]

_CODES: dict[Meaning, tuple[int, str]] = {
    "invalid": (400, "InvalidParameter"),
    "authentication": (401, "InvalidApiKey"),
    "moderation": (400, "DataInspectionFailed"),
    "quota": (400, "Arrearage"),
    "rate_limit": (429, "Throttling.RateQuota"),
    "not_found": (404, "ModelNotFound"),
    "missing_task": (404, "InvalidParameter"),
    "unsupported": (400, "UnsupportedOperation"),
    "internal": (500, "InternalError"),
}
_WORDS: dict[LedgerState, str] = {
    "queued": "PENDING",
    "running": "RUNNING",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
    "cancelled": "CANCELED",
}
_CHINA = timezone(timedelta(hours=8))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, _CHINA).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _whole(number: float) -> float | int:
    return int(number) if number == int(number) else number


class _DashScope(Dialect):
    """What TTAPI and Infiflow share."""

    def error(self, meaning: Meaning, message: str, state: SandboxState) -> tuple[int, Answer]:
        """DashScope's error: code, message and request id."""
        status, code = _CODES[meaning]
        return status, {"code": code, "message": message, "request_id": state.new_id()}

    def accepted(self, view: PollView) -> Answer:
        """Task id and status in `output`."""
        output = {"task_status": view.word or "PENDING", "task_id": view.job.task_id}
        return {"output": output, "request_id": view.job.request_id}

    def missing(self, task_id: str, state: SandboxState) -> tuple[int, Answer]:
        """An unknown or expired task is answered with status UNKNOWN."""
        return 200, {"request_id": state.new_id(), "output": {"task_id": task_id, "task_status": "UNKNOWN"}}

    def status(self, view: PollView, state: SandboxState) -> Answer:
        """The task in `output`, what is billed in `usage`."""
        job = view.job
        output: Answer = {"task_id": job.task_id, "task_status": view.word or _WORDS[view.state], "submit_time": _time(job.submitted_at)}
        answer: Answer = {"request_id": state.new_id(), "output": output}
        if view.state != "queued":
            output["scheduled_time"] = _time(job.submitted_at + job.job_s * 0.2)
        if view.state in {"succeeded", "failed"}:
            output["end_time"] = _time(job.finished_at or job.submitted_at + job.job_s)
        if view.state == "succeeded":
            output["orig_prompt"] = job.fit.text("prompt") or ""
            if view.urls:
                output["video_url"] = view.urls[0]
            answer["usage"] = self._usage(view)
        elif view.state == "failed" and job.failure:
            output["code"], output["message"] = _CODES[job.failure.meaning][1], job.failure.message
        return answer

    def _usage(self, view: PollView) -> Answer:
        fit, seconds = view.job.fit, _whole(view.job.shape.duration_s)
        resolution = (fit.text("resolution") or "1080P").upper().removesuffix("P")
        return {
            "duration": seconds,
            "input_video_duration": 0,
            "output_video_duration": seconds,
            "video_count": 1,
            "SR": int(resolution) if resolution.isdecimal() else resolution,
            "ratio": fit.text("aspect_ratio") or "16:9",
        }


class Ttapi(_DashScope):
    """TTAPI: a key header of its own, and its platform's own errors before DashScope's."""

    gateway: ClassVar[str] = "ttapi"
    cuts_prompt: ClassVar[bool] = True
    polls: ClassVar[tuple[PollPath, ...]] = (PollPath("/happyhorse/api/v1/tasks/{task_id}"),)
    cancel: ClassVar[str | None] = "/happyhorse/api/v1/tasks/{task_id}/cancel"

    def credential(self, headers: Headers) -> str:
        """The value of `TT-API-KEY`."""
        return headers.get("tt-api-key", "")

    def error(self, meaning: Meaning, message: str, state: SandboxState) -> tuple[int, Answer]:
        """The platform's error for key, balance and rate, DashScope's for the rest."""
        platform: dict[Meaning, int] = {"authentication": 401, "quota": 402, "rate_limit": 429, "internal": 500}
        if meaning in platform:
            return platform[meaning], {"status": "FAILED", "message": message, "jobId": "", "data": None}
        return super().error(meaning, message, state)


class Infiflow(_DashScope):
    """Infiflow: DashScope behind a proxy's prefix."""

    gateway: ClassVar[str] = "infiflow"
    # DashScope's own Python client puts these into every video request, whether it was asked to or not.
    tolerated: ClassVar[frozenset[str]] = frozenset({"input.extend_prompt", "input.function"})
    polls: ClassVar[tuple[PollPath, ...]] = (PollPath("/dashscope/api/v1/tasks/{task_id}"),)
    cancel: ClassVar[str | None] = "/dashscope/api/v1/tasks/{task_id}/cancel"

    def credential(self, headers: Headers) -> str:
        """The bearer token."""
        return bearer(headers)

    def header_problem(self, headers: Headers) -> str | None:
        """A submit must ask for an asynchronous call."""
        if headers.get("x-dashscope-async", "").lower() == "enable":
            return None
        return "current user api does not support synchronous calls: X-DashScope-Async: enable is required"


def bearer(headers: Headers) -> str:
    """The token of an `Authorization: Bearer` header."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
