"""What a failed call means: what the gateway documents for its code, else what HTTP says of the status."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx

from prefect_happyhorse.catalog import GatewayFacts
from prefect_happyhorse.catalog.routes import CodeMeaning
from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    GenerationError,
    InvalidRequest,
    ModerationRejected,
    QuotaExceeded,
    RateLimited,
    RequestRejected,
)
from prefect_happyhorse.gateways.redaction import excerpt, scrub, shown
from prefect_happyhorse.gateways.responses import request_id_of

__all__ = ["failure", "moderation_code", "retry_after_s"]

_MESSAGE_CHARS = 300

# Only statuses that say that the request itself was turned away (https://www.rfc-editor.org/rfc/rfc9110#section-15.5). A conflict may
# be with the very job that an earlier delivery of the same request began; a status that is not listed says nothing about work.
_BY_STATUS: dict[int, CodeMeaning] = {
    **dict.fromkeys((400, 411, 413, 414, 415, 422, 431), "invalid"),
    **dict.fromkeys((401, 403), "authentication"),
    402: "quota",
    **dict.fromkeys((404, 405), "not_found"),
    429: "rate_limit",
}
# Time-outs between a proxy and the server behind it, which may be at work: they pass, like a 5xx.
_PASSING_STATUSES = frozenset({408, 425, 499})

# Some gateways report a refusal of the content rules in words alone.
_MODERATED = re.compile(
    r"moderat|inappropriate|sensitive|nsfw|content.{0,40}violat|violat.{0,40}(content|polic|rule|guideline)|content polic|敏感|违规|不合规",
    re.IGNORECASE,
)

_ERRORS: dict[CodeMeaning, tuple[type[GenerationError], str]] = {
    "invalid": (InvalidRequest, "Change the request as the gateway says."),
    "authentication": (AuthenticationFailed, "Check the key in the GatewayCredentials block, and what it is allowed to do."),
    "moderation": (ModerationRejected, "Change the prompt or the media; the same request will be refused again."),
    "quota": (QuotaExceeded, "Top up the account or raise its quota."),
    "not_found": (RequestRejected, "Check model, base URL and paths."),
    "rate_limit": (RateLimited, "Wait, then send it again."),
    "unavailable": (GatewayUnavailable, "Wait, then send it again."),
    "internal": (GatewayUnavailable, "Look at the provider's console before sending it again."),
}


def _meaning(code: str | None, status_code: int, facts: GatewayFacts) -> CodeMeaning | None:
    if code is not None and code in facts.codes:
        return facts.codes[code]
    if status_code >= 500 or status_code in _PASSING_STATUSES:
        return "internal"
    return _BY_STATUS.get(status_code)


def failure(
    data: object, response: httpx.Response, facts: GatewayFacts, *, code: str | None, message: str | None
) -> GenerationError | None:
    """The error that a response stands for, or None when neither its code nor its status has a documented meaning."""
    meaning = _meaning(code, response.status_code, facts)
    if meaning is None:
        return None
    kind, advice = _ERRORS[meaning]
    text = scrub(message, response) if message else excerpt(response) or "(nothing)"
    error = kind(
        f"{facts.gateway} answered {response.status_code}: {text[:_MESSAGE_CHARS]}",
        gateway=facts.gateway,
        code=None if code is None else shown(code, response),
        status_code=response.status_code,
        request_id=request_id_of(data, response),
        money="may be spent" if meaning == "internal" else "not spent",
        advice=advice,
    )
    if isinstance(error, GatewayUnavailable):
        error.retry_after_s = retry_after_s(response)
    return error


def moderation_code(reason: str | None, facts: GatewayFacts) -> str | None:
    """The code of a failure that by its reason alone is the content rules': the gateway's own, where it documents one."""
    if reason is None or _MODERATED.search(reason) is None:
        return None
    return next((code for code, meaning in facts.codes.items() if meaning == "moderation"), "moderation")


def retry_after_s(response: httpx.Response) -> float | None:
    """How long a server asks to wait, in seconds, or None."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    try:
        moment = parsedate_to_datetime(value)
        # The server's own clock, where it shows it: ours may differ.
        now = parsedate_to_datetime(response.headers["date"]) if "date" in response.headers else datetime.now(timezone.utc)
        return max(0.0, (moment - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
