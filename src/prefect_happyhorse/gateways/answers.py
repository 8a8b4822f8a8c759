"""Read HTTP answers without trusting them: JSON that may be none, and places that may hold anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import httpx

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.domain.errors import ProtocolError
from prefect_happyhorse.domain.jobs import JobStatus, Output
from prefect_happyhorse.domain.locations import locate
from prefect_happyhorse.gateways.redaction import excerpt, scrub

__all__ = [
    "dig",
    "first_text",
    "json_object",
    "outputs_from",
    "progress_from",
    "protocol_error",
    "request_id_of",
    "status_from",
    "text_of",
]

_REQUEST_ID_HEADERS = ("x-request-id", "x-dashscope-request-id", "x-oneapi-request-id", "x-trace-id")


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The answer as a JSON object."""
    data = _parsed(response.content)
    if not isinstance(data, dict):
        raise protocol_error("The answer is not a JSON object.", response)
    return cast("dict[str, Any]", data)


def _parsed(content: bytes) -> object:
    """The JSON value, or None where there is none: the parser's own error holds the whole answer, so it goes no further."""
    try:
        return _mended(json.loads(content))
    except (ValueError, RecursionError):
        return None


def _mended(value: object) -> object:
    # Half of a surrogate pair, from a text that was cut inside a character, fits into no file and no journal.
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_mended(entry) for entry in cast("list[object]", value)]
    if isinstance(value, dict):
        return {_mended(name): _mended(entry) for name, entry in cast("dict[object, object]", value).items()}
    return value


def protocol_error(message: str, response: httpx.Response) -> ProtocolError:
    """An error for an answer that the gateway's documentation does not describe."""
    return ProtocolError(message, excerpt=excerpt(response), status_code=response.status_code, request_id=request_id_of({}, response))


def dig(data: object, path: str) -> Any:
    """What stands at a dotted path inside JSON values, or None.

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

    Example:
        >>> first_text({"task_id": "t-1"}, ("id", "task_id"))
        't-1'
    """
    return next((text for path in paths if (text := text_of(dig(data, path))) is not None), None)


def request_id_of(data: object, response: httpx.Response) -> str | None:
    """The provider's id of an HTTP exchange, from the body or the headers, or None."""
    found = first_text(data, ("request_id", "trace_id")) or first_text(response.headers, _REQUEST_ID_HEADERS)
    return None if found is None else scrub(found, response)


def status_from(word: str, words: Mapping[JobStatus, Iterable[str]]) -> JobStatus:
    """The status that a provider's word stands for; a word that is not listed is `unknown`."""
    return next((status for status, known in words.items() if word.lower() in known), JobStatus.UNKNOWN)


def progress_from(value: object) -> float | None:
    """How far a job is, from 0 to 1, or None when it does not say.

    Example:
        >>> progress_from("30%"), progress_from(30), progress_from(0.3), progress_from("soon")
        (0.3, 0.3, 0.3, None)
    """
    try:
        if isinstance(value, str):
            percent = float(value.strip().removesuffix("%"))
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        else:
            # A fraction is only ever written with a point; a bare 1 is one per cent.
            percent = value * 100 if isinstance(value, float) and value <= 1 else float(value)
    except (ValueError, OverflowError):
        return None
    # Also false for NaN, which no comparison holds for.
    return min(percent, 100.0) / 100 if percent >= 0 else None


def outputs_from(found: Iterable[object], route: Route, response: httpx.Response) -> tuple[Output, ...]:
    """The outputs of a finished job in order, an address that stands in several places once."""
    outputs: list[Output] = []
    for value in filter(None, found):
        output = _output(value, route) if isinstance(value, str) else None
        if output is None:
            raise protocol_error("A result stands in the answer that is neither an http(s) address nor base64 data.", response)
        if output.is_inline or output not in outputs:
            outputs.append(output)
    return tuple(outputs)


def _output(text: str, route: Route) -> Output | None:
    try:
        location = locate(text)
    except ValueError:
        return None
    if location == "web":
        return Output(kind=route.kind, url=text)
    head, _, data = text.partition(",")
    if location == "inline" and data and data.isascii() and head.lower().endswith(";base64"):
        return Output(kind=route.kind, inline=data)
    return None
