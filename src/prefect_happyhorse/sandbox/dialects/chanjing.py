"""Chanjing: every answer is HTTP 200, the envelope's code decides. Sources: its page on happyhorse-1.0-r2v and its public skills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from starlette.datastructures import Headers

from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect, PollView
from prefect_happyhorse.sandbox.jobs.job import Failure, LedgerState, Meaning, fingerprint

__all__ = ["Chanjing"]

# Every other meaning is a wrong parameter.
_CODES: dict[Meaning, int] = {"authentication": 10400, "rate_limit": 40001, "unsupported": 400, "internal": 50000}
_WORDS: dict[LedgerState, tuple[str, ...]] = {
    "queued": ("Queued", "Ready"),
    "running": ("Generating",),
    "succeeded": ("Success",),
    "failed": ("Error", "Fail"),
    "cancelled": ("Fail",),
}


class Chanjing(Dialect):
    """Chanjing."""

    model_key: ClassVar[str] = "model_code"
    batch_call: ClassVar[str | None] = "POST /open/v1/ai_creation/task/page"

    def account(self, headers: Headers) -> str | None:
        """The app that a token was issued to, or the token itself when it was not issued here."""
        key = self.credential(headers)
        if key in self.state.tokens:
            app_id, expires_at = self.state.tokens[key]
            return fingerprint(app_id) if self.state.now() < expires_at else None
        return super().account(headers)

    def issue_token(self, body: Mapping[str, object]) -> Answer:
        """A new token; the app's tokens before it die."""
        app_id, secret = body.get("app_id"), body.get("secret_key")
        if not isinstance(app_id, str) or not isinstance(secret, str) or not app_id or not secret:
            raise Failure("invalid", "app_id and secret_key: required, strings")
        if not self.state.settings.takes_key(secret):
            raise Failure("authentication", "app_id or secret_key is wrong")
        tokens = self.state.tokens
        tokens.update({token: (app_id, 0.0) for token, (owner, _) in tokens.items() if owner == app_id})
        token = self._hexadecimal_id()
        tokens[token] = (app_id, self.state.now() + self.state.settings.token_ttl_s)
        return self._envelope({"app_id": app_id, "access_token": token, "expire_in": int(tokens[token][1])})

    def _hexadecimal_id(self) -> str:
        return self.state.new_id().replace("-", "")

    def _envelope(self, data: object) -> Answer:
        return {"trace_id": self._hexadecimal_id(), "code": 0, "msg": "success", "data": data}

    def error(self, meaning: Meaning, message: str) -> tuple[int, Answer]:
        """An envelope with a code, under HTTP 200."""
        return 200, {**self._envelope(None), "code": _CODES.get(meaning, 40000), "msg": message}

    def accepted(self, view: PollView) -> Answer:
        """The task id as data."""
        return self._envelope(view.job.task_id)

    def without_task_id(self, answer: Answer) -> Answer:
        """A success without data."""
        return {**answer, "data": ""}

    def status(self, view: PollView) -> Answer:
        """The task as data."""
        return self._envelope(self._task(view))

    def batch(self, views: Sequence[PollView]) -> Answer:
        """A page of tasks."""
        return self._envelope({"list": [self._task(view) for view in views], "page_info": {"total_count": len(views)}})

    def _task(self, view: PollView) -> Answer:
        return {
            "unique_id": view.job.task_id,
            "progress_desc": view.word or view.vary(view.state, _WORDS[view.state]),
            "err_msg": view.reason,
            "output_url": list(view.urls),
        }
