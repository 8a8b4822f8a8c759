"""What a fault makes of an answer: the gateway's own error, somebody else's page, half an answer, or none."""

from __future__ import annotations

import json

from starlette.responses import HTMLResponse, JSONResponse, Response

from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect
from prefect_happyhorse.sandbox.faults.faults import FaultRule
from prefect_happyhorse.sandbox.faults.retry_after import retry_after
from prefect_happyhorse.sandbox.http.transport import Dropped
from prefect_happyhorse.sandbox.jobs.job import Meaning
from prefect_happyhorse.sandbox.jobs.state import SandboxState

__all__ = ["MEANINGS", "FaultAnswers"]

_PAGE = "<!doctype html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
MEANINGS: dict[str, tuple[Meaning, str]] = {
    "refuse": ("invalid", "the request was refused"),
    "unauthorized": ("authentication", "the key is not valid"),
    "quota": ("quota", "the balance is used up"),
    "throttle": ("rate_limit", "too many requests"),
    "moderation": ("moderation", "the content may violate the rules"),
    "error_in_200": ("internal", "internal error"),
    "http": ("internal", "internal error"),
}
"""What the kinds that answer with the gateway's own error mean, and how they say it by default."""


class FaultAnswers:
    """Answers of one gateway with a fault in them.

    Args:
        dialect: How the gateway speaks.
        state: What the sandbox knows.
    """

    def __init__(self, dialect: Dialect, state: SandboxState) -> None:
        self._dialect = dialect
        self._state = state

    async def before(self, rule: FaultRule) -> Response | None:
        """What a rule does before the call is looked at."""
        if rule.kind == "stall_before":
            await self._state.stall(rule.seconds)
        return Dropped() if rule.kind == "drop_before" else None

    async def around(self, rule: FaultRule, answer: Answer) -> Response:
        """What a rule makes of an answer that is ready to go."""
        if rule.kind == "stall_after":
            await self._state.stall(rule.seconds)
        return self.instead(rule, answer) or JSONResponse(answer)

    def instead(self, rule: FaultRule, answer: Answer | None = None) -> Response | None:
        """What comes in place of an answer."""
        if rule.kind == "garbage":
            text = json.dumps(answer or {"data": "nothing was accepted"})
            return Response(text[: max(1, len(text) * 2 // 3)], media_type="application/json")
        if rule.kind == "html" or (rule.kind == "http" and rule.body == "html"):
            status = rule.status if rule.kind == "http" else 200
            return HTMLResponse(_PAGE.format("Bad gateway" if status > 200 else "Welcome"), status, retry_after(rule))
        if rule.kind in {"drop_before", "drop_after"}:
            return Dropped()
        if rule.kind == "no_task_id":
            return JSONResponse({})
        if rule.kind not in MEANINGS:
            return None
        meaning, message = MEANINGS[rule.kind]
        status, body = self._dialect.error(meaning, rule.message or message, self._state)
        return JSONResponse(body, {"http": rule.status, "error_in_200": 200}.get(rule.kind, status), retry_after(rule))
