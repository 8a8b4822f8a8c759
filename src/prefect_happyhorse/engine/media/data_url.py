"""Bytes that come as text: in a data URL, or as base64 alone."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

__all__ = ["decode", "inline_length"]

_HEAD = re.compile(r"data:(?P<parameters>[^,]*),", re.IGNORECASE)
_STEP_CHARS = 1024 * 1024


def decode(text: str, *, strict: bool) -> Iterator[bytes]:
    """The bytes of a data URL or of base64 alone, a megabyte at a time; ValueError where they are damaged.

    Unless it is strict, line breaks are skipped and padding may be missing: some gateways send base64 so, but few accept it.

    Example:
        >>> list(decode("data:image/png;base64,aG9y c2U", strict=False)), list(decode("data:,white%20horse", strict=True))
        ([b'hor', b'se'], [b'white horse'])
    """
    head = _HEAD.match(text)
    if head is not None and not head["parameters"].lower().endswith(";base64"):
        yield unquote_to_bytes(text[head.end() :])
        return
    left = ""
    for start in range(head.end() if head else 0, len(text), _STEP_CHARS):
        step = text[start : start + _STEP_CHARS]
        step = left + (step if strict else "".join(step.split()))
        whole = len(step) - len(step) % 4
        left = step[whole:]
        yield base64.b64decode(step[:whole], validate=True)
    if left:
        yield base64.b64decode(left if strict else left + "=" * (-len(left) % 4), validate=True)


def inline_length(data_url: str) -> int:
    """How many bytes a data URL of base64 holds.

    Example:
        >>> inline_length("data:image/png;base64,aG9yc2U=")
        5
    """
    begin = data_url.find(",") + 1
    return (len(data_url) - begin) * 3 // 4 - data_url[-2:].count("=")
