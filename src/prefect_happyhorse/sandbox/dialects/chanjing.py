"""Chanjing: every answer is HTTP 200, the envelope's code decides. Sources: its page on happyhorse-1.0-r2v and its public skills."""

from __future__ import annotations

from typing import ClassVar

from starlette.datastructures import Headers

from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect, PollPath, PollView
from prefect_happyhorse.sandbox.jobs.job import LedgerState, Meaning, fingerprint
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["Chanjing"]

_CODES: dict[Meaning, int] = {
    "invalid": 40000,
    "authentication": 10400,
    "moderation": 40000,
    "quota": 40000,
    "rate_limit": 40001,
    "not_found": 40000,
    "missing_task": 40000,
    "unsupported": 400,
    "internal": 50000,
}


class Chanjing(Dialect):
    """Chanjing."""

    gateway: ClassVar[str] = "chanjing"
    model_key: ClassVar[str] = "model_code"
    polls: ClassVar[tuple[PollPath, ...]] = (PollPath("/open/v1/ai_creation/task"),)
    poll_query: ClassVar[str | None] = "unique_id"
    issue_path: ClassVar[str | None] = "/open/v1/access_token"
    batch: ClassVar[str | None] = "/open/v1/ai_creation/task/page"

    def credential(self, headers: Headers) -> str:
        """The value of `access_token`."""
        return headers.get("access_token", "")

    def account(self, key: str, state: SandboxState) -> str | None:
        """The app that a token was issued to, or the token itself when it was not issued here."""
        if key in state.tokens:
            app_id, expires_at = state.tokens[key]
            return fingerprint(app_id) if state.now() < expires_at else None
        if key in state.dead_tokens:
            return None
        return super().account(key, state)

    def issue(self, app_id: str, state: SandboxState) -> Answer:
        """A new token; the one before dies."""
        for old in [token for token, (owner, _) in state.tokens.items() if owner == app_id]:
            del state.tokens[old]
            state.dead_tokens.add(old)
        token = state.new_id().replace("-", "")
        expires_at = state.now() + state.settings.token_ttl_s
        state.tokens[token] = (app_id, expires_at)
        return {"app_id": app_id, "access_token": token, "expire_in": int(expires_at)}

    def envelope(self, data: object, state: SandboxState) -> Answer:
        """The envelope of a success."""
        return {"trace_id": state.new_id().replace("-", ""), "code": 0, "msg": "success", "data": data}

    def error(self, meaning: Meaning, message: str, state: SandboxState) -> tuple[int, Answer]:
        """An envelope with a code, under HTTP 200."""
        return 200, {"trace_id": state.new_id().replace("-", ""), "code": _CODES[meaning], "msg": message, "data": None}

    def accepted(self, view: PollView) -> Answer:
        """The task id as data."""
        return {"trace_id": view.job.request_id.replace("-", ""), "code": 0, "msg": "success", "data": view.job.task_id}

    def without_task_id(self, answer: Answer) -> Answer:
        """A success without data."""
        return {**answer, "data": ""}

    def status(self, view: PollView, state: SandboxState) -> Answer:
        """The task as data."""
        return self.envelope(self.task(view), state)

    def task(self, view: PollView) -> Answer:
        """One task as the query and the page show it."""
        words: dict[LedgerState, str] = {
            "queued": view.vary("queued", ["Queued", "Ready"]),
            "running": "Generating",
            "succeeded": "Success",
            "failed": view.vary("failed", ["Error", "Fail"]),
            "cancelled": "Fail",
        }
        return {
            "unique_id": view.job.task_id,
            "progress_desc": view.word or words[view.state],
            "err_msg": view.reason,
            "output_url": list(view.urls),
        }
