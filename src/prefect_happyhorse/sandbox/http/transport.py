"""What ASGI cannot say: hold the connection, close it without an answer, or in the middle of one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["CutBody", "Dated", "Dropped", "SandboxProtocol"]

_KEY = "sandbox_transport"


class SandboxProtocol(H11Protocol):
    """uvicorn's HTTP protocol that hands the connection's transport to the application."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] -- a TCP server gives no other kind
        """Keep the transport where every request of the connection finds it."""
        super().connection_made(transport)
        # uvicorn copies this mapping into the scope of each request: https://asgi.readthedocs.io/en/latest/specs/lifespan.html#lifespan-state
        self.app_state = {**self.app_state, _KEY: transport}


def _transport(scope: Scope) -> asyncio.Transport:
    transport = scope.get("state", {}).get(_KEY)
    if transport is None:
        raise RuntimeError("Connections can be dropped only under SandboxServer or serve(), which run uvicorn with SandboxProtocol.")
    return transport


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Dropped(Response):
    """No answer at all: the connection closes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Close the connection."""
        _transport(scope).abort()
        await _wait_until_gone(receive)


@dataclass(eq=False)
class Dated:
    """The application with the sandbox's own time in every answer, which may be ahead of the machine's."""

    app: ASGIApp
    clock: Callable[[], float]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and date its answer."""

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = (b"date", formatdate(self.clock(), usegmt=True).encode())
                message = {**message, "headers": [*message["headers"], date]}
            await send(message)

        await self.app(scope, receive, dated)


@dataclass(eq=False)
class CutBody(Response):
    """Another response whose body ends early or pauses after a fraction of it, or is replaced by noise of the same length."""

    inner: Response
    fraction: float = 1.0
    pause: Callable[[], Awaitable[None]] | None = None
    noise: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the inner response, interrupted."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self.inner(scope, receive, collect)
        body = b"".join(message.get("body", b"") for message in messages[1:])
        if self.noise:
            body = bytes((index * 37 + 11) % 251 for index in range(len(body)))
        cut = int(len(body) * self.fraction)
        await send(messages[0])
        await send({"type": "http.response.body", "body": body[:cut], "more_body": True})
        if self.pause is not None:
            await self.pause()
        elif cut < len(body):
            _transport(scope).close()
            await _wait_until_gone(receive)
            return
        await send({"type": "http.response.body", "body": body[cut:]})
