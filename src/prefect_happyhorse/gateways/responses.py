"""Read HTTP responses without trusting them: JSON that may be none, and places that may hold anything."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import httpx

from prefect_happyhorse.catalog import Route
from prefect_happyhorse.domain.jobs import JobStatus, Output
from prefect_happyhorse.domain.locations import locate
from prefect_happyhorse.gateways.errors import MalformedResponse
from prefect_happyhorse.gateways.redaction import as_id, excerpt, scrub

__all__ = [
    "as_text",
    "first_text",
    "json_object",
    "malformed",
    "named_job",
    "outputs_from",
    "progress_from",
    "request_id_of",
    "status_from",
    "value_at",
    "values_at",
]

_log = logging.getLogger(__name__)

# Deeper than any answer that is documented. Text in quotes is passed over, whatever brackets stand in it.
_MOST_LEVELS = 32
_BRACKET = re.compile(r"""[\[{\]}]|"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)""", re.DOTALL)
# Python reads a number of any length only where it is told to (https://docs.python.org/3/library/stdtypes.html#int-max-str-digits).
_MOST_DIGITS = 4_000

# Also where the text is cut short, so that nothing of it can be parsed, and inside of a text that is JSON itself.
_JOB = re.compile(
    r'\\*"((?:task|job|video|generation|unique)[_-]?)?(?:ids?|uuid)\\*"\s*:\s*\[?\s*(?:\\*"([^"\\]+)|(\d[\d.eE+]*))', re.IGNORECASE
)
_JOB_HEADER = re.compile(r"(?:.*-)?(?:task|job)-?id", re.IGNORECASE)

_REQUEST_ID_HEADERS = ("x-request-id", "x-dashscope-request-id", "x-oneapi-request-id", "x-trace-id")


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The response's body as a JSON object."""
    try:
        text = response.content.decode(json.detect_encoding(response.content), "surrogatepass")
        try:
            data = _parsed(text)
        except RecursionError:
            # What is nested so deeply is nothing that is read, and must not hide what is.
            data = _parsed(_shallow(text))
    except ValueError:
        # The parser's own error quotes the whole response, so it goes no further.
        data = None
    if not isinstance(data, dict):
        raise malformed("The response is not a JSON object.", response)
    return cast("dict[str, Any]", data)


def _parsed(text: str) -> object:
    return _mended(json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else digits))


def _shallow(text: str) -> str:
    """JSON with all that is nested too deeply left out."""
    parts: list[str] = []
    level = begin = 0
    for found in _BRACKET.finditer(text):
        if found[0] in "[{":
            level += 1
            if level == _MOST_LEVELS + 1:
                parts.append(text[begin : found.start()])
        elif found[0] in "]}":
            level -= 1
            if level == _MOST_LEVELS:
                parts.append('"(cut: nested too deeply)"')
                begin = found.end()
    return "".join(parts) + (text[begin:] if level <= _MOST_LEVELS else "")


def _mended(value: object) -> object:
    # Half of a surrogate pair, from a text that was cut inside a character, fits into no file and no journal.
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_mended(entry) for entry in cast("list[object]", value)]
    if isinstance(value, dict):
        return {_mended(name): _mended(entry) for name, entry in cast("dict[object, object]", value).items()}
    return value


def malformed(message: str, response: httpx.Response) -> MalformedResponse:
    """An error for a response that the gateway's documentation does not describe."""
    return MalformedResponse(message, excerpt=excerpt(response), status_code=response.status_code, request_id=request_id_of({}, response))


def value_at(data: object, path: str) -> Any:
    """The value at a dotted path inside JSON values, or None.

    Example:
        >>> value_at({"results": [{"url": "u"}]}, "results.0.url")
        'u'
    """
    for step in path.split("."):
        if isinstance(data, Mapping):
            data = cast("Mapping[str, object]", data).get(step)
        elif isinstance(data, list) and step.isdecimal():
            entries = cast("list[object]", data)
            data = entries[int(step)] if int(step) < len(entries) else None
        else:
            return None
    return data


def values_at(data: object, path: str) -> list[object]:
    """The values at a dotted path, of which a `*` stands for every entry of a list; what is not there is left out, or None in an entry."""
    head, star, rest = path.partition(".*")
    value: object = value_at(data, head)
    if star:
        entries = cast("list[object]", value) if isinstance(value, list) else []
        return [found for entry in entries for found in ((values_at(entry, rest[1:]) or [None]) if rest else [entry])]
    return [value] if value else []


def as_text(value: object) -> str | None:
    """A JSON value as text where it is a non-empty string or a whole number, else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) and value else None


def first_text(data: object, paths: Iterable[str]) -> str | None:
    """The first text that stands at one of several paths, or None."""
    return next((text for path in paths if (text := as_text(value_at(data, path))) is not None), None)


def named_job(response: httpx.Response) -> str | None:
    """The first id in a response that may be a job's, wherever it stands, or None."""
    if (header := next((value for name, value in response.headers.items() if _JOB_HEADER.fullmatch(name) and value), None)) is not None:
        return header
    named = _JOB.findall(response.content.decode(json.detect_encoding(response.content), "replace"))
    # An id that says whose it is before one that may be anything's.
    return next((text or number for _, text, number in sorted(named, key=lambda found: not found[0])), None)


def request_id_of(data: object, response: httpx.Response) -> str | None:
    """The provider's id of an HTTP exchange, from the body or the headers, or None."""
    found = first_text(data, ("request_id", "trace_id")) or first_text(response.headers, _REQUEST_ID_HEADERS)
    return None if found is None else as_id(scrub(found, response))


def status_from(word: str, words: Mapping[JobStatus, Iterable[str]]) -> JobStatus:
    """The status that a provider's word stands for; a word that is not listed is `unknown`."""
    return next((status for status, known in words.items() if word.lower() in known), JobStatus.UNKNOWN)


def progress_from(value: object) -> float | None:
    """How far a job is, from 0 to 1, or None when it does not say."""
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
    """The outputs of a finished job in order, an address that stands in several places once; one that is none loses no other."""
    values = list(found)
    read = [_output(value, route) if isinstance(value, str) else None for value in values]
    outputs: list[Output] = []
    for output in filter(None, read):
        if output.is_inline or output not in outputs:
            outputs.append(output)
    if not outputs and any(values):
        raise malformed("A result in the response is neither an http(s) address nor base64 data.", response)
    if outputs and None in read:
        _log.warning("%s: %d of %d results have no http(s) address and no data.", route.gateway, read.count(None), len(read))
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
