"""What a failed call means: what the gateway documents for its code, else what HTTP says of the status."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx

from prefect_happyhorse.catalog import GatewayFacts
from prefect_happyhorse.catalog.facts import CodeMeaning
from prefect_happyhorse.gateways.errors import CallError, CallRejected, CallUnavailable
from prefect_happyhorse.gateways.redaction import CODE_CHARS, excerpt, sentence, shown
from prefect_happyhorse.gateways.responses import request_id_of

__all__ = ["failure", "moderation_code", "retry_after_s"]

_LONGEST_WAIT_S = 300.0

# Only statuses that say that the request itself was turned away (https://www.rfc-editor.org/rfc/rfc9110#section-15.5). A conflict may
# be with the very job that an earlier delivery of the same request began; a status that is not listed says nothing about work.
_BY_STATUS: dict[int, CodeMeaning] = {
    **dict.fromkeys((400, 411, 413, 414, 415, 422, 431), "invalid"),
    **dict.fromkeys((401, 403), "authentication"),
    402: "quota",
    **dict.fromkeys((404, 405), "not_found"),
    429: "rate_limit",
    # Time-outs between a proxy and the server behind it, which may be at work: they pass, like a 5xx.
    **dict.fromkeys((408, 425, 499, *range(500, 1000)), "internal"),
}

# Some gateways report a refusal of the content rules in words alone.
_MODERATED = re.compile(
    r"moderat|inappropriate|sensitive|nsfw|content.{0,40}violat|violat.{0,40}(content|polic|rule|guideline)|content polic|敏感|违规|不合规",
    re.IGNORECASE,
)


def failure(data: object, response: httpx.Response, facts: GatewayFacts, *, code: str | None, message: str | None) -> CallError | None:
    """The error that a response stands for, or None when neither its code nor its status has a documented meaning."""
    meaning = facts.codes.get(code or "") or _BY_STATUS.get(response.status_code)
    if meaning is None:
        return None
    said = sentence(message, response) if message else excerpt(response) or "(nothing)"
    text = f"{facts.gateway} answered {response.status_code}: {said}"
    code = None if code is None else shown(code, response, CODE_CHARS)
    status_code, request_id = response.status_code, request_id_of(data, response)
    if meaning in {"rate_limit", "unavailable", "internal"}:
        return CallUnavailable(
            text,
            may_have_acted=meaning == "internal",
            rate_limited=meaning == "rate_limit",
            retry_after_s=retry_after_s(response),
            code=code,
            status_code=status_code,
            request_id=request_id,
        )
    return CallRejected(text, meaning=meaning, code=code, status_code=status_code, request_id=request_id)


def moderation_code(reason: str | None, facts: GatewayFacts) -> str | None:
    """The code of a failure that by its reason alone is the content rules': the gateway's own, where it documents one."""
    if reason is None or _MODERATED.search(reason) is None:
        return None
    return next((code for code, meaning in facts.codes.items() if meaning == "moderation"), "moderation")


def retry_after_s(response: httpx.Response) -> float | None:
    """How long a server asks to wait, in seconds up to five minutes, or None: a job must not be left alone for its life by a number."""
    value = response.headers.get("retry-after", "").strip()
    if not value.isascii():
        return None
    try:
        seconds = float(value)
        return min(seconds, _LONGEST_WAIT_S) if math.isfinite(seconds) and seconds >= 0 else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
        # The server's own clock, where it shows it: ours may differ.
        now = parsedate_to_datetime(response.headers["date"]) if "date" in response.headers else datetime.now(timezone.utc)
        return min(max(0.0, (moment - now).total_seconds()), _LONGEST_WAIT_S)
    except (TypeError, ValueError, OverflowError):
        return None
