"""UniAll: a flat body and OpenAI-like answers. Sources: its pages on creating and on querying a video task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from starlette.datastructures import Headers

from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect, PollPath, PollView
from prefect_happyhorse.sandbox.dialects.dashscope import bearer
from prefect_happyhorse.sandbox.jobs.job import LedgerState, Meaning
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["Uniall", "new_api_error"]

_ERRORS: dict[Meaning, tuple[int, str, str]] = {
    "invalid": (400, "invalid_request_error", "invalid_request_error"),
    "authentication": (401, "authentication_error", "invalid_api_key"),
    "moderation": (400, "invalid_request_error", "content_policy_violation"),
    "quota": (403, "insufficient_quota", "insufficient_user_quota"),
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "missing_task": (400, "invalid_request_error", "task_not_exist"),
    "unsupported": (404, "invalid_request_error", "invalid_url"),
    "internal": (500, "server_error", "internal_error"),
}
_WORDS: dict[LedgerState, str] = {
    "queued": "queued",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "failed",
}


def new_api_error(meaning: Meaning, message: str) -> tuple[int, Answer]:
    """An error as gateways of the new-api family write it."""
    status, kind, code = _ERRORS[meaning]
    return status, {"error": {"message": message, "type": kind, "code": code}}


class Uniall(Dialect):
    """UniAll."""

    gateway: ClassVar[str] = "uniall"
    polls: ClassVar[tuple[PollPath, ...]] = (PollPath("/v1/videos/{task_id}"), PollPath("/v1/videos/generations/{task_id}"))

    def credential(self, headers: Headers) -> str:
        """The bearer token."""
        return bearer(headers)

    def error(self, meaning: Meaning, message: str, state: SandboxState) -> tuple[int, Answer]:
        """An `error` object."""
        return new_api_error(meaning, message)

    def normal(self, body: Mapping[str, object]) -> dict[str, object]:
        """`reference_image_urls` is another name of `images` where there is no video."""
        renamed = dict(body)
        if "reference_image_urls" in renamed and "images" not in renamed and "video" not in renamed:
            renamed["images"] = renamed.pop("reference_image_urls")
        return renamed

    def accepted(self, view: PollView) -> Answer:
        """The job, queued."""
        job = view.job
        return {
            "id": job.task_id,
            "task_id": job.task_id,
            "object": "video.generation.job",
            "model": job.route.model,
            "status": view.word or "queued",
            "progress": 0,
            "created_at": int(job.submitted_at),
            "seconds": str(int(job.fit.number("duration") or 0)),
        }

    def status(self, view: PollView, state: SandboxState) -> Answer:
        """The job, with its result when it is done."""
        job = view.job
        reason = view.reason or ("task canceled" if view.state == "cancelled" else "")
        code = _ERRORS[job.failure.meaning][2] if job.failure else "internal_error"
        answer: Answer = {
            "id": job.task_id,
            "object": "video.generation.job",
            "model": job.route.model,
            "status": view.word or _WORDS[view.state],
            "progress": view.percent,
            "created_at": int(job.submitted_at),
            "error": {"message": reason, "code": code} if reason else None,
        }
        if view.state == "succeeded":
            answer["video_url"] = view.urls[0] if view.urls else None
            answer["result"] = {"outputs": list(view.urls), "video_url": view.urls[0] if view.urls else None}
        return answer
