"""What a gateway answered as it may be kept and shown: within bounds, harmless, and without any secret of the account.

A server may echo what it was sent, and may say anything at any length. Everything that it says comes through here; only the addresses of
results do not, since they are needed as they are.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable
from functools import lru_cache
from html.entities import codepoint2name
from typing import Any, cast

import httpx

from prefect_happyhorse.domain.texts import harmless, without_queries

__all__ = ["CODE_CHARS", "ID_RULE", "as_id", "as_usage", "excerpt", "holds_secret", "mark_secret", "scrub", "sentence", "shown"]

CODE_CHARS = 200
ID_RULE = "1 to 256 characters of printable ASCII without spaces"

_EXCERPT_CHARS = 300
_LOOKED_AT_CHARS = 64 * 1024
_WORD_CHARS = 100
_SENTENCE_CHARS = 2_000
_ID = re.compile(r"[!-~]{1,256}")
_USAGE_DEPTH = 8
_USAGE_BYTES = 16 * 1024
_WHOLE_NUMBERS = range(-(2**63), 2**63)
# A shorter secret, of a sandbox for example, may stand in an id by chance.
_SECRET_CHARS = 12
_HEAD_CHARS = 128
_MOST_REST = 60_000
_EXTENSION = "prefect_happyhorse.secrets"
_SECRET_FIELDS = ("secret_key", "access_token")


def mark_secret(request: httpx.Request, *secrets: str) -> None:
    """Remember secrets of the account that a request is made for, so that nothing shows them."""
    request.extensions = {**request.extensions, _EXTENSION: (*request.extensions.get(_EXTENSION, ()), *secrets)}


def excerpt(response: httpx.Response) -> str:
    """The start of a response."""
    text = " ".join(_text(response).split())
    looked_at = scrub(text[:_LOOKED_AT_CHARS], response)
    if len(text) > _LOOKED_AT_CHARS and "***" in looked_at:
        # Where nearly all of it was secret, the start shows what came last, which may be one that is cut in two.
        looked_at = looked_at[: looked_at.rfind("***") + 3]
    return without_queries(looked_at[:_EXCERPT_CHARS])


def _text(response: httpx.Response) -> str:
    try:
        return response.content.decode(response.charset_encoding or "utf-8", "replace")
    except (LookupError, ValueError):
        # The gateway names an encoding that there is not, or one that is not of text.
        return response.content.decode("utf-8", "replace")


def shown(word: str, response: httpx.Response, most: int = _WORD_CHARS) -> str:
    """A code or status word of a gateway as errors and snapshots show it."""
    return harmless(scrub(word, response)[:most])[:most]


def sentence(text: str, response: httpx.Response) -> str:
    """A message or reason of a gateway as errors and snapshots show it."""
    text = scrub(text, response)
    cut = text if len(text) <= _SENTENCE_CHARS else f"{text[:_SENTENCE_CHARS]}… ({len(text)} characters)"
    return harmless(without_queries(cut))


def as_id(text: str) -> str | None:
    """A text that can be kept as an id and put into a call, else None."""
    return text if _ID.fullmatch(text) else None


def holds_secret(text: str, response: httpx.Response) -> bool:
    """Whether one of the account's secrets stands in a text that has to be kept as it is or not at all."""
    return any(pattern.search(text) for secret in _secrets_of(response) if len(secret) >= _SECRET_CHARS for pattern in _patterns(secret))


def as_usage(value: dict[str, Any], response: httpx.Response) -> tuple[dict[str, Any], list[str]]:
    """What a gateway says that it counted, within bounds; and how it was cut, where it was."""
    cuts: list[str] = []
    kept: dict[str, Any] = {}
    left = _USAGE_BYTES - 100
    for name, entry in value.items():
        told, held = sentence(name, response), _bounded(entry, response, _USAGE_DEPTH - 1, cuts)
        if (size := len(json.dumps({told: held}))) > left:
            held = _cut(f"{len(json.dumps(held)):,} characters", cuts)
            size = len(json.dumps({told: held}))
        if size > left:
            kept["…"] = _cut("16 KB are kept", cuts)
            break
        left -= size
        kept[told] = held
    return kept, cuts


def _bounded(value: object, response: httpx.Response, levels: int, cuts: list[str]) -> object:
    if isinstance(value, str):
        return sentence(value, response)
    if isinstance(value, (dict, list)) and levels == 0:
        return _cut(f"nested more than {_USAGE_DEPTH} deep", cuts)
    if isinstance(value, list):
        return [_bounded(entry, response, levels - 1, cuts) for entry in cast("list[object]", value)]
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value).items()
        return {sentence(name, response): _bounded(entry, response, levels - 1, cuts) for name, entry in entries}
    # What JSON cannot write, or no database holds as a number.
    odd = (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and value not in _WHOLE_NUMBERS)
    return sentence(str(value), response) if odd else value


def _cut(what: str, cuts: list[str]) -> str:
    cuts.append(what)
    return f"(cut: {what})"


def scrub(text: str, response: httpx.Response) -> str:
    """A text that came from a gateway, without any secret of the account."""
    # One secret may stand in another.
    for secret in sorted(_secrets_of(response), key=len, reverse=True):
        text = text.replace(secret, "***")
        for pattern in _patterns(secret):
            text = pattern.sub("***", text)
    return text


@lru_cache(maxsize=64)
def _patterns(secret: str) -> tuple[re.Pattern[str], ...]:
    """What finds a secret in the spellings of JSON, URLs, HTML and base64, and also where it is broken over lines.

    Of a long one the head is looked for, and what may be the rest goes with it: to make an expression of a thousand letters takes a second.
    """
    secret, rest = secret[:_HEAD_CHARS], len(secret) - _HEAD_CHARS
    spelled = r"\s{0,3}".join(map(_spellings, secret)) + (rf"[\s\S]{{0,{min(6 * rest, _MOST_REST)}}}" if rest > 0 else "")
    if len(secret) < _SECRET_CHARS:
        return (re.compile(spelled),)
    found = [re.compile(spelled, re.IGNORECASE)]
    data = secret.encode("utf-8", "surrogatepass")
    # What stands before the secret, such as a user's name, moves it by one or two bytes, and shares its first and last digits.
    for moved, shared in ((0, 0), (1, 2), (2, 3)):
        digits = base64.b64encode(bytes(moved) + data).decode()[shared : (moved + len(data)) * 8 // 6]
        tail = r"[A-Za-z0-9+/=_%\\-]*" if rest > 0 else ""
        found.append(re.compile("".join(_BASE64.get(digit, digit) for digit in digits) + tail))
    return tuple(found)


# With what stands for them in addresses, and as JSON may escape them.
_BASE64 = {"+": r"(?:[+-]|%2[bB]|\\u002[bB])", "/": r"(?:\\?/|_|%2[fF])"}
_NAMES = {chr(code): name for code, name in codepoint2name.items()} | {"'": "apos"}


def _spellings(char: str) -> str:
    code, encoded = ord(char), char.encode("utf-8", "surrogatepass")
    amp = "&(?:amp;)?"
    ways = [
        rf"\\{{0,8}}{re.escape(char)}",
        rf"\\{{1,8}}(?:u{code:04x}|x{code:02x})",
        "".join(f"%(?:25)?{byte:02x}" for byte in encoded),
        rf"{amp}#(?:0*{code}|x0*{code:x});",
        *([f"{amp}{_NAMES[char]};"] if char in _NAMES else []),
    ]
    # Hexadecimal digits come in either case, whatever becomes of the rest.
    first, *others = ways
    return f"(?:{first}|(?i:{'|'.join(others)}))"


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
