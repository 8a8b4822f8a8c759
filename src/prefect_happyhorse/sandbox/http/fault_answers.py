"""What a fault makes of a call: the gateway's own error, somebody else's page, half an answer, or none."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from prefect_happyhorse.sandbox.dialects.base import Answer, Dialect
from prefect_happyhorse.sandbox.faults.rules import FaultRule
from prefect_happyhorse.sandbox.http.transport import Dropped
from prefect_happyhorse.sandbox.jobs.job import Job, Meaning

__all__ = ["MEANINGS", "FaultAnswers", "can_strike"]

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


def can_strike(rule: FaultRule, job: Job | None, now: float) -> bool:
    """Whether a rule means anything for a poll of a job."""
    if rule.kind not in {"unknown_status", "vanish", "moderation", "fail_job", "empty_result", "backwards"}:
        return True
    if job is None:
        return False
    if rule.kind in {"moderation", "fail_job"}:
        return job.state(now) in {"queued", "running", "succeeded"} and job.reported != "succeeded"
    if rule.kind == "empty_result":
        return job.state(now) == "succeeded"
    return job.reported in {"running", "succeeded"} if rule.kind == "backwards" else True


class FaultAnswers:
    """Answers of one gateway with a fault in them."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    async def before(self, rule: FaultRule | None, request: Request) -> Response | None:
        """What a rule answers before the call is carried out; None when it is carried out."""
        if rule is None:
            return None
        if rule.kind == "stall_before":
            await self._dialect.state.stall(rule.seconds)
            # Whoever has hung up before the gateway began is not charged.
            return Dropped() if await request.is_disconnected() else None
        return None if rule.accepts else self._instead(rule)

    async def after(self, rule: FaultRule | None, answer: Answer) -> Response:
        """What a rule makes of an answer that is ready to go."""
        if rule is not None and rule.kind == "stall_after":
            await self._dialect.state.stall(rule.seconds)
        if rule is not None and rule.kind == "no_task_id":
            return JSONResponse(self._dialect.without_task_id(answer))
        return (self._instead(rule, answer) if rule is not None else None) or JSONResponse(answer)

    def _instead(self, rule: FaultRule, answer: Answer | None = None) -> Response | None:
        """What comes in place of an answer."""
        if rule.kind == "garbage":
            text = json.dumps(answer or {"data": "nothing was accepted"})
            return Response(text[: max(1, len(text) * 2 // 3)], media_type="application/json")
        if rule.kind == "html" or (rule.kind == "http" and rule.body == "html"):
            status = rule.status if rule.kind == "http" else 200
            return HTMLResponse(_PAGE.format("Bad gateway" if status > 200 else "Welcome"), status, rule.headers())
        if rule.kind in {"drop_before", "drop_after"}:
            return Dropped()
        if rule.kind == "no_task_id":
            return JSONResponse({})
        # A poll that finds its job failed by moderation is itself a success.
        if rule.kind not in MEANINGS or (rule.kind == "moderation" and rule.at == "poll"):
            return None
        meaning, message = MEANINGS[rule.kind]
        status, body = self._dialect.error(meaning, rule.message or message)
        return JSONResponse(body, {"http": rule.status, "error_in_200": 200}.get(rule.kind, status), rule.headers())
