"""What ASGI cannot say: hold the connection, close it without an answer, or in the middle of one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["CutBody", "Dropped", "SandboxProtocol"]

_KEY = "sandbox_transport"


class SandboxProtocol(H11Protocol):
    """uvicorn's HTTP protocol that hands the connection's transport to the application."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
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


class CutBody(Response):
    """Another response whose body is interrupted: held up, cut off, or replaced by noise of the same length.

    Args:
        inner: The response.
        fraction: How much of the body comes first.
        pause: What to wait for then; None closes the connection there.
        noise: Whether the body is replaced by bytes that mean nothing.
    """

    def __init__(
        self, inner: Response, *, fraction: float = 1.0, pause: Callable[[], Awaitable[None]] | None = None, noise: bool = False
    ) -> None:
        super().__init__()
        self._inner = inner
        self._fraction = fraction
        self._pause = pause
        self._noise = noise
        self._budget = 0
        self._interrupted = False
        self._closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the inner response, interrupted."""

        async def forward(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: dict[bytes, bytes] = dict(message["headers"])
                self._budget = int(int(headers.get(b"content-length", b"0")) * self._fraction)
                await send(message)
            else:
                await self._forward_body(message, scope, send)

        # The inner response gets no messages of its own: only the end of this one closes the connection.
        await self._inner(scope, _never, forward)
        if self._closed:
            await _wait_until_gone(receive)

    async def _forward_body(self, message: Message, scope: Scope, send: Send) -> None:
        if self._closed:
            return
        body: bytes = message.get("body", b"")
        if self._noise:
            body = bytes((index * 37 + 11) % 251 for index in range(len(body)))
        if not self._interrupted and len(body) > self._budget:
            self._interrupted = True
            await send({"type": "http.response.body", "body": body[: self._budget], "more_body": True})
            if self._pause is None:
                self._closed = True
                _transport(scope).close()
                return
            await self._pause()
            body = body[self._budget :]
        self._budget -= len(body)
        await send({**message, "body": body})


async def _never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("an event that nobody sets was set")
