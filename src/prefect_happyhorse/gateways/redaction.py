"""Show what a gateway answered, without any key that the request carried: a server may echo what it was sent."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import cast
from urllib.parse import quote

import httpx

__all__ = ["excerpt", "scrub", "shown"]

_EXCERPT_CHARS = 300
_WORD_CHARS = 100
_SECRET_HEADERS = ("authorization", "tt-api-key", "access_token")
_SECRET_FIELDS = ("secret_key", "access_token")


def excerpt(response: httpx.Response) -> str:
    """The start of an answer, without any key that the request carried."""
    return scrub(" ".join(_text(response).split()), response)[:_EXCERPT_CHARS]


def _text(response: httpx.Response) -> str:
    try:
        return response.content.decode(response.charset_encoding or "utf-8", "replace")
    except (LookupError, ValueError):
        # The gateway names an encoding that there is not, or one that is not of text.
        return response.content.decode("utf-8", "replace")


def shown(word: str, response: httpx.Response) -> str:
    """A code or status word of a gateway as errors and job states show it."""
    return scrub(word, response)[:_WORD_CHARS]


def scrub(text: str, response: httpx.Response) -> str:
    """A text that came from a gateway, without any key that the request carried: a server may echo what it was sent."""
    for secret in _secrets_of(response):
        for spelling in (secret, json.dumps(secret)[1:-1], secret.replace("/", r"\/"), quote(secret, safe=""), html.escape(secret)):
            text = text.replace(spelling, "***")
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
        body: object = json.loads(request.content)
    except (ValueError, httpx.RequestNotRead):
        return
    if isinstance(body, dict):
        sent = cast("dict[str, object]", body)
        yield from (value for name in _SECRET_FIELDS if isinstance(value := sent.get(name), str) and value)
