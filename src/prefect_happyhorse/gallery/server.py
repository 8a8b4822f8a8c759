"""Serving a gallery on this machine until it is interrupted."""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from prefect_happyhorse.domain.texts import harmless
from prefect_happyhorse.engine.journal.journal import Journal
from prefect_happyhorse.gallery.app import create_app
from prefect_happyhorse.gallery.reader import JournalReader

__all__ = ["HOST", "PORT", "serve"]

HOST = "127.0.0.1"
PORT = 8810
_ASK_S = 2.0


def serve(journal: Journal, *, port: int = PORT, started: Callable[[str], object] = print) -> None:
    """Serve the gallery of a journal to this machine until it is interrupted.

    Args:
        journal: The journal, which is only read.
        port: The port to listen on; 0 takes a free one.
        started: Called with the gallery's address once it listens.

    Raises:
        ValueError: When the port is in use; the message says by what.
        OSError: When the port cannot be had for another reason.
    """
    with _listen(port) as listener:
        config = uvicorn.Config(
            create_app(JournalReader(journal)),
            ws="none",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        started(f"http://{HOST}:{listener.getsockname()[1]}/")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listener])


def _listen(port: int) -> socket.socket:
    # Named as TCP, not just as a stream: only then does asyncio switch off Nagle's delay, 40 ms an answer, on what it accepts.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"Port {port} is in use{_by_whom(port)}. Give another --port, or --port 0 for a free one.") from error
        raise
    return listener


def _by_whom(port: int) -> str:
    """What is said by who listens there, where that is a gallery too."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ASK_S)
    try:
        connection.request("GET", "/api/gallery")
        served: object = json.loads(connection.getresponse().read(10_000))["gallery"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return " by another program"
    finally:
        connection.close()
    return f" by the gallery of {harmless(str(served))}: http://{HOST}:{port}/"
