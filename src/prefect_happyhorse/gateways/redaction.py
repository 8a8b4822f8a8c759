"""Show what a gateway answered without any secret that the request carried: a server may echo what it was sent."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import cast
from urllib.parse import quote

import httpx

__all__ = ["excerpt", "mark_secret", "scrub", "shown"]

_EXCERPT_CHARS = 300
_WORD_CHARS = 100
_EXTENSION = "prefect_happyhorse.secrets"
_SECRET_FIELDS = ("secret_key", "access_token")


def mark_secret(request: httpx.Request, secret: str) -> None:
    """Remember a secret that stands in a request's headers, so that nothing shows it."""
    request.extensions = {**request.extensions, _EXTENSION: (*request.extensions.get(_EXTENSION, ()), secret)}


def excerpt(response: httpx.Response) -> str:
    """The start of a response, without any secret that the request carried."""
    return scrub(" ".join(_text(response).split()), response)[:_EXCERPT_CHARS]


def _text(response: httpx.Response) -> str:
    try:
        return response.content.decode(response.charset_encoding or "utf-8", "replace")
    except (LookupError, ValueError):
        # The gateway names an encoding that there is not, or one that is not of text.
        return response.content.decode("utf-8", "replace")


def shown(word: str, response: httpx.Response) -> str:
    """A code or status word of a gateway as errors and snapshots show it."""
    return scrub(word, response)[:_WORD_CHARS]


def scrub(text: str, response: httpx.Response) -> str:
    """A text that came from a gateway, without any secret that the request carried."""
    for secret in _secrets_of(response):
        for spelling in (secret, json.dumps(secret)[1:-1], secret.replace("/", r"\/"), quote(secret, safe=""), html.escape(secret)):
            text = text.replace(spelling, "***")
    return text


def _secrets_of(response: httpx.Response) -> Iterable[str]:
    try:
        request = response.request
    except RuntimeError:
        return
    yield from request.extensions.get(_EXTENSION, ())
    try:
        body: object = json.loads(request.content)
    except (ValueError, httpx.RequestNotRead):
        return
    if isinstance(body, dict):
        sent = cast("dict[str, object]", body)
        yield from (value for name in _SECRET_FIELDS if isinstance(value := sent.get(name), str) and value)
