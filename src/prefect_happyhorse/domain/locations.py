"""What kind of place an input medium lies in, told from its text alone."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["STORE_SCHEMES", "Location", "locate"]

Location = Literal["web", "store", "local", "inline"]

STORE_SCHEMES = ("abfs", "abfss", "adl", "az", "file", "gcs", "gs", "local", "memory", "oss", "r2", "s3", "s3a", "webdav")
"""The fsspec schemes that media may be read from: object stores, local disk and memory."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]+):")


def locate(text: str) -> Location:
    """Say what kind of place a medium lies in.

    Raises:
        ValueError: When the scheme is none that media can be read from, or the address names no host.

    Example:
        >>> locate("https://example.com/horse.png"), locate("s3://pictures/horse.png"), locate("horse.png")
        ('web', 'store', 'local')
    """
    match = _SCHEME.match(text)
    # One letter before the colon is a Windows drive; the pattern asks for two.
    if match is None:
        if not text.strip():
            raise ValueError("is empty; give an http(s) URL, an fsspec URL or a local path")
        return "local"
    scheme = match.group(1).lower()
    if scheme in {"http", "https"}:
        # An IPv6 address whose bracket is not closed is none.
        with suppress(ValueError):
            if urlsplit(text).hostname:
                return "web"
        raise ValueError("is a web address without a host")
    if scheme == "data":
        return "inline"
    if scheme in STORE_SCHEMES:
        return "store"
    raise ValueError(f"has the scheme {scheme!r}, which must be http, https, {', '.join(STORE_SCHEMES)}, or none for a local path")
