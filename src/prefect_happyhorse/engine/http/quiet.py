"""Keep the HTTP libraries' own log quiet about the package's requests: it shows whole addresses, with the signatures in them."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["quiet_http_log"]

# A logger's filters do not see the records of the loggers below it, so each that writes is named.
_NAMES = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")
_LOGGERS = tuple(map(logging.getLogger, _NAMES))
_IS_OURS: ContextVar[bool] = ContextVar("_IS_OURS", default=False)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not _IS_OURS.get()


@contextmanager
def quiet_http_log() -> Generator[None, None, None]:
    """Drop what httpx and httpcore log in this context; the requests of other clients are logged as ever."""
    for logger in _LOGGERS:
        # A logging configuration that came later may have dropped it.
        if _is_not_ours not in logger.filters:
            logger.addFilter(_is_not_ours)
    _IS_OURS.set(True)
    try:
        yield
    finally:
        # Not by its token, which fits this context alone: a request that is abandoned is closed in another.
        _IS_OURS.set(False)
