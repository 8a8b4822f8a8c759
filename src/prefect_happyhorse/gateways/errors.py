"""How a call to a gateway can fail, and what that means for the job that the call was about.

    CallError
    ├── CallRejected        the gateway turned the call down, and did nothing
    │   └── JobUnknown      it says that it does not know the job
    ├── CallUnavailable     the gateway did not answer the call; `may_have_acted` says whether it may have done what was asked
    └── MalformedResponse   the response is none that the gateway's documentation describes

None of these reaches a user: a refused key means that a submit bought nothing, and says nothing about a job that is paid for. So
`submit_error` and `poll_error` say what each means for what was called.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from prefect_happyhorse.catalog.facts import CodeMeaning
from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    GenerationError,
    InvalidRequest,
    JobExpired,
    ModerationRejected,
    Money,
    PollRejected,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    RequestRejected,
)

__all__ = ["CallError", "CallRejected", "CallUnavailable", "JobUnknown", "MalformedResponse", "poll_error", "submit_error"]


@dataclass(eq=False)
class CallError(Exception):
    """A call to a gateway failed."""

    message: str
    _: KW_ONLY
    code: str | None = None
    status_code: int | None = None
    request_id: str | None = None
    task_id: str | None = None
    excerpt: str = ""
    advice: str | None = None


@dataclass(eq=False)
class CallRejected(CallError):
    """When the gateway turned the call down, and did nothing."""

    meaning: CodeMeaning = field(default="invalid", kw_only=True)


class JobUnknown(CallRejected):
    """When the gateway says that it does not know the job."""


@dataclass(eq=False)
class CallUnavailable(CallError):
    """When the gateway did not answer the call: unreachable, overloaded, broken, or asking for fewer calls."""

    may_have_acted: bool = field(default=True, kw_only=True)
    rate_limited: bool = field(default=False, kw_only=True)
    retry_after_s: float | None = field(default=None, kw_only=True)


@dataclass(eq=False)
class MalformedResponse(CallError):
    """When the response is none that the gateway's documentation describes."""


_CHECK_THE_KEY = "Check the key in the GatewayCredentials block, and what it is allowed to do."
_LOOK_FIRST = "Look at the provider's console before sending it again."
_UNTOUCHED = "The job was not touched by this: run the same request again, and it is polled, not bought again."

_REJECTED: dict[CodeMeaning, tuple[type[RequestRejected], str]] = {
    "invalid": (InvalidRequest, "Change the request as the gateway says."),
    "authentication": (AuthenticationFailed, _CHECK_THE_KEY),
    "moderation": (ModerationRejected, "Change the prompt or the media; the same request will be refused again."),
    "quota": (QuotaExceeded, "Top up the account or raise its quota."),
    "not_found": (RequestRejected, "Check model, base URL and paths."),
}


def submit_error(error: CallError, *, gateway: str) -> GenerationError:
    """What a failed call means for a submit: no money is spent only where the gateway certainly did nothing."""
    facts = _facts(error, gateway)
    if isinstance(error, CallRejected):
        kind, advice = _REJECTED[error.meaning]
        return kind(error.message, advice=error.advice or advice, **facts)
    if isinstance(error, CallUnavailable):
        advice = _LOOK_FIRST if error.may_have_acted else error.advice or "Wait, then send it again."
        return _unavailable(error, Money.MAY_BE_SPENT if error.may_have_acted else Money.NOT_SPENT, advice, facts)
    return ProtocolError(error.message, excerpt=error.excerpt, money=Money.MAY_BE_SPENT, advice=_LOOK_FIRST, **facts)


def poll_error(error: CallError, *, gateway: str) -> GenerationError:
    """What a failed call means for a job that a gateway accepted: it is paid for, and was not touched."""
    facts = _facts(error, gateway)
    if isinstance(error, JobUnknown):
        message = f"{gateway} does not know the job any more: {error.message}"
        return JobExpired(message, advice="Look for the result in the provider's console.", **facts)
    if isinstance(error, CallRejected):
        return PollRejected(error.message, advice=_CHECK_THE_KEY if error.meaning == "authentication" else _UNTOUCHED, **facts)
    if isinstance(error, CallUnavailable):
        return _unavailable(error, Money.SPENT, _UNTOUCHED, facts)
    return ProtocolError(error.message, excerpt=error.excerpt, money=Money.SPENT, advice=_UNTOUCHED, **facts)


def _unavailable(error: CallUnavailable, money: Money, advice: str, facts: dict[str, Any]) -> GatewayUnavailable:
    kind = RateLimited if error.rate_limited else GatewayUnavailable
    answer = f" Answer: {error.excerpt[:200]!r}" if error.excerpt else ""
    return kind(error.message + answer, retry_after_s=error.retry_after_s, money=money, advice=advice, **facts)


def _facts(error: CallError, gateway: str) -> dict[str, Any]:
    names = ("code", "status_code", "request_id", "task_id")
    return {"gateway": gateway, **{name: getattr(error, name) for name in names}}
