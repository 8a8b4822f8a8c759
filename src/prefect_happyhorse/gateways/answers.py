"""Read HTTP answers without trusting them: JSON that may be none, codes that may mean anything, keys that may be echoed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx

from prefect_happyhorse.catalog.routes import CodeMeaning, GatewayFacts, Route
from prefect_happyhorse.domain.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    GenerationError,
    InvalidRequest,
    ModerationRejected,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    RequestRejected,
)
from prefect_happyhorse.domain.jobs import JobStatus, Output

__all__ = [
    "dig",
    "excerpt",
    "failure",
    "first_text",
    "json_object",
    "outputs_from",
    "progress_from",
    "protocol_error",
    "request_id_of",
    "retry_after_s",
    "scrub",
    "status_from",
    "text_of",
]

_EXCERPT_CHARS = 300
_SECRET_HEADERS = ("authorization", "tt-api-key", "access_token")
_SECRET_FIELDS = ("secret_key", "access_token")
_REQUEST_ID_HEADERS = ("x-request-id", "x-dashscope-request-id", "x-oneapi-request-id", "x-trace-id")


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The answer as a JSON object.

    Args:
        response: The answer, read to its end.

    Returns:
        The object.

    Raises:
        ProtocolError: When it is not JSON, or not an object.
    """
    try:
        data = response.json()
    except (ValueError, UnicodeDecodeError) as error:
        raise protocol_error("The answer is not JSON.", response) from error
    if not isinstance(data, dict):
        raise protocol_error("The answer is JSON but not an object.", response)
    return cast("dict[str, Any]", data)


def protocol_error(message: str, response: httpx.Response) -> ProtocolError:
    """An error for an answer that the gateway's documentation does not describe.

    Args:
        message: What is wrong with the answer.
        response: The answer.

    Returns:
        The error, with the start of the answer in it.
    """
    return ProtocolError(message, excerpt=excerpt(response), status_code=response.status_code, request_id=request_id_of({}, response))


def excerpt(response: httpx.Response) -> str:
    """The start of an answer, without any key that the request carried.

    Args:
        response: The answer.

    Returns:
        At most 300 characters.
    """
    return scrub(" ".join(response.text.split()), response)[:_EXCERPT_CHARS]


def scrub(text: str, response: httpx.Response) -> str:
    """A text that came from a gateway, without any key that the request carried: a server may echo what it was sent.

    Args:
        text: The text.
        response: The answer that it came with.

    Returns:
        The text with stars in place of keys.
    """
    for secret in _secrets_of(response):
        text = text.replace(secret, "***")
    return text


def _secrets_of(response: httpx.Response) -> Iterable[str]:
    try:
        request = response.request
    except RuntimeError:
        return
    for name in _SECRET_HEADERS:
        value = request.headers.get(name, "").removeprefix("Bearer ")
        if value:
            yield value
    try:
        body = json.loads(request.content)
    except (ValueError, httpx.RequestNotRead):
        return
    for name in _SECRET_FIELDS:
        value = dig(body, name)
        if isinstance(value, str) and value:
            yield value


def dig(data: object, path: str) -> Any:
    """What stands at a dotted path inside JSON values, or None.

    Args:
        data: The JSON values.
        path: Names and positions, for example `"results.0.url"`.

    Returns:
        The value, or None when any step is missing.

    Example:
        >>> dig({"results": [{"url": "u"}]}, "results.0.url")
        'u'
    """
    for step in path.split("."):
        if isinstance(data, Mapping):
            data = cast("Mapping[str, object]", data).get(step)
        elif isinstance(data, Sequence) and not isinstance(data, str) and step.isdecimal():
            entries = cast("Sequence[object]", data)
            data = entries[int(step)] if int(step) < len(entries) else None
        else:
            return None
    return data


def text_of(value: object) -> str | None:
    """A JSON value as text where it is a non-empty string or a whole number, else None.

    Args:
        value: The value.

    Example:
        >>> text_of(40001), text_of(""), text_of({"a": 1})
        ('40001', None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) and value else None


def first_text(data: object, paths: Iterable[str]) -> str | None:
    """The first text that stands at one of several paths, or None.

    Args:
        data: The JSON values.
        paths: Where to look, in order.

    Example:
        >>> first_text({"task_id": "t-1"}, ("id", "task_id"))
        't-1'
    """
    return next((text for path in paths if (text := text_of(dig(data, path))) is not None), None)


def request_id_of(data: object, response: httpx.Response) -> str | None:
    """The provider's id of an HTTP exchange, from the body or the headers, or None.

    Args:
        data: The body as JSON values.
        response: The answer.
    """
    in_body = first_text(data, ("request_id", "trace_id"))
    return in_body or next((response.headers[name] for name in _REQUEST_ID_HEADERS if response.headers.get(name)), None)


def retry_after_s(response: httpx.Response) -> float | None:
    """How long the gateway asks to wait, in seconds, or None.

    Args:
        response: The answer; its Retry-After may be seconds or a date (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after).
    """
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        # The server's own clock, where it shows it: ours may differ.
        now = parsedate_to_datetime(response.headers["date"]) if "date" in response.headers else datetime.now(timezone.utc)
        return max(0.0, (moment - now).total_seconds())
    except (TypeError, ValueError):
        return None


_BY_STATUS: dict[int, CodeMeaning] = {401: "authentication", 402: "quota", 403: "authentication", 404: "not_found", 429: "rate_limit"}

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


def meaning_of(code: str | None, status_code: int, facts: GatewayFacts) -> CodeMeaning | None:
    """What a failure means: what the gateway documents for the code, else what HTTP says of the status.

    Args:
        code: The provider's code, where it gave one.
        status_code: The HTTP status.
        facts: The gateway's facts, with the codes it documents.

    Returns:
        The meaning, or None when neither code nor status says that it failed.
    """
    if code is not None and code in facts.codes:
        return facts.codes[code]
    if status_code >= 500:
        return "internal"
    if status_code >= 400:
        return _BY_STATUS.get(status_code, "invalid")
    return None


def failure(data: object, response: httpx.Response, facts: GatewayFacts, *, code: str | None, message: str | None) -> GenerationError | None:
    """The error that an answer stands for, or None when it is no failure.

    Args:
        data: The body as JSON values.
        response: The answer.
        facts: The gateway's facts.
        code: The provider's code, where it gave one.
        message: The provider's message, where it gave one.
    """
    meaning = meaning_of(code, response.status_code, facts)
    if meaning is None:
        return None
    kind, advice = _ERRORS[meaning]
    said = scrub(message, response) if message else excerpt(response) or "(nothing)"
    error = kind(
        f"{facts.gateway} answered {response.status_code}: {said[:_EXCERPT_CHARS]}",
        gateway=facts.gateway,
        code=code,
        status_code=response.status_code,
        request_id=request_id_of(data, response),
        money="may be spent" if meaning == "internal" else "not spent",
        advice=advice,
    )
    if isinstance(error, GatewayUnavailable):
        error.retry_after_s = retry_after_s(response)
    return error


def status_from(word: str, words: Mapping[JobStatus, Iterable[str]]) -> JobStatus:
    """The status that a provider's word stands for; a word that is not listed is `unknown`.

    Args:
        word: The provider's word.
        words: The provider's words in lower case, by status.
    """
    return next((status for status, known in words.items() if word.lower() in known), JobStatus.UNKNOWN)


def progress_from(value: object) -> float | None:
    """How far a job is, from 0 to 1, or None when it does not say.

    Args:
        value: What the provider says: `30`, `"30%"`, `"30"` or `0.3`.

    Example:
        >>> progress_from("30%"), progress_from(30), progress_from(0.3), progress_from("soon")
        (0.3, 0.3, 0.3, None)
    """
    if isinstance(value, str):
        try:
            percent = float(value.strip().removesuffix("%"))
        except ValueError:
            return None
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    else:
        # A fraction is only ever written with a point; a bare 1 is one per cent.
        percent = value * 100 if isinstance(value, float) and value <= 1 else float(value)
    # Also false for NaN, which no comparison holds for.
    return min(percent, 100.0) / 100 if percent >= 0 else None


def outputs_from(found: Iterable[object], route: Route, response: httpx.Response) -> tuple[Output, ...]:
    """The outputs of a finished job in order, an address that stands in several places once.

    Args:
        found: What stood where results may stand: addresses, data URLs, or `("base64", text)`.
        route: The route of the job.
        response: The answer.

    Raises:
        ProtocolError: When an address is none that can be fetched.
    """
    outputs: list[Output] = []
    for value in found:
        if isinstance(value, tuple):
            outputs.append(Output(kind=route.kind, inline=str(cast("tuple[object, object]", value)[1])))
        elif isinstance(value, str) and value.startswith("data:"):
            outputs.append(Output(kind=route.kind, inline=value.partition(",")[2]))
        elif isinstance(value, str) and value.lower().startswith(("http://", "https://")):
            if all(output.url != value for output in outputs):
                outputs.append(Output(kind=route.kind, url=value))
        elif value:
            raise protocol_error("A result stands in the answer that is neither an http(s) address nor data.", response)
    return tuple(outputs)
