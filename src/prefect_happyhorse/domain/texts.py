"""Texts of others as they can be shown: without what moves a terminal, and without what opens an address."""

from __future__ import annotations

import re

__all__ = ["harmless", "without_queries"]

# Controls, but for tab and line feed; ends of lines that no editor shows; and what turns the direction of what follows.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Inside JSON a "&" may be written as a \u0026. Chinese punctuation ends an address, since no space follows it.
_QUERY = re.compile(r"(https?:\\?/\\?/[^\s?\"'<>]+)\?(?:[^\s\"'<>\\\u3000-\u303f\uff00-\uff20]|\\u00[0-9a-f]{2}|\\/)*", re.IGNORECASE)


def harmless(text: str, *, in_json: bool = False) -> str:
    r"""A text with its control characters written out, as Python or as JSON writes them.

    Example:
        >>> print(harmless("\x1b[2Jdone"), harmless("\x9b2J", in_json=True))
        \x1b[2Jdone \u009b2J
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}" if in_json else ascii(found[0])[1:-1], text)


def without_queries(text: str) -> str:
    """A text with the query of every web address in it replaced: that is where signatures and tokens stand.

    Example:
        >>> without_queries("See https://example.com/horse.mp4?Expires=1&Signature=s there.")
        'See https://example.com/horse.mp4?… there.'
    """
    return _QUERY.sub(r"\1?…", text)
