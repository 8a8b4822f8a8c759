"""OpenAI's Videos API as the sandbox speaks it, from the same reference."""

from __future__ import annotations

from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect, PollView
from prefect_happyhorse.sandbox.jobs.job import Failure, LedgerState, Meaning

__all__ = ["OpenAIVideosSandbox"]

_ERRORS: dict[Meaning, tuple[int, str, str | None]] = {
    "invalid": (400, "invalid_request_error", None),
    "authentication": (401, "invalid_request_error", "invalid_api_key"),
    "moderation": (400, "invalid_request_error", "moderation_blocked"),
    "quota": (429, "insufficient_quota", "insufficient_quota"),
    "rate_limit": (429, "requests", "rate_limit_exceeded"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "missing_task": (404, "invalid_request_error", None),
    "unsupported": (404, "invalid_request_error", None),
    "internal": (500, "server_error", None),
}
_WORDS: dict[LedgerState, str] = {
    "queued": "queued",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "failed",
}


class OpenAIVideosSandbox(Dialect):
    """`/v1/videos`."""

    def new_task_id(self) -> str:
        """A video's id."""
        return f"video_{self.state.new_id().replace('-', '')}"

    def error(self, meaning: Meaning, message: str) -> tuple[int, Answer]:
        """An `error` object."""
        status, kind, code = _ERRORS[meaning]
        return status, {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def accepted(self, view: PollView) -> Answer:
        """The video, queued."""
        return self.status(view)

    def status(self, view: PollView) -> Answer:
        """The video; its bytes lie at an address of their own, which no answer names."""
        job, body = view.job, view.job.body
        code = _ERRORS[job.failure.meaning][2] if job.failure else None
        return {
            "id": job.task_id,
            "object": "video",
            "model": job.route.model,
            "status": view.word or _WORDS[view.state],
            "progress": round(view.progress * 100),
            "created_at": int(job.submitted_at),
            "seconds": body.text("duration"),
            "size": body.text("size"),
            "error": {"code": code or "internal_error", "message": view.reason} if view.reason else None,
        }

    def cancelled(self, view: PollView | None) -> Answer:
        """What says that a video is deleted."""
        if view is None:
            raise Failure("missing_task", "There is no such video.")
        return {"id": view.job.task_id, "object": "video.deleted", "deleted": True}
